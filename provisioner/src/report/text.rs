//! Events in words. Whatever comes from outside loses its control characters here: it ends on a terminal.

use imgstream::size::Size;
use protocol::event::{
    Body, Container, Failure, PathChanged, Paths, Progress, Proof, ReservationFacts, Summary, Tail, TailTreatment,
    TargetFacts, TargetState, TornDown,
};

/// One line, for the events that have one.
pub fn of(event: &Body) -> Option<String> {
    let line = match event {
        Body::RunStarted(started) => {
            format!("{}: {} → {}", started.agent, started.image, started.target)
        }
        Body::Retry { source, message } => format!("retry: {source}: {message}"),
        Body::Warning { message } => format!("warning: {message}"),
        Body::PathChanged(PathChanged { path, way, state, live, total }) => {
            format!("path {path} ({way}) is {state}: {live} of {total} live")
        }
        Body::PhaseFinished { phase, seconds, detail } => return Some(done(phase.name(), detail, *seconds)),
        _ => return None,
    };
    Some(printable(&line))
}

/// What has been done, and how long it took.
pub fn done(what: &str, detail: &str, seconds: f64) -> String {
    printable(&format!("  {what:10} {detail} ({})", duration(seconds)))
}

/// How far, how fast, how long still, and what limits.
pub fn progress(progress: &Progress) -> String {
    let mut text = format!(
        "{:3} %  {} of {}",
        percent(progress.bytes, progress.total_bytes),
        Size(progress.bytes),
        Size(progress.total_bytes)
    );
    match progress.step.name() {
        "write" => text += &format!(", {}/s", Size(progress.rates.write)),
        "read-back" => text += &format!(", {}/s", Size(progress.rates.read_back)),
        _ => {}
    }
    if let Some(seconds) = progress.eta_seconds {
        text += &format!(", {} left", whole_seconds(seconds));
    }
    if let Some(stage) = &progress.limited_by {
        text += &format!(", limited by {}", stage.name());
    }
    printable(&text)
}

/// Whole percent, 100 only when all is done.
pub fn percent(part: u64, whole: u64) -> u64 {
    match whole {
        0 => 100,
        _ => u64::try_from(u128::from(part.min(whole)) * 100 / u128::from(whole)).unwrap_or(100),
    }
}

/// A failure: what happened, what to do next, what is on the target. With `causes`, the chain below it.
pub fn failed(failure: &Failure, causes: bool) -> String {
    let state = match &failure.target {
        TargetState::Untouched => "not touched",
        TargetState::NotBootable => "holds part of the image and does not boot; run again to finish it",
        TargetState::Uncertain => "is in an uncertain state: do not boot from it before a run has succeeded",
        TargetState::Proven => "holds the image, proven; it is what comes after that has failed",
        TargetState::Unknown(state) => state,
    };
    let mut lines = vec![error(failure, causes), printable(&format!("target: {state}"))];
    lines.extend(torn_down(&failure.torn_down).map(|(name, value)| printable(&format!("{name}: {value}"))));
    lines.join("\n")
}

/// What was closed again, and what was not.
fn torn_down(torn_down: &TornDown) -> impl Iterator<Item = (&'static str, String)> {
    let closed = (!torn_down.undone.is_empty()).then(|| ("closed", torn_down.undone.join("; ")));
    let left = torn_down.left.iter().map(|left| ("LEFT OPEN", left.clone()));
    closed.into_iter().chain(left)
}

/// An error: what happened, what to do next. With `causes`, the chain below it.
pub fn error(failure: &Failure, causes: bool) -> String {
    let mut lines = vec![format!("error: {}", failure.message)];
    lines.extend(failure.hint.iter().map(|hint| format!("hint: {hint}")));
    if causes {
        lines.extend(failure.causes.iter().map(|cause| format!("  caused by: {cause}")));
    }
    lines.iter().map(|line| printable(line)).collect::<Vec<_>>().join("\n")
}

