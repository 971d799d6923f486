//! SIGINT and SIGTERM: the first stops the run in good order, the second ends the process.

use std::sync::Arc;

use imgstream::error::{Error, IoContext, Kind, Result};
use protocol::event::Body;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::report::{Reporter, failure};

/// Starts watching. Must be called inside the runtime.
///
/// # Errors
/// When the kernel refuses the handlers.
pub fn watch(reporter: &Arc<Reporter>, cancel: &CancellationToken) -> Result<()> {
    let listen = |kind, name: &str| signal(kind).context(Kind::Device, || format!("listening for {name}"));
    let mut interrupt = listen(SignalKind::interrupt(), "SIGINT")?;
    let mut terminate = listen(SignalKind::terminate(), "SIGTERM")?;
    let (reporter, cancel) = (Arc::clone(reporter), cancel.clone());
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! { _ = interrupt.recv() => "SIGINT", _ = terminate.recv() => "SIGTERM" }
        };
        let first = next().await;
        let message = format!("{first}: stopping as soon as writes in flight have ended; a second signal ends at once");
        reporter.emit(Body::Warning { message });
        cancel.cancel();
        let second = next().await;
        let error =
            Error::cancelled("still stopping").with_hint("nothing was cleaned up: treat the target as unfinished");
        tracing::debug!(signal = second, "ending at once");
        reporter.emit(Body::RunFailed(Box::new(failure::at_once(&error, reporter.current_phase()))));
        std::process::exit(i32::from(Kind::Cancelled.exit_code()));
    });
    Ok(())
}
