//! The frames on a guest's channel: a length, the number of the command it is about, what it is, and that. All numbers are
//! big-endian, whichever machine is at which end.

use std::io::{self, ErrorKind, Read, Write};

/// The most bytes of input or output in one frame.
pub const CHUNK: usize = 64 << 10;

/// The longest frame: a command line and its environment may be longer than a chunk.
const LONGEST: usize = 1 << 20;

/// What the harness asks of a guest. Each is about one command, known by its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Start a command, in a process group of its own.
    Run(Program),
    /// Bytes for its standard input; none ends it.
    Input(Vec<u8>),
    /// Send it a signal, or its whole process group.
    Signal {
        /// The signal's number on Linux.
        number: i32,
        /// Whether the group is meant.
        group: bool,
    },
}

/// What to start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// The program, found in `PATH`, and its arguments.
    pub arguments: Vec<String>,
    /// Variables besides those every command gets.
    pub environment: Vec<(String, String)>,
    /// Working directory.
    pub directory: String,
}

/// What a guest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tell {
    /// It has booted and takes commands. Its number means nothing.
    Ready,
    /// A command has written to its standard output.
    Output(Vec<u8>),
    /// A command has written to its standard error.
    Errors(Vec<u8>),
    /// A command has ended, and all it has written itself has been told.
    Ended(End),
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With an exit code.
    Exit(i32),
    /// By a signal.
    Signal(i32),
    /// It could not be started.
    Refused(String),
}

/// A message that travels in a frame.
pub trait Message: Sized {
    /// Its kind and its content.
    fn encode(&self) -> (u8, Vec<u8>);

    /// Reads it again; `None` if it makes no sense.
    fn decode(kind: u8, content: &[u8]) -> Option<Self>;
}

/// The whole frame.
pub fn frame(number: u32, message: &impl Message) -> Vec<u8> {
    let (kind, content) = message.encode();
    let length = u32::try_from(content.len() + 5).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(content.len() + 9);
    frame.extend(length.to_be_bytes());
    frame.extend(number.to_be_bytes());
    frame.push(kind);
    frame.extend(content);
    frame
}

/// Writes a frame in one go.
///
/// # Errors
/// When the channel cannot be written.
pub fn write(to: &mut impl Write, number: u32, message: &impl Message) -> io::Result<()> {
    to.write_all(&frame(number, message))
}

/// Reads the next frame; `None` where the channel ends.
///
/// # Errors
/// When the channel cannot be read or holds what makes no sense.
pub fn read<M: Message>(from: &mut impl Read) -> io::Result<Option<(u32, M)>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        outcome => outcome?,
    }
    let mut rest = vec![0; checked(length)?];
    from.read_exact(&mut rest)?;
    message(&rest).map(Some)
}

/// Takes the first whole frame off what has been read so far; `None` if there is none yet.
///
/// # Errors
/// When it makes no sense.
pub fn take<M: Message>(read: &mut Vec<u8>) -> io::Result<Option<(u32, M)>> {
    let Some((length, rest)) = read.split_first_chunk::<4>() else { return Ok(None) };
    let length = checked(*length)?;
    let Some(whole) = rest.get(..length) else { return Ok(None) };
    let taken = message(whole)?;
    read.drain(..4 + length);
    Ok(Some(taken))
}

fn checked(length: [u8; 4]) -> io::Result<usize> {
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if (5..=LONGEST).contains(&length) {
        return Ok(length);
    }
    Err(io::Error::new(ErrorKind::InvalidData, format!("a frame of {length} bytes")))
}

fn message<M: Message>(frame: &[u8]) -> io::Result<(u32, M)> {
    let mut parts = Parts(frame);
    let (number, kind) = (parts.number(), parts.byte());
    let whole = number.zip(kind).and_then(|(number, kind)| Some((number, M::decode(kind, parts.0)?)));
    whole.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("a frame that makes no sense: kind {kind:?}")))
}

impl Message for Ask {
    fn encode(&self) -> (u8, Vec<u8>) {
        match self {
            Ask::Run(program) => {
                let mut content = Vec::new();
                put_all(&mut content, program.arguments.iter().map(String::as_str));
                let words = program.environment.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
                put_all(&mut content, words);
                put_all(&mut content, [program.directory.as_str()]);
                (1, content)
            }
            Ask::Input(bytes) => (2, bytes.clone()),
            Ask::Signal { number, group } => (3, number.to_be_bytes().into_iter().chain([u8::from(*group)]).collect()),
        }
    }

