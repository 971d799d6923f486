//! The `io_uring` engine: O_DIRECT, registered buffers and files, out of order, one ring for the device.
//!
//! Whoever has a chunk submits it himself, under a short lock; one thread does nothing but reap. So a chunk reaches the
//! device without passing through another thread, and reaping waits for nobody.
#![allow(unsafe_code)] // The kernel is given raw addresses; each block says why they stay valid.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, types};

use super::device::Device;
use super::engine::{Engine, EngineKind, OnOutcome, Parts, Payload, Refused, Write};
use crate::buffer::Pool;

/// `user_data` of the no-op that wakes the reaper for good.
const STOP: u64 = u64::MAX;
/// How long to go on asking a kernel that says "not now" to take a submission.
const SUBMIT_PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Uring {
    shared: Arc<Shared>,
    reaper: Option<JoinHandle<()>>,
}

struct Shared {
    // Field order is drop order: the ring goes first, so no write can still be in flight when the buffers go.
    ring: IoUring,
    in_flight: Mutex<InFlight>,
    registered_buffers: bool,
    stopping: AtomicBool,
    on_outcome: OnOutcome,
    _devices: Arc<[Device]>,
    _pool: Arc<Pool>,
}

/// Owns every write from its submission until its completion.
struct InFlight {
    writes: Vec<Option<Write>>,
    vacant: Vec<usize>,
    /// Bytes of writes whose submission failed for good. Their entries stay queued, so the kernel may still read them.
    stranded: Vec<Payload>,
    /// Set by the first submission that failed for good: entering the ring again would also submit what is stranded, long
    /// after its writer was told that it failed.
    broken: bool,
}

impl Uring {
    /// Starts a ring. The text says what of it could not be had.
    pub(super) fn start(parts: &Parts) -> io::Result<(Self, Option<String>)> {
        // Twice the depth: a resubmission is queued while its predecessor still counts.
        let entries = (parts.depth * 2 + 1).next_power_of_two();
        let ring = IoUring::new(u32::try_from(entries).map_err(io::Error::other)?)?;
        let files: Vec<i32> = parts.devices.iter().map(|device| device.file().as_raw_fd()).collect();
        ring.submitter().register_files(&files)?;
        // SAFETY: the mapping lives as long as the pool, which `Shared` keeps until after the ring is gone.
        let registered = unsafe { ring.submitter().register_buffers(&[parts.pool.as_iovec()]) };
        let note = registered.as_ref().err().map(|error| {
            format!("io_uring without registered buffers ({error}): raise the limit of locked memory (RLIMIT_MEMLOCK) to have them")
        });
        let shared = Arc::new(Shared {
            ring,
            in_flight: Mutex::new(InFlight {
                writes: (0..entries).map(|_| None).collect(),
                vacant: (0..entries).collect(),
                stranded: Vec::new(),
                broken: false,
            }),
            registered_buffers: registered.is_ok(),
            stopping: AtomicBool::new(false),
            on_outcome: Arc::clone(&parts.on_outcome),
            _devices: Arc::clone(&parts.devices),
            _pool: Arc::clone(&parts.pool),
        });
        let reaper = std::thread::Builder::new().name("reap".into()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.reap()
        })?;
        Ok((Uring { shared, reaper: Some(reaper) }, note))
    }
}

impl Shared {
    fn submit(&self, write: Write) -> Result<(), Refused> {
        let mut in_flight = self.lock();
        if in_flight.broken {
            return Err(Refused { write, error: io::Error::other("the ring is broken") });
        }
        let Some(slot) = in_flight.vacant.pop() else {
            return Err(Refused { write, error: io::Error::other("more writes than the ring was made for") });
        };
        // Whoever reaps the completion waits for this lock, so the write is in its slot by then.
        match self.push(&self.entry(&write).user_data(slot as u64), || write.ticket.is_called_off()) {
            Ok(()) => {
                in_flight.writes[slot] = Some(write);
                Ok(())
            }
            Err(error) => {
                in_flight.stranded.push(write.payload.clone());
                in_flight.broken = true;
                Err(Refused { write, error })
            }
        }
    }

