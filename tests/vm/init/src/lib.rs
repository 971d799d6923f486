//! What a guest's first process and the harness say to each other. The process itself is the program of this crate.

pub mod frames;
