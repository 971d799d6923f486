//! Signals that end a program: the first in good order, the second at once. SIGHUP is one of them unless it is ignored, as by `nohup`.

use std::future::Future;

use nix::libc;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Context, Error, Result};

/// The signals, listened to.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Option<Signal>,
}

impl Signals {
    /// Listens from now on. Must be called inside the runtime.
    pub(super) fn new() -> Result<Self> {
        let listen = |kind, name: &str| signal(kind).doing(|| format!("listening for {name}"));
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt(), "SIGINT")?,
            terminate: listen(SignalKind::terminate(), "SIGTERM")?,
            hang_up: if is_ignored(libc::SIGHUP) { None } else { Some(listen(SignalKind::hangup(), "SIGHUP")?) },
        })
    }

    /// The next one's name.
    pub(super) async fn next(&mut self) -> &'static str {
        let hung_up = async {
            match &mut self.hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = hung_up => "SIGHUP",
        }
    }
}

/// Does it unless a signal comes first.
pub(super) async fn unless_interrupted<T>(what: &str, doing: impl Future<Output = Result<T>>) -> Result<T> {
    let mut signals = Signals::new()?;
    tokio::select! {
        done = doing => done,
        _ = signals.next() => Err(Error::interrupted(what)),
    }
}

/// Whether this process was started with a signal ignored.
fn is_ignored(signal: libc::c_int) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
