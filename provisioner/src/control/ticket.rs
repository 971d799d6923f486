//! The ticket: what this process may do, in the words of whoever holds the ticket key. Until it has been checked, nothing that the
//! service says is believed.
//!
//! What the ticket does not permit is an error of the target (exit code 4): this process must not write it. A run spec that the ticket
//! covers and that makes no sense all the same is an error of usage (2), as in a file.

use envelope::{Role, Trust};
use imgstream::digest::Digest;
use imgstream::error::{Error, Result};
use protocol::control::Enrolled;
use protocol::spec::{Place, RunSpec};
use protocol::ticket::VERSION;
use protocol::{RunId, ServerName, Ticket, Token};

use super::named::Named;

/// How far, in seconds, the service's clock and this machine's may be apart.
pub const CLOCKS_APART: u64 = 300;

/// What this process knows by itself.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Who may sign tickets.
    pub trust: &'a Trust,
    /// The nonce that this process has made.
    pub nonce: &'a Token,
    /// SHA-256 of the client key that this process has made, as a ticket writes it.
    pub client_key: &'a str,
    /// The run it was started for, where it was told.
    pub run: Option<&'a RunId>,
    /// The server it runs on, where it was told.
    pub server: Option<&'a ServerName>,
    /// Seconds since 1970.
    pub now: u64,
    /// How it was told all that.
    pub named: Named,
}

/// The run spec of an enrolment, once its ticket has been checked and covers it.
///
/// # Errors
/// `Target` with what the ticket does not permit, and `Usage` when the spec that it covers makes no sense. Neither passes.
pub fn verify(enrolled: &Enrolled, known: Known<'_>) -> Result<RunSpec> {
    let opened = envelope::open(enrolled.ticket.as_bytes(), Role::Ticket, known.trust).map_err(|error| {
        refused(format!("nobody who is trusted has signed it: {error}"))
            .with_hint(format!(
                "give the service's ticket key with {}, and see that this is the service that is meant",
                known.named.ticket_keys
            ))
            .with_source(error)
    })?;
    let ticket: Ticket = serde_json::from_slice(opened.payload())
        .map_err(|error| refused(format!("it makes no sense: {error}")).with_hint(VERSIONS))?;
    check_process(&ticket, enrolled, known)?;
    check_time(&ticket, known.now)?;
    let spec = Digest::of(enrolled.spec.as_bytes()).to_string();
    same("the run spec that it covers (by SHA-256)", ticket.spec.as_str(), "the one that came with it", &spec)?;
    let spec = RunSpec::parse(enrolled.spec.as_bytes()).map_err(|error| {
        Error::usage(format!("the run spec from the service: {error}"))
            .with_hint("docs/operating.md explains every key; correct the run at the service")
    })?;
    check_spec(&ticket, &spec)?;
    Ok(spec)
}

const VERSIONS: &str = "see that the service and this agent are of versions that suit each other";
const OURS: &str = "it is for another process or another run: let the service start a new attempt";

fn refused(why: impl std::fmt::Display) -> Error {
    Error::target(format!("the ticket from the service permits nothing: {why}")).with_hint(OURS)
}

fn same(what: &str, found: &str, other: &str, expected: &str) -> Result<()> {
    if found == expected { Ok(()) } else { Err(refused(format!("{what} is {found}, {other} {expected}"))) }
}

/// That it is for this process, here and now.
fn check_process(ticket: &Ticket, enrolled: &Enrolled, known: Known<'_>) -> Result<()> {
    let version = ticket.version.to_string();
    same("its version", &version, "this agent reads", &VERSION.to_string())
        .map_err(|error| error.with_hint(VERSIONS))?;
    if ticket.nonce != *known.nonce {
        return Err(refused("its nonce is another process's, not the one that this process has made"));
    }
    same("its run", ticket.run.as_str(), "the service says", enrolled.run.as_str())?;
    let (epoch, attempt) = (ticket.epoch.to_string(), enrolled.attempt.to_string());
    same("its attempt (the epoch)", &epoch, "the service says", &attempt)?;
    if let Some(run) = known.run {
        same("its run", ticket.run.as_str(), &format!("{} says", known.named.run), run.as_str())?;
    }
    if let Some(server) = known.server {
        same("its server", ticket.server.as_str(), &format!("{} says", known.named.server), server.as_str())?;
    }
    let bound = ticket.client_key.as_ref().map_or("none", |key| key.as_str());
    same("the client key that it is bound to (by SHA-256)", bound, "this process has made", known.client_key)
}

fn check_time(ticket: &Ticket, now: u64) -> Result<()> {
    let (from, until) = (ticket.not_before.saturating_sub(CLOCKS_APART), ticket.expires.saturating_add(CLOCKS_APART));
    let apart = |by: u64, how: &str| {
        Err(refused(format!("it {how}, by {by} s more than the {CLOCKS_APART} s that clocks may be apart"))
            .with_hint("look at the clocks of this machine and of the service"))
    };
    match now {
        _ if now < from => apart(from - now, "is not good yet"),
        _ if now > until => apart(now - until, "has expired"),
        _ => Ok(()),
    }
}

