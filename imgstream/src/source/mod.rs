//! Where blobs come from: a directory, a static HTTP server, an OCI registry. All untrusted, all alike to the rest.
//!
//! A source delivers bytes of the length that was asked for, or an error; what the bytes are worth is decided elsewhere.

mod answer;
mod client;
mod dial;
mod dir;
mod fault;
mod http;
mod locator;
mod pace;
mod registry;
mod retry_after;
mod tls;

use std::fmt::Debug;
use std::future::Future;
use std::net::IpAddr;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::BlobRef;
use crate::manifest::layout::Choice;

pub use dial::{Dial, Vet};
pub use dir::Dir;
pub use fault::fault;
pub use http::Http;
pub use locator::Locator;
pub use registry::Registry;
pub use tls::trusting;

/// A boxed future, so that sources can be trait objects.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A place that holds images.
pub trait Source: Send + Sync + Debug {
    /// How messages call it.
    fn name(&self) -> &str;

    /// The OCI manifest of the chosen image.
    fn manifest<'a>(&'a self, choice: &'a Choice) -> Boxed<'a, Result<Vec<u8>>>;

    /// What its requests wait for at this moment. A source that knows no waiting says nothing.
    fn waits(&self) -> Waits {
        Waits::default()
    }

    /// Part of a blob, as a stream that must be wrapped by [`open_range`] before anybody relies on its length.
    fn range(&self, blob: BlobRef, range: Range<u64>) -> Boxed<'_, Result<Box<dyn Stream>>>;
}

/// How many requests to a source wait, and for what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waits {
    /// For a connection: a name, TCP, TLS.
    pub network: usize,
    /// For the source itself: connected, but no answer or no more bytes come.
    pub source: usize,
}

/// Bytes as they arrive.
pub trait Stream: Send {
    /// The next bytes; `None` at the end.
    fn next(&mut self) -> Boxed<'_, Result<Option<Bytes>>>;
}

/// Settings that all sources share.
#[derive(Debug, Clone)]
pub struct SourceOptions {
    /// The longest wait for a connection and for the head of an answer; so long a body may come slower than 1 KiB/s.
    pub timeout: Duration,
    /// Certificates (PEM) to trust instead of the machine's.
    pub ca_pem: Option<Vec<u8>>,
    /// Registry credentials in the format of docker's `config.json`.
    pub registry_auth: Option<Zeroizing<Vec<u8>>>,
    /// Who is asked before each connection.
    pub vet: Option<Arc<dyn Vet>>,
    /// The addresses to connect from, one after the other; the kernel's choice where there are none. Each may have a tunnel of its own.
    pub local_addresses: Vec<IpAddr>,
}

impl Default for SourceOptions {
    fn default() -> Self {
        SourceOptions {
            timeout: Duration::from_secs(30),
            ca_pem: None,
            registry_auth: None,
            vet: None,
            local_addresses: Vec::new(),
        }
    }
}

/// Makes the source a locator names.
///
/// # Errors
/// [`crate::error::Kind::Usage`] when certificates or credentials cannot be read.
pub fn connect(locator: &Locator, options: &SourceOptions) -> Result<Arc<dyn Source>> {
    Ok(match locator {
        Locator::Dir(path) => Arc::new(Dir::new(path)),
        Locator::Http(url) => Arc::new(Http::new(url.clone(), options)?),
        Locator::Registry(reference) => Arc::new(Registry::new(reference.clone(), options)?),
    })
}

/// A stream of exactly the bytes asked for: a source that sends less or more is caught here.
pub struct ExactStream {
    inner: Box<dyn Stream>,
    left: u64,
    source: String,
}

/// Opens part of a blob as a stream of exactly that length.
///
/// # Errors
/// Those of the source.
pub async fn open_range(source: &dyn Source, blob: BlobRef, range: Range<u64>) -> Result<ExactStream> {
    let left = range.end.saturating_sub(range.start);
    // No bytes are no request: HTTP's ranges have at least one byte.
    let inner = if left == 0 { Box::new(Nothing) } else { source.range(blob, range).await? };
    Ok(ExactStream { inner, left, source: source.name().to_owned() })
}

struct Nothing;

impl Stream for Nothing {
    fn next(&mut self) -> Boxed<'_, Result<Option<Bytes>>> {
        Box::pin(std::future::ready(Ok(None)))
    }
}

impl ExactStream {
    /// The next bytes; `None` after the last.
    ///
    /// # Errors
    /// Those of the source; too few or too many bytes.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Some(bytes) = self.inner.next().await? else {
                if self.left == 0 {
                    return Ok(None);
                }
                return Err(Error::source_failed(format!("{} ended {} bytes too early", self.source, self.left)));
            };
            if bytes.len() as u64 > self.left {
                return Err(Error::corrupt(format!("{} sends more bytes than were asked for", self.source)));
            }
            self.left -= bytes.len() as u64;
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }
}

/// A whole small blob, its size bounded by `limit` before anything is allocated, and its digest checked.
///
/// # Errors
/// [`crate::error::Kind::Image`] when it declares more than `limit`; the source's; wrong bytes.
pub async fn fetch_blob(source: &dyn Source, blob: BlobRef, limit: u64, what: &str) -> Result<Vec<u8>> {
    if blob.size > limit {
        return Err(Error::image(format!("{what} is said to have {} bytes; at most {limit} are accepted", blob.size)));
    }
    let mut stream = open_range(source, blob, 0..blob.size).await?;
    let mut bytes = Vec::with_capacity(blob.size as usize);
    while let Some(more) = stream.next().await? {
        bytes.extend_from_slice(&more);
    }
    let found = Digest::of(&bytes);
    if found != blob.digest {
        return Err(Error::corrupt(format!(
            "{what} from {} has the digest {found} instead of {}",
            source.name(),
            blob.digest
        )));
    }
    Ok(bytes)
}
