//! SCSI-3 persistent reservations: one writer at a time, decided by the storage and not by us.
//!
//! A run registers a key made of its name and fencing epoch with every path, and reserves the LUN "write exclusive, registrants
//! only". Whoever comes with a higher epoch preempts it: from then on the storage refuses every write of the earlier one, also
//! those it had sent already. A key is used once; an epoch that has been on the LUN does not come back.
//!
//! Registrations go through `mpathpersist`, so that multipathd registers a path that returns before it is used again. It does so
//! only while the key is still registered elsewhere, which keeps a fenced run fenced when its paths flap.

mod held;
mod key;
mod leftovers;
mod lun;

pub use held::{Held, Taken, take};
pub use key::run_key;
pub use leftovers::{Leftovers, Which, release};
pub use lun::ReservedLun;
