//! The benchmark: how fast this machine, this source and this device are, which stage limits, and which settings reach it.

pub mod findings;
pub mod report;
pub mod verdict;
