//! `cargo xtask counts`: the instructions that decoding, reading an index, packing and the like take, counted by
//! callgrind and compared with a recorded baseline. Instructions are no seconds, but the same program counts the same
//! on a busy machine as on an idle one: what changes them is a change of the code, of a dependency or of the compiler.
//!
//! What is counted is `benches/counts`. The baseline and the verdicts are in [`baseline`].

mod baseline;

use std::path::Path;
use std::process::Command;

use crate::fail::{Fail, Outcome};
use crate::prerequisites::{Lane, ensure};
use crate::scratch::Scratch;
use crate::shell::{capture, cargo, release_binary, run as run_tool, tool, workspace};
use baseline::{Baseline, Count, MadeWith};

/// The command line of `cargo xtask counts`.
#[derive(clap::Args)]
pub struct Options {
    /// Make today's counts the baseline
    #[arg(long)]
    bless: bool,
}

/// The packages that are built together wherever the counted program is built: cargo chooses the features of what they
/// share by who is built, and what is counted must be what is released.
pub const PACKAGES: [&str; 6] = ["-p", "imgstream", "-p", "provisioner", "-p", "counts"];

/// Builds, counts, and compares or blesses.
pub fn run(options: &Options) -> Outcome<()> {
    ensure(Lane::Counts)?;
    run_tool(cargo().args(["build", "--quiet", "--release"]).args(PACKAGES))?;
    if !options.bless {
        return check();
    }
    let file = baseline_file();
    let counts = count()?;
    let made_with = made_with()?;
    let old = Baseline::read(&file).ok().flatten();
    if let Some(old) = &old {
        println!("{}", baseline::table(&old.compare(&counts)));
    }
    baseline::bless(old, made_with, &counts).write(&file)?;
    println!("the baseline is now {}", file.display());
    Ok(())
}

/// Counts with the program that is built already, and fails unless every count is within its baseline's tolerance.
pub fn check() -> Outcome<()> {
    let file = baseline_file();
    let baseline = Baseline::read(&file)?.ok_or_else(|| {
        let arch = std::env::consts::ARCH;
        Fail::usage(format!(
            "there is no baseline of instruction counts for {arch} ({}): check out the state before your change, \
             make one there with `cargo xtask counts --bless`, and commit it",
            file.display()
        ))
    })?;
    let comparisons = baseline.compare(&count()?);
    println!("{}", baseline::table(&comparisons));
    let notice = baseline::judge(&comparisons, &baseline.made_with.differences(&made_with()?))?;
    notice.into_iter().for_each(|notice| println!("{notice}"));
    Ok(())
}

/// Architectures count differently: each has a file of its own.
fn baseline_file() -> std::path::PathBuf {
    workspace().join(format!("benches/counts/baseline-{}.json", std::env::consts::ARCH))
}

/// The instructions of every piece of work: those of a process that does it, less those of one that stops before it.
fn count() -> Outcome<Vec<Count>> {
    let program = release_binary("counts")?;
    let scratch = Scratch::new("counts", false)?;
    let inputs = scratch.path("inputs");
    capture(tool(&program).arg("prepare").arg(&inputs))?;
    let names = capture(tool(&program).arg("list"))?;
    eprintln!("counting instructions with valgrind, which takes some seconds");
    let counted = |name: &str| {
        let before = collected(&program, "set-up", name, &inputs)?;
        let all = collected(&program, "run", name, &inputs)?;
        let instructions = all.checked_sub(before).ok_or_else(|| {
            Fail::new(format!("{name} took {all} instructions, and setting it up alone {before}: that cannot be"))
        })?;
        Ok(Count { name: name.to_owned(), instructions })
    };
    names.lines().map(counted).collect()
}

/// The instructions of one process, of all its threads, from its first to its last.
fn collected(program: &Path, how_far: &str, name: &str, inputs: &Path) -> Outcome<u64> {
    // The log on stdout: that is what comes back. The program itself says nothing unless it fails.
    let mut callgrind = valgrind(&["--tool=callgrind", "--callgrind-out-file=/dev/null", "--log-fd=1"]);
    callgrind.arg(program).args([how_far, name]).arg(inputs);
    let log = capture(&mut callgrind)?;
    total(&log).ok_or_else(|| Fail::new(format!("callgrind did not say how many instructions {name} took: {log}")))
}

/// The number in callgrind's line `==PID== Collected : NUMBER`.
fn total(log: &str) -> Option<u64> {
    log.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
}

/// With an environment of our own: what libraries read from it would be counted.
fn valgrind(options: &[&str]) -> Command {
    let mut valgrind = tool("valgrind");
    valgrind.env_clear().env("PATH", crate::shell::search_path()).env("LC_ALL", "C.UTF-8").args(options);
    valgrind
}

/// Everything outside the repository that the counts depend on.
fn made_with() -> Outcome<MadeWith> {
    let first_line =
        |command: &mut Command| capture(command).map(|said| said.lines().next().unwrap_or_default().trim().to_owned());
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    Ok(MadeWith {
        rustc: first_line(tool("rustc").arg("--version").current_dir(workspace()))?,
        cc: first_line(tool(compiler).arg("--version"))?,
        libc: first_line(tool("getconf").arg("GNU_LIBC_VERSION"))?,
        valgrind: first_line(tool("valgrind").arg("--version"))?,
        processor: first_line(valgrind(&["-q", "--tool=none"]).arg(release_binary("counts")?).arg("processor"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrinds_total_is_found() {
        let log = "==7110== \n==7110== Events    : Ir\n==7110== Collected : 68784021\n==7110== \n";
        assert_eq!(total(log), Some(68_784_021));
        assert_eq!(total("==7110== Events    : Ir\n"), None);
    }
}
