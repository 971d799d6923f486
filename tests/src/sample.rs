//! Raw images to pack.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::command::{Run, target_dir};
use crate::{KIB, MIB};

/// Size of [`disk`] with sectors of 512 bytes: whole sectors, but not whole chunks of any size.
pub const DISK_SIZE: u64 = 24 * MIB + 7 * 512;

/// A disk image as a builder makes it: GPT, an ext4 partition with real files, one with data that does not compress,
/// holes. Built once and kept; its bytes must not be changed.
///
/// # Panics
/// When it cannot be built.
pub fn disk(sector_size: u32) -> PathBuf {
    let dir = target_dir().join("tmp");
    std::fs::create_dir_all(&dir).expect("making target/tmp");
    let path = dir.join(format!("e2e-disk-1-{sector_size}.raw"));
    if !path.exists() {
        let half = tempfile::Builder::new().prefix("e2e-disk").tempdir_in(&dir).expect("a directory");
        let raw = half.path().join("raw");
        build_disk(half.path(), &raw, sector_size);
        // Tests run at the same time, and partitions get random UUIDs: the first image built is everybody's.
        match std::fs::hard_link(raw, &path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                panic!("naming the sample image: {error}")
            }
            _ => {}
        }
    }
    path
}

fn build_disk(dir: &Path, raw: &Path, sector_size: u32) {
    let sector = u64::from(sector_size);
    let size = if sector_size == 512 { DISK_SIZE } else { 24 * MIB + 3 * sector };
    let file = sparse(raw, size);
    let table = format!(
        "label: gpt\nlabel-id: 6A7E1E3C-0001-4000-8000-000000000001\nstart={}, size={}, name=root\nstart={}, size={}, name=noise\n",
        MIB / sector,
        16 * MIB / sector,
        17 * MIB / sector,
        3 * MIB / sector
    );
    let script = dir.join("table");
    std::fs::write(&script, table).expect("writing the partition table's script");
    let sfdisk = |onto: &Path| {
        let script = File::open(&script).expect("the script");
        Run::tool("sfdisk").words("--quiet --no-reread --no-tell-kernel").arg(onto).stdin(script).done().ok()
    };
    if sector_size == 512 {
        sfdisk(raw);
    } else {
        let device = crate::Loop::attach_with(raw, &format!("--sector-size {sector_size}"));
        sfdisk(device.path());
        Run::tool("sync").arg(device.path()).done().ok();
    }
    let tree = dir.join("tree");
    real_files(&tree, 9 * MIB);
    Run::tool("mke2fs")
        .words("-q -F -t ext4 -b 4096 -U 6a7e1e3c-0001-4000-8000-000000000002 -E")
        .arg(format!("offset={MIB},root_owner=0:0,hash_seed=6a7e1e3c-0001-4000-8000-000000000003"))
        .arg("-d")
        .args([tree.as_path(), raw])
        .arg(format!("{}k", 16 * MIB / KIB))
        .done()
        .ok();
    file.write_all_at(&noise(1, 2 * MIB as usize), 17 * MIB + 512).expect("writing noise");
    file.sync_all().expect("flushing the sample image");
}

/// Copies files of this machine into `tree`, about `bytes` of them.
fn real_files(tree: &Path, bytes: u64) {
    let mut left = bytes;
    let mut dirs = vec![PathBuf::from("/usr/share"), PathBuf::from("/usr/bin")];
    while let Some(dir) = dirs.pop() {
        let mut entries: Vec<_> = std::fs::read_dir(&dir).into_iter().flatten().flatten().collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                dirs.push(entry.path());
                continue;
            }
            let len = entry.metadata().map_or(0, |metadata| metadata.len());
            if !kind.is_file() || len == 0 || len > MIB || len > left {
                continue;
            }
            let copy = tree.join(entry.path().strip_prefix("/").expect("an absolute path"));
            std::fs::create_dir_all(copy.parent().expect("a parent")).expect("making a directory");
            std::fs::copy(entry.path(), copy).expect("copying a file");
            left -= len;
            if left < 64 * KIB {
                return;
            }
        }
    }
    assert!(left < bytes / 2, "this machine has too few files in /usr to make a sample image of");
}

/// An empty sparse file.
///
/// # Panics
/// When it cannot be made.
pub fn sparse(path: &Path, size: u64) -> File {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path).expect("making a file");
    file.set_len(size).expect("giving a file its length");
    file
}

/// A file of data that does not compress.
///
/// # Panics
/// When it cannot be written.
pub fn noise_file(path: &Path, seed: u64, len: u64) {
    let mut file = sparse(path, 0);
    let mut done = 0;
    while done < len {
        let step = MIB.min(len - done);
        file.write_all(&noise(seed.wrapping_add(done), step as usize)).expect("writing noise");
        done += step;
    }
}

/// Bytes that do not compress, the same for the same seed (splitmix64).
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x2545_f491_4f6c_dd1d);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
