//! The seam between the writer and the kernel: an engine starts writes and tells how each ended.
//!
//! An engine owns a write, and through it the buffer, until it has told the outcome. It never waits for whoever produces
//! writes, and telling an outcome never waits for whoever submits: slots equal to queue depth cannot deadlock.
//! Tests put faults here by wrapping an engine (`sink/faulty.rs`).

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;

use super::device::Device;
use super::queue::Ticket;
use super::{threads, uring};
use crate::buffer::{Buffer, Pool};
use crate::decode::VerifiedChunk;

/// Bytes on their way to a device.
#[derive(Debug, Clone)]
pub enum Payload {
    /// Part of a verified chunk.
    Chunk(Arc<VerifiedChunk>),
    /// Part of a buffer of zeros.
    Zeros(Arc<ZeroBuffer>),
}

/// A pool buffer that holds zeros and cannot be changed.
#[derive(Debug)]
pub struct ZeroBuffer(Buffer);

impl ZeroBuffer {
    /// Fills `buffer` with zeros and seals it.
    pub fn new(mut buffer: Buffer) -> Self {
        buffer.fill(0);
        ZeroBuffer(buffer)
    }

    /// Number of zeros.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: a pool has no empty buffers.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One write: `len` bytes of the payload, from `from` on, to `offset` of device number `device`. It cannot be copied, so no
/// engine can tell two outcomes of one write.
#[derive(Debug)]
pub struct Write {
    /// What is written.
    pub payload: Payload,
    /// First byte of the payload.
    pub from: usize,
    /// Number of bytes, padding included.
    pub len: usize,
    /// Index into the target's devices.
    pub device: usize,
    /// Byte offset on the device.
    pub offset: u64,
    /// How often the kernel asked to try this again.
    pub interruptions: u32,
    /// Its place in the queue.
    pub ticket: Ticket,
}

impl Write {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        let all = match &self.payload {
            Payload::Chunk(chunk) => chunk.padded(crate::buffer::ALIGNMENT),
            Payload::Zeros(zeros) => &zeros.0,
        };
        &all[self.from..self.from + self.len]
    }
}

/// Told once per write the engine was given. Answers with a write to start in its place (the rest after a short one).
pub type OnOutcome = Arc<dyn Fn(Write, io::Result<usize>) -> Option<Write> + Send + Sync>;

/// A write that could not be started, and why. No outcome was told for it.
#[derive(Debug)]
pub struct Refused {
    /// The write.
    pub write: Write,
    /// Why.
    pub error: io::Error,
}

/// Starts writes and tells their outcomes.
pub trait Engine: Send + Sync {
    /// Which one it is.
    fn kind(&self) -> EngineKind;

    /// Starts a write. The caller keeps the number in flight at or below the depth the engine was made for.
    ///
    /// # Errors
    /// When the write could not even be started; no outcome will be told for it.
    fn submit(&self, write: Write) -> Result<(), Refused>;

    /// Makes a device write back its cache: what it has acknowledged then survives a power cut.
    ///
    /// # Errors
    /// Those of [`Device::flush`].
    fn flush(&self, device: &Device) -> crate::error::Result<()> {
        device.flush()
    }
}

/// What an engine is made of.
pub struct Parts {
    /// Which one is wanted.
    pub choice: EngineChoice,
    /// The target's devices.
    pub devices: Arc<[Device]>,
    /// Where the bytes of writes come from.
    pub pool: Arc<Pool>,
    /// Most writes in flight.
    pub depth: usize,
    /// Who is told.
    pub on_outcome: OnOutcome,
}

/// An engine, and the fall-back it is, where it is one: that must be said aloud.
pub type Started = (Arc<dyn Engine>, Option<String>);

/// The engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    /// `io_uring` with O_DIRECT, registered buffers and files.
    Uring,
    /// `pwrite` with O_DIRECT on several threads.
    Direct,
    /// `pwrite` through the page cache, for files that refuse O_DIRECT.
    Buffered,
    /// Nothing is written: what a benchmark without a device has. Nobody can ask for it.
    Null,
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EngineKind::Uring => "io_uring (O_DIRECT)",
            EngineKind::Direct => "pwrite threads (O_DIRECT)",
            EngineKind::Buffered => "pwrite threads (page cache)",
            EngineKind::Null => "none: nothing is written",
        })
    }
}

/// What the user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineChoice {
    /// The best that works here; what was not possible is said.
    #[default]
    Auto,
    /// This one or an error.
    Only(EngineKind),
}

impl FromStr for EngineChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "auto" => EngineChoice::Auto,
            "uring" => EngineChoice::Only(EngineKind::Uring),
            "direct" => EngineChoice::Only(EngineKind::Direct),
            "buffered" => EngineChoice::Only(EngineKind::Buffered),
            _ => {
                return Err(format!("{text:?} is not an engine: auto, uring, direct or buffered"));
            }
        })
    }
}

/// Makes the chosen engine.
///
/// # Errors
/// When exactly one engine was asked for and it does not work here.
pub(crate) fn start(parts: Parts) -> io::Result<Started> {
    let direct = parts.devices.iter().all(Device::is_direct);
    let threaded = |kind, parts| -> io::Result<Arc<dyn Engine>> { Ok(Arc::new(threads::Threads::start(kind, parts)?)) };
    let unsuited = || io::Error::new(io::ErrorKind::Unsupported, "the target does not accept O_DIRECT");
    match parts.choice {
        EngineChoice::Only(EngineKind::Buffered) => Ok((threaded(EngineKind::Buffered, &parts)?, None)),
        EngineChoice::Only(EngineKind::Null) => Err(io::ErrorKind::Unsupported.into()),
        EngineChoice::Only(_) if !direct => Err(unsuited()),
        EngineChoice::Only(EngineKind::Direct) => Ok((threaded(EngineKind::Direct, &parts)?, None)),
        EngineChoice::Only(EngineKind::Uring) => Ok((Arc::new(uring::Uring::start(&parts)?.0), None)),
        EngineChoice::Auto if !direct => {
            let aloud = "the target does not accept O_DIRECT: writing through the page cache".to_owned();
            Ok((threaded(EngineKind::Buffered, &parts)?, Some(aloud)))
        }
        EngineChoice::Auto => match uring::Uring::start(&parts) {
            Ok((engine, note)) => Ok((Arc::new(engine), note)),
            Err(error) => {
                let aloud = format!("io_uring is not available here ({error}): writing with pwrite threads");
                Ok((threaded(EngineKind::Direct, &parts)?, Some(aloud)))
            }
        },
    }
}
