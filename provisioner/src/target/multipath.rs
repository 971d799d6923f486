//! A LUN behind dm-multipath, by its WWID and nothing else: waited for until it has the live paths that were demanded.
//!
//! multipath-tools assemble and watch it; here is only asked what they and the kernel made of it, and explained what is missing.

use std::path::{Path as FilePath, PathBuf};
use std::time::{Duration, Instant};

use imgstream::abort::unless_cancelled;
use imgstream::error::{Error, Result, Retry};
use protocol::Wwid;
use protocol::event::Paths;
use protocol::spec::LunSpec;
use tokio_util::sync::CancellationToken;

use super::status::{PathStatus, Status};
use crate::block::{self, Block, Number};
use crate::dm;
use crate::tool::Tool;

/// How often is looked whether it is there.
const LOOK: Duration = Duration::from_millis(250);
/// After how long what is waited for is told, and then each time that has doubled.
const TELL: Duration = Duration::from_secs(5);

/// A multipath map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// Its WWID.
    pub wwid: Wwid,
    /// Its name in the device mapper.
    pub name: String,
    /// The block device.
    pub block: Block,
}

/// One path of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// Its number.
    pub number: Number,
    /// The kernel's name, such as `sda`.
    pub kernel_name: String,
    /// Whether it carries reads and writes.
    pub live: bool,
    /// How often it has failed so far.
    pub failures: u64,
}

impl Map {
    /// The map of a WWID, if there is one now.
    pub fn find(wwid: &Wwid) -> Option<Self> {
        let uuid = format!("mpath-{wwid}");
        let mapping = block::mappings().into_iter().find(|mapping| mapping.uuid == uuid)?;
        let block = Block::of_number(mapping.number).ok()?;
        Some(Map { wwid: wwid.clone(), name: mapping.name, block })
    }

    /// Its paths now. A path that the kernel counts as active while its SCSI device is offline is not live.
    ///
    /// # Errors
    /// `Target` when the map is there no longer.
    pub async fn paths(&self) -> Result<Vec<Path>> {
        let status = self.status().await?;
        let named: Vec<(String, Number)> =
            self.block.slaves().into_iter().filter_map(|name| Some((name.clone(), block::number_of(&name)?))).collect();
        let path = |PathStatus { number, active, failures }: PathStatus| {
            let kernel_name =
                named.iter().find(|(_, of)| *of == number).map_or_else(|| number.to_string(), |(name, _)| name.clone());
            let runs = block::attribute_of(&kernel_name, "device/state").is_none_or(|state| state == "running");
            Path { number, kernel_name, live: active && runs, failures }
        };
        Ok(status.paths.into_iter().map(path).collect())
    }

    /// Where multipath's own tools look for it. udev makes it, some time after the map.
    pub fn node(&self) -> PathBuf {
        FilePath::new("/dev/mapper").join(&self.name)
    }

    fn has_node(&self) -> bool {
        Block::of_path(&self.node()).is_ok_and(|block| block.number == self.block.number)
    }

    /// Whether it has a live path. A map that is gone has none.
    pub async fn has_live_path(&self) -> bool {
        self.paths().await.is_ok_and(|paths| paths.iter().any(|path| path.live))
    }

    async fn status(&self) -> Result<Status> {
        let text = dm::status(&self.name).await?;
        Status::parse(&text).ok_or_else(|| Error::target(format!("{} is no multipath map: {}", self.name, text.trim())))
    }

    /// Refuses a map that would wait for ever when all its paths are gone: nobody would learn why.
    ///
    /// # Errors
    /// `Target`, naming the setting.
    pub async fn check_queueing(&self) -> Result<()> {
        let show = Tool::new("multipathd").args(["show", "maps", "raw", "format", "%w %Q"]);
        let queueing = show.run().await.map_err(|error| {
            error.with_hint(
                "multipathd must run: without it no path that fails comes back, and nobody counts the time without any",
            )
        })?;
        // What the configuration has to say of itself stands between.
        let words = queueing.lines().filter_map(|line| line.trim().split_once(char::is_whitespace));
        let of_map = words.into_iter().find(|(wwid, _)| *wwid == self.wwid.as_str());
        match of_map.map(|(_, queueing)| queueing.trim()) {
            Some("on") => Err(Error::target(format!("multipath map {} waits for ever when it has no path left", self.name))
                .with_hint("set `no_path_retry` to a number in multipath.conf (overrides section) and run `multipathd reconfigure`")),
            Some(_) => Ok(()),
            None => Err(Error::target(format!("multipathd does not know the map {}", self.name))
                .with_retry(Retry::Temporary)
                .with_hint("see `multipathd show maps`; it may just have been restarted")),
        }
    }

    /// Removes the map. Only for one that was not there before.
    ///
    /// # Errors
    /// `Target` when it stays.
    pub async fn flush(&self) -> Result<()> {
        Tool::new("multipath").args(["-f", &self.name]).run().await.map(drop)
    }
}

/// How many of these paths are live.
pub fn count(paths: &[Path]) -> Paths {
    let live = paths.iter().filter(|path| path.live).count();
    Paths { live: live.try_into().unwrap_or(u32::MAX), total: paths.len().try_into().unwrap_or(u32::MAX) }
}

