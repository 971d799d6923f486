//! Taking a target: found, checked, claimed, reserved, encrypted, opened. The order is part of the safety: who the target is and
//! what it holds is known before anything is changed, and nobody else can write to it from then on.

use std::path::{Path as FilePath, PathBuf};
use std::time::{Duration, Instant};

use imgstream::error::{Error, Kind, Result};
use imgstream::manifest::Descriptor;
use imgstream::sink::{Device, Extent, OpenOptions, Place as ExtentPlace, Target, ZeroPolicy, open_patiently};
use protocol::event::{Body, Container as ContainerFacts, Paths, Phase, ReservationFacts, Step, TargetFacts};
use protocol::spec::{Engine, Layout, LuksSpec, LunSpec, Place, Reservation, RunSpec};
use tokio_util::sync::CancellationToken;

use super::fcp::Fabric;
use super::guard::Guard;
use super::held::Held;
use super::layout::{self, Piece, Plan};
use super::multipath::{self, Map};
use super::reservation::{self, ReservedLun};
use super::signatures;
use super::volumes::{self, Opened, Wanted};
use crate::block::{self, Block, Number};
use crate::dm;
use crate::luks::Key;
use crate::report::Reporter;

/// Devices to write to, and what is known about them.
#[derive(Debug)]
pub struct Taken {
    /// Where `imgstream` writes.
    pub target: Target,
    /// For the summary.
    pub facts: TargetFacts,
    /// What was found on it and is tolerated because an earlier attempt may have left it, in words.
    pub foreign: Option<String>,
    /// The multipath map and its paths, where it has one.
    pub lun: Option<(Map, Vec<multipath::Path>)>,
}

/// What a target is taken for.
#[derive(Clone, Copy)]
pub struct Wish<'a> {
    /// The run.
    pub spec: &'a RunSpec,
    /// The image.
    pub descriptor: &'a Descriptor,
    /// The key, where the layout needs one.
    pub key: Option<&'a Key>,
    /// Who is told of steps, waits and warnings.
    pub reporter: &'a Reporter,
    /// Ends it.
    pub cancel: &'a CancellationToken,
}

/// Takes the target of a run. What was opened is in `held`, whatever comes of it.
///
/// # Errors
/// `Target` with what stands against it and the remedy; `Device`; `Usage` when layout and image do not suit each other;
/// `Cancelled`.
pub async fn take(wish: Wish<'_>, held: &mut Held) -> Result<Taken> {
    let spec = wish.spec;
    let found = wish.find(held).await?;
    wish.step(Step::Check);
    let claimed = wish.claim(&found, held).await?;
    let size = claimed.size;
    held.guarded_by(Guard::new(None, found.map()));
    // Who may not destroy what is there looks before anything is changed, reservations included; who may, makes room first,
    // since another's reservation can keep us from reading.
    let looked = if spec.target.wipe { None } else { Some(wish.look(&claimed).await?) };
    held.may_change(wish.cancel).await?;
    let reservation = wish.reserve(&found, held).await?;
    let there = match looked {
        Some(there) => there,
        None => wish.look(&claimed).await?,
    };
    held.guarded_by(Guard::new(reservation.as_ref().and_then(reservation::Taken::held), found.map()));
    let wiped = wish.wipe(&claimed, &there, held).await?;
    let (target, opened) = wish.open(claimed, &there, held).await?;
    // Since the first look the storage may have put another LUN in the place.
    held.may_change(wish.cancel).await?;
    let facts = wish.facts(&found, size, &opened, reservation.as_ref(), wiped);
    // What containers have to do with it has been decided by their keys.
    let is_open_question = !there.is_empty() && !spec.target.wipe && opened.is_empty();
    let foreign = is_open_question.then(|| signatures::listed(&there));
    Ok(Taken { target, facts, foreign, lun: found.lun })
}

/// A target that is there.
struct Found {
    name: String,
    path: PathBuf,
    lun: Option<(Map, Vec<multipath::Path>)>,
}

impl Found {
    fn map(&self) -> Option<Map> {
        self.lun.as_ref().map(|(map, _)| map.clone())
    }

    fn paths(&self) -> Option<Paths> {
        self.lun.as_ref().map(|(_, paths)| multipath::count(paths))
    }
}

