//! SCSI commands that only ask: who a LUN is, and who has reserved it. Nothing here writes to a LUN.

pub mod identity;
pub mod persistent;
mod sg;

pub use sg::ScsiError;
