//! Whether a correctly signed image is the one this run may use. The descriptor must match what the run says from
//! outside: a machine that remembers nothing cannot otherwise tell an old image from the current one.

use time::OffsetDateTime;

use super::descriptor::Descriptor;
use super::layout::Choice;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// What the run demands of an image. `None` demands nothing.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// The image's name.
    pub name: Option<String>,
    /// The architecture.
    pub architecture: Option<String>,
    /// The image's digest: SHA-256 of the descriptor bytes.
    pub digest: Option<Digest>,
    /// The lowest image version allowed.
    pub min_version: Option<u64>,
}

impl Policy {
    /// How to choose in a layout with several images.
    pub fn choice(&self) -> Choice {
        Choice { name: self.name.clone(), architecture: self.architecture.clone() }
    }

    /// Checks a verified descriptor at the time `now`.
    ///
    /// # Errors
    /// [`crate::error::Kind::Image`], naming what was demanded and what was found.
    pub fn check(&self, descriptor: &Descriptor, digest: Digest, now: OffsetDateTime) -> Result<()> {
        let refuse = |what: &str, wanted: &dyn std::fmt::Display, found: &dyn std::fmt::Display| {
            Err(Error::image(format!("the image is signed, but {what} is {found}; the run demands {wanted}")))
        };
        if let Some(name) = self.name.as_ref().filter(|name| **name != descriptor.name) {
            return refuse("its name", name, &descriptor.name);
        }
        if let Some(wanted) = self.architecture.as_ref().filter(|wanted| **wanted != descriptor.architecture) {
            return refuse("its architecture", wanted, &descriptor.architecture);
        }
        if let Some(wanted) = self.digest.filter(|wanted| *wanted != digest) {
            return refuse("its digest", &wanted, &digest);
        }
        if let Some(floor) = self.min_version.filter(|floor| descriptor.image_version < *floor) {
            return refuse("its version", &format!("at least {floor}"), &descriptor.image_version);
        }
        if let Some(expires) = descriptor.expires.filter(|expires| *expires <= now) {
            return Err(Error::image(format!("the image {} expired at {expires}; it is {now} now", descriptor.name))
                .with_hint("use a newer image, or check this machine's clock"));
        }
        Ok(())
    }
}
