//! The hand-over: everything is closed by now, and what was done is put into one summary.

use std::fmt;

use protocol::event::{ImageFacts, Proof, Stage, Summary, Tail, TargetFacts, TornDown};

use super::stream::Written;
use crate::report::Reporter;

/// A server's disk, ready to be used.
#[derive(Debug)]
pub struct HandedOver(pub Summary);

impl fmt::Display for HandedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is flushed and closed", self.0.target.device)
    }
}

/// Makes the summary.
pub fn summarize((image, target): (ImageFacts, TargetFacts), written: &Written, reporter: &Reporter) -> HandedOver {
    let report = &written.0;
    HandedOver(Summary {
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
        engine: report.engine.clone(),
        fallback: report.fallback.clone(),
        limited_by: report.limited_by.map(|stage| Stage::from(stage.name().to_owned())),
        retries: report.retries,
        phases: reporter.phase_times(),
        write_seconds: report.write_seconds,
        read_back_seconds: report.read_back_seconds,
        total_seconds: reporter.seconds(),
        torn_down: TornDown::default(),
    })
}
