//! The queue of a target: how many writes are in flight, whether one has failed, and who waits for either.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::outstanding::Operation;
use super::target::Target;
use crate::abort::Over;
use crate::error::{Error, Result, TAKEN_OVER};

/// What an error is made of, as often as it is asked for.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// The device, or whoever was to write to it, failed.
    Device { message: String, hint: &'static str, os: Option<i32> },
    /// It was not begun, or not begun again, since the run is over.
    CalledOff,
}

impl Failure {
    fn new(message: String, hint: &'static str) -> Self {
        Failure::Device { message, hint, os: None }
    }

    pub(super) fn error(&self) -> Error {
        match self {
            Failure::Device { message, hint, os } => {
                let error = Error::device(message.clone()).with_hint(*hint);
                os.map(io::Error::from_raw_os_error).into_iter().fold(error, Error::with_source)
            }
            Failure::CalledOff => Error::cancelled("writing"),
        }
    }
}

/// How much may be in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Depth {
    /// Writes.
    pub(super) writes: usize,
    /// Bytes of all of them, where it is more than one.
    pub(super) bytes: usize,
}

/// The writes in flight to one target.
#[derive(Debug)]
pub(super) struct Queue {
    target: Arc<Target>,
    depth: Depth,
    /// Once it says so, nothing more is begun.
    over: Over,
    given_up: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// How many have entered so far; also the number of the next.
    entered: u64,
    /// The numbers of the writes in flight.
    in_flight: BTreeSet<u64>,
    /// Bytes of these.
    bytes: usize,
    /// The first failure, told to everyone who asks: device, errno and remedy must not depend on who asks first.
    failure: Option<Failure>,
}

impl State {
    fn has_room(&self, depth: Depth, len: usize) -> bool {
        self.in_flight.is_empty() || (self.in_flight.len() < depth.writes && self.bytes + len <= depth.bytes)
    }
}

/// A moment in a queue's life: what had entered by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(u64);

impl Queue {
    pub(super) fn new(target: Arc<Target>, depth: Depth, over: Over) -> Arc<Self> {
        Arc::new(Queue {
            target,
            depth,
            over,
            given_up: AtomicBool::new(false),
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Waits for a place for a write of `len` bytes.
    ///
    /// # Errors
    /// The first failure of any write so far; `Cancelled` when the run is over.
    pub(super) fn enter(self: &Arc<Self>, device: usize, offset: u64, len: usize) -> Result<Ticket> {
        let mut state = self.lock();
        while !state.has_room(self.depth, len) && state.failure.is_none() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(failure) = &state.failure {
            return Err(failure.error());
        }
        if self.is_over() {
            return Err(Failure::CalledOff.error());
        }
        let number = state.entered;
        state.entered += 1;
        state.bytes += len;
        state.in_flight.insert(number);
        let asked = self.target.devices()[device].outstanding().asked(Operation::Write, offset, len as u64);
        Ok(Ticket { queue: Arc::clone(self), number, device, len, asked, outcome: None })
    }

    /// Whether the run is over, so that nothing more may be begun.
    pub(super) fn is_over(&self) -> bool {
        self.over.is_over()
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
        let failure = Failure::new("the device was given up".into(), "see the first error");
        self.given_up.store(true, Relaxed);
        self.lock().failure.get_or_insert(failure);
        self.changed.notify_all();
    }

    /// Whether it was given up.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Relaxed)
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
            Some(libc::EBADE) => TAKEN_OVER,
            Some(libc::EIO | libc::ENXIO | libc::ENODEV) => {
                "check the device, its paths and the kernel log, then run again"
            }
            Some(libc::EPERM | libc::EROFS) => {
                "it has become read-only: find out why in the kernel log and make it writable"
            }
            Some(libc::EFBIG) => "raise the limit on the size of files (RLIMIT_FSIZE, `ulimit -f`)",
            _ => "see the kernel log for this device",
        };
        Failure::Device { message, hint, os: error.raw_os_error() }
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
    len: usize,
    asked: u64,
    outcome: Option<Result<(), Box<Failure>>>,
}

impl Ticket {
    /// Says how the write ended.
    pub(super) fn ends(&mut self, outcome: Result<(), Failure>) {
        self.outcome = Some(outcome.map_err(Box::new));
    }

    /// Whether the run is over, so that the write need not be begun.
    pub(super) fn is_called_off(&self) -> bool {
        self.queue.is_over()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let device = &self.queue.target.devices()[self.device];
        device.outstanding().answered(self.asked);
        let outcome = self.outcome.take().unwrap_or_else(|| {
            let message = format!("a write to {} was lost by the write engine", device.name());
            Err(Box::new(Failure::new(message, "this is a defect of this program: please report it")))
        });
        let mut state = self.queue.lock();
        state.in_flight.remove(&self.number);
        state.bytes -= self.len;
        state.failure = state.failure.take().or(outcome.err().map(|failure| *failure));
        self.queue.changed.notify_all();
    }
}
