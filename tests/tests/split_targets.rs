//! An image over several devices, through the library: loop devices stand for the LUN and for the LUKS mapping of one region,
//! byte for byte what a mapping would be given.

use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use e2e::encrypted::{Disk, FileSystem};
use e2e::{Image, KIB, Lab, Loop, MIB, Mount, Run, sample};
use envelope::{PublicKey, Trust};
use imgstream::error::{Error, Kind, Result};
use imgstream::manifest::Policy;
use imgstream::pipeline::{self, Report, TailPolicy, WriteOptions};
use imgstream::progress::{Phase, Progress};
use imgstream::sink::{Device, Extent, OpenOptions, Place, Target, ZeroPolicy};
use imgstream::source::{self, SourceOptions};
use tokio_util::sync::CancellationToken;

const LUN: u64 = 40 * MIB;
const HEADER: u64 = MIB;
/// Bytes of the encrypted partition. It ends in the middle of the last chunk of 2 MiB, which is written last.
const ROOT: u64 = 13 * MIB + MIB / 2;
const MAPPING: u64 = ROOT - HEADER;

/// Two devices full of a previous owner's data, and an image for them.
struct Setting {
    lab: Lab,
    disk: Disk,
    image: Image,
    lun: e2e::Target,
    mapping: e2e::Target,
}

impl Setting {
    fn new(sector: u64, options: &str) -> Self {
        let lab = Lab::new();
        let disk = Disk::of_sectors(&lab, sector, FileSystem::Ext4, ROOT, MAPPING);
        let image = lab.pack(&disk.raw, &format!("{options} --encrypt-region root=root --luks-header 1MiB"));
        Self::of(lab, disk, image)
    }

    fn of(lab: Lab, disk: Disk, image: Image) -> Self {
        let sectors = format!("--sector-size {}", disk.sector);
        let lun = e2e::Target::device(&lab, LUN, &sectors);
        let mapping = e2e::Target::device(&lab, MAPPING, &sectors);
        Setting { lab, disk, image, lun, mapping }
    }

    /// Where the mapping lies on the LUN, header and all.
    fn slot(&self) -> Range<usize> {
        self.disk.root.start as usize..self.disk.root.end as usize
    }

    fn target(&self, largest_write: Option<usize>) -> Target {
        let Range { start, end } = self.disk.root;
        let lun = |raw: Range<u64>| Extent {
            raw_offset: raw.start,
            len: raw.end - raw.start,
            place: Place::Device { device: 0, offset: raw.start, zero: ZeroPolicy::Device, skip_holes: false },
        };
        let inside = Place::Device { device: 1, offset: 0, zero: ZeroPolicy::Write, skip_holes: true };
        let extents = vec![
            lun(0..start),
            Extent { raw_offset: start, len: MAPPING, place: inside },
            Extent { raw_offset: end - HEADER, len: HEADER, place: Place::Nowhere },
            lun(end..self.disk.size),
        ];
        let mapping = largest_write.into_iter().fold(open(self.mapping.path()), Device::with_largest_write);
        Target::new(vec![open(self.lun.path()), mapping], extents, 0).unwrap()
    }

    fn write(&self, options: &WriteOptions) -> Result<Report> {
        write(&self.image, self.target(Some(128 << 10)), options, Arc::default())
    }

    /// Both devices hold what they must, to the byte.
    #[track_caller]
    fn holds_the_image(&self) {
        let (raw, lun) = (self.disk.bytes(), self.lun.now());
        let slot = self.slot();
        assert!(self.mapping.now() == raw[slot.start..slot.start + MAPPING as usize], "the mapping");
        // An independent opinion on the LUN: util-linux moves the backup GPT of a copy.
        let reference = moved_by_sfdisk(&self.lab, &self.disk);
        let old_backup = raw.len() - (16384 + self.disk.sector as usize);
        assert!(lun[..slot.start] == reference[..slot.start], "the LUN before the slot");
        assert!(lun[slot.clone()] == sample::noise(0x01d, LUN as usize)[slot.clone()], "the slot");
        assert!(lun[slot.end..old_backup] == reference[slot.end..old_backup], "the LUN after the slot");
        assert!(lun[old_backup..raw.len()].iter().all(|byte| *byte == 0), "the old backup GPT");
        assert!(lun[raw.len()..] == reference[raw.len()..], "beyond the image");
    }
}

fn open(path: &Path) -> Device {
    Device::open(path, OpenOptions::default()).unwrap()
}

