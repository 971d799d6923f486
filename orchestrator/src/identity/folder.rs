//! The data folder: the service's alone, one service's at a time. Its secrets are readable by their owner only, and are whole or not there.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::unistd::Uid;
use zeroize::Zeroizing;

use crate::error::{Context, Error, Result};

const LOCK: &str = "lock";
/// How long another service is waited for. One that was killed while it began an agent is gone, and what it had open is not before that
/// agent's process has become one.
pub const LET_GO: Duration = Duration::from_secs(2);

/// The data folder, locked until this is dropped, or looked at only.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    lock: Option<Flock<File>>,
}

impl Folder {
    /// Makes the folder where it is missing (0700), checks whose it is, and locks it.
    ///
    /// # Errors
    /// It belongs to somebody else, others may write to it, another service uses it, or this machine does not do it.
    pub fn open(path: &Path) -> Result<Self> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).doing(|| format!("making the folder {}", parent.display()))?;
        }
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(error).doing(|| format!("making the data folder {}", path.display()))?;
            }
            _ => {}
        }
        check_owner(path)?;
        Ok(Folder { path: path.to_owned(), lock: Some(lock(&path.join(LOCK))?) })
    }

    /// To read from, also while a service uses it. Nothing can be written.
    ///
    /// # Errors
    /// It is not there, belongs to somebody else, or others may write to it.
    pub fn look(path: &Path) -> Result<Self> {
        check_owner(path)?;
        Ok(Folder { path: path.to_owned(), lock: None })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a file of it is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A file of it, which is no secret. `None` where there is none.
    ///
    /// # Errors
    /// It has more than `most` bytes, or cannot be read.
    pub fn read(&self, name: &str, most: usize) -> Result<Option<Zeroizing<Vec<u8>>>> {
        self.read_if(name, most, |_| Ok(()))
    }

    /// A secret. `None` where there is none.
    ///
    /// # Errors
    /// Others may read it, it belongs to somebody else, has more than `most` bytes, or cannot be read.
    pub fn read_secret(&self, name: &str, most: usize) -> Result<Option<Zeroizing<Vec<u8>>>> {
        self.read_if(name, most, |file| {
            let (path, facts) = (self.file(name), file.metadata().doing(|| format!("looking at {name}"))?);
            let others = facts.mode() & 0o077 != 0 || facts.uid() != Uid::effective().as_raw();
            if others {
                let hint = format!(
                    "if nobody has read it, `chown {} {path}; chmod 600 {path}`; else remove it, and a new one is made",
                    Uid::effective(),
                    path = path.display()
                );
                return Err(
                    Error::refused(format!("{} is a secret that others may read", path.display())).with_hint(hint)
                );
            }
            Ok(())
        })
    }

    fn read_if(
        &self,
        name: &str,
        most: usize,
        check: impl FnOnce(&File) -> Result<()>,
    ) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let path = self.file(name);
        let file = match OpenOptions::new().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.doing(|| format!("opening {}", path.display()))?,
        };
        check(&file)?;
        let bytes = bounded(file, most).doing(|| format!("reading {}", path.display()))?;
        bytes.map(Some).ok_or_else(|| {
            Error::refused(format!("{} has more than {most} bytes: the service has not written it", path.display()))
                .with_hint("restore it from a backup, or remove it, and a new one is made")
        })
    }

    /// Writes a secret: 0600, whole or not at all, and on disk when this returns.
    ///
    /// # Errors
    /// This machine does not do it.
    pub fn write_secret(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.write_mode(name, bytes, 0o600)
    }

    /// Writes what everybody may know, as safely as a secret.
    ///
    /// # Errors
    /// This machine does not do it.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.write_mode(name, bytes, 0o644)
    }

    fn write_mode(&self, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let (path, new) = (self.file(name), self.file(&format!(".{name}.new")));
        if self.lock.is_none() {
            return Err(Error::system(format!("{}: the folder was opened to be read", path.display())));
        }
        let write = || -> io::Result<()> {
            // We hold the lock: what lies there is of a service that died in the middle of this.
            if let Err(error) = std::fs::remove_file(&new)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&new, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().doing(|| format!("writing {}", path.display()))
    }
}

/// All that a file holds, in memory that is wiped and does not move while it grows; `None` where that is more than `most` bytes.
pub(crate) fn bounded(file: impl Read, most: usize) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(most + 1));
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= most).then_some(bytes))
}

fn check_owner(path: &Path) -> Result<()> {
    let facts = std::fs::metadata(path).doing(|| format!("looking at the data folder {}", path.display()))?;
    let (name, us) = (path.display(), Uid::effective());
    if !facts.is_dir() {
        return Err(Error::refused(format!("the data folder {name} is not a folder"))
            .with_hint("name another one with `data` or --data"));
    }
    if facts.uid() != us.as_raw() {
        return Err(Error::refused(format!("the data folder {name} belongs to user {}, not to {us}", facts.uid()))
            .with_hint(format!("run the service as its owner, or `chown -R {us} {name}`")));
    }
    if facts.mode() & 0o022 != 0 {
        let mode = facts.mode() & 0o7777;
        return Err(Error::refused(format!("others may write to the data folder {name} (its mode is {mode:04o})"))
            .with_hint(format!("see that nobody has put anything there, then `chmod 700 {name}`")));
    }
    Ok(())
}

