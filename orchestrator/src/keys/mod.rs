//! Keys of disks, sealed: each is encrypted with a key-encryption key (KEK) and stored with its run, so that whoever has only the store,
//! or a backup of it, has no key.
//!
//! [`Kek`] says where that key comes from, [`Sealer`] what it does. Another keeper, such as a secret store elsewhere, is another
//! [`Keeper`](crate::engine::Keeper).

mod kek;
mod program;
mod sealer;

pub use kek::{KEK, Kek};
pub use sealer::Sealer;
pub(crate) use sealer::kek_of;
