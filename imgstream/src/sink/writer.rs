//! The writer: takes verified chunks and zeros, cuts them along the target's map, keeps the device's queue full, finishes
//! short writes, and remembers the first error.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::engine::{self, Engine, EngineChoice, EngineKind, Payload, Write, ZeroBuffer};
use super::target::Target;
use crate::buffer::Pool;
use crate::decode::VerifiedChunk;
use crate::error::{Error, IoContext, Kind, Result};
use crate::progress::Progress;

/// How often a device may answer "interrupted" or "try again" to one write before that is an error.
const MAX_INTERRUPTIONS: u32 = 100;

/// Writes to a target.
pub struct Writer {
    engine: Box<dyn Engine>,
    target: Arc<Target>,
    state: Arc<State>,
    depth: usize,
    zeros: Arc<ZeroBuffer>,
    fallback: Option<String>,
}

struct State {
    queue: Mutex<Queue>,
    changed: Condvar,
    target: Arc<Target>,
    progress: Arc<Progress>,
}

/// What an error is made of, as often as it is asked for.
#[derive(Clone)]
struct Failure {
    message: String,
    hint: &'static str,
}

impl Failure {
    fn error(&self) -> Error {
        Error::device(self.message.clone()).with_hint(self.hint)
    }
}

#[derive(Default)]
struct Queue {
    in_flight: usize,
    /// The first failure, told to everyone who asks: device, errno and remedy must not depend on who asks first.
    failure: Option<Failure>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("engine", &self.engine.kind())
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// Starts an engine for `target` with up to `depth` writes in flight. Takes one buffer of the pool for zeros.
    ///
    /// # Errors
    /// When no engine, or not the demanded one, works here.
    pub fn start(
        choice: EngineChoice,
        target: Arc<Target>,
        pool: &Arc<Pool>,
        depth: usize,
        progress: Arc<Progress>,
    ) -> Result<Self> {
        let zeros = pool.acquire().ok_or_else(|| Error::cancelled("starting the writer"))?;
        let state =
            Arc::new(State { queue: Mutex::default(), changed: Condvar::new(), target: Arc::clone(&target), progress });
        let on_outcome: engine::OnOutcome = {
            let state = Arc::clone(&state);
            Arc::new(move |write, outcome| state.settle(write, outcome))
        };
        let (engine, fallback) = engine::start(choice, target.devices(), pool, depth, on_outcome)
            .context(Kind::Device, || "starting the write engine".into())
            .map_err(|error| error.with_hint("choose another engine, or leave the choice to `auto`"))?;
        if let Some(fallback) = &fallback {
            tracing::warn!("{fallback}");
        }
        Ok(Writer { engine, target, state, depth, zeros: Arc::new(ZeroBuffer::new(zeros)), fallback })
    }

    /// The engine that writes.
    pub fn engine(&self) -> EngineKind {
        self.engine.kind()
    }

    /// What the automatic choice of the engine could not have, in words.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// The target.
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Starts writing a chunk; waits while the queue is full.
    ///
    /// # Errors
    /// The first error of any write so far.
    pub fn write(&self, chunk: VerifiedChunk) -> Result<()> {
        let chunk = Arc::new(chunk);
        let start = chunk.raw_offset();
        let end = start + chunk.bytes().len() as u64;
        for piece in self.target.map(start..end) {
            self.submit(Write {
                from: (piece.raw_offset - start) as usize,
                len: (piece.len as usize).next_multiple_of(self.target.devices()[piece.device].alignment()),
                device: piece.device,
                offset: piece.offset,
                payload: Payload::Chunk(Arc::clone(&chunk)),
                interruptions: 0,
            })?;
        }
        Ok(())
    }