    fn decode(kind: u8, content: &[u8]) -> Option<Self> {
        let mut parts = Parts(content);
        let ask = match kind {
            1 => {
                let arguments = parts.texts()?;
                let words = parts.texts()?;
                let (pairs, rest) = words.as_chunks::<2>();
                let [directory] = parts.texts()?.try_into().ok()?;
                let environment = pairs.iter().cloned().map(<(String, String)>::from).collect();
                rest.is_empty().then_some(Ask::Run(Program { arguments, environment, directory }))?
            }
            2 => return Some(Ask::Input(content.to_vec())),
            3 => Ask::Signal { number: parts.number()?.cast_signed(), group: parts.byte()? != 0 },
            _ => return None,
        };
        parts.0.is_empty().then_some(ask)
    }
}

impl Message for Tell {
    fn encode(&self) -> (u8, Vec<u8>) {
        match self {
            Tell::Ready => (1, Vec::new()),
            Tell::Output(bytes) => (2, bytes.clone()),
            Tell::Errors(bytes) => (3, bytes.clone()),
            Tell::Ended(End::Exit(code)) => (4, code.to_be_bytes().to_vec()),
            Tell::Ended(End::Signal(number)) => (5, number.to_be_bytes().to_vec()),
            Tell::Ended(End::Refused(why)) => (6, why.as_bytes().to_vec()),
        }
    }

    fn decode(kind: u8, content: &[u8]) -> Option<Self> {
        let number = || Some(u32::from_be_bytes(content.try_into().ok()?).cast_signed());
        match kind {
            1 => content.is_empty().then_some(Tell::Ready),
            2 => Some(Tell::Output(content.to_vec())),
            3 => Some(Tell::Errors(content.to_vec())),
            4 => Some(Tell::Ended(End::Exit(number()?))),
            5 => Some(Tell::Ended(End::Signal(number()?))),
            6 => Some(Tell::Ended(End::Refused(String::from_utf8(content.to_vec()).ok()?))),
            _ => None,
        }
    }
}

/// A list: how many, then each with its length.
fn put_all<'a>(content: &mut Vec<u8>, texts: impl IntoIterator<Item = &'a str>) {
    let texts: Vec<&str> = texts.into_iter().collect();
    let number = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    content.extend(number(texts.len()));
    for text in texts {
        content.extend(number(text.len()));
        content.extend(text.as_bytes());
    }
}

/// What is still to be read of a message.
struct Parts<'a>(&'a [u8]);

impl Parts<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }

    fn texts(&mut self) -> Option<Vec<String>> {
        let count = self.number()?;
        (0..count).map(|_| self.text()).collect()
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn there_and_back<M: Message + PartialEq + std::fmt::Debug>(message: &M) {
        let bytes = frame(7, message);
        let (number, read): (u32, M) = read(&mut bytes.as_slice()).unwrap().unwrap();
        assert_eq!((number, &read), (7, message));
        let mut twice = [bytes.as_slice(), &bytes[..bytes.len() - 1]].concat();
        assert_eq!(take::<M>(&mut twice).unwrap(), Some((7, read)));
        assert_eq!(take::<M>(&mut twice).unwrap(), None, "the second is not whole yet");
    }

    proptest! {
        #[test]
        fn what_is_asked_is_understood(
            arguments in proptest::collection::vec(".*", 0..4),
            environment in proptest::collection::vec((".*", ".*"), 0..3),
            directory in ".*", input: Vec<u8>, number: i32, group: bool,
        ) {
            for ask in [
                Ask::Run(Program { arguments, environment, directory }),
                Ask::Input(input),
                Ask::Signal { number, group },
            ] {
                there_and_back(&ask);
            }
        }

        #[test]
        fn what_is_told_is_understood(bytes: Vec<u8>, number: i32, why in ".*") {
            for tell in [
                Tell::Ready,
                Tell::Output(bytes.clone()),
                Tell::Errors(bytes),
                Tell::Ended(End::Exit(number)),
                Tell::Ended(End::Signal(number)),
                Tell::Ended(End::Refused(why)),
            ] {
                there_and_back(&tell);
            }
        }

        #[test]
        fn no_bytes_make_a_reader_panic(bytes: Vec<u8>) {
            let _ = read::<Ask>(&mut bytes.as_slice());
            let _ = take::<Tell>(&mut bytes.clone());
        }
    }

    #[test]
    fn numbers_are_big_endian() {
        assert_eq!(frame(1, &Tell::Ended(End::Exit(2))), [0, 0, 0, 9, 0, 0, 0, 1, 4, 0, 0, 0, 2]);
    }

    #[test]
    fn a_frame_of_any_length_is_not_believed() {
        assert!(read::<Ask>(&mut [0x7f, 0, 0, 0, 1, 1, 1, 1, 1].as_slice()).is_err());
    }
}