fn write(image: &Image, target: Target, options: &WriteOptions, progress: Arc<Progress>) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let key = PublicKey::from_pem(&std::fs::read(&image.key.public).unwrap()).unwrap();
        let locator = image.dir.to_str().unwrap().parse().unwrap();
        let from = source::connect(&locator, &SourceOptions::default()).unwrap();
        let trust = Trust::new(vec![key], 1).unwrap();
        let opened = imgstream::open::Image::open(vec![from], &trust, &Policy::default()).await?;
        pipeline::write(opened, target, options, progress, &CancellationToken::new()).await
    })
}

fn moved_by_sfdisk(lab: &Lab, disk: &Disk) -> Vec<u8> {
    let copy = lab.fresh("reference");
    std::fs::copy(&disk.raw, &copy).unwrap();
    std::fs::File::options().write(true).open(&copy).unwrap().set_len(LUN).unwrap();
    let device = Loop::attach_with(&copy, &format!("--sector-size {}", disk.sector));
    let relocate = Run::tool("sfdisk").words("--quiet --no-reread --no-tell-kernel --relocate gpt-bak-std");
    relocate.arg(device.path()).done().ok();
    Run::tool("sync").arg(device.path()).done().ok();
    std::fs::read(&copy).unwrap()
}

fn sectors_written(setting: &Setting) -> [u64; 2] {
    [&setting.lun, &setting.mapping].map(|device| device.loop_device().sectors_written())
}

fn resuming() -> WriteOptions {
    WriteOptions { resume: true, foreign: Some("gpt".into()), ..WriteOptions::default() }
}

#[test]
fn an_image_is_split_over_lun_and_mapping_and_the_lun_is_as_if_it_were_whole() {
    for (sector, options) in [(512, "--chunk-size 2MiB"), (512, "--chunk-size 64KiB --span-size 4MiB"), (4096, "")] {
        let setting = Setting::new(sector, options);
        let report = setting.write(&WriteOptions::default()).unwrap();
        assert_eq!(report.gpt.as_deref(), Some("moved"));
        assert_eq!(report.read_back_bytes, Some(setting.disk.size), "{sector} {options}");
        assert_eq!(report.data_bytes + report.zero_bytes, setting.disk.size);
        assert_eq!(report.tail.as_ref().map(|tail| tail.how.name()), Some("zeroed-by-device"));
        setting.holds_the_image();
        let said = Run::tool("sfdisk").arg("--verify").arg(setting.lun.path()).text();
        assert!(said.contains("No errors detected"), "{said}");
        // The file system fits its mapping, and is mounted from it.
        Run::tool("e2fsck").arg("-fn").arg(setting.mapping.path()).done().ok();
        let mount = Mount::new("-o ro", setting.mapping.path(), &setting.lab.path("mounted"));
        assert_eq!(std::fs::read(mount.path().join("noise")).unwrap(), sample::noise(31, 300 * KIB as usize));
    }
}

#[test]
fn resuming_a_split_target_finds_nothing_to_do_or_mends_what_is_wrong() {
    let setting = Setting::new(512, "--chunk-size 2MiB");
    setting.write(&WriteOptions::default()).unwrap();
    let written = sectors_written(&setting);
    let report = setting.write(&resuming()).unwrap();
    assert_eq!(report.kept_bytes, Some(setting.disk.size));
    assert_eq!(sectors_written(&setting), written, "something was written");
    // One byte of the chunk that lies in the mapping and nowhere, one of a chunk across the border of LUN and mapping.
    let places = [(&setting.mapping, MAPPING - 1), (&setting.lun, setting.disk.root.start - 1), (&setting.mapping, 0)];
    for (device, at) in places {
        let spoil = std::fs::File::options().write(true).open(device.path()).unwrap();
        spoil.write_all_at(&[0xa5], at).unwrap();
        spoil.sync_all().unwrap();
        drop(spoil);
        let report = setting.write(&resuming()).unwrap();
        let kept = report.kept_bytes.unwrap();
        assert!(kept < setting.disk.size && kept >= setting.disk.size - 6 * MIB, "{kept}");
        setting.holds_the_image();
    }
}

#[test]
fn a_byte_without_a_place_in_a_chunk_that_is_written_last_is_refused_before_the_commit() {
    let lab = Lab::new();
    let disk = Disk::of_sectors(&lab, 512, FileSystem::Ext4, ROOT, MAPPING);
    let at = disk.root.end - 5;
    disk.put(at, &[7]);
    let image = lab.pack(&disk.raw, "--chunk-size 2MiB");
    assert!(disk.size.next_multiple_of(2 * MIB) - 2 * MIB < at, "it is not in the last chunk");
    let setting = Setting::of(lab, disk, image);
    let progress = Arc::new(Progress::default());
    let error =
        write(&setting.image, setting.target(None), &WriteOptions::default(), Arc::clone(&progress)).unwrap_err();
    assert_eq!(error.kind(), Kind::Image, "{error}");
    assert!(!progress.snapshot().has_entered(Phase::ClearingTail), "all else was written first");
    let region = format!("region at raw offset {}", setting.disk.root.start);
    assert!(
        error.to_string().contains(&format!("byte {at} of the image")) && error.to_string().contains(&region),
        "{error}"
    );
    assert!(setting.lun.starts_with_zeros(2 * MIB), "it must not boot");
}

