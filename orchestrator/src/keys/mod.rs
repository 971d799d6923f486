//! Keys of disks, and who keeps them so that whoever has only the store, or a backup of it, has no key.
//!
//! [`Sealer`] stores each with its run, encrypted with a key-encryption key (KEK); [`Kek`] says where that comes from. [`Vault`] has them lie
//! in a secret store elsewhere. Each is a [`Keeper`](crate::engine::Keeper).

mod kek;
mod program;
mod sealer;
mod vault;

pub use kek::{KEK, Kek};
pub use sealer::Sealer;
pub(crate) use sealer::kek_of;
pub use vault::Vault;
