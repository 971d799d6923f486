//! Keys of disks in a real OpenBao, over TLS, with a token that has the policy of the documentation and nothing more.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

mod bed;
mod keys;
mod servers;
mod starts;