/// That the spec is the ticket's in what the ticket says twice.
fn check_spec(ticket: &Ticket, spec: &RunSpec) -> Result<()> {
    same("its run", ticket.run.as_str(), "the run spec says", spec.run.as_str())?;
    same("its attempt (the epoch)", &ticket.epoch.to_string(), "the run spec says", &spec.epoch.to_string())?;
    if let Some(image) = &ticket.image {
        let pinned = spec.image.digest.as_ref().map_or("none", |digest| digest.as_str());
        same("its image", image.as_str(), "the run spec's", pinned)?;
    }
    let permitted = || {
        let wwids: Vec<&str> = ticket.wwids.iter().map(|wwid| wwid.as_str()).collect();
        if wwids.is_empty() { "none".into() } else { wwids.join(", ") }
    };
    let is_permitted = match spec.target.place() {
        Some(Place::Lun(lun)) => ticket.wwids.contains(&lun.wwid),
        // Who names LUNs permits these alone.
        _ => ticket.wwids.is_empty(),
    };
    if is_permitted {
        return Ok(());
    }
    Err(refused(format!("the run spec's target is {}; LUNs that it permits: {}", spec.target.name(), permitted())))
}

#[cfg(test)]
mod tests {
    use envelope::SecretKey;
    use imgstream::error::{Kind, Retry};
    use serde_json::{Value, json};

    use super::super::testing::{run_id, token};
    use super::*;

    const WWID: &str = "36001405aaaaaaaaaaaaaaaaaaaaaaaaa";
    const NOW: u64 = 1_000_000;
    const CLIENT_KEY: &str = "sha256:3333333333333333333333333333333333333333333333333333333333333333";

    fn spec() -> Value {
        json!({
            "run": "r-1", "epoch": 2,
            "image": {
                "name": "debian", "sources": ["http://127.0.0.1:1/"], "trust": ["ab".repeat(32)],
                "digest": format!("sha256:{}", "1".repeat(64)),
            },
            "target": {"lun": {"wwid": WWID}},
        })
    }

    fn ticket(spec: &str) -> Value {
        json!({
            "version": 1, "run": "r-1", "epoch": 2, "server": "s-1", "spec": Digest::of(spec.as_bytes()).to_string(),
            "image": format!("sha256:{}", "1".repeat(64)), "wwids": [WWID],
            "not_before": NOW - 10, "expires": NOW + 600, "nonce": "n".repeat(43),
            "client_key": CLIENT_KEY,
        })
    }

    /// Enrols with a spec and a ticket that were changed, and what comes of it.
    fn enrol(spec_changes: &[(&str, Value)], ticket_changes: &[(&str, Value)]) -> Result<RunSpec> {
        let key = SecretKey::generate().unwrap();
        let mut spec = spec();
        for (pointer, value) in spec_changes {
            *spec.pointer_mut(pointer).unwrap() = value.clone();
        }
        let spec = spec.to_string();
        let mut ticket = ticket(&spec);
        for (key, value) in ticket_changes {
            match value {
                Value::Null => drop(ticket.as_object_mut().unwrap().remove(*key)),
                value => ticket[*key] = value.clone(),
            }
        }
        let ticket = envelope::sign(Role::Ticket, ticket.to_string().as_bytes(), &key);
        check(&enrolled(spec, ticket), &key, NOW)
    }

    fn enrolled(spec: String, ticket: Vec<u8>) -> Enrolled {
        let lease = protocol::control::agent::Terms { seconds: 60, renew_after: 20 };
        let ticket = String::from_utf8(ticket).unwrap();
        let certificate = String::new();
        Enrolled { run: run_id("r-1"), attempt: 2, session: token("s"), lease, spec, ticket, certificate }
    }

    fn check(enrolled: &Enrolled, key: &SecretKey, now: u64) -> Result<RunSpec> {
        let trust = Trust::new(vec![key.public()], 1).unwrap();
        let server = ServerName::try_from("s-1".to_owned()).unwrap();
        let (run, nonce) = (run_id("r-1"), token("n"));
        let (run, server, named) = (Some(&run), Some(&server), Named::OPTIONS);
        verify(enrolled, Known { trust: &trust, nonce: &nonce, client_key: CLIENT_KEY, run, server, now, named })
    }

    #[test]
    fn a_ticket_that_fits_gives_the_spec() {
        let spec = enrol(&[], &[]).unwrap();
        assert_eq!((spec.run.as_str(), spec.epoch, spec.target.name()), ("r-1", 2, format!("LUN {WWID}")));
        assert!(enrol(&[], &[("image", Value::Null)]).is_ok(), "not pinned");
        assert!(enrol(&[], &[("wwids", json!(["3600", WWID]))]).is_ok(), "one of several");
        assert!(enrol(&[("/target", json!({"device": "/dev/x"}))], &[("wwids", Value::Null)]).is_ok(), "a device");
    }

