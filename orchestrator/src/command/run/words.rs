//! Runs in words. Every text leaves this file without control characters: it ends on a terminal.

use protocol::RunId;
use protocol::control::Run;
use protocol::control::key::{KeyAction, KeyDeed, KeyEvent, KeyState};
use protocol::control::run::{Glance, RunPaths, RunState};
use protocol::event::{
    Body, Container, Failure, PathChanged, Paths, Proof, ReservationFacts, Step, Summary, TailTreatment, TargetState,
    TornDown,
};
use protocol::spec::KeySource;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::text::{Size, duration, percent, printable};

/// How far, how fast, how long still, and what limits.
pub(super) fn progress(progress: &Glance) -> String {
    let Glance { bytes, total_bytes, rate, .. } = progress;
    let mut text = format!("{:3} %  {} of {}", percent(*bytes, *total_bytes), Size(*bytes), Size(*total_bytes));
    if matches!(progress.step, Step::Write | Step::ReadBack) {
        text += &format!(", {}/s", Size(*rate));
    }
    if let Some(seconds) = progress.eta_seconds {
        text += &format!(", {} left", duration(seconds));
    }
    if let Some(stage) = &progress.limited_by {
        text += &format!(", limited by {stage}");
    }
    if let Some(paths) = progress.paths {
        text += &format!(", {}", lost(paths));
    }
    printable(&text)
}

/// Where its agent is, in a few characters; nothing where it has none.
pub(super) fn brief_progress(run: &Run) -> String {
    let text = match (&run.progress, &run.step, &run.phase) {
        (Some(progress), ..) => format!("{} {} %", progress.step, percent(progress.bytes, progress.total_bytes)),
        (None, Some(step), _) => step.to_string(),
        (None, None, Some(phase)) => phase.to_string(),
        (None, None, None) => String::new(),
    };
    if run.state.is_over() { String::new() } else { printable(&text) }
}

/// What it waits for and for how long, and which paths it lacks, in a few characters; nothing where it lacks nothing.
pub(super) fn lacks(run: &Run, now: OffsetDateTime) -> String {
    let wait = run.waits.as_ref().map(|wait| match run.waits_since() {
        "" => wait.what.to_string(),
        since => format!("{} {}", wait.what, age(since, now)),
    });
    let lost = run.paths.as_ref().filter(|paths| paths.live < paths.total);
    let lost = lost.map(|RunPaths { live, total, since }| {
        format!("{} {}", self::lost(Paths { live: *live, total: *total }), age(since, now))
    });
    printable(&wait.into_iter().chain(lost).collect::<Vec<_>>().join(", "))
}

fn lost(paths: Paths) -> String {
    format!("{} of {} paths lost", paths.total.saturating_sub(paths.live), paths.total)
}

/// What its agent said, in one line, where that is for people. What is on a line of its own elsewhere (progress, how it ended) is not.
pub(super) fn event(event: &Body) -> Option<String> {
    let line = match event {
        Body::RunStarted(started) => format!("{}: {} → {}", started.agent, started.image, started.target),
        Body::Retry { source, message } => format!("retry: {source}: {message}"),
        Body::Warning { message } => format!("warning: {message}"),
        Body::PathChanged(PathChanged { path, way, state, live, total }) => {
            format!("path {path} ({way}) is {state}: {live} of {total} live")
        }
        Body::PhaseFinished { phase, seconds, detail } => format!("{phase}: {detail} ({seconds:.1} s)"),
        Body::RunFailed(failure) => format!("failed: {}", failure.message),
        _ => return None,
    };
    Some(printable(&line))
}

/// A failure: what happened, what to do next, what is on the target.
pub(super) fn failure(failure: &Failure) -> String {
    let state = match &failure.target {
        TargetState::Untouched => "not touched",
        TargetState::NotBootable => "holds part of the image and does not boot; retry the run to finish it",
        TargetState::Uncertain => "is in an uncertain state: do not boot from it before a run has succeeded",
        TargetState::Proven => "holds the image, proven; it is what comes after that has failed",
        TargetState::Unknown(state) => state,
    };
    let mut lines = vec![format!("error: {}", failure.message)];
    lines.extend(failure.hint.iter().map(|hint| format!("hint: {hint}")));
    lines.extend(failure.causes.iter().map(|cause| format!("  caused by: {cause}")));
    lines.push(format!("target: {state}"));
    lines.extend(torn_down(&failure.torn_down).map(|(name, value)| format!("{name}: {value}")));
    lines.iter().map(|line| printable(line)).collect::<Vec<_>>().join("\n")
}

