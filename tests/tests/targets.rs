//! Targets that must be refused: exit 4, a message that says why, and no byte changed.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use e2e::{GIB, Image, KIB, Lab, Loop, MIB, Mount, Run, Target, exit, sample};

const SIZE: u64 = 300 * KIB;

fn image(lab: &Lab) -> Image {
    lab.pack_bytes(&sample::noise(31, SIZE as usize), "--chunk-size 64KiB")
}

/// Refused by every engine, and named.
#[track_caller]
fn refused(image: &Image, target: &Path, why: &str) {
    for engine in ["auto", "uring", "direct", "buffered"] {
        refused_by(engine, image, target, why);
    }
}

#[track_caller]
fn refused_by(engine: &str, image: &Image, target: &Path, why: &str) {
    let done = image.write(&image.dir, target).args(["--engine", engine]).done();
    done.exits(exit::TARGET).says(why).says(&target.display().to_string());
}

#[test]
fn too_small_by_one_sector() {
    let lab = Lab::new();
    let image = image(&lab);
    for target in [Target::device(&lab, SIZE - 512, ""), Target::file(&lab, SIZE - 512)] {
        refused(&image, target.path(), "the image needs 307200");
        target.is_untouched();
        assert_eq!(target.now().len() as u64, SIZE - 512, "a file must not be made longer either");
    }
    let exact = Target::device(&lab, SIZE, "");
    image.write(&image.dir, exact.path()).done().ok();
}

/// A loop device with the sample disk on it, partitions found.
fn partitioned(lab: &Lab) -> (PathBuf, Loop, Vec<u8>) {
    let disk = lab.path("disk");
    fs::copy(sample::disk(512), &disk).unwrap();
    let device = Loop::attach_with(&disk, "--partscan");
    root_of(&device);
    let before = fs::read(&disk).unwrap();
    (disk, device, before)
}

/// Its partition with a file system.
fn root_of(device: &Loop) -> PathBuf {
    device.partition(1, MIB, 16 * MIB)
}

#[test]
fn a_mounted_device() {
    let lab = Lab::new();
    let image = image(&lab);
    let file = lab.path("fs");
    drop(sample::sparse(&file, 8 * MIB));
    Run::tool("mke2fs").args(["-q", "-F", "-t", "ext4"]).arg(&file).done().ok();
    let device = Loop::attach(&file);
    let mount = Mount::new("-o ro,noload", device.path(), &lab.path("mnt"));
    let before = fs::read(&file).unwrap();
    refused(&image, device.path(), &mount.path().display().to_string());
    assert!(fs::read(&file).unwrap() == before);
    drop(mount);
    image.write(&image.dir, device.path()).done().ok();
}

#[test]
fn a_device_with_a_mounted_partition() {
    let lab = Lab::new();
    let image = image(&lab);
    let (disk, device, before) = partitioned(&lab);
    let mount = Mount::new("-o ro,noload", &root_of(&device), &lab.path("mnt"));
    refused(&image, device.path(), &mount.path().display().to_string());
    assert!(fs::read(&disk).unwrap() == before);
    drop(mount);
}

#[test]
fn a_device_mounted_where_we_cannot_see_it() {
    let lab = Lab::new();
    let image = image(&lab);
    let (disk, device, before) = partitioned(&lab);
    let (point, marker) = (lab.fresh_dir("mnt"), lab.path("mounted"));
    // In a mount namespace of its own, as a container's would be; gone with the process.
    let script = format!(
        "mount -o ro,noload {} {} && touch {} && exec sleep 60",
        root_of(&device).display(),
        point.display(),
        marker.display()
    );
    let mut other = Run::tool("unshare").words("--mount --propagation private sh -c").arg(script).start();
    other.until("a mount", |_| marker.exists());
    // One engine: each try waits some seconds for whoever may be about to let go.
    refused_by("direct", &image, device.path(), "busy");
    assert!(fs::read(&disk).unwrap() == before);
}

#[test]
fn a_partition() {
    let lab = Lab::new();
    let image = image(&lab);
    let (disk, device, before) = partitioned(&lab);
    refused(&image, &root_of(&device), "is a partition");
    refused(&image, &device.partition(2, 17 * MIB, 3 * MIB), "is a partition");
    assert!(fs::read(&disk).unwrap() == before);
}

#[test]
fn a_device_somebody_has_claimed() {
    let lab = Lab::new();
    let image = image(&lab);
    let target = Target::device(&lab, SIZE, "");
    let claim = target.loop_device().claim().unwrap();
    for engine in ["auto", "buffered"] {
        refused_by(engine, &image, target.path(), "busy");
        refused_by(engine, &image, target.path(), "waited 5 s");
    }
    target.is_untouched();
    drop(claim);
    image.write(&image.dir, target.path()).done().ok();
}

#[test]
fn a_device_that_is_let_go_in_time_is_waited_for() {
    let lab = Lab::new();
    let image = image(&lab);
    let target = Target::device(&lab, SIZE, "");
    let claim = target.loop_device().claim().unwrap();
    let mut write = image.write(&image.dir, target.path()).start();
    write.until("the wait", |write| write.stderr().contains("waiting up to 5 s"));
    target.is_untouched();
    drop(claim);
    write.finish().ok();
}

