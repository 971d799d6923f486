//! Signals that end a program: the first stops the run in good order, the second ends the process. SIGHUP is one of them unless it was
//! ignored from the start, as `nohup` does: whoever loses a terminal must not leave half a run behind.

use imgstream::error::{Error, IoContext, Kind, Result};
use protocol::event::Body;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::report::{Reporter, Voice, failure};

/// Starts watching, for a run or before there is one. Must be called inside the runtime.
///
/// # Errors
/// When the kernel refuses the handlers.
pub fn watch(voice: &Voice, cancel: &CancellationToken) -> Result<()> {
    let (first, second) = (voice.clone(), voice.clone());
    listen(cancel, move |message| first.warn(message), move || second.run().into_iter().for_each(end_at_once))
}

fn end_at_once(reporter: &Reporter) {
    let error = Error::cancelled("still stopping").with_hint("nothing was cleaned up: treat the target as unfinished");
    reporter.emit(Body::RunFailed(Box::new(failure::at_once(&error, reporter.current_phase()))));
}

/// Starts watching: the first signal is told and cancels, the second ends the process after `end`.
///
/// # Errors
/// When the kernel refuses the handlers.
pub fn listen(
    cancel: &CancellationToken,
    tell: impl Fn(String) + Send + 'static,
    end: impl Fn() + Send + 'static,
) -> Result<()> {
    let listen = |kind, name: &str| signal(kind).context(Kind::Device, || format!("listening for {name}"));
    let mut interrupt = listen(SignalKind::interrupt(), "SIGINT")?;
    let mut terminate = listen(SignalKind::terminate(), "SIGTERM")?;
    let mut quit = listen(SignalKind::quit(), "SIGQUIT")?;
    let mut hang_up = if is_ignored(libc::SIGHUP) { None } else { Some(listen(SignalKind::hangup(), "SIGHUP")?) };
    let cancel = cancel.clone();
    tokio::spawn(async move {
        let mut next = async || {
            let hung_up = async {
                match &mut hang_up {
                    Some(hang_up) => hang_up.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
                _ = quit.recv() => "SIGQUIT",
                _ = hung_up => "SIGHUP",
            }
        };
        let first = next().await;
        tell(format!("{first}: stopping as soon as writes in flight have ended; a second signal ends at once"));
        cancel.cancel();
        let second = next().await;
        tracing::debug!(signal = second, "ending at once");
        end();
        std::process::exit(i32::from(Kind::Cancelled.exit_code()));
    });
    Ok(())
}

/// Whether this process was started with a signal ignored.
fn is_ignored(signal: libc::c_int) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
