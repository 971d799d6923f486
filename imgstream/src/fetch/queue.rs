//! The board behind a lock, and the waiting.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::board::{Board, Failed, Take};
use super::health::Health;
use super::patience::Patience;
use super::work::{Claim, Frame, InHand, Request};
use crate::decode::CorruptFrame;
use crate::error::{Error, Result};
use crate::source::Source;

/// Requests planned ahead of the lanes.
const PLANNED_AHEAD: usize = 64;
/// How often within its time silence is looked for.
const LOOKS: u32 = 8;

/// Requests waiting and in flight, how the sources stand, and how many chunks are not yet delivered.
#[derive(Debug)]
pub struct Queue {
    board: Mutex<Board>,
    changed: Notify,
    /// Frames that lanes have handed on and that still exist.
    in_hand: Arc<AtomicUsize>,
}

/// What came from one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Share {
    /// The source.
    pub source: String,
    /// Bytes of whole frames, duplicates included.
    pub bytes: u64,
}

impl Queue {
    /// An empty queue that `sources` will work off.
    pub fn new(sources: &[Arc<dyn Source>], patience: &Patience) -> Self {
        let sources = sources.iter().map(|source| Health::new(source.name())).collect();
        Queue {
            board: Mutex::new(Board::new(sources, patience.clone())),
            changed: Notify::new(),
            in_hand: Arc::default(),
        }
    }

    /// Adds planned chunks; waits while enough are planned. `false` once the queue is closed.
    pub async fn plan(&self, request: Request) -> bool {
        self.when(|board| {
            if board.closed {
                return Some(false);
            }
            (board.ready.len() < PLANNED_AHEAD).then(|| {
                board.plan(request.clone());
                true
            })
        })
        .await
    }

    /// Says that nothing more will be planned.
    pub fn planned(&self) {
        self.lock().all_planned = true;
        self.changed.notify_waiters();
    }

    /// Says that a claimed chunk has reached its goal.
    #[allow(clippy::needless_pass_by_value)] // A claim is used up: nobody counts its chunk twice.
    pub fn delivered(&self, claim: Claim) {
        let mut board = self.lock();
        board.delivered(&claim);
        if board.undelivered == 0 {
            self.changed.notify_waiters();
        }
    }

    /// Says that a frame is not what it should be; its chunk is fetched once more. Whether it is.
    ///
    /// # Errors
    /// When the chunk came corrupted before: [`crate::error::Kind::Source`], naming both sources.
    pub fn corrupt(&self, frame: &Frame, why: CorruptFrame) -> Result<bool> {
        let outcome = self.lock().corrupt(frame, why);
        self.changed.notify_waiters();
        outcome
    }

    /// Ends all waiting.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_waiters();
    }

    /// Waits until every planned chunk is delivered, or the queue is closed.
    pub async fn finished(&self) {
        self.when(|board| board.is_over().then_some(())).await;
    }

    /// Waits until no chunk has come from any source for as long as is borne with, although some are wanted and nobody
    /// but the sources is to blame. Says what each source said last.
    pub(super) async fn silence(&self) -> Error {
        let limit = self.lock().patience.give_up_after;
        let (mut arrived, mut since) = (0, Instant::now());
        loop {
            tokio::time::sleep(limit / LOOKS).await;
            let board = self.lock();
            let busy = board.undelivered == 0 || self.in_hand.load(Relaxed) > 0;
            if busy || board.arrived != arrived {
                (arrived, since) = (board.arrived, Instant::now());
            } else if since.elapsed() >= limit {
                return board.silence(limit);
            }
        }
    }

    /// What came from each source.
    pub fn shares(&self) -> Vec<Share> {
        self.lock().shares().map(|(source, bytes)| Share { source: source.to_owned(), bytes }).collect()
    }

    /// What `lane` of source `source` does next; `None` when all is delivered or the queue closed. The token says when
    /// it is not needed any more.
    pub(super) async fn next(&self, lane: usize, source: usize) -> Option<(Request, CancellationToken)> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let take = self.lock().take(lane, source, Instant::now());
            match take {
                Take::Work(request, superseded) => {
                    self.changed.notify_waiters();
                    return Some((request, superseded));
                }
                Take::Over => return None,
                Take::Wait(None) => changed.await,
                Take::Wait(Some(until)) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(until) => {}
                },
            }
        }
    }

    /// A whole frame came in; it counts as in hand for as long as what is returned lives.
    pub(super) fn arrived(&self, lane: usize, bytes: usize) -> InHand {
        let in_hand = InHand::on(&self.in_hand);
        if self.lock().arrived(lane, bytes as u64) {
            self.changed.notify_waiters();
        }
        in_hand
    }

    /// A lane has got to the end of its request.
    pub(super) fn landed(&self, lane: usize) {
        self.lock().landed(lane, Instant::now());
        self.changed.notify_waiters();
    }

    /// A lane was told that its request is not needed any more.
    pub(super) fn superseded(&self, lane: usize) {
        self.lock().superseded(lane);
        self.changed.notify_waiters();
    }

    /// A lane's request failed.
    pub(super) fn failed(&self, lane: usize, error: Error) -> Failed {
        let outcome = self.lock().failed(lane, error, Instant::now());
        self.changed.notify_waiters();
        outcome
    }

    async fn when<T>(&self, mut look: impl FnMut(&mut Board) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(found) = look(&mut self.lock()) {
                self.changed.notify_waiters();
                return found;
            }
            changed.await;
        }
    }

    // The board is changed in whole steps, so a poisoned lock is used as it is.
    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
