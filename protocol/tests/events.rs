//! The events on the wire. The text here is the schema: a change of it is a change for every reader.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use protocol::event::{
    Body, Container, ErrorKind, Event, Failure, ImageFacts, KINDS, PathChanged, PathState, Paths, Phase, PhaseTime,
    Priority, Progress, Proof, Rates, ReservationFacts, RunStarted, Stage, Step, Summary, TargetFacts, TargetState,
    TornDown,
};
use protocol::{Digest, RunId};

fn digest() -> Digest {
    Digest::try_from(format!("sha256:{}", "0".repeat(64))).unwrap()
}

fn summary() -> Summary {
    Summary {
        image: ImageFacts {
            name: "debian-13".into(),
            version: 7,
            architecture: "s390x".into(),
            digest: digest(),
            signers: vec!["aa".into()],
        },
        target: TargetFacts {
            device: "/dev/loop0".into(),
            size: 4096,
            layout: "plain".into(),
            paths: None,
            reservation: None,
            containers: Vec::new(),
            wiped: Vec::new(),
        },
        raw_bytes: 4096,
        data_bytes: 3072,
        zero_bytes: 1024,
        kept_bytes: None,
        tail: None,
        gpt: None,
        partitions: None,
        fetched_bytes: 900,
        proof: Proof::ReadBack { bytes: 4096 },
        ipsec: "not required".into(),
        engine: "io_uring (O_DIRECT)".into(),
        fallback: None,
        limited_by: Some(Stage::Write),
        retries: 1,
        phases: vec![PhaseTime { phase: Phase::Spec, seconds: 0.001 }],
        write_seconds: 1.5,
        read_back_seconds: 0.5,
        total_seconds: 2.25,
        torn_down: TornDown::default(),
        ipl: None,
    }
}

/// A target with everything that one can have.
fn guarded() -> TargetFacts {
    TargetFacts {
        device: "LUN 36005".into(),
        size: 8192,
        layout: "split".into(),
        paths: Some(Paths { live: 2, total: 4 }),
        reservation: Some(ReservationFacts::Held { key: "0x7a".into(), preempted: vec!["0x79".into()] }),
        containers: vec![Container {
            region: "root".into(),
            uuid: "u".into(),
            cipher: "aes-xts-plain64".into(),
            sector_size: 512,
            kept: true,
        }],
        wiped: vec!["gpt at 512".into()],
    }
}

fn failure() -> Failure {
    Failure {
        phase: Phase::Stream,
        error: ErrorKind::Source,
        exit_code: 5,
        message: "http://a/: nothing for 30 s".into(),
        hint: Some("check the server".into()),
        causes: vec!["timed out".into()],
        retryable: true,
        target: TargetState::NotBootable,
        torn_down: TornDown { undone: vec!["closed".into()], left: vec!["busy".into()] },
    }
}

