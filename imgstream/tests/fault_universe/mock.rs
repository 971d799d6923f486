//! A source in memory that does what its script says, request by request.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use imgstream::error::{Error, Result, Retry};
use imgstream::manifest::BlobRef;
use imgstream::manifest::layout::Choice;
use imgstream::source::{Boxed, Source, Stream};
use tokio::time::{Instant, sleep};

use crate::image::Packed;

/// Bytes per piece of an answer.
const PIECE: usize = 16 << 10;

/// What can be wrong with one answer. Positions are bytes of the answer, taken modulo its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// No answer, and maybe a wish to be left alone.
    Refused(Option<Duration>),
    /// "I do not have it."
    NotHere,
    /// The connection breaks after so many bytes.
    BreaksOff(usize),
    /// The answer ends, as if it were whole, after so many bytes.
    Truncated(usize),
    /// More than was asked for.
    TooMany,
    /// One bit is wrong.
    Flipped(usize),
    /// All bytes are wrong.
    Garbage,
    /// Silent after so many bytes, until the source's own deadline makes an error of it.
    Stalls(usize),
    /// Silent after so many bytes, for ever: worse than any source of ours.
    Hangs(usize),
    /// Every piece takes so long.
    Drips(Duration),
}

/// What a source does.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// How long each piece of an answer takes.
    pub piece: Duration,
    /// What is wrong with the first answers; `None` is an honest one.
    pub first: Vec<Option<Fault>>,
    /// What is wrong with all the others.
    pub then: Option<Fault>,
    /// When it refuses everything, since it was first asked for a chunk.
    pub dead: Option<Range<Duration>>,
    /// What is wrong with every answer about manifests, envelopes and indexes.
    pub metadata: Option<Fault>,
}

/// A source.
#[derive(Debug)]
pub struct Mock {
    name: String,
    image: Arc<Packed>,
    script: Script,
    deadline: Duration,
    asked: Mutex<Vec<Asked>>,
    metadata_asked: Mutex<usize>,
}

/// One request for chunks.
#[derive(Debug, Clone)]
pub struct Asked {
    pub at: Instant,
    pub blob: BlobRef,
    pub range: Range<u64>,
}

impl Mock {
    /// A source of `image` that gives up a stalled connection after `deadline`.
    pub fn new(name: &str, image: &Arc<Packed>, script: Script, deadline: Duration) -> Arc<Self> {
        Arc::new(Mock {
            name: name.to_owned(),
            image: Arc::clone(image),
            script,
            deadline,
            asked: Mutex::default(),
            metadata_asked: Mutex::default(),
        })
    }

    /// The requests for chunks it got.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// How often it was asked for anything else.
    pub fn metadata_asked(&self) -> usize {
        *self.metadata_asked.lock().unwrap()
    }

    /// Notes a request for chunks and looks up what is wrong with its answer.
    fn fault(&self, blob: BlobRef, range: &Range<u64>) -> Option<Fault> {
        let mut asked = self.asked.lock().unwrap();
        let number = asked.len();
        asked.push(Asked { at: Instant::now(), blob, range: range.clone() });
        let since = asked[0].at.elapsed();
        if self.script.dead.as_ref().is_some_and(|dead| dead.contains(&since)) {
            return Some(Fault::Refused(None));
        }
        self.script.first.get(number).cloned().unwrap_or_else(|| self.script.then.clone())
    }

    async fn about_metadata(&self) -> Result<()> {
        *self.metadata_asked.lock().unwrap() += 1;
        match &self.script.metadata {
            None => Ok(()),
            Some(Fault::Hangs(_)) => std::future::pending().await,
            Some(Fault::Refused(after)) => Err(self.refusal(*after)),
            Some(_) => Err(self.not_here()),
        }
    }

    fn refusal(&self, after: Option<Duration>) -> Error {
        let error = Error::source_failed(format!("{}: connection refused", self.name));
        match after {
            Some(after) => error.with_retry_after(after),
            None => error,
        }
    }

    fn not_here(&self) -> Error {
        Error::source_failed("the answer is 404").with_retry(Retry::OtherSource)
    }
}

impl Source for Mock {
    fn name(&self) -> &str {
        &self.name
    }

    fn manifest<'a>(&'a self, choice: &'a Choice) -> Boxed<'a, Result<Vec<u8>>> {
        Box::pin(async move {
            self.about_metadata().await?;
            self.image.dir.manifest(choice).await
        })
    }

    fn range(&self, blob: BlobRef, range: Range<u64>) -> Boxed<'_, Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let is_data = self.image.data.contains(&blob.digest);
            let fault = if is_data { self.fault(blob, &range) } else { None };
            if !is_data {
                self.about_metadata().await?;
            }
            match fault {
                Some(Fault::Refused(after)) => return Err(self.refusal(after)),
                Some(Fault::NotHere) => return Err(self.not_here()),
                _ => {}
            }
            let bytes = self.image.blobs[&blob.digest].slice(range.start as usize..range.end as usize);
            let stream: Box<dyn Stream> = Box::new(self.answer(bytes.to_vec(), fault));
            Ok(stream)
        })
    }
}

impl Mock {
    fn answer(&self, mut bytes: Vec<u8>, fault: Option<Fault>) -> Answer {
        let (mut end, mut piece) = (End::Whole, self.script.piece);
        let len = bytes.len();
        match fault {
            Some(Fault::BreaksOff(at)) => (end, bytes) = (End::Error("broke off"), bytes[..at % len].to_vec()),
            Some(Fault::Truncated(at)) => bytes.truncate(at % len),
            Some(Fault::Stalls(at)) => (end, bytes) = (End::Stalls(self.deadline), bytes[..at % len].to_vec()),
            Some(Fault::Hangs(at)) => (end, bytes) = (End::Hangs, bytes[..at % len].to_vec()),
            Some(Fault::TooMany) => bytes.extend_from_slice(b"and more"),
            Some(Fault::Flipped(at)) => bytes[at % len] ^= 1,
            Some(Fault::Garbage) => bytes.iter_mut().for_each(|byte| *byte ^= 0x5a),
            Some(Fault::Drips(each)) => piece = each,
            Some(Fault::Refused(_) | Fault::NotHere) | None => {}
        }
        let bytes = Bytes::from(bytes);
        let pieces = (0..bytes.len()).step_by(PIECE).map(|at| bytes.slice(at..bytes.len().min(at + PIECE))).collect();
        Answer { name: self.name.clone(), pieces, piece, end }
    }
}

struct Answer {
    name: String,
    pieces: VecDeque<Bytes>,
    piece: Duration,
    end: End,
}

#[derive(Clone, Copy)]
enum End {
    Whole,
    Error(&'static str),
    Stalls(Duration),
    Hangs,
}

impl Stream for Answer {
    fn next(&mut self) -> Boxed<'_, Result<Option<Bytes>>> {
        Box::pin(async move {
            if let Some(bytes) = self.pieces.pop_front() {
                if !self.piece.is_zero() {
                    sleep(self.piece).await;
                }
                return Ok(Some(bytes));
            }
            match self.end {
                End::Whole => Ok(None),
                End::Error(why) => Err(Error::source_failed(format!("{}: the body {why}", self.name))),
                End::Stalls(deadline) => {
                    sleep(deadline).await;
                    Err(Error::source_failed(format!("{}: the body stalled", self.name)))
                }
                End::Hangs => std::future::pending().await,
            }
        })
    }
}
