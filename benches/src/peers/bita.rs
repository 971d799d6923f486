//! `bita clone` of an archive with zstd chunks over HTTP.

use std::path::PathBuf;

use crate::failure::Result;
use crate::measure::{Job, command};
use crate::way::{Need, Place, Verifies, Way};

const FORM: &str = "cba";

/// `bita`.
pub struct Bita;

impl Way for Bita {
    fn name(&self) -> &'static str {
        "bita clone"
    }

    fn verifies(&self) -> Verifies {
        Verifies::Digest
    }

    fn needs(&self) -> &'static [Need] {
        &[Need { program: "bita", from: "cargo install bita --no-default-features --features zstd-compression" }]
    }

    fn note(&self) -> &'static str {
        "chunks of fixed size as ours, 2 MiB, instead of its rolling hash; 16 in flight; \
         BLAKE2b of each; no flush of its own: \
         `sync` follows"
    }

    fn prepare(&self, place: &Place<'_>) -> Result<Vec<PathBuf>> {
        let made = place.lab.form(place.subject, FORM, |raw, out| {
            let settings = ["--compression", "zstd", "--compression-level", crate::lab::LEVEL, "--fixed-size", "2MiB"];
            let mut argv = command(&["bita", "compress"]);
            argv.extend(command(&settings));
            argv.extend(command(&["-f", "-i", raw, out]));
            Job::one(argv)
        })?;
        Ok(vec![made])
    }

    fn job(&self, place: &Place<'_>, target: &str) -> Result<Job> {
        let clone = command(&["bita", "clone", "--buffered-chunks", "16", "--force-create", &place.url(FORM), target]);
        Ok(Job::one(clone).then(command(&["sync", target])))
    }
}
