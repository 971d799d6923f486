//! The image: found, its signatures verified, its descriptor compared with what the run demands. No chunk is fetched yet.

use std::fmt;
use std::sync::Arc;

use imgstream::abort::unless_cancelled;
use imgstream::error::{Error, Result};
use imgstream::manifest::Descriptor;
use imgstream::open::Image;
use imgstream::size::Size;
use protocol::event::ImageFacts;
use tokio_util::sync::CancellationToken;

use super::spec::Order;

/// An image this run may write.
#[derive(Debug)]
pub struct Accepted(Image);

/// Opens the image.
///
/// # Errors
/// `Image` when it is refused, `Source` when no source has it, `Cancelled`.
pub async fn open(order: Order, cancel: &CancellationToken) -> Result<Accepted> {
    let opening = Image::open(order.sources, &order.trust, &order.policy);
    unless_cancelled(cancel, "opening the image", opening).await.map(Accepted)
}

impl Accepted {
    /// Its signed descriptor.
    pub fn descriptor(&self) -> &Arc<Descriptor> {
        self.0.descriptor()
    }

    /// The image itself.
    pub fn into_image(self) -> Image {
        self.0
    }

    /// What the summary tells of it.
    ///
    /// # Errors
    /// None in practice: both crates write digests alike.
    pub fn facts(&self) -> Result<ImageFacts> {
        let descriptor = self.descriptor();
        Ok(ImageFacts {
            name: descriptor.name.clone(),
            version: descriptor.image_version,
            architecture: descriptor.architecture.clone(),
            digest: self.0.digest().to_string().try_into().map_err(|error| Error::image(format!("{error}")))?,
            signers: self.0.signers().iter().map(ToString::to_string).collect(),
        })
    }
}

impl fmt::Display for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let descriptor = self.descriptor();
        write!(
            f,
            "{} version {}, {}, {}, {}; {} of the trusted keys signed it",
            descriptor.name,
            descriptor.image_version,
            descriptor.architecture,
            Size(descriptor.raw_size),
            self.0.digest(),
            self.0.signers().len()
        )
    }
}
