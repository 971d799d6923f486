//! The device mapper, through `dmsetup`: linear mappings of our own, tables and states of anybody's.
//!
//! Ours are named and marked (`ZPROV-RUN-…` in their UUID): what an agent that was killed has left is told from everybody else's by
//! both.

use std::time::Duration;

use imgstream::error::Result;

use crate::block::{self, Block, Number};
use crate::tool::Tool;

/// dm's own unit.
pub const SECTOR: u64 = 512;
/// udev looks at a device when it is closed; until it has, the mapping cannot be removed.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

/// The mark of a run's mappings.
pub fn mark(run: &str) -> String {
    format!("ZPROV-{run}-")
}

/// Maps `len` bytes of a device from `offset` on, as a device of its own.
///
/// # Errors
/// `Target`. Nothing stays mapped.
pub async fn create_linear(name: &str, uuid: &str, below: Number, offset: u64, len: u64) -> Result<Block> {
    let table = format!("0 {} linear {below} {}", len / SECTOR, offset / SECTOR);
    let create = Tool::new("dmsetup").args(["create", name, "--uuid", uuid, "--table", &table]);
    // Nobody else shall look at it, or build on it: udev's rules for disks are not for our pieces.
    let created = match create.args(["--noudevrules", "--noudevsync"]).end().await {
        Ok(ended) if ended.code == Some(0) => Block::of_mapping(name),
        Ok(ended) if ended.stderr.contains("busy") => {
            return Err(ended.failure().with_hint("somebody else uses the device below: find out with lsblk"));
        }
        Ok(ended) => return Err(ended.failure()),
        Err(error) => Err(error),
    };
    match created {
        Ok(block) => Ok(block),
        // It was made, or may have been by a tool that was given up on.
        Err(error) => match remove(name).await {
            Ok(()) => Err(error),
            Err(stays) => Err(error.in_addition(&format!("and {name} could not be removed: {stays}"))),
        },
    }
}

/// The table of a mapping, without keys.
///
/// # Errors
/// `Target` when there is no such mapping.
pub async fn table(name: &str) -> Result<String> {
    Tool::new("dmsetup").args(["table", name]).run().await
}

/// The state of a mapping.
///
/// # Errors
/// `Target` when there is no such mapping.
pub async fn status(name: &str) -> Result<String> {
    // Without --noflush the state of a map without paths is waited for until it has one.
    Tool::new("dmsetup").args(["status", "--noflush", name]).run().await
}

/// Removes a mapping; one that is busy for a moment is waited for.
///
/// # Errors
/// `Target` when it stays.
pub async fn remove(name: &str) -> Result<()> {
    patiently(name, || Tool::new("dmsetup").args(["remove", "--noudevsync", name])).await
}

/// Closes a LUKS container; one that is busy for a moment is waited for.
///
/// # Errors
/// `Target` when it stays open.
pub async fn close_container(name: &str) -> Result<()> {
    patiently(name, || Tool::new("cryptsetup").args(["close", name])).await
}

async fn patiently(name: &str, tool: impl Fn() -> Tool<'static>) -> Result<()> {
    let since = std::time::Instant::now();
    loop {
        let ended = tool().end().await?;
        if ended.code == Some(0) || !block::mappings().iter().any(|mapping| mapping.name == name) {
            return Ok(());
        }
        if since.elapsed() > PATIENCE {
            return Err(ended.failure());
        }
        tokio::time::sleep(PAUSE).await;
    }
}