    fn entry(&self, write: &Write) -> io_uring::squeue::Entry {
        let bytes = write.bytes();
        // The writer bounds a write to one buffer, far below 4 GiB.
        let (address, len) = (bytes.as_ptr(), bytes.len() as u32);
        let file = types::Fixed(write.device as u32);
        if self.registered_buffers {
            opcode::WriteFixed::new(file, address, len, 0).offset(write.offset).build()
        } else {
            opcode::Write::new(file, address, len).offset(write.offset).build()
        }
    }

    /// Hands one entry to the kernel, which is asked again while it says "not now", unless the write is called off. The caller holds
    /// the lock of `in_flight`.
    fn push(&self, entry: &io_uring::squeue::Entry, is_called_off: impl Fn() -> bool) -> io::Result<()> {
        // SAFETY: only lock holders touch the submission queue, so this is the only handle to it. The bytes the entry
        // points at belong to a write that the caller puts into `in_flight`, where it stays until its completion arrives.
        unsafe { self.ring.submission_shared().push(entry) }
            .map_err(|_| io::Error::other("the submission queue is full"))?;
        let since = Instant::now();
        loop {
            match self.ring.submit() {
                Ok(_) => return Ok(()),
                Err(error) if is_passing(&error) && since.elapsed() < SUBMIT_PATIENCE && !is_called_off() => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn reap(&self) {
        let mut done: Vec<(u64, i32)> = Vec::new();
        loop {
            // SAFETY: no argument is passed. With nothing to submit this only waits for a completion.
            let waited = unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, 1, 1, None) };
            if let Err(error) = waited.as_ref()
                && !is_passing(error)
            {
                tracing::error!(%error, "waiting for completions failed");
                std::thread::sleep(Duration::from_millis(10));
            }
            // SAFETY: this thread alone touches the completion queue.
            done.extend(unsafe { self.ring.completion_shared() }.map(|entry| (entry.user_data(), entry.result())));
            for (user_data, result) in done.drain(..) {
                if user_data != STOP {
                    self.finish(user_data as usize, result);
                }
            }
            if self.stopping.load(SeqCst) && self.lock().writes.iter().all(Option::is_none) {
                return;
            }
        }
    }

    fn finish(&self, slot: usize, result: i32) {
        let write = {
            let mut in_flight = self.lock();
            let Some(write) = in_flight.writes.get_mut(slot).and_then(Option::take) else {
                return;
            };
            in_flight.vacant.push(slot);
            write
        };
        let outcome = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
        if let Some(next) = (self.on_outcome)(write, outcome)
            && let Err(Refused { write, error }) = self.submit(next)
        {
            // Not as the error it was: that might ask for yet another try, which could not be started either.
            (self.on_outcome)(write, Err(io::Error::other(format!("it could not be started again: {error}"))));
        }
    }

    // The list of slots is changed in whole steps, so a poisoned lock is used as it is.
    fn lock(&self) -> MutexGuard<'_, InFlight> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}

impl Engine for Uring {
    fn kind(&self) -> EngineKind {
        EngineKind::Uring
    }

    fn submit(&self, write: Write) -> Result<(), Refused> {
        self.shared.submit(write)
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.shared.stopping.store(true, SeqCst);
        let woken = {
            let in_flight = self.shared.lock();
            if in_flight.broken {
                Err(io::ErrorKind::BrokenPipe.into())
            } else {
                self.shared.push(&opcode::Nop::new().build().user_data(STOP), || false)
            }
        };
        // Without the wake-up the reaper may sleep for ever; it then keeps ring and buffers alive, which is safe.
        if let (Ok(()), Some(reaper)) = (woken, self.reaper.take()) {
            let _ = reaper.join();
            // A ring is torn down some time after its last close; until then it would keep the device open, and the next
            // one who wants it for himself would find it busy. These two take effect at once.
            let _ = self.shared.ring.submitter().unregister_files();
            let _ = self.shared.ring.submitter().unregister_buffers();
        }
    }
}
