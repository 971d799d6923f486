//! `qemu-img convert` of a qcow2 with zstd clusters: from a local file, and over HTTP by nbdkit's curl plugin.

use std::path::PathBuf;

use crate::failure::Result;
use crate::measure::{Job, command};
use crate::way::{Need, Place, Verifies, Way};

/// The form, also for others who read qcow2.
pub const FORM: &str = "qcow2";

/// Makes the qcow2, with the largest clusters there are: the fewest to look up, and the best ratio.
pub fn prepare(place: &Place<'_>) -> Result<Vec<PathBuf>> {
    let made = place.lab.form(place.subject, FORM, |raw, out| {
        let options = "compression_type=zstd,cluster_size=2M";
        Job::one(command(&["qemu-img", "convert", "-c", "-W", "-m", "16", "-O", "qcow2", "-o", options, raw, out]))
    })?;
    Ok(vec![made])
}

/// `qemu-img convert`.
pub struct Convert {
    /// Whether the qcow2 comes from the server rather than from a file.
    pub over_http: bool,
}

impl Way for Convert {
    fn name(&self) -> &'static str {
        if self.over_http { "nbdkit curl, qemu-img convert" } else { "qemu-img convert, local file" }
    }

    fn verifies(&self) -> Verifies {
        Verifies::Nothing
    }

    fn needs(&self) -> &'static [Need] {
        const QEMU: Need = Need { program: "qemu-img", from: "apt-get install qemu-utils" };
        const NBDKIT: Need = Need { program: "nbdkit", from: "apt-get install nbdkit" };
        if self.over_http { &[QEMU, NBDKIT] } else { &[QEMU] }
    }

    fn note(&self) -> &'static str {
        if self.over_http {
            "as from a file, with `nbdkit curl` between, whose CPU counts, and 8 coroutines; one HTTP request per NBD request"
        } else {
            "no network at all; zstd clusters of 2 MiB, 16 coroutines out of order, no page cache; flushes (fdatasync)"
        }
    }

    fn prepare(&self, place: &Place<'_>) -> Result<Vec<PathBuf>> {
        prepare(place)
    }

    fn job(&self, place: &Place<'_>, target: &str) -> Result<Job> {
        let convert = ["qemu-img", "convert", "-n", "-W", "-m", "16", "-t", "none", "-T", "none"];
        let mut argv = command(&convert);
        if self.over_http {
            // nbdkit puts the address of its socket in `$uri`; the source's cache mode means nothing to a socket.
            let script = format!("qemu-img convert -n -W -m 8 -t none -f qcow2 -O raw \"$uri\" {target}");
            return Ok(Job::one(command(&[
                "nbdkit",
                "-U",
                "-",
                "-r",
                "curl",
                &format!("url={}", place.url(FORM)),
                "--run",
                &script,
            ])));
        }
        argv.extend(command(&["-f", "qcow2", "-O", "raw", &place.path(FORM), target]));
        Ok(Job::one(argv))
    }
}
