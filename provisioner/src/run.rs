//! One attempt at a run, from spec to hand-over.

use std::sync::Arc;

use imgstream::error::Result;
use imgstream::progress::Progress;
use protocol::event::{Body, Phase, RunStarted, Summary};
use protocol::spec::RunSpec;
use tokio_util::sync::CancellationToken;

use crate::phase::spec::Files;
use crate::phase::{hand_over, image, spec, stream, target};
use crate::report::{Reporter, failure};

/// The story. The order is part of the safety: an image that is refused never opens the target, and a target that is refused
/// is never written. What a phase opens it owns, so it is closed in reverse order on every way out of here.
async fn run(
    spec: &RunSpec,
    files: &Files,
    reporter: &Reporter,
    progress: &Arc<Progress>,
    cancel: &CancellationToken,
) -> Result<Summary> {
    let order = reporter.phase(Phase::Spec, async { spec::resolve(spec, files) }).await?;
    let image = reporter.phase(Phase::Image, image::open(order, cancel)).await?;
    let target = reporter.phase(Phase::Target, target::open(spec, image.descriptor(), cancel)).await?;
    let facts = (image.facts()?, target.facts());
    let stream = stream::write(image, target, spec, progress, reporter, cancel);
    let written = reporter.phase(Phase::Stream, stream).await?;
    let hand_over = async { Ok(hand_over::summarize(facts, &written, reporter)) };
    Ok(reporter.phase(Phase::HandOver, hand_over).await?.0)
}

/// Runs, reports the end as the last event, and returns the exit code.
pub async fn attempt(spec: &RunSpec, files: &Files, reporter: &Reporter, cancel: &CancellationToken) -> u8 {
    reporter.emit(Body::RunStarted(RunStarted {
        agent: concat!("z-provisioner ", env!("CARGO_PKG_VERSION")).into(),
        image: spec.image.name.clone(),
        target: spec.target.name(),
    }));
    let progress = Arc::new(Progress::default());
    match run(spec, files, reporter, &progress, cancel).await {
        Ok(summary) => {
            reporter.emit(Body::RunFinished(Box::new(summary)));
            0
        }
        Err(error) => {
            let failure = failure::in_phase(&error, reporter.current_phase(), &progress);
            let code = failure.exit_code;
            reporter.emit(Body::RunFailed(Box::new(failure)));
            code
        }
    }
}
