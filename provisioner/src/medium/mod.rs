//! The boot medium, seen from inside: what it is configured to do. How it is built is the crate `iso`'s business.

pub mod config;
pub mod ipsec;
pub mod net;
