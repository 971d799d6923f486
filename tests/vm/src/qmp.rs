//! QEMU's own channel: requests, answers, events.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::board::Board;

/// How long QEMU may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The channel.
pub struct Qmp {
    to: Mutex<UnixStream>,
    board: Arc<Board>,
    next: AtomicU64,
}

impl Qmp {
    /// Takes the connection that QEMU has made.
    pub fn open(stream: UnixStream, board: Arc<Board>) -> io::Result<Self> {
        let from = BufReader::new(stream.try_clone()?);
        let notes = Arc::clone(&board);
        std::thread::spawn(move || {
            for line in from.lines().map_while(Result::ok) {
                listen(&line, &notes);
            }
        });
        Ok(Self { to: Mutex::new(stream), board, next: AtomicU64::new(1) })
    }

    /// Asks something and waits for the answer.
    ///
    /// # Errors
    /// What QEMU says is wrong with it.
    pub fn ask(&self, command: &str, arguments: &Value) -> Result<Value, String> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut request = json!({"execute": command, "id": id});
        if !arguments.is_null() {
            request["arguments"] = arguments.clone();
        }
        let sent = writeln!(self.to.lock().unwrap_or_else(PoisonError::into_inner), "{request}");
        sent.map_err(|error| format!("asking QEMU for {command}: {error}"))?;
        let what = format!("QEMU's answer to {command}");
        let answer = self.board.wait(&what, PATIENCE, |notes| notes.answers.remove(&id))?;
        match answer.get("return") {
            Some(value) => Ok(value.clone()),
            None => Err(format!("QEMU refuses {request}: {}", answer["error"]["desc"])),
        }
    }
}

fn listen(line: &str, board: &Board) {
    let Ok(message) = serde_json::from_str::<Value>(line) else { return };
    board.note(|notes| {
        if message.get("event").is_some() {
            notes.panicked |= message["event"] == "GUEST_PANICKED";
            notes.events.push_back(message);
        } else if let Some(id) = message["id"].as_u64() {
            notes.answers.insert(id, message);
        }
    });
}
