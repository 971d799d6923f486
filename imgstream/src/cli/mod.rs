//! The command line: arguments, one module per group of commands, and how errors and progress are shown.
//!
//! People read stderr; programs read stdout, where `--json` writes one object per line.

/// A line for people. A terminal or log that is gone or full is no reason to panic, nor to end with another exit code.
macro_rules! say {
    ($($text:tt)*) => {{
        let _ = std::io::Write::write_fmt(&mut std::io::stderr().lock(), format_args!("{}\n", format_args!($($text)*)));
    }};
}

/// A line of what was asked for. A reader that went away is not our problem.
macro_rules! print {
    ($($text:tt)*) => {{
        let _ = std::io::Write::write_fmt(&mut std::io::stdout().lock(), format_args!("{}\n", format_args!($($text)*)));
    }};
}

mod args;
mod bench;
mod display;
mod image;
mod keys;
mod pack;
mod write;

use std::process::ExitCode;

use clap::Parser;
use imgstream::error::{Error, Result};
use tokio_util::sync::CancellationToken;

use args::{Arguments, Command};

/// Parses the arguments, runs the command, and turns its result into an exit code.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    display::start_log(arguments.verbose);
    let outcome = imgstream::sink::report_file_size_limit()
        .and_then(|()| tokio::runtime::Builder::new_current_thread().enable_all().build())
        .map_err(|error| Error::device(format!("starting the runtime: {error}")))
        .and_then(|runtime| {
            let outcome = runtime.block_on(execute(arguments.command));
            // A blocking read that hangs in the kernel must not keep a finished command from ending.
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            display::error(&error, arguments.verbose > 0);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

async fn execute(command: Command) -> Result<()> {
    let cancel = cancel_on_signals()?;
    match command {
        Command::Keygen(arguments) => keys::keygen(&arguments),
        Command::Pack(arguments) => pack::pack(arguments, cancel).await,
        Command::Sign(arguments) => pack::sign(&arguments),
        Command::Inspect(arguments) => image::inspect(arguments, &cancel).await,
        Command::Verify(arguments) => image::verify(arguments, &cancel).await,
        Command::Unpack(arguments) => write::unpack(arguments, &cancel).await,
        Command::Serve(arguments) => image::serve(arguments, cancel).await,
        Command::Write(arguments) => write::write(arguments, &cancel).await,
        Command::Bench(arguments) => bench::bench(arguments, &cancel).await,
    }
}

/// SIGINT and SIGTERM cancel once, in order; a second one ends the process at once.
fn cancel_on_signals() -> Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|error| Error::device(format!("listening for signals: {error}")));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let cancel = CancellationToken::new();
    let cancelled = cancel.clone();
    tokio::spawn(async move {
        for attempt in 0.. {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if attempt > 0 {
                say!("stopped at once; the target may be in use until the kernel has finished");
                std::process::exit(i32::from(imgstream::error::Kind::Cancelled.exit_code()));
            }
            say!("stopping; once more to stop at once");
            cancelled.cancel();
        }
    });
    Ok(cancel)
}
