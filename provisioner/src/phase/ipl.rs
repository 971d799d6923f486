//! Of the hand-over, what has to do with starting the target: that firmware could, and that it will.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use imgstream::error::{Error, Result};
use imgstream::manifest::Descriptor;
use protocol::event::{Body, IplFacts, Phase, Step};
use protocol::spec::{Layout, Place, RunSpec};

use crate::block::Block;
use crate::ipl::alive;
use crate::ipl::record::{self, Boot, Media, ReadAt};
use crate::ipl::reipl::{self, Source};
use crate::report::Reporter;
use crate::sysfs::Roots;
use crate::target::Taken;
use crate::target::multipath::Map;
use crate::thread::apart;

/// How much of a disk's beginning is compared on the path that firmware will use, in bytes.
const HEAD: usize = 4096;
/// How long one path may take to answer.
const PATH_LIMIT: Duration = Duration::from_secs(20);

/// What has to be known of a target to start it, noted while it is open.
#[derive(Debug)]
pub struct Ipl {
    node: PathBuf,
    block: Block,
    map: Option<Map>,
    /// What lies in the clear: all that firmware may be led to.
    clear: Vec<Range<u64>>,
    /// The containers that were made.
    luks: Vec<String>,
}

/// A target that firmware could start.
#[derive(Debug)]
pub struct Checked {
    boot: Boot,
    head: Vec<u8>,
    /// Kernel names of the paths that were live.
    paths: Vec<String>,
}

impl Ipl {
    /// Takes note of a target.
    ///
    /// # Errors
    /// `Target` when it is no block device.
    pub fn of(taken: &Taken, spec: &RunSpec, descriptor: &Descriptor) -> Result<Self> {
        let map = taken.lun.as_ref().map(|(map, _)| map.clone());
        let node = match (&map, spec.target.place()) {
            (Some(map), _) => map.node(),
            (None, Some(Place::Device(path))) => path.to_owned(),
            (None, _) => return Err(Error::target("the LUN has no multipath map")),
        };
        let block = Block::of_path(&node)?;
        let whole = 0..descriptor.raw_size;
        let clear = match spec.target.layout {
            Layout::Split => {
                let clear = descriptor.regions.iter().filter(|region| !region.encrypt);
                clear.map(|region| region.offset..region.offset + region.length).collect()
            }
            Layout::Plain | Layout::Whole => vec![whole],
        };
        let luks = taken.facts.containers.iter().map(|container| container.uuid.clone()).collect();
        Ok(Self { node, block, map, clear, luks })
    }

    /// Looks at what was written as firmware would. Before the target is closed.
    ///
    /// # Errors
    /// `Image` when it could not be started; `Device` when it cannot be read.
    pub async fn check(&self, reporter: &Reporter) -> Result<Checked> {
        reporter.emit(Body::StepStarted { phase: Phase::HandOver, step: Step::CheckBoot });
        let (node, size) = (self.node.clone(), self.block.sector_size);
        let (clear, luks) = (self.clear.clone(), self.luks.clone());
        let looked = apart("looks at the boot record", move || {
            let media = Media::open(&node)?;
            let boot = record::check(&media, size, &clear, &luks)?;
            let mut head = vec![0; HEAD];
            media.read_at(&mut head, 0)?;
            Ok((boot, head))
        });
        let (boot, head) = looked.await?;
        let paths = match &self.map {
            Some(map) => map.paths().await?.into_iter().filter(|path| path.live).map(|path| path.kernel_name).collect(),
            None => vec![self.block.kernel_name.clone()],
        };
        Ok(Checked { boot, head, paths })
    }

    /// Chooses a path that works and tells the firmware. After the target is closed, and before adapters are set back.
    ///
    /// # Errors
    /// `Device` when no path works or the firmware does not take it; `Target` when this machine cannot do it.
    pub async fn prepare(&self, checked: Checked, reporter: &Reporter) -> Result<(Source, IplFacts)> {
        reporter.emit(Body::StepStarted { phase: Phase::HandOver, step: Step::PrepareIpl });
        let alive = alive::proven_alive(Path::new("/dev"), &checked.paths, &checked.head, PATH_LIMIT).await?;
        for failed in &alive.failed {
            reporter.emit(Body::Warning { message: format!("not started from: {failed}") });
        }
        let roots = Arc::new(Roots::default());
        let told = apart("tells the firmware what to start", move || {
            let source = reipl::source_of(&roots, &alive.path)?;
            reipl::set(&roots, &source).map(|()| source)
        });
        let source = told.await?;
        let facts = IplFacts { record: checked.boot.to_string(), from: source.to_string() };
        Ok((source, facts))
    }
}
