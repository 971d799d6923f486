//! The image that all these tests write, and the files that stand for devices: one, or a LUN and a LUKS mapping.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::OnceLock;

use envelope::{SecretKey, Trust};
use tempfile::TempDir;
use time::OffsetDateTime;

use super::*;
use crate::manifest::Policy;
use crate::pack::{self, PackOptions, PackProgress};
use crate::sink::faulty::Bench;
use crate::sink::{Extent, OpenOptions, Place, ZeroPolicy};
use crate::source::{self, Locator, SourceOptions};

pub(super) const CHUNK: usize = 64 << 10;
pub(super) const CHUNKS: usize = 9;
/// The last chunk is not whole, nor whole blocks of 4096.
pub(super) const SIZE: usize = CHUNKS * CHUNK - 3 * 512;

/// Raw bytes that a split target has in the mapping, and those that it has nowhere. The first chunk lies on both devices, so that it
/// matters in which order its parts land; one chunk ends nowhere, and one begins there.
pub(super) const MAPPED: Range<usize> = CHUNK / 2..5 * CHUNK + CHUNK / 4 * 3;
pub(super) const NOWHERE: Range<usize> = MAPPED.end..6 * CHUNK + CHUNK / 2;

/// How the image lies on the devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// All of it on one.
    Single,
    /// The middle in a mapping, a little nowhere, the rest on the LUN.
    Split,
}

pub(super) const LAYOUTS: [Layout; 2] = [Layout::Single, Layout::Split];

impl Layout {
    /// Length of the part of the first chunk that is written last of all.
    pub(super) fn last_part(self) -> usize {
        if self == Layout::Split { MAPPED.start } else { CHUNK }
    }

    /// Writes of a run without faults.
    pub(super) fn writes(self) -> usize {
        if self == Layout::Split { CHUNKS + 1 } else { CHUNKS }
    }

    /// Flushes of a run whose proof comes last: one before it, one after each committed chunk, or each part of the first one
    /// where it lies on both of two devices; and all of them on each device.
    pub(super) fn flushes(self) -> usize {
        if self == Layout::Split { 2 * 4 } else { 3 }
    }

    fn extents(self) -> Vec<Extent> {
        let extent =
            |range: Range<usize>, place| Extent { raw_offset: range.start as u64, len: range.len() as u64, place };
        let lun = |range: Range<usize>| {
            let offset = range.start as u64;
            extent(range, Place::Device { device: 0, offset, zero: ZeroPolicy::Device, skip_holes: false })
        };
        let inside = Place::Device { device: 1, offset: 0, zero: ZeroPolicy::Write, skip_holes: true };
        match self {
            Layout::Single => vec![lun(0..SIZE)],
            Layout::Split => vec![
                lun(0..MAPPED.start),
                extent(MAPPED, inside),
                extent(NOWHERE, Place::Nowhere),
                lun(NOWHERE.end..SIZE),
            ],
        }
    }
}

/// The raw offset of what a write writes.
pub(super) fn raw_offset(write: &Write) -> u64 {
    raw_at(write.device, write.offset)
}

/// The raw offset of a byte of a device.
pub(super) fn raw_at(device: usize, offset: u64) -> u64 {
    offset + if device == 1 { MAPPED.start as u64 } else { 0 }
}

pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 24).to_le_bytes()
    });
    words.flatten().take(len).collect()
}

/// All engines, except under an emulator of system calls, which has no io_uring: whoever runs the tests in one says so with
/// Z_WITHOUT_URING, and here it is made sure that this is so.
pub(super) fn engines() -> Vec<EngineKind> {
    let mut engines = vec![EngineKind::Uring, EngineKind::Direct, EngineKind::Buffered];
    if std::env::var_os("Z_WITHOUT_URING").is_some() {
        let refusal = io_uring::IoUring::new(1).map(drop).expect_err("Z_WITHOUT_URING is set, but io_uring works here");
        assert_eq!(refusal.raw_os_error(), Some(libc::ENOSYS), "{refusal}");
        engines.retain(|engine| *engine != EngineKind::Uring);
    }
    engines
}

/// A directory on a disk: /tmp may be memory, which knows no O_DIRECT.
fn on_disk() -> TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

/// One signed image for all tests: noise, but zeros where a split target has no place.
pub(super) struct Sample {
    dir: TempDir,
    pub(super) raw: Vec<u8>,
    trust: Trust,
}

pub(super) fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let mut raw = noise(1, SIZE);
        raw[NOWHERE].fill(0);
        packed(raw)
    })
}

/// An image of these bytes.
pub(super) fn packed(raw: Vec<u8>) -> Sample {
    let (dir, key) = (on_disk(), SecretKey::generate().unwrap());
    std::fs::write(dir.path().join("raw"), &raw).unwrap();
    let options = PackOptions {
        name: "sample".into(),
        image_version: 1,
        architecture: "s390x".into(),
        created: OffsetDateTime::UNIX_EPOCH,
        expires: None,
        chunk_size: CHUNK as u32,
        span_size: 4 * CHUNK as u64,
        level: 1,
        holes: false,
        sector_size: Some(512),
        encrypt: Vec::new(),
        luks_header: pack::DEFAULT_LUKS_HEADER,
        workers: 1,
    };
    let (from, to) = (dir.path().join("raw"), dir.path().join("image"));
    pack::pack(&from, &to, &options, &key, &PackProgress::default(), &CancellationToken::new()).unwrap();
    Sample { dir, raw, trust: Trust::new(vec![key.public()], 1).unwrap() }
}

