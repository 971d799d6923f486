//! One attempt at a run, from spec to hand-over.

use std::sync::Arc;

use imgstream::error::{Error, Kind, Result, Retry};
use imgstream::progress::Progress;
use protocol::event::{Body, Phase, RunStarted, Summary};
use protocol::spec::RunSpec;
use tokio_util::sync::CancellationToken;

use crate::phase::spec::Files;
use crate::phase::{hand_over, image, spec, stream, target};
use crate::report::{Reporter, failure};
use crate::target::{Ending, Held, Wish};

/// The story. The order is part of the safety: an image that is refused never opens the target, and a target that is refused
/// is never written. What is opened on the way stands in `held`, which is closed in reverse on every way out of here.
async fn run(
    spec: &RunSpec,
    files: &Files,
    reporter: &Reporter,
    progress: &Arc<Progress>,
    cancel: &CancellationToken,
    held: &mut Held,
) -> Result<Summary> {
    let order = reporter.phase(Phase::Spec, async { spec::resolve(spec, files) }).await?;
    let (order, key) = order.into_parts();
    let image = reporter.phase(Phase::Image, image::open(order, cancel)).await?;
    let wish = Wish { spec, descriptor: image.descriptor(), key: key.as_ref(), reporter, cancel };
    let target = reporter.phase(Phase::Target, target::take(wish, held)).await?;
    // The kernel has it now, where it is needed.
    drop(key);
    let facts = (image.facts()?, target.facts());
    let stream = stream::write(image, target, spec, progress, reporter, held.guard(), cancel);
    let written = reporter.phase(Phase::Stream, stream).await?;
    let hand_over = hand_over::hand_over(facts, &written, held, reporter);
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
    let mut held = Held::default();
    match run(spec, files, reporter, &progress, cancel, &mut held).await {
        Ok(summary) => {
            reporter.emit(Body::RunFinished(Box::new(summary)));
            0
        }
        Err(error) => {
            // A run that was ended because it lost the right to write was not cancelled by anybody.
            let error = Arc::clone(held.guard()).explain(error).await;
            let mut failure = failure::in_phase(&error, reporter.current_phase(), &progress);
            failure.torn_down = hand_over::close(&mut held, ending(&error), reporter).await;
            let code = failure.exit_code;
            reporter.emit(Body::RunFailed(Box::new(failure)));
            code
        }
    }
}

/// Whether a later attempt may go on with what this one leaves.
fn ending(error: &Error) -> Ending {
    if error.kind() == Kind::Cancelled || error.retry() == Retry::Permanent { Ending::Over } else { Ending::Resumable }
}
