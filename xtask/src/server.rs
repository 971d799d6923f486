//! A server in the background: started, waited for until it says where it listens, ended on every way out.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fail::{Fail, Outcome, Tried};
use crate::interrupt::{Tracked, interrupted};
use crate::shell::line;

/// How a server behaves.
pub struct Manners {
    /// What it says on stderr when it can be used; what follows is where it listens.
    pub ready: &'static str,
    /// How long it may take until then.
    pub start: Duration,
    /// How long it may take to end when it is told to.
    pub end: Duration,
}

const OURS: Manners = Manners { ready: "listening on ", start: Duration::from_secs(20), end: Duration::from_secs(2) };

/// A running server.
pub struct Server {
    child: Child,
    _tracked: Tracked,
    end: Duration,
    /// Where it listens, without a slash at the end.
    pub url: String,
}

impl Server {
    /// Starts `command` and waits for its line `listening on URL` on stderr; what it says goes to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Outcome<Self> {
        Self::with(&OURS, command, log)
    }

    /// The same, of one with other manners.
    pub fn with(manners: &Manners, command: &mut Command, log: &Path) -> Outcome<Self> {
        let mut file = File::create(log).tried(format_args!("create {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().tried(format_args!("start `{}`", line(command)))?;
        let stderr = child.stderr.take();
        let mut server = Self { _tracked: Tracked::new(child.id()), child, end: manners.end, url: String::new() };

        let (tell, told) = mpsc::channel();
        let ready = manners.ready;
        std::thread::spawn(move || {
            for text in stderr.map(BufReader::new).into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
                let _ = writeln!(file, "{text}");
                if let Some((_, url)) = text.split_once(ready) {
                    let _ = tell.send(url.trim().trim_end_matches('/').to_string());
                }
            }
        });
        match told.recv_timeout(manners.start) {
            Ok(url) => server.url = url,
            Err(_) if interrupted() => return Err(Fail::interrupted()),
            Err(why) => {
                let why = match why {
                    mpsc::RecvTimeoutError::Timeout => {
                        format!("did not say \"{ready}…\" within {:?}", manners.start)
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
        let began = Instant::now();
        while began.elapsed() < self.end {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(40));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
