//! The key-encryption key: 32 random bytes in base64, from the data folder, from a file, or from a program that fetches it.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{self, SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::program;
use crate::config::Keys;
use crate::error::{Context, Error, Result};
use crate::identity::{Folder, bounded};

/// The data folder's own.
pub const KEK: &str = "kek.key";

/// Largest text that is read, in bytes.
pub(super) const MAX_TEXT: usize = 256;
const NOT_READ: &str = "give it to the service's user, mode 600. Where others may have read it, the keys sealed with it are known to whoever has the store as well: destroy them and install anew. Do not remove it: without it they open for nobody";
const NOT_FOUND: &str = "restore it, with mode 600; or take it out of `keys.previous`, once the service has said that nothing is sealed with it any more";
/// What its id is computed over, before the key.
const ID_LABEL: &[u8] = b"z-orchestrator key-encryption key v1\n";

/// The key-encryption key, wiped when it goes.
pub struct Kek(Box<Zeroizing<[u8; Kek::BYTES]>>);

impl Kek {
    /// Its bytes.
    pub const BYTES: usize = 32;

    /// The one that the configuration names; else the data folder's, which is made at the first start.
    ///
    /// # Errors
    /// The file cannot be read or made, others may read it, the program fails or takes too long, or what there is is no such key.
    pub fn open(config: &Keys, folder: &Folder) -> Result<Self> {
        if let Some(file) = &config.file {
            return Self::of_file("keys.file", file);
        }
        if let [program, arguments @ ..] = &config.command[..] {
            let named = || format!("`keys.command` ({program})");
            return Self::parse(&program::output(program, arguments)?, named);
        }
        let path = folder.file(KEK);
        // Not what is right for other secrets: nobody may be told to remove this one.
        let known = folder.read_secret(KEK, MAX_TEXT).map_err(|error| error.with_hint(NOT_READ))?;
        if let Some(text) = known {
            return Self::parse(&text, || path.display().to_string());
        }
        let kek = Self::generate()?;
        folder.write_secret(KEK, kek.line().as_bytes())?;
        tracing::info!("{} is new: back it up, apart from the store", path.display());
        Ok(kek)
    }

    /// Whether [`Self::open`] would make a new one.
    pub fn is_to_be_made(config: &Keys, folder: &Folder) -> bool {
        config.file.is_none() && config.command.is_empty() && !folder.file(KEK).exists()
    }

    /// Those that were in use before it.
    ///
    /// # Errors
    /// A file cannot be read, others may read it, or it holds no such key.
    pub fn previous(config: &Keys) -> Result<Vec<Self>> {
        let of_file = |path: &PathBuf| {
            Self::of_file("keys.previous", path).map_err(|error| {
                let known = error.hint().map(ToOwned::to_owned);
                error.with_hint(known.as_deref().unwrap_or(NOT_FOUND))
            })
        };
        config.previous.iter().map(of_file).collect()
    }

