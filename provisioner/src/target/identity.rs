//! Whether the paths of a map still lead to the LUN that the run names.

use imgstream::error::{Error, Kind, Result, Retry};
use protocol::Wwid;

use super::ask::{open_path, running_paths};
use super::multipath::Map;
use super::scsi::identity;

/// Asks every path that runs who it leads to, and returns how many have said that it is this LUN. One that does not answer
/// carries no writes either. For a thread that may wait.
///
/// # Errors
/// `Target` when one leads elsewhere; `Device` when not one answers.
pub fn check(map: &Map) -> Result<u32> {
    let (mut right, mut silent) = (0, None);
    for name in running_paths(map) {
        match check_path(&map.wwid, &name) {
            Ok(()) => right += 1,
            Err(error) if error.kind() == Kind::Target => return Err(error),
            Err(error) => silent = Some(error),
        }
    }
    match silent {
        Some(error) if right == 0 => Err(error),
        None if right == 0 => Err(Error::device(format!("multipath map {} has no path that runs", map.name))
            .with_retry(Retry::Temporary)
            .with_hint("see its paths: multipath -ll")),
        _ => Ok(right),
    }
}

fn check_path(wwid: &Wwid, name: &str) -> Result<()> {
    let device = open_path(name)?;
    let said = identity::wwids(&device).map_err(|error| {
        let message = format!("asking {name} which LUN it leads to: {error}");
        Error::device(message).with_source(error).with_retry(Retry::Temporary)
    })?;
    if said.iter().any(|one| one.eq_ignore_ascii_case(wwid.as_str())) {
        return Ok(());
    }
    let said = if said.is_empty() { "nothing that a WWID is made of".into() } else { said.join(", ") };
    Err(Error::target(format!("{name} is a path of {wwid} for multipath, but the LUN behind it says {said}")).with_hint(
        "the storage shows another LUN there than when the path appeared: nothing was written through it; check the mapping, and rescan",
    ))
}