/// A target that nobody else can take any more.
struct Claimed {
    /// Open exclusively: the target itself, or our mapping over all of it.
    device: Device,
    /// Bytes it holds.
    size: u64,
    /// Our mapping over all of it and what that lies on, where containers will be made.
    disk: Option<(Block, Block)>,
    plan: Plan,
}

impl Wish<'_> {
    fn step(&self, step: Step) {
        self.reporter.emit(Body::StepStarted { phase: Phase::Target, step });
    }

    fn warn(&self, message: String) {
        self.reporter.emit(Body::Warning { message });
    }

    async fn find(&self, held: &mut Held) -> Result<Found> {
        let name = self.spec.target.name();
        match self.spec.target.place() {
            Some(Place::Device(path)) => Ok(Found { name, path: path.clone(), lun: None }),
            Some(Place::Lun(lun)) => {
                let (map, paths) = self.find_lun(lun, held).await?;
                Ok(Found { name, path: map.block.path(), lun: Some((map, paths)) })
            }
            None => Err(Error::usage("`target` names no target, or two")),
        }
    }

    /// Adapters online, paths live, the map fit for a run.
    async fn find_lun(&self, lun: &LunSpec, held: &mut Held) -> Result<(Map, Vec<multipath::Path>)> {
        let wait = Duration::from_secs(lun.wait);
        let deadline = Instant::now() + wait;
        let tell = |what: String| self.warn(format!("waiting: {what}"));
        let was_there = Map::find(&lun.wwid).is_some();
        if !lun.fcp.is_empty() {
            self.step(Step::Attach);
            let fabric = Fabric::default();
            let (attached, outcome) = fabric.attach(&lun.fcp, wait, &tell, self.cancel).await;
            let ways_up = attached.ways_up();
            held.attached(fabric, attached);
            match outcome {
                // How many paths are enough is for the next step to say.
                Err(error) if ways_up > 0 && error.kind() != Kind::Cancelled => self.warn(error.to_string()),
                outcome => outcome?,
            }
        }
        self.step(Step::Paths);
        let waited = multipath::wait(lun, deadline, &tell, self.cancel).await;
        // Also one with too few paths is there because of us.
        if !was_there
            && held.has_set_adapters()
            && let Some(map) = Map::find(&lun.wwid)
        {
            held.map_appeared(map);
        }
        let (map, paths) = waited?;
        map.check_queueing().await?;
        Ok((map, paths))
    }

    /// The interlocks that need no look at what is on the target, and the claim: from here on nobody else can open it to write.
    async fn claim(&self, found: &Found, held: &mut Held) -> Result<Claimed> {
        self.remove_leftovers().await?;
        if let Some(map) = found.map() {
            remove_partition_mappings(&map).await?;
        }
        let Descriptor { raw_size, sector_size, .. } = *self.descriptor;
        let device = self.open_device(&found.path).await?;
        let size = device.facts().size;
        let plan = layout::plan(self.spec.target.layout, self.descriptor, &self.spec.run, &found.name, size)?;
        if plan.slots.is_empty() {
            device.check_fits(raw_size, sector_size)?;
            return Ok(Claimed { device, size, disk: None, plan });
        }
        if self.spec.target.layout == Layout::Split {
            device.check_fits(raw_size, sector_size)?;
        }
        let below = Block::of_path(&found.path)?;
        is_same(&device, &below)?;
        volumes::check_sectors(&below, &found.name, self.descriptor)?;
        // dm takes the place of our exclusive open: it lets nobody else in, and shows what it has.
        drop(device);
        let piece = "disk";
        let (name, uuid) = (volumes::name(&self.spec.run, piece), dm::mark(self.spec.run.as_str()) + piece);
        let disk = dm::create_linear(&name, &uuid, below.number, 0, below.size).await?;
        held.created_linear(&name, &disk)?;
        if disk.size != size {
            return Err(Error::target(format!("{} had {size} bytes and has {} now", found.name, disk.size))
                .with_hint("it was exchanged or resized while it was looked at"));
        }
        let device = self.open_device(&disk.path()).await?;
        is_same(&device, &disk)?;
        Ok(Claimed { device, size, disk: Some((disk, below)), plan })
    }

    async fn open_device(&self, path: &FilePath) -> Result<Device> {
        // Never created: a target that is not there is a mistake in the spec, not a wish for a new file.
        let buffered = self.spec.options.engine == Engine::Buffered;
        let options = OpenOptions { buffered, create: false, raw_size: self.descriptor.raw_size };
        open_patiently(path, options, self.cancel).await.map_err(|error| match error.hint() {
            Some(_) => error,
            None => error.with_hint("`target` must name a LUN, a whole block device, or a regular file that exists"),
        })
    }

    /// An agent of this run that was killed has left its mappings.
    async fn remove_leftovers(&self) -> Result<()> {
        let mark = dm::mark(self.spec.run.as_str());
        let mine = block::mappings().into_iter().filter_map(|mapping| {
            let (run, piece) = volumes::piece_of(&mapping.name)?;
            let is_container = piece.starts_with("luks");
            let marked = if is_container {
                mapping.uuid.starts_with("CRYPT-LUKS2-")
            } else {
                mapping.uuid == mark.clone() + piece
            };
            (run == self.spec.run.as_str() && marked).then(|| (is_container, mapping.name.clone()))
        });
        let mut mine: Vec<(bool, String)> = mine.collect();
        // Containers lie on slots.
        mine.sort_by_key(|(is_container, _)| !is_container);
        for (is_container, name) in mine {
            let closed = if is_container { dm::close_container(&name).await } else { dm::remove(&name).await };
            closed.map_err(|error| {
                error
                    .in_addition("it was left by an earlier attempt at this run, or one is at work here now")
                    .with_hint("end the other agent; if there is none, see who uses the mapping: lsblk, fuser")
            })?;
            self.warn(format!("mapping {name} was left by an earlier attempt and is closed"));
        }
        Ok(())
    }

    /// What the target holds. Refused unless the spec allows it to go, or an earlier attempt may have put it there.
    async fn look(&self, claimed: &Claimed) -> Result<Vec<signatures::Signature>> {
        let there = signatures::on(FilePath::new(&claimed.device.name())).await?;
        if there.is_empty() || self.spec.target.wipe || self.spec.options.resume {
            return Ok(there);
        }
        Err(signatures::refusal(&self.spec.target.name(), &there))
    }

    async fn reserve(&self, found: &Found, held: &mut Held) -> Result<Option<reservation::Taken>> {
        let policy = self.spec.target.reservation();
        let (Some(map), Some(paths)) = (found.map(), found.paths()) else { return Ok(None) };
        if policy == Reservation::Off {
            self.warn(format!("no reservation guards {}: `target.reservation` is off", found.name));
            return Ok(None);
        }
        self.step(Step::Reserve);
        let lun = ReservedLun::behind(&map);
        let (run, epoch, wipe) = (&self.spec.run, self.spec.epoch, self.spec.target.wipe);
        let taken = reservation::take(&lun, run, epoch, policy, wipe, paths.live).await?;
        match &taken {
            reservation::Taken::Held(reserved) => held.reserved(reserved.clone()),
            reservation::Taken::Unsupported => {
                self.warn(format!("no reservation guards {}: its storage knows none", found.name));
            }
        }
        Ok(Some(taken))
    }

    /// Makes the target forget what it held, where that was allowed. Returns it, in words.
    async fn wipe(&self, claimed: &Claimed, there: &[signatures::Signature], held: &Held) -> Result<Vec<String>> {
        // A resumed run may find its own; what is foreign shows when the media are compared.
        if there.is_empty() || !self.spec.target.wipe || self.spec.options.resume {
            return Ok(Vec::new());
        }
        self.warn(format!("{} held {}, which goes", self.spec.target.name(), signatures::listed(there)));
        held.may_change(self.cancel).await?;
        signatures::wipe(FilePath::new(&claimed.device.name())).await?;
        Ok(there.iter().map(ToString::to_string).collect())
    }

    /// Containers made or opened, and the map of the image onto the devices.
    async fn open(
        &self,
        claimed: Claimed,
        there: &[signatures::Signature],
        held: &mut Held,
    ) -> Result<(Target, Vec<Opened>)> {
        let Claimed { device, disk, plan, .. } = claimed;
        let Some((disk, below)) = disk else {
            return Ok((Target::single(device, self.descriptor.raw_size), Vec::new()));
        };
        let Some(key) = self.key else {
            return Err(Error::usage("`target.layout` encrypts, and there is no key")
                .with_hint("give one with --luks-key FILE"));
        };
        self.step(Step::Unlock);
        let usual = LuksSpec::default();
        let wanted = Wanted {
            run: &self.spec.run,
            luks: self.spec.target.luks.as_ref().unwrap_or(&usual),
            key,
            sector_size: self.descriptor.sector_size,
            resume: self.spec.options.resume,
            wipe: self.spec.target.wipe,
            around: there,
            cancel: self.cancel,
        };
        let is_whole = self.spec.target.layout == Layout::Whole;
        // cryptsetup takes the slot for itself, and a slot that is the whole disk is this very mapping.
        let clear = Some(device).filter(|_| !is_whole);
        let opened = volumes::open(&plan.slots, &disk, &below, &wanted, held).await?;
        let mut devices: Vec<Device> = clear.into_iter().collect();
        let first = devices.len();
        for one in &opened {
            let device = self.open_device(&one.volume.mapping.path()).await?;
            is_same(&device, &one.volume.mapping)?;
            devices.push(device);
        }
        let extents = plan.pieces.iter().map(|piece| extent(piece, first)).collect();
        Ok((Target::new(devices, extents, 0)?, opened))
    }

    fn facts(
        &self,
        found: &Found,
        size: u64,
        opened: &[Opened],
        reservation: Option<&reservation::Taken>,
        wiped: Vec<String>,
    ) -> TargetFacts {
        let container = |one: &Opened| ContainerFacts {
            region: one.container.region.clone(),
            uuid: one.container.uuid.clone(),
            cipher: one.container.shape.cipher.clone(),
            sector_size: one.container.shape.sector_size,
            kept: one.volume.kept,
        };
        TargetFacts {
            device: found.name.clone(),
            size,
            layout: self.spec.target.layout.name().to_owned(),
            paths: found.paths(),
            reservation: reservation.map(|taken| match taken {
                reservation::Taken::Held(held) => ReservationFacts::Held {
                    key: held.key().to_string(),
                    preempted: held.preempted.iter().map(ToString::to_string).collect(),
                },
                reservation::Taken::Unsupported => ReservationFacts::Unsupported,
            }),
            containers: opened.iter().map(container).collect(),
            wiped,
        }
    }
}