#[test]
fn a_device_in_use_as_swap() {
    struct Swap<'a>(&'a Path);
    impl Drop for Swap<'_> {
        fn drop(&mut self) {
            Run::tool("swapoff").arg(self.0).done();
        }
    }
    let lab = Lab::new();
    let image = image(&lab);
    let file = lab.file("swap", &vec![0; MIB as usize]);
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let device = Loop::attach(&file);
    Run::tool("mkswap").arg(device.path()).done().ok();
    Run::tool("swapon").arg(device.path()).done().ok();
    let _swap = Swap(device.path());
    refused(&image, device.path(), "swap");
}

#[test]
fn a_file_that_another_writer_has_locked() {
    let lab = Lab::new();
    let image = image(&lab);
    let target = Target::file(&lab, SIZE);
    let file = File::open(target.path()).unwrap();
    file.lock().unwrap();
    refused_by("auto", &image, target.path(), "another process");
    target.is_untouched();
}

#[test]
fn a_file_that_a_loop_device_shows() {
    let lab = Lab::new();
    let image = image(&lab);
    let target = Target::file(&lab, SIZE);
    let shown = Loop::attach(target.path());
    refused(&image, target.path(), "in use as the loop device");
    drop(shown);
    target.is_untouched();
}

#[test]
fn a_read_only_device() {
    let lab = Lab::new();
    let image = image(&lab);
    let target = Target::device(&lab, SIZE, "--read-only");
    refused(&image, target.path(), "read-only");
    target.is_untouched();
}

#[test]
fn a_file_on_a_read_only_file_system() {
    let lab = Lab::new();
    let image = image(&lab);
    let target = Target::file(&lab, SIZE);
    let view = Mount::new("--bind", lab.dir(), &lab.path("view"));
    Run::tool("mount").words("-o remount,bind,ro").arg(view.path()).done().ok();
    refused(&image, &view.path().join(target.path().file_name().unwrap()), "read-only");
    target.is_untouched();
}

#[test]
fn a_device_that_is_not_there_is_not_made() {
    let lab = Lab::new();
    let image = image(&lab);
    let path = Path::new("/dev/z-provisioner-e2e-nothing");
    refused(&image, path, "does not exist");
    assert!(!path.exists());
    let deep = Path::new("/dev/disk/by-id/z-provisioner-e2e-nothing");
    refused(&image, deep, "does not exist");
}

/// A typing error in a shell that stands in /dev, or behind a link into it.
#[test]
fn a_device_that_is_not_there_is_not_made_by_any_other_path_either() {
    let lab = Lab::new();
    let image = image(&lab);
    let real = Path::new("/dev/z-provisioner-e2e-mistyped");
    let link = lab.path("devices");
    std::os::unix::fs::symlink("/dev", &link).unwrap();
    let relative = image.write(&image.dir, Path::new("z-provisioner-e2e-mistyped")).within(Path::new("/dev"));
    let linked = image.write(&image.dir, &link.join("z-provisioner-e2e-mistyped"));
    let dotted = image.write(&image.dir, &lab.dir().join("../../../dev/z-provisioner-e2e-mistyped"));
    let outcomes = [relative, linked, dotted].map(|run| {
        let done = run.done();
        let made = fs::remove_file(real).is_ok();
        (done, made)
    });
    for (done, made) in outcomes {
        assert!(!made, "a file was made in /dev by {}", done.line);
        done.exits(exit::TARGET).says("does not exist");
    }
}

#[test]
fn a_directory_a_character_device_and_a_pipe() {
    let lab = Lab::new();
    let image = image(&lab);
    let pipe = lab.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [lab.fresh_dir("directory").as_path(), Path::new("/dev/null"), Path::new("/dev/zero"), &pipe] {
        refused(&image, path, "neither a block device nor a regular file");
    }
    assert!(fs::metadata("/dev/null").is_ok_and(|null| !null.is_file()));
}

/// The whole disk below a mounted device number: the parent of a partition, the first of the slaves of a mapping.
fn whole_disk(number: &str) -> PathBuf {
    let node = fs::canonicalize(format!("/sys/dev/block/{number}")).unwrap_or_else(|_| {
        panic!("the root file system is on {number}, no block device: run these tests on a machine")
    });
    if node.join("partition").exists() {
        return node.parent().unwrap().to_owned();
    }
    let slave = fs::read_dir(node.join("slaves")).into_iter().flatten().flatten().next();
    match slave {
        Some(slave) => whole_disk(fs::read_to_string(slave.path().join("dev")).unwrap().trim()),
        None => node,
    }
}

/// The one test that names a disk which matters. Three things keep it from being written: the interlock that is tested,
/// the kernel (it is mounted, and the open is exclusive), and the image, which is larger than the disk.
#[test]
fn the_running_systems_root_disk() {
    let root = fs::metadata("/").unwrap().dev();
    let node = whole_disk(&format!("{}:{}", libc::major(root), libc::minor(root)));
    let sectors: u64 = fs::read_to_string(node.join("size")).unwrap().trim().parse().unwrap();
    let lab = Lab::new();
    let raw = lab.path("too-large");
    drop(sample::sparse(&raw, (sectors * 512).next_multiple_of(GIB) + GIB));
    let image = lab.pack(&raw, "");
    let disk = Path::new("/dev").join(node.file_name().unwrap().to_str().unwrap().replace('!', "/"));
    refused(&image, &disk, "root file system");
}

/// Refusals come before anything is asked of the target, and images are checked before targets.
#[test]
fn a_refused_image_wins_over_a_refused_target() {
    let lab = Lab::new();
    let image = image(&lab);
    let other = lab.key();
    let write = Run::imgstream().arg("write").arg(&image.dir).arg("/dev/null").arg("--trust").arg(&other.public);
    write.done().exits(exit::IMAGE);
}
