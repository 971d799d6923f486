//! A layout on a static HTTP server.

use std::ops::Range;
use std::sync::Arc;

use url::Url;

use super::client::{Client, Headers};
use super::{Boxed, Source, SourceOptions, Stream, Waits, fetch_blob};
use crate::error::{Error, Result};
use crate::manifest::BlobRef;
use crate::manifest::layout::{self, Choice};

/// A layout on a static HTTP server.
#[derive(Debug)]
pub struct Http {
    base: Url,
    client: Arc<Client>,
}

impl Http {
    /// The layout below `base`, whose path ends in a slash.
    ///
    /// # Errors
    /// [`crate::error::Kind::Usage`] when the certificates cannot be used.
    pub fn new(base: Url, options: &SourceOptions) -> Result<Self> {
        Ok(Http { base, client: Client::new(options)? })
    }

    fn url(&self, path: &str) -> Result<Url> {
        self.base.join(path).map_err(|error| Error::usage(format!("{}{path}: {error}", self.base)))
    }
}

impl Source for Http {
    fn name(&self) -> &str {
        self.base.as_str()
    }

    fn waits(&self) -> Waits {
        self.client.waits()
    }

    fn manifest<'a>(&'a self, choice: &'a Choice) -> Boxed<'a, Result<Vec<u8>>> {
        Box::pin(async move {
            let answer = self.client.get(&self.url("index.json")?, Headers::default()).await?;
            let index = answer.into_bytes(layout::MAX_MANIFEST).await?;
            fetch_blob(self, layout::choose(&index, choice)?, layout::MAX_MANIFEST, "the OCI manifest").await
        })
    }

    fn range(&self, blob: BlobRef, range: Range<u64>) -> Boxed<'_, Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let url = self.url(&format!("blobs/sha256/{}", blob.digest.hex()))?;
            let headers = Headers { range: Some(range.clone()), ..Headers::default() };
            self.client.get(&url, headers).await?.into_range(blob, &range)
        })
    }
}
