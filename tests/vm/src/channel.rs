//! The harness's end of a guest's channel.

use std::io::{self, BufReader};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use guest_init::frames::{self, Ask, Tell};

use crate::board::{Board, Notes};

/// The writing half. The other notes what the guest says. Commands hold on to it, and may outlive their guest.
pub struct Channel {
    to: Mutex<UnixStream>,
    board: Arc<Board>,
    guest: String,
    next: AtomicU32,
}

impl Channel {
    /// Takes the connection that QEMU has made for a guest.
    pub fn open(stream: UnixStream, board: Arc<Board>, guest: &str) -> io::Result<Self> {
        let (from, notes) = (stream.try_clone()?, Arc::clone(&board));
        std::thread::spawn(move || listen(from, &notes));
        Ok(Self { to: Mutex::new(stream), board, guest: guest.to_owned(), next: AtomicU32::new(1) })
    }

    /// What is known of the guest.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// A number for a new command.
    pub fn number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Asks something of a command.
    ///
    /// # Errors
    /// When the guest is gone.
    pub fn try_ask(&self, number: u32, ask: &Ask) -> io::Result<()> {
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        frames::write(&mut *to, number, ask)
    }

    /// Asks something of a command, or fails the test.
    #[track_caller]
    pub fn ask(&self, number: u32, ask: &Ask) {
        if let Err(error) = self.try_ask(number, ask) {
            // Whoever watches QEMU knows more in a moment.
            let why = self.board.wait::<()>("an answer", Duration::from_secs(1), |_| None).err();
            self.fail(&format!("it cannot be reached ({error}): {}", why.unwrap_or_default()));
        }
    }

    /// Ends it, as the end of this process would: the guest powers off.
    pub fn close(&self) {
        let _ = self.to.lock().unwrap_or_else(PoisonError::into_inner).shutdown(Shutdown::Both);
    }

    /// Fails the test.
    #[track_caller]
    pub fn fail(&self, why: &str) -> ! {
        panic!("guest {}: {why}", self.guest)
    }
}

fn listen(from: UnixStream, board: &Board) {
    let mut from = BufReader::new(from);
    loop {
        match frames::read(&mut from) {
            Ok(Some((number, tell))) => board.note(|notes| hear(notes, number, tell)),
            // That QEMU is gone is noted by whoever watches it.
            Ok(None) => return,
            Err(error) => {
                board.note(|notes| notes.trouble = Some(format!("the guest's channel is broken: {error}")));
                return;
            }
        }
    }
}

fn hear(notes: &mut Notes, number: u32, tell: Tell) {
    let heard = notes.commands.entry(number);
    match tell {
        Tell::Output(bytes) => heard.or_default().stdout.extend(bytes),
        Tell::Errors(bytes) => heard.or_default().stderr.extend(bytes),
        Tell::Ended(end) => heard.or_default().end = Some(end),
        Tell::Ready => {
            notes.boots += 1;
            if notes.boots > notes.resets + 1 {
                notes.trouble = Some("the guest has booted again, and nobody asked it to".into());
            }
        }
    }
}
