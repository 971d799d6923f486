//! `bmaptool copy` of a zstd file over HTTP, with the block map that leaves out what is hole.

use std::path::PathBuf;

use crate::failure::Result;
use crate::measure::{Job, command};
use crate::way::{Need, Place, Verifies, Way};

const MAP: &str = "bmap";

/// `bmaptool`.
pub struct Bmaptool;

impl Way for Bmaptool {
    fn name(&self) -> &'static str {
        "bmaptool copy"
    }

    fn verifies(&self) -> Verifies {
        Verifies::Digest
    }

    fn needs(&self) -> &'static [Need] {
        &[
            Need { program: "bmaptool", from: "apt-get install bmap-tools" },
            Need { program: "zstd", from: "apt-get install zstd" },
        ]
    }

    fn note(&self) -> &'static str {
        "SHA-256 of every mapped range, compared while it is written; the map itself is unsigned here; flushes; \
         truncates its target and leaves the holes out, so zeros cost it nothing"
    }

    fn prepare(&self, place: &Place<'_>) -> Result<Vec<PathBuf>> {
        let zst = place.lab.zst_of(place.subject)?;
        let map = place
            .lab
            .form(place.subject, MAP, |raw, out| Job::one(command(&["bmaptool", "create", raw, "-o", out])))?;
        Ok(vec![zst, map])
    }

    fn job(&self, place: &Place<'_>, target: &str) -> Result<Job> {
        let (map, image) = (place.url(MAP), place.url("raw.zst"));
        Ok(Job::one(command(&["bmaptool", "-q", "copy", "--bmap", &map, &image, target])))
    }
}
