//! Whatever stands still is named while it does, and ends the run in bounded time: sources, networks, devices that never
//! answer. Devices hang for real: their file system is frozen, and the kernel keeps whoever writes there.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use e2e::server::Server;
use e2e::{Done, Image, KIB, Lab, Loop, MIB, Mount, Run, Running, exit, sample};
use nix::sys::signal::Signal;
use serde_json::json;

const CHUNK: u64 = 256 * KIB;
const SIZE: u64 = 6 * MIB + 512;
/// Two connections of this rate take about three seconds for the image.
const RATE: Option<&str> = Some("1m");
/// More than a run needs to see the stall, to wait for the device, and to say so, on a slow machine.
const SOON: Duration = Duration::from_secs(20);

struct Setting {
    // Fields are dropped in this order: a file system is unmounted before the device below it goes.
    mount: Mount,
    _disk: Loop,
    raw: Vec<u8>,
    image: Image,
    server: Server,
    lab: Lab,
}

/// An image that comes slowly, and a file system to be frozen.
fn setting() -> Setting {
    let lab = Lab::new();
    let raw = sample::noise(91, SIZE as usize);
    let image = lab.pack_bytes(&raw, "--chunk-size 256KiB --level 1");
    let disk = lab.path("disk");
    drop(sample::sparse(&disk, 40 * MIB));
    Run::tool("mke2fs").args(["-q", "-F", "-t", "ext4"]).arg(&disk).done().ok();
    let disk = Loop::attach(&disk);
    let mount = Mount::new("-t ext4", disk.path(), &lab.path("mnt"));
    let server = Server::nginx(&lab, &image.dir, RATE);
    Setting { mount, _disk: disk, raw, image, server, lab }
}

impl Setting {
    /// A file with old content on the file system.
    fn target(&self) -> PathBuf {
        let target = self.mount.path().join("target");
        sample::noise_file(&target, 92, SIZE);
        File::open(&target).unwrap().sync_all().unwrap();
        target
    }

    fn write(&self, target: &Path, options: &str) -> Run {
        self.image.write(self.server.url(), target).words("--connections 2 --request-size 8MiB").words(options)
    }

    /// A run that has written something but by far not all.
    fn begun(&self, target: &Path, options: &str) -> Running {
        let mut running = self.write(target, options).start();
        running.until("the third chunk", |_| self.has_third_chunk(target));
        running
    }

    fn has_third_chunk(&self, target: &Path) -> bool {
        let mut found = vec![0; CHUNK as usize];
        let at = 2 * CHUNK;
        File::open(target).unwrap().read_exact_at(&mut found, at).unwrap();
        found == self.raw[at as usize..][..CHUNK as usize]
    }

    fn spec(&self, target: &Path, options: &serde_json::Value) -> Run {
        let spec = json!({
            "run": "e2e-1",
            "image": {"name": "sample", "sources": [self.server.url()], "trust": [self.image.key.public]},
            "target": {"device": target},
            "options": options,
        });
        Run::provisioner().args(["run", "--json", "--spec"]).arg(self.lab.file("spec", spec.to_string().as_bytes()))
    }
}

/// A frozen file system. Thawed when dropped, and in any case after a while: a test that fails must not hang.
struct Frozen {
    over: Option<Sender<()>>,
    thawer: Option<JoinHandle<()>>,
}

impl Frozen {
    fn new(mount: &Mount) -> Self {
        let path = mount.path().to_owned();
        Run::tool("fsfreeze").arg("--freeze").arg(&path).done().ok();
        let (over, told) = channel();
        let thawer = std::thread::spawn(move || {
            let _ = told.recv_timeout(Duration::from_secs(45));
            Run::tool("fsfreeze").arg("--unfreeze").arg(&path).done();
        });
        Frozen { over: Some(over), thawer: Some(thawer) }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.over.take();
        let _ = self.thawer.take().map(JoinHandle::join);
    }
}

/// Waits until the run has said something, and demands that this is soon.
#[track_caller]
fn says_soon(running: &mut Running, words: &[&str]) {
    let since = Instant::now();
    for word in words {
        running.until(word, |running| {
            assert!(since.elapsed() < SOON, "no {word:?} after {SOON:?}:\n{}", running.stderr());
            running.stderr().contains(word)
        });
    }
}

#[track_caller]
fn first_chunk_is_zero(target: &Path) {
    let mut start = vec![1; CHUNK as usize];
    File::open(target).unwrap().read_exact_at(&mut start, 0).unwrap();
    assert!(start.iter().all(|byte| *byte == 0), "the first chunk is not zero");
}