fn torn_down(torn_down: &TornDown) -> impl Iterator<Item = (&'static str, String)> {
    let closed = (!torn_down.undone.is_empty()).then(|| ("closed", torn_down.undone.join("; ")));
    let left = torn_down.left.iter().map(|left| ("LEFT OPEN", left.clone()));
    closed.into_iter().chain(left)
}

/// What a run has achieved: names and values.
pub(super) fn summary(summary: &Summary) -> Vec<(&'static str, String)> {
    let (image, target) = (&summary.image, &summary.target);
    let mut rows = vec![
        ("written", format!("{} version {}, {}", image.name, image.version, image.architecture)),
        ("digest", image.digest.to_string()),
    ];
    rows.extend(image.signers.iter().map(|signer| ("signed by", format!("key {signer}"))));
    rows.push(("onto", format!("{}, {}", target.device, Size(target.size))));
    rows.extend(target.paths.map(|paths| ("paths", format!("{} of {} live", paths.live, paths.total))));
    rows.extend(target.reservation.as_ref().map(|reservation| ("reserved", self::reservation(reservation))));
    rows.extend(target.containers.iter().map(|container| {
        let Container { region, uuid, cipher, kept, .. } = container;
        ("LUKS2", format!("{region}: {uuid}, {cipher}{}", if *kept { ", kept" } else { "" }))
    }));
    if !target.wiped.is_empty() {
        rows.push(("wiped", target.wiped.join(", ")));
    }
    let bytes = format!("{}, of which {} were fetched", Size(summary.raw_bytes), Size(summary.fetched_bytes));
    rows.push(("bytes", bytes));
    rows.push(("proof", proof(&summary.proof)));
    rows.extend(summary.tail.as_ref().map(|tail| ("tail", format!("{}: {}", Size(tail.bytes), treatment(&tail.how)))));
    if !summary.ipsec.is_empty() {
        rows.push(("IPsec", summary.ipsec.clone()));
    }
    rows.extend(summary.fallback.iter().map(|why| ("fell back", why.clone())));
    rows.extend(torn_down(&summary.torn_down));
    rows.extend(summary.ipl.iter().flat_map(|ipl| [("boots", ipl.record.clone()), ("IPL from", ipl.from.clone())]));
    let phases: Vec<_> = summary.phases.iter().map(|time| format!("{} {:.1} s", time.phase, time.seconds)).collect();
    rows.push(("took", format!("{:.1} s ({})", summary.total_seconds, phases.join(", "))));
    rows.into_iter().map(|(name, value)| (name, printable(&value))).collect()
}

fn reservation(reservation: &ReservationFacts) -> String {
    match reservation {
        ReservationFacts::Held { key, preempted } if preempted.is_empty() => format!("key {key}"),
        ReservationFacts::Held { key, preempted } => format!("key {key}; shut out: {}", preempted.join(", ")),
        ReservationFacts::Unsupported => "NONE: the storage knows none".to_owned(),
        ReservationFacts::Unknown(value) => value.to_string(),
    }
}

fn proof(proof: &Proof) -> String {
    match proof {
        Proof::ReadBack { bytes } => format!("{} read back from the media, equal to the signed image", Size(*bytes)),
        Proof::NotProven { reason } => format!("NOT PROVEN: {reason}"),
        Proof::Unknown(value) => value.to_string(),
    }
}

fn treatment(how: &TailTreatment) -> &str {
    match how {
        TailTreatment::ZeroedByDevice => "zeroed by the device",
        TailTreatment::ZeroedByWriting => "zeroed by writing",
        TailTreatment::WasZero => "zero already",
        TailTreatment::Kept => "KEPT AS IT WAS",
        TailTreatment::Discarded => "DISCARDED, NOT ZEROED",
        TailTreatment::NoiseUnderFreshKey => "noise under the fresh key, left alone",
        TailTreatment::Unknown(how) => how,
    }
}

