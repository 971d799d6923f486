//! A raw disk: GPT by sfdisk, ext4 by `mke2fs -d` straight at its offset (nothing is mounted), and the checks
//! afterwards by fsck and sfdisk, which share no code with us.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::fail::{Fail, Outcome, Tried};
use crate::shell::{capture, tool};

/// One mebibyte.
pub const MIB: u64 = 1 << 20;

/// Everything that would carry the time of day carries this instead: 2026-01-01.
pub const EPOCH: &str = "1767225600";

/// Where the first partition starts.
pub const FIRST: u64 = MIB;

/// What a partition holds, and how it is called.
pub struct Part<'a> {
    /// GPT name and file system label.
    pub name: &'a str,
    /// sfdisk's name or GUID of the partition type.
    pub kind: &'a str,
    /// UUID of the file system, of the partition, and the seed of its directory hashes.
    pub uuid: &'a str,
    /// Size of the file system in MiB.
    pub mib: u64,
    /// What the partition has beyond it, in MiB: zeros.
    pub free: u64,
    /// The folder whose files fill it.
    pub files: &'a Path,
}

impl Part<'_> {
    /// Bytes of the partition.
    fn bytes(&self) -> u64 {
        (self.mib + self.free) * MIB
    }
}

/// Lays out `parts` one after the other in a new sparse `disk` and fills them.
pub fn make(disk: &Path, label_id: &str, parts: &[Part]) -> Outcome<()> {
    let total = FIRST + parts.iter().map(Part::bytes).sum::<u64>() + MIB;
    let tried = format!("create {}", disk.display());
    File::create(disk).and_then(|file| file.set_len(total)).tried(tried)?;

    let table = table(label_id, parts);
    let script = disk.with_extension("sfdisk");
    std::fs::write(&script, table).tried(format_args!("write {}", script.display()))?;
    // `capture` gives a tool no stdin; sfdisk reads its script from there, so a shell joins them.
    capture(tool("sh").args(["-c", r#"exec sfdisk --quiet "$1" <"$2""#, "sh"]).args([disk, &script]))?;
    std::fs::remove_file(&script).tried(format_args!("remove {}", script.display()))?;

    for (part, offset) in parts.iter().zip(offsets(parts)) {
        let mut mke2fs = tool("mke2fs");
        mke2fs.env("E2FSPROGS_FAKE_TIME", EPOCH).env("SOURCE_DATE_EPOCH", EPOCH);
        mke2fs.args(["-q", "-t", "ext4", "-b", "4096", "-U", part.uuid, "-L", part.name]);
        mke2fs.arg("-d").arg(part.files);
        mke2fs.args(["-E", &format!("offset={offset},hash_seed={}", part.uuid)]);
        capture(mke2fs.arg(disk).arg(format!("{}M", part.mib)))?;
    }
    Ok(())
}

/// Fails unless the partition table and every file system are sound.
pub fn check(disk: &Path, parts: &[Part]) -> Outcome<()> {
    capture(tool("sfdisk").args(["--verify", "--quiet"]).arg(disk))?;
    for offset in offsets(parts) {
        capture(tool("e2fsck").args(["-f", "-n"]).arg(format!("{}?offset={offset}", disk.display())))?;
    }
    Ok(())
}

/// Fails unless the machine's firmware would find zipl's boot record in the first sector.
pub fn check_boot_record(disk: &Path) -> Outcome<()> {
    let mut magic = [0; 4];
    let read = File::open(disk).and_then(|mut file| file.read_exact(&mut magic));
    read.tried(format_args!("read the first sector of {}", disk.display()))?;
    if &magic == b"zIPL" {
        return Ok(());
    }
    Err(Fail::new(format!("zipl said it was done, but {} does not begin with its magic", disk.display())))
}

/// A partition for `used` bytes of files: a quarter more, some for the journal, in steps of 8 MiB.
pub fn fitted(used: u64) -> u64 {
    (used + used / 4).div_ceil(MIB).saturating_add(24).next_multiple_of(8)
}

/// What a folder's files take up.
pub fn used(folder: &Path) -> Outcome<u64> {
    let mut du = tool("du");
    du.args(["--summarize", "--block-size=1", "--one-file-system"]).arg(folder);
    let said = capture(&mut du)?;
    let bytes = said.split_whitespace().next().and_then(|word| word.parse().ok());
    bytes.ok_or_else(|| Fail::new(format!("du said {:?} about {}, which is no size", said.trim(), folder.display())))
}

fn offsets<'a>(parts: &'a [Part]) -> impl Iterator<Item = u64> + 'a {
    parts.iter().scan(FIRST, |next, part| {
        let offset = *next;
        *next += part.bytes();
        Some(offset)
    })
}

fn table(label_id: &str, parts: &[Part]) -> String {
    let mut table = format!("label: gpt\nlabel-id: {label_id}\n");
    for (part, offset) in parts.iter().zip(offsets(parts)) {
        let (start, size) = (offset / 512, part.bytes() / 512);
        table += &format!("start={start}, size={size}, type={}, uuid={}, name={}\n", part.kind, part.uuid, part.name);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_follow_each_other() {
        let files = Path::new("/");
        let part = |name, mib, free| Part { name, kind: "L", uuid: "u", mib, free, files };
        let table = table("id", &[part("boot", 62, 2), part("root", 8, 0)]);
        assert!(table.contains("start=2048, size=131072, type=L, uuid=u, name=boot\n"));
        assert!(table.contains("start=133120, size=16384, type=L, uuid=u, name=root\n"));
    }

    #[test]
    fn a_partition_has_room_to_spare() {
        assert_eq!(fitted(0), 24);
        assert_eq!(fitted(100 * MIB), 152);
    }
}
