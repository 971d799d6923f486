//! What can go wrong, in eight kinds. Rules:
//!
//! - A kind says whose problem it is, and is the exit code of the commands.
//! - [`Error::retry`] says whether trying the same again can help; nothing matches on message text.
//! - The message says what was tried, on what, and what happened; the hint says what to do next.
//! - Sources are kept, so `-v` can print the whole chain.
//! - What an error says can be printed: text from outside has lost its control characters, and is not for ever.

use std::fmt;
use std::time::Duration;

/// Whose problem an error is. The discriminant is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The command line or an option's value makes no sense.
    Usage = 2,
    /// The image is refused: signature, policy or format.
    Image = 3,
    /// The target is refused: safety, size or identity.
    Target = 4,
    /// A source or the network failed; bytes that do not match their digest included.
    Source = 5,
    /// A device or file answered with an I/O error.
    Device = 6,
    /// The media do not hold what was written.
    Proof = 7,
    /// Somebody asked us to stop.
    Cancelled = 8,
}

impl Kind {
    /// The process exit code for this kind.
    pub fn exit_code(self) -> u8 {
        self as u8
    }
}

/// Whether the same attempt can succeed later, or elsewhere, without anybody changing anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// No: the input itself is wrong.
    Permanent,
    /// Yes: a connection was lost, a server was busy.
    Temporary,
    /// The bytes of one source are wrong; another source may have the right ones.
    OtherSource,
}

/// An error with its kind, context and cause.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    retry: Retry,
    retry_after: Option<Duration>,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Characters of a message that are shown. Some of it may come from a server, which could go on for ever.
const MAX_TEXT: usize = 4096;

/// Text as a terminal and a log may show it: a server, an image or a file's name may carry control characters, or ones
/// that turn the direction of writing, to say what nobody said.
fn printable(text: String) -> String {
    let harmful = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let end = text.char_indices().nth(MAX_TEXT).map_or(text.len(), |(end, _)| end);
    if end == text.len() && !text.contains(harmful) {
        return text;
    }
    let cut = if end < text.len() { "…" } else { "" };
    text[..end].replace(harmful, "\u{fffd}") + cut
}

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` that trying again does not mend.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner {
            kind,
            retry: Retry::Permanent,
            retry_after: None,
            message: printable(message.into()),
            hint: None,
            source: None,
        }))
    }

    /// A wrong command line or option.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// An image that must not be used.
    pub fn image(message: impl Into<String>) -> Self {
        Self::new(Kind::Image, message)
    }

    /// A target that must not be written.
    pub fn target(message: impl Into<String>) -> Self {
        Self::new(Kind::Target, message)
    }

    /// A source that failed in a way that may pass.
    pub fn source_failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Source, message).with_retry(Retry::Temporary)
    }

    /// Bytes from a source that are not what their digest says.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(Kind::Source, message).with_retry(Retry::OtherSource)
    }

    /// A device or file error.
    pub fn device(message: impl Into<String>) -> Self {
        Self::new(Kind::Device, message)
    }

    /// Media that differ from the image.
    pub fn proof(message: impl Into<String>) -> Self {
        Self::new(Kind::Proof, message)
    }

    /// Cancelled by request while doing `what`.
    pub fn cancelled(what: &str) -> Self {
        Self::new(Kind::Cancelled, format!("cancelled while {what}"))
    }

    /// Sets whether trying again can help.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// Sets how long the server asked us to stay away.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Adds what the person should do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(printable(hint.into()));
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds to the message what else is to be known.
    #[must_use]
    pub fn in_addition(mut self, what: &str) -> Self {
        self.0.message = printable(format!("{}; {what}", self.0.message));
        self
    }

    /// Whose problem it is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// How long a server asked us to stay away, where it did. It is only its wish: whoever waits bounds it.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// What to do next, where we know.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The operating system's error number, where one is at the bottom of it.
    pub fn raw_os_error(&self) -> Option<i32> {
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            let number = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
            if number.is_some() {
                return number;
            }
            next = cause.source();
        }
        None
    }

    /// Whether a device refused because another host's, or another run's, SCSI reservation guards it now.
    pub fn is_reservation_conflict(&self) -> bool {
        self.raw_os_error() == Some(libc::EBADE)
    }

    /// The causes, outermost first, as text, without those that are told already.
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            let text = printable(cause.to_string());
            let told = self.0.message.contains(&text) || causes.iter().any(|cause: &String| cause.contains(&text));
            if !told {
                causes.push(text);
            }
            next = cause.source();
        }
        causes
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

impl From<envelope::Error> for Error {
    fn from(error: envelope::Error) -> Self {
        Error::image(error.to_string())
    }
}

/// What to do about a reservation conflict.
pub(crate) const TAKEN_OVER: &str = "another holder of the SCSI reservation has taken over this device: let this run end, and see who has the newer right to write";

/// Attaches what was being done to an operating system error.
pub trait IoContext<T> {
    /// A device error: `what` failed.
    fn device(self, what: impl FnOnce() -> String) -> Result<T>;
    /// An error of another kind: `what` failed.
    fn context(self, kind: Kind, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> IoContext<T> for Result<T, E> {
    fn device(self, what: impl FnOnce() -> String) -> Result<T> {
        self.context(Kind::Device, what)
    }

    fn context(self, kind: Kind, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let error = error.into();
            let error = Error::new(kind, format!("{}: {error}", what())).with_source(error);
            if error.is_reservation_conflict() { error.with_hint(TAKEN_OVER) } else { error }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_error_says_can_be_printed() {
        let error = Error::image("a\u{1b}[2Jb\r\nc\u{9b}\u{202e}d ä…").with_hint("\u{7}").in_addition("\0");
        assert_eq!(error.to_string(), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c\u{fffd}\u{fffd}d ä…; \u{fffd}");
        assert_eq!(error.hint(), Some("\u{fffd}"));
        let long = Error::image("é".repeat(1 << 20)).to_string();
        assert!(long.chars().count() == MAX_TEXT + 1 && long.ends_with('…'));
        let cause = std::io::Error::other("x\u{1b}c");
        assert_eq!(Error::device("y").with_source(cause).causes(), ["x\u{fffd}c"]);
    }

    #[test]
    fn a_reservation_conflict_is_known_without_matching_text() {
        let conflict = || Err::<(), _>(std::io::Error::from_raw_os_error(libc::EBADE)).device(|| "flushing".into());
        let error = conflict().unwrap_err();
        assert!(error.is_reservation_conflict() && error.hint().is_some_and(|hint| hint.contains("taken over")));
        let deeper = Error::proof("and more").with_source(error);
        assert_eq!(deeper.raw_os_error(), Some(libc::EBADE));
        let other = Error::device("x").with_source(std::io::Error::other("Invalid exchange (os error 52)"));
        assert!(!other.is_reservation_conflict() && Error::device("y").raw_os_error().is_none());
    }

    #[test]
    fn a_cause_is_not_told_twice() {
        let inner = std::io::Error::other("it broke");
        assert_eq!(Error::device("writing: it broke").with_source(inner).causes(), Vec::<String>::new());
        let outer = Error::source_failed("middle: it broke").with_source(std::io::Error::other("it broke"));
        assert_eq!(Error::device("writing").with_source(outer).causes(), ["middle: it broke"]);
    }
}
