//! Servers that go away and people who press Ctrl-C: a clear error in bounded time, and a target that cannot boot.

use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use e2e::lab::listing;
use e2e::server::Server;
use e2e::{Image, KIB, Lab, MIB, Run, Running, Target, exit, sample};
use nix::sys::signal::Signal;

const CHUNK: u64 = 256 * KIB;
const SIZE: u64 = 16 * MIB + 512;
/// Two connections of this rate take about seven seconds for the image, whose ends no test waits for. Requests must be
/// large: nginx lets the first second's bytes of each pass at once.
const RATE: Option<&str> = Some("1m");

struct Setting {
    lab: Lab,
    raw: Vec<u8>,
    image: Image,
}

fn setting() -> Setting {
    let lab = Lab::new();
    let raw = sample::noise(41, SIZE as usize);
    let image = lab.pack_bytes(&raw, "--chunk-size 256KiB --level 1");
    Setting { lab, raw, image }
}

impl Setting {
    fn write(&self, from: &[&str], to: &Target) -> Run {
        let write = Run::imgstream().arg("write").args(from).arg(to.path()).arg("--trust").arg(&self.image.key.public);
        write.words("--connections 2 --request-size 8MiB")
    }

    /// Whether the third chunk has arrived while the first is withheld.
    fn midway(&self, target: &Target) -> bool {
        target.settle();
        let mut found = vec![0; CHUNK as usize];
        let at = 2 * CHUNK;
        let file = std::fs::File::open(target.backing()).unwrap();
        file.read_exact_at(&mut found, at).unwrap();
        found == self.raw[at as usize..][..CHUNK as usize] && target.starts_with_zeros(CHUNK)
    }

    /// A run that has written something but by far not all.
    fn begun(&self, from: &[&str], to: &Target, options: &str) -> Running {
        let mut running = self.write(from, to).words(options).start();
        running.until("the first chunks", |_| self.midway(to));
        running
    }

    #[track_caller]
    fn unbootable(&self, target: &Target) {
        target.is_unbootable_and_never_wrong(&self.raw, CHUNK);
        let right = target.right_chunks(&self.raw, CHUNK);
        assert!((1..60).contains(&right), "{right} chunks were written: that is not midway");
    }
}

#[track_caller]
fn soon(since: Instant, bound: u64) {
    assert!(since.elapsed() < Duration::from_secs(bound), "it took {:?}", since.elapsed());
}

#[test]
fn a_server_that_dies_midway_is_an_error_in_bounded_time() {
    let setting = setting();
    for device in [true, false] {
        let server = Server::nginx(&setting.lab, &setting.image.dir, RATE);
        let target = if device { Target::device(&setting.lab, SIZE, "") } else { Target::file(&setting.lab, SIZE) };
        let running = setting.begun(&[&server.url()], &target, "");
        let authority = server.authority();
        drop(server);
        let gone = Instant::now();
        running.finish().exits(exit::SOURCE).says(&authority);
        soon(gone, 30);
        setting.unbootable(&target);
    }
}

#[test]
fn a_server_that_falls_silent_midway_is_an_error_in_bounded_time() {
    let setting = setting();
    let mut server = Server::nginx(&setting.lab, &setting.image.dir, RATE);
    let target = Target::file(&setting.lab, SIZE);
    let running = setting.begun(&[&server.url()], &target, "--timeout 1");
    server.signal(Signal::SIGSTOP);
    let silent = Instant::now();
    running.finish().exits(exit::SOURCE).says(&server.authority());
    soon(silent, 40);
    setting.unbootable(&target);
}

#[test]
fn a_server_that_comes_back_is_used_again() {
    let setting = setting();
    let server = Server::nginx(&setting.lab, &setting.image.dir, RATE);
    let target = Target::device(&setting.lab, SIZE, "");
    let running = setting.begun(&[&server.url()], &target, "");
    let port = server.port();
    drop(server);
    std::thread::sleep(Duration::from_millis(800));
    let _again = Server::nginx_at(&setting.lab, &setting.image.dir, None, port).expect("nginx once more");
    running.finish().ok();
    assert!(target.now() == setting.raw);
}

