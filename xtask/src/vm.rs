//! The guests of `cargo xtask test --vm` and `cargo xtask guest`: everything they are made of, made or found in the cache, and named
//! to the harness.
//!
//! What a guest is and does is the crate `vm`, in `tests/vm`.

use std::path::{Path, PathBuf};
use std::process::Command;

use vm::base::{self, Base};

use crate::build;
use crate::cache;
use crate::fail::{Fail, Outcome, Tried};
use crate::image::{self, Kind};
use crate::iso;
use crate::packages::{self, GUEST, QEMU};
use crate::prerequisites::{Lane, ensure};
use crate::s390x::Toolchain;
use crate::shell::{cargo, release_binary, run as run_tool, target_folder};

/// Guests at the same time: each is one busy processor.
const GUESTS: u32 = 2;

/// The command line of `cargo xtask guest`.
#[derive(clap::Args)]
pub struct Options {
    /// A disk of so many mebibytes, with so many paths (one, if that is left out)
    #[arg(value_name = "MIB[xPATHS]")]
    disks: Vec<String>,
}

/// Boots a guest to try things in.
pub fn run(options: &Options) -> Outcome<()> {
    let mut guest = cargo();
    guest.args(["run", "--quiet", "-p", "vm", "--bin", "guest", "--"]).args(&options.disks);
    provide(&mut guest)?;
    run_tool(&mut guest)
}

/// The tests, not yet started: `soak` takes those that are long as well, `filter` is libtest's.
pub fn tests(soak: bool, filter: &[String]) -> Outcome<Command> {
    let mut test = cargo();
    // Named, since they do not run unless they are: `cargo test` knows no guests.
    test.args(["test", "--no-fail-fast", "-p", "vm", "--test", "*", "--"]).arg(format!("--test-threads={GUESTS}"));
    if soak {
        test.arg("--include-ignored").env("Z_SOAK", "1");
    }
    test.args(filter);
    ensure(Lane::Vm)?;
    ensure(Lane::Demo)?;
    // Meanwhile, since the last step of building for s390x has use for one processor only.
    let images = std::thread::spawn(|| [Kind::Debian, Kind::DebianSplit].map(|kind| image::raw(kind, false)));
    let agent = provide(&mut test)?;
    let images = images.join().map_err(|_| Fail::new("building the Debian images ended in a panic"))?;
    provide_media(&mut test, &agent, images)?;
    build::programs()?;
    test.env("IMGSTREAM_BIN", release_binary("imgstream")?).env("Z_PROVISIONER_BIN", release_binary("z-provisioner")?);
    // On this machine, where guests reach it.
    test.env("Z_ORCHESTRATOR_BIN", build::service()?);
    Ok(test)
}

/// Makes all that guests need, and names it in the environment. Returns the agent.
pub fn provide(command: &mut Command) -> Outcome<PathBuf> {
    ensure(Lane::Vm)?;
    let toolchain = Toolchain::ensure()?;
    println!("{}", toolchain.versions()?);
    let qemu = packages::ensure(&QEMU, |_| Ok(()))?;
    let base = guest_base()?;
    let [imgstream, agent] = build::programs_for_s390x(&toolchain)?;
    run_tool(toolchain.release_build()?.args(["--quiet", "-p", "guest-init", "--bins"]))?;
    command.env("VM_QEMU_ROOT", qemu.join("root")).env("VM_KERNEL", base.kernel).env("VM_INITRAMFS", base.archive);
    command.env("VM_GATEWAY", base.gateway);
    command.env("VM_INIT", toolchain.release_binary("guest-init")?);
    command.env("VM_IMGSTREAM", imgstream).env("VM_Z_PROVISIONER", &agent);
    command.env("VM_LOGS", target_folder()?.join("vm-logs"));
    Ok(agent)
}

/// Makes what machines boot: the medium, and what it installs.
fn provide_media(command: &mut Command, agent: &Path, images: [Outcome<PathBuf>; 2]) -> Outcome<()> {
    let medium = target_folder()?.join("iso");
    iso::make(&medium, agent)?;
    command.env("VM_MEDIUM", medium);
    let [plain, split] = images;
    command.env("VM_DEBIAN", plain?).env("VM_DEBIAN_SPLIT", split?);
    command.env("VM_DEBIAN_SPLIT_OPTIONS", image::split_pack_options().join(" "));
    Ok(())
}

/// Kernel and initramfs, from the cache, or made now.
fn guest_base() -> Outcome<Base> {
    let root = packages::ensure(&GUEST, |_| Ok(()))?;
    let recipe = format!("{}\n{}", root.display(), base::recipe());
    let folder = cache::entry("guest-base", &recipe, false, |half| {
        Base::make(&root.join("root"), half).tried("make the initramfs of guests").map(drop)
    })?;
    Ok(Base::of(&folder))
}
