//! Properties of every reader and writer of a format: what is written is read again, no bytes at all make a reader
//! panic, and damage to good bytes is refused or gives something that keeps every rule.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

mod damage;
mod descriptor;
mod frame;
mod index;
mod json;
mod oci;
mod tables;
mod text;
