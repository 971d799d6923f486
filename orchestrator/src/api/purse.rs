//! Who pays for a request: whoever has proven who it is, for itself; strangers, those of one address together. So what strangers do costs
//! nobody who is known anything, though they come from where agents come from. An agent that has not enrolled is known by its token: not
//! whether it is good, but that the service has made it, which nothing needs to be looked up for.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::Method;
use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::response::{IntoResponse, Response};
use protocol::Digest;
use protocol::control::problem::{Code, Problem};

use super::Api;
use super::caller::{Certificate, Peer, enrolling, known, within_pace};
use super::places::Proof;
use super::problem::{Answered, Refusal};
use super::shares::Held;
use crate::identity::Who;

/// Bytes of an answer that is counted until it was taken. There may be as many small ones as a connection has requests.
const LARGE: u64 = 16 << 10;

/// Who pays.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Purse {
    /// Strangers at this address.
    Peer(IpAddr),
    /// Whoever has this key, over which the service's own authority has issued a certificate: an agent, mostly.
    Key(Digest),
    /// Whoever has this enrolment token, by its digest.
    Enrolling(Digest),
    /// Somebody, or their platform.
    Person(Who),
}

/// Who pays for this request.
pub(super) fn of(api: &Api, request: Request) -> (Purse, Request) {
    let shown = request.extensions().get::<Certificate>().map(|certificate| &certificate.0);
    if let Some(shown) = shown.filter(|shown| shown.is_ours && shown.ends > Instant::now()) {
        return (Purse::Key(shown.key.clone()), request);
    }
    let peer = Purse::Peer(Peer::address(&request));
    let proves = shown.is_some() || [AUTHORIZATION, COOKIE].iter().any(|name| request.headers().contains_key(name));
    if !proves {
        return (peer, request);
    }
    let (mut parts, body) = request.into_parts();
    if let Some(token) = enrolling(&parts, api) {
        // Its connection keeps no place by that: void tokens are in wrong hands, too.
        return (Purse::Enrolling(token), Request::from_parts(parts, body));
    }
    // Whoever is refused here is a stranger for now, and is told why where it matters who it is.
    let Ok(known) = known(&parts, api) else { return (peer, Request::from_parts(parts, body)) };
    if let Some(proof) = parts.extensions.get::<Proof>() {
        proof.is_given();
    }
    let purse = Purse::Person(known.who.clone());
    // Whoever asks next who it is need not look again.
    parts.extensions.insert(known);
    (purse, Request::from_parts(parts, body))
}

/// Counts a request.
pub(super) fn pace(api: &Api, purse: &Purse) -> Answered<()> {
    within_pace(api.purses.ask(purse))
}

/// Counts a large answer until the other end has taken it; instead of one that is too many there is a refusal, and nothing of it is kept.
pub(super) fn hold(api: &Api, purse: Purse, method: &Method, mut answer: Response) -> Response {
    // What strangers are given without being asked who they are is there once for all of them.
    let is_shared = matches!(purse, Purse::Peer(_)) && matches!(*method, Method::GET | Method::HEAD);
    let Some(bytes) = answer.body().size_hint().exact().filter(|bytes| *bytes > LARGE && !is_shared) else {
        return answer;
    };
    let share = usize::try_from(bytes).ok().and_then(|bytes| api.answers.take(purse, bytes));
    let Some(share) = share else {
        let detail = "answers to this caller wait to be taken, and there may be no more of them; \
                      whatever was asked for is done, where it was to do something";
        let problem = Problem::new(Code::TooMany, detail).with_hint("read the answers before; then ask again");
        return Refusal::from(problem.retry_after(1)).into_response();
    };
    let held: Held = Arc::new(share);
    answer.extensions_mut().insert(held);
    answer
}
