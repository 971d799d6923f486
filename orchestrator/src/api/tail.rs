//! What was told last about all runs, as it is sent. Whoever watches all of them is told the same: it is read once, and written once.
//!
//! It is read as far as the quickest watcher has come, a page at a time. One that is slower finds it here, or, when it is no longer here,
//! in the store.

use std::collections::VecDeque;

use protocol::control::problem::Problem;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::service::Service;
use super::watch::{PAGE, PIECE, write_told};

/// How much is kept, in bytes.
const KEPT: usize = 1 << 20;
/// How far behind a watcher this may be and still be read on; beyond that it begins anew.
const FAR: i64 = 4096;

/// What all watchers share.
#[derive(Default)]
pub(super) struct Tail(Mutex<Recent>);

/// Everything that was told after `from` until `upto`.
#[derive(Default)]
struct Recent {
    from: i64,
    upto: i64,
    told: VecDeque<(i64, String)>,
    bytes: usize,
    /// When it was read last, if that was all there was.
    complete: Option<Instant>,
}

/// Some of what was told.
pub(super) struct Piece {
    pub(super) text: String,
    /// The place of the last of it.
    pub(super) last: i64,
    /// Whether there was nothing more.
    pub(super) is_last: bool,
}

impl Tail {
    /// What was told after this place. `heard`: what was told until then must not be missed. `None`: it has to be read from the store.
    pub(super) async fn after(
        &self,
        service: &dyn Service,
        after: i64,
        heard: Instant,
    ) -> Result<Option<Piece>, Problem> {
        // Whoever comes while it is read wants the same, and waits for it.
        let mut recent = self.0.lock().await;
        if after - recent.upto > FAR {
            *recent = Recent { from: after, upto: after, ..Recent::default() };
        }
        if after < recent.from {
            return Ok(None);
        }
        while recent.upto < after || (recent.upto == after && !recent.is_complete(heard)) {
            if !recent.read_on(service).await? {
                break;
            }
        }
        Ok(Some(recent.piece(after, heard)))
    }
}

impl Recent {
    /// Reads a page; whether there was any.
    async fn read_on(&mut self, service: &dyn Service) -> Result<bool, Problem> {
        let began = Instant::now();
        let page = service.told(self.upto, None, PAGE).await?;
        self.complete = (page.len() < PAGE as usize).then_some(began);
        for told in &page {
            let mut text = String::new();
            write_told(&mut text, told);
            self.upto = told.seq;
            self.bytes += text.len();
            self.told.push_back((told.seq, text));
        }
        while self.bytes > KEPT
            && let Some((seq, text)) = self.told.pop_front()
        {
            (self.from, self.bytes) = (seq, self.bytes - text.len());
        }
        Ok(!page.is_empty())
    }

    /// Whether it was found to be all, after that moment.
    fn is_complete(&self, heard: Instant) -> bool {
        self.complete.is_some_and(|since| since > heard)
    }

    fn piece(&self, after: i64, heard: Instant) -> Piece {
        let mut piece = Piece { text: String::new(), last: after, is_last: false };
        let begin = self.told.partition_point(|(seq, _)| *seq <= after);
        for (seq, text) in self.told.range(begin..) {
            if piece.text.len() >= PIECE {
                return piece;
            }
            piece.text.push_str(text);
            piece.last = *seq;
        }
        piece.is_last = self.is_complete(heard);
        piece
    }
}
