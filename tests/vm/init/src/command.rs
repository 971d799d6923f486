//! A command: started in a process group of its own, fed, listened to, and told about when it ends.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Stdio};

use guest_init::frames::{CHUNK, End, Program, Tell};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// What every command finds in its environment.
const ENVIRONMENT: [(&str, &str); 4] =
    [("PATH", "/usr/sbin:/usr/bin"), ("HOME", "/root"), ("LC_ALL", "C"), ("TERM", "dumb")];

/// One of a command's pipes.
#[derive(Clone, Copy, Debug)]
pub enum Polled {
    /// Its standard input can take more.
    Input,
    /// Its standard output has something.
    Output,
    /// Its standard error has something.
    Errors,
}

/// A command that runs, or whose pipes are still open.
pub struct Command {
    pid: Pid,
    running: bool,
    input: Option<Input>,
    output: Option<File>,
    errors: Option<File>,
}

struct Input {
    pipe: ChildStdin,
    waiting: VecDeque<u8>,
    /// Nothing more comes.
    closing: bool,
}

impl Command {
    /// Starts it.
    pub fn start(program: &Program) -> io::Result<Self> {
        let (name, arguments) = program.arguments.split_first().ok_or(ErrorKind::InvalidInput)?;
        let mut command = std::process::Command::new(name);
        command.args(arguments).env_clear().envs(ENVIRONMENT).process_group(0);
        command.envs(program.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(&program.directory);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let input = child.stdin.take().map(|pipe| Input { pipe, waiting: VecDeque::new(), closing: false });
        let output = child.stdout.take().map(|pipe| File::from(OwnedFd::from(pipe)));
        let errors = child.stderr.take().map(|pipe| File::from(OwnedFd::from(pipe)));
        let pipes = [
            input.as_ref().map(|input| input.pipe.as_fd()),
            output.as_ref().map(File::as_fd),
            errors.as_ref().map(File::as_fd),
        ];
        for pipe in pipes.into_iter().flatten() {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let pid = Pid::from_raw(child.id().cast_signed());
        Ok(Self { pid, running: true, input, output, errors })
    }

    /// Whether it runs as this process.
    pub fn is(&self, pid: Pid) -> bool {
        self.running && self.pid == pid
    }

    /// Whether there is nothing left of it.
    pub fn is_over(&self) -> bool {
        !self.running && self.output.is_none() && self.errors.is_none()
    }

    /// The pipes that are waited for.
    pub fn waits_for(&self) -> Vec<(Polled, BorrowedFd<'_>, PollFlags)> {
        let input = self.input.as_ref().filter(|input| !input.waiting.is_empty());
        let input = input.map(|input| (Polled::Input, input.pipe.as_fd(), PollFlags::POLLOUT));
        let output = self.output.as_ref().map(|pipe| (Polled::Output, pipe.as_fd(), PollFlags::POLLIN));
        let errors = self.errors.as_ref().map(|pipe| (Polled::Errors, pipe.as_fd(), PollFlags::POLLIN));
        [input, output, errors].into_iter().flatten().collect()
    }

    /// Goes on with a pipe.
    pub fn proceed(&mut self, polled: Polled) -> Vec<Tell> {
        match polled {
            Polled::Input => {
                self.feed();
                Vec::new()
            }
            Polled::Output => piece(&mut self.output).map(Tell::Output).into_iter().collect(),
            Polled::Errors => piece(&mut self.errors).map(Tell::Errors).into_iter().collect(),
        }
    }

    /// Bytes for its standard input; none ends it.
    pub fn input(&mut self, bytes: &[u8]) {
        if let Some(input) = &mut self.input {
            input.waiting.extend(bytes);
            input.closing |= bytes.is_empty();
        }
        self.feed();
    }

    /// Sends a signal; it may have ended already.
    pub fn signal(&self, number: i32, group: bool) {
        let Ok(signal) = Signal::try_from(number) else { return };
        // Its group may outlive it: whatever it has left behind in the background.
        let _ = if group { killpg(self.pid, signal) } else { kill(self.pid, signal) };
    }

    /// It has ended: all it has written itself is in its pipes by now.
    pub fn ended(&mut self, end: End) -> Vec<Tell> {
        self.running = false;
        self.input = None;
        let mut told: Vec<Tell> = std::iter::from_fn(|| piece(&mut self.output)).map(Tell::Output).collect();
        told.extend(std::iter::from_fn(|| piece(&mut self.errors)).map(Tell::Errors));
        told.push(Tell::Ended(end));
        told
    }

    fn feed(&mut self) {
        let Some(input) = &mut self.input else { return };
        while !input.waiting.is_empty() {
            match input.pipe.write(input.waiting.as_slices().0) {
                Ok(length) => drop(input.waiting.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // It reads no more.
                Err(_) => {
                    self.input = None;
                    return;
                }
            }
        }
        if input.closing {
            self.input = None;
        }
    }
}

/// What a pipe has just now; it is closed where it has ended.
fn piece(pipe: &mut Option<File>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; CHUNK];
    match pipe.as_mut()?.read(&mut bytes) {
        Ok(length @ 1..) => {
            bytes.truncate(length);
            Some(bytes)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        _ => {
            *pipe = None;
            None
        }
    }
}
