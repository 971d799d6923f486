//! Ctrl-C and SIGTERM: the running tools are told to end, the chore returns an error, and so every guard on the
//! way out detaches what it attached.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fail::{Outcome, Tried};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static RUNNING: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Takes over SIGINT and SIGTERM. By a handler, not by blocking them: tools inherit what is blocked, and would not hear
/// the signals their own tests send them.
pub fn take_over() -> Outcome<()> {
    ctrlc::set_handler(|| {
        INTERRUPTED.store(true, Ordering::SeqCst);
        // A terminal has already sent its Ctrl-C to the whole foreground group.
        if std::io::stdin().is_terminal() {
            return;
        }
        for pid in running().iter().flat_map(|pid| with_descendants(*pid)) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    })
    .map_err(std::io::Error::other)
    .tried("listen for SIGINT and SIGTERM")
}

/// Has somebody asked us to end?
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// A tool that is to be told when we are. Forgotten when dropped, which must happen before its pid can be reused.
pub struct Tracked(i32);

impl Tracked {
    /// Remembers the tool.
    pub fn new(pid: u32) -> Self {
        let pid = i32::try_from(pid).unwrap_or_default();
        running().insert(pid);
        Self(pid)
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        running().remove(&self.0);
    }
}

/// A tool and what it has started: mmdebstrap, for one, would wait minutes for a child that was told nothing.
fn with_descendants(pid: i32) -> Vec<i32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        next += 1;
    }
    found
}

fn running() -> std::sync::MutexGuard<'static, BTreeSet<i32>> {
    RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
