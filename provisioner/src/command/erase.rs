//! `z-provisioner erase`.

use std::path::PathBuf;
use std::process::ExitCode;

use imgstream::error::Result;
use provisioner::report::{Screen, Voice};
use provisioner::{erase, logging, signals};
use tokio_util::sync::CancellationToken;

/// Its arguments.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The disk: a whole block device, or a regular file. All it holds is lost
    device: PathBuf,
    /// Only tell the device that nobody needs its blocks. The keys are overwritten all the same; nothing else is proven
    #[arg(long)]
    discard: bool,
    /// Write the result to stdout, as one JSON object
    #[arg(long)]
    pub(super) json: bool,
    /// Say more: causes of errors
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
}

/// Erases one disk.
pub(super) fn erase(args: &Args, screen: &Screen) -> Result<ExitCode> {
    logging::start(&Voice::new(screen.clone()), args.verbose);
    let runtime = super::runtime()?;
    let erased = runtime.block_on(async {
        let cancel = CancellationToken::new();
        let (tell, last) = (screen.clone(), screen.clone());
        let ended = move || last.lines("error: ended at once; the disk is erased in part: erase it again");
        signals::listen(&cancel, move |message| tell.lines(&message), ended)?;
        erase::watched(&args.device, args.discard, screen, &cancel).await
    });
    // A thread that hangs in the kernel must not keep this from saying so.
    runtime.shutdown_background();
    let erased = erased?;
    if args.json {
        println!("{}", erased.to_json());
    }
    screen.lines(&erased.to_string());
    Ok(ExitCode::SUCCESS)
}
