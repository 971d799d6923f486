//! QEMU at work for a guest: what it boots from, the connections it makes, and what becomes of it.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use initramfs::Archive;

use crate::board::Board;
use crate::builder::Builder;
use crate::console::Console;
use crate::lane;
use crate::qemu::{Qemu, listen};

/// Between two looks at QEMU and the console.
pub const LOOK: Duration = Duration::from_millis(50);

/// A QEMU that runs, and is watched.
pub struct Running {
    /// The process.
    pub qemu: Qemu,
    /// What the guest's kernel says.
    pub console: Console,
    /// What is known of it.
    pub board: Arc<Board>,
    /// Whether its end is wanted.
    pub ending: AtomicBool,
    log: PathBuf,
}

/// The connections QEMU makes.
pub struct Streams {
    /// To the guest's first process.
    pub channel: UnixStream,
    /// To QEMU itself.
    pub qmp: UnixStream,
}

impl Running {
    /// Starts it with files in `folder`.
    #[track_caller]
    pub fn start(builder: &Builder, folder: &Path) -> (Arc<Self>, Streams) {
        let file = |name: &str| folder.join(name);
        initramfs(builder, &file("initramfs")).unwrap_or_else(|error| panic!("making an initramfs: {error}"));
        let (channel, qmp) = (listen(&file("channel")), listen(&file("qmp")));
        let qemu = Qemu::start(&builder.arguments(&lane::kernel(), folder), &file("qemu.log"));
        let running = Arc::new(Self {
            qemu: qemu.unwrap_or_else(|error| panic!("{error}")),
            console: Console::of(file("console")),
            board: Arc::default(),
            ending: AtomicBool::new(false),
            log: file("qemu.log"),
        });
        let watched = Arc::clone(&running);
        std::thread::spawn(move || watched.watch());
        let accept = |listener, what| running.qemu.accept(listener, what, &running.log);
        let (qmp, channel) = (accept(&qmp, "QMP"), accept(&channel, "channel"));
        (running, Streams { channel, qmp })
    }

    /// Until QEMU ends.
    fn watch(&self) {
        loop {
            // In this order: the kernel says why it fails before it does.
            let (ended, panicked) = (self.qemu.ended(), self.board.note(|notes| notes.panicked));
            let failure = self.console.failure().or_else(|| panicked.then(|| "QEMU says it has panicked".into()));
            self.board.note(|notes| {
                if let Some(line) = failure {
                    notes.trouble = Some(format!("the kernel has failed: {line}"));
                }
                if let Some(status) = ended {
                    notes.over = true;
                    if !self.ending.load(Ordering::SeqCst) {
                        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                        notes.trouble.get_or_insert(format!("QEMU has ended ({status}) {}", said.trim()));
                    }
                }
            });
            if ended.is_some() {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// The base, and after it what belongs to this guest.
fn initramfs(builder: &Builder, path: &Path) -> std::io::Result<()> {
    std::fs::copy(lane::base(), path)?;
    if builder.gateway {
        std::io::copy(&mut File::open(lane::gateway())?, &mut File::options().append(true).open(path)?)?;
    }
    let mut archive = Archive::append(path)?;
    archive.file("init", 0o755, &std::fs::read(lane::init())?)?;
    for (name, program) in lane::programs() {
        archive.file(&format!("usr/bin/{name}"), 0o755, &std::fs::read(program)?)?;
    }
    for (path, mode, content) in &builder.files {
        archive.file(path, *mode, content)?;
    }
    archive.finish()
}
