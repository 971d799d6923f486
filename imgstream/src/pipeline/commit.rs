//! What makes a target bootable or not: invalidating it, proving it, committing the withheld chunks.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Run;
use super::withheld::{NOTHING_PLACED, Placement};
use crate::error::{Error, Result};
use crate::plan::SpanPlan;
use crate::progress::Phase;
use crate::readback::{self, Found, Readback, Verdict};

/// Which chunks to prove.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    AllButWithheld,
    Withheld,
}

impl Run {
    pub(super) async fn invalidate(self: &Arc<Self>) -> Result<()> {
        self.abort.check("waiting to begin")?;
        self.progress.enter(Phase::Invalidating);
        self.blocking(|run| run.zero_ends(&|| run.abort.is_over())).await
    }

    /// Writes what makes the target bootable, the first chunk of the image last of all: until it is there, nothing boots.
    pub(super) async fn commit(self: &Arc<Self>) -> Result<()> {
        let committed = self
            .blocking(|run| {
                run.abort.check("committing")?;
                run.write_beyond()?;
                let mut chunks = std::mem::take(&mut *run.withheld());
                chunks.sort_by_key(|chunk| std::cmp::Reverse(chunk.raw_offset()));
                chunks.into_iter().try_for_each(|chunk| run.writer.write_in_order(chunk))
            })
            .await;
        match committed {
            Ok(()) => Ok(()),
            Err(error) => Err(self.take_back(error).await),
        }
    }

    /// Reads back what was committed; where it differs, takes the commit back.
    pub(super) async fn prove_commit(self: &Arc<Self>) -> Result<()> {
        let proven = match self.prove(Part::Withheld).await {
            Ok(()) => self.blocking(|run| run.beyond_is_right()).await,
            Err(error) => Err(error),
        };
        let error = match proven {
            Ok(true) => return Ok(()),
            Ok(false) => self.read_back_wrong("the backup of the partition table"),
            Err(error) => error,
        };
        Err(self.take_back(error).await)
    }

    /// Makes the target unbootable again because of `error`, which it returns, or a worse one. Not where it is somebody else's
    /// by now.
    async fn take_back(self: &Arc<Self>, error: Error) -> Error {
        if error.is_reservation_conflict() {
            return error.in_addition(&self.may_hold());
        }
        match self.blocking(Run::zero_ends_again).await {
            Ok(()) => error,
            Err(refusal) if self.is_refused() => refusal.in_addition(&format!("before that: {error}")),
            Err(conflict) if conflict.is_reservation_conflict() => {
                conflict.in_addition(&format!("{}; before that: {error}", self.may_hold()))
            }
            Err(second) => Error::proof(format!("{error}; and invalidating the target again failed: {second}"))
                .with_source(error)
                .with_hint("the target may boot although it is not proven: treat this device as broken"),
        }
    }

    pub(super) async fn prove(self: &Arc<Self>, part: Part) -> Result<()> {
        let differing = self.differing(part).await?;
        match differing.first() {
            None => Ok(()),
            Some(first) => Err(self.chunks_wrong(differing.len(), first)),
        }
    }

    pub(super) fn chunks_wrong(&self, count: usize, first: &str) -> Error {
        self.read_back_wrong(&format!("{count} of the chunks written; the first: {first}"))
    }

    pub(super) fn read_back_wrong(&self, what: &str) -> Error {
        Error::proof(format!("{} read back wrong: {what}", self.writer.target().name()))
            .with_hint("the device, its cache or a path to it loses or changes data: do not use it; the target was left unbootable")
    }

    /// The chunks of a part that differ on the media, by name. What was kept has been compared already.
    pub(super) async fn differing(self: &Arc<Self>, part: Part) -> Result<Vec<String>> {
        let mut differing = Vec::new();
        for (number, span) in self.plans.image().descriptor().spans.iter().enumerate() {
            if part == Part::Withheld && !self.touches_ends(span.raw_offset..span.raw_offset + span.raw_length) {
                continue;
            }
            let span = self.load(number).await?;
            differing.extend(self.blocking(move |run| run.differing_of(&span, part)).await?);
        }
        Ok(differing)
    }

    fn differing_of(&self, span: &SpanPlan, part: Part) -> Result<Vec<String>> {
        let select = |chunk| match part {
            Part::Withheld => self.is_withheld(span, chunk),
            Part::AllButWithheld => {
                let known = self.is_kept(span, chunk) || self.proven.has(span.number, chunk);
                !known && !self.is_withheld(span, chunk)
            }
        };
        let tell = |found: Found| self.count_read_back(span, &found);
        let found = self.readback(&tell).compare(span, &select)?;
        Ok(found.into_iter().map(|chunk| span.chunk_name(chunk)).collect())
    }

    /// What is right counts as read back.
    pub(super) fn count_read_back(&self, span: &SpanPlan, found: &Found) {
        if found.verdict == Verdict::Right {
            self.progress.read_back.fetch_add(found.len, Relaxed);
            self.recognise(&span.index.rows()[found.chunk], found.len);
        }
    }

    /// Reading back, as this run does it.
    pub(super) fn readback<'a>(&'a self, tell: &'a (dyn Fn(Found) + Sync)) -> Readback<'a> {
        Readback {
            target: self.writer.target(),
            pool: &self.pool,
            abort: &self.abort,
            threads: readback::threads(),
            placed: self.placement.get().map_or(&NOTHING_PLACED, Placement::digests),
            holes_are_zeros: false,
            glimpses: false,
            tell,
        }
    }
}
