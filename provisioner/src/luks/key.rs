//! A run's key: 32 random bytes, written so that a person can read and type them.
//!
//! What LUKS is given is the text, not the bytes: whoever unlocks the disk at a console types just that. Upper-case letters and
//! digits that cannot be mistaken for each other (RFC 4648 base32) survive a 3270 terminal and a telephone. The text itself is
//! [`UnlockKey`], which the service makes as well.

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use imgstream::error::{Error, IoContext, Kind, Result};
use protocol::UnlockKey;
use zeroize::Zeroizing;

/// A key.
pub struct Key(UnlockKey);

impl Key {
    /// A new one from the kernel's random numbers.
    ///
    /// # Errors
    /// [`Kind::Device`] when the kernel gives none.
    pub fn generate() -> Result<Self> {
        let mut bytes = Zeroizing::new([0; UnlockKey::BYTES]);
        // It waits until the kernel has entropy; /dev/urandom does not, early after a start.
        let random = File::open("/dev/random").and_then(|mut random| random.read_exact(&mut *bytes));
        random.context(Kind::Device, || "reading random bytes from /dev/random".into())?;
        Ok(Key(UnlockKey::of(&bytes)))
    }

    /// Reads one from a file: its text, perhaps with a line end.
    ///
    /// # Errors
    /// [`Kind::Usage`] when it cannot be read or holds something else. What it holds is not shown.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display();
        let mut held = Zeroizing::new([0; UnlockKey::LEN + 3]);
        let mut len = 0;
        let mut file = File::open(path).context(Kind::Usage, || format!("reading the key {name}"))?;
        while len < held.len() {
            match file.read(&mut held[len..]).context(Kind::Usage, || format!("reading the key {name}"))? {
                0 => break,
                more => len += more,
            }
        }
        let line = held[..len].strip_suffix(b"\n").unwrap_or(&held[..len]);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = std::str::from_utf8(line).unwrap_or_default();
        UnlockKey::try_from(text.to_owned()).map(Key).map_err(|error| {
            Error::usage(format!("{name} holds no key: {error}"))
                .with_hint("make one with `z-provisioner keygen FILE`; it stands for 32 random bytes")
        })
    }

    /// Writes it to a new file that only its owner may read.
    ///
    /// # Errors
    /// [`Kind::Usage`] when the file exists or cannot be written.
    pub fn write_new(&self, path: &Path) -> Result<()> {
        let writing = || format!("writing the key {}", path.display());
        let mut open = std::fs::OpenOptions::new();
        let mut file = open.write(true).create_new(true).mode(0o600).open(path).context(Kind::Usage, writing)?;
        file.write_all(self.passphrase()).and_then(|()| file.write_all(b"\n")).context(Kind::Usage, writing)?;
        file.sync_all().context(Kind::Usage, writing)
    }

    /// What LUKS is given, and what a person types.
    pub fn passphrase(&self) -> &[u8] {
        self.0.reveal().as_bytes()
    }
}

/// One that the service has made.
impl From<UnlockKey> for Key {
    fn from(key: UnlockKey) -> Self {
        Key(key)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_only_so() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        let key = Key::generate().unwrap();
        key.write_new(&file).unwrap();
        assert_eq!(Key::read(&file).unwrap().passphrase(), key.passphrase());
        assert!(key.write_new(&file).is_err(), "a key is never overwritten");
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

        let good = String::from_utf8(key.passphrase().to_vec()).unwrap();
        for fine in [good.clone(), format!("{good}\n"), format!("{good}\r\n")] {
            std::fs::write(&file, fine).unwrap();
            assert!(Key::read(&file).is_ok());
        }
        for bad in ["".into(), good[1..].to_owned(), format!("{good}A"), good.to_lowercase(), good.replace('-', " ")] {
            std::fs::write(&file, &bad).unwrap();
            let error = Key::read(&file).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
            assert!(bad.is_empty() || !error.to_string().contains(&bad), "{error}");
        }
    }

    #[test]
    fn two_keys_differ_and_none_is_shown() {
        let (one, other) = (Key::generate().unwrap(), Key::generate().unwrap());
        assert_ne!(one.passphrase(), other.passphrase());
        assert_eq!(format!("{one:?}"), "Key(..)");
    }
}