/// One of each kind, with its text.
fn golden() -> Vec<(Body, String)> {
    let zeros = "0".repeat(64);
    let progress = Progress {
        phase: Phase::Stream,
        step: Step::ReadBack,
        bytes: 1,
        total_bytes: 2,
        chunks: 3,
        total_chunks: 4,
        rates: Rates { source: 5, decode: 6, write: 7, read_back: 8 },
        limited_by: Some(Stage::Decode),
        eta_seconds: Some(9),
    };
    let started = RunStarted { agent: "z 1".into(), image: "debian-13".into(), target: "/dev/loop0".into() };
    let finished = PhaseTime { phase: Phase::HandOver, seconds: 0.25 };
    vec![
        (Body::RunStarted(started), r#"{"kind":"run-started","agent":"z 1","image":"debian-13","target":"/dev/loop0"}"#.into()),
        (Body::PhaseStarted { phase: Phase::Image }, r#"{"kind":"phase-started","phase":"image"}"#.into()),
        (
            Body::StepStarted { phase: Phase::Stream, step: Step::Invalidate },
            r#"{"kind":"step-started","phase":"stream","step":"invalidate"}"#.into(),
        ),
        (
            Body::Progress(progress),
            r#"{"kind":"progress","phase":"stream","step":"read-back","bytes":1,"total_bytes":2,"chunks":3,"total_chunks":4,"rates":{"source":5,"decode":6,"write":7,"read_back":8},"limited_by":"decode","eta_seconds":9}"#.into(),
        ),
        (
            Body::Retry { source: "http://a/".into(), message: "reset".into() },
            r#"{"kind":"retry","source":"http://a/","message":"reset"}"#.into(),
        ),
        (Body::Warning { message: "slow".into() }, r#"{"kind":"warning","message":"slow"}"#.into()),
        (
            Body::PathChanged(PathChanged {
                path: "sdb".into(),
                way: "1:0:1:0".into(),
                state: PathState::Down,
                live: 1,
                total: 2,
            }),
            r#"{"kind":"path-changed","path":"sdb","way":"1:0:1:0","state":"down","live":1,"total":2}"#.into(),
        ),
        (
            Body::PhaseFinished { phase: finished.phase, seconds: finished.seconds, detail: "closed".into() },
            r#"{"kind":"phase-finished","phase":"hand-over","seconds":0.25,"detail":"closed"}"#.into(),
        ),
        (
            Body::RunFinished(Box::new(summary())),
            format!(
                r#"{{"kind":"run-finished","image":{{"name":"debian-13","version":7,"architecture":"s390x","digest":"sha256:{zeros}","signers":["aa"]}},"target":{{"device":"/dev/loop0","size":4096,"layout":"plain"}},"raw_bytes":4096,"data_bytes":3072,"zero_bytes":1024,"fetched_bytes":900,"proof":{{"read-back":{{"bytes":4096}}}},"ipsec":"not required","engine":"io_uring (O_DIRECT)","limited_by":"write","retries":1,"phases":[{{"phase":"spec","seconds":0.001}}],"write_seconds":1.5,"read_back_seconds":0.5,"total_seconds":2.25}}"#
            ),
        ),
        (
            Body::RunFailed(Box::new(failure())),
            r#"{"kind":"run-failed","phase":"stream","error":"source","exit_code":5,"message":"http://a/: nothing for 30 s","hint":"check the server","causes":["timed out"],"retryable":true,"target":"not-bootable","torn_down":{"undone":["closed"],"left":["busy"]}}"#.into(),
        ),
    ]
}

fn event(body: Body) -> Event {
    let run = RunId::try_from("r-1".to_owned()).unwrap();
    Event { run, attempt: 1, index: 4, at: 1.5, time: "2026-01-02T03:04:05.678Z".into(), event: body }
}

#[test]
fn the_schema_is_what_it_was() {
    for (body, text) in golden() {
        assert_eq!(serde_json::to_string(&body).unwrap(), text);
        assert_eq!(serde_json::from_str::<Body>(&text).unwrap(), body);
    }
    assert_eq!(
        serde_json::to_string(&event(Body::PhaseStarted { phase: Phase::Spec })).unwrap(),
        r#"{"run":"r-1","attempt":1,"index":4,"at":1.5,"time":"2026-01-02T03:04:05.678Z","event":{"kind":"phase-started","phase":"spec"}}"#
    );
}

#[test]
fn everything_a_target_can_have_is_told() {
    let text = r#"{"device":"LUN 36005","size":8192,"layout":"split","paths":{"live":2,"total":4},"reservation":{"held":{"key":"0x7a","preempted":["0x79"]}},"containers":[{"region":"root","uuid":"u","cipher":"aes-xts-plain64","sector_size":512,"kept":true}],"wiped":["gpt at 512"]}"#;
    assert_eq!(serde_json::to_string(&guarded()).unwrap(), text);
    assert_eq!(serde_json::from_str::<TargetFacts>(text).unwrap(), guarded());
    let without = serde_json::to_string(&ReservationFacts::Unsupported).unwrap();
    assert_eq!(without, r#""unsupported""#);
    let unknown: ReservationFacts = serde_json::from_str(r#"{"nvme":1}"#).unwrap();
    assert_eq!(serde_json::to_string(&unknown).unwrap(), r#"{"nvme":1}"#);
}

#[test]
fn every_kind_is_in_the_list_and_in_the_snapshots() {
    let kind = |text: &String| serde_json::from_str::<serde_json::Value>(text).unwrap()["kind"].clone();
    let snapshots: Vec<_> = golden().iter().map(|(_, text)| kind(text)).collect();
    assert_eq!(snapshots, KINDS);
}

#[test]
fn an_old_reader_keeps_what_it_does_not_know() {
    for text in [
        r#"{"kind":"path-lost","wwid":"36005","left":[1,2]}"#,
        r#"{"kind":"phase-started","phase":"luks"}"#,
        r#"{"kind":"step-started","phase":"stream","step":"tail"}"#,
    ] {
        let body: Body = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&body).unwrap(), text);
        assert_eq!(body.priority(), Priority::High);
    }
    let more = r#"{"kind":"warning","message":"slow","since":3}"#;
    assert_eq!(serde_json::from_str::<Body>(more).unwrap(), Body::Warning { message: "slow".into() });
    let proof: Proof = serde_json::from_str(r#"{"verity":{"root":"x"}}"#).unwrap();
    assert_eq!(serde_json::to_string(&proof).unwrap(), r#"{"verity":{"root":"x"}}"#);
}

#[test]
fn a_known_kind_must_be_well_formed() {
    for text in [r#"{"kind":"warning"}"#, r#"{"kind":7}"#, r#"{"message":"x"}"#, r#"{"kind":"progress","bytes":-1}"#] {
        assert!(serde_json::from_str::<Body>(text).is_err(), "{text}");
    }
}

#[test]
fn only_progress_may_be_thinned() {
    let low: Vec<_> = golden().into_iter().filter(|(body, _)| body.priority() == Priority::Low).collect();
    assert!(matches!(low[..], [(Body::Progress(_), _)]));
    assert_eq!(golden().iter().filter(|(body, _)| body.is_terminal()).count(), 2);
}

/// Seconds as the agent writes them: whole milliseconds.
fn seconds() -> impl Strategy<Value = f64> {
    (0u32..2_000_000_000).prop_map(|ms| f64::from(ms) / 1000.0)
}

fn word<T: From<String> + std::fmt::Debug>() -> impl Strategy<Value = T> {
    "[a-z-]{0,12}".prop_map(T::from)
}

fn body() -> impl Strategy<Value = Body> {
    let progress = (word(), word(), any::<[u64; 8]>(), proptest::option::of(word()), any::<Option<u64>>()).prop_map(
        |(phase, step, n, limited_by, eta_seconds)| {
            let rates = Rates { source: n[4], decode: n[5], write: n[6], read_back: n[7] };
            let (bytes, total_bytes, chunks, total_chunks) = (n[0], n[1], n[2], n[3]);
            Body::Progress(Progress {
                phase,
                step,
                bytes,
                total_bytes,
                chunks,
                total_chunks,
                rates,
                limited_by,
                eta_seconds,
            })
        },
    );
    let failed = (word(), word(), any::<u8>(), ".*", any::<Option<String>>(), any::<Vec<String>>(), any::<bool>())
        .prop_map(|(phase, error, exit_code, message, hint, causes, retryable)| {
            Body::RunFailed(Box::new(Failure {
                phase,
                error,
                exit_code,
                message,
                hint,
                causes,
                retryable,
                ..failure()
            }))
        });
    let finished = (any::<[u64; 6]>(), seconds(), proptest::option::of(".*"), proptest::option::of(word())).prop_map(
        |(n, total_seconds, fallback, limited_by)| {
            let proof =
                if n[0] % 2 == 0 { Proof::ReadBack { bytes: n[5] } } else { Proof::NotProven { reason: "x".into() } };
            Body::RunFinished(Box::new(Summary {
                raw_bytes: n[0],
                data_bytes: n[1],
                zero_bytes: n[2],
                fetched_bytes: n[3],
                retries: n[4],
                proof,
                total_seconds,
                fallback,
                limited_by,
                ..summary()
            }))
        },
    );
    prop_oneof![
        progress,
        failed,
        finished,
        (".*", ".*").prop_map(|(source, message)| Body::Retry { source, message }),
        ".*".prop_map(|message| Body::Warning { message }),
        (word(), seconds(), ".*").prop_map(|(phase, seconds, detail)| Body::PhaseFinished { phase, seconds, detail }),
        "x-[a-z]{1,9}".prop_map(|kind| {
            Body::Unknown(
                [("kind".to_owned(), kind.into()), ("more".to_owned(), vec![1, 2].into())].into_iter().collect(),
            )
        }),
    ]
}

proptest! {
    #[test]
    fn every_event_survives_the_wire(
        body in body(),
        id in "[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        attempt: u32,
        index: u64,
        at in seconds(),
    ) {
        let run = RunId::try_from(id).unwrap();
        let event = Event { run, attempt, index, at, time: "t".into(), event: body };
        let text = serde_json::to_string(&event).unwrap();
        prop_assert!(!text.contains('\n'), "one event is one line");
        prop_assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }

    #[test]
    fn no_text_panics(text in ".*") {
        let _ = serde_json::from_str::<Event>(&text);
    }
}
