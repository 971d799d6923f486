//! The files of a layout: their paths, opening them without leaving the root, and streaming a part of one.
//!
//! Not here: what of a file is sent, and under which status and headers ([`super::answer`]).

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use tokio::time::timeout;

/// A file of an image layout: the only things there are to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Layout,
    Index,
    /// With its SHA-256 in hex.
    Blob(String),
}

impl Item {
    pub(super) fn at(path: &str) -> Option<Self> {
        match path {
            "/oci-layout" => Some(Self::Layout),
            "/index.json" => Some(Self::Index),
            _ => {
                let hex = path.strip_prefix("/blobs/sha256/")?;
                let well_formed = hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
                well_formed.then(|| Self::Blob(hex.to_owned()))
            }
        }
    }

    pub(super) fn components(&self) -> Vec<&str> {
        match self {
            Self::Layout => vec!["oci-layout"],
            Self::Index => vec!["index.json"],
            Self::Blob(hex) => vec!["blobs", "sha256", hex],
        }
    }

    pub(super) fn content_type(&self) -> &'static str {
        match self {
            Self::Layout => "application/vnd.oci.layout.header.v1+json",
            Self::Index => "application/vnd.oci.image.index.v1+json",
            Self::Blob(_) => "application/octet-stream",
        }
    }

    pub(super) fn cache_control(&self) -> &'static str {
        match self {
            Self::Blob(_) => "public, max-age=31536000, immutable",
            Self::Layout | Self::Index => "no-cache",
        }
    }
}

pub(super) struct Opened {
    pub(super) file: File,
    pub(super) len: u64,
    pub(super) etag: String,
}

impl Opened {
    /// Opens one component after the other and follows no link, so that what is opened lies below `root`.
    pub(super) fn open(root: &Path, item: &Item) -> io::Result<Self> {
        let directory = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        // Non-blocking, so that a pipe lying there is refused below instead of waited for.
        let leaf = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let components = item.components();
        let mut opened = nix::fcntl::open(root, directory, Mode::empty())?;
        for (index, component) in components.iter().enumerate() {
            let last = index + 1 == components.len();
            let flags = if last { leaf } else { directory | OFlag::O_NOFOLLOW };
            opened = nix::fcntl::openat(&opened, *component, flags, Mode::empty())?;
        }
        let file = File::from(opened);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "not a regular file"));
        }
        let len = metadata.len();
        let etag = match item {
            Item::Blob(hex) => format!("\"sha256:{hex}\""),
            // Weak: a rewrite within one tick of the file system's clock would go unseen.
            Item::Layout | Item::Index => {
                format!("W/\"{:x}-{:x}.{:x}-{len:x}\"", metadata.ino(), metadata.mtime(), metadata.mtime_nsec())
            }
        };
        Ok(Self { file, len, etag })
    }
}

/// How much is read at a time.
const PIECE: u64 = 512 * 1024;

type Reading = Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>>;

/// Part of a file, a piece at a time and one piece read ahead.
pub(super) struct FileBody {
    file: Arc<File>,
    /// Where the piece that is handed out next begins.
    offset: u64,
    remaining: u64,
    reading: Option<Reading>,
    bound: Duration,
}

impl FileBody {
    pub(super) fn new(file: File, offset: u64, len: u64, bound: Duration) -> Self {
        Self { file: Arc::new(file), offset, remaining: len, reading: None, bound }
    }

    /// Starts reading the piece at `offset`; the bound begins when it is waited for.
    fn read(&self) -> Reading {
        let (file, offset, bound) = (Arc::clone(&self.file), self.offset, self.bound);
        let mut piece = vec![0; self.remaining.min(PIECE) as usize];
        let reading = tokio::task::spawn_blocking(move || {
            file.read_exact_at(&mut piece, offset).map(|()| Bytes::from(piece)).map_err(|error| {
                let why = if error.kind() == io::ErrorKind::UnexpectedEof {
                    "cut short while being served"
                } else {
                    "read error"
                };
                io::Error::new(error.kind(), format!("{why}, in the piece at offset {offset}: {error}"))
            })
        });
        Box::pin(async move {
            match timeout(bound, reading).await {
                Ok(Ok(piece)) => piece,
                Ok(Err(error)) => Err(io::Error::other(error)),
                Err(_) => {
                    Err(io::Error::new(io::ErrorKind::TimedOut, format!("reading at offset {offset} took too long")))
                }
            }
        })
    }
}

impl hyper::body::Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if this.remaining == 0 {
            return Poll::Ready(None);
        }
        let mut reading = this.reading.take().unwrap_or_else(|| this.read());
        let Poll::Ready(piece) = reading.as_mut().poll(cx) else {
            this.reading = Some(reading);
            return Poll::Pending;
        };
        match piece {
            Ok(piece) => {
                this.offset += piece.len() as u64;
                this.remaining -= piece.len() as u64;
                this.reading = (this.remaining > 0).then(|| this.read());
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            // hyper then closes the connection, which tells the client that the answer is incomplete.
            Err(error) => {
                this.remaining = 0;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::HEX;
    use super::*;

    #[test]
    fn only_the_paths_of_a_layout() {
        assert_eq!(Item::at("/oci-layout"), Some(Item::Layout));
        assert_eq!(Item::at("/index.json"), Some(Item::Index));
        assert_eq!(Item::at(&format!("/blobs/sha256/{HEX}")), Some(Item::Blob(HEX.to_owned())));
        let others = [
            String::new(),
            "/".to_owned(),
            "*".to_owned(),
            "//index.json".to_owned(),
            "/index.json/".to_owned(),
            "/blobs/sha256/".to_owned(),
            format!("/blobs/sha256/{}", HEX.to_uppercase()),
            format!("/blobs/sha256/{HEX}0"),
            format!("/blobs/sha256/{}", &HEX[1..]),
            format!("/blobs/sha256/../sha256/{HEX}"),
            format!("/blobs/sha512/{HEX}"),
            format!("/blobs/sha256/{}/..", &HEX[..61]),
        ];
        for path in others {
            assert_eq!(Item::at(&path), None, "{path}");
        }
    }
}
