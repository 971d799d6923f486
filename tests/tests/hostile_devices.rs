//! Real devices that shrink, vanish, turn read-only, are full, or have other sectors than the image: a clear error with its
//! exit code, the device named, and nothing on it that boots.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use e2e::lab::cmp;
use e2e::server::Server;
use e2e::{Done, Image, KIB, Lab, Loop, MIB, Mount, Run, Target, exit, sample};
use serde_json::{Value, json};

const CHUNK: u64 = 256 * KIB;
const SIZE: u64 = 6 * MIB + 512;
const ENGINES: [&str; 3] = ["uring", "direct", "buffered"];
/// Two connections of this rate take about three seconds for the image.
const RATE: Option<&str> = Some("1m");

struct Setting {
    lab: Lab,
    raw: Vec<u8>,
    image: Image,
}

fn setting() -> Setting {
    setting_of(SIZE, "")
}

fn setting_of(size: u64, options: &str) -> Setting {
    let lab = Lab::new();
    let raw = sample::noise(81, size as usize);
    let image = lab.pack_bytes(&raw, &format!("--chunk-size 256KiB --level 1 {options}"));
    Setting { lab, raw, image }
}

impl Setting {
    /// Writes the image slowly, does something to the device when some of it is there, and waits for the end.
    fn meanwhile(&self, target: &Target, engine: &str, act: impl FnOnce()) -> Done {
        let server = Server::nginx(&self.lab, &self.image.dir, RATE);
        let write = self.image.write(server.url(), target.path()).args(["--engine", engine]);
        let mut running = write.words("--connections 2 --request-size 8MiB").start();
        running.until("the first chunks", |_| {
            target.starts_with_zeros(CHUNK) && target.right_chunks(&self.raw, CHUNK) > 1
        });
        act();
        running.finish()
    }

    /// A run of the agent.
    fn run(&self, target: &Path, engine: &str) -> Done {
        let spec = json!({
            "run": "e2e-1",
            "image": {"name": "sample", "sources": [self.image.dir], "trust": [self.image.key.public]},
            "target": {"device": target},
            "options": {"engine": engine},
        });
        let spec = self.lab.file("spec", spec.to_string().as_bytes());
        Run::provisioner().args(["run", "--json", "--spec"]).arg(spec).done()
    }

    /// `imgstream` and the agent refuse it, say why, and have not touched it.
    #[track_caller]
    fn refused(&self, target: &Target, why: &str) {
        self.image.write(&self.image.dir, target.path()).done().exits(exit::TARGET).says(why);
        let done = self.run(target.path(), "auto").exits(exit::TARGET).says(why);
        let last: Value = done.json().pop().unwrap();
        assert_eq!(last["event"]["target"], "untouched", "{last}");
        target.is_untouched();
    }

    /// `imgstream` with each engine, and the agent, write it.
    #[track_caller]
    fn accepted(&self, target: &Target) {
        let size = self.raw.len() as u64;
        let raw = self.lab.file("raw", &self.raw);
        for engine in ENGINES {
            self.image.write(&self.image.dir, target.path()).args(["--engine", engine]).done().ok().says("proven");
            cmp(&raw, target.path(), size).ok();
        }
        File::options().write(true).open(target.path()).unwrap().write_all_at(&vec![7; CHUNK as usize], 0).unwrap();
        self.run(target.path(), "auto").ok();
        cmp(&raw, target.path(), size).ok();
    }
}

/// With all engines at once: these tests wait more than they work.
fn with_each_engine(test: impl Fn(&str) + Sync) {
    std::thread::scope(|scope| ENGINES.iter().for_each(|engine| drop(scope.spawn(|| test(engine)))));
}

fn blockdev(option: &str, device: &Path) {
    Run::tool("blockdev").arg(option).arg(device).done().ok();
}

/// Gives a loop device the length of its file again.
fn resize(target: &Target, size: u64) {
    File::options().write(true).open(target.backing()).unwrap().set_len(size).unwrap();
    Run::tool("losetup").arg("--set-capacity").arg(target.path()).done().ok();
}

#[test]
fn a_device_that_becomes_read_only_midway() {
    let setting = setting();
    with_each_engine(|engine| {
        let target = Target::device(&setting.lab, SIZE, "");
        let done = setting.meanwhile(&target, engine, || blockdev("--setro", target.path()));
        done.exits(exit::DEVICE)
            .says("not permitted")
            .says("has become read-only")
            .says(target.path().to_str().unwrap());
        blockdev("--setrw", target.path());
        target.is_unbootable_and_never_wrong(&setting.raw, CHUNK);
    });
}

#[test]
fn a_device_that_shrinks_midway() {
    let setting = setting();
    with_each_engine(|engine| {
        let target = Target::device(&setting.lab, SIZE, "");
        let done = setting.meanwhile(&target, engine, || resize(&target, 4 * MIB));
        done.exits(exit::DEVICE).says(target.path().to_str().unwrap());
        assert!(target.starts_with_zeros(CHUNK), "{engine}: the first chunk");
    });
}

#[test]
fn a_device_that_grows_midway_is_fine() {
    let setting = setting();
    let target = Target::device(&setting.lab, SIZE, "");
    setting.meanwhile(&target, "auto", || resize(&target, SIZE + MIB)).ok().says("proven");
    assert!(target.now()[..SIZE as usize] == setting.raw);
}

#[test]
fn a_device_that_vanishes_midway() {
    let setting = setting();
    with_each_engine(|engine| {
        let target = Target::device(&setting.lab, SIZE, "");
        let done = setting.meanwhile(&target, engine, || resize(&target, 0));
        done.exits(exit::DEVICE).says(target.path().to_str().unwrap());
        resize(&target, SIZE);
        assert!(target.starts_with_zeros(CHUNK), "{engine}: the first chunk");
    });
}

