//! Processes that die with this one, however that happens.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{LazyLock, Mutex, PoisonError};

/// A process, and the file with what it says. Killed when dropped.
#[derive(Debug)]
pub struct Leashed {
    child: Child,
    log: PathBuf,
}

impl Leashed {
    /// Starts a program; `log` is continued where it is there already.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(program: &Path, arguments: &[String], log: &Path) -> Self {
        let mut command = leash(program);
        command.args(arguments).stdin(Stdio::null());
        let open = || File::options().create(true).append(true).open(log);
        let opened = open().and_then(|out| Ok((out, open()?)));
        let (out, errors) = opened.unwrap_or_else(|error| panic!("opening {}: {error}", log.display()));
        let child = spawn(command, out, errors);
        let child = child.unwrap_or_else(|error| panic!("starting {}: {error}", program.display()));
        Leashed { child, log: log.to_owned() }
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended, and how.
    ///
    /// # Panics
    /// When the kernel does not say.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("asking for a process")
    }

    /// The last lines of what it has said.
    pub fn said(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Leashed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that the kernel kills when the process that starts it ends.
pub fn leash(program: &Path) -> Command {
    let mut command = Command::new(e2e::command::tool("setpriv"));
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

type Order = (Command, Sender<io::Result<Child>>);

/// Starts it. The signal at a parent's death is sent when the *thread* ends that started the child: so one does that for all, and
/// never ends.
///
/// # Errors
/// When the program cannot be started.
pub fn spawn(mut command: Command, out: impl Into<Stdio>, errors: impl Into<Stdio>) -> io::Result<Child> {
    static ORDERS: LazyLock<Mutex<Sender<Order>>> = LazyLock::new(|| {
        let (give, take) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, tell) in take {
                let _ = tell.send(command.spawn());
            }
        });
        Mutex::new(give)
    });
    command.stdout(out).stderr(errors);
    let (tell, told) = mpsc::channel();
    let order = ORDERS.lock().unwrap_or_else(PoisonError::into_inner).send((command, tell));
    order.map_err(io::Error::other)?;
    told.recv().map_err(io::Error::other)?
}
