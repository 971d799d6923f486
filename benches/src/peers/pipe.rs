//! `curl | zstd -dc | dd`, alone and with `sha256sum` beside it.

use std::fs;
use std::path::PathBuf;

use crate::failure::{Context, Result};
use crate::measure::{Job, command};
use crate::way::{Need, Place, Verifies, Way};

const FORM: &str = "raw.zst";
const DIGEST: &str = "raw.zst.sha256";

/// The pipe.
pub struct Pipe {
    /// Whether `sha256sum` hashes what is fetched.
    pub digest: bool,
}

impl Way for Pipe {
    fn name(&self) -> &'static str {
        if self.digest { "curl | tee sha256sum | zstd | dd" } else { "curl | zstd | dd" }
    }

    fn verifies(&self) -> Verifies {
        if self.digest { Verifies::Digest } else { Verifies::Checksum }
    }

    fn needs(&self) -> &'static [Need] {
        &[
            Need { program: "curl", from: "apt-get install curl" },
            Need { program: "zstd", from: "apt-get install zstd" },
            Need { program: "dd", from: "apt-get install coreutils" },
            Need { program: "bash", from: "apt-get install bash" },
        ]
    }

    fn note(&self) -> &'static str {
        if self.digest {
            "the digest is of the whole file, known only after everything was written; otherwise as the pipe without it"
        } else {
            "dd with 4 MiB blocks and O_DIRECT, flushed by conv=fsync; zstd checks the frame's XXH64; zeros are written"
        }
    }

    fn prepare(&self, place: &Place<'_>) -> Result<Vec<PathBuf>> {
        let zst = place.lab.zst_of(place.subject)?;
        if self.digest {
            let told = place.lab.run(&Job::one(command(&["sha256sum".to_string(), zst.display().to_string()])))?.stdout;
            let digest = told.split_whitespace().next().context("sha256sum printed no digest")?;
            fs::write(place.path(DIGEST), digest).context("could not note the digest")?;
        }
        Ok(vec![zst])
    }

    fn job(&self, place: &Place<'_>, target: &str) -> Result<Job> {
        let (url, output) = (place.url(FORM), format!("of={target}"));
        let dd = ["dd", &output, "bs=4M", "oflag=direct", "iflag=fullblock", "conv=notrunc,fsync", "status=none"];
        if !self.digest {
            let curl = command(&["curl", "-sf", &url]);
            return Ok(Job::pipe(vec![curl, command(&["zstd", "-dc"]), command(&dd)]));
        }
        let digest = fs::read_to_string(place.path(DIGEST)).context("could not read the digest")?;
        let seen = place.lab.scratch().join("digest").display().to_string();
        let script = format!(
            "curl -sf {url} | tee >(sha256sum > {seen}) | zstd -dc | {}; until grep -q - {seen}; do sleep 0.01; done; \
             grep -q {digest} {seen}",
            dd.join(" ")
        );
        Ok(Job::one(command(&["bash", "-e", "-o", "pipefail", "-c", &script])))
    }
}
