//! `imgstream write` over HTTP, without and with reading the media back.

use std::path::PathBuf;

use crate::failure::Result;
use crate::measure::Job;
use crate::way::{Need, Place, Verifies, Way};

/// Our own way.
pub struct Ours {
    /// Whether the media are read back.
    pub read_back: bool,
    /// More arguments.
    pub arguments: Vec<String>,
}

impl Way for Ours {
    fn name(&self) -> &'static str {
        if self.read_back { "imgstream write, read back" } else { "imgstream write" }
    }

    fn verifies(&self) -> Verifies {
        if self.read_back { Verifies::Media } else { Verifies::Signature }
    }

    fn needs(&self) -> &'static [Need] {
        &[]
    }

    fn note(&self) -> &'static str {
        if self.read_back {
            "default settings: all that was written, zeros too, is read with O_DIRECT and compared with signed digests"
        } else {
            "default settings and --no-read-back; every chunk is verified before it is decoded; flushes"
        }
    }

    fn prepare(&self, place: &Place<'_>) -> Result<Vec<PathBuf>> {
        Ok(vec![place.lab.cache.join(place.lab.image_of(place.subject)?)])
    }

    fn job(&self, place: &Place<'_>, target: &str) -> Result<Job> {
        let url = place.server.url(&place.lab.image_of(place.subject)?);
        let trust = format!("{}.pub", place.lab.key()?);
        let mut argv = place.lab.ours(&["write", &url, target, "--trust", &trust, "--json"])?;
        if !self.read_back {
            argv.push("--no-read-back".into());
        }
        argv.extend(self.arguments.iter().cloned());
        Ok(Job::one(argv))
    }

    fn ours(&self) -> bool {
        true
    }
}
