//! A running guest.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use guest_init::frames::End;
use serde_json::Value;
use tempfile::TempDir;

use crate::board::Notes;
use crate::builder::Builder;
use crate::channel::Channel;
use crate::disk::Disk;
use crate::lane;
use crate::process::Run;
use crate::qmp::Qmp;
use crate::running::Running;

/// How long a guest may take to power off.
const POWER_OFF: Duration = Duration::from_secs(60);

/// A running guest. Gone when dropped.
pub struct Guest {
    pub(crate) builder: Builder,
    folder: TempDir,
    running: Arc<Running>,
    channel: Arc<Channel>,
    qmp: Qmp,
    /// How long it took from QEMU's start to the first answer.
    booted_in: Duration,
}

impl Guest {
    /// One to be configured.
    pub fn builder() -> Builder {
        Builder::new()
    }

    #[track_caller]
    pub(crate) fn boot(builder: Builder) -> Self {
        // Sockets lie in it, whose paths may not be long.
        let folder = tempfile::Builder::new().prefix("vm-").tempdir().expect("a folder for a guest");
        let began = Instant::now();
        let (running, streams) = Running::start(&builder, folder.path());
        let qmp = Qmp::open(streams.qmp, Arc::clone(&running.board)).expect("QEMU's control channel");
        let channel = Channel::open(streams.channel, Arc::clone(&running.board), &builder.name);
        let channel = Arc::new(channel.expect("the guest's channel"));
        let mut guest = Self { builder, folder, running, channel, qmp, booted_in: Duration::ZERO };
        guest.qmp("qmp_capabilities", Value::Null);
        guest.wait("the guest's first answer", guest.builder.limit, |notes| (notes.boots > 0).then_some(()));
        guest.booted_in = began.elapsed();
        // It is in the guest's memory now.
        let _ = std::fs::remove_file(guest.folder.path().join("initramfs"));
        guest.set_up();
        guest
    }

    /// How long it took from QEMU's start to the first answer.
    pub fn booted_in(&self) -> Duration {
        self.booted_in
    }

    /// QEMU's process number.
    pub fn pid(&self) -> u32 {
        self.running.qemu.pid()
    }

    /// A line for the guest's shell, which ends at the first command that fails.
    pub fn run(&self, line: &str) -> Run {
        self.program(["sh", "-ec", line])
    }

    /// A program of the guest and its arguments.
    pub fn program<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Run {
        Run::new(&self.channel, arguments.into_iter().map(str::to_owned).collect())
    }

