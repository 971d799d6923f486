//! Children that end. A thread waits for the next one without taking it, and says so through a pipe; the main thread, which also
//! starts them, takes it. So none is taken while it is being started, and none is missed.

use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use guest_init::frames::End;
use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

/// Says when children have ended.
pub struct Watcher {
    ended: PipeReader,
    again: Sender<()>,
}

impl Watcher {
    /// Starts the thread.
    pub fn start() -> io::Result<Self> {
        let (ended, mut tell) = io::pipe()?;
        let (again, may) = mpsc::channel();
        thread::Builder::new().spawn(move || watch(&mut tell, &may))?;
        Ok(Self { ended, again })
    }

    /// There may be children now.
    pub fn look(&self) {
        // It cannot have ended: it ends with its pipe.
        let _ = self.again.send(());
    }

    /// Takes all that have ended.
    pub fn reap(&self) -> io::Result<Vec<(Pid, End)>> {
        (&self.ended).read_exact(&mut [0])?;
        let mut ended = Vec::new();
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => ended.push((pid, End::Exit(code))),
                Ok(WaitStatus::Signaled(pid, signal, _)) => ended.push((pid, End::Signal(signal as i32))),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.look();
        Ok(ended)
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }
}

/// One byte for each time that children have ended, and then not again before they have been taken.
fn watch(tell: &mut impl Write, may: &Receiver<()>) {
    while may.recv().is_ok() {
        while may.try_recv().is_ok() {}
        match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
            Err(Errno::ECHILD) => {}
            _ if tell.write_all(&[0]).is_err() => return,
            _ => {}
        }
    }
}
