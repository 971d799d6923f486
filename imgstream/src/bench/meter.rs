//! Wall and CPU time of one run, and what several runs of the same come to.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

use super::findings::{Part, Spread, StageAlone};

const GIB: f64 = (1u64 << 30) as f64;

/// CPU seconds of all threads of this process so far. What the kernel does for it on threads of its own is not in them.
pub(super) fn cpu_seconds() -> f64 {
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    // Asking for oneself has no way to fail.
    getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |usage| seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// A run that goes on.
pub(super) struct Meter {
    since: Instant,
    cpu: f64,
}

impl Meter {
    pub(super) fn start() -> Self {
        Meter { since: Instant::now(), cpu: cpu_seconds() }
    }

    /// The time so far.
    pub(super) fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// Ends it; `bytes` of the raw image went through.
    pub(super) fn stop(&self, bytes: f64) -> Sample {
        Sample { bytes, seconds: self.since.elapsed().as_secs_f64(), cpu: cpu_seconds() - self.cpu }
    }
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) bytes: f64,
    pub(super) seconds: f64,
    pub(super) cpu: f64,
}

impl Sample {
    pub(super) fn rate(&self) -> f64 {
        self.bytes / self.seconds.max(1e-9)
    }

    pub(super) fn cpu_per_gib(&self) -> f64 {
        self.cpu / self.bytes.max(1.0) * GIB
    }
}

/// A stage alone, of its runs; `None` of no runs.
pub(super) fn stage(part: Part, threads: usize, samples: &[Sample]) -> Option<StageAlone> {
    let rate = Spread::of(samples.iter().map(Sample::rate))?;
    let cpu_per_gib = Spread::of(samples.iter().map(Sample::cpu_per_gib))?.median;
    Some(StageAlone { part, threads, rate, cpu_per_gib })
}
