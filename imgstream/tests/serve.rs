//! `imgstream::serve` as others meet it: through `curl`, and over TLS with a certificate made by `openssl`.
//! Both commands must be there; without them these tests fail.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use imgstream::serve::{ServeOptions, serve, tls_config};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// An odd length, and more than a few of the server's pieces.
const BLOB_LEN: usize = 9 * 1024 * 1024 + 4321;
/// Names only: the server does not check digests, its clients do.
const BLOB: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const LINK: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const DIRECTORY: &str = "2222222222222222222222222222222222222222222222222222222222222222";
const MISSING: &str = "3333333333333333333333333333333333333333333333333333333333333333";
const INDEX: &str = "{\"schemaVersion\":2,\"manifests\":[]}";

/// A served layout, in a directory that also holds what must not be served.
struct Server {
    dir: TempDir,
    blob: Vec<u8>,
    address: SocketAddr,
    scheme: &'static str,
    shutdown: CancellationToken,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Server {
    fn plain() -> Self {
        Self::start(|_| ServeOptions::default())
    }

    fn start(options: impl FnOnce(&Path) -> ServeOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let blob = noise(BLOB_LEN);
        fs::write(dir.path().join("secret"), "secret").unwrap();
        let layout = dir.path().join("layout");
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(layout.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
        fs::write(layout.join("index.json"), INDEX).unwrap();
        fs::write(layout.join("secret"), "secret").unwrap();
        fs::write(blobs.join("secret"), "secret").unwrap();
        fs::write(blobs.join(BLOB), &blob).unwrap();
        fs::write(blobs.join(EMPTY), "").unwrap();
        fs::create_dir(blobs.join(DIRECTORY)).unwrap();
        symlink(dir.path().join("secret"), blobs.join(LINK)).unwrap();

        let options = options(dir.path());
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let thread = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                serve(layout, listener, options, token).await
            })
        });
        Self { dir, blob, address, scheme, shutdown, thread: Some(thread) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn blobs(&self) -> PathBuf {
        self.path("layout/blobs/sha256")
    }

    fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// `curl` on a path, with further arguments.
    fn curl(&self, path: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--path-as-is", "--noproxy", "*", "--max-time", "60"]);
        command.args(arguments).arg(self.url(path));
        command
    }

    /// What `curl` got, which must be an answer.
    fn ask(&self, path: &str, arguments: &[&str]) -> Answer {
        let mut arguments = arguments.to_vec();
        arguments.push("--include");
        Answer::from(run(&mut self.curl(path, &arguments)))
    }

    fn blob(&self, arguments: &[&str]) -> Answer {
        self.ask(&blob_path(BLOB), arguments)
    }

    fn stop(&mut self) -> Option<io::Result<()>> {
        self.shutdown.cancel();
        self.thread.take().map(|thread| thread.join().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

impl Answer {
    fn from(output: Vec<u8>) -> Self {
        let end = output.windows(4).position(|four| four == b"\r\n\r\n").expect("a header's end");
        let headers = String::from_utf8(output[..end].to_vec()).unwrap();
        let status = headers.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, headers, body: output[end + 4..].to_vec() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// A part of `whole`, exactly and correctly labelled.
    fn assert_part(&self, whole: &[u8], first: usize, last: usize) {
        assert_eq!(self.status, 206, "{}", self.headers);
        let range = format!("bytes {first}-{last}/{}", whole.len());
        assert_eq!(self.header("content-range"), Some(range.as_str()));
        assert_eq!(self.header("content-length"), Some((last - first + 1).to_string().as_str()));
        assert!(self.body == whole[first..=last], "wrong bytes in {range}");
    }

    fn assert_whole(&self, whole: &[u8]) {
        assert_eq!(self.status, 200, "{}", self.headers);
        assert_eq!(self.header("content-range"), None);
        assert_eq!(self.header("content-length"), Some(whole.len().to_string().as_str()));
        assert!(self.body == whole, "wrong bytes");
    }
}

/// Runs a command that must be there and succeed.
fn run(command: &mut Command) -> Vec<u8> {
    let output = output(command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {stderr}", output.status);
    output.stdout
}

fn output(command: &mut Command) -> Output {
    match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => panic!("{:?} is needed for this test: {error}", command.get_program()),
    }
}

/// Bytes without a period (xorshift).
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(len).collect()
}

fn blob_path(hex: &str) -> String {
    format!("/blobs/sha256/{hex}")
}

#[test]
fn whole_files() {
    let server = Server::plain();

    let blob = server.blob(&[]);
    blob.assert_whole(&server.blob);
    assert_eq!(blob.header("etag"), Some(format!("\"sha256:{BLOB}\"").as_str()));
    assert_eq!(blob.header("accept-ranges"), Some("bytes"));
    assert_eq!(blob.header("content-type"), Some("application/octet-stream"));
    assert!(blob.header("cache-control").unwrap().contains("immutable"));

    let index = server.ask("/index.json", &[]);
    index.assert_whole(INDEX.as_bytes());
    assert_eq!(index.header("content-type"), Some("application/vnd.oci.image.index.v1+json"));
    assert_eq!(index.header("cache-control"), Some("no-cache"));
    assert!(index.header("etag").unwrap().starts_with("W/"));

    server.ask("/oci-layout", &[]).assert_whole(b"{\"imageLayoutVersion\":\"1.0.0\"}");
    server.ask(&blob_path(EMPTY), &[]).assert_whole(b"");
}

#[test]
fn head_is_get_without_the_body() {
    let server = Server::plain();
    let get = server.blob(&[]);
    let head = server.blob(&["--head"]);
    assert_eq!(head.status, 200);
    assert!(head.body.is_empty());
    for name in ["content-length", "content-type", "etag", "accept-ranges", "cache-control"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
    // Ranges are for GET only.
    assert_eq!(server.blob(&["--head", "--range", "0-9"]).status, 200);
    assert_eq!(server.ask(&blob_path(MISSING), &["--head"]).status, 404);
}

#[test]
fn ranges_of_each_form() {
    let server = Server::plain();
    let (whole, last) = (&server.blob, BLOB_LEN - 1);
    let piece = 512 * 1024;

    server.blob(&["--range", "0-0"]).assert_part(whole, 0, 0);
    server.blob(&["--range", "7-1048583"]).assert_part(whole, 7, 1_048_583);
    let across = format!("{}-{piece}", piece - 1);
    server.blob(&["--range", &across]).assert_part(whole, piece - 1, piece);
    server.blob(&["--range", "1000000-"]).assert_part(whole, 1_000_000, last);
    server.blob(&["--range", &format!("{last}-")]).assert_part(whole, last, last);
    server.blob(&["--range", "0-"]).assert_part(whole, 0, last);
    server.blob(&["--range", "-1"]).assert_part(whole, last, last);
    server.blob(&["--range", "-4321"]).assert_part(whole, BLOB_LEN - 4321, last);
    // More than there is.
    server.blob(&["--range", "5-99999999999999999999999"]).assert_part(whole, 5, last);
    server.blob(&["--range", "-99999999999"]).assert_part(whole, 0, last);
    // Also of what has no strong tag.
    server.ask("/index.json", &["--range", "1-3"]).assert_part(INDEX.as_bytes(), 1, 3);
}

#[test]
fn ranges_outside_the_file() {
    let server = Server::plain();
    let len = format!("bytes */{BLOB_LEN}");
    for range in [format!("{BLOB_LEN}-"), format!("{BLOB_LEN}-{}", BLOB_LEN + 5), "-0".to_owned()] {
        let answer = server.blob(&["--range", &range]);
        assert_eq!(answer.status, 416, "{range}");
        assert_eq!(answer.header("content-range"), Some(len.as_str()), "{range}");
    }
    let empty = server.ask(&blob_path(EMPTY), &["--range", "0-"]);
    assert_eq!((empty.status, empty.header("content-range")), (416, Some("bytes */0")));
}

#[test]
fn ranges_that_are_ignored() {
    let server = Server::plain();
    for range in
        ["bytes=0-1,5-6", "bytes=9-5", "bytes=a-b", "bytes=-", "bytes=", "lines=0-1", "bytes 0-1", "bytes=1-2-3"]
    {
        server.blob(&["--header", &format!("Range: {range}")]).assert_whole(&server.blob);
    }
    server.blob(&["--header", "Range: bytes=0-1", "--header", "Range: bytes=5-6"]).assert_whole(&server.blob);
}

#[test]
fn if_range() {
    let server = Server::plain();
    let ask = |validator: &str| server.blob(&["--range", "10-19", "--header", &format!("If-Range: {validator}")]);
    ask(&format!("\"sha256:{BLOB}\"")).assert_part(&server.blob, 10, 19);
    ask(&format!("\"sha256:{MISSING}\"")).assert_whole(&server.blob);
    ask(&format!("W/\"sha256:{BLOB}\"")).assert_whole(&server.blob);
    ask("Sun, 06 Nov 1994 08:49:37 GMT").assert_whole(&server.blob);
    // With another version in hand, what it lacks is not a range error.
    let beyond = format!("{BLOB_LEN}-");
    server.blob(&["--range", &beyond, "--header", "If-Range: \"other\""]).assert_whole(&server.blob);
    // A weak tag is never good enough.
    let tag = server.ask("/index.json", &[]).header("etag").unwrap().to_owned();
    server
        .ask("/index.json", &["--range", "0-1", "--header", &format!("If-Range: {tag}")])
        .assert_whole(INDEX.as_bytes());
}

#[test]
fn preconditions() {
    let server = Server::plain();
    let tag = format!("\"sha256:{BLOB}\"");
    let unmodified = server.blob(&["--header", &format!("If-None-Match: \"x\", {tag}")]);
    assert_eq!((unmodified.status, unmodified.header("etag")), (304, Some(tag.as_str())));
    server.blob(&["--header", "If-None-Match: \"x\""]).assert_whole(&server.blob);
    server.blob(&["--header", &format!("If-Match: {tag}")]).assert_whole(&server.blob);
    assert_eq!(server.blob(&["--header", "If-Match: \"x\""]).status, 412);

    // The index changes, and its tag with it.
    let tag = server.ask("/index.json", &[]).header("etag").unwrap().to_owned();
    let condition = format!("If-None-Match: {tag}");
    assert_eq!(server.ask("/index.json", &["--header", &condition]).status, 304);
    fs::write(server.path("layout/index.json"), "{}").unwrap();
    server.ask("/index.json", &["--header", &condition]).assert_whole(b"{}");
}

#[test]
fn nothing_but_the_layout() {
    let server = Server::plain();
    let mut paths: Vec<String> = [
        "/",
        "/secret",
        "/../secret",
        "/..%2fsecret",
        "/%2e%2e/secret",
        "/blobs",
        "/blobs/",
        "/blobs/sha256/",
        "/blobs/sha256/secret",
        "/blobs/sha256/../../../secret",
        "/blobs/sha256/..%2f..%2f..%2fsecret",
        "/blobs/sha256/%2e%2e/%2e%2e/index.json",
        "/blobs/../index.json",
        "/./index.json",
        "//index.json",
        "/index.json/",
        "/index.json%00",
        "/etc/passwd",
        "/../../../../../../../../etc/passwd",
        "//etc/passwd",
        "/blobs/sha256//etc/passwd",
    ]
    .map(str::to_owned)
    .into();
    paths.push(format!("/blobs/sha512/{BLOB}"));
    paths.push(format!("/blobs/sha256/../sha256/{BLOB}"));
    paths.extend([&BLOB.to_uppercase(), LINK, DIRECTORY, MISSING, &BLOB[1..]].map(blob_path));
    for path in paths {
        let answer = server.ask(&path, &[]);
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.body.windows(6).any(|six| six == b"secret"), "{path}");
        assert!(answer.header("content-length").is_some(), "{path}");
    }
    // Targets that are no path at all.
    for target in ["../secret", "secret", "*"] {
        let answer = server.ask("/", &["--request-target", target]);
        assert!(matches!(answer.status, 400 | 404), "{target}: {}", answer.status);
    }
}

#[test]
fn links_out_of_the_layout_are_not_followed() {
    let server = Server::plain();
    let outside = server.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join(MISSING), "secret").unwrap();
    // A directory on the way, not the file itself.
    fs::rename(server.blobs(), server.path("moved")).unwrap();
    symlink(&outside, server.blobs()).unwrap();
    assert_eq!(server.ask(&blob_path(MISSING), &[]).status, 404);
    fs::remove_file(server.path("layout/index.json")).unwrap();
    symlink(server.path("secret"), server.path("layout/index.json")).unwrap();
    assert_eq!(server.ask("/index.json", &[]).status, 404);
}

#[test]
fn other_methods_are_refused() {
    let server = Server::plain();
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        let answer = server.blob(&["--request", method]);
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    assert_eq!(server.blob(&["--data", "something"]).status, 405);
    assert!(fs::read(server.blobs().join(BLOB)).unwrap() == server.blob);
}

#[test]
fn connections_are_kept() {
    let server = Server::plain();
    let second = server.url("/index.json");
    let arguments = ["--output", "/dev/null", "--write-out", "%{num_connects} ", "--output", "/dev/null", &second];
    let connects = run(&mut server.curl("/oci-layout", &arguments));
    assert_eq!(String::from_utf8(connects).unwrap().trim(), "1 0");
}

#[test]
fn parallel_ranges_are_the_file() {
    let server = Server::plain();
    let part = BLOB_LEN.div_ceil(8);
    let parts: Vec<_> = (0..8)
        .map(|number| {
            let path = server.path(&format!("part-{number}"));
            let range = format!("{}-{}", number * part, (number + 1) * part - 1);
            let arguments = ["--fail", "--range", &range, "--output", path.to_str().unwrap()];
            let child = server.curl(&blob_path(BLOB), &arguments).spawn().expect("curl is needed for this test");
            (path, child)
        })
        .collect();
    let mut whole = Vec::new();
    for (path, mut child) in parts {
        assert!(child.wait().unwrap().success());
        whole.extend(fs::read(path).unwrap());
    }
    let joined = server.path("joined");
    fs::write(&joined, whole).unwrap();
    run(Command::new("cmp").arg(&joined).arg(server.blobs().join(BLOB)));
}

#[test]
fn a_file_cut_short_is_no_whole_file() {
    let server = Server::plain();
    let path = server.blobs().join(BLOB);
    // Large, and slow enough to be cut in the middle.
    fs::File::options().write(true).open(&path).unwrap().set_len(256 << 20).unwrap();
    let body = server.path("body");
    let arguments = ["--limit-rate", "20M", "--output", body.to_str().unwrap()];
    let child = server.curl(&blob_path(BLOB), &arguments).stderr(Stdio::piped()).spawn();
    let child = child.expect("curl is needed for this test");
    let begin = Instant::now();
    while fs::metadata(&body).map_or(0, |metadata| metadata.len()) == 0 {
        assert!(begin.elapsed() < Duration::from_secs(30), "nothing arrives");
        std::thread::sleep(Duration::from_millis(10));
    }
    fs::File::options().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
    let output = child.wait_with_output().unwrap();
    // 18: partial file; 56: connection reset.
    assert!(matches!(output.status.code(), Some(18 | 56)), "{output:?}");
    assert!(fs::metadata(&body).unwrap().len() < 256 << 20);
    assert_eq!(server.ask("/index.json", &[]).status, 200, "the server goes on");
}

/// A key and a certificate for 127.0.0.1, signed by itself.
fn certificate(dir: &Path) -> (PathBuf, PathBuf) {
    let (key, cert) = (dir.join("key.pem"), dir.join("cert.pem"));
    run(Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "2"])
        .args(["-subj", "/CN=imgstream test", "-addext", "subjectAltName=IP:127.0.0.1"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert));
    (cert, key)
}

#[test]
fn tls() {
    let server = Server::start(|dir| {
        let (cert, key) = certificate(dir);
        let tls = tls_config(&fs::read(cert).unwrap(), &fs::read(key).unwrap()).unwrap();
        ServeOptions { tls: Some(tls) }
    });
    let cert = server.path("cert.pem");
    let cert = cert.to_str().unwrap();
    server.blob(&["--cacert", cert]).assert_whole(&server.blob);
    server.blob(&["--cacert", cert, "--range", "-5000000"]).assert_part(
        &server.blob,
        BLOB_LEN - 5_000_000,
        BLOB_LEN - 1,
    );
    for version in ["1.2", "1.3"] {
        let arguments = ["--cacert", cert, "--tls-max", version, &format!("--tlsv{version}")];
        server.ask("/index.json", &arguments).assert_whole(INDEX.as_bytes());
    }
    // Offered HTTP/2, it chooses HTTP/1.1.
    let version = run(&mut server.curl(
        "/index.json",
        &["--cacert", cert, "--http2", "--output", "/dev/null", "--write-out", "%{http_version}"],
    ));
    assert_eq!(version, b"1.1");
    // Not trusted, so it is refused (60); and plain HTTP gets nothing.
    assert_eq!(output(&mut server.curl("/index.json", &[])).status.code(), Some(60));
    let plain = format!("http://{}/index.json", server.address);
    assert!(
        !output(Command::new("curl").args(["--silent", "--noproxy", "*", "--max-time", "60", &plain])).status.success()
    );
}

#[test]
fn tls_with_useless_files() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(dir.path());
    let (_, other_key) = certificate(other.path());
    let [cert, key, other_key] = [cert, key, other_key].map(|path| fs::read(path).unwrap());
    let refused = |cert: &[u8], key: &[u8]| tls_config(cert, key).unwrap_err().to_string();
    assert!(refused(b"", &key).contains("no CERTIFICATE"));
    assert!(refused(&cert, &cert).contains("private key"));
    assert!(refused(&cert, &other_key).contains("certificate and key"));
    let config: Arc<_> = tls_config(&cert, &key).unwrap();
    assert_eq!(config.alpn_protocols, [b"http/1.1".to_vec()]);
}

#[test]
fn shutdown_lets_a_download_finish() {
    let mut server = Server::plain();
    let body = server.path("body");
    // About two seconds.
    let arguments = ["--limit-rate", "5M", "--output", body.to_str().unwrap()];
    let mut child = server.curl(&blob_path(BLOB), &arguments).spawn().expect("curl is needed for this test");
    let begin = Instant::now();
    while fs::metadata(&body).map_or(0, |metadata| metadata.len()) == 0 {
        assert!(begin.elapsed() < Duration::from_secs(30), "nothing arrives");
        std::thread::sleep(Duration::from_millis(10));
    }
    server.shutdown.cancel();
    std::thread::sleep(Duration::from_millis(200));
    // 7: could not connect.
    assert_eq!(output(&mut server.curl("/index.json", &[])).status.code(), Some(7));
    server.stop().unwrap().unwrap();
    assert!(child.wait().unwrap().success());
    run(Command::new("cmp").arg(&body).arg(server.blobs().join(BLOB)));
}

#[test]
fn shutdown_without_work_is_prompt() {
    let mut server = Server::plain();
    assert_eq!(server.ask("/index.json", &[]).status, 200);
    let begin = Instant::now();
    server.stop().unwrap().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(2));
}
