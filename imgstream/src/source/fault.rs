//! What a connection that failed says: whether trying again can help, and what somebody can do about it.
//!
//! Bytes that make no sense (not HTTP, not TLS, a bad certificate) are the server's fault and come again; everything else
//! that happens to a connection may pass.

use std::error::Error as StdError;
use std::io;

use rustls::CertificateError;

use crate::error::{Error, Retry};

const NOT_HTTP: &str = "what answers there is no proper HTTP server; one with TLS is named with https:// or oci://";
const NOT_TLS: &str = "is this a TLS server? one without is named with http:// or oci+http://";

/// The error for `error`, with which `what` ended that was done on a connection: whether trying again can help, and what to do. For
/// whoever else speaks HTTP by [`super::Dial`].
pub fn fault(what: &str, error: impl StdError + Send + Sync + 'static) -> Error {
    let (retry, hint) = judge(&error);
    let fault = Error::source_failed(format!("{what}: {}", innermost(&error))).with_source(error).with_retry(retry);
    match hint {
        Some(hint) => fault.with_hint(hint),
        None => fault,
    }
}

type Judgement = (Retry, Option<&'static str>);

fn judge(error: &(dyn StdError + 'static)) -> Judgement {
    let mut next = Some(error);
    while let Some(cause) = next {
        if cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            return (Retry::OtherSource, Some(NOT_HTTP));
        }
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return judge_io(error);
        }
        next = cause.source();
    }
    (Retry::Temporary, None)
}

fn judge_io(error: &io::Error) -> Judgement {
    if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return judge_tls(error);
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            (Retry::Temporary, Some("nobody listens there: start the server, or correct the host and the port"))
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
            (Retry::Temporary, Some("look at this machine's network: ip address, ip route"))
        }
        io::ErrorKind::PermissionDenied => {
            (Retry::Temporary, Some("this machine lets nothing out there: ip xfrm policy, nft list ruleset"))
        }
        // So hyper tells of a body whose chunks make no sense.
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => (Retry::OtherSource, None),
        _ => (Retry::Temporary, None),
    }
}

fn judge_tls(error: &rustls::Error) -> Judgement {
    let hint = match error {
        // A bit that changed on the way, as it may without TLS: another connection may do better.
        rustls::Error::DecryptError => return (Retry::Temporary, None),
        rustls::Error::InvalidCertificate(why) => certificate_hint(why),
        rustls::Error::InvalidMessage(_) => NOT_TLS,
        _ => "server and client find no common TLS: it must offer TLS 1.2 or 1.3",
    };
    (Retry::OtherSource, Some(hint))
}

fn certificate_hint(why: &CertificateError) -> &'static str {
    use CertificateError as Why;
    match why {
        Why::UnknownIssuer => "give the certificate of the server's authority with --ca FILE",
        Why::Expired | Why::ExpiredContext { .. } | Why::NotValidYet | Why::NotValidYetContext { .. } => {
            "renew the server's certificate, or correct this machine's clock"
        }
        Why::NotValidForName | Why::NotValidForNameContext { .. } => {
            "name the server as its certificate does, or give it a certificate for this name"
        }
        _ => "give the server another certificate; one of its own authority is trusted with --ca FILE",
    }
}

/// hyper's own messages name the step, its innermost cause names the reason.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(error: io::Error) -> (Retry, bool) {
        let fault = fault("x", error);
        (fault.retry(), fault.hint().is_some())
    }

    #[test]
    fn what_may_pass_is_tried_again_and_what_is_wrong_is_not() {
        for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof, io::ErrorKind::BrokenPipe] {
            assert_eq!(judged(kind.into()), (Retry::Temporary, false));
        }
        assert_eq!(judged(io::ErrorKind::ConnectionRefused.into()), (Retry::Temporary, true));
        assert_eq!(judged(io::ErrorKind::PermissionDenied.into()), (Retry::Temporary, true));
        assert_eq!(judged(io::ErrorKind::InvalidInput.into()).0, Retry::OtherSource);
        let tls = |error| judged(io::Error::new(io::ErrorKind::InvalidData, error));
        assert_eq!(tls(rustls::Error::DecryptError), (Retry::Temporary, false));
        let expired = rustls::Error::InvalidCertificate(CertificateError::Expired);
        assert_eq!(tls(expired), (Retry::OtherSource, true));
    }
}
