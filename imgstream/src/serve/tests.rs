//! The server as a whole, over sockets and with short bounds. Not here: paths and ranges, tested where they are parsed.

use super::*;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream as Socket;

use nix::sys::stat::Mode;

pub(super) const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A server with short bounds, on a layout with one sparse 64 MiB blob.
struct Running {
    root: tempfile::TempDir,
    address: SocketAddr,
    shutdown: CancellationToken,
    thread: Option<std::thread::JoinHandle<io::Result<()>>>,
}

impl Running {
    fn start(bounds: Bounds) -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("blobs/sha256")).unwrap();
        std::fs::write(root.path().join("index.json"), "{}").unwrap();
        File::create(root.path().join("blobs/sha256").join(HEX)).unwrap().set_len(64 << 20).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let (path, token) = (root.path().to_owned(), shutdown.clone());
        let thread = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
                let listener = TcpListener::from_std(listener)?;
                serve_within(bounds, path, listener, ServeOptions::default(), token).await
            })
        });
        Self { root, address, shutdown, thread: Some(thread) }
    }

    fn ask(&self, request: &str) -> Socket {
        let mut socket = Socket::connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        socket
    }

    fn stop(&mut self) -> Option<io::Result<()>> {
        self.shutdown.cancel();
        self.thread.take().map(|thread| thread.join().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

fn get_blob() -> String {
    format!("GET /blobs/sha256/{HEX} HTTP/1.1\r\nHost: t\r\n\r\n")
}

/// Everything until the server closes, a reset included.
fn rest(mut socket: Socket) -> Vec<u8> {
    let mut all = Vec::new();
    if let Err(error) = socket.read_to_end(&mut all) {
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    }
    all
}

#[test]
fn a_client_that_asks_nothing_is_let_go() {
    let running = Running::start(Bounds { header: Duration::from_millis(300), ..Bounds::default() });
    assert!(!rest(running.ask("GET /index.json HT")).starts_with(b"HTTP/1.1 200"));
    // The same between two requests of one connection.
    let idle = rest(running.ask("GET /index.json HTTP/1.1\r\nHost: t\r\n\r\n"));
    assert!(idle.ends_with(b"\r\n\r\n{}"), "{}", String::from_utf8_lossy(&idle));
}

#[test]
fn a_client_that_takes_nothing_is_let_go() {
    let running = Running::start(Bounds { stalled_write: Duration::from_millis(300), ..Bounds::default() });
    let socket = running.ask(&get_blob());
    std::thread::sleep(Duration::from_secs(1));
    assert!(rest(socket).len() < 64 << 20);
}

#[test]
fn a_slow_client_is_not() {
    let running = Running::start(Bounds { stalled_write: Duration::from_secs(1), ..Bounds::default() });
    let mut socket = running.ask(&get_blob());
    let (mut got, mut piece) = (0, vec![0; 4 << 20]);
    while got < 64 << 20 {
        std::thread::sleep(Duration::from_millis(100));
        let n = socket.read(&mut piece).unwrap();
        assert_ne!(n, 0, "closed after {got} bytes");
        got += n;
    }
}

#[test]
fn connections_beyond_the_limit_wait() {
    let running = Running::start(Bounds { connections: 1, ..Bounds::default() });
    let first = running.ask("");
    std::thread::sleep(Duration::from_millis(100));
    let mut second = running.ask("GET /index.json HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    second.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert!(second.read(&mut [0; 1]).is_err());
    drop(first);
    second.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(rest(second).starts_with(b"HTTP/1.1 200 "));
}

#[test]
fn one_host_header() {
    let running = Running::start(Bounds::default());
    for hosts in ["", "Host: a\r\nHost: b\r\n"] {
        let request = format!("GET /index.json HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
        assert!(rest(running.ask(&request)).starts_with(b"HTTP/1.1 400 "));
    }
    assert!(rest(running.ask("GET /index.json HTTP/1.0\r\n\r\n")).starts_with(b"HTTP/1.0 200 "));
}

#[test]
fn a_file_cut_short_cuts_the_connection() {
    let running = Running::start(Bounds::default());
    let mut socket = running.ask(&get_blob());
    socket.read_exact(&mut [0; 1]).unwrap();
    let blob = running.root.path().join("blobs/sha256").join(HEX);
    File::options().write(true).open(blob).unwrap().set_len(1 << 20).unwrap();
    assert!(rest(socket).len() < 64 << 20);
}

#[test]
fn shutdown_waits_for_a_request_but_not_for_ever() {
    // One that finishes…
    let mut running = Running::start(Bounds::default());
    let mut socket = running.ask(&get_blob());
    socket.read_exact(&mut [0; 1]).unwrap();
    running.shutdown.cancel();
    std::thread::sleep(Duration::from_millis(300));
    assert!(Socket::connect(running.address).is_err(), "still accepting");
    assert!(rest(socket).len() > 64 << 20);
    running.stop().unwrap().unwrap();

    // … and one that does not.
    let mut running = Running::start(Bounds { drain: Duration::from_millis(300), ..Bounds::default() });
    let mut socket = running.ask(&get_blob());
    socket.read_exact(&mut [0; 1]).unwrap();
    let begin = std::time::Instant::now();
    running.stop().unwrap().unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(rest(socket).len() < 64 << 20);
}

#[test]
fn a_pipe_in_a_blobs_place_is_not_waited_for() {
    let running = Running::start(Bounds::default());
    let blob = running.root.path().join("blobs/sha256").join(HEX);
    std::fs::remove_file(&blob).unwrap();
    nix::unistd::mkfifo(&blob, Mode::S_IRUSR).unwrap();
    let request = format!("GET /blobs/sha256/{HEX} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    assert!(rest(running.ask(&request)).starts_with(b"HTTP/1.1 404 "));
}

#[test]
fn the_root_must_be_a_directory() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        serve(file.path().to_owned(), listener, ServeOptions::default(), CancellationToken::new()).await
    });
    assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::NotADirectory);
}
