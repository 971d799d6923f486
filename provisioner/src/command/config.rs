//! `z-provisioner config`.

use std::path::PathBuf;
use std::process::ExitCode;

use imgstream::error::{Error, Result};
use provisioner::medium::embed;
use provisioner::report::Screen;

/// Its arguments.
#[derive(clap::Args)]
pub(super) struct Args {
    /// What the machine is to do (JSON). Files it names lie beside it, and come with it
    config: PathBuf,
    /// Put it into this medium: an ISO, a memory image, or the folder that `cargo xtask iso` makes
    #[arg(long, value_name = "PATH")]
    medium: Option<PathBuf>,
    /// Set kernel parameters of the medium as well, such as `zprov.console=bars`; they are no place for secrets
    #[arg(long, value_name = "TEXT", requires = "medium")]
    parameters: Option<String>,
    /// Write it to a new file, to be appended to the file system that a kernel is started with
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Checks a configuration and puts it where it belongs.
pub(super) fn run(args: &Args, screen: &Screen) -> Result<ExitCode> {
    super::no_core_dumps()?;
    let packed = embed::pack(&args.config)?;
    if let Some(out) = &args.out {
        embed::write_new(&packed, out)?;
        screen.lines(&format!("{} is for {} alone, and a secret", out.display(), packed.config.server));
    }
    if let Some(medium) = &args.medium {
        for form in embed::put(&packed, medium, args.parameters.as_deref())? {
            screen.lines(&format!("{} is for {} alone now, and a secret", form.display(), packed.config.server));
        }
    }
    if args.out.is_none() && args.medium.is_none() {
        return Err(
            Error::usage("the configuration is fine, and goes nowhere").with_hint("give --medium PATH or --out FILE")
        );
    }
    Ok(ExitCode::SUCCESS)
}
