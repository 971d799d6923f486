//! Why a tunnel does not come up, in a sentence with a remedy, from what strongSwan's IKE daemon logs meanwhile. Its answer says only
//! that it failed. What is looked for are words of its log in versions 5.9 and 6.0; where none is found, its last lines are told.

use imgstream::error::{Error, Kind, Retry};
use time::OffsetDateTime;

use crate::medium::config::{Auth, Ipsec};

/// A reason.
struct Why {
    /// What happened.
    what: String,
    /// What to do.
    hint: String,
    retry: Retry,
}

/// One that comes again until somebody changes something.
fn permanent(what: impl Into<String>, hint: impl Into<String>) -> Option<Why> {
    Some(Why { what: what.into(), hint: hint.into(), retry: Retry::Permanent })
}

/// One that may pass.
fn temporary(what: impl Into<String>, hint: impl Into<String>) -> Option<Why> {
    Some(Why { what: what.into(), hint: hint.into(), retry: Retry::Temporary })
}

/// The error for a tunnel that did not come up, as `log` tells; `error` is the daemon's own. `now` is this machine's clock.
pub(super) fn failed(log: &[String], config: &Ipsec, now: OffsetDateTime, error: Error) -> Error {
    let reasons = [
        certificate(log, config, now),
        identity(log, config),
        kernel(log),
        refused(log, config, now),
        silence(log, config),
    ];
    let what = format!("the tunnel to the VCN's gateway {} does not come up", config.gateway);
    match reasons.into_iter().flatten().next() {
        Some(Why { what: why, hint, retry }) => {
            Error::new(Kind::Source, format!("{what}: {why}")).with_retry(retry).with_hint(hint).with_source(error)
        }
        None => {
            let last = log[log.len().saturating_sub(3)..].join("; ");
            let why = if last.is_empty() { error.to_string() } else { last };
            Error::source_failed(format!("{what}: {why}")).with_hint("look at the gateway's log").with_source(error)
        }
    }
}

/// The first line with these words, from them on.
fn find<'a>(log: &'a [String], words: &str) -> Option<&'a str> {
    log.iter().find_map(|line| line.find(words).map(|at| &line[at..]))
}

/// What is wrong with the gateway's certificate.
fn certificate(log: &[String], config: &Ipsec, now: OffsetDateTime) -> Option<Why> {
    if let Some(said) = find(log, "certificate invalid (") {
        let issuer = find(log, "issuer certificate invalid").is_some();
        let whose = if issuer { "an authority's certificate" } else { "the gateway's certificate" };
        let range = said.trim_start_matches("certificate invalid (").trim_end_matches(')');
        return permanent(
            format!("{whose} is not valid now: {range}, and this machine's clock says {}", clock(now)),
            "set this machine's clock where that is wrong, else give the gateway a new certificate",
        );
    }
    if let Some(said) = find(log, "certificate was revoked on") {
        return permanent(
            format!("the gateway's certificate has been revoked: {said}"),
            "give the gateway a new certificate, and find out why the old one was revoked",
        );
    }
    if find(log, "_VALIDATION is").is_some() {
        return permanent(
            "no revocation list that is given says whether the gateway's certificate is still good",
            "`ipsec.auth.certificate.crl` must have a list by the very authority that signed the gateway's certificate, and not one that is out of date",
        );
    }
    if find(log, "no issuer certificate found").is_some() || find(log, "peer not authenticated by CA").is_some() {
        let issuer = find(log, "issuer is ").map_or(String::new(), |said| format!(" ({said})"));
        return permanent(
            format!("none of the given authorities has signed the gateway's certificate{issuer}"),
            "put the certificate of its authority into `ipsec.auth.certificate.ca`, if it is to be trusted; else somebody else answers for the gateway",
        );
    }
    if find(log, "no trusted").is_some() {
        return permanent(
            format!("the gateway has sent no certificate that names it {:?}", config.gateway_id),
            "`ipsec.gateway_id` must be its certificate's subject, or one of its alternative names",
        );
    }
    None
}

/// Whether the gateway is somebody else, and whether this machine can prove anything.
fn identity(log: &[String], config: &Ipsec) -> Option<Why> {
    if find(log, "constraint check failed: identity").is_some() {
        let proven = log.iter().filter(|line| !line.contains("(myself)"));
        let proven = proven.filter_map(|line| line.strip_prefix("authentication of '")?.split_once('\'')).next_back();
        let proven = proven.map_or("somebody else", |(proven, _)| proven);
        return permanent(
            format!("the gateway has proven to be {proven:?} instead of {:?}", config.gateway_id),
            "correct `ipsec.gateway` or `ipsec.gateway_id`",
        );
    }
    if find(log, "no private key found for").is_some() {
        return permanent(
            "the private key is not that of this machine's certificate, or `ipsec.local_id` does not stand in it",
            "give a certificate and a key that belong together; leave `ipsec.local_id` out, or take one of the certificate's names",
        );
    }
    if find(log, "no shared key found for").is_some() {
        return permanent(
            format!("the gateway calls itself other than {:?}, and there is no key for that", config.gateway_id),
            "correct `ipsec.gateway_id`",
        );
    }
    if find(log, "MAC mismatched").is_some() {
        return permanent(
            "the gateway's pre-shared key is another than this machine's",
            "give both the same key, with no newline at its end",
        );
    }
    None
}

