//! Safety interlocks of a block device: not the running root, not mounted, not swapped on, no holders, not a partition.
//!
//! Facts come from sysfs and procfs below roots that tests can move. O_EXCL, taken afterwards, keeps them true.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Where this machine tells about itself.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pub(super) sys: PathBuf,
    pub(super) proc: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Host { sys: "/sys".into(), proc: "/proc".into() }
    }
}

struct Mount {
    number: String,
    point: String,
}

impl Host {
    /// Refuses the whole disk `number` (`major:minor`), called `name`, if writing it would hurt something that runs.
    pub(super) fn check(&self, name: &str, number: &str) -> Result<()> {
        let node = self.block(number);
        if node.join("partition").exists() {
            return Err(Error::target(format!(
                "{name} is a partition; an image is a whole disk with its own partition table"
            ))
            .with_hint("name the disk the partition is on, if that is what is to be overwritten"));
        }
        let mounts = self.mounts()?;
        let disk_and_partitions = self.with_partitions(number);
        if let Some(root) = mounts.iter().find(|mount| mount.point == "/")
            && self.lies_on(&root.number, number, 0)
        {
            return Err(Error::target(format!("{name} holds the running system's root file system"))
                .with_hint("this device is never a target on this machine"));
        }
        for part in &disk_and_partitions {
            self.check_unused(name, part, &mounts)?;
        }
        Ok(())
    }

    /// Refuses a regular file that a loop device shows to the system: what is mounted from it would be overwritten.
    pub(super) fn check_file(&self, path: &Path) -> Result<()> {
        let Ok(path) = path.canonicalize() else { return Ok(()) };
        let block = self.sys.join("block");
        let user = names_in(&block).into_iter().find(|name| {
            let backing = read_trimmed(&block.join(name).join("loop/backing_file"));
            backing.is_some_and(|backing| Path::new(&backing) == path)
        });
        match user {
            None => Ok(()),
            Some(name) => Err(Error::target(format!("{} is in use as the loop device /dev/{name}", path.display()))
                .with_hint(format!("detach it with `losetup -d /dev/{name}`, or name the loop device as the target"))),
        }
    }

    fn check_unused(&self, name: &str, number: &str, mounts: &[Mount]) -> Result<()> {
        if let Some(mount) = mounts.iter().find(|mount| mount.number == number) {
            return Err(Error::target(format!("{name} is mounted: device {number} at {}", mount.point))
                .with_hint(format!("umount {}", mount.point)));
        }
        if self.swaps().iter().any(|swap| swap == number) {
            return Err(Error::target(format!("{name} is in use as swap space")).with_hint("run swapoff on it first"));
        }
        let holders = names_in(&self.block(number).join("holders"));
        if !holders.is_empty() {
            return Err(Error::target(format!("{name} is held by {}", holders.join(", ")))
                .with_hint("close the mapping, array or volume group on top of it first"));
        }
        Ok(())
    }

    fn block(&self, number: &str) -> PathBuf {
        self.sys.join("dev/block").join(number)
    }

    fn with_partitions(&self, number: &str) -> Vec<String> {
        let node = self.block(number);
        let partitions =
            names_in(&node).into_iter().map(|entry| node.join(entry)).filter(|entry| entry.join("partition").exists());
        std::iter::once(number.to_owned())
            .chain(partitions.filter_map(|entry| read_trimmed(&entry.join("dev"))))
            .collect()
    }

    /// Whether device `upper` is `lower`, a partition of it, or stacked on either.
    fn lies_on(&self, upper: &str, lower: &str, depth: usize) -> bool {
        // A stack this deep does not exist; the bound is against a loop in what we read.
        if upper == lower || depth > 16 {
            return upper == lower;
        }
        let node = self.block(upper);
        if node.join("partition").exists() {
            let parent = fs::canonicalize(&node).ok().and_then(|node| read_trimmed(&node.parent()?.join("dev")));
            return parent.is_some_and(|parent| self.lies_on(&parent, lower, depth + 1));
        }
        names_in(&node.join("slaves")).iter().any(|slave| {
            read_trimmed(&node.join("slaves").join(slave).join("dev"))
                .is_some_and(|slave| self.lies_on(&slave, lower, depth + 1))
        })
    }

