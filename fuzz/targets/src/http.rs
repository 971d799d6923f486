//! Answers of a server, given to the real client over a loopback connection: a source never hands on more than was asked
//! for, never a part that is not said to be that part, never a blob with another digest, and it always comes back.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use imgstream::digest::Digest;
use imgstream::error::{Error, Kind};
use imgstream::manifest::BlobRef;
use imgstream::manifest::layout::Choice;
use imgstream::source::{self, Locator, Source, SourceOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;

use crate::home::stay_home;

/// The blob that is asked for.
pub const BLOB: &[u8] = b"sixty-four bytes that the client asks for, all of them or a part";
/// The part that is asked for.
pub const PART: Range<u64> = 16..48;
/// Parts one answer of the server from the next.
pub const NEXT_REPLY: &[u8] = b"\n====\n";

/// Longer than anything here takes, loaded machines included; shorter than the client's own patience.
const HANGS: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the server leaves a connection open for another request, where it is one that does.
const KEPT_OPEN: Duration = Duration::from_millis(2);
/// Requests are a few lines.
const LONGEST_HEAD: usize = 16 << 10;

/// The first byte says what is asked for (its two lowest bits), whether connections are kept open (4) and whether
/// answers come in small pieces (8); the rest is what the server answers, one answer after the other.
pub fn http(data: &[u8]) -> bool {
    let Some((how, replies)) = data.split_first() else { return false };
    let port = Port::take();
    let authority = port.0.local_addr().expect("an address").to_string();
    let sent = stay_home(replies, &authority);
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = port.0.try_clone().and_then(tokio::net::TcpListener::from_std).expect("the listener");
        let server = Server { replies: split(&sent), keep_open: how & 4 != 0, in_pieces: how & 8 != 0 };
        tokio::spawn(server.run(listener));
        let asked = ask(how & 3, &authority, &sent);
        tokio::time::timeout(HANGS, asked).await.expect("the client hangs though the server has closed")
    })
}

async fn ask(what: u8, authority: &str, sent: &[u8]) -> bool {
    let locator = if what == 3 { format!("oci+http://{authority}/sample:7") } else { format!("http://{authority}/") };
    let locator: Locator = locator.parse().expect("a locator");
    let options = SourceOptions { timeout: PATIENCE, ..SourceOptions::default() };
    let source = source::connect(&locator, &options).expect("a source");
    match what {
        0 => part(source.as_ref(), sent).await,
        1 => whole(source.as_ref()).await,
        _ => manifest(source.as_ref()).await,
    }
}

fn blob() -> BlobRef {
    BlobRef { digest: Digest::of(BLOB), size: BLOB.len() as u64 }
}

async fn part(source: &dyn Source, sent: &[u8]) -> bool {
    let mut stream = match source::open_range(source, blob(), PART).await {
        Ok(stream) => stream,
        Err(error) => return is_the_sources_fault(&error),
    };
    let said = |text: String| sent.windows(text.len()).any(|window| window.eq_ignore_ascii_case(text.as_bytes()));
    assert!(said(format!("bytes {}-{}/", PART.start, PART.end - 1)), "a part that is not said to be that part");
    let mut got = 0;
    loop {
        match stream.next().await {
            Ok(Some(bytes)) => {
                got += bytes.len() as u64;
                assert!(got <= PART.end - PART.start, "more than was asked for");
                assert!(sent.windows(bytes.len()).any(|window| window == bytes), "bytes that nobody sent");
            }
            Ok(None) => {
                assert_eq!(got, PART.end - PART.start, "an end too early was taken for the end");
                return true;
            }
            Err(error) => return is_the_sources_fault(&error),
        }
    }
}

async fn whole(source: &dyn Source) -> bool {
    match source::fetch_blob(source, blob(), 100, "the blob").await {
        Ok(bytes) => {
            assert_eq!(bytes, BLOB, "another blob was taken for this one");
            true
        }
        Err(error) => is_the_sources_fault(&error),
    }
}

async fn manifest(source: &dyn Source) -> bool {
    let choice = Choice { name: Some("sample".into()), architecture: Some("s390x".into()) };
    match source.manifest(&choice).await {
        Ok(bytes) => imgstream::manifest::layout::envelope_of(&bytes).is_ok(),
        Err(error) => is_the_sources_fault(&error),
    }
}

/// Checks an error; nothing was accepted.
fn is_the_sources_fault(error: &Error) -> bool {
    assert!(matches!(error.kind(), Kind::Source | Kind::Image), "{error:?}");
    assert!(!error.to_string().is_empty());
    false
}

fn split(mut replies: &[u8]) -> VecDeque<Vec<u8>> {
    let mut parts = VecDeque::new();
    while let Some(at) = replies.windows(NEXT_REPLY.len()).position(|window| window == NEXT_REPLY) {
        parts.push_back(replies[..at].to_vec());
        replies = &replies[at + NEXT_REPLY.len()..];
    }
    parts.push_back(replies.to_vec());
    parts
}

/// A server that reads requests, and answers whatever it was given.
struct Server {
    replies: VecDeque<Vec<u8>>,
    keep_open: bool,
    in_pieces: bool,
}

impl Server {
    async fn run(mut self, listener: tokio::net::TcpListener) {
        while let Ok((mut connection, _)) = listener.accept().await {
            // A connection that breaks is the client's decision.
            let _ = self.answer(&mut connection).await;
        }
    }

    async fn answer(&mut self, connection: &mut TcpStream) -> std::io::Result<()> {
        connection.set_nodelay(true)?;
        let mut asked = read_head(connection).await?;
        while asked {
            let Some(reply) = self.replies.pop_front() else { return Ok(()) };
            let piece = if self.in_pieces { (reply.len() / 16).max(7) } else { reply.len().max(1) };
            for piece in reply.chunks(piece) {
                connection.write_all(piece).await?;
                tokio::task::yield_now().await;
            }
            // The client may wait for more of this answer, which never comes: so does the server, but not for long.
            let again = tokio::time::timeout(KEPT_OPEN, read_head(connection));
            asked = self.keep_open && again.await.is_ok_and(|asked| asked.unwrap_or(false));
        }
        connection.shutdown().await
    }
}

/// Reads a request up to the empty line that ends it; `false` when none came.
async fn read_head(connection: &mut TcpStream) -> std::io::Result<bool> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > LONGEST_HEAD || connection.read_buf(&mut head).await? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The one port that all runs share, so that a million of them need no million ports. One run at a time.
struct Port(MutexGuard<'static, TcpListener>);

impl Port {
    fn take() -> Self {
        static PORT: OnceLock<Mutex<TcpListener>> = OnceLock::new();
        let port = PORT.get_or_init(|| {
            let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port");
            listener.set_nonblocking(true).expect("a listener that does not block");
            Mutex::new(listener)
        });
        let port = Port(port.lock().unwrap_or_else(PoisonError::into_inner));
        // What the run before left waiting is not this run's.
        while port.0.accept().is_ok() {}
        port
    }
}
