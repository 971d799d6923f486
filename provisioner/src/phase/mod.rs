//! The phases of a run, in order. Each takes what the one before gave, and its output says in one line what came of it.

pub mod hand_over;
pub mod image;
pub mod ipl;
pub mod spec;
pub mod stream;
pub mod target;
