//! QEMU's process: started so that it dies with this one, watched, and killed.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::lane;

/// The process.
pub struct Qemu {
    child: Mutex<Child>,
}

impl Qemu {
    /// Starts it. What it says itself goes to a file.
    pub fn start(arguments: &[String], log: &Path) -> io::Result<Self> {
        let root = lane::qemu();
        let libraries = root.join("usr/lib/x86_64-linux-gnu");
        // The kernel kills it when this process ends, however that happens.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        // By its own loader, since its libraries are not this machine's.
        command.arg(root.join("usr/lib64/ld-linux-x86-64.so.2")).arg("--library-path");
        command.arg(format!("{0}:{0}/pulseaudio", libraries.display()));
        command.arg(root.join("usr/bin/qemu-system-s390x")).arg("-L").arg(root.join("usr/share/qemu"));
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(File::create(log)?)
            .stderr(File::options().append(true).open(log)?);
        let child = spawn(command).map_err(|error| io::Error::new(error.kind(), format!("starting QEMU: {error}")))?;
        Ok(Self { child: Mutex::new(child) })
    }

    /// Whether it has ended, and how.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.lock().try_wait().expect("asking for a process")
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.lock().id()
    }

    /// Ends it at once; it may have ended already.
    pub fn kill(&self) {
        let mut child = self.lock();
        let _ = child.kill();
        let _ = child.wait();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Order = (Command, Sender<io::Result<Child>>);

/// The signal at a parent's death is sent when the *thread* ends that started the child: so one does that for all, and never ends.
fn spawn(command: Command) -> io::Result<Child> {
    static ORDERS: LazyLock<Mutex<Sender<Order>>> = LazyLock::new(|| {
        let (give, take) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, tell) in take {
                let _ = tell.send(command.spawn());
            }
        });
        Mutex::new(give)
    });
    let (tell, told) = mpsc::channel();
    let order = ORDERS.lock().unwrap_or_else(PoisonError::into_inner).send((command, tell));
    order.map_err(io::Error::other)?;
    told.recv().map_err(io::Error::other)?
}
