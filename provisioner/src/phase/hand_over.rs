//! The hand-over: everything is closed, and what was done is put into one summary.

use std::fmt;

use imgstream::error::Result;
use protocol::event::{Body, ImageFacts, Phase, Proof, Stage, Step, Summary, Tail, TargetFacts, TornDown};

use super::stream::Written;
use crate::ipsec::demand::Demand;
use crate::report::Reporter;
use crate::target::{Ending, Held};

/// A server's disk, ready to be used.
#[derive(Debug)]
pub struct HandedOver(pub Summary);

impl fmt::Display for HandedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is flushed and closed", self.0.target.device)
    }
}

/// Closes what the run has opened, and makes the summary.
///
/// # Errors
/// None: what cannot be closed stands in the summary. The target holds what was proven all the same.
pub async fn hand_over(
    facts: (ImageFacts, TargetFacts),
    written: &Written,
    ipsec: &Demand,
    held: &mut Held,
    reporter: &Reporter,
) -> Result<HandedOver> {
    let torn_down = close(held, Ending::Done, reporter).await;
    Ok(HandedOver(summary(facts, written, ipsec, torn_down, reporter)))
}

/// Closes what the run has opened; warns of what stays open.
pub async fn close(held: &mut Held, ending: Ending, reporter: &Reporter) -> TornDown {
    if held.is_empty() {
        return TornDown::default();
    }
    reporter.emit(Body::StepStarted { phase: Phase::HandOver, step: Step::Close });
    let torn_down = held.close(ending).await;
    for left in &torn_down.left {
        reporter.emit(Body::Warning { message: format!("left as it is: {left}") });
    }
    torn_down
}

fn summary(
    (image, target): (ImageFacts, TargetFacts),
    written: &Written,
    ipsec: &Demand,
    torn_down: TornDown,
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
    }
}