    /// Runs a line in the guest's shell, demands success, and returns what it wrote to standard output, without blanks at its end.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        self.run(line).text().trim_end().to_owned()
    }

    /// Puts a file into the guest; it appears whole.
    ///
    /// # Panics
    /// When it cannot.
    #[track_caller]
    pub fn put(&self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        let script =
            r#"mkdir -p "$(dirname "$0")" && umask 077 && cat >"$0.part" && chmod "$1" "$0.part" && mv "$0.part" "$0""#;
        self.program(["sh", "-c", script, path, &format!("{mode:o}")]).stdin(content).done().ok();
    }

    /// Gets a file of the guest.
    ///
    /// # Panics
    /// When it cannot be read.
    #[track_caller]
    pub fn get(&self, path: &str) -> Vec<u8> {
        let (end, bytes, errors) = self.program(["cat", "--", path]).start().raw();
        assert_eq!(end, End::Exit(0), "getting {path}: {}", String::from_utf8_lossy(&errors));
        bytes
    }

    /// Waits until a line in the guest's shell succeeds, looking several times a second, and returns what it wrote to standard output.
    ///
    /// # Panics
    /// When it does not within so many seconds.
    #[track_caller]
    pub fn until(&self, what: &str, seconds: u64, line: &str) -> String {
        let now = "read up rest </proc/uptime; up=${up%.*}";
        let script = format!(
            "{now}; end=$((up + {seconds})); until {{ {line}\n}}; do {now}; [ $up -lt $end ] || exit 99; usleep 200000; done"
        );
        let done = self.run(&script).limit(seconds + 60).done();
        if done.end != End::Exit(0) {
            let said = format!("{}{}", done.stdout, done.stderr);
            let last = said.trim_end().lines().last().unwrap_or("nothing");
            self.fail(&format!("{what} did not come within {seconds} s; asked was `{line}`, and it said last: {last}"));
        }
        done.stdout.trim_end().to_owned()
    }

    /// Asks something of QEMU.
    ///
    /// # Panics
    /// When QEMU refuses.
    #[track_caller]
    pub fn qmp(&self, command: &str, arguments: Value) -> Value {
        self.qmp.ask(command, &arguments).unwrap_or_else(|why| self.fail(&why))
    }

    /// Waits for an event of QEMU's whose data are the ones that are meant, and returns those.
    ///
    /// # Panics
    /// When it does not come within so many seconds.
    #[track_caller]
    pub fn event(&self, name: &str, seconds: u64, meant: impl Fn(&Value) -> bool) -> Value {
        self.wait(&format!("QEMU's event {name}"), Duration::from_secs(seconds), |notes| {
            let place = notes.events.iter().position(|event| event["event"] == name && meant(&event["data"]))?;
            notes.events.remove(place).map(|mut event| event["data"].take())
        })
    }

    /// A URL of a server that listens on 127.0.0.1 of this machine, as a guest with a network reaches it.
    pub fn url(&self, of_this_machine: &str) -> String {
        of_this_machine.replace("127.0.0.1", "10.0.2.2")
    }

    /// Powers it off in order: what it has written is flushed.
    ///
    /// # Panics
    /// When it does not power off.
    #[track_caller]
    pub fn power_off(self) -> Builder {
        self.sh("sync");
        self.hang_up();
        self.builder.clone()
    }

    /// Leaves it alone, as a test process that has ended would, and waits until it has powered itself off.
    ///
    /// # Panics
    /// When it has not within a minute.
    #[track_caller]
    pub fn hang_up(&self) {
        self.running.ending.store(true, Ordering::SeqCst);
        self.channel.close();
        self.wait("the guest's power-off", POWER_OFF, |notes| notes.over.then_some(()));
    }

    /// Cuts its power: QEMU is killed. What that loses is told at [`Disk`]. The result boots a guest alike, with the same disks.
    #[must_use]
    pub fn power_cut(self) -> Builder {
        self.running.ending.store(true, Ordering::SeqCst);
        self.running.qemu.kill();
        self.builder.clone()
    }

    /// Presses its reset button and waits until it has booted again.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn reset(&self) {
        self.running.board.note(|notes| notes.resets += 1);
        self.qmp("system_reset", Value::Null);
        let again = |notes: &mut Notes| (notes.boots > notes.resets).then_some(());
        self.wait("the guest's first answer after a reset", self.builder.limit, again);
        self.set_up();
    }

    /// What its console has shown so far.
    pub fn console(&self) -> String {
        self.running.console.text()
    }

    /// What belongs to devices that not every guest has.
    #[track_caller]
    fn set_up(&self) {
        let disks = &self.builder.disks;
        let mut script = String::from("ip link set lo up; ");
        if disks.iter().any(|disk| !disk.is_virtio_blk()) {
            script += "modprobe -a virtio_scsi sd_mod; ";
        }
        if disks.iter().any(Disk::is_virtio_blk) {
            script += "modprobe virtio_blk; ";
        }
        let interfaces = self.builder.interfaces();
        if !interfaces.is_empty() {
            script += "modprobe virtio_net; ";
        }
        for (mac, address) in interfaces {
            script += &format!(
                "N=$(basename $(dirname $(grep -l {mac} /sys/class/net/*/address))); \
                 ip addr add {address} dev $N; ip link set $N up; "
            );
        }
        self.sh(&script);
        let expected: u16 = disks.iter().map(Disk::count).sum();
        if expected > 0 {
            let line = format!("[ $(ls /sys/block | grep -c -E '^(sd|vd)') -eq {expected} ]");
            self.until(&format!("{expected} disks"), 30, &line);
        }
    }

    pub(crate) fn index(&self, disk: &Disk) -> usize {
        let place = self.builder.disks.iter().position(|known| known.wwid() == disk.wwid());
        place.expect("a disk of this guest")
    }

    #[track_caller]
    fn wait<T>(&self, what: &str, limit: Duration, look: impl FnMut(&mut Notes) -> Option<T>) -> T {
        self.running.board.wait(what, limit, look).unwrap_or_else(|why| self.fail(&why))
    }

    /// Fails the test.
    #[track_caller]
    pub(crate) fn fail(&self, why: &str) -> ! {
        self.channel.fail(why)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.running.ending.store(true, Ordering::SeqCst);
        self.running.qemu.kill();
        if !std::thread::panicking() {
            return;
        }
        let name = format!("{}-{}.log", self.builder.name, std::process::id());
        let kept = lane::logs().join(name);
        self.running.console.keep(&kept);
        eprintln!("the console of guest {} is kept: {}; its end:", self.builder.name, kept.display());
        eprintln!("{}", self.running.console.last_lines());
    }
}
