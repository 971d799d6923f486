//! A machine as an operator has it: it boots what it is given, has disks, cables and a console, and nobody is inside. For the boot
//! medium and for what that has installed.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::board::Board;
use crate::disk::Disk;
use crate::lane;
use crate::link::{Link, LinkEnd};
use crate::qemu::{self, Qemu, listen};
use crate::qmp::Qmp;

/// What a machine is given to boot.
#[derive(Clone, Debug)]
pub enum Boot {
    /// A CD.
    Iso(PathBuf),
    /// A folder and an `.ins` file in it, over the network.
    Ins(PathBuf, String),
    /// A kernel, a file system and parameters, as a virtual machine manager gives them.
    Kernel(PathBuf, PathBuf, String),
}

/// A machine to be switched on.
#[derive(Clone)]
pub struct LparBuilder {
    name: String,
    boot: Boot,
    memory: u32,
    disks: Vec<Disk>,
    links: Vec<LinkEnd>,
    clock: Option<String>,
    kept: Option<Arc<TempDir>>,
}

/// A machine that runs. Gone when dropped.
pub struct Lpar {
    builder: LparBuilder,
    folder: TempDir,
    qemu: Qemu,
    qmp: Qmp,
    board: Arc<Board>,
    console: Arc<Mutex<Seen>>,
    keyboard: UnixStream,
    began: Instant,
    switched_on: SystemTime,
}

impl LparBuilder {
    /// One that boots this, named for the test.
    pub fn new(boot: Boot) -> Self {
        let name = std::thread::current().name().unwrap_or("machine").replace("::", "-");
        Self { name, boot, memory: 1024, disks: Vec::new(), links: Vec::new(), clock: None, kept: None }
    }

