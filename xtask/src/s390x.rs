//! The toolchain for s390x on an x86_64 machine, and the tests that run there: what is built runs under qemu-user, on
//! a big-endian processor, with the kernel of this machine.
//!
//! rustup may have no standard library for s390x at hand, Debian does: its compiler, the standard libraries of both
//! architectures and an emulator are unpacked into the cache, and nothing of them is installed.

use std::path::PathBuf;
use std::process::Command;

use crate::fail::{Fail, Outcome, Tried};
use crate::packages;
use crate::prerequisites::{Lane, ensure};
use crate::shell::{self, capture, tool};

const TARGET: &str = "s390x-unknown-linux-gnu";

/// Debian's compiler with Debian's libraries, whatever this machine has. Finds itself, since the cache moves it.
const RUSTC: &str = r#"#!/bin/sh
root=$(dirname "$0")/root
exec "$root/usr/lib64/ld-linux-x86-64.so.2" --library-path "$root/usr/lib/x86_64-linux-gnu" \
    "$root/usr/bin/rustc" --sysroot "$root/usr" "$@"
"#;

/// What runs under emulation, in `cargo test`'s words. Not here: documentation tests, tests of commands (the commands
/// are for s390x too, and this machine's kernel does not start those), and what needs real devices and servers.
const ROUNDS: [&[&str]; 2] = [
    &["-p", "envelope", "-p", "imgstream", "-p", "protocol", "-p", "fuzz-targets", "--lib", "--tests"],
    &["-p", "provisioner", "--lib"],
];

/// What an image's bytes pass through: optimised for speed. Everything else is for size.
const HOT: [&str; 12] = [
    "bytes",
    "crossbeam-channel",
    "http-body-util",
    "hyper",
    "hyper-util",
    "imgstream",
    "io-uring",
    "ring",
    "rustls",
    "tokio",
    "zstd-safe",
    "zstd-sys",
];

/// A compiler for s390x, and what runs its programs.
pub struct Toolchain {
    folder: PathBuf,
}

impl Toolchain {
    /// The toolchain, from the cache, or unpacked now.
    pub fn ensure() -> Outcome<Self> {
        if std::env::consts::ARCH != "x86_64" {
            return Err(Fail::usage("building for s390x is set up on x86_64 only; on s390x use plain cargo"));
        }
        ensure(Lane::S390x)?;
        let folder = packages::ensure(&packages::TOOLCHAIN, |half| {
            let rustc = half.join("rustc");
            std::fs::write(&rustc, RUSTC).tried("write the compiler's wrapper")?;
            let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&rustc, executable).tried("make the compiler's wrapper executable")?;
            capture(tool(&rustc).args(["--print", "target-libdir", "--target", TARGET])).map(drop)
        })?;
        Ok(Self { folder })
    }

    /// Which compiler and which emulator this is.
    pub fn versions(&self) -> Outcome<String> {
        let first = |text: String| text.lines().next().unwrap_or_default().to_owned();
        let compiler = first(capture(tool(self.folder.join("rustc")).arg("--version"))?);
        let emulator = first(capture(tool(self.emulator()).arg("--version"))?);
        Ok(format!("{compiler}; {emulator}"))
    }

    /// Cargo, making programs for s390x in a target folder of their own and running them under the emulator. Static, so
    /// that they run anywhere.
    pub fn cargo(&self, subcommand: &str) -> Outcome<Command> {
        let mut cargo = shell::cargo();
        cargo.arg(subcommand).args(["--target", TARGET]).arg("--target-dir").arg(target_folder()?);
        // A list, since a string would be cut at the blanks of the path.
        let words =
            [self.emulator().display().to_string(), "-cpu".into(), "max".into()].map(|word| format!("{word:?}"));
        cargo.arg("--config").arg(format!("target.{TARGET}.runner=[{}]", words.join(",")));
        cargo.env("RUSTC", self.folder.join("rustc"));
        cargo.env("CARGO_TARGET_S390X_UNKNOWN_LINUX_GNU_LINKER", "s390x-linux-gnu-gcc");
        cargo.env("CC_s390x_unknown_linux_gnu", "s390x-linux-gnu-gcc");
        cargo.env("AR_s390x_unknown_linux_gnu", "s390x-linux-gnu-ar");
        Ok(cargo)
    }

    /// Cargo, building release programs for s390x that are as small as they can be without being slower: optimised as a whole,
    /// and for size where time does not matter.
    pub fn release_build(&self) -> Outcome<Command> {
        let mut cargo = self.cargo("build")?;
        cargo.arg("--release").env("CARGO_PROFILE_RELEASE_LTO", "fat").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
        cargo.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s");
        for package in HOT {
            cargo.arg("--config").arg(format!("profile.release.package.{package}.opt-level=3"));
        }
        Ok(cargo)
    }

    /// Where a program of such a build is.
    pub fn release_binary(&self, name: &str) -> Outcome<PathBuf> {
        Ok(target_folder()?.join(TARGET).join("release").join(name))
    }

    fn emulator(&self) -> PathBuf {
        self.folder.join("root/usr/bin/qemu-s390x")
    }
}

/// The tests that run under emulation, not yet started.
pub fn tests(toolchain: &Toolchain) -> Outcome<Vec<Command>> {
    let round = |words: &&[&str]| {
        let mut test = toolchain.cargo("test")?;
        test.arg("--no-fail-fast").args(*words);
        // qemu-user answers every call of io_uring with ENOSYS. The tests of write engines make sure of that, and leave
        // this one out; the others run on real files. Whoever chooses an engine falls back and says so, as ever.
        test.env("Z_WITHOUT_URING", "qemu-user has no io_uring");
        Ok(test)
    };
    ROUNDS.iter().map(round).collect()
}

/// In a folder of its own: two compilers in one folder would each build again what the other has built.
fn target_folder() -> Outcome<PathBuf> {
    Ok(shell::target_folder()?.join("s390x"))
}
