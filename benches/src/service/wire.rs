//! HTTP/1.1 over TLS, as little of it as the service needs: a simulator that costs more than what it measures measures itself.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::failure::{Context, Failure, Result};

/// Largest head of an answer.
const MAX_HEAD: usize = 16 << 10;
/// How much is read at once.
const READ: usize = 16 << 10;

/// Where the service is, and by which certificates it is known.
#[derive(Clone)]
pub struct Net {
    /// Its address.
    pub address: SocketAddr,
    /// What it is trusted by.
    pub tls: Arc<rustls::ClientConfig>,
}

impl Net {
    /// A new connection.
    pub async fn connect(&self) -> Result<Wire> {
        let stream = TcpStream::connect(self.address).await.context("could not connect")?;
        stream.set_nodelay(true).context("could not set TCP_NODELAY")?;
        let name = ServerName::from(self.address.ip());
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await.context("the TLS handshake")?;
        Ok(Wire { stream, buffer: Vec::new() })
    }
}

/// A connection.
pub struct Wire {
    stream: TlsStream<TcpStream>,
    /// What was read and not taken yet.
    buffer: Vec<u8>,
}

/// The head of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Head {
    status: u16,
    /// Of its body; nothing where that comes in chunks.
    length: Option<usize>,
}

/// A request, ready to be sent.
pub fn request(method: &str, path: &str, token: &str, more: &str, body: Option<&str>) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: service\r\nauthorization: Bearer {token}\r\n{more}");
    if let Some(body) = body {
        text += &format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    } else {
        text += "\r\n";
    }
    text
}

impl Wire {
    /// Sends requests.
    pub async fn send(&mut self, text: &str) -> Result<()> {
        self.stream.write_all(text.as_bytes()).await.context("sending a request")?;
        self.stream.flush().await.context("sending a request")
    }

    /// The next answer: its status and its body.
    pub async fn answer(&mut self) -> Result<(u16, Vec<u8>)> {
        let Head { status, length } = self.head().await?;
        let length = length.context("an answer without a length")?;
        while self.buffer.len() < length {
            self.read().await?;
        }
        let body = self.buffer[..length].to_vec();
        self.buffer.drain(..length);
        Ok((status, body))
    }

    /// Sends a request and waits for its answer.
    pub async fn ask(&mut self, text: &str) -> Result<(u16, Vec<u8>)> {
        self.send(text).await?;
        self.answer().await
    }

    /// Begins to read a stream of events.
    pub async fn events(mut self, text: &str) -> Result<Events> {
        self.send(text).await?;
        let head = self.head().await?;
        if head != (Head { status: 200, length: None }) {
            return Err(Failure::new(format!("the stream of events was answered with {}", head.status)));
        }
        Ok(Events { wire: self, left: 0, text: Vec::new(), taken: 0, searched: 0, bytes: 0 })
    }

    async fn head(&mut self) -> Result<Head> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = head(&self.buffer[..end])?;
                self.buffer.drain(..end + 4);
                return Ok(head);
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(Failure::new("the head of an answer is too large"));
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<()> {
        self.buffer.reserve(READ);
        match self.stream.read_buf(&mut self.buffer).await.context("reading an answer")? {
            0 => Err(Failure::new("the service has closed a connection")),
            _ => Ok(()),
        }
    }
}

fn head(bytes: &[u8]) -> Result<Head> {
    let text = std::str::from_utf8(bytes).context("the head of an answer")?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).context("an answer's status")?;
    let mut length = (status == 204).then_some(0);
    for line in lines {
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse().context("an answer's length")?);
        }
    }
    Ok(Head { status, length })
}

/// A stream of events.
pub struct Events {
    wire: Wire,
    /// Of the chunk that is being read.
    left: usize,
    /// What has come of the stream, and how much of that was taken already.
    text: Vec<u8>,
    taken: usize,
    /// Until where no end of an event was found.
    searched: usize,
    /// How much came in all.
    pub bytes: u64,
}

/// An event.
#[derive(Debug)]
pub struct Event<'a> {
    /// Its kind.
    pub name: &'a str,
    /// Its number, where it has one.
    pub id: Option<u64>,
    /// JSON.
    pub data: &'a str,
    /// How large it is with all.
    pub size: usize,
}

impl Events {
    /// The next event. Comments are passed over.
    pub async fn next(&mut self) -> Result<Event<'_>> {
        let (begin, end) = loop {
            match self.block() {
                // What has no name is a comment, or says how long to wait.
                Some((begin, end)) if self.text[begin..end].starts_with(b"event: ") => break (begin, end),
                Some((begin, end)) if self.text[begin..end].starts_with(b"id: ") => break (begin, end),
                Some(_) => {}
                None => self.more().await?,
            }
        };
        let block = std::str::from_utf8(&self.text[begin..end]).context("an event")?;
        let mut event = Event { name: "", id: None, data: "", size: block.len() + 2 };
        for line in block.lines() {
            match line.split_once(": ").unwrap_or_default() {
                ("event", name) => event.name = name,
                ("id", id) => event.id = Some(id.parse().context("an event's id")?),
                ("data", data) => event.data = data,
                _ => {}
            }
        }
        Ok(event)
    }

    /// Takes what stands before the next empty line.
    fn block(&mut self) -> Option<(usize, usize)> {
        let from = self.searched.max(self.taken);
        let Some(found) = self.text[from..].windows(2).position(|two| two == b"\n\n") else {
            self.searched = self.text.len().saturating_sub(1);
            return None;
        };
        let (begin, end) = (self.taken, from + found);
        self.taken = end + 2;
        Some((begin, end))
    }

    /// Reads more of the stream out of its chunks.
    async fn more(&mut self) -> Result<()> {
        self.text.drain(..self.taken);
        self.searched = self.searched.saturating_sub(self.taken);
        self.taken = 0;
        while self.left == 0 {
            let Some(end) = self.wire.buffer.windows(2).position(|two| two == b"\r\n") else {
                self.wire.read().await?;
                continue;
            };
            // Each chunk ends with a line end, which stands before the next one's length.
            let length = std::str::from_utf8(&self.wire.buffer[..end]).context("a chunk's length")?;
            if !length.is_empty() {
                self.left = usize::from_str_radix(length, 16).context("a chunk's length")?;
                if self.left == 0 {
                    return Err(Failure::new("the service has ended a stream of events"));
                }
            }
            self.wire.buffer.drain(..end + 2);
        }
        if self.wire.buffer.is_empty() {
            self.wire.read().await?;
        }
        let length = self.wire.buffer.len().min(self.left);
        self.text.extend(self.wire.buffer.drain(..length));
        self.left -= length;
        self.bytes += length as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_answers() {
        let of = |text: &str| head(text.as_bytes()).ok();
        assert_eq!(of("HTTP/1.1 200 OK\r\nContent-Length: 12"), Some(Head { status: 200, length: Some(12) }));
        assert_eq!(of("HTTP/1.1 204 No Content"), Some(Head { status: 204, length: Some(0) }));
        assert_eq!(of("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked"), Some(Head { status: 200, length: None }));
        assert_eq!(of("nonsense"), None);
    }
}
