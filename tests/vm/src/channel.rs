//! The harness's end of a guest's channel.

use std::io::{self, BufReader};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use guest_init::frames::{self, Ask, Tell};

use crate::board::Board;

/// The writing half. The other notes what the guest says.
pub struct Channel {
    to: Mutex<UnixStream>,
}

impl Channel {
    /// Takes the connection that QEMU has made.
    pub fn open(stream: UnixStream, board: Arc<Board>) -> io::Result<Self> {
        let from = stream.try_clone()?;
        std::thread::spawn(move || listen(from, &board));
        Ok(Self { to: Mutex::new(stream) })
    }

    /// Asks something of a command.
    pub fn ask(&self, number: u32, ask: &Ask) -> io::Result<()> {
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        frames::write(&mut *to, number, ask)
    }

    /// Ends it, as the end of this process would: the guest powers off.
    pub fn close(&self) {
        let _ = self.to.lock().unwrap_or_else(PoisonError::into_inner).shutdown(Shutdown::Both);
    }
}

fn listen(from: UnixStream, board: &Board) {
    let mut from = BufReader::new(from);
    loop {
        match frames::read::<Tell>(&mut from) {
            Ok(Some((number, tell))) => board.note(|notes| {
                let heard = notes.commands.entry(number);
                match tell {
                    Tell::Ready => notes.boots += 1,
                    Tell::Output(bytes) => heard.or_default().stdout.extend(bytes),
                    Tell::Errors(bytes) => heard.or_default().stderr.extend(bytes),
                    Tell::Ended(end) => heard.or_default().end = Some(end),
                }
            }),
            // That QEMU is gone is noted by whoever watches it.
            Ok(None) => return,
            Err(error) => {
                board
                    .note(|notes| notes.trouble.get_or_insert(format!("the guest's channel is broken: {error}")).len());
                return;
            }
        }
    }
}
