//! LUKS2: the key, containers made and opened by `cryptsetup`, and what is checked because their header is not authenticated.
//!
//! Whoever can write to the storage can edit a LUKS2 header: to a cipher that encrypts nothing, to a reencryption that
//! "continues", to two segments of which one is in the clear (CVE-2025-59054, CVE-2025-58356). So a header is compared with
//! what it must be before anything is opened ([`header`]), a copy of it that was compared is what is opened ([`copy`]), and what the
//! kernel then maps is compared again ([`mapping`]).

mod checksum;
mod copy;
pub mod header;
mod key;
pub mod mapping;
pub mod probe;
mod volume;

pub use copy::Header;
pub use key::Key;
pub use volume::{Container, Found, Volume};
