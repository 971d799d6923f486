//! The agent's target on an emulated IBM Z: real multipath, real reservations, real LUKS.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

mod faults;
mod interlocks;
mod layouts;
mod luks;
mod paths;
mod power;
mod reservations;
mod secrets;
mod stage;
mod tampering;
mod tear_down;
