//! Runs as the service would have them.

use orchestrator::model::{IdempotencyKey, Moment, Record, State};
use orchestrator::store::Change;
use protocol::RunId;
use protocol::control::NewRun;
use protocol::control::run::{Happening, StateChanged, What};

/// A run that has just been created: its own server and target.
pub fn record(seq: i64) -> Record {
    on(seq, &format!("server-{seq}"), &format!("/dev/disk/{seq}"))
}

/// A run that has just been created.
pub fn on(seq: i64, server: &str, device: &str) -> Record {
    let order = format!(
        r#"{{"server": "{server}", "target": {{"device": "{device}"}}, "fabric": "fabric-{}",
            "image": {{"name": "image-{}", "sources": ["https://images/"], "trust": ["{:064x}"]}}}}"#,
        seq % 2,
        seq % 3,
        7,
    );
    Record {
        run: run(seq),
        seq,
        version: 1,
        order: NewRun::parse(order.as_bytes()).unwrap(),
        key: None,
        luks_key: None,
        remains: Vec::new(),
        policy: None,
        created: Moment(1_000 + seq),
        deadline: None,
        state: State::Queued,
        since: Moment(1_000 + seq),
        reason: "just created; “ä” and '\\' as well".into(),
        not_before: Moment(0),
        cancel: None,
        silent: Vec::new(),
        next_token: None,
        budget: 3,
        attempts: Vec::new(),
        phase: None,
        step: None,
        summary: None,
        failure: None,
        ended: None,
    }
}

pub fn run(seq: i64) -> RunId {
    RunId::try_from(format!("run-{seq}")).unwrap()
}

pub fn with_key(mut record: Record, key: &str) -> Record {
    let request = format!("sha256:{:064x}", 3).try_into().unwrap();
    record.key = Some(IdempotencyKey { key: key.into(), request });
    record
}

/// The next version of a record, in this state.
pub fn next(record: &Record, state: State) -> Record {
    Record { version: record.version + 1, state, ..record.clone() }
}

/// The change to this record, with its state told.
pub fn change(record: &Record) -> Change {
    let what = StateChanged { state: record.state.into(), attempt: 0, reason: format!("version {}", record.version) };
    let told = Happening { run: record.run.clone(), time: "2026-01-02T03:04:05Z".into(), what: What::State(what) };
    Change { record: record.clone(), told: vec![told] }
}