fn frozen_for_good(engine: &str) {
    let setting = setting();
    let target = setting.target();
    let mut running = setting.begun(&target, &format!("--engine {engine} --stall-limit 2"));
    let frozen = Frozen::new(&setting.mount);
    let name = target.to_str().unwrap();
    says_soon(
        &mut running,
        &[
            "nothing has moved for 1 s: write: ",
            "target: uncertain",
            "error: nothing has moved for 2 s: write: ",
            &format!("{name} was given up: it may still be written"),
            &format!("hint: let nothing use {name}"),
        ],
    );
    // The kernel lets nobody end while it works for him; afterwards the process is gone with its exit code.
    drop(frozen);
    running.finish().exits(exit::DEVICE);
    first_chunk_is_zero(&target);
    // The device answers again, and the next run puts everything right. The kernel takes a while to close a ring, and only
    // then the lock on the file is free.
    let since = Instant::now();
    while File::open(&target).unwrap().try_lock().is_err() {
        assert!(since.elapsed() < SOON, "still locked");
        std::thread::sleep(Duration::from_millis(20));
    }
    setting.image.write(&setting.image.dir, &target).done().ok();
    assert!(fs::read(&target).unwrap() == setting.raw);
}

/// With all engines at once: these tests wait more than they work.
#[test]
fn a_device_that_never_answers_is_given_up() {
    std::thread::scope(|scope| {
        ["uring", "direct", "buffered"].iter().for_each(|engine| drop(scope.spawn(|| frozen_for_good(engine))));
    });
}

#[test]
fn a_device_that_answers_in_time_is_waited_for() {
    let setting = setting();
    let target = setting.target();
    let mut running = setting.begun(&target, "--stall-limit 8");
    let frozen = Frozen::new(&setting.mount);
    says_soon(&mut running, &["nothing has moved for 4 s: write: ", target.to_str().unwrap()]);
    drop(frozen);
    running.finish().ok().says("it goes on, after ").says("proven");
    assert!(fs::read(&target).unwrap() == setting.raw);
}

/// Not a file but a block device, whose bios do not come back. Through the page cache this shows only when it is flushed.
fn block_device_frozen(engine: &str, stage: &str) {
    let setting = setting();
    let backing = setting.target();
    let device = Loop::attach(&backing);
    let frozen = Frozen::new(&setting.mount);
    let write = setting.image.write(&setting.image.dir, device.path());
    let mut running = write.words(&format!("--engine {engine} --stall-limit 2")).start();
    let name = device.path().to_str().unwrap();
    says_soon(
        &mut running,
        &[
            &format!("error: nothing has moved for 2 s: {stage}: "),
            &format!("{name} was given up: it may still be written"),
        ],
    );
    drop(frozen);
    running.finish().exits(exit::DEVICE);
}

#[test]
fn a_block_device_whose_writes_or_flush_never_come_back_is_given_up() {
    std::thread::scope(|scope| {
        scope.spawn(|| block_device_frozen("uring", "write"));
        scope.spawn(|| block_device_frozen("direct", "write"));
        scope.spawn(|| block_device_frozen("buffered", "flush"));
    });
}

#[test]
fn ctrl_c_ends_a_run_whose_device_never_answers() {
    let setting = setting();
    let target = setting.target();
    let mut running = setting.begun(&target, "--stall-limit 5");
    let frozen = Frozen::new(&setting.mount);
    std::thread::sleep(Duration::from_millis(500));
    running.signal(Signal::SIGINT);
    says_soon(&mut running, &["error: cancelled", "have not come back", "was given up"]);
    drop(frozen);
    running.finish().exits(exit::CANCELLED);
    first_chunk_is_zero(&target);
}

#[test]
fn the_agent_warns_in_events_and_says_that_the_target_is_uncertain() {
    let setting = setting();
    let target = setting.target();
    let mut running =
        setting.spec(&target, &json!({"stall_limit": 2, "connections": 2, "request_size": 8 * MIB})).start();
    running.until("the third chunk", |_| setting.has_third_chunk(&target));
    let frozen = Frozen::new(&setting.mount);
    let since = Instant::now();
    running.until("the last event", |running| {
        assert!(since.elapsed() < SOON, "{}", running.stdout());
        running.stdout().contains("run-failed")
    });
    drop(frozen);
    let done = running.finish().exits(exit::DEVICE);
    let (warned, failure) = warning_and_failure(&done);
    assert!(warned.starts_with("nothing has moved for 1 s: write: "), "{warned}");
    assert_eq!((&failure["error"], &failure["target"]), (&json!("device"), &json!("uncertain")), "{failure}");
    assert_eq!(failure["retryable"], true, "{failure}");
    assert!(failure["message"].as_str().unwrap().contains("was given up"), "{failure}");
}

