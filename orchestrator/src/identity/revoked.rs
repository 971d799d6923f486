//! Certificates of people that count no more: a file that a person writes, and that is looked at whenever such a certificate is shown.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use protocol::Digest;

use super::bounded;
use crate::model::Moment;

/// Largest file, in bytes: some ten thousand fingerprints.
const MAX: usize = 1 << 20;
/// Seconds after which what a file says of its last change is believed.
const SETTLED: u64 = 2;

/// The file and what it said last.
#[derive(Debug)]
pub(super) struct Revoked {
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Which file that was: when it was changed last, its length, and its number.
    of: Option<(i64, i64, u64, u64)>,
    revoked: HashSet<Digest>,
}

impl Revoked {
    pub(super) fn new(path: PathBuf) -> Self {
        Revoked { path, known: Mutex::default() }
    }

    /// Whether this certificate counts no more.
    ///
    /// # Errors
    /// The file is there and cannot be read, or a line of it is no fingerprint: whom it means is not known, so nobody is let in.
    pub(super) fn contains(&self, fingerprint: &Digest) -> Result<bool, String> {
        let failed = |error: &dyn std::fmt::Display| format!("reading {}: {error}", self.path.display());
        let facts = match std::fs::metadata(&self.path) {
            Ok(facts) => facts,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed(&error)),
        };
        let now = Some((facts.mtime(), facts.mtime_nsec(), facts.size(), facts.ino()));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.of != now {
            let bytes = File::open(&self.path).and_then(|file| bounded(file, MAX)).map_err(|error| failed(&error))?;
            let bytes = bytes.ok_or_else(|| failed(&format!("it has more than {MAX} bytes")))?;
            let text = std::str::from_utf8(&bytes).map_err(|error| failed(&error))?;
            known.revoked = read(text).map_err(|line| failed(&format!("line {line} is no SHA-256 fingerprint")))?;
            // A change within one tick of the file system's clock, which leaves the length as it is, shows in none of these.
            let is_settled = facts.mtime().abs_diff(Moment::of_wall_clock().0 / 1000) >= SETTLED;
            known.of = now.filter(|_| is_settled);
        }
        Ok(known.revoked.contains(fingerprint))
    }
}

/// One fingerprint per line, as we print it or as others do: with `sha256:` or without, with colons or without.
fn read(text: &str) -> Result<HashSet<Digest>, usize> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.split('#').next().unwrap_or_default().trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty());
    lines
        .map(|(at, line)| {
            let line = line.to_ascii_lowercase();
            let hex: String = line.trim_start_matches("sha256:").chars().filter(|c| *c != ':').collect();
            Digest::try_from(format!("sha256:{hex}")).map_err(|_| at)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(letter: &str) -> Digest {
        format!("sha256:{}", letter.repeat(64)).try_into().unwrap()
    }

    #[test]
    fn it_is_read_again_when_it_has_changed_and_nonsense_lets_nobody_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revoked");
        let revoked = Revoked::new(path.clone());
        assert_eq!(revoked.contains(&digest("a")), Ok(false));
        std::fs::write(&path, format!("# whose\n\n{} # ada's\n", digest("a"))).unwrap();
        assert_eq!((revoked.contains(&digest("a")), revoked.contains(&digest("b"))), (Ok(true), Ok(false)));
        let colons = vec!["BB"; 32].join(":");
        std::fs::write(&path, format!("{colons}\n{}\n", "c".repeat(64))).unwrap();
        for (letter, is_there) in [("a", false), ("b", true), ("c", true)] {
            assert_eq!(revoked.contains(&digest(letter)), Ok(is_there), "{letter}");
        }
        // As long as before, and within one tick of the clock perhaps.
        for letter in ["d", "e", "f"] {
            std::fs::write(&path, format!("{}\n", letter.repeat(64))).unwrap();
            assert_eq!(revoked.contains(&digest(letter)), Ok(true), "{letter}");
        }
        for nonsense in ["ada\n", "sha256:abc\n", "\u{fffd}"] {
            std::fs::write(&path, format!("# more than before\n{}\n{nonsense}", digest("a"))).unwrap();
            let error = revoked.contains(&digest("b")).unwrap_err();
            assert!(error.contains("line 3 is no SHA-256 fingerprint"), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(revoked.contains(&digest("a")), Ok(false));
    }
}