#[test]
fn when_one_of_two_servers_dies_the_other_does_it_all() {
    let setting = setting();
    let dying = Server::nginx(&setting.lab, &setting.image.dir, RATE);
    let staying = Server::nginx(&setting.lab, &setting.image.dir, Some("2m"));
    let target = Target::device(&setting.lab, SIZE, "");
    let running = setting.begun(&[&dying.url(), &staying.url()], &target, "");
    drop(dying);
    running.finish().ok();
    assert!(target.now() == setting.raw);
}

fn signalled(signal: Signal, engine: &str) {
    let setting = setting();
    let server = Server::nginx(&setting.lab, &setting.image.dir, RATE);
    let target = Target::device(&setting.lab, SIZE, "");
    let mut running = setting.begun(&[&server.url()], &target, &format!("--engine {engine}"));
    running.signal(signal);
    let told = Instant::now();
    running.finish().exits(exit::CANCELLED).says("cancelled");
    soon(told, 5);
    setting.unbootable(&target);
    drop(target.loop_device().claim().expect("the device must be free again"));
}

#[test]
fn sigint_midway_cancels_with_uring() {
    signalled(Signal::SIGINT, "uring");
}

#[test]
fn sigterm_midway_cancels_with_direct() {
    signalled(Signal::SIGTERM, "direct");
}

#[test]
fn sigint_midway_cancels_with_buffered() {
    signalled(Signal::SIGINT, "buffered");
}

#[test]
fn sigint_cancels_while_a_server_is_silent() {
    let setting = setting();
    let mut server = Server::nginx(&setting.lab, &setting.image.dir, RATE);
    let target = Target::file(&setting.lab, SIZE);
    let mut running = setting.begun(&[&server.url()], &target, "");
    server.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(300));
    running.signal(Signal::SIGINT);
    let told = Instant::now();
    running.finish().exits(exit::CANCELLED);
    soon(told, 5);
    setting.unbootable(&target);
}

#[test]
fn sigint_cancels_while_a_server_is_silent_from_the_start() {
    let setting = setting();
    let mut server = Server::nginx(&setting.lab, &setting.image.dir, RATE);
    server.signal(Signal::SIGSTOP);
    let target = Target::file(&setting.lab, SIZE);
    let mut running = setting.write(&[&server.url()], &target).limit(15).start();
    std::thread::sleep(Duration::from_millis(500));
    running.signal(Signal::SIGINT);
    let told = Instant::now();
    running.finish().exits(exit::CANCELLED);
    soon(told, 5);
    target.is_untouched();
}

#[test]
fn a_writer_that_is_killed_leaves_nothing_that_boots_and_the_next_one_finishes() {
    let setting = setting();
    let server = Server::nginx(&setting.lab, &setting.image.dir, RATE);
    let target = Target::device(&setting.lab, SIZE, "");
    let mut running = setting.begun(&[&server.url()], &target, "");
    running.signal(Signal::SIGKILL);
    drop(running);
    setting.unbootable(&target);
    setting.image.write(&setting.image.dir, target.path()).done().ok();
    assert!(target.now() == setting.raw);
}

#[test]
fn unpack_that_is_interrupted_leaves_nothing() {
    let setting = setting();
    let server = Server::nginx(&setting.lab, &setting.image.dir, RATE);
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let out = setting.lab.fresh_dir("out");
        let unpack = Run::imgstream().args(["unpack", &server.url()]).arg(out.join("raw"));
        let mut running = unpack.arg("--trust").arg(&setting.image.key.public).start();
        running.until("a partial file", |_| !listing(&out).is_empty());
        assert!(!out.join("raw").exists(), "it must not have its name yet");
        running.signal(signal);
        running.finish().exits(exit::CANCELLED);
        assert_eq!(listing(&out), Vec::<String>::new());
    }
}

#[test]
fn serve_ends_when_told() {
    let setting = setting();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut serve = Run::imgstream().arg("serve").arg(&setting.image.dir).words("--listen 127.0.0.1:0").start();
        serve.until("its address", |serve| serve.stderr().contains("listening on"));
        serve.signal(signal);
        let told = Instant::now();
        let done = serve.finish();
        soon(told, 5);
        assert!(matches!(done.status.code(), Some(0 | exit::CANCELLED)), "{done:?}");
    }
}
