//! A server in the background: started, waited for until it says where it listens, ended on every way out.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fail::{Fail, Outcome, Tried};
use crate::interrupt::Tracked;
use crate::shell::line;

const READY: &str = "listening on ";
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server.
pub struct Server {
    child: Child,
    _tracked: Tracked,
    /// Where it listens, without a slash at the end.
    pub url: String,
}

impl Server {
    /// Starts `command` and waits for its line `listening on URL` on stderr; what it says goes to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Outcome<Self> {
        let mut file = File::create(log).tried(format_args!("create {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().tried(format_args!("start `{}`", line(command)))?;
        let stderr = child.stderr.take();
        let mut server = Self { _tracked: Tracked::new(child.id()), child, url: String::new() };

        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            for text in stderr.map(BufReader::new).into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
                let _ = writeln!(file, "{text}");
                if let Some((_, url)) = text.split_once(READY) {
                    let _ = tell.send(url.trim().trim_end_matches('/').to_string());
                }
            }
        });
        match told.recv_timeout(PATIENCE) {
            Ok(url) => server.url = url,
            Err(why) => {
                let why = match why {
                    mpsc::RecvTimeoutError::Timeout => {
                        format!("did not say \"{READY}…\" within {PATIENCE:?}")
                    }
                    mpsc::RecvTimeoutError::Disconnected => "ended at once".into(),
                };
                let said = std::fs::read_to_string(log).unwrap_or_default();
                return Err(Fail::new(format!("`{}` {why}; it said: {}", line(command), said.trim())));
            }
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        for _ in 0..50 {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(40));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
