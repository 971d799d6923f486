//! Child processes that never outlive us: killed when dropped, and on SIGINT or SIGTERM.

use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::failure::{Context, Failure, Result};

static LIVE: Mutex<Vec<Pid>> = Mutex::new(Vec::new());
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn live() -> MutexGuard<'static, Vec<Pid>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes SIGINT and SIGTERM from now on: the children are told to end, whoever waits for them gets an error,
/// and so every destructor runs. Call before any thread is started. (`std` gives children a clean signal mask.)
pub fn end_children_on_signals() -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block().context("could not block signals")?;
    thread::spawn(move || {
        while signals.wait().is_ok() {
            INTERRUPTED.store(true, Ordering::SeqCst);
            for pid in live().iter() {
                // It may have ended already, which is as good.
                let _ = kill(*pid, Signal::SIGTERM);
            }
        }
    });
    Ok(())
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
            if e != nix::errno::Errno::EINTR {
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
        !matches!(waitid(pid, peek), Ok(nix::sys::wait::WaitStatus::StillAlive))
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
