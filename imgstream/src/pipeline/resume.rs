//! To resume is to compare first: the media say what they hold, and only what differs is fetched and written.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Run;
use super::commit::Part;
use super::stream::Selection;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::{ChunkKind, ChunkRow};
use crate::plan::SpanPlan;
use crate::progress::Phase;
use crate::readback::{Found, Readback};

impl Run {
    /// Compares the whole target with the image. `true` when it holds exactly that, so that nothing is left to do.
    pub(super) async fn compare(self: &Arc<Self>) -> Result<bool> {
        self.progress.enter(Phase::Comparing);
        // Who wrote what is there may not have flushed it, and we shall not write it again.
        self.blocking(|run| run.writer.flush()).await?;
        let mut same = true;
        for number in 0..self.plans.count() {
            let span = self.load(number).await?;
            same &= self.blocking(move |run| run.compare_span(&span)).await?;
        }
        if self.beyond_image().is_some() {
            same &= self.compare_ends().await?;
        }
        if same {
            self.progress.kept.store(self.progress.raw_total.load(Relaxed), Relaxed);
        } else {
            // What is kept counts as read back; the ends will be written, and read, again.
            self.progress.read_back.store(self.progress.kept.load(Relaxed), Relaxed);
        }
        Ok(same)
    }

    fn compare_span(&self, span: &SpanPlan) -> Result<bool> {
        let larger = self.beyond_image().is_some();
        let tell = |found: Found| {
            self.progress.compared.fetch_add(found.len, Relaxed);
            self.count_read_back(span, &found);
        };
        let readback = Readback { holes_are_zeros: true, ..self.readback(&tell) };
        // On a larger device the ends are not what the index says; they come next.
        let differing = readback.compare(span, &|chunk| !(larger && self.is_withheld(span, chunk)))?;
        let same = differing.is_empty();
        self.kept.set(span.number, 0..span.index.rows().len(), &differing);
        let kept = (0..span.index.rows().len()).filter(|chunk| self.is_kept(span, *chunk));
        self.progress.kept.fetch_add(kept.map(|chunk| span.raw_range(chunk).1 as u64).sum(), Relaxed);
        Ok(same)
    }

    /// The ends on a larger device: only the image's own bytes say what they must be there, so these are fetched.
    async fn compare_ends(self: &Arc<Self>) -> Result<bool> {
        self.stream(Selection::Ends).await?;
        self.place();
        let differing = self.differing(Part::Withheld).await?;
        Ok(differing.is_empty() && self.blocking(|run| run.beyond_is_right()).await?)
    }

    /// Notes that the media hold a chunk. Zeros are on any media, also where a packer calls them data.
    pub(super) fn recognise(&self, row: &ChunkRow, len: u64) {
        let is_new = self.options.foreign.is_some() && !self.recognised.load(Relaxed);
        if is_new && row.kind == ChunkKind::Data && row.raw_digest != Digest::of(&vec![0; len as usize]) {
            self.recognised.store(true, Relaxed);
        }
    }

    /// Refuses to go on where the comparison has found nothing of this image, but somebody else's content is there.
    pub(super) fn check_foreign(&self) -> Result<()> {
        let Some(foreign) = self.options.foreign.as_ref().filter(|_| self.options.resume) else { return Ok(()) };
        if self.recognised.load(Relaxed) {
            return Ok(());
        }
        let target = self.writer.target().name();
        Err(Error::target(format!("nothing of this image is on {target}, but it holds {foreign}"))
            .with_hint("resume only what an earlier attempt began, or allow it to be wiped"))
    }

    /// Whether the media held a chunk when they were compared, and it was left alone since.
    pub(super) fn is_kept(&self, span: &SpanPlan, chunk: usize) -> bool {
        self.kept.has(span.number, chunk) && !self.is_withheld(span, chunk)
    }
}
