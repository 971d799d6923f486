//! zFCP: from a run spec's adapters, ports and LUNs to SCSI disks, and back.
//!
//! [`Fabric::attach`] looks at every way (`adapter.rs` reads sysfs, `standing.rs` says how far the way has come), gives
//! the order that helps there (`step.rs`), and looks again, until all ways are up or the time is over; then
//! `explain.rs` says where each stands still and what to check. What was set is noted meanwhile ([`Attached`]), and
//! [`Fabric::undo`] takes exactly that back. Which disk has to appear is not known here: the multipath map above waits
//! for its WWID.
//!
//! There is no zFCP outside of IBM Z, and no emulator has it. Everything here follows the kernel's source and
//! documentation and s390-tools, named where a fact comes from them, and is tested on trees laid out like theirs.

mod adapter;
mod attach;
mod explain;
mod show;
mod standing;
mod step;
mod undo;

use std::time::Duration;

use imgstream::error::{Error, Result};
use protocol::event::TornDown;
use protocol::spec::FcpSpec;
use tokio_util::sync::CancellationToken;

pub use adapter::{Adapter, FcHost, Health, Port, ScsiDevice, Unit};
pub use show::Listing;
pub use undo::Attached;

use crate::sysfs::Roots;

/// The FCP channels of a machine, and what lies behind them.
#[derive(Clone, Default)]
pub struct Fabric {
    roots: Roots,
}

impl Fabric {
    /// Those of a machine that shows itself below `roots`.
    pub fn at(roots: Roots) -> Self {
        Fabric { roots }
    }

    /// Every adapter of this machine, online or not; none on a machine without channels.
    ///
    /// # Errors
    /// `Target`, where sysfs is there but cannot be read.
    pub fn adapters(&self) -> Result<Vec<Adapter>> {
        let devices = self.roots.sys("bus/ccw/devices");
        match std::fs::read_dir(&devices) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::target(format!("reading {}: {error}", devices.display())).with_hint("run as root"))
            }
            _ => Ok(Adapter::all(&self.roots)),
        }
    }

    /// Sets adapters online and adds LUNs where that is needed, and waits for `wait` in all until every way can be
    /// used. What is waited for is told after 5 seconds and each time that has doubled. What was set is returned also
    /// when it fails.
    ///
    /// # Errors
    /// `Target` with a sentence for each way that does not come up, which says where it stands still; temporary where
    /// waiting longer can help. `Cancelled`.
    pub async fn attach(
        &self,
        ways: &[FcpSpec],
        wait: Duration,
        tell: &(dyn Fn(String) + Sync),
        cancel: &CancellationToken,
    ) -> (Attached, Result<()>) {
        attach::attach(self, ways, wait, tell, cancel).await
    }

    /// Takes back what `attached` says was set, in reverse, within a minute. Everybody must have let go of the disks
    /// before: they are deleted, of an adapter that was set online all there are.
    pub async fn undo(&self, attached: Attached) -> TornDown {
        undo::undo(self, attached).await
    }

    /// The way to the SCSI disk `sd_name` (such as `sda`) in words: adapter, WWPN and LUN; for a disk that is not on
    /// zFCP its SCSI host, channel, target and LUN; for one that is gone its name.
    pub fn way_of(&self, sd_name: &str) -> String {
        adapter::way_of(&self.roots, sd_name)
    }
}