fn lock(path: &Path) -> Result<Flock<File>> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).bits();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)
        .doing(|| format!("opening {}", path.display()))?;
    let (mut file, began) = (file, Instant::now());
    let mut lock = loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => break lock,
            Err((file, Errno::EWOULDBLOCK)) if began.elapsed() < LET_GO => file,
            Err((file, Errno::EWOULDBLOCK)) => return Err(in_use(path, file)),
            Err((_, errno)) => return Err(errno).doing(|| format!("locking {}", path.display())),
        };
        std::thread::sleep(LET_GO / 40);
    };
    let pid = format!("{}\n", std::process::id());
    lock.set_len(0).and_then(|()| lock.write_all(pid.as_bytes())).doing(|| format!("writing {}", path.display()))?;
    Ok(lock)
}

fn in_use(path: &Path, file: File) -> Error {
    let text = bounded(file, 32).ok().flatten().unwrap_or_default();
    let pid = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let who = pid.map_or("another process".to_owned(), |pid| format!("process {pid}"));
    let folder = path.parent().unwrap_or(path).display();
    Error::refused(format!("the data folder {folder} is in use by {who}"))
        .with_hint("one service uses a data folder: stop the other one, or give this one another folder with --data")
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::open(&temporary.path().join("state/service")).unwrap();
        (temporary, folder)
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn it_is_made_for_its_owner_alone() {
        let (_temporary, folder) = folder();
        assert_eq!(mode(folder.path()), 0o700);
        folder.write_secret("a.key", b"secret").unwrap();
        folder.write_secret("a.key", b"other").unwrap();
        folder.write("a.pem", b"known").unwrap();
        assert_eq!((mode(&folder.file("a.key")), mode(&folder.file("lock"))), (0o600, 0o600));
        assert_eq!(folder.read_secret("a.key", 5).unwrap().unwrap().as_slice(), b"other");
        assert_eq!(folder.read("a.pem", 5).unwrap().unwrap().as_slice(), b"known");
        assert!(folder.read("b.pem", 5).unwrap().is_none());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "something was left");
    }

    #[test]
    fn a_second_service_is_told_who_has_it() {
        let (_temporary, first) = folder();
        let error = Folder::open(first.path()).unwrap_err();
        let who = format!("is in use by process {}", std::process::id());
        assert!(error.to_string().ends_with(&who), "{error}");
        let path = first.path().to_owned();
        // It may be looked at all the same.
        first.write("a", b"1").unwrap();
        let second = Folder::look(&path).unwrap();
        assert_eq!(second.read("a", 9).unwrap().unwrap().as_slice(), b"1");
        second.write("a", b"2").unwrap_err();
        drop(first);
        Folder::open(&path).unwrap();
        Folder::look(&path.join("none")).unwrap_err();
    }

    #[test]
    fn one_that_is_let_go_soon_is_waited_for() {
        let (_temporary, first) = folder();
        let path = first.path().to_owned();
        let letting_go = std::thread::spawn(move || {
            std::thread::sleep(LET_GO / 4);
            drop(first);
        });
        Folder::open(&path).unwrap();
        letting_go.join().unwrap();
    }

    #[test]
    fn one_that_others_may_write_to_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        for bits in [0o720, 0o702, 0o1777] {
            std::fs::set_permissions(temporary.path(), Permissions::from_mode(bits)).unwrap();
            let error = Folder::open(temporary.path()).unwrap_err();
            assert!(error.to_string().contains("others may write") && error.hint().is_some(), "{error}");
        }
        std::fs::set_permissions(temporary.path(), Permissions::from_mode(0o755)).unwrap();
        Folder::open(temporary.path()).unwrap();
        let file = temporary.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(Folder::open(&file).unwrap_err().to_string().contains("not a folder"));
    }

    #[test]
    fn one_of_somebody_else_is_refused() {
        // Only root can give a folder away; somebody else sees that root's is not theirs.
        let temporary = tempfile::tempdir().unwrap();
        let path = if Uid::effective().is_root() {
            std::os::unix::fs::chown(temporary.path(), Some(65_534), None).unwrap();
            temporary.path()
        } else {
            Path::new("/")
        };
        assert!(Folder::open(path).unwrap_err().to_string().contains("belongs to user"));
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused_and_so_is_one_that_never_ends() {
        let (_temporary, folder) = folder();
        folder.write_secret("a.key", &[7; 100]).unwrap();
        assert!(folder.read_secret("a.key", 99).unwrap_err().to_string().contains("more than 99 bytes"));
        std::fs::set_permissions(folder.file("a.key"), Permissions::from_mode(0o640)).unwrap();
        assert!(folder.read_secret("a.key", 100).unwrap_err().to_string().contains("others may read"));
        std::os::unix::fs::symlink("/etc/hostname", folder.file("b.key")).unwrap();
        folder.read_secret("b.key", 100).unwrap_err();
    }

    #[test]
    fn what_a_dead_service_left_half_written_is_no_obstacle() {
        let (_temporary, folder) = folder();
        std::fs::write(folder.file(".a.key.new"), "half").unwrap();
        folder.write_secret("a.key", b"whole").unwrap();
        assert_eq!(folder.read_secret("a.key", 100).unwrap().unwrap().as_slice(), b"whole");
        assert!(!folder.file(".a.key.new").exists());
    }
}
