//! What can go wrong at the service's and its client's edges. An error says what was tried, on what, and what happened; its hint says
//! what to do next; its kind is the exit code of the commands. What it says can be printed.

use std::fmt;
use std::time::Duration;

use protocol::control::Problem;

use crate::text::printable;

/// Whose problem an error is. The discriminant is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The command line, the configuration or a file that they name makes no sense.
    Usage = 2,
    /// The service refused it, or it would not be safe here.
    Refused = 4,
    /// The service was not reached, or could not do it.
    Unavailable = 5,
    /// This machine did not do it: a file, a folder, random numbers.
    System = 6,
    /// Somebody asked to stop.
    Interrupted = 8,
}

impl Kind {
    /// The exit code.
    pub fn exit_code(self) -> u8 {
        self as u8
    }
}

/// An error with its kind, its hint and its cause.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    message: String,
    hint: Option<String>,
    retry: Option<Retry>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// That trying the same again may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retry {
    /// After this long, where the other side said so. It is only its wish: whoever waits bounds it.
    pub after: Option<Duration>,
}

/// The result of what can go wrong here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error that trying again does not mend.
    pub fn new(kind: Kind, message: impl AsRef<str>) -> Self {
        let message = printable(message.as_ref());
        Error(Box::new(Inner { kind, message, hint: None, retry: None, source: None }))
    }

    /// A wrong command line, configuration or file.
    pub fn usage(message: impl AsRef<str>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// What is refused.
    pub fn refused(message: impl AsRef<str>) -> Self {
        Self::new(Kind::Refused, message)
    }

    /// A service that was not reached or could not do it.
    pub fn unavailable(message: impl AsRef<str>) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    /// What this machine did not do.
    pub fn system(message: impl AsRef<str>) -> Self {
        Self::new(Kind::System, message)
    }

    /// Stopped by request while doing `what`.
    pub fn interrupted(what: &str) -> Self {
        Self::new(Kind::Interrupted, format!("interrupted while {what}"))
    }

    /// Adds what to do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl AsRef<str>) -> Self {
        self.0.hint = Some(printable(hint.as_ref()));
        self
    }

    /// Says that trying the same again may help, and when.
    #[must_use]
    pub fn with_retry(mut self, after: Option<Duration>) -> Self {
        self.0.retry = Some(Retry { after });
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Whose problem it is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Whether trying the same again may help.
    pub fn retry(&self) -> Option<Retry> {
        self.0.retry
    }

    /// The causes, outermost first, without those that are told already.
    pub fn causes(&self) -> Vec<String> {
        let mut causes: Vec<String> = Vec::new();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            let text = printable(&cause.to_string());
            let is_told = self.0.message.contains(&text) || causes.iter().any(|cause| cause.contains(&text));
            if !is_told {
                causes.push(text);
            }
            next = cause.source();
        }
        causes
    }

    /// For a terminal: the error, and its hint on a line of its own.
    pub fn lines(&self) -> String {
        let hint = self.0.hint.as_ref().map_or(String::new(), |hint| format!("\nhint: {hint}"));
        format!("error: {}{hint}", self.0.message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<Problem> for Error {
    /// What the service answered: its fault from 500 on, the request's below.
    fn from(problem: Problem) -> Self {
        let kind = if problem.status >= 500 { Kind::Unavailable } else { Kind::Refused };
        let text = if problem.detail.is_empty() { &problem.title } else { &problem.detail };
        let mut error = Error::new(kind, text);
        if let Some(hint) = &problem.hint {
            error = error.with_hint(hint);
        }
        if let Some(seconds) = problem.retry_after {
            error = error.with_retry(Some(Duration::from_secs(seconds)));
        }
        error
    }
}

/// Attaches what was being done to an error of this machine.
pub trait Context<T> {
    /// This machine failed at `what`.
    ///
    /// # Errors
    /// The error, with what was being done.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> Context<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let error = error.into();
            Error::system(format!("{}: {error}", what())).with_source(error)
        })
    }
}

#[cfg(test)]
mod tests {
    use protocol::control::Code;

    use super::*;

    #[test]
    fn a_problem_keeps_its_hint_its_side_and_its_patience() {
        let problem = Problem::new(Code::Unavailable, "the store\u{1b}[2J is away").with_hint("wait").retry_after(3);
        let error = Error::from(problem);
        assert_eq!(error.lines(), "error: the store\u{fffd}[2J is away\nhint: wait");
        assert_eq!(error.kind(), Kind::Unavailable);
        assert_eq!(error.retry(), Some(Retry { after: Some(Duration::from_secs(3)) }));
        let refused = Error::from(Problem::new(Code::NotFound, ""));
        assert_eq!((refused.kind().exit_code(), refused.to_string().as_str()), (4, "there is no such thing"));
        assert_eq!(refused.retry(), None);
    }
}