    /// `key`: what it is named by in the configuration.
    fn of_file(key: &str, path: &Path) -> Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let name = path.display();
        let reading = || format!("reading `{key}` {name}");
        let file = std::fs::File::open(path).doing(reading)?;
        let facts = file.metadata().doing(reading)?;
        // A file is read by its owner; what is no file (/dev/fd/3) is whoever's that has opened it.
        if facts.is_file() && facts.mode() & 0o077 != 0 {
            return Err(Error::refused(format!("`{key}` {name} is a secret that others may read")).with_hint(format!(
                "if nobody has read it, `chmod 600 {name}`; else change the key-encryption key, as docs/operating.md says"
            )));
        }
        let text = bounded(file, MAX_TEXT).doing(reading)?.unwrap_or_default();
        Self::parse(&text, || format!("`{key}` {name}"))
    }

    fn generate() -> Result<Self> {
        let mut bytes = Box::new(Zeroizing::new([0; Self::BYTES]));
        let drawn = SystemRandom::new().fill(&mut bytes[..]);
        drawn.map_err(|_| Error::system("the system gives no random numbers"))?;
        Ok(Kek(bytes))
    }

    /// Of these bytes.
    pub fn of(bytes: [u8; Self::BYTES]) -> Self {
        Kek(Box::new(Zeroizing::new(bytes)))
    }

    fn parse(text: &[u8], named: impl Fn() -> String) -> Result<Self> {
        let mut bytes = Box::new(Zeroizing::new([0; Self::BYTES]));
        // Room for what is longer than it must be, so that it is seen to be.
        let mut held = Zeroizing::new([0; MAX_TEXT]);
        let len = STANDARD.decode_slice(text.trim_ascii(), &mut held[..]).ok().filter(|len| *len == Self::BYTES);
        let len = len.ok_or_else(|| {
            Error::refused(format!("{} is no key-encryption key: 32 bytes in base64", named())).with_hint(
                "restore it from a backup; a new one (`head -c 32 /dev/urandom | base64`) opens no key that was sealed before",
            )
        })?;
        bytes.copy_from_slice(&held[..len]);
        Ok(Kek(bytes))
    }

    fn line(&self) -> Zeroizing<String> {
        let mut line = Zeroizing::new(String::with_capacity(MAX_TEXT));
        STANDARD.encode_string(&self.0[..], &mut line);
        line.push('\n');
        line
    }

    /// Names it, and says nothing of it: the first 16 hex digits of a SHA-256.
    pub fn id(&self) -> String {
        let mut digest = digest::Context::new(&SHA256);
        digest.update(ID_LABEL);
        digest.update(&self.0[..]);
        digest.finish().as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The key.
    pub(super) fn reveal(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kek(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::open(&temporary.path().join("data")).unwrap();
        (temporary, folder)
    }

    fn of_file(path: &Path) -> Keys {
        Keys { file: Some(path.to_owned()), ..Keys::default() }
    }

    #[test]
    fn the_data_folders_own_is_made_once_and_nobody_else_may_read_it() {
        let (_temporary, folder) = folder();
        let first = Kek::open(&Keys::default(), &folder).unwrap();
        let again = Kek::open(&Keys::default(), &folder).unwrap();
        assert_eq!(first.reveal(), again.reveal());
        let path = folder.file(KEK);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.len() == 45 && !format!("{first:?}{}", first.id()).contains(text.trim()));
        assert!(first.id().len() == 16 && first.id() != Kek::of([0; 32]).id());
        std::fs::write(&path, "not a key").unwrap();
        let error = Kek::open(&Keys::default(), &folder).unwrap_err();
        assert!(error.hint().is_some() && !error.to_string().contains("not a key"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = Kek::open(&Keys::default(), &folder).unwrap_err();
        assert!(
            error.to_string().contains("others may read") && error.hint().is_some_and(|hint| hint.contains("Do not"))
        );
    }

    #[test]
    fn a_file_and_a_program_give_the_same() {
        let (temporary, folder) = folder();
        let path = temporary.path().join("kek");
        std::fs::write(&path, Kek::of([9; 32]).line()).unwrap();
        let error = Kek::open(&of_file(&path), &folder).unwrap_err();
        assert!(error.to_string().contains("others may read"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let command = vec!["cat".to_owned(), path.display().to_string()];
        for keys in [of_file(&path), Keys { command, ..Keys::default() }] {
            assert_eq!(Kek::open(&keys, &folder).unwrap().reveal(), &[9; 32]);
        }
        assert!(!folder.file(KEK).exists(), "none is made where one is configured");
        Kek::open(&of_file(&PathBuf::from("/no/such/file")), &folder).unwrap_err();
        for text in [String::new(), STANDARD.encode([1; 31]), STANDARD.encode([1; 33]), "x".repeat(500)] {
            std::fs::write(&path, &text).unwrap();
            let error = Kek::open(&of_file(&path), &folder).unwrap_err();
            assert!(error.to_string().contains("no key-encryption key"), "{error}");
        }
    }
    #[test]
    fn those_of_before_are_read_as_strictly_and_a_missing_one_is_not_passed_over() {
        let temporary = tempfile::tempdir().unwrap();
        let path = |name: &str| temporary.path().join(name);
        for byte in [1, 2] {
            std::fs::write(path(&byte.to_string()), Kek::of([byte; 32]).line()).unwrap();
            std::fs::set_permissions(path(&byte.to_string()), std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let of = |names: &[&str]| {
            Kek::previous(&Keys { previous: names.iter().map(|name| path(name)).collect(), ..Keys::default() })
        };
        let read: Vec<_> = of(&["2", "1"]).unwrap().iter().map(|kek| *kek.reveal()).collect();
        assert_eq!(read, [[2; 32], [1; 32]]);
        let error = of(&["1", "3"]).unwrap_err();
        assert!(
            error.to_string().contains("`keys.previous`") && error.hint().unwrap().contains("take it out"),
            "{error}"
        );
        std::fs::set_permissions(path("2"), std::fs::Permissions::from_mode(0o604)).unwrap();
        let error = of(&["1", "2"]).unwrap_err();
        assert!(error.to_string().contains("others may read") && error.hint().unwrap().contains("change"), "{error}");
        std::fs::write(path("1"), "no key").unwrap();
        assert!(of(&["1"]).unwrap_err().to_string().contains("no key-encryption key"));
    }
}