/// Waits for the map and as many live paths as `lun` demands, until `deadline`. `tell` hears what is waited for.
///
/// # Errors
/// `Target` with what is missing when the time is over; `Cancelled`.
pub async fn wait(
    lun: &LunSpec,
    deadline: Instant,
    tell: &(dyn Fn(String) + Sync),
    cancel: &CancellationToken,
) -> Result<(Map, Vec<Path>)> {
    let since = Instant::now();
    let mut next = TELL;
    loop {
        let seen = look(&lun.wwid).await?;
        if let Seen::Map(map, paths) = &seen
            && count(paths).live >= lun.min_paths
            && map.has_node()
        {
            return Ok((map.clone(), paths.clone()));
        }
        let waited = since.elapsed();
        if Instant::now() >= deadline {
            return Err(seen.explain(lun, waited));
        }
        if waited >= next {
            tell(seen.describe(lun));
            next *= 2;
        }
        let pause = async {
            tokio::time::sleep(LOOK).await;
            Ok(())
        };
        unless_cancelled(cancel, "waiting for paths", pause).await?;
    }
}

/// What there is of a LUN.
enum Seen {
    /// No SCSI disk of this machine says it is this LUN.
    Nothing,
    /// These do, but there is no map.
    Disks(Vec<String>),
    /// A map, with too few live paths.
    Map(Map, Vec<Path>),
}

async fn look(wwid: &Wwid) -> Result<Seen> {
    if let Some(map) = Map::find(wwid) {
        // It may vanish between two looks.
        if let Ok(paths) = map.paths().await {
            return Ok(Seen::Map(map, paths));
        }
    }
    let is_path = |name: &String| {
        // sysfs says `naa.` where multipath says 3.
        let naa =
            block::attribute_of(name, "device/wwid").and_then(|wwid| Some(format!("3{}", wwid.strip_prefix("naa.")?)));
        naa.as_deref() == Some(wwid.as_str())
    };
    let disks: Vec<String> = block::scsi_disks().into_iter().filter(is_path).collect();
    Ok(if disks.is_empty() { Seen::Nothing } else { Seen::Disks(disks) })
}

impl Seen {
    fn describe(&self, lun: &LunSpec) -> String {
        let LunSpec { wwid, min_paths, .. } = lun;
        match self {
            Seen::Nothing => format!("LUN {wwid}: no SCSI disk of this machine says it is this LUN"),
            Seen::Disks(disks) => {
                format!("LUN {wwid}: {} lead to it, but multipathd has made no map", disks.join(", "))
            }
            Seen::Map(map, paths) => {
                let each = paths
                    .iter()
                    .map(|path| format!("{} {}", path.kernel_name, if path.live { "is live" } else { "is not" }));
                let each = each.collect::<Vec<_>>().join(", ");
                let node =
                    if map.has_node() { String::new() } else { format!(", and {} is not there", map.node().display()) };
                format!("LUN {wwid}: {} of {min_paths} live paths ({each}){node}", count(paths).live)
            }
        }
    }

    fn explain(&self, lun: &LunSpec, waited: Duration) -> Error {
        let hint = match self {
            Seen::Nothing => "check the WWID, zoning and LUN masking; lsscsi -i and lszfcp -D show what is there",
            Seen::Disks(_) => {
                "check that multipathd runs and does not leave it out: multipath -v3, `blacklist` and `find_multipaths` in multipath.conf"
            }
            Seen::Map(map, paths) if count(paths).live >= lun.min_paths && !map.has_node() => {
                "udev has not made its node: see that systemd-udevd runs, with multipath's rules"
            }
            Seen::Map(..) => {
                "mend the missing path (multipath -ll, lszfcp -D), or demand fewer: `target.lun.min_paths`"
            }
        };
        Error::target(format!("{}, after {} s", self.describe(lun), waited.as_secs()))
            .with_retry(Retry::Temporary)
            .with_hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lun(min_paths: u32) -> LunSpec {
        let wwid = "36005076307ffd7d7000000000000001a".to_owned().try_into().unwrap();
        LunSpec { wwid, fcp: Vec::new(), min_paths, wait: 1 }
    }

    fn path(kernel_name: &str, live: bool) -> Path {
        Path { number: Number { major: 8, minor: 0 }, kernel_name: kernel_name.into(), live, failures: 0 }
    }

    fn map() -> Map {
        let number = Number { major: 253, minor: 0 };
        let block = Block { number, kernel_name: "dm-0".into(), mapping: Some("m".into()), size: 1, sector_size: 512 };
        Map { wwid: lun(2).wwid, name: "m".into(), block }
    }

    #[test]
    fn what_is_missing_is_explained_and_may_pass() {
        let one = Seen::Map(map(), vec![path("sda", true), path("sdb", false)]);
        let error = one.explain(&lun(2), Duration::from_secs(60));
        assert!(
            error
                .to_string()
                .ends_with("1 of 2 live paths (sda is live, sdb is not), and /dev/mapper/m is not there, after 60 s"),
            "{error}"
        );
        assert_eq!(error.retry(), Retry::Temporary);
        let none = Seen::Disks(vec!["sda".into(), "sdb".into()]).explain(&lun(2), Duration::ZERO);
        assert!(none.to_string().contains("sda, sdb lead to it") && none.hint().unwrap().contains("multipathd runs"));
        assert!(Seen::Nothing.explain(&lun(1), Duration::ZERO).hint().unwrap().contains("zoning"));
    }

    #[tokio::test]
    async fn waiting_is_bounded_and_can_be_cancelled() {
        let none = wait(&lun(1), Instant::now(), &|_| (), &CancellationToken::new()).await.unwrap_err();
        assert!(none.to_string().contains("no SCSI disk"), "{none}");
        let cancel = CancellationToken::new();
        cancel.cancel();
        let deadline = Instant::now() + Duration::from_secs(600);
        let cancelled = wait(&lun(1), deadline, &|_| (), &cancel).await.unwrap_err();
        assert_eq!(cancelled.kind(), imgstream::error::Kind::Cancelled);
    }
}
