//! The guests of `cargo xtask test --vm`: everything they are made of, made or found in the cache, and named to the tests.
//!
//! What a guest is and does is the crate `vm`, in `tests/vm`.

use std::path::PathBuf;
use std::process::Command;

use vm::initramfs::{self, Base};

use crate::build;
use crate::cache;
use crate::fail::{Outcome, Tried};
use crate::packages::{self, GUEST, QEMU};
use crate::prerequisites::{Lane, ensure};
use crate::s390x::Toolchain;
use crate::shell::{cargo, release_binary, run as run_tool, workspace};

/// Guests at the same time: each is one busy processor.
const GUESTS: u32 = 2;

/// The tests, not yet started: `soak` takes those that are long as well, `filter` is libtest's.
pub fn tests(soak: bool, filter: &[String]) -> Outcome<Command> {
    ensure(Lane::Vm)?;
    let toolchain = Toolchain::ensure()?;
    println!("{}", toolchain.versions()?);
    let qemu = packages::ensure(&QEMU, |_| Ok(()))?;
    let base = base()?;
    build::programs()?;
    let [imgstream, agent] = build::programs_for_s390x(&toolchain)?;
    run_tool(toolchain.release_build()?.args(["--quiet", "-p", "guest-init", "--bins"]))?;

    let mut test = cargo();
    // Named, since they do not run unless they are: `cargo test` knows no guests.
    test.args(["test", "--no-fail-fast", "-p", "vm", "--test", "*", "--"]).arg(format!("--test-threads={GUESTS}"));
    if soak {
        test.arg("--include-ignored").env("Z_SOAK", "1");
    }
    test.args(filter);
    test.env("IMGSTREAM_BIN", release_binary("imgstream")?).env("Z_PROVISIONER_BIN", release_binary("z-provisioner")?);
    test.env("VM_QEMU_ROOT", qemu.join("root")).env("VM_KERNEL", base.kernel).env("VM_INITRAMFS", base.archive);
    test.env("VM_INIT", toolchain.release_binary("guest-init")?);
    test.env("VM_IMGSTREAM", imgstream).env("VM_Z_PROVISIONER", agent);
    test.env("VM_LOGS", logs()?);
    Ok(test)
}

/// Kernel and initramfs, from the cache, or made now.
fn base() -> Outcome<Base> {
    let root = packages::ensure(&GUEST, |_| Ok(()))?;
    let recipe = format!("{}\n{}", root.display(), initramfs::recipe());
    let folder = cache::entry("guest-base", &recipe, false, |half| {
        Base::make(&root.join("root"), half).tried("make the initramfs of guests").map(drop)
    })?;
    Ok(Base::of(&folder))
}

fn logs() -> Outcome<PathBuf> {
    let target = workspace().join("target/vm-logs");
    std::fs::create_dir_all(&target).tried(format_args!("create {}", target.display()))?;
    Ok(target)
}
