//! Questions to the kernel's IPsec over netlink, and its answers in pieces. No answer is waited for: the kernel has given it when
//! the question is sent, or gives its next part when the last one has been taken.

use std::io;

use netlink_sys::{Socket, SocketAddr};
use zeroize::Zeroizing;

use super::fields::Fields;

/// `NETLINK_XFRM`.
const PROTOCOL: isize = 6;
/// The kernel fills at most 32 KiB at once.
const ROOM: usize = 64 << 10;
/// `sizeof(struct nlmsghdr)`.
const HEAD: usize = 16;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// What came of a question.
#[derive(Debug)]
pub enum Failed {
    /// The kernel refuses.
    Refused(io::Error),
    /// Something was changed while it was telling.
    Changed,
    /// What it says makes no sense to us.
    Malformed,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Failed::Refused(error)
    }
}

/// A socket to ask by.
#[derive(Debug)]
pub struct Xfrm {
    socket: Socket,
    sequence: u32,
}

/// A message of an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    pub body: &'a [u8],
}

impl Xfrm {
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(PROTOCOL)?;
        socket.set_non_blocking(true)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Xfrm { socket, sequence: 0 })
    }

    /// Asks for all of something, and has `each` read what comes.
    pub fn dump(&mut self, kind: u16, mut each: impl FnMut(&[u8]) -> Option<()>) -> Result<(), Failed> {
        self.send(kind, NLM_F_REQUEST | NLM_F_DUMP, &[])?;
        while !self.take(&mut each)? {}
        Ok(())
    }

    /// Asks for one thing.
    pub fn ask<T>(&mut self, kind: u16, payload: &[u8], read: impl Fn(&[u8]) -> Option<T>) -> Result<T, Failed> {
        self.send(kind, NLM_F_REQUEST, payload)?;
        let mut answer = None;
        self.take(&mut |body| {
            answer = Some(read(body)?);
            Some(())
        })?;
        answer.ok_or(Failed::Malformed)
    }

    fn send(&mut self, kind: u16, flags: u16, payload: &[u8]) -> Result<(), Failed> {
        self.sequence += 1;
        let len = u32::try_from(HEAD + payload.len()).map_err(|_| Failed::Malformed)?;
        let mut question = len.to_ne_bytes().to_vec();
        question.extend(kind.to_ne_bytes());
        question.extend(flags.to_ne_bytes());
        question.extend(self.sequence.to_ne_bytes());
        question.extend([0; 4]);
        question.extend(payload);
        self.socket.send(&question, 0)?;
        Ok(())
    }

    /// Takes the next piece of the answer. Returns whether it was the last of a dump.
    fn take(&mut self, each: &mut impl FnMut(&[u8]) -> Option<()>) -> Result<bool, Failed> {
        // It holds the keys of security associations.
        let mut piece = Zeroizing::new(Vec::with_capacity(ROOM));
        let len = self.socket.recv(&mut *piece, libc::MSG_TRUNC)?;
        if len > piece.len() {
            return Err(Failed::Malformed);
        }
        for message in messages(&piece) {
            let message = message.ok_or(Failed::Malformed)?;
            if message.sequence != self.sequence {
                continue;
            }
            if message.flags & NLM_F_DUMP_INTR != 0 {
                return Err(Failed::Changed);
            }
            match message.kind {
                NLMSG_NOOP => {}
                NLMSG_DONE => return Ok(true),
                NLMSG_ERROR => return refusal(message.body).map(|()| true),
                _ => each(message.body).ok_or(Failed::Malformed)?,
            }
        }
        Ok(false)
    }
}

/// `struct nlmsgerr`: the negative error number comes first; 0 is an acknowledgement.
fn refusal(body: &[u8]) -> Result<(), Failed> {
    let number = Fields(body).u32(0).ok_or(Failed::Malformed)?;
    match i32::from_ne_bytes(number.to_ne_bytes()) {
        0 => Ok(()),
        number => Err(io::Error::from_raw_os_error(number.saturating_neg()).into()),
    }
}

/// Cuts a piece into messages. `None` for one that is longer than what is there; nothing follows it.
pub fn messages(mut rest: &[u8]) -> impl Iterator<Item = Option<Message<'_>>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let message = message(rest);
        let len = message.as_ref().map_or(rest.len(), |message| HEAD + message.body.len());
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

fn message(from: &[u8]) -> Option<Message<'_>> {
    let head = Fields(from);
    let len = usize::try_from(head.u32(0)?).ok()?;
    let (kind, flags, sequence) = (head.u16(4)?, head.u16(6)?, head.u32(8)?);
    Some(Message { kind, flags, sequence, body: from.get(HEAD..len)? })
}
