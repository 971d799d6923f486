//! What a chore says when it cannot go on: one line (what was tried, what happened, what to do) and an exit code.

use std::fmt::Display;

/// A failed chore.
#[derive(Debug)]
pub struct Fail {
    /// One line for a person.
    pub message: String,
    /// The exit code of `cargo xtask`.
    pub code: u8,
}

/// What every fallible function here returns.
pub type Outcome<T> = Result<T, Fail>;

impl Fail {
    /// The work itself failed.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }

    /// The machine or the command line is not ready; nothing was tried.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 2 }
    }

    /// Somebody pressed Ctrl-C or asked us to end.
    pub fn interrupted() -> Self {
        Self { message: "interrupted; everything that was opened has been closed again".into(), code: 130 }
    }
}

/// Says what was being tried when an I/O call failed.
pub trait Tried<T> {
    /// `read(path).tried("read the recipe")`
    fn tried(self, what: impl Display) -> Outcome<T>;
}

impl<T, E: Display> Tried<T> for Result<T, E> {
    fn tried(self, what: impl Display) -> Outcome<T> {
        self.map_err(|error| Fail::new(format!("could not {what}: {error}")))
    }
}
