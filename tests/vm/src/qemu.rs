//! QEMU's process: started so that it dies with this one, watched, and killed.

use std::fs::File;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::lane;

/// How long QEMU may take to connect.
const CONNECT: Duration = Duration::from_secs(30);

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

/// QEMU's options for what every machine is: an emulated IBM Z with so many MiB of memory and processors, whose console goes to this
/// chardev, and which is controlled over a socket in `folder`.
pub fn machine(memory: u32, processors: u8, console: &str, folder: &Path) -> Vec<String> {
    let qmp = folder.join("qmp");
    // Room for a second processor, also where there is one: only then does QEMU translate atomic operations as such. Else a bit that
    // its I/O thread sets is lost when the guest clears another one of the same word at that moment: a disk's interrupt.
    let smp = format!("cpus={processors},maxcpus={}", processors.max(2));
    let options: [(&str, String); 9] = [
        ("-machine", "s390-ccw-virtio,accel=tcg".into()),
        ("-cpu", "max".into()),
        ("-m", memory.to_string()),
        ("-smp", smp),
        ("-display", "none".into()),
        ("-chardev", console.to_owned()),
        ("-serial", "chardev:console".into()),
        ("-chardev", format!("socket,id=qmp,path={}", qmp.display())),
        ("-mon", "chardev=qmp,mode=control".into()),
    ];
    let options = options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
    options.chain(["-nodefaults", "-no-user-config"].map(String::from)).collect()
}

/// Listens where QEMU will connect.
pub fn listen(path: &Path) -> UnixListener {
    let listener = UnixListener::bind(path).unwrap_or_else(|error| panic!("listening at {}: {error}", path.display()));
    listener.set_nonblocking(true).expect("a socket that does not block");
    listener
}

impl Qemu {
    /// Takes the connection that it makes. Where it makes none, it is ended, and what it said in `log` is told.
    ///
    /// # Panics
    /// When it ends, or does not connect in time.
    #[track_caller]
    pub fn accept(&self, listener: &UnixListener, what: &str, log: &Path) -> UnixStream {
        let began = Instant::now();
        let why = loop {
            if let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(false).expect("a socket that blocks");
                return stream;
            }
            if let Some(status) = self.ended() {
                break format!("QEMU has ended at once ({status})");
            }
            if began.elapsed() > CONNECT {
                break format!("QEMU has not connected its {what} within {CONNECT:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        self.kill();
        panic!("{why}: {}", std::fs::read_to_string(log).unwrap_or_default().trim())
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