/// That what was opened by a name is what was found under it: names can be pointed elsewhere meanwhile.
fn is_same(device: &Device, block: &Block) -> Result<()> {
    let opened = Number::of_rdev(device.facts().number);
    if opened == block.number {
        return Ok(());
    }
    Err(Error::target(format!("{} was opened as {opened} and is {} now", device.name(), block.number))
        .with_hint("somebody renames devices at this moment: run again when it is quiet"))
}

/// Where a piece of a layout lies; the containers' devices are numbered from `first` on.
fn extent(piece: &Piece, first: usize) -> Extent {
    let place = match piece.place {
        layout::Place::Clear => {
            ExtentPlace::Device { device: 0, offset: piece.raw_offset, zero: ZeroPolicy::Device, skip_holes: false }
        }
        // What lies in a container before it is written is noise under its key: a hole may keep it.
        layout::Place::Slot(slot) => {
            ExtentPlace::Device { device: first + slot, offset: 0, zero: ZeroPolicy::Write, skip_holes: true }
        }
        layout::Place::Nowhere => ExtentPlace::Nowhere,
    };
    Extent { raw_offset: piece.raw_offset, len: piece.len, place }
}

/// multipath's udev rules map the partitions of what a map held. They would be in the way, and wrong afterwards; those that
/// somebody uses stay, and stop the run.
async fn remove_partition_mappings(map: &Map) -> Result<()> {
    let of_map = format!("-mpath-{}", map.wwid);
    let is_partition = |uuid: &str| uuid.starts_with("part") && uuid.ends_with(&of_map);
    for mapping in block::mappings().into_iter().filter(|mapping| is_partition(&mapping.uuid)) {
        dm::remove(&mapping.name).await.map_err(|error| {
            error
                .in_addition(&format!("a partition of {} is in use", map.name))
                .with_hint("find out who uses it (lsblk, fuser); close it if the LUN really is to be overwritten")
        })?;
    }
    Ok(())
}
