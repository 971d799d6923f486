//! The target: from adapters and paths to devices that `imgstream` writes to, and back.
//!
//! What is opened here is noted in [`Held`] the moment it exists, and closed in reverse on every way out of a run. Well-kept
//! tools do the work (multipath-tools, `dmsetup`, `cryptsetup`); this drives them, checks what they did, and explains.

mod ask;
pub mod fcp;
mod guard;
mod held;
mod identity;
pub mod layout;
pub mod multipath;
pub mod reservation;
pub mod scsi;
pub mod signatures;
mod status;
mod take;
mod volumes;
mod watch;

pub use guard::Guard;
pub use held::{Ending, Held};
pub use take::{Taken, Wish, take};
pub use watch::watch;
