//! `cargo xtask iso`: the boot medium for IBM Z, in all the forms that machines boot from, and the list of what is on it.
//!
//! What is on it and how it lies is the crate `iso`; here packages are unpacked, programs built, and xorriso called.

mod list;

use std::path::{Path, PathBuf};

use iso::{Filesystem, IMAGE, ISO, image};

use crate::build;
use crate::fail::{Fail, Outcome, Tried};
use crate::image::EPOCH;
use crate::packages::{self, MEDIUM};
use crate::prerequisites::{Lane, ensure};
use crate::s390x::Toolchain;
use crate::scratch::Scratch;
use crate::shell::{capture, release_binary, run as run_tool, target_folder, tool, workspace};

/// What the kernel is told: which consoles there may be, and to say only what matters; the first process says the rest. A panic
/// leaves the machine stopped with its console as it is, which is what an operator wants to see.
const PARAMETERS: &str = "rdinit=/init quiet loglevel=4";

/// More would not be loaded in time from a slow medium.
const LIMIT: u64 = 48 << 20;

/// The command line of `cargo xtask iso`.
#[derive(clap::Args)]
pub struct Options {
    /// Put one server's configuration in: the file that `z-provisioner config` takes
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to (a folder; default: target/iso)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Builds it and says what came of it.
pub fn run(options: &Options) -> Outcome<()> {
    let folder = match &options.out {
        Some(folder) => folder.clone(),
        None => target_folder()?.join("iso"),
    };
    let toolchain = Toolchain::ensure()?;
    let [_, agent] = build::programs_for_s390x(&toolchain)?;
    make(&folder, &agent)?;
    if let Some(config) = &options.config {
        build::programs()?;
        let mut agent = tool(release_binary("z-provisioner")?);
        run_tool(agent.arg("config").arg(config).arg("--medium").arg(&folder))?;
    }
    for name in [ISO, INS, IMAGE, KERNEL, INITRD, PACKAGES] {
        println!("{:6.2} MiB  {}", size(&folder.join(name))? as f64 / f64::from(1 << 20), folder.join(name).display());
    }
    Ok(())
}

/// For "load from removable media or server" and network boot.
pub const INS: &str = "z-provisioner.ins";
/// The kernel, for who starts it with a file system of his choice.
pub const KERNEL: &str = "kernel.img";
/// The file system.
pub const INITRD: &str = "initrd.img";
const PACKAGES: &str = "packages.txt";

/// Makes a medium without a configuration, in all its forms, around this agent.
pub fn make(folder: &Path, agent: &Path) -> Outcome<()> {
    ensure(Lane::Iso)?;
    let packages = packages::ensure(&MEDIUM, |_| Ok(()))?;
    let root = packages.join("root");
    let scratch = Scratch::new("z-provisioner-iso", false)?;
    let conf = workspace().join("provisioner/multipath.conf");
    let conf = std::fs::read_to_string(&conf).tried(format_args!("read {}", conf.display()))?;
    let seal = format!("z-provisioner {}\n", env!("CARGO_PKG_VERSION"));
    let filesystem = Filesystem { packages: &root, agent, multipath_conf: &conf, seal: &seal };
    let made = filesystem.make(&scratch.path("")).tried("make the medium's file system")?;
    let kernel = std::fs::read(&made.kernel).tried(format_args!("read {}", made.kernel.display()))?;
    let memory = image::assemble(&kernel, &made.bytes, PARAMETERS).tried("assemble the medium's memory image")?;

    std::fs::create_dir_all(folder).tried(format_args!("create {}", folder.display()))?;
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).tried(format_args!("write {}", path.display()))
    };
    put(KERNEL, &kernel)?;
    put(INITRD, &made.bytes)?;
    put(IMAGE, &memory)?;
    put(INS, format!("* z-provisioner {}\n{IMAGE} 0x00000000\n", env!("CARGO_PKG_VERSION")).as_bytes())?;
    put(PACKAGES, list::of(&packages, &made)?.as_bytes())?;
    write_iso(folder, &scratch)?;
    let size = size(&folder.join(ISO))?;
    if size > LIMIT {
        return Err(Fail::new(format!("the medium has {size} bytes, and may not have more than {LIMIT}")));
    }
    Ok(())
}

/// The files of the `.ins` lie on the CD as well: an HMC loads it from there, from the same bytes that El Torito names.
fn write_iso(folder: &Path, scratch: &Scratch) -> Outcome<()> {
    let tree = scratch.path("tree");
    std::fs::create_dir_all(&tree).tried("make the CD's tree")?;
    for name in [IMAGE, INS, PACKAGES] {
        std::fs::copy(folder.join(name), tree.join(name)).tried(format_args!("copy {name}"))?;
    }
    // xorriso takes the files' own times; owners and modes it sets by `-r`.
    capture(
        tool("touch")
            .arg("--no-dereference")
            .arg(format!("--date=@{EPOCH}"))
            .args([IMAGE, INS, PACKAGES].map(|name| tree.join(name)))
            .arg(&tree),
    )?;
    let mut xorriso = tool("xorriso");
    xorriso.env("SOURCE_DATE_EPOCH", EPOCH);
    xorriso.args(["-as", "mkisofs", "-quiet", "-V", "Z-PROVISIONER", "-r", "-J"]);
    xorriso.args(["-b", IMAGE, "-no-emul-boot", "-c", "boot.cat", "-o"]).arg(folder.join(ISO)).arg(&tree);
    capture(&mut xorriso).map(drop)
}

fn size(file: &Path) -> Outcome<u64> {
    Ok(std::fs::metadata(file).tried(format_args!("look at {}", file.display()))?.len())
}
