//! The small image: one ext4 with programs and documents of this machine, in a GPT. Real files, since random or
//! repeated bytes would say nothing about compression.

use std::path::{Path, PathBuf};

use crate::fail::{Fail, Outcome, Tried};
use crate::image::disk::{self, MIB, Part};

const DISK_ID: &str = "7a707276-0000-4000-8000-000000000010";
const DATA_ID: &str = "7a707276-0000-4000-8000-000000000011";

/// Readable by everyone and holding no secrets, with what is taken of each at most.
const FOLDERS: [(&str, u64); 3] = [("/usr/share", 24 * MIB), ("/usr/bin", 32 * MIB), ("/usr/lib", 32 * MIB)];

/// No single file may be most of the image.
const LARGEST: u64 = 8 * MIB;

/// What the image depends on: the key of the cache.
pub fn recipe() -> String {
    format!("{FOLDERS:?}\nlargest {LARGEST}\nsteps 1\n")
}

/// Builds `folder/file`.
pub fn build(folder: &Path, file: &str) -> Outcome<()> {
    let staging = folder.join("files");
    for (source, most) in FOLDERS {
        copy_some(Path::new(source), &staging, most)?;
    }
    let image = folder.join(file);
    let mib = disk::fitted(disk::used(&staging)?).next_multiple_of(32);
    let parts = [Part { name: "data", kind: "L", uuid: DATA_ID, mib, free: 0, files: &staging }];
    disk::make(&image, DISK_ID, &parts)?;
    disk::check(&image, &parts)?;
    std::fs::remove_dir_all(&staging).tried("remove the copied files")
}

/// Copies regular files of `source` in alphabetical order, up to `most` bytes.
fn copy_some(source: &Path, staging: &Path, most: u64) -> Outcome<()> {
    let mut left = most;
    let mut waiting = vec![source.to_path_buf()];
    while let Some(next) = waiting.pop() {
        if crate::interrupt::interrupted() {
            return Err(Fail::interrupted());
        }
        let Ok(facts) = next.symlink_metadata() else {
            continue;
        };
        if facts.is_dir() {
            // The last of the list is taken first.
            waiting.extend(children(&next).into_iter().rev());
        } else if facts.is_file() && (1..=LARGEST.min(left)).contains(&facts.len()) {
            let copy = staging.join(next.strip_prefix("/").unwrap_or(&next));
            let parent = copy.parent().unwrap_or(staging);
            std::fs::create_dir_all(parent).tried(format_args!("create {}", parent.display()))?;
            // A file that may not be read, or has just gone, is simply not part of the image.
            if std::fs::copy(&next, &copy).is_ok() {
                left -= facts.len();
            }
        }
    }
    Ok(())
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut children: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    children.sort();
    children
}
