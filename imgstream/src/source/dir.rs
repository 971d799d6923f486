//! A layout in a directory.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{Boxed, Source, Stream, fetch_blob};
use crate::error::{Error, IoContext, Kind, Result};
use crate::manifest::BlobRef;
use crate::manifest::layout::{self, Choice};

/// Bytes per read. Large enough to hide the hop to a blocking thread.
const READ: u64 = 1 << 20;

/// A directory that holds an OCI image layout.
#[derive(Debug)]
pub struct Dir {
    root: PathBuf,
    name: String,
}

impl Dir {
    /// The layout in `root`; nothing is opened yet.
    pub fn new(root: &Path) -> Self {
        Dir { root: root.to_owned(), name: root.display().to_string() }
    }

    async fn read_small(&self, file: &str) -> Result<Vec<u8>> {
        let path = self.root.join(file);
        blocking(move || {
            let (mut file, size) = open(&path)?;
            if size > layout::MAX_MANIFEST {
                return Err(Error::image(format!(
                    "{} has {size} bytes; at most {} are accepted",
                    path.display(),
                    layout::MAX_MANIFEST
                )));
            }
            let mut bytes = Vec::new();
            // A file that grows while it is read does not grow here.
            let read = Read::by_ref(&mut file).take(layout::MAX_MANIFEST).read_to_end(&mut bytes);
            read.context(Kind::Source, || format!("reading {}", path.display()))?;
            Ok(bytes)
        })
        .await
    }
}

impl Source for Dir {
    fn name(&self) -> &str {
        &self.name
    }

    fn manifest<'a>(&'a self, choice: &'a Choice) -> Boxed<'a, Result<Vec<u8>>> {
        Box::pin(async move {
            let index = self.read_small("index.json").await.map_err(|error| {
                error
                    .with_hint(format!("{} must be the directory of an image, as `imgstream pack` makes it", self.name))
            })?;
            fetch_blob(self, layout::choose(&index, choice)?, layout::MAX_MANIFEST, "the OCI manifest").await
        })
    }

    fn range(&self, blob: BlobRef, range: Range<u64>) -> Boxed<'_, Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let path = self.root.join("blobs/sha256").join(blob.digest.hex());
            let file = blocking(move || {
                let (file, size) = open(&path)?;
                if size != blob.size {
                    return Err(Error::corrupt(format!(
                        "{} has {size} bytes instead of {}",
                        path.display(),
                        blob.size
                    )));
                }
                Ok(file)
            })
            .await?;
            Ok(Box::new(FileStream {
                file: Arc::new(file),
                left: range,
                buffer: BytesMut::new(),
                name: self.name.clone(),
            }) as Box<dyn Stream>)
        })
    }
}

/// Opens a regular file, and nothing else: opening a pipe would wait for ever for somebody to write into it.
fn open(path: &Path) -> Result<(File, u64)> {
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = opened.context(Kind::Source, || format!("opening {}", path.display()))?;
    let metadata = file.metadata().context(Kind::Source, || format!("looking at {}", path.display()))?;
    if !metadata.is_file() {
        return Err(Error::corrupt(format!("{} is not a regular file", path.display())));
    }
    Ok((file, metadata.len()))
}

struct FileStream {
    file: Arc<File>,
    left: Range<u64>,
    /// Read into again and again, once what it held has been taken.
    buffer: BytesMut,
    name: String,
}

impl Stream for FileStream {
    fn next(&mut self) -> Boxed<'_, Result<Option<Bytes>>> {
        Box::pin(async move {
            let len = (self.left.end - self.left.start).min(READ);
            if len == 0 {
                return Ok(None);
            }
            let (file, offset) = (Arc::clone(&self.file), self.left.start);
            let mut buffer = std::mem::take(&mut self.buffer);
            let read = move || {
                buffer.reserve(len as usize);
                buffer.resize(len as usize, 0);
                file.read_exact_at(&mut buffer, offset).map(|()| buffer)
            };
            let name = &self.name;
            let mut read = blocking(move || read().context(Kind::Source, || "reading a blob".into()))
                .await
                .map_err(|error| Error::source_failed(format!("{name}: {error}")).with_source(error))?;
            self.left.start += len;
            let bytes = read.split().freeze();
            self.buffer = read;
            Ok(Some(bytes))
        })
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| Err(Error::source_failed(format!("a reading thread died: {error}"))))
}