    /// Adds to its name, where a test has several.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = format!("{}-{name}", self.name);
        self
    }

    /// Adds a disk. The device numbers of its paths begin at 0.0.1000, of the second disk at 0.0.1010.
    #[must_use]
    pub fn disk(mut self, disk: &Disk) -> Self {
        self.disks.push(disk.clone());
        self
    }

    /// Plugs in one end (0 or 1) of a cable. The machine's first interface has the hardware address [`Lpar::MAC`].
    #[must_use]
    pub fn link(mut self, link: &Link, end: u8) -> Self {
        self.links.push(LinkEnd { link: link.clone(), end, address: String::new() });
        self
    }

    /// Keeps a folder for as long as the machine is there: what it boots lies in it.
    #[must_use]
    pub fn keep(mut self, folder: &Arc<TempDir>) -> Self {
        self.kept = Some(Arc::clone(folder));
        self
    }

    /// Sets its clock, such as `2036-01-01T00:00:00`.
    #[must_use]
    pub fn clock(mut self, time: &str) -> Self {
        self.clock = Some(time.to_owned());
        self
    }

    /// Boots something else the next time.
    #[must_use]
    pub fn boot(mut self, boot: Boot) -> Self {
        self.boot = boot;
        self
    }

    /// Switches it on.
    ///
    /// # Panics
    /// When QEMU does not start.
    #[track_caller]
    pub fn ipl(self) -> Lpar {
        let folder = tempfile::Builder::new().prefix("vm-").tempdir().expect("a folder for a machine");
        let (console, qmp) = (listen(&folder.path().join("console")), listen(&folder.path().join("qmp")));
        let (began, switched_on) = (Instant::now(), SystemTime::now());
        let qemu = Qemu::start(&self.arguments(folder.path()), &folder.path().join("qemu.log")).expect("QEMU");
        let log = folder.path().join("qemu.log");
        let (keyboard, qmp) = (qemu.accept(&console, "console", &log), qemu.accept(&qmp, "QMP", &log));
        let seen = Arc::new(Mutex::new(Seen::default()));
        watch(keyboard.try_clone().expect("a console"), Arc::clone(&seen), began);
        let board = Arc::new(Board::default());
        let qmp = Qmp::open(qmp, Arc::clone(&board)).expect("QEMU's control channel");
        let machine = Lpar { builder: self, folder, qemu, qmp, board, console: seen, keyboard, began, switched_on };
        if let Err(why) = machine.qmp.ask("qmp_capabilities", &Value::Null) {
            panic!("{why}: {}", std::fs::read_to_string(log).unwrap_or_default().trim());
        }
        machine
    }

    fn arguments(&self, folder: &Path) -> Vec<String> {
        let file = |name: &str| folder.join(name).display().to_string();
        let plain = |path: &Path| path.display().to_string().replace(',', ",,");
        let console = format!("socket,id=console,path={}", file("console"));
        let mut arguments = qemu::machine(self.memory, 1, &console, folder);
        let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        option("-object", "rng-builtin,id=random".into());
        option("-device", "virtio-rng-ccw,rng=random".into());
        if let Some(clock) = &self.clock {
            option("-rtc", format!("base={clock}"));
        }
        match &self.boot {
            Boot::Iso(iso) => {
                option(
                    "-blockdev",
                    format!(
                        "driver=raw,node-name=cd,read-only=on,file.driver=file,file.filename={},file.locking=off",
                        plain(iso)
                    ),
                );
                option("-device", "virtio-scsi-ccw,id=cdhba,devno=fe.0.0c00".into());
                option("-device", "scsi-cd,bus=cdhba.0,drive=cd,bootindex=1".into());
            }
            Boot::Ins(tree, ins) => {
                option("-netdev", format!("user,id=boot,ipv6=off,tftp={},bootfile={ins}", plain(tree)));
                option("-device", "virtio-net-ccw,netdev=boot,mac=52:54:00:00:02:0f,bootindex=1".into());
            }
            Boot::Kernel(kernel, initrd, parameters) => {
                option("-kernel", plain(kernel));
                option("-initrd", plain(initrd));
                option("-append", parameters.clone());
            }
        }
        for (index, disk) in self.disks.iter().enumerate() {
            disk.arguments(index).chunks(2).for_each(|pair| option(&pair[0], pair[1].clone()));
        }
        for (index, end) in self.links.iter().enumerate() {
            option("-netdev", end.link.netdev(&format!("link{index}"), end.end));
            option(
                "-device",
                format!("virtio-net-ccw,netdev=link{index},mac={},devno=fe.0.{:04x}", end.mac(index), 0x0a00 + index),
            );
            option(
                "-object",
                format!("filter-dump,id=capture{index},netdev=link{index},file={}", file(&format!("capture{index}"))),
            );
        }
        arguments
    }
}

impl Lpar {
    /// The hardware address of a machine's first interface at end 1 of its cable.
    pub const MAC: &'static str = "52:54:00:00:10:01";