/// The result on one screen.
pub fn summary(summary: &Summary) -> String {
    let image = &summary.image;
    let target = &summary.target.device;
    let proven = !matches!(summary.proof, Proof::NotProven { .. });
    let aloud = if proven { "proven by read-back" } else { "NOT PROVEN" };
    let mut rows = vec![
        ("image", format!("{} version {}, {}", image.name, image.version, image.architecture)),
        ("digest", image.digest.to_string()),
    ];
    rows.extend(image.signers.iter().map(|signer| ("signed by", format!("key {signer}"))));
    rows.push(("target", format!("{target}, {}", Size(summary.target.size))));
    rows.extend(guarded(&summary.target));
    rows.push(("bytes", bytes(summary)));
    rows.extend(summary.kept_bytes.map(|kept| ("kept", format!("{} that were there already", Size(kept)))));
    rows.push(("proof", proof(&summary.proof)));
    rows.extend(summary.tail.as_ref().map(|tail| ("tail", self::tail(tail))));
    rows.extend(summary.gpt.iter().map(|gpt| ("GPT", format!("its backup at the target's end: {gpt}"))));
    rows.extend(summary.partitions.iter().map(|said| ("partitions", said.clone())));
    if !summary.ipsec.is_empty() {
        rows.push(("IPsec", summary.ipsec.clone()));
    }
    rows.push(("engine", summary.engine.clone()));
    rows.extend(summary.fallback.iter().map(|why| ("fell back", why.clone())));
    let limit = summary.limited_by.as_ref().map_or(String::new(), |stage| format!(", limited by {}", stage.name()));
    rows.push(("write", format!("{}, flush included{limit}", pace(summary.raw_bytes, summary.write_seconds))));
    if let Proof::ReadBack { bytes } = summary.proof {
        rows.push(("read-back", pace(bytes, summary.read_back_seconds)));
    }
    rows.push(("retries", summary.retries.to_string()));
    rows.extend(torn_down(&summary.torn_down));
    rows.extend(summary.ipl.iter().flat_map(|ipl| [("boots", ipl.record.clone()), ("IPL from", ipl.from.clone())]));
    let phases: Vec<_> =
        summary.phases.iter().map(|time| format!("{} {}", time.phase.name(), duration(time.seconds))).collect();
    rows.push(("time", format!("{} ({})", duration(summary.total_seconds), phases.join(", "))));
    let rows = rows.iter().map(|(name, value)| format!("  {name:10} {value}"));
    let head = format!("done: {} version {} is on {target}, {aloud}", image.name, image.version);
    std::iter::once(head).chain(rows).map(|line| printable(&line)).collect::<Vec<_>>().join("\n")
}

/// Paths, reservation and containers of a target, as far as it has any.
fn guarded(target: &TargetFacts) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    rows.extend(
        target.paths.map(|Paths { live, total }| ("paths", format!("{live} of {total} live when it was taken"))),
    );
    rows.extend(target.reservation.as_ref().map(|reservation| {
        let text = match reservation {
            ReservationFacts::Held { key, preempted } if preempted.is_empty() => format!("key {key}"),
            ReservationFacts::Held { key, preempted } => format!("key {key}; shut out: {}", preempted.join(", ")),
            ReservationFacts::Unsupported => "NONE: the storage knows none".to_owned(),
            ReservationFacts::Unknown(value) => value.to_string(),
        };
        ("reserved", text)
    }));
    rows.extend(target.containers.iter().map(|container| {
        let Container { region, uuid, cipher, sector_size, kept } = container;
        let kept = if *kept { ", kept" } else { "" };
        ("LUKS2", format!("{region}: {uuid}, {cipher}, sectors of {sector_size}{kept}"))
    }));
    if !target.wiped.is_empty() {
        rows.push(("wiped", target.wiped.join(", ")));
    }
    rows
}

fn bytes(summary: &Summary) -> String {
    format!(
        "{} = {} data + {} zeros and holes; fetched {} ({} %)",
        Size(summary.raw_bytes),
        Size(summary.data_bytes),
        Size(summary.zero_bytes),
        Size(summary.fetched_bytes),
        percent(summary.fetched_bytes, summary.raw_bytes)
    )
}

fn proof(proof: &Proof) -> String {
    match proof {
        Proof::ReadBack { bytes } => format!("{} read back from the media, equal to the signed image", Size(*bytes)),
        Proof::NotProven { reason } => format!("NOT PROVEN: {reason}"),
        Proof::Unknown(value) => value.to_string(),
    }
}

fn tail(tail: &Tail) -> String {
    let how = match &tail.how {
        TailTreatment::ZeroedByDevice => "zeroed by the device",
        TailTreatment::ZeroedByWriting => "zeroed by writing",
        TailTreatment::WasZero => "zero already",
        TailTreatment::Kept => "KEPT AS IT WAS",
        TailTreatment::Discarded => "DISCARDED, NOT ZEROED",
        TailTreatment::NoiseUnderFreshKey => "noise under the fresh key, left alone",
        TailTreatment::Unknown(how) => how,
    };
    format!("{} beyond the image: {how}; {} of them read back as zeros", Size(tail.bytes), Size(tail.proven_bytes))
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn pace(bytes: u64, seconds: f64) -> String {
    let rate = if seconds > 0.0 { format!(", {}/s", Size((bytes as f64 / seconds) as u64)) } else { String::new() };
    format!("{}{rate}", duration(seconds))
}

/// Seconds as people say them.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub fn duration(seconds: f64) -> String {
    match seconds {
        short if short < 10.0 => format!("{short:.2} s"),
        middle if middle < 100.0 => format!("{middle:.1} s"),
        long => whole_seconds(long.round() as u64),
    }
}

fn whole_seconds(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s:02} s"),
        (h, m, _) => format!("{h} h {m:02} min"),
    }
}

