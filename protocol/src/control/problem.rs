//! Why the service refused, as a problem document (RFC 9457, `application/problem+json`).

use serde::{Deserialize, Serialize};

use crate::words::words;

/// The media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// A problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Problem {
    /// Names the kind of problem: `urn:z-provisioner:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was tried, on what, and what was wrong with it.
    pub detail: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The kind of problem, for programs.
    pub code: Code,
    /// Seconds after which trying again may help. Without it, trying the same again does not help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

words! {
    /// A kind of problem. Each has one HTTP status.
    Code {
        /// 400: the request makes no sense.
        BadRequest = "bad-request",
        /// 401: no token and no certificate, or one that is not known.
        Unauthorized = "unauthorized",
        /// 403: the token or the certificate is not for this.
        Forbidden = "forbidden",
        /// 403: a person has revoked the attempt; an agent that hears this writes nothing more.
        Revoked = "revoked",
        /// 403: the policy for images does not allow it.
        Policy = "policy",
        /// 404: there is no such thing.
        NotFound = "not-found",
        /// 405: not with this method.
        MethodNotAllowed = "method-not-allowed",
        /// 408: the request took too long to arrive.
        Timeout = "timeout",
        /// 409: the run's state does not allow it.
        Conflict = "conflict",
        /// 409: the idempotency key was used for something else.
        KeyReused = "key-reused",
        /// 409: another process has enrolled with this token.
        AlreadyEnrolled = "already-enrolled",
        /// 409: it is not this run's turn yet.
        NotYet = "not-yet",
        /// 409: the attempt was given the run's key already. It is given once.
        KeyReleased = "key-released",
        /// 409: the owner was shown the run's key already. It is shown once.
        KeyShown = "key-shown",
        /// 410: the run's key is destroyed.
        KeyGone = "key-gone",
        /// 409: the key of the disk cannot be opened; nothing was marked as given or shown.
        KeyShut = "key-shut",
        /// 410: the attempt is over; an agent that hears this writes nothing more.
        AttemptOver = "attempt-over",
        /// 413: the body is too large.
        TooLarge = "too-large",
        /// 415: the body is not of a type that is read here.
        MediaType = "media-type",
        /// 429: too many requests.
        TooMany = "too-many",
        /// 503: the store does not answer, or the service is about to end.
        Unavailable = "unavailable",
        /// 500: a defect of the service.
        Internal = "internal",
    }
}

impl Code {
    /// Its HTTP status. A code that is not known has none.
    pub fn status(&self) -> Option<u16> {
        Some(match self {
            Code::BadRequest => 400,
            Code::Unauthorized => 401,
            Code::Forbidden | Code::Revoked | Code::Policy => 403,
            Code::NotFound => 404,
            Code::MethodNotAllowed => 405,
            Code::Timeout => 408,
            Code::Conflict
            | Code::KeyReused
            | Code::AlreadyEnrolled
            | Code::NotYet
            | Code::KeyShut
            | Code::KeyReleased
            | Code::KeyShown => 409,
            Code::AttemptOver | Code::KeyGone => 410,
            Code::TooLarge => 413,
            Code::MediaType => 415,
            Code::TooMany => 429,
            Code::Internal => 500,
            Code::Unavailable => 503,
            Code::Unknown(_) => return None,
        })
    }

    /// What it says to people.
    pub fn title(&self) -> &str {
        match self {
            Code::BadRequest => "the request makes no sense",
            Code::Unauthorized => "nothing proves who asks, or what does is not known",
            Code::Forbidden => "whoever asks may not do this",
            Code::Revoked => "the attempt was revoked",
            Code::Policy => "the policy for images does not allow it",
            Code::NotFound => "there is no such thing",
            Code::MethodNotAllowed => "not with this method",
            Code::Timeout => "the request took too long",
            Code::Conflict => "the run's state does not allow it",
            Code::KeyReused => "the idempotency key was used for something else",
            Code::AlreadyEnrolled => "another process has enrolled with this token",
            Code::NotYet => "it is not this run's turn yet",
            Code::KeyReleased => "the attempt was given the key already",
            Code::KeyShown => "the key was shown already",
            Code::KeyShut => "the key cannot be opened",
            Code::KeyGone => "the key is destroyed",
            Code::AttemptOver => "the attempt is over",
            Code::TooLarge => "the body is too large",
            Code::MediaType => "the body is not of a type that is read here",
            Code::TooMany => "too many requests",
            Code::Unavailable => "the service cannot do it now",
            Code::Internal => "the service has a defect",
            Code::Unknown(code) => code,
        }
    }
}

impl Problem {
    /// A problem of this kind.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Problem {
            kind: format!("urn:z-provisioner:problem:{}", code.name()),
            title: code.title().to_owned(),
            status: code.status().unwrap_or(500),
            detail: detail.into(),
            hint: None,
            code,
            retry_after: None,
        }
    }

    /// With what to do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With seconds after which trying again may help.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}
