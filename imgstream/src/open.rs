//! From sources to a trusted image: manifest → envelope → signature → descriptor → policy, in that order.

mod turns;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use envelope::{KeyId, Role, Trust};
use time::OffsetDateTime;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::{BlobRef, Descriptor, Policy, layout};
use crate::source::{self, Source};

/// A signed, accepted image and the sources that may have its blobs.
#[derive(Debug, Clone)]
pub struct Image {
    descriptor: Arc<Descriptor>,
    digest: Digest,
    signers: Vec<KeyId>,
    sources: Vec<Arc<dyn Source>>,
    /// The source that last had what it was asked for: asked first the next time.
    good: Arc<AtomicUsize>,
}

impl Image {
    /// Opens the image that `sources` hold: the first source whose image is signed and fits the policy decides which one
    /// it is; all of them are then asked for its blobs.
    ///
    /// # Errors
    /// When none of them has an acceptable image: what each said, [`crate::error::Kind::Image`] if one was refused. It
    /// takes a bounded time.
    pub async fn open(sources: Vec<Arc<dyn Source>>, trust: &Trust, policy: &Policy) -> Result<Self> {
        let (number, (descriptor, digest, signers)) =
            turns::in_turn(&sources, 0, "an image for this run", |source| Self::open_one(source, trust, policy))
                .await?;
        let (descriptor, good) = (Arc::new(descriptor), Arc::new(AtomicUsize::new(number)));
        Ok(Image { descriptor, digest, signers, sources, good })
    }

    async fn open_one(source: &dyn Source, trust: &Trust, policy: &Policy) -> Result<(Descriptor, Digest, Vec<KeyId>)> {
        let bytes = envelope_at(source, policy).await?;
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

    /// A small blob from whichever source has it, within a bounded time.
    ///
    /// # Errors
    /// What each source said last.
    pub async fn blob(&self, blob: BlobRef, limit: u64, what: &str) -> Result<Vec<u8>> {
        let ask = |source| source::fetch_blob(source, blob, limit, what);
        let (number, bytes) = turns::in_turn(&self.sources, self.good.load(Relaxed), what, ask).await?;
        self.good.store(number, Relaxed);
        Ok(bytes)
    }
}

/// The bytes of the envelope a source holds for a policy's choice; nothing about them is verified.
///
/// # Errors
/// Those of the source; [`crate::error::Kind::Image`] when there is no envelope of ours.
pub async fn fetch_envelope(source: &Arc<dyn Source>, policy: &Policy) -> Result<Vec<u8>> {
    let ask = |source| envelope_at(source, policy);
    turns::in_turn(std::slice::from_ref(source), 0, "the envelope", ask).await.map(|(_, bytes)| bytes)
}

async fn envelope_at(source: &dyn Source, policy: &Policy) -> Result<Vec<u8>> {
    let manifest = source.manifest(&policy.choice()).await?;
    let blob = layout::envelope_of(&manifest)?;
    source::fetch_blob(source, blob, envelope::MAX_ENVELOPE as u64, "the envelope").await
}
