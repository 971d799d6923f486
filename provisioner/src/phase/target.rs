//! The target: attached, past the interlocks, reserved, unlocked, opened for this run alone. What is on it is not changed yet,
//! but for what was allowed to be wiped and for containers that are made.

use std::fmt;

use imgstream::error::Result;
use imgstream::size::Size;
use protocol::event::{ReservationFacts, TargetFacts};

use crate::target::{self, Held, Wish};

/// A target that is ours.
#[derive(Debug)]
pub struct Taken(pub target::Taken);

/// Takes the target that the run names for the image it has.
///
/// # Errors
/// Those of [`target::take`].
pub async fn take(wish: Wish<'_>, held: &mut Held) -> Result<Taken> {
    target::take(wish, held).await.map(Taken)
}

impl Taken {
    /// What the summary tells of it.
    pub fn facts(&self) -> TargetFacts {
        self.0.facts.clone()
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = &self.0.facts;
        write!(f, "{}, {}, {}, ours alone", facts.device, Size(facts.size), facts.layout)?;
        if let Some(paths) = facts.paths {
            write!(f, ", {} of {} paths live", paths.live, paths.total)?;
        }
        if let Some(ReservationFacts::Held { key, .. }) = &facts.reservation {
            write!(f, ", reserved with {key}")?;
        }
        for container in &facts.containers {
            write!(f, ", LUKS {} for {}", container.uuid, container.region)?;
        }
        Ok(())
    }
}
