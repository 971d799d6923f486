//! Where verified chunks go: device facts and interlocks, the target's map, the write engines, zeroing.
//!
//! Nothing here fetches or decodes. A sink takes [`crate::decode::VerifiedChunk`]s and zeros, nothing else.

pub mod device;
pub mod engine;
pub mod facts;
#[cfg(test)]
pub(crate) mod faulty;
mod interlock;
pub mod outstanding;
mod patience;
mod queue;
pub mod target;
mod threads;
mod uring;
pub mod writer;
mod zero;

pub use device::{Device, OpenOptions};
pub use engine::{Engine, EngineChoice, EngineKind};
pub use patience::{PATIENCE, open_patiently};
pub use target::{Extent, Target, ZeroPolicy};
pub use writer::Writer;
pub use zero::Zeroed;
