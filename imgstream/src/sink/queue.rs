//! The queue of a target: how many writes are in flight, whether one has failed, and who waits for either.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::outstanding::Operation;
use super::target::Target;
use crate::error::{Error, Result};

/// What an error is made of, as often as it is asked for.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    message: String,
    hint: &'static str,
}

impl Failure {
    pub(super) fn error(&self) -> Error {
        Error::device(self.message.clone()).with_hint(self.hint)
    }
}

/// The writes in flight to one target, at most `depth`.
#[derive(Debug)]
pub(super) struct Queue {
    target: Arc<Target>,
    depth: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// How many have entered so far; also the number of the next.
    entered: u64,
    /// The numbers of the writes in flight.
    in_flight: BTreeSet<u64>,
    /// The first failure, told to everyone who asks: device, errno and remedy must not depend on who asks first.
    failure: Option<Failure>,
}

/// A moment in a queue's life: what had entered by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(u64);

impl Queue {
    pub(super) fn new(target: Arc<Target>, depth: usize) -> Arc<Self> {
        Arc::new(Queue { target, depth, state: Mutex::default(), changed: Condvar::new() })
    }

    /// Waits for a place for a write of `len` bytes.
    ///
    /// # Errors
    /// The first failure of any write so far.
    pub(super) fn enter(self: &Arc<Self>, device: usize, offset: u64, len: usize) -> Result<Ticket> {
        let mut state = self.lock();
        while state.in_flight.len() >= self.depth && state.failure.is_none() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(failure) = &state.failure {
            return Err(failure.error());
        }
        let number = state.entered;
        state.entered += 1;
        state.in_flight.insert(number);
        let asked = self.target.devices()[device].outstanding().asked(Operation::Write, offset, len as u64);
        Ok(Ticket { queue: Arc::clone(self), number, device, asked, outcome: None })
    }

    /// This moment.
    pub(super) fn mark(&self) -> Mark {
        Mark(self.lock().entered)
    }

    /// Waits until everything that had entered at `mark` has ended, and tells the first failure.
    pub(super) fn passed(&self, mark: Mark) -> Result<()> {
        let mut state = self.lock();
        while state.failure.is_none() && state.in_flight.first().is_some_and(|oldest| *oldest < mark.0) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.failure.as_ref().map_or(Ok(()), |failure| Err(failure.error()))
    }

    /// Waits until nothing is in flight, and tells the first failure.
    pub(super) fn idle(&self) -> Result<()> {
        let mut state = self.lock();
        while !state.in_flight.is_empty() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.failure.as_ref().map_or(Ok(()), |failure| Err(failure.error()))
    }

    /// Whether nothing is in flight now.
    pub(super) fn is_idle(&self) -> bool {
        self.lock().in_flight.is_empty()
    }

    /// Lets nobody enter any more, who waits now included: the device is given up.
    pub(super) fn give_up(&self) {
        let failure = Failure { message: "the device was given up".into(), hint: "see the first error" };
        self.lock().failure.get_or_insert(failure);
        self.changed.notify_all();
    }

    /// What offsets and lengths of writes to a device are multiples of.
    pub(super) fn alignment(&self, device: usize) -> usize {
        self.target.devices()[device].alignment()
    }

    /// The failure of a write.
    pub(super) fn failure(&self, device: usize, offset: u64, len: usize, error: &io::Error) -> Failure {
        let name = self.target.devices()[device].name();
        let message = format!("writing {len} bytes at offset {offset} of {name}: {error}");
        let hint = match error.raw_os_error() {
            Some(libc::ENOSPC) => {
                "the file system or thin pool behind the target is full, or the device has become smaller: \
                                   make room and run again"
            }
            Some(libc::EIO | libc::ENXIO | libc::ENODEV) => {
                "check the device, its paths and the kernel log, then run again"
            }
            Some(libc::EPERM | libc::EROFS) => {
                "it has become read-only: find out why in the kernel log and make it writable"
            }
            Some(libc::EFBIG) => "raise the limit on the size of files (RLIMIT_FSIZE, `ulimit -f`)",
            _ => "see the kernel log for this device",
        };
        Failure { message, hint }
    }

    // The state is changed in whole steps, so a poisoned lock is used as it is.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A write's place in the queue, free again when this is dropped. A write that is dropped without an outcome, by an engine
/// that lost it, is a failure: it must not look like one that landed.
#[derive(Debug)]
pub struct Ticket {
    queue: Arc<Queue>,
    number: u64,
    device: usize,
    asked: u64,
    outcome: Option<Result<(), Box<Failure>>>,
}

impl Ticket {
    /// Says how the write ended.
    pub(super) fn ends(&mut self, outcome: Result<(), Failure>) {
        self.outcome = Some(outcome.map_err(Box::new));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let device = &self.queue.target.devices()[self.device];
        device.outstanding().answered(self.asked);
        let outcome = self.outcome.take().unwrap_or_else(|| {
            let message = format!("a write to {} was lost by the write engine", device.name());
            Err(Box::new(Failure { message, hint: "this is a defect of this program: please report it" }))
        });
        let mut state = self.queue.lock();
        state.in_flight.remove(&self.number);
        state.failure = state.failure.take().or(outcome.err().map(|failure| *failure));
        self.queue.changed.notify_all();
    }
}
