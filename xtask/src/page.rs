//! `cargo xtask page`: the service's page in a real browser, as `tests/page` looks at it; or its screenshots for the documentation.

use std::path::PathBuf;

use crate::fail::Outcome;
use crate::prerequisites::{Lane, ensure};
use crate::python;
use crate::shell::{cargo, line, run as run_tool, target_folder, tool};

/// The command line of `cargo xtask page`.
#[derive(clap::Args)]
pub struct Options {
    /// Take screenshots into this folder instead
    #[arg(long, value_name = "FOLDER")]
    screenshots: Option<PathBuf>,
    /// Only the checks with this in their name
    #[arg(long, value_name = "TEXT", conflicts_with = "screenshots")]
    only: Option<String>,
}

/// Checks the page, or takes its screenshots.
pub fn run(options: &Options) -> Outcome<()> {
    ensure(Lane::Page)?;
    let python = python::ensure()?;
    run_tool(cargo().args(["build", "--quiet", "-p", "orchestrator"]))?;
    let mut look = tool(python);
    look.arg("tests/page/main.py").arg("--orchestrator").arg(target_folder()?.join("debug/z-orchestrator"));
    if let Some(folder) = &options.screenshots {
        look.arg("--screenshots").arg(folder);
    }
    if let Some(text) = &options.only {
        look.arg("--only").arg(text);
    }
    eprintln!("$ {}", line(&look));
    run_tool(&mut look)
}
