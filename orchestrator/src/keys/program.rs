//! A program that is run once, for what it writes to stdout. That is a secret: nothing of it is kept or logged.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use zeroize::Zeroizing;

use super::kek::MAX_TEXT;
use crate::error::{Context, Error, Result};
use crate::identity::bounded;

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(10);
const HINT: &str = "run it by hand, as the service's user; it must write the key in base64 to stdout, and end with 0";

/// What a program writes to stdout.
///
/// # Errors
/// It cannot be started, writes too much, fails, or does not end in time.
pub(super) fn output(program: &str, arguments: &[String]) -> Result<Zeroizing<Vec<u8>>> {
    output_within(program, arguments, LIMIT)
}

fn output_within(program: &str, arguments: &[String], limit: Duration) -> Result<Zeroizing<Vec<u8>>> {
    let until = Instant::now() + limit;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    let started = command.spawn().doing(|| format!("starting `keys.command` ({program})"));
    let mut child = Ended(started.map_err(|error| error.with_hint(HINT))?);
    let failed = |why: String| Error::refused(format!("`keys.command` ({program}) {why}")).with_hint(HINT);
    let stdout = child.0.stdout.take().ok_or_else(|| failed("has no output".into()))?;
    let (give, given) = channel();
    // What it has started may hold the pipe open for ever: then this thread is left alone with it.
    std::thread::spawn(move || drop(give.send(bounded(stdout, MAX_TEXT))));
    let text = match given.recv_timeout(limit) {
        Ok(Ok(Some(text))) => text,
        Ok(Ok(None)) => return Err(failed(format!("has written more than {MAX_TEXT} bytes"))),
        Ok(Err(error)) => return Err(failed(format!("cannot be listened to: {error}"))),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            return Err(failed(format!("has not ended within {} s", limit.as_secs())));
        }
    };
    match child.wait(until)? {
        Some(status) if status.success() => Ok(text),
        Some(status) => Err(failed(format!("failed: {status}"))),
        None => Err(failed(format!("has not ended within {} s", limit.as_secs()))),
    }
}

/// A process that is killed with its group when this is dropped, unless it has ended.
struct Ended(Child);

impl Ended {
    fn wait(&mut self, until: Instant) -> Result<Option<ExitStatus>> {
        loop {
            let status = self.0.try_wait().doing(|| "waiting for `keys.command`".into())?;
            if status.is_some() || Instant::now() >= until {
                return Ok(status);
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Result<Zeroizing<Vec<u8>>> {
        output_within("sh", &["-c".to_owned(), script.to_owned()], limit)
    }

    #[test]
    fn only_a_program_that_ends_well_and_in_time_has_said_anything() {
        let second = Duration::from_secs(1);
        assert_eq!(*shell("echo c2VjcmV0; echo no >&2", second * 30).unwrap(), b"c2VjcmV0\n");
        for (script, says) in [
            ("echo c2VjcmV0; exit 3", "exit status: 3"),
            ("echo c2VjcmV0; sleep 60", "has not ended within 1 s"),
            ("echo c2VjcmV0; exec >&-; sleep 60", "has not ended within 1 s"),
            ("head -c 300 /dev/zero | tr '\\0' x", "more than 256 bytes"),
        ] {
            let began = Instant::now();
            let error = shell(script, second).unwrap_err();
            assert!(error.to_string().contains(says) && error.hint().is_some(), "{error}");
            assert!(!error.to_string().contains("c2VjcmV0") && began.elapsed() < second * 10, "{error}");
        }
        output_within("/no/such/program", &[], second).unwrap_err();
    }
}
