//! Things that take minutes to make, kept under the user's cache folder and found again by what they were made from.
//!
//! An entry is a folder named after a hash of its recipe; the recipe itself lies in it in clear and is compared.
//! It is built under another name and renamed when complete, so a half-built one is never mistaken for a whole
//! one; a lock lets the second of two xtasks wait for the first.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::fail::{Fail, Outcome, Tried};

const RECIPE: &str = "recipe";

/// `$XDG_CACHE_HOME/z-provisioner`, or the same under `~/.cache`.
fn folder() -> Outcome<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    let base = base.ok_or_else(|| Fail::usage("neither XDG_CACHE_HOME nor HOME is set: set one of them"))?;
    Ok(base.join("z-provisioner"))
}

/// The folder of entry `kind` made by `recipe`, made by `build` in an empty folder if there is none yet (or if
/// `again` is asked for).
pub fn entry(kind: &str, recipe: &str, again: bool, build: impl FnOnce(&Path) -> Outcome<()>) -> Outcome<PathBuf> {
    entry_in(&folder()?, kind, recipe, again, build)
}

fn entry_in(
    cache: &Path,
    kind: &str,
    recipe: &str,
    again: bool,
    build: impl FnOnce(&Path) -> Outcome<()>,
) -> Outcome<PathBuf> {
    std::fs::create_dir_all(cache).tried(format_args!("create the cache folder {}", cache.display()))?;
    let _lock = lock(&cache.join(format!("{kind}.lock")))?;

    let whole = cache.join(format!("{kind}-{:016x}", fnv1a(recipe)));
    let there = std::fs::read_to_string(whole.join(RECIPE)).is_ok_and(|text| text == recipe);
    if there && !again {
        return Ok(whole);
    }
    let half = Half(cache.join(format!("{kind}.partial")));
    remove(&half.0)?;
    std::fs::create_dir(&half.0).tried(format_args!("create {}", half.0.display()))?;
    build(&half.0)?;
    std::fs::write(half.0.join(RECIPE), recipe).tried(format_args!("write into {}", half.0.display()))?;
    remove(&whole)?;
    std::fs::rename(&half.0, &whole).tried(format_args!("rename {} to its place", half.0.display()))?;
    Ok(whole)
}

/// An unfinished entry; what is left of it goes away on every way out.
struct Half(PathBuf);

impl Drop for Half {
    fn drop(&mut self) {
        if let Err(fail) = remove(&self.0) {
            eprintln!("xtask: cleaning up: {}", fail.message);
        }
    }
}

fn remove(folder: &Path) -> Outcome<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Fail::new(format!("could not remove {}: {error}", folder.display())))
        }
        _ => Ok(()),
    }
}

fn lock(path: &Path) -> Outcome<Flock<File>> {
    let tried = format!("lock {}", path.display());
    let file = File::create(path).tried(&tried)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((file, Errno::EWOULDBLOCK)) => {
            eprintln!("another xtask is at work on this ({}); waiting for it", path.display());
            Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error).tried(&tried)
        }
        Err((_, error)) => Err(error).tried(&tried),
    }
}

/// A short, stable name for a recipe; equality is decided by the recipe's text, not by this.
pub fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_built_once_and_a_failed_build_leaves_nothing() {
        let cache = std::env::temp_dir().join(format!("xtask-cache-{}", std::process::id()));
        let fine = |folder: &Path| std::fs::write(folder.join("x"), "1").tried("write");
        let broken = |_: &Path| Err(Fail::new("no"));

        assert!(entry_in(&cache, "k", "r", false, broken).is_err());
        assert!(!cache.join("k.partial").exists());
        let first = entry_in(&cache, "k", "r", false, fine).unwrap();
        assert_eq!(entry_in(&cache, "k", "r", false, broken).unwrap(), first);
        assert_ne!(entry_in(&cache, "k", "r2", false, fine).unwrap(), first);
        assert!(entry_in(&cache, "k", "r", true, broken).is_err());
        assert!(first.join("x").exists(), "a failed rebuild must leave the old entry alone");
        std::fs::remove_dir_all(&cache).unwrap();
    }
}
