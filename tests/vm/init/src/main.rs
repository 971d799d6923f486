//! The first process of a test guest: sets the machine up, runs the commands it is sent, reaps what is left of them, and powers
//! off when nobody is at the other end of its channel any more.
//!
//! One thread does all of it but one thing: a second one waits for children, since no file descriptor says that one has ended.
//! What goes wrong before the channel is open ends this process, and with it the kernel, whose console the harness reads.

mod children;
mod command;
mod machine;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use guest_init::frames::{self, Ask, CHUNK, End, Tell};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::reboot::{RebootMode, reboot};

use crate::children::Watcher;
use crate::command::{Command, Polled};

fn main() -> io::Result<()> {
    machine::set_up()?;
    let mut guest = Guest { channel: machine::channel()?, commands: BTreeMap::new(), asked: Vec::new() };
    let watcher = Watcher::start()?;
    guest.tell(0, &Tell::Ready)?;
    let ended = guest.serve(&watcher);
    if let Err(error) = &ended {
        eprintln!("guest-init: {error}");
    }
    // Nothing is flushed: whoever wants that asks for it while the channel is open.
    reboot(RebootMode::RB_POWER_OFF)?;
    ended
}

struct Guest {
    channel: File,
    /// By their numbers. One that has ended stays until all who inherited its output have closed it.
    commands: BTreeMap<u32, Command>,
    /// What has been read of the channel and is no whole frame yet.
    asked: Vec<u8>,
}

/// What a wait has ended for.
struct Happened {
    /// There is something on the channel, or it has ended.
    asked: bool,
    /// A child has ended.
    child: bool,
    /// Commands that can go on, and with which pipe.
    pipes: Vec<(u32, Polled)>,
}

impl Guest {
    /// Until the channel ends.
    fn serve(&mut self, watcher: &Watcher) -> io::Result<()> {
        loop {
            let happened = self.wait(watcher)?;
            for (number, polled) in happened.pipes {
                if let Some(command) = self.commands.get_mut(&number) {
                    let told = command.proceed(polled);
                    self.tell_all(number, told)?;
                }
            }
            if happened.child {
                self.reap(watcher)?;
            }
            if happened.asked && !self.listen(watcher)? {
                return Ok(());
            }
            self.commands.retain(|_, command| !command.is_over());
        }
    }

    /// Waits until something can be done.
    fn wait(&self, watcher: &Watcher) -> io::Result<Happened> {
        let mut fds =
            vec![PollFd::new(self.channel.as_fd(), PollFlags::POLLIN), PollFd::new(watcher.as_fd(), PollFlags::POLLIN)];
        let mut whose = Vec::new();
        for (number, command) in &self.commands {
            for (which, fd, flags) in command.waits_for() {
                fds.push(PollFd::new(fd, flags));
                whose.push((*number, which));
            }
        }
        poll(&mut fds, PollTimeout::NONE)?;
        let mut happened = fds.iter().map(|fd| fd.any().unwrap_or(true));
        Ok(Happened {
            asked: happened.next() == Some(true),
            child: happened.next() == Some(true),
            pipes: happened.zip(whose).filter_map(|(so, whose)| so.then_some(whose)).collect(),
        })
    }

    /// Does what is asked; false where the channel has ended.
    fn listen(&mut self, watcher: &Watcher) -> io::Result<bool> {
        let mut bytes = vec![0; CHUNK];
        let length = self.channel.read(&mut bytes)?;
        self.asked.extend(&bytes[..length]);
        while let Some((number, ask)) = frames::take(&mut self.asked)? {
            match ask {
                Ask::Run(program) => match Command::start(&program) {
                    Ok(command) => {
                        self.commands.insert(number, command);
                        watcher.look();
                    }
                    Err(error) => self.tell(number, &Tell::Ended(End::Refused(error.to_string())))?,
                },
                Ask::Input(bytes) => self.commands.get_mut(&number).into_iter().for_each(|c| c.input(&bytes)),
                Ask::Signal { number: signal, group } => {
                    self.commands.get(&number).into_iter().for_each(|command| command.signal(signal, group));
                }
            }
        }
        Ok(length > 0)
    }

    /// Takes note of every child that has ended, ours or one that was left to us.
    fn reap(&mut self, watcher: &Watcher) -> io::Result<()> {
        for (pid, end) in watcher.reap()? {
            let ours = self.commands.iter_mut().find(|(_, command)| command.is(pid));
            if let Some((number, told)) = ours.map(|(number, command)| (*number, command.ended(end))) {
                self.tell_all(number, told)?;
            }
        }
        Ok(())
    }

    fn tell_all(&mut self, number: u32, told: Vec<Tell>) -> io::Result<()> {
        told.iter().try_for_each(|tell| self.tell(number, tell))
    }

    fn tell(&mut self, number: u32, tell: &Tell) -> io::Result<()> {
        frames::write(&mut self.channel, number, tell)
    }
}
