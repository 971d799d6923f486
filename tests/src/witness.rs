//! A witness outside of the service: whoever works on a target tells it so over a socket, and is taken to do so until the kernel closes
//! that socket, however he ends.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};

/// What it has seen.
#[derive(Debug, Default)]
struct Seen {
    /// Who works on each target.
    holders: HashMap<String, (String, UnixStream)>,
    /// Two who worked on one target at the same time.
    violations: Vec<String>,
    /// How often anybody began to work on a target.
    holds: u32,
    /// How often each run was said to be done.
    done: HashMap<String, u32>,
    /// Who has got which key.
    keys: Vec<GotKey>,
}

/// A key that an attempt has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GotKey {
    /// The run.
    pub run: String,
    /// The attempt.
    pub attempt: u64,
    /// The key.
    pub key: String,
}

/// A witness. It sees for as long as it is kept.
pub struct Witness {
    path: PathBuf,
    seen: Arc<Mutex<Seen>>,
}

impl Witness {
    /// At a socket in this folder.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn new(folder: &Path) -> Self {
        let path = folder.join("witness");
        let listener = UnixListener::bind(&path).expect("a socket");
        let seen = Arc::<Mutex<Seen>>::default();
        let of = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&of);
                std::thread::spawn(move || hear(&stream, &seen));
            }
        });
        Witness { path, seen }
    }

    /// Its socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How often anybody began to work on a target.
    pub fn holds(&self) -> u32 {
        self.seen.lock().unwrap().holds
    }

    /// How often this run was done.
    pub fn done(&self, run: &str) -> u32 {
        self.seen.lock().unwrap().done.get(run).copied().unwrap_or(0)
    }

    /// All keys that anybody has got.
    pub fn keys(&self) -> Vec<GotKey> {
        self.seen.lock().unwrap().keys.clone()
    }

    /// Demands that no two have ever worked on one target at once.
    ///
    /// # Panics
    /// When two have.
    #[track_caller]
    pub fn saw_no_two(&self) {
        let seen = self.seen.lock().unwrap();
        assert!(seen.violations.is_empty(), "two at once on one target: {:#?}", seen.violations);
        assert!(seen.holds > 0, "nobody has worked at all");
    }
}

/// Lines: `hold TARGET RUN ATTEMPT`, `key RUN ATTEMPT KEY` for each that it gets, and `done RUN` before it is let go. Each is answered, so that what was said has been heard.
fn hear(stream: &UnixStream, seen: &Mutex<Seen>) {
    let mut held: Option<(String, String)> = None;
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["hold", target, run, attempt] => {
                let who = format!("attempt {attempt} of run {run}");
                hold(seen, target, &who, stream);
                held = Some((target.to_owned(), who));
            }
            ["key", run, attempt, key] => seen.lock().unwrap().keys.push(GotKey {
                run: run.to_owned(),
                attempt: attempt.parse().unwrap_or(0),
                key: key.to_owned(),
            }),
            ["done", run] => *seen.lock().unwrap().done.entry(run.to_owned()).or_default() += 1,
            _ => seen.lock().unwrap().violations.push(format!("nobody says {line:?}")),
        }
        if (&*stream).write_all(b"heard\n").is_err() {
            break;
        }
    }
    if let Some((target, who)) = held {
        let mut seen = seen.lock().unwrap();
        if seen.holders.get(&target).is_some_and(|(holder, _)| *holder == who) {
            seen.holders.remove(&target);
        }
    }
}

fn hold(seen: &Mutex<Seen>, target: &str, who: &str, stream: &UnixStream) {
    let mut seen = seen.lock().unwrap();
    seen.holds += 1;
    if let Some((holder, other)) = seen.holders.get(target)
        && !is_closed(other)
    {
        let violation = format!("{who} began on {target} while {holder} worked on it");
        seen.violations.push(violation);
    }
    let stream = stream.try_clone().expect("another handle");
    seen.holders.insert(target.to_owned(), (who.to_owned(), stream));
}

/// Whether the other end has closed it: its thread may not have got to that yet.
fn is_closed(stream: &UnixStream) -> bool {
    use std::os::fd::AsRawFd;
    let mut byte = [0];
    let peeked = recv(stream.as_raw_fd(), &mut byte, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT);
    matches!(peeked, Ok(0) | Err(nix::errno::Errno::ECONNRESET))
}

/// The other side: somebody who works on a target.
pub struct Worker(UnixStream);

impl Worker {
    /// Begins to work on a target.
    ///
    /// # Errors
    /// When the witness is not there.
    pub fn begin(witness: &Path, target: &str, run: &str, attempt: u32) -> std::io::Result<Self> {
        let stream = UnixStream::connect(witness)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let worker = Worker(stream);
        worker.say(&format!("hold {} {run} {attempt}", target.replace(' ', "_")))?;
        Ok(worker)
    }

    /// Says that it has got a key.
    ///
    /// # Errors
    /// When the witness is not there.
    pub fn key(&self, run: &str, attempt: u32, key: &str) -> std::io::Result<()> {
        self.say(&format!("key {run} {attempt} {key}"))
    }

    /// Says that the work is done.
    ///
    /// # Errors
    /// When the witness is not there.
    pub fn done(&self, run: &str) -> std::io::Result<()> {
        self.say(&format!("done {run}"))
    }

    fn say(&self, line: &str) -> std::io::Result<()> {
        (&self.0).write_all(format!("{line}\n").as_bytes())?;
        let mut answer = String::new();
        BufReader::new(&self.0).read_line(&mut answer).map(drop)
    }
}
