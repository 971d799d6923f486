//! Child processes that never outlive us: killed when dropped, and on SIGINT or SIGTERM.

use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use crate::failure::{Context, Failure, Result};

static LIVE: Mutex<Vec<Pid>> = Mutex::new(Vec::new());
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn live() -> MutexGuard<'static, Vec<Pid>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes SIGINT and SIGTERM from now on: the children are told to end, whoever waits for them gets an error,
/// and so every destructor runs. By a handler, not by blocking the signals: children inherit what is blocked, and nbdkit,
/// for one, would never hear that it is no longer needed.
pub fn end_children_on_signals() -> Result<()> {
    ctrlc::set_handler(end_children).context("could not listen for SIGINT and SIGTERM")
}

/// Ends the children as a signal would, once `limit` has passed, and says so: what hangs is a failure like any other.
pub fn end_children_after(limit: Duration) {
    std::thread::spawn(move || {
        sleep(limit);
        eprintln!("ended after {} minutes", limit.as_secs() / 60);
        end_children();
    });
}

fn end_children() {
    INTERRUPTED.store(true, Ordering::SeqCst);
    for pid in live().iter() {
        // It may have ended already, which is as good.
        let _ = kill(*pid, Signal::SIGTERM);
    }
}

/// Whether a signal asked us to stop.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// An error once a signal asked us to stop.
pub fn check_interrupted() -> Result<()> {
    if interrupted() { Err(Failure::new("interrupted")) } else { Ok(()) }
}

/// A running child.
pub struct Running {
    child: Child,
    pid: Pid,
    ended: bool,
}

impl Running {
    /// Starts `command`.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut live = live();
        check_interrupted()?;
        let child = command.spawn().context(format!("could not start {:?}", command.get_program()))?;
        let pid = Pid::from_raw(i32::try_from(child.id()).context("an impossible process id")?);
        live.push(pid);
        Ok(Self { child, pid, ended: false })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child's pipes, for the taking.
    pub fn pipes(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let pid = self.pid;
        // First without reaping, so that the signal thread can never meet a process id that is somebody else's.
        while let Err(e) = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
            if e != Errno::EINTR {
                break;
            }
        }
        live().retain(|p| *p != pid);
        self.ended = true;
        self.child.wait().context("could not wait for a child")
    }

    /// Whether it has ended already.
    pub fn has_ended(&mut self) -> bool {
        let pid = Id::Pid(self.pid);
        let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        !matches!(waitid(pid, peek), Ok(WaitStatus::StillAlive))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            let _ = kill(self.pid, Signal::SIGTERM);
            let _ = self.wait();
        }
    }
}

/// Waits until no child is left, also none that was adopted when its parent ended. They are asked to end after a
/// while, or at once when we were asked to; then they are made to.
pub fn await_adopted() {
    const PATIENCE: Duration = Duration::from_secs(10);
    let (begin, mut asked) = (Instant::now(), None);
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {}
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(_) => return,
        }
        match asked {
            None if interrupted() || begin.elapsed() > PATIENCE => {
                signal_adopted(Signal::SIGTERM);
                asked = Some(Instant::now());
            }
            Some(since) if since.elapsed() > PATIENCE => signal_adopted(Signal::SIGKILL),
            _ => {}
        }
        sleep(Duration::from_millis(1));
    }
}

fn signal_adopted(signal: Signal) {
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for pid in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}
