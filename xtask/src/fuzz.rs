//! `cargo xtask fuzz`: coverage-guided fuzzing of every reader of untrusted bytes, by cargo-fuzz and a nightly
//! toolchain. The ordinary tests need neither: they make a bounded run of the same targets on stable.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache;
use crate::fail::{Fail, Outcome, Tried};
use crate::shell::{capture, cargo, run as run_tool, status, tool, workspace};

/// The version of cargo-fuzz that is installed into the cache.
const CARGO_FUZZ: &str = "0.13.2";
/// Bytes of an input, MiB of memory, and seconds one input may take.
const BOUNDS: [&str; 3] = ["-max_len=8192", "-rss_limit_mb=2048", "-timeout=100"];

/// The command line of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub struct Options {
    /// Only these targets (default: all of fuzz/fuzz_targets)
    targets: Vec<String>,
    /// Seconds per target
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

impl Options {
    /// Every target, for as many seconds each.
    pub fn all(seconds: u64) -> Self {
        Options { targets: Vec::new(), seconds }
    }
}

/// Makes sure that fuzzing finds its tools: a nightly toolchain, which is not ours to install, and cargo-fuzz.
pub fn ensure() -> Outcome<PathBuf> {
    let nightly = capture(tool("rustup").args(["run", "nightly", "rustc", "--version"]));
    nightly.map_err(|fail| {
        let install = "rustup toolchain install nightly --profile minimal";
        Fail::usage(format!("fuzzing needs a nightly toolchain; run: {install} ({})", fail.message))
    })?;
    let recipe = format!("cargo install cargo-fuzz --locked --version {CARGO_FUZZ}");
    let install = |folder: &Path| {
        let words = recipe.split(' ').skip(1);
        run_tool(cargo().args(words).arg("--quiet").arg("--root").arg(folder))
    };
    Ok(cache::entry("cargo-fuzz", &recipe, false, install)?.join("bin/cargo-fuzz"))
}

/// Fuzzes the targets, one after the other, and says what came of it.
pub fn run(options: &Options) -> Outcome<()> {
    let cargo_fuzz = ensure()?;
    let known = targets()?;
    if let Some(unknown) = options.targets.iter().find(|target| !known.contains(target)) {
        return Err(Fail::usage(format!("there is no target {unknown}; there are {}", known.join(", "))));
    }
    let chosen = if options.targets.is_empty() { &known } else { &options.targets };
    for target in chosen {
        let said = fuzz(&cargo_fuzz, target, options.seconds)?;
        println!("fuzz {target}: {}", summary(&said));
    }
    Ok(())
}

/// The names of the targets.
fn targets() -> Outcome<Vec<String>> {
    let folder = workspace().join("fuzz/fuzz_targets");
    let entries = std::fs::read_dir(&folder).tried(format_args!("read {}", folder.display()))?;
    let files = entries.filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(str::to_owned));
    let mut names: Vec<String> = files.collect();
    names.sort();
    Ok(names)
}

/// Fuzzes one target; what the fuzzer said. New inputs go beside the build, not into the repository.
fn fuzz(cargo_fuzz: &Path, target: &str, seconds: u64) -> Outcome<String> {
    let found = workspace().join("fuzz/target/found").join(target);
    std::fs::create_dir_all(&found).tried(format_args!("create {}", found.display()))?;
    let log = found.with_extension("log");
    let mut fuzz = nightly(cargo_fuzz);
    fuzz.args(["run", target]).arg(&found).arg(format!("fuzz/corpus/{target}")).arg("--").args(BOUNDS);
    fuzz.arg(format!("-max_total_time={seconds}")).arg("-print_final_stats=1");
    let output = std::fs::File::create(&log).tried(format_args!("write {}", log.display()))?;
    let same = output.try_clone().tried(format_args!("write {}", log.display()))?;
    eprintln!("$ {}", crate::shell::line(&fuzz));
    let ended = status(fuzz.stdout(output).stderr(same))?;
    let said = std::fs::read(&log).tried(format_args!("read {}", log.display()))?;
    let said = String::from_utf8_lossy(&said).into_owned();
    if ended.success() {
        return Ok(said);
    }
    let lines: Vec<&str> = said.lines().collect();
    let last = lines[lines.len().saturating_sub(25)..].join("\n");
    Err(Fail::new(format!(
        "{last}\nfuzzing {target} found something or could not be done; all of it: {}",
        log.display()
    )))
}

/// cargo-fuzz, which calls whatever cargo the toolchain of this name has.
fn nightly(cargo_fuzz: &Path) -> Command {
    let mut command = tool(cargo_fuzz);
    command.arg("fuzz").current_dir(workspace()).env("RUSTUP_TOOLCHAIN", "nightly");
    for name in ["CARGO", "RUSTC", "RUSTDOC", "LD_LIBRARY_PATH"] {
        command.env_remove(name);
    }
    command
}

/// Executions, edges and features, from libFuzzer's last lines.
fn summary(said: &str) -> String {
    let stat = |name: &str| {
        said.lines()
            .rev()
            .find_map(|line| Some(line.strip_prefix("stat::")?.strip_prefix(name)?.trim_start_matches(':').trim()))
    };
    let done = said.lines().rev().find(|line| line.contains("DONE"));
    let figure = |name: &str| done.and_then(|line| line.split(name).nth(1)?.split_whitespace().next());
    format!(
        "{} executions, {} edges covered, {} features, {} new inputs, nothing found",
        stat("number_of_executed_units").unwrap_or("?"),
        figure("cov:").unwrap_or("?"),
        figure("ft:").unwrap_or("?"),
        stat("new_units_added").unwrap_or("?")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuzzers_last_lines_are_understood() {
        let said = "#12\tDONE   cov: 294 ft: 495 corp: 35/8129b\nstat::number_of_executed_units: 12\nstat::new_units_added:          3\n";
        let expected = "12 executions, 294 edges covered, 495 features, 3 new inputs, nothing found";
        assert_eq!(summary(said), expected);
    }
}
