//! Why a request had no good answer, and what that means for whoever asked.

use std::fmt;
use std::time::Duration;

use imgstream::error::{Error, Retry};
use protocol::control::{Code, Problem};

/// Why a request had no good answer.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The service, or something before it, refused.
    Refused(Box<Refusal>),
    /// There was no answer, or one that makes no sense.
    Failed {
        /// Why.
        error: Error,
        /// Whether the request may have been heard all the same.
        sent: bool,
    },
}

/// An answer other than the one that was asked for.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// What was asked.
    pub(super) what: String,
    /// The HTTP status.
    pub(super) status: u16,
    /// What the service says of it. Something else than the service may have answered.
    pub(super) problem: Option<Problem>,
    /// How long to stay away, by the header.
    pub(super) retry_after: Option<Duration>,
}

impl Trouble {
    /// The service's own word for it.
    pub(super) fn code(&self) -> Option<&Code> {
        self.problem().map(|problem| &problem.code)
    }

    /// What the service says of it.
    pub(super) fn problem(&self) -> Option<&Problem> {
        match self {
            Trouble::Refused(refusal) => refusal.problem.as_ref(),
            Trouble::Failed { .. } => None,
        }
    }

    /// The HTTP status, where there was an answer.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Trouble::Refused(refusal) => Some(refusal.status),
            Trouble::Failed { .. } => None,
        }
    }

    /// How long the service asks to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Trouble::Refused(refusal) => {
                let said = refusal.problem.as_ref().and_then(|problem| problem.retry_after);
                said.map(Duration::from_secs).or(refusal.retry_after)
            }
            Trouble::Failed { error, .. } => error.retry_after(),
        }
    }

    /// Whether asking the same again can help.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Trouble::Failed { error, .. } => error.retry() == Retry::Temporary,
            Trouble::Refused(_) if self.retry_after().is_some() => true,
            Trouble::Refused(refusal) => match self.code() {
                Some(Code::NotYet | Code::TooMany | Code::Timeout | Code::Unavailable | Code::Internal) => true,
                Some(Code::Unknown(_)) | None => matches!(refusal.status, 408 | 425 | 429 | 500..),
                Some(_) => false,
            },
        }
    }

    /// Whether the service may have done what it was asked for, although it did not say so.
    pub(super) fn may_be_done(&self) -> bool {
        match self {
            Trouble::Failed { sent, .. } => *sent,
            Trouble::Refused(refusal) => refusal.problem.is_none() || refusal.status >= 500,
        }
    }

    /// Whether nothing is heard from this agent any more: its attempt is over or was revoked, or its session is not known, or not for this. Only the
    /// service itself can say so: something in between that answers 403 has no say.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.code(), Some(Code::AttemptOver | Code::Revoked | Code::Unauthorized | Code::Forbidden))
    }

    /// As an error: of the source, with what the service says is to be done.
    pub(super) fn into_error(self) -> Error {
        let retry = if self.may_pass() { Retry::Temporary } else { Retry::Permanent };
        let after = self.retry_after();
        match self {
            Trouble::Failed { error, .. } => error,
            Trouble::Refused(refusal) => {
                let error = Error::source_failed(refusal.to_string()).with_retry(retry);
                let error = after.into_iter().fold(error, Error::with_retry_after);
                let hint = refusal.problem.and_then(|problem| problem.hint);
                hint.into_iter().fold(error, Error::with_hint)
            }
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Refused(refusal) => refusal.fmt(f),
            Trouble::Failed { error, .. } => error.fmt(f),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = hyper::StatusCode::from_u16(self.status);
        let reason = status.ok().and_then(|status| status.canonical_reason()).unwrap_or("no name");
        match &self.problem {
            Some(problem) => write!(f, "{}: {}: {} ({})", self.what, problem.title, problem.detail, problem.code),
            None => write!(f, "{}: it answered {} {reason}", self.what, self.status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, problem: Option<Problem>, retry_after: Option<u64>) -> Trouble {
        let retry_after = retry_after.map(Duration::from_secs);
        Trouble::Refused(Box::new(Refusal { what: "https://o/x".into(), status, problem, retry_after }))
    }

    fn problem(code: Code) -> Trouble {
        let problem = Problem::new(code, "d");
        refused(problem.status, Some(problem), None)
    }

    #[test]
    fn what_may_pass_is_known_by_code_else_by_status() {
        use Code::{AlreadyEnrolled, AttemptOver, BadRequest, Forbidden, NotYet, TooMany, Unauthorized, Unavailable};
        for code in [NotYet, TooMany, Unavailable] {
            assert!(problem(code.clone()).may_pass(), "{code}");
        }
        for code in [AlreadyEnrolled, AttemptOver, BadRequest, Forbidden, Unauthorized] {
            assert!(!problem(code.clone()).may_pass(), "{code}");
        }
        assert!(refused(502, None, None).may_pass() && refused(429, None, None).may_pass());
        assert!(!refused(404, None, None).may_pass() && !refused(302, None, None).may_pass());
        assert!(refused(404, None, Some(3)).may_pass(), "it says so itself");
        let known = Problem::new(Code::Conflict, "d").retry_after(9);
        assert_eq!(refused(409, Some(known), Some(1)).retry_after(), Some(Duration::from_secs(9)));
    }

    #[test]
    fn only_a_refusal_of_the_service_itself_says_that_nothing_was_done() {
        assert!(!problem(Code::NotYet).may_be_done() && problem(Code::Unavailable).may_be_done());
        assert!(refused(504, None, None).may_be_done());
        let failed = |sent| Trouble::Failed { error: Error::source_failed("x"), sent };
        assert!(failed(true).may_be_done() && !failed(false).may_be_done());
    }

    #[test]
    fn an_error_says_what_the_service_says() {
        let said = Problem::new(Code::AlreadyEnrolled, "by another process").with_hint("look");
        let error = refused(409, Some(said), None).into_error();
        let text = "https://o/x: another process has enrolled with this token: by another process (already-enrolled)";
        assert_eq!((error.to_string().as_str(), error.hint(), error.retry()), (text, Some("look"), Retry::Permanent));
        assert_eq!(refused(502, None, None).to_string(), "https://o/x: it answered 502 Bad Gateway");
    }
}