/// What was done with a key.
pub(super) fn key_event(event: &KeyEvent) -> String {
    let reason = event.reason.as_ref().map_or_else(String::new, |reason| format!(", {reason}"));
    let preposition = if event.action == KeyAction::Released || event.action == KeyAction::Shown { "to" } else { "by" };
    printable(&format!("key {} {preposition} {}{reason}", event.action, event.by))
}

/// Where the key of a run comes from, and what has become of it.
pub(super) fn key(key: &KeyState, run: &RunId) -> String {
    if key.source == KeySource::Agent {
        return "its agent's: the machine has it".into();
    }
    let made = key.made.iter().map(|made| format!("made by the service at {made}"));
    let released = (!key.released.is_empty()).then(|| {
        let attempts: Vec<String> = key.released.iter().map(ToString::to_string).collect();
        format!("given to attempt {}", attempts.join(", "))
    });
    let deed = |what: &str, deed: &KeyDeed| {
        let reason = deed.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
        format!("{what} {} at {}{reason}", deed.by, deed.at)
    };
    let shown = key.shown.as_ref().map(|shown| deed("shown to", shown));
    let destroyed = key.destroyed.as_ref().map(|destroyed| deed("destroyed by", destroyed));
    let is_open = shown.is_none() && destroyed.is_none();
    let next = is_open.then(|| format!("not shown yet (z-orchestrator run key {run})"));
    made.chain(released).chain(shown).chain(destroyed).chain(next).collect::<Vec<_>>().join("; ")
}

/// What came of a run that is over.
pub(super) fn end(run: &Run) -> String {
    let reason = if run.reason.is_empty() { String::new() } else { format!(": {}", run.reason) };
    let head = printable(&format!("{} {}{reason}", run.run, run.state));
    let rows = match (&run.state, &run.summary, &run.failure) {
        (RunState::Succeeded, Some(summary), _) => {
            self::summary(summary).iter().map(|(name, value)| format!("  {name:10} {value}")).collect()
        }
        (RunState::Failed | RunState::Cancelled, _, Some(failure)) => {
            self::failure(failure).lines().map(|line| format!("  {line}")).collect()
        }
        _ => Vec::new(),
    };
    std::iter::once(head).chain(rows).collect::<Vec<_>>().join("\n")
}

/// How long ago that was, in a few characters.
pub(super) fn age(since: &str, now: OffsetDateTime) -> String {
    let Ok(since) = OffsetDateTime::parse(since, &Rfc3339) else { return "?".into() };
    let seconds = (now - since).whole_seconds().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use protocol::event::{ErrorKind, Phase};

    use super::*;

    #[test]
    fn a_failure_is_told_without_writing_on_the_terminal() {
        let failure = Failure {
            phase: Phase::Image,
            error: ErrorKind::Source,
            exit_code: 5,
            message: "http://a/: \u{1b}[2Jgone".into(),
            hint: Some("check\nerror: forged".into()),
            causes: vec!["reset".into()],
            retryable: true,
            target: TargetState::Unknown("\u{9b}2J".into()),
            torn_down: TornDown { undone: Vec::new(), left: vec!["a map:\rit is in use".into()] },
        };
        assert_eq!(
            super::failure(&failure),
            "error: http://a/: \u{fffd}[2Jgone\nhint: check\u{fffd}error: forged\n  caused by: reset\n\
             target: \u{fffd}2J\nLEFT OPEN: a map:\u{fffd}it is in use"
        );
        let line = event(&Body::RunFailed(Box::new(failure)));
        assert_eq!(line.as_deref(), Some("failed: http://a/: \u{fffd}[2Jgone"));
    }

    #[test]
    fn ages_are_short() {
        let now = OffsetDateTime::parse("2026-03-10T12:00:00Z", &Rfc3339).unwrap();
        let ages = [
            "2026-03-10T12:00:05Z",
            "2026-03-10T11:58:30.123Z",
            "2026-03-10T11:00:00Z",
            "2026-03-09T11:00:00Z",
            "2026-03-01T12:00:00Z",
            "soon",
        ];
        assert_eq!(ages.map(|since| age(since, now)), ["0s", "89s", "60m", "25h", "9d", "?"]);
    }
}
