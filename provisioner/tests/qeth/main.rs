//! qeth on simulated machines: setting OSA and HiperSockets devices online, and every sentence that says why one stands still.
//!
//! No emulator has qeth. These trees and the kernel that plays on them follow the kernel's source and documentation; what a
//! real machine does differently, they cannot show.

#![allow(clippy::unwrap_used)]

mod kernel;
mod setting_online;
mod standing_still;
#[path = "../fcp/tree.rs"]
#[allow(dead_code)]
mod tree;

use std::time::Duration;

use imgstream::error::Result;

use kernel::Kernel;

const READ: &str = "0.0.0600";
const WRITE: &str = "0.0.0601";
const DATA: &str = "0.0.0602";

const WAIT: Duration = Duration::from_secs(30);

/// Sets the device online, for at most [`WAIT`].
async fn online(kernel: &Kernel, port: u8) -> Result<String> {
    kernel.card(port).set_online(WAIT, &|_| {}).await
}