/// A line without control characters: a server or an image may put them into a name to write on somebody's terminal.
fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use protocol::event::{ErrorKind, ImageFacts, Phase, PhaseTime, Stage, TargetFacts};

    use super::*;

    fn done() -> Summary {
        Summary {
            image: ImageFacts {
                name: "debian-13".into(),
                version: 7,
                architecture: "s390x".into(),
                digest: format!("sha256:{}", "0".repeat(64)).try_into().unwrap(),
                signers: vec!["aa".into(), "bb".into()],
            },
            target: TargetFacts { device: "/dev/loop0".into(), size: 4 << 30, ..TargetFacts::default() },
            raw_bytes: 2 << 30,
            data_bytes: 1 << 30,
            zero_bytes: 1 << 30,
            kept_bytes: None,
            tail: None,
            gpt: None,
            partitions: None,
            fetched_bytes: 512 << 20,
            proof: Proof::ReadBack { bytes: 2 << 30 },
            ipsec: "platform: not seen from here".into(),
            engine: "pwrite threads (O_DIRECT)".into(),
            fallback: Some("io_uring is not available here".into()),
            limited_by: Some(Stage::Write),
            retries: 2,
            phases: vec![PhaseTime { phase: Phase::Stream, seconds: 3.0 }],
            write_seconds: 2.0,
            read_back_seconds: 1.0,
            total_seconds: 3.25,
            torn_down: TornDown::default(),
            ipl: None,
        }
    }

    #[test]
    fn the_summary_fits_one_screen_and_says_everything() {
        let text = summary(&done());
        let expected = [
            "done: debian-13 version 7 is on /dev/loop0, proven by read-back",
            "key bb",
            "/dev/loop0, 4 GiB",
            "2 GiB = 1 GiB data + 1 GiB zeros and holes; fetched 512 MiB (25 %)",
            "2 GiB read back from the media",
            "  IPsec      platform: not seen from here",
            "fell back  io_uring is not available here",
            "2.00 s, 1 GiB/s, flush included, limited by write",
            "1.00 s, 2 GiB/s",
            "retries    2",
            "3.25 s (stream 3.00 s)",
        ];
        for part in expected {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        assert!(text.lines().count() <= 20);
    }

    #[test]
    fn what_is_not_proven_is_said_aloud() {
        let text =
            summary(&Summary { proof: Proof::NotProven { reason: "read-back was turned off".into() }, ..done() });
        assert!(text.lines().next().is_some_and(|head| head.ends_with("NOT PROVEN")));
        assert!(text.contains("NOT PROVEN: read-back was turned off"));
        assert!(!text.contains("read-back  "));
    }

    #[test]
    fn what_guards_a_lun_and_what_it_held_are_said() {
        let mut summary = done();
        summary.target = TargetFacts {
            device: "LUN 36005".into(),
            paths: Some(Paths { live: 2, total: 4 }),
            reservation: Some(ReservationFacts::Held { key: "0x5a01".into(), preempted: vec!["0x5a00".into()] }),
            containers: vec![Container {
                region: "root".into(),
                uuid: "7a70".into(),
                cipher: "aes-xts-plain64".into(),
                sector_size: 4096,
                kept: true,
            }],
            wiped: vec!["xfs (a file system)".into(), "dos (a partition table)".into()],
            ..summary.target
        };
        summary.torn_down = TornDown { undone: vec!["mapping a".into(), "key 0x5a01".into()], left: vec!["b".into()] };
        let text = self::summary(&summary);
        for line in [
            "  paths      2 of 4 live when it was taken",
            "  reserved   key 0x5a01; shut out: 0x5a00",
            "  LUKS2      root: 7a70, aes-xts-plain64, sectors of 4096, kept",
            "  wiped      xfs (a file system), dos (a partition table)",
            "  closed     mapping a; key 0x5a01",
            "  LEFT OPEN  b",
        ] {
            assert!(text.lines().any(|said| said == line), "{line:?} is missing in\n{text}");
        }
        summary.target.reservation = Some(ReservationFacts::Unsupported);
        assert!(self::summary(&summary).contains("  reserved   NONE: the storage knows none"));
    }

    #[test]
    fn a_failure_is_told_without_writing_on_the_terminal() {
        let failure = Failure {
            phase: Phase::Image,
            error: ErrorKind::Source,
            exit_code: 5,
            message: "http://a/: \u{1b}[2Jgone".into(),
            hint: Some("check".into()),
            causes: vec!["reset\nerror: forged".into()],
            retryable: true,
            target: TargetState::Untouched,
            torn_down: TornDown { undone: Vec::new(), left: vec!["a map:\rit is in use".into()] },
        };
        assert_eq!(
            failed(&failure, true),
            "error: http://a/: \u{fffd}[2Jgone\nhint: check\n  caused by: reset\u{fffd}error: forged\ntarget: not touched\n\
             LEFT OPEN: a map:\u{fffd}it is in use"
        );
        assert!(!failed(&failure, false).contains("caused by"));
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!((percent(999, 1000), percent(1000, 1000), percent(0, 0)), (99, 100, 100));
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
        let times = [0.004, 12.34, 125.0, 7260.0].map(duration);
        assert_eq!(times, ["0.00 s", "12.3 s", "2 min 05 s", "2 h 01 min"]);
    }
}
