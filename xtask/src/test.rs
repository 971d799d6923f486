//! `cargo xtask test`: prerequisites, release binaries for the end-to-end tests, `cargo test`, instruction counts, and a
//! table of what ran. With `--s390x`, `--vm` or `--kubernetes` the tests that need that, instead.

use std::io::{BufRead, BufReader, IsTerminal};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::build;
use crate::cluster;
use crate::counts;
use crate::fail::{Fail, Outcome, Tried};
use crate::fuzz;
use crate::interrupt::{Tracked, interrupted};
use crate::openbao;
use crate::prerequisites::{Lane, ensure};
use crate::python;
use crate::s390x;
use crate::shell::{cargo, line, release_binary, target_folder, tool};
use crate::tally::Tally;
use crate::vm;

/// The command line of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Options {
    /// Also the tests that take long (marked #[ignore]), many more cases of each property, and coverage-guided fuzzing
    #[arg(long)]
    soak: bool,
    /// Instead: unit and property tests built for s390x, run on an emulated processor
    #[arg(long, conflicts_with_all = ["soak", "vm", "kubernetes"])]
    s390x: bool,
    /// Instead: tests in guests, which are s390x kernels in QEMU
    #[arg(long, conflicts_with = "kubernetes")]
    vm: bool,
    /// Instead: tests with a real Kubernetes control plane and a node of its own, on this machine
    #[arg(long)]
    kubernetes: bool,
    /// With --vm and --kubernetes: only the tests with this in their name, and other options of the test programs
    #[arg(last = true)]
    filter: Vec<String>,
}

/// Cases per property in a soak run; proptest's own default is 256.
const SOAK_CASES: &str = "4096";

/// Seconds of coverage-guided fuzzing per target in a soak run.
const SOAK_FUZZING: u64 = 180;

/// Runs every test there is and says how many.
pub fn run(options: &Options) -> Outcome<()> {
    if options.s390x {
        return run_for_s390x();
    }
    if options.vm {
        return run_alone(&vm::tests(options.soak, &options.filter)?);
    }
    if options.kubernetes {
        return run_alone(&cluster::tests(options.soak, &options.filter)?);
    }
    if !options.filter.is_empty() {
        return Err(Fail::usage(
            "only --vm and --kubernetes take options of the test programs; for others use cargo test",
        ));
    }
    ensure(Lane::Test)?;
    if options.soak {
        fuzz::ensure()?;
    }
    build::programs()?;
    let python = python::ensure()?;
    let openbao = openbao::ensure()?;

    let mut tally = Tally::default();
    let mut fine = true;
    for arguments in rounds(options.soak) {
        let mut test = cargo();
        test.args(["test", "--workspace", "--no-fail-fast"]).args(*arguments);
        test.env("IMGSTREAM_BIN", release_binary("imgstream")?);
        test.env("Z_PROVISIONER_BIN", release_binary("z-provisioner")?);
        // As this very command builds it: optimising it once more would take minutes, and find nothing more.
        test.env("Z_ORCHESTRATOR_BIN", target_folder()?.join("debug/z-orchestrator"));
        test.env("Z_PYTHON", &python).env("Z_BAO", &openbao);
        // Tests wait more than they compute: for servers that stall, leases that end, processes that start.
        if std::env::var_os("RUST_TEST_THREADS").is_none() {
            let cores = std::thread::available_parallelism().map_or(2, usize::from);
            test.env("RUST_TEST_THREADS", (cores * 2).to_string());
        }
        if options.soak {
            test.env("PROPTEST_CASES", SOAK_CASES).env("Z_SOAK", "1");
        }
        fine &= stream(&test, &mut tally)?;
    }
    let fuzzed = if options.soak { fuzz::run(&fuzz::Options::all(SOAK_FUZZING)) } else { Ok(()) };
    let counted = counts::check();
    let tested = told(&tally, fine);
    if let (Err(_), Err(slower)) = (&tested, &counted) {
        eprintln!("xtask: {}", slower.message);
    }
    fuzzed.and(tested).and(counted)
}

/// Runs what can run under emulation and says how much that was.
fn run_for_s390x() -> Outcome<()> {
    let toolchain = s390x::Toolchain::ensure()?;
    println!("{}", toolchain.versions()?);
    let mut tally = Tally::default();
    let mut fine = true;
    for test in s390x::tests(&toolchain)? {
        fine &= stream(&test, &mut tally)?;
    }
    told(&tally, fine)
}

/// Runs what needs more than `cargo test` gives it and says how much that was.
fn run_alone(test: &Command) -> Outcome<()> {
    let mut tally = Tally::default();
    let fine = stream(test, &mut tally)?;
    told(&tally, fine)
}

/// Prints what ran. `fine` is whether everything could be built and ended well.
fn told(tally: &Tally, fine: bool) -> Outcome<()> {
    println!("\n{}", tally.table());
    println!("{}", tally.last_line());
    if tally.failed() > 0 || !fine {
        return Err(Fail::new("some tests failed or could not be built; what they said is above"));
    }
    if tally.passed() == 0 {
        return Err(Fail::new("no test ran at all, which proves nothing"));
    }
    Ok(())
}

/// Ignored examples in documentation are not meant to be run, not even in a soak run: hence two rounds there.
fn rounds(soak: bool) -> &'static [&'static [&'static str]] {
    if soak { &[&["--lib", "--bins", "--tests", "--", "--include-ignored"], &["--doc"]] } else { &[&[]] }
}

/// Runs `cargo test`, passing its output through line by line and counting; false if it did not end well.
fn stream(test: &Command, tally: &mut Tally) -> Outcome<bool> {
    eprintln!("$ {}", line(test));
    // cargo names the test binaries on stderr and they report on stdout: one pipe keeps the two in order.
    let mut both = tool("sh");
    both.args(["-c", r#"exec "$@" 2>&1"#, "sh"]).arg(test.get_program()).args(test.get_args());
    if let Some(folder) = test.get_current_dir() {
        both.current_dir(folder);
    }
    for (name, value) in test.get_envs() {
        match value {
            Some(value) => both.env(name, value),
            None => both.env_remove(name),
        };
    }
    if std::io::stdout().is_terminal() {
        both.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = both.stdout(Stdio::piped()).spawn().tried(format_args!("start `{}`", line(test)))?;
    let _tracked = Tracked::new(child.id());
    let mut output = child.stdout.take().map(BufReader::new);
    let mut bytes = Vec::new();
    while let Some(reader) = &mut output {
        bytes.clear();
        if reader.read_until(b'\n', &mut bytes).tried("read what the tests say")? == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&bytes);
        print!("{text}");
        tally.line(&text, Instant::now());
    }
    let status = child.wait().tried("wait for the tests")?;
    if interrupted() {
        return Err(Fail::interrupted());
    }
    tally.finish();
    Ok(status.success())
}
