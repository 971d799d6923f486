//! One attempt at a run, from spec to hand-over.

use std::sync::Arc;
use std::task::Poll;

use imgstream::error::{Error, Kind, Result, Retry};
use imgstream::progress::Progress;
use protocol::event::{Body, Phase, RunStarted, Summary};
use protocol::spec::{HandOver, RunSpec};
use tokio_util::sync::CancellationToken;

use crate::control::{KeyDesk, Mandate};
use crate::machine::Machine;
use crate::phase::hand_over::Facts;
use crate::phase::ipl::Ipl;
use crate::phase::spec::Files;
use crate::phase::{hand_over, image, spec, stream, target};
use crate::report::{Reporter, failure};
use crate::target::{Ending, Held, Wish};

/// What a run has besides its files, where it has it.
struct Means<'a> {
    /// A machine to itself.
    machine: Option<&'a mut Machine>,
    /// Where a service gives the key.
    desk: Option<&'a KeyDesk>,
}

/// The story. The order is part of the safety: an image that is refused never opens the target, and a target that is refused
/// is never written. What is opened on the way stands in `held`, which is closed in reverse on every way out of here.
async fn run(
    spec: &RunSpec,
    files: &Files,
    Means { mut machine, desk }: Means<'_>,
    reporter: &Reporter,
    progress: &Arc<Progress>,
    cancel: &CancellationToken,
    held: &mut Held,
) -> Result<Summary> {
    let order = reporter.phase(Phase::Spec, async { spec::resolve(spec, files, machine.is_some()) }).await?;
    let (order, key) = order.into_parts();
    let desk = spec::desk(spec, desk)?;
    let ipsec = order.ipsec.clone();
    if let Some(machine) = machine.as_deref_mut() {
        reporter.phase(Phase::Network, machine.join_for(spec, cancel)).await?;
    }
    let image = reporter.phase(Phase::Image, image::open(order, cancel)).await?;
    // Not before it is clear that there will be something to write, and never after something was touched.
    let key = match desk {
        Some(desk) => Some(desk.ask(cancel).await?),
        None => key,
    };
    let wish = Wish { spec, descriptor: image.descriptor(), key: key.as_ref(), reporter, cancel };
    let target = reporter.phase(Phase::Target, target::take(wish, held)).await?;
    // The kernel has it now, where it is needed.
    drop(key);
    let facts = Facts { image: image.facts()?, target: target.facts(), ipsec };
    let starts = spec.hand_over == HandOver::ReIpl;
    let ipl = if starts { Some(Ipl::of(&target.0, spec, image.descriptor())?) } else { None };
    let stream = stream::write(image, target, spec, progress, reporter, held.guard(), cancel);
    let written = reporter.phase(Phase::Stream, stream).await?;
    held.prove_headers().await?;
    if written.0.read_back_bytes.is_some() {
        held.note_proven();
    }
    let hand_over = hand_over::hand_over(facts, &written, ipl, held, reporter);
    let handed_over = reporter.phase(Phase::HandOver, hand_over).await?;
    if let (Some(machine), Some(source)) = (machine, handed_over.starts) {
        machine.starts(source.to_string());
    }
    Ok(handed_over.summary)
}

/// Runs, reports the end as the last event, and returns that. `machine` is there where the agent has one to itself, `mandate` where a
/// service has given one: once its lease is over, nothing is written any more.
pub async fn attempt(
    spec: &RunSpec,
    files: &Files,
    machine: Option<&mut Machine>,
    mandate: Option<Mandate>,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Body {
    reporter.emit(Body::RunStarted(RunStarted {
        agent: concat!("z-provisioner ", env!("CARGO_PKG_VERSION")).into(),
        image: spec.image.name.clone(),
        target: spec.target.name(),
    }));
    let progress = Arc::new(Progress::default());
    let (lease, desk) = mandate.map(|Mandate { lease, key }| (lease, key)).unzip();
    let mut held = Held::of(lease);
    let means = Means { machine, desk: desk.as_ref() };
    let ended = unless_panicked(run(spec, files, means, reporter, &progress, cancel, &mut held)).await;
    let last = match ended {
        Ok(summary) => Body::RunFinished(Box::new(summary)),
        Err(error) => {
            // A run that was ended because it lost the right to write was not cancelled by anybody.
            let error = Arc::clone(held.guard()).explain(error).await;
            let mut failure = failure::in_phase(&error, reporter.current_phase(), &progress, held.is_proven());
            let is_written = reporter.current_phase() == Phase::HandOver;
            let ending =
                if is_written { Ending::Done } else { ending(&error, progress.snapshot().has_touched_target()) };
            failure.torn_down = hand_over::close(&mut held, ending, reporter).await;
            Body::RunFailed(Box::new(failure))
        }
    };
    reporter.emit(last.clone());
    last
}

/// The exit code that goes with a last event.
pub fn exit_code(last: &Body) -> u8 {
    match last {
        Body::RunFailed(failure) => failure.exit_code,
        _ => 0,
    }
}

/// Whether a later attempt may go on with what this one leaves. A device that failed may be mended.
fn ending(error: &Error, written: bool) -> Ending {
    match error.kind() {
        Kind::Cancelled => Ending::Over { written },
        Kind::Device => Ending::Resumable,
        _ if error.retry() == Retry::Permanent => Ending::Over { written },
        _ => Ending::Resumable,
    }
}

/// A defect of ours must not leave anything open either: it becomes an error, and the run is closed as after any other.
async fn unless_panicked<T>(run: impl Future<Output = Result<T>>) -> Result<T> {
    let mut run = std::pin::pin!(run);
    let polled = std::future::poll_fn(|context| {
        let poll = || run.as_mut().poll(context);
        // What it has broken is not used any more, but for what is open.
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(poll)) {
            Ok(Poll::Ready(ended)) => Poll::Ready(Ok(ended)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(panic) => Poll::Ready(Err(panic)),
        }
    });
    polled.await.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<&str>().map(|said| (*said).to_owned());
        let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no reason".into());
        Err(Error::device(format!("the agent has a defect and gave up: {said}"))
            .with_hint("keep what it has said and report it; the target does not hold the image"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_pass_is_gone_on_with_and_what_cannot_is_over() {
        let over = Ending::Over { written: true };
        assert_eq!(ending(&Error::cancelled("x"), true), over);
        assert_eq!(ending(&Error::target("x"), true), over);
        assert_eq!(ending(&Error::proof("x"), false), Ending::Over { written: false });
        assert_eq!(ending(&Error::target("x").with_retry(Retry::Temporary), true), Ending::Resumable);
        assert_eq!(ending(&Error::device("x"), true), Ending::Resumable);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_of_the_run() {
        let error = unless_panicked(async {
            tokio::task::yield_now().await;
            let none: Option<u8> = std::hint::black_box(None);
            Ok::<_, Error>(none.expect("a defect"))
        });
        let error = error.await.unwrap_err();
        assert!(error.to_string().ends_with("gave up: a defect"), "{error}");
        assert_eq!(unless_panicked(async { Ok(7) }).await.unwrap(), 7);
    }
}