#[test]
fn a_device_that_is_too_small_or_of_other_sectors_is_named() {
    let setting = Setting::new(512, "");
    let message = |error: Error| error.to_string();
    let small = e2e::Target::device(&setting.lab, setting.disk.size - 512, "");
    let extents: Vec<Extent> = setting.target(None).map(0..setting.disk.root.end).collect();
    let end = setting.disk.root.end;
    let rest = Place::Device { device: 0, offset: end, zero: ZeroPolicy::Device, skip_holes: false };
    let all = [&extents[..], &[Extent { raw_offset: end, len: setting.disk.size - end, place: rest }]].concat();
    let said =
        message(Target::new(vec![open(small.path()), open(setting.mapping.path())], all.clone(), 0).unwrap_err());
    assert!(said.contains(&small.path().display().to_string()) && said.contains("512 B are missing"), "{said}");
    let other = e2e::Target::device(&setting.lab, MAPPING, "--sector-size 4096");
    let target = Target::new(vec![open(setting.lun.path()), open(other.path())], all, 0).unwrap();
    let said = message(write(&setting.image, target, &WriteOptions::default(), Arc::default()).unwrap_err());
    assert!(said.contains(&other.path().display().to_string()) && said.contains("sectors of 4096"), "{said}");
    assert!(!setting.lun.was_touched() && !setting.mapping.was_touched() && !other.was_touched());
}

/// The layout `whole`: one mapping, larger than the image.
fn whole(setting: &Setting, mapping: &e2e::Target, options: &WriteOptions) -> Result<Report> {
    let place = Place::Device { device: 0, offset: 0, zero: ZeroPolicy::Write, skip_holes: true };
    let extent = Extent { raw_offset: 0, len: setting.disk.size, place };
    write(&setting.image, Target::new(vec![open(mapping.path())], vec![extent], 0)?, options, Arc::default())
}

#[test]
fn under_a_fresh_key_the_tail_is_noise_and_stays_and_elsewhere_that_is_no_choice() {
    let setting = Setting::new(512, "");
    let mapping = e2e::Target::device(&setting.lab, LUN, "");
    let fresh = WriteOptions { tail: TailPolicy::UnderFreshKey, ..WriteOptions::default() };
    let report = whole(&setting, &mapping, &fresh).unwrap();
    let tail = report.tail.unwrap();
    assert_eq!((tail.how.name(), tail.proven_bytes), ("noise-under-fresh-key", 0));
    assert_eq!(report.gpt.as_deref(), Some("moved"));
    let (now, before, reference) =
        (mapping.now(), sample::noise(0x01d, LUN as usize), moved_by_sfdisk(&setting.lab, &setting.disk));
    let (raw_len, backup) = (setting.disk.size as usize, LUN as usize - 16896);
    assert!(now[raw_len..backup] == before[raw_len..backup], "the tail was touched");
    assert!(now[backup..] == reference[backup..], "the backup GPT");
    assert!(now[..raw_len - 16896] == reference[..raw_len - 16896], "the image");

    let error = setting.write(&fresh).unwrap_err();
    assert!(error.kind() == Kind::Usage && error.to_string().contains("is under no key"), "{error}");
    assert!(!setting.lun.was_touched());
}

/// Below dm-crypt a discarded block reads as noise: zeros are written, whatever the device could do.
#[test]
fn under_luks_zeros_are_written_and_all_of_them_read_back() {
    let setting = Setting::new(512, "");
    let mapping = e2e::Target::device(&setting.lab, LUN, "");
    let report = whole(&setting, &mapping, &WriteOptions::default()).unwrap();
    let tail = report.tail.unwrap();
    assert_eq!((tail.how.name(), tail.proven_bytes), ("zeroed-by-writing", tail.bytes));
    let holes = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(mapping.backing()).unwrap());
    assert!(holes * 512 >= LUN, "the device was asked to zero: {holes} blocks");
    let reference = moved_by_sfdisk(&setting.lab, &setting.disk);
    assert!(mapping.now()[setting.disk.size as usize..] == reference[setting.disk.size as usize..]);
}