/// Whether both ends have agreed, and this machine's kernel cannot do it.
fn kernel(log: &[String]) -> Option<Why> {
    let said = find(log, "unable to install")?;
    permanent(
        format!("this machine's kernel does not take what was agreed on: {said}"),
        "it needs ESP with rfc4106(gcm(aes)): the modules esp4 or esp6, gcm and ghash-generic; `ip xfrm state` and the kernel log tell more",
    )
}

/// What the gateway has refused.
fn refused(log: &[String], config: &Ipsec, now: OffsetDateTime) -> Option<Why> {
    let received = |notify: &str| find(log, &format!("received {notify} notify")).is_some();
    let me = config.local_id.as_deref().unwrap_or("what its certificate says");
    if received("AUTHENTICATION_FAILED") {
        let (what, hint) = match config.auth {
            Auth::Psk(_) => (
                format!("the gateway refuses this machine as {me:?}, or is not {:?}", config.gateway_id),
                "both ends need the same pre-shared key for these two identities, with no newline at its end"
                    .to_owned(),
            ),
            Auth::Certificate { .. } => (
                format!("the gateway refuses this machine's certificate as {me:?}, or is not {:?}", config.gateway_id),
                format!(
                    "is the certificate valid now (this machine's clock says {}), by an authority that the gateway trusts, and \
                     allowed there? The gateway's log says which",
                    clock(now)
                ),
            ),
        };
        return permanent(what, hint);
    }
    if received("NO_PROPOSAL_CHOSEN") {
        let about_esp = find(log, "NO_PROPOSAL_CHOSEN notify, no CHILD_SA built").is_some();
        return if about_esp {
            permanent(
                "the gateway does not take AES-256-GCM with ECP-384 for ESP",
                "let it accept aes256gcm16-ecp384 for ESP",
            )
        } else {
            permanent(
                "the gateway does not take what is proposed for IKE, or expects nobody from this address",
                "let it accept aes256gcm16-prfsha384-ecp384 for IKEv2 from this machine's address",
            )
        };
    }
    if received("TS_UNACCEPTABLE") {
        return permanent(
            "the gateway has no tunnel for these networks and this machine's address inside",
            "`ipsec.tunnels` must agree with the traffic selectors that the gateway has for this machine",
        );
    }
    if received("INTERNAL_ADDRESS_FAILURE") || find(log, "configuration payload negotiation failed").is_some() {
        return permanent(
            "the gateway gives this machine no address",
            "let it give addresses to this machine, or give `ipsec.tunnels` a `local` of their own",
        );
    }
    if received("FAILED_CP_REQUIRED") {
        return permanent("the gateway wants to give this machine its address", "leave `local` out of `ipsec.tunnels`");
    }
    if received("TEMPORARY_FAILURE") || received("NO_ADDITIONAL_SAS") {
        return temporary(
            "the gateway takes no further tunnel now",
            "try again; look at the gateway's load and limits",
        );
    }
    None
}

/// Why nothing came back.
fn silence(log: &[String], config: &Ipsec) -> Option<Why> {
    if let Some(said) = find(log, "error writing to socket: ") {
        return temporary(
            format!("nothing can be sent to it: {}", said.trim_start_matches("error writing to socket: ")),
            "look at this machine's network: ip address, ip route",
        );
    }
    if find(log, "unable to resolve").is_some() {
        return temporary("its name cannot be looked up", "look at the name, and at the name servers");
    }
    // A number of the message that is not answered: 0 is the first.
    let unanswered = find(log, "of request with message ID ")?;
    let waited = config.wait;
    if unanswered.ends_with(" 0") {
        return temporary(
            format!("it has not answered for {waited} s"),
            "is that its address, does it run, and does what lies between let UDP ports 500 and 4500 pass?",
        );
    }
    temporary(
        format!("it has answered once and then no more for {waited} s"),
        "does what lies between let UDP port 4500 and fragments pass? The gateway's log says whether it has got more",
    )
}

