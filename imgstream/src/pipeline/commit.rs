//! What makes a target bootable or not: invalidating it, proving it, committing the withheld chunks.

use std::sync::Arc;

use super::Run;
use crate::error::{Error, Result};
use crate::progress::Phase;
use crate::readback;

/// Which chunks to prove.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    AllButWithheld,
    Withheld,
}

impl Run {
    pub(super) async fn invalidate(self: &Arc<Self>) -> Result<()> {
        self.progress.enter(Phase::Invalidating);
        self.blocking(|run| run.zero_withheld()).await
    }

    /// Zeroes the places of the withheld chunks, durably. Goes past the write engine: it is also the way back when the
    /// engine has failed. Not counted as progress: these bytes are counted when their chunks land.
    fn zero_withheld(&self) -> Result<()> {
        let descriptor = self.plans.image().descriptor();
        let chunk = u64::from(descriptor.chunk_size);
        let last = (descriptor.raw_size - 1) / chunk * chunk;
        let target = self.writer.target();
        for raw in [0..chunk.min(descriptor.raw_size), last..descriptor.raw_size] {
            for extent in target.map(raw) {
                target.devices()[extent.device].force_zeros(extent.offset, extent.len, extent.zero)?;
            }
        }
        target.devices().iter().try_for_each(|device| device.flush())
    }

    /// Writes the withheld chunks, the first of the image last of all: until it is there, nothing boots.
    pub(super) async fn commit(self: &Arc<Self>) -> Result<()> {
        let committed = self
            .blocking(|run| {
                let mut chunks = std::mem::take(&mut *run.withheld());
                chunks.sort_by_key(|chunk| std::cmp::Reverse(chunk.raw_offset()));
                for chunk in chunks {
                    run.writer.write(chunk)?;
                    run.writer.flush()?;
                }
                Ok(())
            })
            .await;
        match committed {
            Ok(()) => Ok(()),
            Err(error) => Err(self.take_back(error).await),
        }
    }

    /// Reads the withheld chunks back; where they differ, takes the commit back.
    pub(super) async fn prove_commit(self: &Arc<Self>) -> Result<()> {
        match self.prove(Part::Withheld).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.take_back(error).await),
        }
    }

    /// Makes the target unbootable again because of `error`, which it returns, or a worse one.
    async fn take_back(self: &Arc<Self>, error: Error) -> Error {
        match self.blocking(|run| run.zero_withheld()).await {
            Ok(()) => error,
            Err(second) => Error::proof(format!("{error}; and invalidating the target again failed: {second}"))
                .with_source(error)
                .with_hint("the target may boot although it is not proven: treat this device as broken"),
        }
    }

    pub(super) async fn prove(self: &Arc<Self>, part: Part) -> Result<()> {
        let wanted =
            move |run: &Run, raw_offset, raw_len| run.is_withheld(raw_offset, raw_len) == (part == Part::Withheld);
        let mut differing = Vec::new();
        let last = self.plans.count() - 1;
        for number in (0..=last).filter(|number| part == Part::AllButWithheld || *number == 0 || *number == last) {
            let span = self.load(number).await?;
            let compare = {
                let span = Arc::clone(&span);
                self.blocking(move |run| {
                    let select = |offset, len| wanted(run, offset, len);
                    readback::compare(&span, run.writer.target(), &run.pool, &select, &run.progress, &run.abort)
                })
            };
            let found = compare.await?;
            differing.extend(found.into_iter().map(|chunk| span.chunk_name(chunk)));
        }
        if differing.is_empty() {
            return Ok(());
        }
        let devices: Vec<_> = self.writer.target().devices().iter().map(|device| device.name()).collect();
        Err(Error::proof(format!(
            "{} of the chunks written to {} read back wrong; the first: {}",
            differing.len(),
            devices.join(", "),
            differing[0]
        ))
        .with_hint("the device, its cache or a path to it loses or changes data: do not use it; the target was left unbootable"))
    }
}
