//! What is known of a running guest: threads note what they hear, waits look for what they need.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use guest_init::frames::End;
use serde_json::Value;

/// The notes.
#[derive(Default)]
pub struct Board {
    notes: Mutex<Notes>,
    changed: Condvar,
}

/// What has been heard.
#[derive(Default)]
pub struct Notes {
    /// How often the guest has booted.
    pub boots: u32,
    /// How often it was to boot again.
    pub resets: u32,
    /// Commands by number.
    pub commands: BTreeMap<u32, Heard>,
    /// QEMU's answers, by the number of the request.
    pub answers: BTreeMap<u64, Value>,
    /// QEMU's events that nobody has asked for yet.
    pub events: VecDeque<Value>,
    /// Whether QEMU says that the kernel has panicked.
    pub panicked: bool,
    /// Why nothing more is to be expected: a panic, an end nobody wanted.
    pub trouble: Option<String>,
    /// Whether QEMU has ended.
    pub over: bool,
}

/// What a command has said.
#[derive(Default)]
pub struct Heard {
    /// Its standard output so far.
    pub stdout: Vec<u8>,
    /// Its standard error so far.
    pub stderr: Vec<u8>,
    /// How it ended.
    pub end: Option<End>,
}

impl Board {
    /// Takes a note.
    pub fn note<T>(&self, note: impl FnOnce(&mut Notes) -> T) -> T {
        let noted = note(&mut self.lock());
        self.changed.notify_all();
        noted
    }

    /// Waits until what is looked for has been noted. Trouble ends the wait, unless it is what is looked for.
    ///
    /// # Errors
    /// Says what was waited for and why it has not come.
    pub fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&mut Notes) -> Option<T>,
    ) -> Result<T, String> {
        let until = Instant::now() + limit;
        let mut notes = self.lock();
        loop {
            if let Some(found) = look(&mut notes) {
                return Ok(found);
            }
            if let Some(trouble) = &notes.trouble {
                return Err(format!("{what} never came: {trouble}"));
            }
            if notes.over {
                return Err(format!("{what} never came: the guest is switched off"));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("{what} did not come within {limit:?}"));
            }
            notes = self.changed.wait_timeout(notes, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
