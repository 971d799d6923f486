//! Errors as the last event of a run: whose problem, what to do next, and what is on the target now.

use std::sync::atomic::Ordering::Relaxed;

use imgstream::error::{Error, Kind, Retry};
use imgstream::progress::{self, Progress};
use protocol::event::{ErrorKind, Failure, Phase, TargetState, TornDown};

/// An error before there was a run to report on.
pub fn before_the_run(error: &Error) -> Failure {
    failure(error, Phase::Spec, TargetState::Untouched)
}

/// An error in `phase`, when the data path had come as far as `progress` says. `proven`: the target holds the image all the same.
pub fn in_phase(error: &Error, phase: Phase, progress: &Progress, proven: bool) -> Failure {
    use progress::Phase as Reached;
    let reached = progress.snapshot();
    let target = match reached.phase {
        _ if proven => TargetState::Proven,
        _ if progress.given_up.load(Relaxed) => TargetState::Uncertain,
        _ if !reached.has_touched_target() => TargetState::Untouched,
        // It held the image already, and boots; what lies beyond it was being cleared.
        _ if !reached.has_entered(Reached::Invalidating) => TargetState::Uncertain,
        Reached::Invalidating | Reached::Committing | Reached::Done => TargetState::Uncertain,
        _ => TargetState::NotBootable,
    };
    failure(error, phase, target)
}

/// The end without waiting for anything.
pub fn at_once(error: &Error, phase: Phase) -> Failure {
    let target = if phase == Phase::Stream { TargetState::Uncertain } else { TargetState::Untouched };
    failure(error, phase, target)
}

fn failure(error: &Error, phase: Phase, target: TargetState) -> Failure {
    Failure {
        phase,
        error: kind(error.kind()),
        exit_code: error.kind().exit_code(),
        message: error.to_string(),
        hint: Some(error.hint().map_or_else(|| general_hint(error.kind()).into(), str::to_owned)),
        causes: error.causes(),
        retryable: error.retry() != Retry::Permanent,
        target,
        torn_down: TornDown::default(),
    }
}

fn kind(kind: Kind) -> ErrorKind {
    match kind {
        Kind::Usage => ErrorKind::Usage,
        Kind::Image => ErrorKind::Image,
        Kind::Target => ErrorKind::Target,
        Kind::Source => ErrorKind::Source,
        Kind::Device => ErrorKind::Device,
        Kind::Proof => ErrorKind::Proof,
        Kind::Cancelled => ErrorKind::Cancelled,
    }
}

/// What to do next where the error itself does not say.
fn general_hint(kind: Kind) -> &'static str {
    match kind {
        Kind::Usage => "correct the run spec or the command line; docs/operating.md explains every key",
        Kind::Image => "compare `image` in the run spec with what `imgstream inspect` says of the image",
        Kind::Target => "look at the target with lsblk; docs/operating.md lists what stands against one",
        Kind::Source => "check that the source is up and reachable from here, then run the same spec again",
        Kind::Device => "see the kernel log for this device, then run the same spec again",
        Kind::Proof => "do not use this device before its hardware and paths have been checked",
        Kind::Cancelled => "run the same spec again if the target is still wanted",
    }
}
