//! From sources to a trusted image: manifest → envelope → signature → descriptor → policy, in that order.

use std::sync::Arc;
use std::time::Duration;

use envelope::{KeyId, Role, Trust};
use time::OffsetDateTime;

use crate::digest::Digest;
use crate::error::{Error, Kind, Result, Retry};
use crate::manifest::{BlobRef, Descriptor, Policy, layout};
use crate::source::{self, Source};

/// A signed, accepted image and the sources that may have its blobs.
#[derive(Debug, Clone)]
pub struct Image {
    descriptor: Arc<Descriptor>,
    digest: Digest,
    signers: Vec<KeyId>,
    sources: Vec<Arc<dyn Source>>,
}

impl Image {
    /// Opens the image that `sources` hold: the first source whose image is signed and fits the policy decides which one
    /// it is; all of them are then asked for its blobs.
    ///
    /// # Errors
    /// The first source's error when none of them has an acceptable image.
    pub async fn open(sources: Vec<Arc<dyn Source>>, trust: &Trust, policy: &Policy) -> Result<Self> {
        let mut first_error = None;
        for source in &sources {
            match Self::open_one(source.as_ref(), trust, policy).await {
                Ok((descriptor, digest, signers)) => {
                    return Ok(Image { descriptor: Arc::new(descriptor), digest, signers, sources });
                }
                Err(error) => {
                    tracing::debug!(source = source.name(), %error, "no acceptable image");
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.unwrap_or_else(|| Error::usage("no source was given")))
    }

    async fn open_one(source: &dyn Source, trust: &Trust, policy: &Policy) -> Result<(Descriptor, Digest, Vec<KeyId>)> {
        let bytes = fetch_envelope(source, policy).await?;
        let opened = envelope::open(&bytes, Role::Image, trust).map_err(|error| {
            Error::image(format!("the image at {} is refused: {error}", source.name())).with_source(error)
        })?;
        let digest = Digest::of(opened.payload());
        let descriptor = Descriptor::decode(opened.payload())
            .map_err(|error| Error::image(format!("the signed descriptor is refused: {error}")).with_source(error))?;
        policy.check(&descriptor, digest, OffsetDateTime::now_utc())?;
        Ok((descriptor, digest, opened.signers().to_vec()))
    }

    /// The signed descriptor.
    pub fn descriptor(&self) -> &Arc<Descriptor> {
        &self.descriptor
    }

    /// The image's digest: SHA-256 of the descriptor bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The trusted keys whose signatures were found.
    pub fn signers(&self) -> &[KeyId] {
        &self.signers
    }

    /// Where its blobs may be found.
    pub fn sources(&self) -> &[Arc<dyn Source>] {
        &self.sources
    }

    /// A small blob from whichever source has it.
    ///
    /// # Errors
    /// The last source's error.
    pub async fn blob(&self, blob: BlobRef, limit: u64, what: &str) -> Result<Vec<u8>> {
        let mut last = None;
        for source in &self.sources {
            match patiently(|| source::fetch_blob(source.as_ref(), blob, limit, what)).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::usage("no source was given")))
    }
}

/// The bytes of the envelope a source holds for a policy's choice; nothing about them is verified.
///
/// # Errors
/// Those of the source; [`Kind::Image`] when there is no envelope of ours.
pub async fn fetch_envelope(source: &dyn Source, policy: &Policy) -> Result<Vec<u8>> {
    let choice = policy.choice();
    let manifest = patiently(|| source.manifest(&choice)).await?;
    let blob = layout::envelope_of(&manifest)?;
    let limit = envelope::MAX_ENVELOPE as u64;
    patiently(|| source::fetch_blob(source, blob, limit, "the envelope")).await
}

/// Pauses between tries for metadata: short, because a person waits.
const PAUSES: [Duration; 3] = [Duration::from_millis(200), Duration::from_millis(800), Duration::from_secs(3)];

/// Tries again what may pass.
async fn patiently<T, F: Future<Output = Result<T>>>(attempt: impl Fn() -> F) -> Result<T> {
    for pause in PAUSES {
        match attempt().await {
            Err(error) if error.retry() == Retry::Temporary && error.kind() == Kind::Source => {
                tracing::debug!(%error, "trying again");
                tokio::time::sleep(pause).await;
            }
            other => return other,
        }
    }
    attempt().await
}
