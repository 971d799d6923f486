//! The target: what stands between a run spec's LUN and a device that can be written.

pub mod fcp;
pub mod sysfs;
