//! The control socket of strongSwan's IKE daemon: commands with an answer, and events. As its
//! `src/libcharon/plugins/vici/README.md` says.

mod message;

use std::io;
use std::path::Path;
use std::time::Duration;

use imgstream::error::{Error, Kind, Result, Retry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

pub use self::message::Message;

const CMD_REQUEST: u8 = 0;
const CMD_RESPONSE: u8 = 1;
const CMD_UNKNOWN: u8 = 2;
const EVENT_REGISTER: u8 = 3;
const EVENT_UNREGISTER: u8 = 4;
const EVENT_CONFIRM: u8 = 5;
const EVENT: u8 = 7;

/// Largest packet that the daemon sends or takes.
const LARGEST: usize = 512 << 10;
/// How long the daemon may take for what it does at once.
const LIMIT: Duration = Duration::from_secs(10);

/// A connection to the daemon. One command at a time.
#[derive(Debug)]
pub struct Vici {
    stream: UnixStream,
    /// What has come and is not read yet. Kept here, so that nothing is lost when whoever reads is interrupted.
    pending: Zeroizing<Vec<u8>>,
}

/// What the daemon sends.
enum Packet {
    Response(Message),
    Event(String, Message),
    Confirmed,
    Unknown,
}

impl Vici {
    /// Connects.
    ///
    /// # Errors
    /// Why not; the daemon may not be that far.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path).await?;
        Ok(Vici { stream, pending: Zeroizing::new(Vec::with_capacity(LARGEST + 4)) })
    }

    /// Gives a command that is done at once.
    ///
    /// # Errors
    /// [`Kind::Source`] when the daemon is gone or refuses it, with what it says.
    pub async fn command(&mut self, command: &str, message: &Message) -> Result<Message> {
        self.command_within(LIMIT, command, message, |_, _| ()).await
    }

    /// Gives a command that may take a while, and hears the events that come meanwhile.
    ///
    /// # Errors
    /// [`Kind::Source`] when the daemon is gone, refuses it, or takes longer than `limit`.
    pub async fn command_within(
        &mut self,
        limit: Duration,
        command: &str,
        message: &Message,
        mut hear: impl FnMut(&str, Message),
    ) -> Result<Message> {
        let talk = async {
            self.send(CMD_REQUEST, command, message).await?;
            loop {
                match self.receive().await? {
                    Packet::Response(answer) => return done(command, answer),
                    Packet::Event(name, event) => hear(&name, event),
                    Packet::Unknown => return Err(failed(command, "it does not know this command")),
                    Packet::Confirmed => return Err(garbled()),
                }
            }
        };
        let late = || failed(command, format_args!("no answer within {} s", limit.as_secs()));
        timeout(limit, talk).await.unwrap_or_else(|_| Err(late()))
    }

    /// Gives a command whose results come as events of this name.
    ///
    /// # Errors
    /// As of [`Vici::command`].
    pub async fn stream(&mut self, command: &str, event: &str, message: &Message) -> Result<Vec<Message>> {
        self.register(event).await?;
        let mut found = Vec::new();
        let keep = |name: &str, message| {
            if name == event {
                found.push(message);
            }
        };
        self.command_within(LIMIT, command, message, keep).await?;
        self.change(EVENT_UNREGISTER, event).await?;
        Ok(found)
    }

    /// Asks to be told of events of this name.
    ///
    /// # Errors
    /// As of [`Vici::command`].
    pub async fn register(&mut self, event: &str) -> Result<()> {
        self.change(EVENT_REGISTER, event).await
    }

    /// Waits for the next event, as long as that takes. Being interrupted loses none.
    ///
    /// # Errors
    /// [`Kind::Source`] when the daemon is gone.
    pub async fn event(&mut self) -> Result<(String, Message)> {
        loop {
            if let Packet::Event(name, message) = self.receive().await? {
                return Ok((name, message));
            }
        }
    }

    async fn change(&mut self, kind: u8, event: &str) -> Result<()> {
        let talk = async {
            self.send(kind, event, &Message::new()).await?;
            loop {
                match self.receive().await? {
                    Packet::Confirmed => return Ok(()),
                    Packet::Event(..) => {}
                    _ => return Err(failed(event, "it does not know this event")),
                }
            }
        };
        timeout(LIMIT, talk).await.unwrap_or_else(|_| Err(failed(event, "no answer")))
    }

    async fn send(&mut self, kind: u8, name: &str, message: &Message) -> Result<()> {
        let mut packet = Zeroizing::new(Vec::with_capacity(8 + name.len() + message.room()));
        packet.extend([0, 0, 0, 0, kind]);
        let fits = message::write_name(name, &mut packet).and_then(|()| message.encode(&mut packet));
        let len = packet.len() - 4;
        let head = u32::try_from(len).ok().filter(|_| fits.is_some() && len <= LARGEST);
        let Some(head) = head else {
            return Err(Error::usage(format!(
                "{name}: more than strongSwan's control socket takes (65535 bytes per value)"
            )));
        };
        packet[..4].copy_from_slice(&head.to_be_bytes());
        self.stream.write_all(&packet).await.map_err(gone)
    }

    async fn receive(&mut self) -> Result<Packet> {
        loop {
            if let Some(packet) = self.cut()? {
                return Ok(packet);
            }
            if self.stream.read_buf(&mut *self.pending).await.map_err(gone)? == 0 {
                return Err(gone(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// The first packet of what has come, where it has come whole.
    fn cut(&mut self) -> Result<Option<Packet>> {
        let Some((head, rest)) = self.pending.split_first_chunk() else { return Ok(None) };
        let len = usize::try_from(u32::from_be_bytes(*head)).ok().filter(|len| *len <= LARGEST).ok_or_else(garbled)?;
        let Some(packet) = rest.get(..len) else { return Ok(None) };
        let packet = read(packet).ok_or_else(garbled)?;
        self.pending.drain(..4 + len);
        Ok(Some(packet))
    }
}

fn read(packet: &[u8]) -> Option<Packet> {
    let (kind, mut rest) = packet.split_first()?;
    match *kind {
        CMD_RESPONSE => Message::decode(rest).map(Packet::Response),
        EVENT => {
            let name = message::read_name(&mut rest)?;
            Message::decode(rest).map(|message| Packet::Event(name, message))
        }
        EVENT_CONFIRM => Some(Packet::Confirmed),
        CMD_UNKNOWN | 6 => Some(Packet::Unknown),
        _ => None,
    }
}

/// Commands that can fail say whether they have.
fn done(command: &str, answer: Message) -> Result<Message> {
    match answer.text("success").as_deref() {
        Some("no") => {
            let why = answer.text("errmsg").unwrap_or_else(|| "it does not say why".into());
            Err(failed(command, why))
        }
        _ => Ok(answer),
    }
}

fn failed(command: &str, why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Source, format!("strongSwan's IKE daemon refuses `{command}`: {why}")).with_retry(Retry::Permanent)
}

fn gone(error: io::Error) -> Error {
    Error::source_failed(format!("strongSwan's IKE daemon is gone: {error}"))
        .with_source(error)
        .with_hint("its log says why")
}

fn garbled() -> Error {
    Error::new(Kind::Source, "what strongSwan's IKE daemon says on its control socket is not understood")
        .with_hint("the agent is made for strongSwan 5.9 and 6.0")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::net::UnixListener;

    use super::*;

    fn packet(kind: u8, name: Option<&str>, message: &Message) -> Vec<u8> {
        let mut body = vec![kind];
        if let Some(name) = name {
            message::write_name(name, &mut body).unwrap();
        }
        message.encode(&mut body).unwrap();
        [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
    }

    /// A daemon that answers so, in pieces, whatever it is asked.
    async fn daemon(answers: Vec<u8>) -> (tempfile::TempDir, Vici, tokio::task::JoinHandle<Vec<u8>>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vici");
        let listener = UnixListener::bind(&path).unwrap();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::with_capacity(1 << 16);
            stream.read_buf(&mut asked).await.unwrap();
            for piece in answers.chunks(3) {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            asked
        });
        (dir, Vici::connect(&path).await.unwrap(), serving)
    }

    #[tokio::test]
    async fn a_command_is_answered_and_events_are_heard() {
        let log = Message::new().with("msg", "retransmit 1");
        let answers = [
            packet(EVENT, Some("control-log"), &log),
            packet(CMD_RESPONSE, None, &Message::new().with("success", "no").with("errmsg", "not established")),
        ];
        let (_dir, mut vici, serving) = daemon(answers.concat()).await;
        let mut heard = Vec::new();
        let asked = Message::new().with("child", "a");
        let hear = |name: &str, event: Message| heard.push((name.to_owned(), event.text("msg")));
        let error = vici.command_within(LIMIT, "initiate", &asked, hear).await.unwrap_err();
        assert!(error.to_string().ends_with("refuses `initiate`: not established"), "{error}");
        assert_eq!(heard, [("control-log".to_owned(), Some("retransmit 1".to_owned()))]);
        assert_eq!(serving.await.unwrap(), packet(CMD_REQUEST, Some("initiate"), &asked));
    }

    #[tokio::test]
    async fn what_is_not_vici_is_an_error() {
        for wrong in
            [vec![0xff; 8], packet(99, None, &Message::new()), packet(CMD_UNKNOWN, None, &Message::new()), Vec::new()]
        {
            let (_dir, mut vici, _serving) = daemon(wrong).await;
            assert_eq!(vici.command("version", &Message::new()).await.unwrap_err().kind(), Kind::Source);
        }
        let (_dir, mut vici, _serving) = daemon(Vec::new()).await;
        let large = Message::new().with("data", vec![0; 70_000]);
        assert_eq!(vici.command("load-key", &large).await.unwrap_err().kind(), Kind::Usage);
    }

    proptest! {
        #[test]
        fn no_packet_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&bytes);
        }
    }
}
