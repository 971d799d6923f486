//! The boot medium: a machine boots it, joins the VCN, provisions itself, and boots what it was given.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod fixture;
mod forms;
mod gateway;
mod image;
mod ipl;
mod medium;
mod orchestrated;
mod pki;
mod refusals;
mod wire;