    /// All its console has shown.
    pub fn console(&self) -> String {
        let seen = self.console.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&seen.bytes).replace('\r', "")
    }

    /// How long after it was switched on its console showed a text for the first time.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn when(&self, text: &str) -> Duration {
        let seen = self.console.lock().unwrap_or_else(PoisonError::into_inner);
        let place = seen.bytes.windows(text.len()).position(|bytes| bytes == text.as_bytes());
        let end = place.unwrap_or_else(|| panic!("{text:?} is not on the console")) + text.len();
        seen.pieces.iter().find(|(length, _)| *length >= end).map_or(Duration::ZERO, |(_, at)| *at)
    }

    /// Since it was switched on.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Waits until its console shows a text, and returns what was shown before that, from `after` on (a number of bytes).
    ///
    /// # Panics
    /// When it does not within so many seconds, or QEMU ends.
    #[track_caller]
    pub fn until(&self, text: &str, seconds: u64) -> Duration {
        self.until_any(&[text], seconds);
        self.elapsed()
    }

    /// Waits until its console shows one of several texts, and returns which.
    ///
    /// # Panics
    /// As [`Lpar::until`].
    #[track_caller]
    pub fn until_any<'t>(&self, texts: &[&'t str], seconds: u64) -> &'t str {
        let since = Instant::now();
        loop {
            let console = self.console();
            if let Some(found) = texts.iter().find(|text| console.contains(**text)) {
                return found;
            }
            if let Some(status) = self.qemu.ended() {
                panic!("{texts:?} never came: QEMU has ended ({status})");
            }
            assert!(since.elapsed() < Duration::from_secs(seconds), "{texts:?} did not come within {seconds} s");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Types a line.
    ///
    /// # Panics
    /// When QEMU is gone.
    #[track_caller]
    pub fn type_line(&self, line: &str) {
        (&self.keyboard).write_all(format!("{line}\n").as_bytes()).expect("typing");
    }

    /// Asks something of QEMU.
    ///
    /// # Panics
    /// When QEMU refuses.
    #[track_caller]
    pub fn qmp(&self, command: &str, arguments: Value) -> Value {
        self.qmp.ask(command, &arguments).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Waits for an event of QEMU's.
    ///
    /// # Panics
    /// When it does not come within so many seconds.
    #[track_caller]
    pub fn event(&self, name: &str, seconds: u64) {
        let waited = self.board.wait(&format!("QEMU's event {name}"), Duration::from_secs(seconds), |notes| {
            let place = notes.events.iter().position(|event| event["event"] == name)?;
            notes.events.remove(place).map(drop)
        });
        waited.unwrap_or_else(|why| panic!("{why}"));
    }

    /// Pulls its first cable, or puts it back.
    ///
    /// # Panics
    /// When it has none.
    #[track_caller]
    pub fn set_link(&self, up: bool) {
        self.qmp("set_link", json!({"name": "link0", "up": up}));
    }

    /// What went over its first cable so far, both ways.
    ///
    /// # Panics
    /// When nothing was recorded.
    #[track_caller]
    pub fn capture(&self) -> Vec<Frame> {
        frames(&std::fs::read(self.folder.path().join("capture0")).expect("a capture"), self.switched_on)
    }

    /// Cuts its power. The result switches it on again, with the same disks and cables.
    #[must_use]
    pub fn power_cut(self) -> LparBuilder {
        self.qemu.kill();
        self.builder.clone()
    }
}

impl Drop for Lpar {
    fn drop(&mut self) {
        self.qemu.kill();
        let kept = lane::logs().join(format!("{}.console", self.builder.name));
        let text = self.console();
        let _ = std::fs::write(&kept, &text);
        if std::thread::panicking() {
            eprintln!("the console of {} is kept: {}; its end:", self.builder.name, kept.display());
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

/// A frame that went over a cable.
#[derive(Debug)]
pub struct Frame {
    /// How long after the machine was switched on.
    pub at: Duration,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// The frames of a capture (libpcap's file format, in this machine's byte order).
fn frames(file: &[u8], switched_on: SystemTime) -> Vec<Frame> {
    let number = |at: usize| file.get(at..at + 4).map(|four| u32::from_ne_bytes(four.try_into().unwrap_or_default()));
    let mut frames = Vec::new();
    let mut at = 24;
    while let (Some(seconds), Some(micros), Some(length)) = (number(at), number(at + 4), number(at + 8)) {
        let length = length as usize;
        // The last one may be on its way.
        let Some(frame) = file.get(at + 16..at + 16 + length) else { break };
        let time = UNIX_EPOCH + Duration::from_secs(seconds.into()) + Duration::from_micros(micros.into());
        let since = time.duration_since(switched_on).unwrap_or_default();
        frames.push(Frame { at: since, bytes: frame.to_vec() });
        at += 16 + length;
    }
    frames
}

/// What a console has shown, and when.
#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    /// How much there was, and since when.
    pieces: Vec<(usize, Duration)>,
}

fn watch(mut from: UnixStream, seen: Arc<Mutex<Seen>>, began: Instant) {
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut bytes) {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.bytes.extend_from_slice(&bytes[..length]);
            let total = seen.bytes.len();
            seen.pieces.push((total, began.elapsed()));
        }
    });
}
