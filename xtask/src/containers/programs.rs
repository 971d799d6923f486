//! The programs in the images.

use std::path::PathBuf;

use crate::containers::Arch;
use crate::fail::{Fail, Outcome};
use crate::packages::{CONTAINER_AMD64, CONTAINER_S390X, Root};
use crate::s390x;
use crate::shell::{cargo, run as run_tool, target_folder};

/// Which programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Optimised and static
    Release,
    /// As tests build them, for this machine: nothing is optimised again
    Dev,
}

/// What cargo builds them from.
const PACKAGES: [&str; 5] = ["-p", "provisioner", "-p", "orchestrator", "--bins"];

/// The packages of which images for this architecture are made.
pub fn packages(arch: Arch) -> &'static Root {
    match arch {
        Arch::Amd64 => &CONTAINER_AMD64,
        Arch::S390x => &CONTAINER_S390X,
    }
}

/// Builds the agent and the service.
pub fn build(arch: Arch, kind: Kind) -> Outcome<[PathBuf; 2]> {
    let folder = match (arch, kind) {
        (Arch::Amd64, Kind::Dev) => dev()?,
        (Arch::Amd64, Kind::Release) => release()?,
        (Arch::S390x, _) => {
            let toolchain = s390x::Toolchain::ensure()?;
            run_tool(toolchain.release_build()?.arg("--quiet").args(PACKAGES))?;
            return Ok([toolchain.release_binary("z-provisioner")?, toolchain.release_binary("z-orchestrator")?]);
        }
    };
    Ok([folder.join("z-provisioner"), folder.join("z-orchestrator")])
}

/// As the tests of the workspace build them, features included: after them there is nothing left to build. The test programs named are
/// what makes cargo build the programs beside them.
fn dev() -> Outcome<PathBuf> {
    run_tool(cargo().args(["test", "--quiet", "--workspace", "--no-run", "--test", "descriptors", "--test", "cli"]))?;
    Ok(target_folder()?.join("debug"))
}

/// Static, so that the image's libraries need not be as new as those of the machine that built it. In a folder of their own: cargo
/// keeps one build for each set of flags.
fn release() -> Outcome<PathBuf> {
    if std::env::consts::ARCH != "x86_64" {
        return Err(Fail::usage("images for amd64 are built on x86_64: say --arch s390x"));
    }
    let (folder, target) = (static_folder()?, Arch::Amd64.target());
    let mut build = cargo();
    build.args(["build", "--quiet", "--release", "--target", target, "--target-dir"]).arg(&folder).args(PACKAGES);
    // The linker warns of getaddrinfo and friends at every program.
    build.env("RUSTFLAGS", "-C target-feature=+crt-static -A linker-messages");
    run_tool(&mut build)?;
    Ok(folder.join(target).join("release"))
}

/// Where released programs for amd64 are once they have been built.
pub fn released(name: &str) -> Outcome<PathBuf> {
    Ok(static_folder()?.join(Arch::Amd64.target()).join("release").join(name))
}

fn static_folder() -> Outcome<PathBuf> {
    Ok(target_folder()?.join("static"))
}