/// What lies beyond the end of the file behind it cannot be read (EIO), or has become zeros where the file grew again.
#[test]
fn a_device_that_loses_what_lies_behind_it() {
    let setting = setting();
    for engine in ENGINES {
        let target = Target::device(&setting.lab, SIZE, "");
        let over = AtomicBool::new(false);
        let done = std::thread::scope(|scope| {
            scope.spawn(|| {
                let media = File::options().write(true).open(target.backing()).unwrap();
                while !over.load(SeqCst) {
                    media.set_len(SIZE - 12 * CHUNK).unwrap();
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
            let done = setting.image.write(&setting.image.dir, target.path()).args(["--engine", engine]).done();
            over.store(true, SeqCst);
            done
        });
        assert!(matches!(done.status.code(), Some(exit::DEVICE | exit::PROOF)), "{engine}: {done:?}");
        done.says(target.path().to_str().unwrap());
        assert!(target.starts_with_zeros(CHUNK), "{engine}: the first chunk");
    }
}

/// The loop device passes on what the full file system below says, as ENOSPC or EIO, somewhere in the middle.
#[test]
fn a_thin_device_whose_pool_is_full() {
    let setting = setting();
    let pool = setting.lab.path("pool");
    drop(sample::sparse(&pool, 8 * MIB));
    Run::tool("mke2fs").args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0"]).arg(&pool).done().ok();
    let pool = Loop::attach(&pool);
    let mount = Mount::new("-t ext4", pool.path(), &setting.lab.path("mnt"));
    for engine in ENGINES {
        let backing = mount.path().join(engine);
        drop(sample::sparse(&backing, SIZE));
        sample::noise_file(&mount.path().join("filler"), 83, 4 * MIB);
        let device = Loop::attach(&backing);
        let done = setting.image.write(&setting.image.dir, device.path()).args(["--engine", engine]).done();
        done.exits(exit::DEVICE).says(device.path().to_str().unwrap());
        let mut start = vec![1; CHUNK as usize];
        File::open(&backing).unwrap().read_exact_at(&mut start, 0).unwrap();
        assert!(start.iter().all(|byte| *byte == 0), "{engine}: the first chunk");
        drop(device);
        std::fs::remove_file(&backing).unwrap();
        wait_until_free(&backing);
    }
}

/// A loop device lets go of its file some time after its last close.
fn wait_until_free(backing: &Path) {
    let holds = |block: std::fs::DirEntry| {
        let file = std::fs::read_to_string(block.path().join("loop/backing_file")).unwrap_or_default();
        file.trim().starts_with(backing.to_str().unwrap())
    };
    while std::fs::read_dir("/sys/block").unwrap().flatten().any(holds) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A write that crosses the limit is cut short, the next one refused: with a signal that would end the process silently.
#[test]
fn a_limit_on_the_size_of_files() {
    let setting = setting();
    for engine in ENGINES {
        for limit in [2 * MIB, 3 * MIB + 1000] {
            let target = Target::file(&setting.lab, SIZE);
            let done = Run::tool("prlimit")
                .arg(format!("--fsize={limit}"))
                .arg(e2e::command::binary("imgstream", "IMGSTREAM_BIN"))
                .arg("write")
                .args([&setting.image.dir, target.path()])
                .arg("--trust")
                .arg(&setting.image.key.public)
                .args(["--engine", engine])
                .done();
            let done = done.exits(exit::DEVICE).says(target.path().to_str().unwrap());
            // What is left of a write that crosses the limit is no whole block where the limit is none, and O_DIRECT says so.
            if engine == "buffered" || limit % 4096 == 0 {
                done.says("File too large").says("RLIMIT_FSIZE");
            }
            assert!(target.starts_with_zeros(CHUNK), "{engine}: the first chunk");
        }
    }
}

#[test]
fn one_sector_too_few_is_refused_and_one_more_is_fine() {
    let of_512 = setting_of(MIB + 5 * 512, "--sector-size 512");
    of_512.refused(&Target::device(&of_512.lab, MIB + 4 * 512, ""), "the image needs 1051136");
    of_512.accepted(&Target::device(&of_512.lab, MIB + 6 * 512, ""));
    let of_4096 = setting_of(MIB + 5 * 4096, "--sector-size 4096");
    let device = |sectors: u64| Target::device(&of_4096.lab, MIB + sectors * 4096, "--sector-size 4096");
    of_4096.refused(&device(4), "the image needs 1069056");
    of_4096.accepted(&device(6));
}

/// The last chunk is whole sectors, but neither a whole chunk nor, for 512, whole blocks of 4096.
#[test]
fn an_image_for_other_sectors_is_refused_and_one_for_the_same_is_fine() {
    for (sector, other) in [(512, 4096), (4096, 512)] {
        let setting = setting_of(MIB + 3 * sector, &format!("--sector-size {sector}"));
        // Large enough and whole sectors of both, so that only the sector size is in the way.
        setting.refused(&Target::device(&setting.lab, 2 * MIB, &format!("--sector-size {other}")), &other.to_string());
        setting.accepted(&Target::device(&setting.lab, MIB + 3 * sector, &format!("--sector-size {sector}")));
    }
}

#[test]
fn a_read_only_device_is_refused_by_the_agent_too() {
    let setting = setting();
    setting.refused(&Target::device(&setting.lab, SIZE, "--read-only"), "read-only");
}
