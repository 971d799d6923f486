//! Where verified chunks go: device facts and interlocks, the target's map, the write engines, zeroing.
//!
//! Nothing here fetches or decodes. A sink takes [`crate::decode::VerifiedChunk`]s and zeros, nothing else.

pub mod device;
pub mod engine;
pub mod facts;
#[cfg(test)]
pub(crate) mod faulty;
mod interlock;
pub(crate) mod null;
mod open;
pub mod outstanding;
mod patience;
mod queue;
pub mod target;
mod threads;
mod uring;
pub mod writer;
mod zero;

pub use device::Device;
pub use engine::{Engine, EngineChoice, EngineKind};
pub use open::OpenOptions;
pub use patience::{PATIENCE, open_patiently};
pub use queue::Mark;
pub use target::{Extent, Place, Target, ZeroPolicy};
pub use writer::Writer;
pub use zero::Zeroed;

/// Makes a write beyond the limit on the size of files (RLIMIT_FSIZE) an error of that write. Otherwise the kernel ends the
/// process by a signal, and nobody learns why. For commands, before they start threads.
///
/// # Errors
/// When the kernel refuses.
pub fn report_file_size_limit() -> std::io::Result<()> {
    use nix::sys::signal::{SigSet, Signal};
    let mut limit = SigSet::empty();
    limit.add(Signal::SIGXFSZ);
    limit.thread_block().map_err(Into::into)
}