    /// Starts writing zeros to `len` bytes at `offset` of a device; waits while the queue is full.
    ///
    /// # Errors
    /// The first error of any write so far.
    pub(super) fn write_zeros(&self, device: usize, offset: u64, len: u64) -> Result<()> {
        let alignment = self.target.devices()[device].alignment();
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(self.zeros.len() as u64);
            self.submit(Write {
                payload: Payload::Zeros(Arc::clone(&self.zeros)),
                from: 0,
                len: (piece as usize).next_multiple_of(alignment),
                device,
                offset: offset + done,
                interruptions: 0,
            })?;
            done += piece;
        }
        Ok(())
    }

    /// Waits until nothing is in flight.
    ///
    /// # Errors
    /// The first error of any write so far.
    pub fn drain(&self) -> Result<()> {
        self.state.idle().failure.as_ref().map_or(Ok(()), |failure| Err(failure.error()))
    }

    /// Waits until nothing is in flight. A thread that has submitted writes calls this before it ends: the kernel cancels
    /// what an ended thread's io_uring workers have not finished.
    pub fn settle(&self) {
        drop(self.state.idle());
    }

    /// Waits until nothing is in flight, then makes every device write back its cache.
    ///
    /// # Errors
    /// The first error of any write so far, or of the flush.
    pub fn flush(&self) -> Result<()> {
        self.drain()?;
        self.target.devices().iter().try_for_each(|device| device.flush())
    }

    fn submit(&self, write: Write) -> Result<()> {
        {
            let mut queue = self.state.lock();
            while queue.in_flight >= self.depth && queue.failure.is_none() {
                queue = self.state.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if let Some(failure) = &queue.failure {
                return Err(failure.error());
            }
            queue.in_flight += 1;
        }
        let (device, offset) = (write.device, write.offset);
        self.engine.submit(write).map_err(|error| {
            let failure = self.state.failure(device, offset, 0, &error);
            self.state.finish_one(Some(failure.clone()));
            failure.error()
        })
    }
}

impl State {
    /// What an outcome means: done, the rest to be written, or an error.
    fn settle(&self, mut write: Write, outcome: io::Result<usize>) -> Option<Write> {
        match outcome {
            Ok(0) => {
                let error = io::Error::from(io::ErrorKind::WriteZero);
                self.finish_one(Some(self.failure(write.device, write.offset, write.len, &error)));
                None
            }
            Ok(written) if written < write.len => {
                self.count(&write, written);
                write.from += written;
                write.len -= written;
                write.offset += written as u64;
                Some(write)
            }
            Ok(_) => {
                self.count(&write, write.len);
                drop(write);
                self.finish_one(None);
                None
            }
            Err(error) if is_passing(&error) && write.interruptions < MAX_INTERRUPTIONS => {
                write.interruptions += 1;
                Some(write)
            }
            Err(error) => {
                self.finish_one(Some(self.failure(write.device, write.offset, write.len, &error)));
                None
            }
        }
    }

    /// The queue, once nothing is in flight.
    fn idle(&self) -> MutexGuard<'_, Queue> {
        let mut queue = self.lock();
        while queue.in_flight > 0 {
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue
    }

    fn count(&self, write: &Write, written: usize) {
        if let Payload::Chunk(_) = write.payload {
            self.progress.written.fetch_add(written as u64, Relaxed);
        }
    }

    fn finish_one(&self, failure: Option<Failure>) {
        let mut queue = self.lock();
        queue.in_flight -= 1;
        queue.failure = queue.failure.take().or(failure);
        self.changed.notify_all();
    }

    fn failure(&self, device: usize, offset: u64, len: usize, error: &io::Error) -> Failure {
        let name = self.target.devices()[device].name();
        let message = format!("writing {len} bytes at offset {offset} of {name}: {error}");
        let hint = match error.raw_os_error() {
            Some(libc::ENOSPC) => "the file system or thin pool behind the target is full: make room and run again",
            Some(libc::EIO | libc::ENXIO | libc::ENODEV) => {
                "check the device, its paths and the kernel log, then run again"
            }
            _ => "see the kernel log for this device",
        };
        Failure { message, hint }
    }

    // The queue is changed in whole steps, so a poisoned lock is used as it is.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// ECANCELED is what io_uring says when the thread that had submitted the write is gone.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::ECANCELED))
}
