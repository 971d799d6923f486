//! Children of the first process: started, waited for, and reaped, also those that others have left behind.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::os::fd::AsFd;

use super::Trouble;

/// What children find in their environment.
const ENVIRONMENT: [(&str, &str); 4] =
    [("PATH", "/usr/sbin:/usr/bin"), ("HOME", "/root"), ("LC_ALL", "C"), ("TERM", "vt220")];

/// Signals that ask a machine to shut down: Ctrl-Alt-Del and its kin (the HMC's "signal shutdown"), power failure, who may kill.
const SHUT_DOWN: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGPWR];

/// The children.
pub struct Children {
    signals: SignalFd,
    /// Ends that nobody has asked for yet.
    ended: Vec<(Pid, i32)>,
    /// The machine was asked to shut down.
    asked: bool,
}

impl Children {
    /// From here on signals are read, and no longer delivered.
    pub fn new() -> Result<Self, Trouble> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        SHUT_DOWN.into_iter().for_each(|signal| mask.add(signal));
        let signals = mask
            .thread_block()
            .and_then(|()| SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC));
        let signals = signals.map_err(|error| Trouble::new(format!("listening for signals: {error}"), "IPL again"))?;
        Ok(Self { signals, ended: Vec::new(), asked: false })
    }

    /// Starts a program that writes to our console.
    pub fn start(&mut self, program: &str, arguments: &[&str]) -> Result<Pid, Trouble> {
        self.spawn(program, arguments, Stdio::null, Stdio::inherit)
    }

    /// Starts a daemon, which says nothing on the console.
    pub fn start_silently(&mut self, program: &str, arguments: &[&str]) -> Result<Pid, Trouble> {
        self.spawn(program, arguments, Stdio::null, Stdio::null)
    }

    /// Starts a program that has our console.
    pub fn start_on_console(&mut self, program: &str, arguments: &[&str]) -> Result<Pid, Trouble> {
        self.spawn(program, arguments, Stdio::inherit, Stdio::inherit)
    }

    fn spawn(
        &mut self,
        program: &str,
        arguments: &[&str],
        input: fn() -> Stdio,
        output: fn() -> Stdio,
    ) -> Result<Pid, Trouble> {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(ENVIRONMENT).process_group(0);
        command.stdin(input()).stdout(output()).stderr(output());
        // Signals that are blocked here are not there: the standard library sees to it.
        match command.spawn() {
            Ok(child) => Ok(Pid::from_raw(child.id().cast_signed())),
            Err(error) => {
                Err(Trouble::new(format!("starting {program}: {error}"), "the medium is damaged: make it anew"))
            }
        }
    }

    /// Runs a program to its end, within a limit.
    pub fn run(&mut self, program: &str, arguments: &[&str], limit: Duration) -> Result<(), Trouble> {
        let child = self.start(program, arguments)?;
        let line = format!("{program} {}", arguments.join(" "));
        match self.wait(child, limit) {
            Some(0) => Ok(()),
            Some(code) => {
                Err(Trouble::new(format!("`{line}` ended with {code}"), "its own words are above; IPL again"))
            }
            None => {
                let _ = kill(child, Signal::SIGKILL);
                Err(Trouble::new(
                    format!("`{line}` did not end within {} s", limit.as_secs()),
                    "a device does not answer: see the lines above; IPL again",
                ))
            }
        }
    }

    /// Waits for a child's end: its exit code, or 128 and the signal's number. `None` when the time is over. A request to shut down
    /// ends no wait: it is kept for [`Children::is_asked`].
    pub fn wait(&mut self, child: Pid, limit: Duration) -> Option<i32> {
        let deadline = Instant::now() + limit;
        loop {
            self.reap();
            if let Some(at) = self.ended.iter().position(|(pid, _)| *pid == child) {
                return Some(self.ended.swap_remove(at).1);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.listen(left);
        }
    }

    /// Whether the machine was asked to shut down since this was asked last.
    pub fn is_asked(&mut self) -> bool {
        std::mem::take(&mut self.asked)
    }

    /// Ends all there are but ourselves: in good order, then at once.
    pub fn end_all(&mut self, patience: Duration) {
        let _ = kill(Pid::from_raw(-1), Signal::SIGTERM);
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            self.listen(Duration::from_millis(100));
        }
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
        self.reap();
    }

    /// Waits for a signal.
    pub fn listen(&mut self, limit: Duration) {
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)], timeout);
        while let Ok(Some(signal)) = self.signals.read_signal() {
            self.asked |= SHUT_DOWN.iter().any(|of| *of as u32 == signal.ssi_signo);
        }
        self.reap();
    }

    /// Tells a child to stop in good order.
    pub fn stop(&self, child: Pid) {
        let _ = kill(child, Signal::SIGTERM);
    }

    fn reap(&mut self) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => self.ended.push((pid, code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => self.ended.push((pid, 128 + signal as i32)),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        // Orphans that nobody asks for are forgotten in time.
        if self.ended.len() > 1024 {
            self.ended.drain(..512);
        }
    }
}
