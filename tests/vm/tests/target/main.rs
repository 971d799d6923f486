//! The agent's target on an emulated IBM Z: real multipath, real reservations, real LUKS.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

mod interlocks;
mod layouts;
mod luks;
mod paths;
mod stage;
mod tear_down;
