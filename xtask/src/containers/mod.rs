//! `cargo xtask containers`: the images of the agent and of the service, for amd64 and s390x in one index each, and what they are
//! made of.
//!
//! No image is pulled: programs are built, everything else is taken from Debian's packages, file by file. How an image looks is written
//! in `containers/`; the same inputs give the same digests.

mod contents;
mod crates;
mod inputs;
mod oci;
mod programs;
mod sbom;
mod stage;

use std::path::{Path, PathBuf};

use crate::fail::{Fail, Outcome, Tried};
use crate::packages::owner;
use crate::prerequisites::{Lane, ensure};
use crate::scratch::Scratch;
use crate::shell::target_folder;
use contents::{IMAGES, Image};
use inputs::Inputs;
use oci::Buildah;
pub use programs::{Kind, released};

/// The command line of `cargo xtask containers`.
#[derive(clap::Args)]
pub struct Options {
    /// For which processors
    #[arg(long, value_enum, default_value = "all")]
    arch: Architectures,
    /// Around which programs: released ones, or those that this machine's tests are built with (amd64 only)
    #[arg(long, value_enum, default_value = "release")]
    programs: Kind,
    /// Where to (a folder; default: target/containers)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// The choice of processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Architectures {
    /// x86_64
    Amd64,
    /// IBM Z
    S390x,
    /// Both, in one index
    All,
}

/// A processor's architecture that images are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// `x86_64`.
    Amd64,
    /// IBM Z.
    S390x,
}

impl Arch {
    /// As Debian and OCI name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::S390x => "s390x",
        }
    }

    /// As Rust names it.
    pub fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::S390x => "s390x-unknown-linux-gnu",
        }
    }
}

/// Builds the images and says where they are, and how large.
pub fn run(options: &Options) -> Outcome<()> {
    let archs: &[Arch] = match options.arch {
        Architectures::Amd64 => &[Arch::Amd64],
        Architectures::S390x => &[Arch::S390x],
        Architectures::All => &[Arch::Amd64, Arch::S390x],
    };
    if options.programs == Kind::Dev && archs != [Arch::Amd64] {
        return Err(Fail::usage("programs as tests build them are there for this machine only: say --arch amd64"));
    }
    let out = match &options.out {
        Some(folder) => folder.clone(),
        None => target_folder()?.join("containers"),
    };
    make(archs, options.programs, &out)
}

/// The images that tests run on this machine, around its tests' own programs. Returns their folder.
pub fn for_tests() -> Outcome<PathBuf> {
    let out = target_folder()?.join("containers-of-tests");
    make(&[Arch::Amd64], Kind::Dev, &out)?;
    Ok(out)
}

/// Makes every image for these architectures, each an OCI layout in a folder of its name.
pub fn make(archs: &[Arch], kind: Kind, out: &Path) -> Outcome<()> {
    ensure(Lane::Containers)?;
    let programs: Vec<[PathBuf; 2]> = archs.iter().map(|arch| programs::build(*arch, kind)).collect::<Outcome<_>>()?;
    let inputs = Inputs::find()?;
    std::fs::create_dir_all(out).tried(format_args!("create {}", out.display()))?;
    let scratch = Scratch::new("z-provisioner-containers", false)?;
    let buildah = Buildah::new(&scratch.path("buildah"), &inputs)?;
    for (index, image) in IMAGES.iter().enumerate() {
        for (arch, programs) in archs.iter().zip(&programs) {
            let context = scratch.path(&format!("{}-{}", image.name, arch.name()));
            let bill = staged(image, *arch, kind, &programs[index], &inputs, &context)?;
            let bytes = stage::size(&context)?;
            buildah.build(image.name, *arch, &context)?;
            let beside = out.join(format!("{}.{}.spdx.json", image.name, arch.name()));
            std::fs::write(&beside, bill).tried(format_args!("write {}", beside.display()))?;
            println!("{:6.2} MiB  {} for {}, unpacked", mebibytes(bytes), image.name, arch.name());
        }
        let layout = out.join(image.name);
        buildah.push(image.name, &layout)?;
        println!("{:6.2} MiB  {}", mebibytes(stage::size(&layout)?), layout.display());
    }
    Ok(())
}

/// Stages an image in `context`. Returns its bill of materials, which is also in it.
fn staged(image: &Image, arch: Arch, kind: Kind, program: &Path, inputs: &Inputs, context: &Path) -> Outcome<String> {
    let root = programs::packages(arch);
    let folder = crate::packages::ensure(root, |_| Ok(()))?;
    let mut stage = stage::Stage::new(&folder.join("root"), &context.join("root"))?;
    stage.fill(image, program, kind == Kind::Dev)?;
    let owners = owner::of(root, &folder, &stage.taken()?)?;
    let crates = crates::of(image.package, arch)?;
    let bill = sbom::Bill { image, arch, suite: root.suite, owners: &owners, crates: &crates, inputs }.text()?;
    stage.text(sbom::PLACE, &bill)?;
    Ok(bill)
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
