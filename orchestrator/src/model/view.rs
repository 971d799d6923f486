//! A record as people see it.

use protocol::control::key::{KeyDeed, KeyState};
use protocol::control::run::{Attempt, LauncherKind, Run, Wait, WaitsFor};
use protocol::event::Progress;
use protocol::spec::KeySource;

use super::PathCount;
use super::record::{Deed, Record, State};

/// What people are shown of a run. `queued`: what keeps it from being started, as far as that is known.
pub fn view(record: &Record, queued: Option<Wait>, progress: Option<Progress>) -> Run {
    let attempts = record.attempts.iter().map(|attempt| Attempt {
        attempt: attempt.number,
        started: attempt.started.to_string(),
        ended: attempt.ended.map(|ended| ended.to_string()),
        agent: attempt.agent.clone(),
        handle: attempt.handle.clone(),
        outcome: attempt.outcome.clone(),
        reason: attempt.reason.clone(),
    });
    Run {
        run: record.run.clone(),
        state: record.state.into(),
        reason: record.reason.clone(),
        since: record.since.to_string(),
        server: record.server().clone(),
        launcher: record.order.launcher,
        image: record.order.image.name.clone(),
        target: record.order.target.name(),
        fabric: record.fabric().clone(),
        priority: record.order.priority,
        created: record.created.to_string(),
        deadline: record.deadline.map(|deadline| deadline.to_string()),
        ended: record.ended.map(|ended| ended.to_string()),
        cancel: record.cancel.is_some(),
        waits: waits(record, queued),
        max_attempts: record.budget,
        attempts: attempts.collect(),
        silent: record.silent.clone(),
        phase: record.phase.clone(),
        step: record.step.clone(),
        paths: record.paths().map(PathCount::view),
        progress: progress.filter(|_| record.state == State::Running),
        summary: record.summary.clone(),
        failure: record.failure.clone(),
        key: key(record),
        policy: record.policy.as_ref().map(|pin| pin.digest.clone()),
        order: None,
    }
}

/// Where the key comes from, and what has become of it.
fn key(record: &Record) -> Option<KeyState> {
    let Some(key) = &record.luks_key else {
        let encrypts = record.order.target.layout.encrypts();
        return encrypts.then(|| KeyState {
            source: KeySource::Agent,
            made: None,
            released: Vec::new(),
            shown: None,
            destroyed: None,
        });
    };
    let deed = |deed: &Deed| KeyDeed { at: deed.at.to_string(), by: deed.by.clone(), reason: deed.reason.clone() };
    let released = record.attempts.iter().filter(|of| of.number > key.after && of.key_released.is_some());
    Some(KeyState {
        source: KeySource::Service,
        made: Some(key.made.to_string()),
        released: released.map(|of| of.number).collect(),
        shown: key.shown.as_ref().map(deed),
        destroyed: key.destroyed.as_ref().map(deed),
    })
}

/// What a run waits for. `queued`: as for [`view`].
pub fn waits(record: &Record, queued: Option<Wait>) -> Option<Wait> {
    let wait = |what, detail: String| Some(Wait { what, detail });
    match (record.state, record.silent.last()) {
        (State::Queued, _) => queued,
        (State::Launching, _) => wait(
            WaitsFor::Agent,
            match record.order.launcher {
                LauncherKind::Process => "the agent that was started has not enrolled yet".into(),
                LauncherKind::Kubernetes => record.reason.clone(),
                LauncherKind::External => format!(
                    "IPL server {} with the medium and the enrolment token of attempt {} (`z-orchestrator run token`)",
                    record.server(),
                    record.attempt()
                ),
            },
        ),
        (State::Running, _) => record.paths().filter(|paths| paths.live == 0).and_then(|paths| {
            wait(
                WaitsFor::Path,
                format!(
                    "none of the {} paths from server {} to its target is live: reads and writes wait for one as long as `no_path_retry` \
                     of multipath.conf says, then the attempt fails. Look at the ports of the storage, the zoning, the cables and the adapters",
                    paths.total,
                    record.server()
                ),
            )
        }),
        (State::Lost, Some(silent)) if record.order.launcher == LauncherKind::Process => wait(
            WaitsFor::Death,
            format!(
                "the agent of attempt {silent} is being killed, and is not known to be dead. Where it runs on another machine, or hangs \
                     for good, make sure that it can write no more, then: z-orchestrator run confirm-death {} --attempt {silent}",
                record.run
            ),
        ),
        (State::Lost, Some(_)) if record.may_start() => queued,
        (State::Lost, Some(silent)) if record.order.launcher == LauncherKind::Kubernetes => wait(
            WaitsFor::Death,
            format!(
                "the Job of attempt {silent} is being deleted, and its pod is not known to be dead. Where its node hangs or is gone, make sure \
                     that it can write no more (switch it off), then: z-orchestrator run confirm-death {} --attempt {silent}",
                record.run
            ),
        ),
        (State::Lost, Some(silent)) => wait(
            WaitsFor::Person,
            format!(
                "make sure that the agent of attempt {silent} on server {} can write no more (deactivate the partition, or cut it off from \
                 the storage), then: z-orchestrator run confirm-death {} --attempt {silent}",
                record.server(),
                record.run
            ),
        ),
        _ => None,
    }
}
