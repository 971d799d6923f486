//! `z-provisioner erase`: a returned disk holds nothing afterwards, its keys least of all, and that is proven.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use e2e::{Done, Lab, Loop, MIB, Mount, Run, Target, exit, sample};
use nix::sys::signal::Signal;
use serde_json::Value;

const SIZE: u64 = 96 * MIB + 512;

fn erase(device: &Path) -> Run {
    Run::provisioner().arg("erase").arg(device).arg("--json")
}

#[track_caller]
fn report(done: Done) -> Value {
    let done = done.ok();
    assert_eq!(done.json().len(), 1);
    done.json().remove(0)
}

/// A LUKS container that cryptsetup made.
fn luks(lab: &Lab, version: u8) -> Vec<u8> {
    let file = lab.fresh("luks");
    drop(sample::sparse(&file, 40 * MIB));
    let key = lab.file("passphrase", b"correct horse");
    let format = Run::tool("cryptsetup").words("luksFormat --batch-mode --pbkdf-force-iterations 1000");
    let pbkdf = if version == 2 { "--type luks2 --pbkdf pbkdf2" } else { "--type luks1" };
    format.words(pbkdf).args([&file, &key]).done().ok();
    std::fs::read(file).unwrap()
}

fn is_luks(file: &Path) -> bool {
    Run::tool("cryptsetup").arg("isLuks").arg(file).done().status.success()
}

/// A disk full of noise with a LUKS1 header at its start and a LUKS2 header somewhere in it.
fn disk(lab: &Lab, at: &Path) {
    let mut bytes = sample::noise(131, SIZE as usize);
    bytes[..4 << 20].copy_from_slice(&luks(lab, 1)[..4 << 20]);
    let second = luks(lab, 2);
    bytes[50 << 20..(50 << 20) + (20 << 20)].copy_from_slice(&second[..20 << 20]);
    std::fs::write(at, bytes).unwrap();
}

fn is_zero(file: &Path) -> bool {
    std::fs::read(file).unwrap().iter().all(|byte| *byte == 0)
}

#[test]
fn a_disk_with_luks_headers_is_zeroed_and_proven() {
    let lab = Lab::new();
    let backing = lab.fresh("disk");
    disk(&lab, &backing);
    assert!(is_luks(&backing));
    let device = Loop::attach(&backing);
    let done = report(erase(device.path()).done());
    assert_eq!((&done["luks_headers"], &done["proven_bytes"]), (&2.into(), &SIZE.into()), "{done}");
    assert_eq!(done["how"], "zeroed-by-device");
    assert!(is_zero(&backing) && !is_luks(&backing));
    drop(device);
    // A file is as good as a disk, and a second time finds nothing.
    let again = report(erase(&backing).done());
    assert_eq!((&again["luks_headers"], &again["proven_bytes"]), (&0.into(), &SIZE.into()));
    assert_eq!(std::fs::metadata(&backing).unwrap().len(), SIZE);
}

/// A loop device on a file system that knows no holes: it can neither zero nor discard.
fn on_ramfs(lab: &Lab) -> (Mount, PathBuf, Loop) {
    let mount = Mount::new("-t ramfs", Path::new("none"), &lab.path("memory"));
    let backing = mount.path().join("disk");
    disk(lab, &backing);
    let device = Loop::attach(&backing);
    (mount, backing, device)
}

#[test]
fn where_the_device_cannot_zero_zeros_are_written() {
    let lab = Lab::new();
    let (_mount, backing, device) = on_ramfs(&lab);
    let done = report(erase(device.path()).done());
    assert_eq!((&done["how"], &done["proven_bytes"]), (&"zeroed-by-writing".into(), &SIZE.into()));
    Run::tool("sync").arg(device.path()).done().ok();
    assert!(is_zero(&backing));
    device.detached();
}

#[test]
fn a_discard_is_said_to_prove_nothing_but_the_keys() {
    let lab = Lab::new();
    let backing = lab.fresh("disk");
    disk(&lab, &backing);
    let device = Loop::attach(&backing);
    let done = erase(device.path()).arg("--discard").done().ok().says("NONE but for the keys");
    let said = done.json().remove(0);
    assert_eq!(said["how"], "discarded");
    // LUKS1 reserves up to 2 MiB, LUKS2 16 MiB; whatever is less is taken for 16 MiB.
    assert_eq!(said["proven_bytes"], 32 * MIB);
    assert!(!is_luks(&backing));
}

/// The keys must be overwritten before, and whatever becomes of, the rest.
#[test]
fn the_keys_go_first() {
    let lab = Lab::new();
    let (_mount, backing, device) = on_ramfs(&lab);
    erase(device.path()).arg("--discard").done().exits(exit::TARGET).says("cannot discard");
    Run::tool("sync").arg(device.path()).done().ok();
    let now = std::fs::read(&backing).unwrap();
    let zero = |from: u64, to: u64| now[from as usize..to as usize].iter().all(|byte| *byte == 0);
    assert!(zero(0, 16 * MIB) && zero(50 * MIB, 66 * MIB), "key areas");
    assert!(!zero(20 * MIB, 21 * MIB), "the rest was not touched");
    device.detached();
}

/// With the spare header alone cryptsetup repairs the first one.
#[test]
fn a_spare_luks_header_alone_is_found() {
    let lab = Lab::new();
    let backing = lab.fresh("disk");
    let mut bytes = luks(&lab, 2);
    bytes[..16384].fill(0);
    std::fs::write(&backing, bytes).unwrap();
    assert!(is_luks(&backing), "cryptsetup takes the spare one");
    assert_eq!(report(erase(&backing).done())["luks_headers"], 1);
    assert!(!is_luks(&backing));
}

#[test]
fn what_is_in_use_is_refused() {
    let lab = Lab::new();
    let file = lab.fresh("fs");
    drop(sample::sparse(&file, 8 * MIB));
    Run::tool("mke2fs").args(["-q", "-F", "-t", "ext4"]).arg(&file).done().ok();
    let device = Loop::attach(&file);
    let mount = Mount::new("-o ro,noload", device.path(), &lab.path("mnt"));
    let before = std::fs::read(&file).unwrap();
    erase(device.path()).done().exits(exit::TARGET).says(&mount.path().display().to_string());
    erase(Path::new("/dev/z-provisioner-e2e-nothing")).done().exits(exit::TARGET);
    erase(&lab.path("nothing")).done().exits(exit::TARGET);
    assert!(std::fs::read(&file).unwrap() == before);
}

#[test]
fn a_disk_that_does_not_keep_the_zeros_is_7() {
    let lab = Lab::new();
    let target = Target::device(&lab, 64 * MIB, "");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let media = File::options().write(true).open(target.backing()).unwrap();
            while !over.load(SeqCst) {
                media.write_all_at(b"x", 40 * MIB + 77).unwrap();
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        let done = erase(target.path()).done();
        over.store(true, SeqCst);
        done.exits(exit::PROOF).says(&format!("byte {} is not zero", 40 * MIB + 77));
    });
}

#[test]
fn a_signal_stops_it() {
    let lab = Lab::new();
    let file = lab.fresh("large");
    drop(sample::sparse(&file, 1 << 40));
    let mut running = erase(&file).start();
    std::thread::sleep(Duration::from_millis(300));
    if running.exit_status().is_none() {
        running.signal(Signal::SIGTERM);
        running.finish().exits(exit::CANCELLED).says("cancelled");
    } else {
        panic!("a terabyte was looked through in 300 ms");
    }
}
