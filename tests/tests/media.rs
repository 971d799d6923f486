//! Media that fail or lie: said aloud, with exit code 6 or 7, and the target cannot boot.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use e2e::server::Server;
use e2e::{KIB, Lab, Loop, MIB, Mount, Target, exit, sample};

const CHUNK: u64 = 256 * KIB;

fn zero(file: &Path, len: u64) -> bool {
    let mut start = vec![1; len as usize];
    File::open(file).unwrap().read_exact_at(&mut start, 0).unwrap();
    start.iter().all(|byte| *byte == 0)
}

#[test]
fn a_device_that_fails_while_it_is_written_is_6() {
    let lab = Lab::new();
    let image = lab.pack_bytes(&sample::noise(71, 8 * MIB as usize), "--chunk-size 256KiB");
    for engine in ["uring", "direct", "buffered"] {
        // Room for half of it: the loop device answers the rest with EIO.
        let mount = Mount::new("-t tmpfs -o size=4m", Path::new("none"), &lab.fresh("small"));
        let backing = mount.path().join("disk");
        drop(sample::sparse(&backing, 8 * MIB));
        let device = Loop::attach(&backing);
        let done = image.write(&image.dir, device.path()).args(["--engine", engine]).done();
        done.exits(exit::DEVICE).says(device.path().to_str().unwrap());
        assert!(zero(&backing, CHUNK), "{engine}: the first chunk");
        device.detached();
    }
}

#[test]
fn a_file_system_that_is_full_is_6() {
    let lab = Lab::new();
    let image = lab.pack_bytes(&sample::noise(72, 8 * MIB as usize), "--chunk-size 256KiB");
    let mount = Mount::new("-t tmpfs -o size=4m", Path::new("none"), &lab.path("small"));
    for engine in ["auto", "buffered"] {
        let target = mount.path().join(engine);
        let done = image.write(&image.dir, &target).args(["--engine", engine]).done();
        done.exits(exit::DEVICE).says("no space left").says(target.to_str().unwrap());
        assert!(zero(&target, CHUNK), "{engine}: the first chunk");
        std::fs::remove_file(target).unwrap();
    }
}

#[test]
fn a_device_whose_data_change_behind_our_back_is_7() {
    let lab = Lab::new();
    let raw = sample::noise(73, 8 * MIB as usize);
    let image = lab.pack_bytes(&raw, "--chunk-size 256KiB");
    let server = Server::nginx(&lab, &image.dir, Some("2m"));
    for engine in ["uring", "direct"] {
        let target = Target::device(&lab, 8 * MIB, "");
        let over = AtomicBool::new(false);
        let done = std::thread::scope(|scope| {
            // Spoils one byte of the third chunk again and again; it is written seconds before it is read back.
            scope.spawn(|| {
                let media = File::options().write(true).open(target.backing()).unwrap();
                while !over.load(SeqCst) {
                    media.write_all_at(&[!raw[2 * CHUNK as usize + 77]], 2 * CHUNK + 77).unwrap();
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
            // Also when the run does not come to its end: a scope waits for its threads.
            let _over = WhenDropped(&over);
            image.write(server.url(), target.path()).args(["--engine", engine, "--connections", "1"]).done()
        });
        done.exits(exit::PROOF).says("read back wrong").says("chunk 2");
        assert!(target.starts_with_zeros(CHUNK), "{engine}: the first chunk");
    }
}

/// Sets a flag when it goes.
struct WhenDropped<'a>(&'a AtomicBool);

impl Drop for WhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// The device has room for all but one chunk, so it is the commit that fails, half done.
#[test]
fn a_commit_that_fails_is_taken_back() {
    let lab = Lab::new();
    let image = lab.pack_bytes(&sample::noise(74, 8 * MIB as usize), "--chunk-size 256KiB");
    let mount = Mount::new("-t tmpfs -o size=7936k", Path::new("none"), &lab.path("small"));
    for engine in ["direct", "buffered", "uring"] {
        let target = mount.path().join(engine);
        drop(sample::sparse(&target, 8 * MIB));
        let done = image.write(&image.dir, &target).args(["--engine", engine]).done();
        done.exits(exit::DEVICE).says("no space left");
        assert!(zero(&target, CHUNK), "{engine}: the run failed, and the first chunk is there");
        std::fs::remove_file(target).unwrap();
    }
}

/// Where a write would block, io_uring hands it to a kernel worker of the thread that submitted it, and that worker's
/// writes are cancelled when the thread ends. On tmpfs every write goes that way; below dm-crypt many do.
#[test]
fn uring_writes_survive_the_thread_that_submitted_them() {
    let lab = Lab::new();
    let raw = sample::noise(75, 8 * MIB as usize);
    let image = lab.pack_bytes(&raw, "--chunk-size 256KiB");
    let mount = Mount::new("-t tmpfs -o size=16m", Path::new("none"), &lab.path("memory"));
    let target = mount.path().join("target");
    for _ in 0..40 {
        drop(sample::sparse(&target, 8 * MIB));
        image.write(&image.dir, &target).args(["--engine", "uring"]).done().ok();
        assert!(std::fs::read(&target).unwrap() == raw);
    }
}
