//! `casync extract` of a blob index and its chunk store over HTTP.

use std::path::PathBuf;

use crate::failure::Result;
use crate::measure::{Job, command};
use crate::way::{Need, Place, Verifies, Way};

const FORM: &str = "casync";

/// `casync`.
pub struct Casync;

impl Way for Casync {
    fn name(&self) -> &'static str {
        "casync extract"
    }

    fn verifies(&self) -> Verifies {
        Verifies::Digest
    }

    fn needs(&self) -> &'static [Need] {
        &[Need { program: "casync", from: "apt-get install casync" }]
    }

    fn note(&self) -> &'static str {
        "chunks of 1 MiB on average, zstd, SHA-256; --seed-output=no, or it would read the empty target first; no \
         flush of its own: `sync` follows"
    }

    fn prepare(&self, place: &Place<'_>) -> Result<Vec<PathBuf>> {
        let made = place.lab.form(place.subject, FORM, |raw, out| {
            let (store, index) = (format!("--store={out}/store.castr"), format!("{out}/index.caibx"));
            let settings = ["--chunk-size=1M", "--compression=zstd", "--digest=sha256", "--what=blob-index"];
            let mut argv = command(&["casync", "make", &store]);
            argv.extend(command(&settings));
            argv.extend(command(&[&index, raw]));
            Job::one(command(&["mkdir", "-p", out])).then(argv)
        })?;
        Ok(vec![made])
    }

    fn job(&self, place: &Place<'_>, target: &str) -> Result<Job> {
        let (store, index) =
            (format!("--store={}/store.castr", place.url(FORM)), format!("{}/index.caibx", place.url(FORM)));
        let extract = command(&["casync", "extract", "--seed-output=no", &store, &index, target]);
        Ok(Job::one(extract).then(command(&["sync", target])))
    }
}