/// The first warning and the last event.
fn warning_and_failure(done: &Done) -> (String, serde_json::Value) {
    let mut events: Vec<_> = done.json().into_iter().map(|mut event| event["event"].take()).collect();
    let warned = events.iter().find(|event| event["kind"] == "warning").expect("a warning");
    (warned["message"].as_str().unwrap().to_owned(), events.pop().unwrap())
}

#[test]
fn a_source_that_falls_silent_is_named() {
    let mut setting = setting();
    let target = setting.target();
    let running = setting.begun(&target, "--stall-limit 2");
    setting.server.signal(Signal::SIGSTOP);
    let silent = Instant::now();
    let done = running.finish().exits(exit::SOURCE);
    assert!(silent.elapsed() < SOON, "{:?}", silent.elapsed());
    let source = format!("source: no bytes come from {}", setting.server.url());
    done.says(&format!("nothing has moved for 1 s: {source}"))
        .says(&format!("error: nothing has moved for 2 s: {source}"));
    first_chunk_is_zero(&target);
}

#[test]
fn the_agent_names_the_stage_of_a_stall_in_its_progress() {
    let mut setting = setting();
    let target = setting.target();
    let mut running =
        setting.spec(&target, &json!({"stall_limit": 4, "connections": 2, "request_size": 8 * MIB})).start();
    running.until("the third chunk", |_| setting.has_third_chunk(&target));
    setting.server.signal(Signal::SIGSTOP);
    let done = running.finish().exits(exit::SOURCE);
    let (warned, failure) = warning_and_failure(&done);
    assert!(warned.starts_with("nothing has moved for 2 s: source: "), "{warned}");
    assert_eq!((&failure["error"], &failure["target"]), (&json!("source"), &json!("not-bootable")), "{failure}");
    let progress = done.json().into_iter().rev().find(|event| event["event"]["kind"] == "progress").unwrap();
    assert_eq!(progress["event"]["rates"]["source"], 0, "{progress}");
}

#[test]
fn a_source_that_comes_back_in_time_is_waited_for() {
    let mut setting = setting();
    let target = setting.target();
    let mut running = setting.begun(&target, "--stall-limit 8");
    setting.server.signal(Signal::SIGSTOP);
    says_soon(&mut running, &["nothing has moved for 4 s: source: "]);
    setting.server.signal(Signal::SIGCONT);
    running.finish().ok().says("it goes on").says("proven");
    assert!(fs::read(&target).unwrap() == setting.raw);
}

/// A port whose queue of connections is full, so that the kernel drops every SYN, as a firewall would.
struct Unreachable {
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl Unreachable {
    fn at(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port of the server that is gone");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok();
        let queued: Vec<_> = (0..10_000).map_while(connect).collect();
        assert!(queued.len() < 10_000, "the queue of connections never gets full");
        Unreachable { _listener: listener, _queued: queued }
    }
}

#[test]
fn a_source_that_cannot_be_reached_is_named_network() {
    let setting = setting();
    let target = setting.target();
    let running = setting.begun(&target, "--stall-limit 6");
    let Setting { server, mount, .. } = setting;
    let (url, port) = (server.url(), server.port());
    drop(server);
    let _unreachable = Unreachable::at(port);
    let gone = Instant::now();
    let done = running.finish().exits(exit::SOURCE);
    assert!(gone.elapsed() < SOON, "{:?}", gone.elapsed());
    done.says(&format!("error: nothing has moved for 6 s: network: no connection to {url}"));
    first_chunk_is_zero(&target);
    drop(mount);
}

/// Time in which the writer itself did not run is nobody's stall, even when the device was just not answering.
#[test]
fn a_writer_that_was_stopped_blames_nobody() {
    let setting = setting();
    let target = setting.target();
    let mut running = setting.begun(&target, "--stall-limit 4");
    let frozen = Frozen::new(&setting.mount);
    std::thread::sleep(Duration::from_millis(1200));
    running.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_secs(4));
    running.signal(Signal::SIGCONT);
    std::thread::sleep(Duration::from_millis(200));
    drop(frozen);
    running.finish().ok();
    assert!(fs::read(&target).unwrap() == setting.raw);
}
