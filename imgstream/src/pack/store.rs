//! The layout's directory: blobs under their digests, written durably; a new layout appears under its name as a whole.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::blob_ref;
use crate::digest::Hasher;
use crate::error::{Error, IoContext, Kind, Result};
use crate::manifest::BlobRef;
use crate::manifest::layout;

/// A name for something unfinished that becomes `name`: nobody else's, not even in a container where every process has
/// the same number.
///
/// # Errors
/// When the machine gives no random numbers.
pub fn partial_name(name: &str) -> Result<String> {
    let random = ring::rand::generate::<[u8; 8]>(&ring::rand::SystemRandom::new());
    let random = random.map_err(|_| Error::device("this machine gives no random numbers"))?.expose();
    Ok(format!("{name}.{:016x}.partial", u64::from_be_bytes(random)))
}

/// A layout's directory, existing or being made.
pub(super) struct Store {
    dir: PathBuf,
    /// Where it goes when it is complete; `None` for one that is there already.
    publish_as: Option<PathBuf>,
    published: AtomicBool,
    next_temporary: AtomicU64,
}

impl Store {
    /// A new layout. It is made beside `output` under a temporary name, and removed unless it is published.
    pub(super) fn create(output: &Path) -> Result<Self> {
        let exists = || {
            Error::usage(format!("{} exists; an image is never overwritten", output.display()))
                .with_hint("choose another directory, or remove it first")
        };
        if fs::symlink_metadata(output).is_ok() {
            return Err(exists());
        }
        let name = output
            .file_name()
            .ok_or_else(|| Error::usage(format!("{} is no name for a directory", output.display())))?;
        let dir = output.with_file_name(format!(".{}", partial_name(&name.to_string_lossy())?));
        fs::create_dir(&dir).device(|| format!("creating {}", dir.display()))?;
        fs::create_dir_all(dir.join("blobs/sha256")).device(|| format!("creating {}", dir.display()))?;
        Ok(Store {
            dir,
            publish_as: Some(output.to_owned()),
            published: AtomicBool::new(false),
            next_temporary: AtomicU64::new(0),
        })
    }

    /// A layout that is there.
    pub(super) fn open(dir: &Path) -> Self {
        Store {
            dir: dir.to_owned(),
            publish_as: None,
            published: AtomicBool::new(true),
            next_temporary: AtomicU64::new(0),
        }
    }

    /// Gives a new layout its name, durably. Never replaces anything.
    pub(super) fn publish(&self) -> Result<()> {
        let Some(output) = &self.publish_as else { return Ok(()) };
        for dir in [self.blobs(), self.dir.join("blobs"), self.dir.clone()] {
            sync(&dir)?;
        }
        renameat2(AT_FDCWD, &self.dir, AT_FDCWD, output, RenameFlags::RENAME_NOREPLACE)
            .device(|| format!("renaming {} to {}", self.dir.display(), output.display()))?;
        self.published.store(true, Relaxed);
        let parent = output.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync(parent.unwrap_or(Path::new(".")))
    }

    /// Writes a small blob.
    pub(super) fn put(&self, bytes: &[u8]) -> Result<BlobRef> {
        let blob = blob_ref(bytes);
        self.write_file(&format!("blobs/sha256/{}", blob.digest.hex()), bytes)?;
        Ok(blob)
    }

    /// Writes a file of the layout under its name, whole and durably.
    pub(super) fn write_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.dir.join(name);
        let temporary = self.temporary();
        let write = || -> io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().device(|| format!("writing {}", path.display()))?;
        sync(path.parent().unwrap_or(&self.dir))
    }

    /// A small blob, bounded and checked.
    pub(super) fn get(&self, blob: BlobRef, limit: u64) -> Result<Vec<u8>> {
        let name = format!("blobs/sha256/{}", blob.digest.hex());
        if blob.size > limit {
            return Err(Error::image(format!(
                "{name} is said to have {} bytes; at most {limit} are accepted",
                blob.size
            )));
        }
        let bytes = self.read_file(&name)?;
        if blob_ref(&bytes) != blob {
            return Err(Error::corrupt(format!("{} does not hold what its name says", self.dir.join(name).display())));
        }
        Ok(bytes)
    }

    /// A small file of the layout.
    pub(super) fn read_file(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.dir.join(name);
        let size = fs::metadata(&path).context(Kind::Source, || format!("reading {}", path.display()))?.len();
        if size > layout::MAX_MANIFEST {
            return Err(Error::image(format!(
                "{} has {size} bytes; at most {} are accepted",
                path.display(),
                layout::MAX_MANIFEST
            )));
        }
        fs::read(&path).context(Kind::Source, || format!("reading {}", path.display()))
    }

    /// Removes a blob nothing points at any more. One that stays does no harm.
    pub(super) fn remove(&self, blob: BlobRef) {
        let _ = fs::remove_file(self.blobs().join(blob.digest.hex()));
    }

    /// Starts a large blob.
    pub(super) fn new_blob(&self) -> Result<NewBlob<'_>> {
        let path = self.temporary();
        let file = File::create(&path).device(|| format!("creating {}", path.display()))?;
        Ok(NewBlob { store: self, path, file: BufWriter::with_capacity(1 << 20, file), hasher: Hasher::new(), size: 0 })
    }

    fn blobs(&self) -> PathBuf {
        self.dir.join("blobs/sha256")
    }

    fn temporary(&self) -> PathBuf {
        let number = self.next_temporary.fetch_add(1, Relaxed);
        self.dir.join(format!(".{}-{number}.partial", std::process::id()))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if !self.published.load(Relaxed) {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn sync(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).device(|| format!("flushing the directory {}", dir.display()))
}

/// A blob being written; its name is its digest, so it gets it last.
pub(super) struct NewBlob<'a> {
    store: &'a Store,
    path: PathBuf,
    file: BufWriter<File>,
    hasher: Hasher,
    size: u64,
}

impl NewBlob<'_> {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.file.write_all(bytes).device(|| format!("writing {}", self.path.display()))
    }

    pub(super) fn finish(self) -> Result<BlobRef> {
        let NewBlob { store, path, file, hasher, size } = self;
        let what = || format!("writing {}", path.display());
        let file = file.into_inner().map_err(io::IntoInnerError::into_error).device(what)?;
        file.sync_all().device(what)?;
        let blob = BlobRef { digest: hasher.finish(), size };
        fs::rename(&path, store.blobs().join(blob.digest.hex())).device(what)?;
        Ok(blob)
    }
}