    #[test]
    fn each_forged_field_is_refused_for_what_it_is() {
        let other = format!("sha256:{}", "2".repeat(64));
        let digests: [(&str, Value, &str); 3] = [
            ("spec", json!(other), "the run spec that it covers"),
            ("image", json!(other), "its image is sha256:2222"),
            ("client_key", json!(other), "bound to (by SHA-256) is sha256:2222"),
        ];
        let others = [
            ("version", json!(2), "its version is 2, this agent reads 1"),
            ("run", json!("r-2"), "its run is r-2, the service says r-1"),
            ("epoch", json!(3), "its attempt (the epoch) is 3, the service says 2"),
            ("server", json!("s-2"), "its server is s-2, --server says s-1"),
            ("wwids", json!(["3600"]), "LUNs that it permits: 3600"),
            ("wwids", json!([]), "LUNs that it permits: none"),
            ("not_before", json!(NOW + 301), "is not good yet, by 1 s more"),
            ("expires", json!(NOW - 302), "has expired, by 2 s more"),
            ("nonce", json!("m".repeat(43)), "its nonce is another process's"),
            ("client_key", Value::Null, "bound to (by SHA-256) is none, this process has made sha256:3333"),
            ("nonce", json!("short"), "makes no sense"),
            ("not_after", json!(7), "makes no sense: unknown field"),
            ("server", Value::Null, "makes no sense: missing field"),
        ];
        for (field, value, says) in digests.into_iter().chain(others) {
            let error = enrol(&[], &[(field, value)]).unwrap_err();
            assert!(error.to_string().contains(says), "{field}: {error}");
            assert_eq!((error.kind(), error.retry()), (Kind::Target, Retry::Permanent), "{field}");
            assert!(error.hint().is_some() && !error.to_string().contains(&"n".repeat(43)), "{error}");
        }
    }

    #[test]
    fn a_spec_that_is_not_the_tickets_is_refused() {
        let cases = [
            ("/run", json!("r-2"), "its run is r-1, the run spec says r-2"),
            ("/epoch", json!(1), "its attempt (the epoch) is 2, the run spec says 1"),
            ("/image/digest", Value::Null, "the run spec's none"),
            ("/target", json!({"lun": {"wwid": "3600"}}), "the run spec's target is LUN 3600"),
            ("/target", json!({"device": "/dev/x"}), "the run spec's target is /dev/x"),
        ];
        for (pointer, value, says) in cases {
            let error = enrol(&[(pointer, value)], &[]).unwrap_err();
            assert!(error.to_string().contains(says) && error.kind() == Kind::Target, "{pointer}: {error}");
        }
        let error = enrol(&[("/target", json!({}))], &[]).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{error}");
    }

    #[test]
    fn clocks_may_be_apart_a_little() {
        assert!(enrol(&[], &[("not_before", json!(NOW + 300))]).is_ok());
        assert!(enrol(&[], &[("expires", json!(NOW - 300))]).is_ok());
        assert!(enrol(&[], &[("not_before", json!(0)), ("expires", json!(u64::MAX))]).is_ok());
    }

    #[test]
    fn what_nobody_trusted_has_signed_is_not_even_read() {
        let (key, stranger, spec) =
            (SecretKey::generate().unwrap(), SecretKey::generate().unwrap(), spec().to_string());
        let text = ticket(&spec).to_string();
        let by_stranger = envelope::sign(Role::Ticket, text.as_bytes(), &stranger);
        let as_image = envelope::sign(Role::Image, text.as_bytes(), &key);
        let doubled = text.replacen(r#""version":1"#, r#""version":1,"version":1"#, 1);
        let doubled = envelope::sign(Role::Ticket, doubled.as_bytes(), &key);
        for (ticket, says) in [
            (by_stranger, "nobody who is trusted"),
            (as_image, "nobody who is trusted"),
            (text.clone().into_bytes(), "nobody who is trusted"),
            (b"garbage".to_vec(), "nobody who is trusted"),
            (doubled, "duplicate field"),
        ] {
            let error = check(&enrolled(spec.clone(), ticket), &key, NOW).unwrap_err();
            assert!(error.to_string().contains(says) && error.kind() == Kind::Target, "{error}");
        }
    }

    #[test]
    fn one_byte_more_is_another_spec() {
        let (key, text) = (SecretKey::generate().unwrap(), spec().to_string());
        let ticket = envelope::sign(Role::Ticket, ticket(&text).to_string().as_bytes(), &key);
        assert!(check(&enrolled(text.clone(), ticket.clone()), &key, NOW).is_ok());
        let error = check(&enrolled(text + " ", ticket), &key, NOW).unwrap_err();
        assert!(error.to_string().contains("the one that came with it sha256:"), "{error}");
    }
}
