//! zFCP on simulated machines: attaching, every sentence that says why it stands still, undoing, and what there is to
//! see.
//!
//! No emulator has zFCP. These trees and the kernel that plays on them follow the kernel's source and documentation;
//! what a real machine does differently, they cannot show.

#![allow(clippy::unwrap_used)]

mod attaching;
mod cancelling;
mod channel;
mod facts;
mod kernel;
mod standing_still;
mod tree;
mod undoing;

use std::sync::Mutex;
use std::time::Duration;

use imgstream::error::Result;
use protocol::spec::FcpSpec;
use provisioner::target::fcp::Attached;
use tokio_util::sync::CancellationToken;

use channel::{Channel, Storage, When};
use kernel::Kernel;

/// The names of the examples in docs/operating.md.
const ADAPTER: &str = "0.0.1900";
const OTHER_ADAPTER: &str = "0.0.1940";
const WWPN: &str = "0x500507630300c562";
const OTHER_WWPN: &str = "0x500507630303c562";
const LUN: &str = "0x4010403300000000";

const WAIT: Duration = Duration::from_secs(30);

/// An adapter in good order, offline, in a fabric with one storage port that has one LUN for it.
fn channel() -> Channel {
    Channel {
        bus_id: ADAPTER,
        control_unit: "1731/03",
        driver: Some("zfcp"),
        availability: "good",
        npiv: false,
        link: true,
        recovers: true,
        storage: vec![storage(WWPN)],
    }
}

fn npiv() -> Channel {
    Channel { npiv: true, ..channel() }
}

fn other_channel() -> Channel {
    Channel { bus_id: OTHER_ADAPTER, storage: vec![storage(OTHER_WWPN)], ..channel() }
}

fn storage(wwpn: &'static str) -> Storage {
    Storage { wwpn, zoned: When::Always, lets_in: true, luns: vec![(LUN, When::Always)] }
}

fn text<T: TryFrom<String>>(text: &str) -> T {
    T::try_from(text.to_owned()).unwrap_or_else(|_| panic!("{text}"))
}

/// The adapter alone.
fn alone(adapter: &str) -> FcpSpec {
    FcpSpec { adapter: text(adapter), wwpn: None, lun: None }
}

/// A LUN behind a port.
fn way(adapter: &str, wwpn: &str) -> FcpSpec {
    FcpSpec { adapter: text(adapter), wwpn: Some(text(wwpn)), lun: Some(text(LUN)) }
}

/// Attaches for at most [`WAIT`]; what was told meanwhile comes with it.
async fn attach(kernel: &Kernel, ways: &[FcpSpec]) -> (Attached, Result<()>, Vec<String>) {
    let told = Mutex::new(Vec::new());
    let tell = |what| told.lock().unwrap().push(what);
    let (attached, ended) = kernel.fabric().attach(ways, WAIT, &tell, &CancellationToken::new()).await;
    (attached, ended, told.into_inner().unwrap())
}

/// Attaches, which works.
async fn attached(kernel: &Kernel, ways: &[FcpSpec]) -> Attached {
    let (attached, ended, _) = attach(kernel, ways).await;
    ended.unwrap();
    assert_eq!(attached.ways_up(), ways.len());
    attached
}
