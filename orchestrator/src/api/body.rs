//! What a request may say: JSON of a bounded size, without a key that is unknown or doubled, read in a bounded time.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use protocol::control::agent::{Enrol, MAX_BODY, MAX_EVENTS, MAX_REPORT, MAX_TEXT, Report};
use protocol::control::problem::{Code, Problem};
use protocol::control::run::{Cancel, ConfirmDeath, MAX_NEW_RUN, MAX_REASON, NewRun, Nothing, Revoke};
use serde::de::DeserializeOwned;

use super::Api;
use super::problem::{Answered, Refusal, start};
use crate::text::printable;

/// What can be a request's body.
pub(super) trait Incoming: DeserializeOwned {
    /// What it is, for messages.
    const WHAT: &'static str;
    /// Its largest size in bytes.
    const MOST: usize = MAX_BODY;

    /// What a request without a body means.
    fn without_body() -> Option<Self> {
        None
    }

    /// Checks what the types alone do not say.
    fn check(&self) -> Answered<()> {
        Ok(())
    }
}

fn rule(holds: bool, broken: impl FnOnce() -> String) -> Answered<()> {
    if holds { Ok(()) } else { Err(Refusal::new(Code::BadRequest, broken())) }
}

impl Incoming for NewRun {
    const WHAT: &'static str = "the request for a run";
    const MOST: usize = MAX_NEW_RUN;

    fn check(&self) -> Answered<()> {
        NewRun::check(self).map_err(|error| Refusal::new(Code::BadRequest, format!("{}: {error}", Self::WHAT)))
    }
}

impl Incoming for Cancel {
    const WHAT: &'static str = "the request to cancel";

    fn without_body() -> Option<Self> {
        Some(Cancel::default())
    }

    fn check(&self) -> Answered<()> {
        let len = self.reason.as_ref().map_or(0, String::len);
        rule(len <= MAX_REASON, || format!("`reason` has {len} bytes, at most {MAX_REASON} are kept"))
    }
}

impl Incoming for ConfirmDeath {
    const WHAT: &'static str = "the confirmation";

    fn check(&self) -> Answered<()> {
        rule(self.attempt > 0, || "`attempt` counts from 1".into())
    }
}

impl Incoming for Revoke {
    const WHAT: &'static str = "the revocation";

    fn check(&self) -> Answered<()> {
        rule(self.attempt > 0, || "`attempt` counts from 1".into())?;
        let len = self.reason.as_ref().map_or(0, String::len);
        rule(len <= MAX_REASON, || format!("`reason` has {len} bytes, at most {MAX_REASON} are kept"))
    }
}

impl Incoming for Nothing {
    const WHAT: &'static str = "the request";

    fn without_body() -> Option<Self> {
        Some(Nothing {})
    }
}

impl Incoming for Enrol {
    const WHAT: &'static str = "the enrolment";

    fn check(&self) -> Answered<()> {
        let len = self.agent.len();
        rule(len <= MAX_TEXT, || format!("`agent` has {len} bytes, at most {MAX_TEXT} are kept"))
    }
}

impl Incoming for Report {
    const WHAT: &'static str = "the report";
    const MOST: usize = MAX_REPORT;

    fn check(&self) -> Answered<()> {
        let events = self.events.len();
        let few = events <= MAX_EVENTS;
        rule(few, || format!("`events` has {events} events; send at most {MAX_EVENTS} at once, in several reports"))
    }
}

/// A request's body.
pub(super) struct Strict<T>(pub(super) T);

impl<T: Incoming> FromRequest<Api> for Strict<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, api: &Api) -> Answered<Self> {
        let (parts, body) = request.into_parts();
        let bytes = read::<T>(&parts.headers, body, api.limits.body).await?;
        match T::without_body() {
            Some(value) if bytes.is_empty() => return Ok(Strict(value)),
            _ => be_json::<T>(&parts.headers)?,
        }
        let value: T = parse(&bytes)?;
        value.check()?;
        Ok(Strict(value))
    }
}

/// All of the body.
async fn read<T: Incoming>(headers: &HeaderMap, mut body: Body, time: Duration) -> Answered<Bytes> {
    let said = headers.get(CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse::<u64>().ok());
    let fits = said.is_none_or(|len| len <= T::MOST as u64);
    let whole =
        if fits { tokio::time::timeout(time, collect(&mut body, T::MOST)).await } else { Ok(Collected::TooLarge) };
    match whole {
        Ok(Collected::All(bytes)) => Ok(bytes),
        Ok(Collected::Broken(error)) => Err(Refusal::new(Code::BadRequest, format!("{} broke off: {error}", T::WHAT))),
        Ok(Collected::TooLarge) => {
            // One that waits to be told to send it is not told.
            if !headers.contains_key(EXPECT) {
                discard(body).await;
            }
            let detail = format!("{} is larger than {} bytes, and no more are read", T::WHAT, T::MOST);
            Err(Refusal::new(Code::TooLarge, detail))
        }
        Err(_) => {
            let detail = format!("{} was not complete after {} s", T::WHAT, time.as_secs_f32());
            Err(Problem::new(Code::Timeout, detail).retry_after(1).into())
        }
    }
}

enum Collected {
    All(Bytes),
    TooLarge,
    Broken(axum::Error),
}

async fn collect(body: &mut Body, most: usize) -> Collected {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        match frame.map(|frame| frame.into_data()) {
            Ok(Ok(data)) if bytes.len() + data.len() > most => return Collected::TooLarge,
            Ok(Ok(data)) => bytes.extend_from_slice(&data),
            Ok(Err(_trailers)) => {}
            Err(error) => return Collected::Broken(error),
        }
    }
    Collected::All(bytes.freeze())
}

/// Takes a little of what is too large, so that a client that sends all before it listens comes to hear the answer.
async fn discard(mut body: Body) {
    let some = async {
        let mut left: usize = 4 << 20;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    // However that ends, the answer is the same.
    let _ = tokio::time::timeout(Duration::from_secs(1), some).await;
}

fn be_json<T: Incoming>(headers: &HeaderMap) -> Answered<()> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let detail = format!("{} must be application/json; its Content-Type is {:?}", T::WHAT, start(kind));
        return Err(Refusal::new(Code::MediaType, detail));
    }
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(Refusal::new(Code::MediaType, format!("{} must come without a Content-Encoding", T::WHAT)));
    }
    Ok(())
}

/// Reads JSON. A refusal names the key.
fn parse<T: Incoming>(bytes: &[u8]) -> Answered<T> {
    let refuse = |text: String| Refusal::new(Code::BadRequest, format!("{}: {}", T::WHAT, printable(&text)));
    envelope::distinct::object(bytes).map_err(|error| refuse(error.to_string()))?;
    // Where in it something is wrong is looked for only when something is.
    if let Ok(read) = serde_json::from_slice(bytes) {
        return Ok(read);
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.inner();
        refuse(if path == "." { inner.to_string() } else { format!("`{path}`: {inner}") })
    })
}
