//! Block devices as the kernel shows them: by number, because names can be pointed elsewhere. System facts only; no judgement.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use imgstream::error::{Error, IoContext, Kind, Result};

use crate::sysfs;

const SYS: &str = "/sys";

/// A block device's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Number {
    /// The driver.
    pub major: u64,
    /// The device.
    pub minor: u64,
}

impl Number {
    /// From what `stat` says.
    pub fn of_rdev(rdev: u64) -> Self {
        Number { major: libc::major(rdev).into(), minor: libc::minor(rdev).into() }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl FromStr for Number {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.trim().split_once(':');
        let parsed = parts.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let (major, minor) = parsed.ok_or_else(|| format!("{text:?} is no device number"))?;
        Ok(Number { major, minor })
    }
}

/// A block device: which one it is, what it is called, how large it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its number.
    pub number: Number,
    /// The kernel's name, such as `sda` or `dm-3`.
    pub kernel_name: String,
    /// The name of the mapping, where it is one.
    pub mapping: Option<String>,
    /// Bytes it holds.
    pub size: u64,
    /// Bytes of its logical sectors.
    pub sector_size: u32,
}

impl Block {
    /// The device with this number.
    ///
    /// # Errors
    /// [`Kind::Target`] when there is none any more.
    pub fn of_number(number: Number) -> Result<Self> {
        let node = Path::new(SYS).join("dev/block").join(number.to_string());
        let real = node.canonicalize().context(Kind::Target, || format!("looking for block device {number}"))?;
        let name = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let numeric = |file: &str| -> Result<u64> {
            let text = attribute(&real, file).unwrap_or_default();
            text.parse().map_err(|_| Error::target(format!("{name} says {text:?} as its {file}")))
        };
        let sector_size = u32::try_from(numeric("queue/logical_block_size")?).unwrap_or(u32::MAX);
        // Sectors of 512 bytes, whatever the device's own are.
        let size = numeric("size")? * 512;
        Ok(Block { number, mapping: attribute(&real, "dm/name"), kernel_name: name, size, sector_size })
    }

    /// The device that a path leads to.
    ///
    /// # Errors
    /// [`Kind::Target`] when it leads to none.
    pub fn of_path(path: &Path) -> Result<Self> {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let name = path.display();
        let facts = std::fs::metadata(path).context(Kind::Target, || format!("looking at {name}"))?;
        if !facts.file_type().is_block_device() {
            return Err(Error::target(format!("{name} is no block device")).with_hint(
                "an encrypted layout needs a LUN or a whole block device: the device mapper takes nothing else",
            ));
        }
        Self::of_number(Number::of_rdev(facts.rdev()))
    }

    /// The mapping with this name.
    ///
    /// # Errors
    /// [`Kind::Target`] when there is none.
    pub fn of_mapping(name: &str) -> Result<Self> {
        let found = mappings().into_iter().find(|mapping| mapping.name == name);
        let found = found.ok_or_else(|| Error::target(format!("there is no mapping {name}")))?;
        Self::of_number(found.number)
    }

    /// Where it can be opened: under the name that people know, as long as that leads to this very device.
    pub fn path(&self) -> PathBuf {
        use std::os::unix::fs::MetadataExt;
        let known = self.mapping.as_ref().map(|mapping| Path::new("/dev/mapper").join(mapping));
        let leads_here =
            |path: &PathBuf| std::fs::metadata(path).is_ok_and(|facts| Number::of_rdev(facts.rdev()) == self.number);
        known.filter(leads_here).unwrap_or_else(|| Path::new("/dev").join(&self.kernel_name))
    }

    /// The devices that it lies on.
    pub fn slaves(&self) -> Vec<String> {
        sysfs::names(&self.node().join("slaves"))
    }

    fn node(&self) -> PathBuf {
        Path::new(SYS).join("class/block").join(&self.kernel_name)
    }
}

/// A mapping of the device mapper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Its name.
    pub name: String,
    /// Its UUID, which says who made it: `mpath-…`, `CRYPT-LUKS2-…`, `LVM-…`.
    pub uuid: String,
    /// Its number.
    pub number: Number,
}

/// All mappings there are.
pub fn mappings() -> Vec<Mapping> {
    let block = Path::new(SYS).join("class/block");
    let devices = sysfs::names(&block).into_iter().filter(|name| name.starts_with("dm-"));
    let mapping = |kernel_name: String| {
        let node = block.join(kernel_name);
        let number = attribute(&node, "dev")?.parse().ok()?;
        Some(Mapping { name: attribute(&node, "dm/name")?, uuid: attribute(&node, "dm/uuid")?, number })
    };
    devices.filter_map(mapping).collect()
}

/// The number of a kernel name such as `sda`.
pub fn number_of(kernel_name: &str) -> Option<Number> {
    attribute(&Path::new(SYS).join("class/block").join(kernel_name), "dev")?.parse().ok()
}

/// An attribute of a kernel name such as `sda`, without blanks around it; `None` where there is none, or nothing in it.
pub fn attribute_of(kernel_name: &str, name: &str) -> Option<String> {
    attribute(&Path::new(SYS).join("class/block").join(kernel_name), name)
}

/// The kernel names of all SCSI disks.
pub fn scsi_disks() -> Vec<String> {
    sysfs::names(&Path::new(SYS).join("block")).into_iter().filter(|name| name.starts_with("sd")).collect()
}

fn attribute(node: &Path, name: &str) -> Option<String> {
    sysfs::read(&node.join(name)).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_as_it_is_written() {
        let number: Number = "253:17\n".parse().unwrap();
        assert_eq!((number, number.to_string()), (Number { major: 253, minor: 17 }, "253:17".into()));
        assert!("253".parse::<Number>().is_err() && "a:b".parse::<Number>().is_err());
    }
}
