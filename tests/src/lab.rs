//! A directory of its own for each test, with keys and images in it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tempfile::TempDir;

use crate::command::{Done, Run, tool};
use crate::layout::Layout;

/// The time recorded in packed images, so that the same input gives the same bytes.
pub const CREATED: &str = "2026-01-02T03:04:05Z";

/// A test's directory. Removed when dropped.
pub struct Lab {
    dir: TempDir,
    next: AtomicU32,
}

/// A key pair's files.
#[derive(Clone)]
pub struct Key {
    /// The private key.
    pub secret: PathBuf,
    /// The public key.
    pub public: PathBuf,
}

impl Key {
    /// Its id, as openssl and sha256sum find it.
    pub fn id(&self) -> String {
        let der = self.public.with_extension("der");
        Run::tool("openssl").words("pkey -pubin -outform DER -in").arg(&self.public).arg("-out").arg(&der).done().ok();
        let sum = Run::tool("sha256sum").arg(&der).text();
        sum.split(' ').next().unwrap_or_default().to_owned()
    }
}

/// A packed image.
pub struct Image {
    /// Its directory.
    pub dir: PathBuf,
    /// The key that signed it.
    pub key: Key,
}

impl Image {
    /// Its layout.
    pub fn layout(&self) -> Layout {
        Layout::new(&self.dir)
    }

    /// `imgstream write` of this image from `from` to `to`, trusting its key.
    pub fn write(&self, from: impl AsRef<std::ffi::OsStr>, to: &Path) -> Run {
        Run::imgstream().arg("write").arg(from).arg(to).arg("--trust").arg(&self.key.public)
    }

    /// `imgstream verify` of this image.
    pub fn verify(&self) -> Run {
        Run::imgstream().arg("verify").arg(&self.dir).arg("--trust").arg(&self.key.public)
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Lab {
    /// A new one, on a disk: /tmp may be memory, which knows no O_DIRECT.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("z-provisioner-e2e-").tempdir_in("/var/tmp").expect("a directory");
        Lab { dir, next: AtomicU32::new(0) }
    }

    /// Its path.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// A path in it that nothing has yet.
    pub fn fresh(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}-{}", self.next.fetch_add(1, Relaxed)))
    }

    /// A new directory in it.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn fresh_dir(&self, name: &str) -> PathBuf {
        let dir = self.fresh(name);
        std::fs::create_dir(&dir).expect("making a directory");
        dir
    }

    /// A file with these bytes.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.fresh(name);
        std::fs::write(&path, bytes).expect("writing a file");
        path
    }

    /// A key pair made by `imgstream keygen`.
    pub fn key(&self) -> Key {
        let secret = self.fresh("key");
        Run::imgstream().arg("keygen").arg(&secret).done().ok();
        let public = secret.with_extension("pub");
        Key { secret, public }
    }

    /// Packs `raw` as image `sample`, version 7, signed by a new key.
    pub fn pack(&self, raw: &Path, options: &str) -> Image {
        let key = self.key();
        let dir = self.fresh("image");
        pack(raw, &dir, &key, options).done().ok();
        Image { dir, key }
    }

    /// Packs these bytes.
    pub fn pack_bytes(&self, raw: &[u8], options: &str) -> Image {
        self.pack(&self.file("raw", raw), options)
    }

    /// A copy of an image, to be mutated.
    pub fn copy(&self, of: &Path) -> PathBuf {
        let copy = self.fresh("copy");
        Run::tool("cp").arg("-a").args([of, &copy]).done().ok();
        copy
    }
}

/// `imgstream pack` with a fixed time.
pub fn pack(raw: &Path, to: &Path, key: &Key, options: &str) -> Run {
    let fixed = if options.contains("--created") { String::new() } else { format!("--created {CREATED}") };
    Run::imgstream()
        .arg("pack")
        .args([raw, to])
        .words("--name sample --image-version 7 --arch s390x")
        .words(&fixed)
        .words(options)
        .arg("--key")
        .arg(&key.secret)
}

/// Compares two files or devices by `cmp`, the first `len` bytes.
pub fn cmp(one: &Path, other: &Path, len: u64) -> Done {
    Run::tool("cmp").arg("-n").arg(len.to_string()).args([one, other]).done()
}

/// What lies in a directory, sorted.
///
/// # Panics
/// When it cannot be read.
pub fn listing(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("reading {}: {error}", dir.display()));
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A self-made TLS certificate for 127.0.0.1 and its key, as PEM files.
pub fn certificate(lab: &Lab) -> (PathBuf, PathBuf) {
    let (certificate, key) = (lab.fresh("certificate"), lab.fresh("tls-key"));
    Run::tool("openssl")
        .words("req -x509 -newkey rsa:2048 -nodes -sha256 -days 2 -subj /CN=127.0.0.1")
        .words("-addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE -keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .done()
        .ok();
    (certificate, key)
}

/// Fails now, and not in the middle, where one of these tools is missing.
pub fn demand(tools: &[&str]) {
    tools.iter().for_each(|name| drop(tool(name)));
}
