//! The hand-over: everything is closed, and what was done is put into one summary.

use std::fmt;

use imgstream::error::Result;
use protocol::event::{Body, ImageFacts, IplFacts, Phase, Proof, Stage, Step, Summary, Tail, TargetFacts, TornDown};

use super::ipl::Ipl;
use super::stream::Written;
use crate::ipl::reipl::Source;
use crate::ipsec::demand::Demand;
use crate::report::Reporter;
use crate::target::{Ending, Held};

/// A server's disk, ready to be used.
#[derive(Debug)]
pub struct HandedOver {
    /// What was done.
    pub summary: Summary,
    /// What firmware was told to start, where it was.
    pub starts: Option<Source>,
}

/// What is known of a run before anything is written.
#[derive(Debug)]
pub struct Facts {
    /// What is written.
    pub image: ImageFacts,
    /// Where to.
    pub target: TargetFacts,
    /// What protected the way.
    pub ipsec: Demand,
}

impl fmt::Display for HandedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is flushed and closed", self.summary.target.device)?;
        self.starts.as_ref().map_or(Ok(()), |source| write!(f, ", and the next IPL is from {source}"))
    }
}

/// Closes what the run has opened, and makes the summary. With `ipl`, it makes sure before that what was written can be started, and
/// after that tells the firmware to.
///
/// # Errors
/// Only with `ipl`: those of [`Ipl::check`] and [`Ipl::prepare`]. What cannot be closed stands in the summary; the target holds what was
/// proven all the same.
pub async fn hand_over(
    facts: Facts,
    written: &Written,
    ipl: Option<Ipl>,
    held: &mut Held,
    reporter: &Reporter,
) -> Result<HandedOver> {
    let checked = match &ipl {
        Some(ipl) => {
            // What this machine starts must be this run's to the end.
            held.may_write().await?;
            Some(ipl.check(reporter).await?)
        }
        None => None,
    };
    if !held.is_empty() {
        reporter.emit(Body::StepStarted { phase: Phase::HandOver, step: Step::Close });
    }
    let torn_down = held.close_target(Ending::Done).await;
    if ipl.is_some() {
        held.demand_kept()?;
    }
    // The path that firmware will take is asked while its adapter is still online.
    let prepared = match (&ipl, checked) {
        (Some(ipl), Some(checked)) => Some(ipl.prepare(checked, reporter).await?),
        _ => None,
    };
    let torn_down = torn_down.and(held.close_adapters().await);
    warn_of_left(&torn_down, reporter);
    let (starts, ipl) = prepared.unzip();
    Ok(HandedOver { summary: summary(facts, written, torn_down, ipl, reporter), starts })
}

/// Closes what the run has opened; warns of what stays open.
pub async fn close(held: &mut Held, ending: Ending, reporter: &Reporter) -> TornDown {
    if held.is_empty() {
        return TornDown::default();
    }
    reporter.emit(Body::StepStarted { phase: Phase::HandOver, step: Step::Close });
    let torn_down = held.close(ending).await;
    warn_of_left(&torn_down, reporter);
    torn_down
}

fn warn_of_left(torn_down: &TornDown, reporter: &Reporter) {
    for left in &torn_down.left {
        reporter.emit(Body::Warning { message: format!("left as it is: {left}") });
    }
}

fn summary(
    Facts { image, target, ipsec }: Facts,
    written: &Written,
    torn_down: TornDown,
    ipl: Option<IplFacts>,
    reporter: &Reporter,
) -> Summary {
    let report = &written.0;
    Summary {
        image,
        target,
        raw_bytes: report.raw_bytes,
        data_bytes: report.data_bytes,
        zero_bytes: report.zero_bytes,
        fetched_bytes: report.fetched_bytes,
        kept_bytes: report.kept_bytes,
        tail: report.tail.as_ref().map(|tail| Tail {
            bytes: tail.bytes,
            how: tail.how.name().to_owned().into(),
            proven_bytes: tail.proven_bytes,
        }),
        gpt: report.gpt.clone(),
        partitions: report.partitions.clone(),
        proof: match report.read_back_bytes {
            Some(bytes) => Proof::ReadBack { bytes },
            None => Proof::NotProven { reason: "read-back was turned off".into() },
        },
        ipsec: ipsec.to_string(),
        engine: report.engine.clone(),
        fallback: report.fallback.clone(),
        limited_by: report.limited_by.map(|stage| Stage::from(stage.name().to_owned())),
        retries: report.retries,
        phases: reporter.phase_times(),
        write_seconds: report.write_seconds,
        read_back_seconds: report.read_back_seconds,
        total_seconds: reporter.seconds(),
        torn_down,
        ipl,
    }
}
