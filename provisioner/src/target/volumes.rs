//! The containers of a layout: slots mapped, containers made or kept, opened and compared.

use imgstream::error::{Error, Kind, Result};
use imgstream::manifest::Descriptor;
use protocol::RunId;
use protocol::spec::LuksSpec;
use tokio_util::sync::CancellationToken;

use super::held::Held;
use super::layout::Slot;
use super::signatures::{self, Signature};
use crate::block::Block;
use crate::dm;
use crate::luks::header::Shape;
use crate::luks::{Container, Found, Key, Volume};

/// What decides how containers are made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub run: &'a RunId,
    pub luks: &'a LuksSpec,
    pub key: &'a Key,
    pub sector_size: u32,
    /// Keep a container that this run's key opens.
    pub resume: bool,
    /// Make it anew whatever is there.
    pub wipe: bool,
    /// What lies on the target around the containers.
    pub around: &'a [Signature],
    /// Ends it before anything else is changed.
    pub cancel: &'a CancellationToken,
}

/// A container that is open, and what was found in its place.
#[derive(Debug)]
pub(super) struct Opened {
    pub container: Container,
    pub volume: Volume,
}

/// The names of a run's mappings. `piece` is `disk`, `slotN` or `luksN`.
pub(super) fn name(run: &RunId, piece: &str) -> String {
    format!("zprov-{run}-{piece}")
}

/// Which run's, and which, a mapping is, where it is one of ours.
pub(super) fn piece_of(name: &str) -> Option<(&str, &str)> {
    let (run, piece) = name.strip_prefix("zprov-")?.rsplit_once('-')?;
    let number = piece.strip_prefix("slot").or(piece.strip_prefix("luks"));
    let is_ours = piece == "disk"
        || number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
    is_ours.then_some((run, piece))
}

/// Maps each slot of `disk`, which is a mapping of ours over the whole of `below`, and opens a container on each.
///
/// # Errors
/// `Target` when something foreign lies in a slot, or the key opens nothing; `Device`.
pub(super) async fn open(
    slots: &[Slot],
    disk: &Block,
    below: &Block,
    wanted: &Wanted<'_>,
    held: &mut Held,
) -> Result<Vec<Opened>> {
    let mut opened = Vec::new();
    for (number, slot) in slots.iter().enumerate() {
        let is_all = slot.offset == 0 && slot.len == disk.size;
        let block = if is_all { disk.clone() } else { map_slot(number, slot, below, wanted, held).await? };
        let container = Container {
            region: slot.region.clone(),
            uuid: slot.uuid.clone(),
            shape: Shape {
                cipher: wanted.luks.cipher.clone(),
                key_size: wanted.luks.key_size,
                sector_size: wanted.sector_size,
                header_bytes: slot.header_bytes,
                discards: wanted.luks.discards,
                pbkdf: wanted.luks.pbkdf.clone(),
            },
            slot: block,
            name: name(wanted.run, &format!("luks{number}")),
        };
        // A container on all of the target has nothing around it.
        let around = if is_all { &[] } else { wanted.around };
        let kept = keep_or_make(&container, around, wanted, held).await?;
        let volume = container.open(wanted.key, kept).await?;
        held.opened_container(&container, &volume);
        opened.push(Opened { container, volume });
    }
    Ok(opened)
}

async fn map_slot(number: usize, slot: &Slot, below: &Block, wanted: &Wanted<'_>, held: &mut Held) -> Result<Block> {
    let piece = format!("slot{number}");
    let name = name(wanted.run, &piece);
    let uuid = dm::mark(wanted.run.as_str()) + &piece;
    let block = dm::create_linear(&name, &uuid, below.number, slot.offset, slot.len).await?;
    held.created_linear(&name, &block)?;
    Ok(block)
}

/// Whether the container was there and is kept.
async fn keep_or_make(
    container: &Container,
    around: &[Signature],
    wanted: &Wanted<'_>,
    held: &mut Held,
) -> Result<bool> {
    let found = container.found().await?;
    if wanted.resume && !wanted.wipe && found == Found::Rejected {
        return Err(container.rejected());
    }
    if wanted.resume && found == Found::Itself {
        match keep(container, wanted.key).await {
            Ok(()) => {
                held.kept(container);
                return Ok(true);
            }
            Err(error) if wanted.wipe && error.kind() == Kind::Target => tracing::warn!("{error}; it is made anew"),
            Err(error) => return Err(error),
        }
    }
    if !wanted.wipe {
        let mut there = signatures::on(&container.slot.path()).await?;
        // One of ours that was being made when the power went, or whose keys were destroyed: nobody can open it any more.
        if wanted.resume && matches!(found, Found::Nothing | Found::WithoutKeys) {
            there.retain(|one| one.kind != "crypto_LUKS" || one.uuid.as_deref() != Some(container.uuid.as_str()));
        }
        // To resume means to go on with a container of this run; where there is none, what lies around is not this run's either.
        there.extend(around.iter().cloned());
        if !there.is_empty() {
            let name = format!("the place of region {} on {}", container.region, container.slot.path().display());
            return Err(signatures::refusal(&name, &there));
        }
    }
    held.may_change(wanted.cancel).await?;
    held.made(container);
    container.format(wanted.key).await?;
    Ok(false)
}

/// Compared before its key is tried: how that is done, and how much of the machine it takes, stands in the header.
async fn keep(container: &Container, key: &Key) -> Result<()> {
    container.check_header().await?;
    match container.is_opened_by(key).await? {
        true => container.finish(key).await,
        false => Err(container.wrong_key()),
    }
}

/// Checks that a device's sectors can carry containers with sectors of the image's size.
///
/// # Errors
/// `Target` with both.
pub(super) fn check_sectors(below: &Block, name: &str, descriptor: &Descriptor) -> Result<()> {
    if below.sector_size <= descriptor.sector_size {
        return Ok(());
    }
    Err(Error::target(format!(
        "{name} has sectors of {} bytes, the image was built for {}: a container cannot have smaller sectors than what it lies on",
        below.sector_size, descriptor.sector_size
    ))
    .with_hint("use an image built for this sector size"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runs_mappings_are_told_from_everybody_elses() {
        let run = |text: &str| RunId::try_from(text.to_owned()).unwrap();
        for (id, piece) in [("r-1", "disk"), ("r-1", "slot0"), ("r-1-disk", "luks12")] {
            assert_eq!(piece_of(&name(&run(id), piece)), Some((id, piece)));
        }
        for other in ["zprov-x", "zprov-r-slot", "zprov-r-diskx", "zprov-r-luksa", "mpatha", "zprov-r-slot1-part1"] {
            assert_eq!(piece_of(other), None, "{other}");
        }
    }
}