    /// `/proc/self/mountinfo`: field 3 is the device number, field 5 the mount point (proc_pid_mountinfo(5)). File systems
    /// with anonymous numbers (btrfs) are found by the source after the hyphen.
    fn mounts(&self) -> Result<Vec<Mount>> {
        let path = self.proc.join("self/mountinfo");
        let text = fs::read_to_string(&path).map_err(|error| {
            Error::target(format!("reading {}: {error}; without it nobody knows what is mounted", path.display()))
        })?;
        let mut mounts = Vec::new();
        for line in text.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let (Some(number), Some(point)) = (fields.get(2), fields.get(4)) else {
                continue;
            };
            mounts.push(Mount { number: (*number).to_owned(), point: (*point).to_owned() });
            let source = fields.iter().position(|field| *field == "-").and_then(|at| fields.get(at + 2));
            if let Some(number) = source.and_then(|source| device_number(Path::new(source))) {
                mounts.push(Mount { number, point: (*point).to_owned() });
            }
        }
        Ok(mounts)
    }

    fn swaps(&self) -> Vec<String> {
        let text = fs::read_to_string(self.proc.join("swaps")).unwrap_or_default();
        text.lines().skip(1).filter_map(|line| device_number(Path::new(line.split_whitespace().next()?))).collect()
    }
}

/// `major:minor` of a device number as the kernel gives it.
pub(super) fn number_text(rdev: u64) -> String {
    format!("{}:{}", libc::major(rdev), libc::minor(rdev))
}

fn device_number(path: &Path) -> Option<String> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let metadata = fs::metadata(path).ok()?;
    metadata.file_type().is_block_device().then(|| number_text(metadata.rdev()))
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn read_trimmed(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with a disk 8:0 (partitions 8:1 and 8:2, a mapping 253:0 on the latter) and an idle disk 8:16.
    fn host(root: &Path, mountinfo: &str) -> Host {
        let dir = |path: &str| fs::create_dir_all(root.join(path)).unwrap();
        let file = |path: &str, text: &str| fs::write(root.join(path), text).unwrap();
        for (disk, partitions) in [("sda", &["sda1", "sda2"][..]), ("sdb", &[]), ("dm-0", &[])] {
            dir(&format!("sys/block/{disk}/holders"));
            dir(&format!("sys/block/{disk}/slaves"));
            for part in partitions {
                dir(&format!("sys/block/{disk}/{part}/holders"));
                file(&format!("sys/block/{disk}/{part}/partition"), &part[3..]);
            }
        }
        dir("sys/dev/block");
        let numbers = [("8:0", "sda"), ("8:1", "sda/sda1"), ("8:2", "sda/sda2"), ("8:16", "sdb"), ("253:0", "dm-0")];
        for (number, path) in numbers {
            file(&format!("sys/block/{path}/dev"), &format!("{number}\n"));
            std::os::unix::fs::symlink(format!("../../block/{path}"), root.join("sys/dev/block").join(number)).unwrap();
        }
        std::os::unix::fs::symlink("../../dm-0", root.join("sys/block/sda/sda2/holders/dm-0")).unwrap();
        std::os::unix::fs::symlink("../../sda/sda2", root.join("sys/block/dm-0/slaves/sda2")).unwrap();
        dir("proc/self");
        file("proc/self/mountinfo", mountinfo);
        Host { sys: root.join("sys"), proc: root.join("proc") }
    }

    fn refusal(mountinfo: &str, number: &str) -> Option<String> {
        let root = tempfile::tempdir().unwrap();
        host(root.path(), mountinfo).check("disk", number).err().map(|error| error.to_string())
    }

    const OTHER_ROOT: &str = "1 0 0:20 / / rw - tmpfs none rw\n";

    #[test]
    fn an_idle_disk_is_accepted() {
        assert_eq!(refusal(OTHER_ROOT, "8:16"), None);
    }

    #[test]
    fn the_running_root_is_found_through_a_mapping_and_a_partition() {
        let mapped = refusal("1 0 253:0 / / rw - ext4 /dev/none rw\n", "8:0");
        assert!(mapped.is_some_and(|text| text.contains("running system's root")));
        let direct = refusal("1 0 8:1 / / rw - ext4 /dev/none rw\n", "8:0");
        assert!(direct.is_some_and(|text| text.contains("running system's root")));
    }

    #[test]
    fn mounted_held_and_partition_are_refused_by_name() {
        let mounted = refusal(&format!("{OTHER_ROOT}2 1 8:1 / /mnt/x rw - ext4 /dev/none rw\n"), "8:0");
        assert!(mounted.is_some_and(|text| text.contains("/mnt/x")));
        assert!(refusal(OTHER_ROOT, "8:0").is_some_and(|text| text.contains("held by dm-0")));
        assert!(refusal(OTHER_ROOT, "8:1").is_some_and(|text| text.contains("is a partition")));
    }
}