impl Sample {
    async fn open(&self) -> Image {
        let locator: Locator = self.dir.path().join("image").to_str().unwrap().parse().unwrap();
        let source = source::connect(&locator, &SourceOptions::default()).unwrap();
        Image::open(vec![source], &self.trust, &Policy::default()).await.unwrap()
    }
}

/// Files full of old content, and what became of them.
pub(super) struct Media {
    dir: TempDir,
    pub(super) layout: Layout,
    /// What lay in the image's place.
    pub(super) old: Vec<u8>,
    pub(super) progress: Arc<Progress>,
}

impl Media {
    pub(super) fn new(layout: Layout) -> Self {
        let mut media = Media { dir: on_disk(), layout, old: Vec::new(), progress: Arc::default() };
        std::fs::write(media.lun(), noise(2, SIZE)).unwrap();
        if layout == Layout::Split {
            std::fs::write(media.mapping(), noise(4, MAPPED.len())).unwrap();
        }
        media.old = media.now();
        media
    }

    /// The same, with nothing counted yet.
    pub(super) fn for_another_run(self) -> Self {
        Media { progress: Arc::default(), ..self }
    }

    pub(super) fn lun(&self) -> PathBuf {
        self.dir.path().join("media")
    }

    fn mapping(&self) -> PathBuf {
        self.dir.path().join("mapping")
    }

    /// What lies in the image's place now.
    pub(super) fn now(&self) -> Vec<u8> {
        let mut now = std::fs::read(self.lun()).unwrap();
        if self.layout == Layout::Split {
            let mapping = std::fs::read(self.mapping()).unwrap();
            assert_eq!(mapping.len(), MAPPED.len(), "the mapping's length");
            now[MAPPED].copy_from_slice(&mapping);
            now[NOWHERE].fill(0);
        }
        now
    }

    /// Writes raw bytes to their places, as an earlier run did.
    pub(super) fn put(&self, raw: Range<usize>, bytes: &[u8]) {
        use std::os::unix::fs::FileExt;
        for Extent { raw_offset, len, place } in self.layout.extents() {
            let Place::Device { device, offset, .. } = place else { continue };
            let (start, end) = (raw.start.max(raw_offset as usize), raw.end.min((raw_offset + len) as usize));
            if start < end {
                let path = if device == 0 { self.lun() } else { self.mapping() };
                let file = std::fs::File::options().write(true).open(path).unwrap();
                let part = &bytes[start - raw.start..end - raw.start];
                file.write_all_at(part, offset + start as u64 - raw_offset).unwrap();
            }
        }
    }

    pub(super) fn target(&self, buffered: bool) -> Target {
        let open =
            |path: PathBuf, raw_size| Device::open(&path, OpenOptions { buffered, create: false, raw_size }).unwrap();
        let lun = open(self.lun(), SIZE as u64);
        match self.layout {
            Layout::Single => Target::single(lun, SIZE as u64),
            Layout::Split => {
                let devices = vec![lun, open(self.mapping(), MAPPED.len() as u64)];
                Target::new(devices, self.layout.extents(), 0).unwrap()
            }
        }
    }

    pub(super) async fn write(&self, bench: &Bench, engine: EngineKind, options: &WriteOptions) -> Result<Report> {
        self.write_image(sample(), bench, engine, options, &CancellationToken::new()).await
    }

    pub(super) async fn write_image(
        &self,
        sample: &Sample,
        bench: &Bench,
        engine: EngineKind,
        options: &WriteOptions,
        cancel: &CancellationToken,
    ) -> Result<Report> {
        let image = sample.open().await;
        let target = self.target(engine == EngineKind::Buffered);
        let workers = options.workers.min(2);
        let options = WriteOptions { engine: EngineChoice::Only(engine), workers, depth: 4, ..options.clone() };
        write_with(&bench.start(), image, target, &options, Arc::clone(&self.progress), cancel).await
    }

    #[track_caller]
    pub(super) fn holds_the_image(&self) {
        assert!(self.now() == sample().raw, "the media differ from the image");
        self.leaves_the_slot_alone();
    }

    /// Neither the image nor what was there before starts here.
    #[track_caller]
    pub(super) fn does_not_boot(&self) {
        assert!(self.now()[..CHUNK].iter().all(|byte| *byte == 0), "the first chunk is not zero");
        assert_eq!(self.now().len(), SIZE, "the file's length");
    }

    /// Where the mapping has its header and its ciphertext, nobody else writes.
    #[track_caller]
    pub(super) fn leaves_the_slot_alone(&self) {
        let slot = MAPPED.start..NOWHERE.end;
        let is_split = self.layout == Layout::Split;
        assert!(
            !is_split || std::fs::read(self.lun()).unwrap()[slot.clone()] == noise(2, SIZE)[slot],
            "the slot changed"
        );
    }
}