fn clock(now: OffsetDateTime) -> String {
    format!("{} {:02}:{:02} UTC", now.date(), now.hour(), now.minute())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::medium::ipsec::tests::with;

    fn explained(lines: &str, auth: Value) -> Error {
        let log: Vec<_> =
            lines.lines().map(|line| line.strip_prefix("            ").unwrap_or(line).to_owned()).collect();
        let now = OffsetDateTime::from_unix_timestamp(1_795_647_240).unwrap();
        failed(&log, &with("/auth", auth), now, Error::source_failed("initiate failed"))
    }

    fn by_certificate(lines: &str) -> Error {
        explained(lines, json!({"certificate": {"certificate": "/c", "key": "/k", "ca": ["/ca"]}}))
    }

    fn by_key(lines: &str) -> Error {
        explained(lines, json!({"psk": "/psk"}))
    }

    /// What strongSwan 5.9.8 has logged, case by case.
    #[test]
    fn what_is_wrong_with_a_certificate_is_told() {
        let cases = [
            (
                "received end entity cert \"C=DE, O=Example, CN=gateway\"
            subject certificate invalid (valid from Jan 01 00:00:00 2020 to Jan 01 00:00:00 2021)
            no trusted ECDSA public key found for 'C=DE, O=Example, CN=gateway'",
                "the gateway's certificate is not valid now: valid from Jan 01 00:00:00 2020 to Jan 01 00:00:00 2021, and this \
                 machine's clock says 2026-11-25 22:54 UTC",
            ),
            (
                "certificate was revoked on Nov 25 23:53:56 UTC 2026, reason: unspecified
            no trusted ECDSA public key found for 'C=DE, O=Example, CN=gateway'",
                "has been revoked: certificate was revoked on Nov 25 23:53:56 UTC 2026",
            ),
            (
                "authentication of 'C=DE, O=Example, CN=gateway' with ECDSA_WITH_SHA384_DER successful
            constraint check failed: RULE_CRL_VALIDATION is SKIPPED, but requires at least GOOD
            selected peer config 'vcn' unacceptable: constraint checking failed",
                "no revocation list",
            ),
            (
                "no issuer certificate found for \"C=DE, O=Example, CN=gateway\"
              issuer is \"C=DE, O=Example, CN=other\"
            no trusted ECDSA public key found for 'C=DE, O=Example, CN=gateway'",
                "none of the given authorities has signed the gateway's certificate (issuer is \"C=DE, O=Example, CN=other\")",
            ),
            (
                "received end entity cert \"C=DE, O=Example, CN=gateway\"
            no trusted ECDSA public key found for 'evil.example.com'",
                "no certificate that names it \"C=DE, O=Example, CN=gateway\"",
            ),
            (
                "authentication of 'me' (myself) with ECDSA_WITH_SHA384_DER successful
            authentication of 'C=DE, CN=evil' with ECDSA_WITH_SHA384_DER successful
            constraint check failed: identity 'C=DE, O=Example, CN=gateway' required ",
                "proven to be \"C=DE, CN=evil\" instead of \"C=DE, O=Example, CN=gateway\"",
            ),
            ("no private key found for 'lpar-7'", "the private key is not that of this machine's certificate"),
            ("received AUTHENTICATION_FAILED notify error", "refuses this machine's certificate as \"lpar-7\""),
        ];
        for (log, expected) in cases {
            let error = by_certificate(log);
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!((error.kind(), error.retry(), error.hint().is_some()), (Kind::Source, Retry::Permanent, true));
        }
    }

    #[test]
    fn what_two_ends_cannot_agree_on_is_told() {
        let cases = [
            ("received AUTHENTICATION_FAILED notify error", "refuses this machine as \"lpar-7\""),
            ("no shared key found for 'lpar-7' - 'impostor'", "calls itself other"),
            ("tried 1 shared key for 'lpar-7' - 'gw', but MAC mismatched", "another than this machine's"),
            ("received NO_PROPOSAL_CHOSEN notify error", "proposed for IKE"),
            (
                "received NO_PROPOSAL_CHOSEN notify, no CHILD_SA built\nfailed to establish CHILD_SA, keeping IKE_SA",
                "for ESP",
            ),
            ("received TS_UNACCEPTABLE notify, no CHILD_SA built", "no tunnel for these networks"),
            ("received INTERNAL_ADDRESS_FAILURE notify, no CHILD_SA built", "gives this machine no address"),
            (
                "unable to add SAD entry with SPI c8d14a11 (FAILED)
            unable to install inbound and outbound IPsec SA (SAD) in kernel
            failed to establish CHILD_SA, keeping IKE_SA",
                "this machine's kernel does not take",
            ),
            ("received FAILED_CP_REQUIRED notify, no CHILD_SA built", "wants to give"),
        ];
        for (log, expected) in cases {
            let error = by_key(log);
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!((error.retry(), error.hint().is_some()), (Retry::Permanent, true));
        }
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        let cases = [
            (
                "retransmit 1 of request with message ID 0\nretransmit 2 of request with message ID 0",
                "not answered for 60 s",
            ),
            ("retransmit 1 of request with message ID 1", "answered once and then no more"),
            (
                "error writing to socket: Network is unreachable\nretransmit 1 of request with message ID 0",
                "Network is unreachable",
            ),
            ("unable to resolve gw.example.com, initiate aborted", "looked up"),
            ("received TEMPORARY_FAILURE notify, will retry later", "no further tunnel now"),
            ("something\nthat\nnobody\nknows", "that; nobody; knows"),
            ("", "initiate failed"),
        ];
        for (log, expected) in cases {
            let error = by_key(log);
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!((error.kind(), error.retry(), error.hint().is_some()), (Kind::Source, Retry::Temporary, true));
        }
    }
}
