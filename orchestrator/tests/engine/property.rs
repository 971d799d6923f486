//! Random interleavings of everything that can happen, with crashes, restarts and a store that fails, against the truth: which agents
//! could be writing.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator::model::{Ending, State};
use proptest::prelude::*;
use protocol::RunId;
use protocol::control::key::{KeyAction, KeyEvent};
use protocol::control::run::{LauncherKind, NewRun, Run, What};
use protocol::event::{Body, TargetState};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use crate::memory::Fault;
use crate::world::*;

/// One thing that happens. Numbers choose among what is there.
#[derive(Debug, Clone)]
enum Step {
    Create {
        server: u8,
        target: u8,
        kind: u8,
        attempts: u32,
        key: Option<u8>,
    },
    Enrol(u8),
    Renew(u8),
    Report(u8),
    HasTarget(u8),
    /// It asks for its key.
    Key(u8),
    Finish(u8),
    Fail(u8, bool),
    /// It gives up a device that may still do what it was told.
    FailUncertain(u8),
    Freeze(u8),
    /// Frozen until its service believes it lost, and has begun what comes next.
    Lose(u8),
    Thaw(u8),
    Kill(u8),
    Cancel(u8),
    /// A person shuts the current attempt out.
    Revoke(u8),
    Retry(u8),
    /// A person cuts the server off, and vouches for it.
    Confirm(u8),
    /// A person vouches for the wrong attempt.
    ConfirmWrongly(u8, u32),
    Wait(u16),
    Crash,
    Faults(Vec<bool>),
    /// Who keeps keys is away, or makes keys that nobody hears of.
    Keeper(bool, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let n = 0..=255_u8;
    let step = prop_oneof![
        4 => (0..2_u8, 0..2_u8, prop_oneof![1 => Just(0_u8), 2 => Just(2), 1 => Just(3), 1 => Just(4), 2 => Just(5)], 1..4_u32, proptest::option::of(0..3_u8))
            .prop_map(|(server, target, kind, attempts, key)| Step::Create { server, target, kind, attempts, key }),
        8 => n.clone().prop_map(Step::Enrol),
        3 => n.clone().prop_map(Step::Renew),
        2 => n.clone().prop_map(Step::Report),
        3 => n.clone().prop_map(Step::HasTarget),
        4 => n.clone().prop_map(Step::Key),
        3 => n.clone().prop_map(Step::Finish),
        3 => (n.clone(), any::<bool>()).prop_map(|(of, retryable)| Step::Fail(of, retryable)),
        1 => n.clone().prop_map(Step::FailUncertain),
        5 => n.clone().prop_map(Step::Freeze),
        4 => n.clone().prop_map(Step::Lose),
        2 => n.clone().prop_map(Step::Thaw),
        2 => n.clone().prop_map(Step::Kill),
        3 => n.clone().prop_map(Step::Cancel),
        1 => n.clone().prop_map(Step::Revoke),
        1 => n.clone().prop_map(Step::Retry),
        2 => n.clone().prop_map(Step::Confirm),
        1 => (n, 0..4_u32).prop_map(|(of, attempt)| Step::ConfirmWrongly(of, attempt)),
        6 => prop_oneof![Just(1), Just(12), Just(40), Just(80), Just(80), Just(130)].prop_map(Step::Wait),
        2 => Just(Step::Crash),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(shut, loses)| Step::Keeper(shut, loses)),
        3 => prop_oneof![
            proptest::collection::vec(any::<bool>(), 1..4),
            proptest::collection::vec(any::<bool>(), 20..60),
        ].prop_map(Step::Faults),
    ];
    proptest::collection::vec(step, 1..60)
}

/// What is true of an agent, whatever the service believes.
struct Truth {
    agent: Agent,
    kind: LauncherKind,
    server: String,
    /// Its target, and whether a reservation guards it.
    target: (String, bool),
    /// Until when it believes that it may write.
    lease: Instant,
    dead: bool,
    frozen: bool,
    /// Has said how it ended, to somebody who heard it: it closed everything before.
    ended: bool,
    /// It has ended, and writes of it may land yet.
    landing: bool,
    /// A later attempt has preempted its key.
    shut_out: bool,
}

impl Truth {
    /// Whether a write of it could reach the target, now or later.
    fn could_write(&self) -> bool {
        let may_write = !self.ended && (self.frozen || self.lease > Instant::now());
        !self.dead && !self.shut_out && (may_write || self.landing)
    }
}

struct Play {
    world: World,
    runs: Vec<RunId>,
    agents: Vec<Truth>,
    /// How often each run was retried by a person.
    retries: BTreeMap<RunId, usize>,
    /// How often each attempt got a key.
    keys: BTreeMap<(RunId, u32), usize>,
    /// Runs that were called off for sure, and not tried again since.
    called_off: BTreeSet<RunId>,
}

fn order(server: u8, target: u8, kind: u8, attempts: u32) -> Value {
    let server = format!("s{server}");
    let mut new = match kind {
        0 | 1 => device(&server, &format!("/dev/t{target}")),
        2 => lun(&server, &format!("3600{target}")),
        3 => in_cluster(device(&server, &format!("/dev/t{target}"))),
        4 => in_cluster(lun(&server, &format!("3600{target}"))),
        _ => external(&server, &format!("/dev/t{target}")),
    };
    new["max_attempts"] = json!(attempts);
    // Half of them encrypt, under keys of the service.
    if target == 1 { encrypted(new) } else { new }
}

impl Play {
    async fn new() -> Self {
        let world = World::with(|settings, _| settings.limits.runs = 4).await;
        Play {
            world,
            runs: Vec::new(),
            agents: Vec::new(),
            retries: BTreeMap::new(),
            keys: BTreeMap::new(),
            called_off: BTreeSet::new(),
        }
    }

    fn run(&self, of: u8) -> Option<RunId> {
        let count = self.runs.len();
        (count > 0).then(|| self.runs[of as usize % count].clone())
    }

    /// An agent that can act.
    fn agent(&mut self, of: u8) -> Option<usize> {
        let able: Vec<usize> =
            self.agents.iter().enumerate().filter(|(_, of)| !of.dead && !of.frozen).map(|(at, _)| at).collect();
        (!able.is_empty()).then(|| able[of as usize % able.len()])
    }

    async fn found(&self, run: &RunId) -> Option<Run> {
        self.world.engine.run(run).await.ok()
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Create { server, target, kind, attempts, key } => {
                let new = NewRun::parse(order(*server, *target, *kind, *attempts).to_string().as_bytes()).unwrap();
                if let Ok((run, is_new)) = self.world.engine.create(new, key.map(|key| key.to_string())).await {
                    assert_eq!(is_new, !self.runs.contains(&run.run), "a key makes one run");
                    if is_new {
                        self.runs.push(run.run);
                    }
                }
            }
            Step::Enrol(of) => self.enrol(*of).await,
            Step::Renew(of) => {
                if let Some(at) = self.agent(*of) {
                    let asked = Instant::now();
                    if self.agents[at].agent.renew(&self.world).await.is_ok() && self.agents[at].lease > asked {
                        self.agents[at].lease = asked + Duration::from_secs(LEASE);
                    }
                }
            }
            Step::Report(of) => {
                if let Some(at) = self.agent(*of) {
                    let _ = self.agents[at].agent.send(&self.world, warning("x")).await;
                }
            }
            Step::HasTarget(of) => self.has_target(*of).await,
            Step::Key(of) => self.key(*of).await,
            Step::Finish(of) => {
                // Nobody reaches the goal without the target, whether or not that was ever heard of.
                if let Some(at) = self.agent(*of).filter(|at| self.agents[*at].could_write()) {
                    self.takes(at);
                }
                self.end(*of, finished()).await;
            }
            Step::Fail(of, retryable) => self.end(*of, failed("source", *retryable)).await,
            Step::FailUncertain(of) => {
                let mut body = failed("device", true);
                if let Body::RunFailed(failure) = &mut body {
                    failure.target = TargetState::Uncertain;
                }
                if let Some(at) = self.agent(*of).filter(|at| !self.agents[*at].ended) {
                    self.agents[at].landing = self.agents[at].could_write();
                    self.end_as(at, body).await;
                }
            }
            Step::Freeze(of) => self.freeze(*of),
            Step::Lose(of) => {
                self.freeze(*of);
                self.world.wait(LEASE + GRACE + 12).await;
            }
            Step::Thaw(of) => {
                let frozen: Vec<usize> = (0..self.agents.len()).filter(|at| self.agents[*at].frozen).collect();
                if !frozen.is_empty() {
                    self.agents[frozen[*of as usize % frozen.len()]].frozen = false;
                }
            }
            Step::Kill(of) => {
                let count = self.agents.len();
                if count > 0 {
                    self.kill(*of as usize % count);
                }
            }
            Step::Cancel(of) => {
                if let Some(run) = self.run(*of)
                    && self.world.engine.cancel(&run, "no longer wanted").await.is_ok()
                {
                    self.called_off.insert(run);
                }
            }
            Step::Revoke(of) => {
                if let Some(run) = self.run(*of)
                    && let Some(found) = self.found(&run).await
                    && let Some(attempt) = found.attempts.last()
                {
                    let _ = self.world.engine.revoke(&run, attempt.attempt, "by somebody").await;
                }
            }
            Step::Retry(of) => {
                if let Some(run) = self.run(*of) {
                    // One of unknown outcome may have happened.
                    self.called_off.remove(&run);
                    if self.world.engine.retry(&run).await.is_ok() {
                        *self.retries.entry(run).or_default() += 1;
                    }
                }
            }
            Step::Confirm(of) => {
                if let Some(run) = self.run(*of) {
                    self.confirm(&run).await;
                }
            }
            Step::ConfirmWrongly(of, attempt) => {
                let Some(run) = self.run(*of) else { return };
                let silent = self.silent(&run);
                if !silent.contains(attempt) {
                    assert!(self.world.engine.confirm_death(&run, *attempt).await.is_err());
                }
            }
            Step::Wait(seconds) => self.world.wait(u64::from(*seconds)).await,
            Step::Crash => self.world.crash().await,
            Step::Keeper(shut, loses) => {
                let mut desk = self.world.desk.0.lock().unwrap();
                (desk.shut, desk.loses) = (*shut, *loses);
            }
            Step::Faults(faults) => {
                let faults = faults.iter().map(|after| if *after { Fault::After } else { Fault::Before });
                self.world.memory.0.lock().unwrap().faults = faults.collect();
            }
        }
        self.bury();
        self.check();
    }

    /// The launcher kills what the service tells it to.
    fn bury(&mut self) {
        for truth in self.agents.iter_mut().filter(|truth| truth.kind.starts_agents()) {
            let (run, attempt) = (&truth.agent.enrolled.run, truth.agent.enrolled.attempt);
            let handle = self.world.fake.handle(run, attempt).unwrap();
            truth.dead |= self.world.fake.0.lock().unwrap().all[&handle].2;
        }
    }

    async fn enrol(&mut self, of: u8) {
        let Some(run) = self.run(of) else { return };
        let Ok(mut agent) = self.world.enrol(&run).await else { return };
        self.bury();
        let Some(found) = self.found(&run).await else { return };
        agent.index = 0;
        let (target, is_reserved) =
            (found.target.clone(), found.launcher != LauncherKind::Process && found.target.starts_with("LUN"));
        let server = found.server.to_string();
        let key = match found.launcher {
            LauncherKind::Process => format!("here {target}"),
            _ if is_reserved => target.clone(),
            _ => format!("{server} {target}"),
        };
        for other in &self.agents {
            let same = other.server == server || other.target.0 == key;
            let fenced = is_reserved && other.target == (key.clone(), true);
            assert!(
                !same || !other.could_write() || fenced,
                "attempt {} of {run} was granted what attempt {} of {} may still write",
                agent.enrolled.attempt,
                other.agent.enrolled.attempt,
                other.agent.enrolled.run
            );
        }
        let lease = Instant::now() + Duration::from_secs(LEASE);
        self.agents.push(Truth {
            agent,
            kind: found.launcher,
            server,
            target: (key, is_reserved),
            lease,
            dead: false,
            frozen: false,
            ended: false,
            landing: false,
            shut_out: false,
        });
    }

    /// An agent asks for its key, as often as it is told to.
    async fn key(&mut self, of: u8) {
        let Some(at) = self.agent(of) else { return };
        let truth = &self.agents[at];
        let Ok(_) = truth.agent.key(&self.world).await else { return };
        let (run, attempt) = (truth.agent.enrolled.run.clone(), truth.agent.enrolled.attempt);
        assert!(!self.called_off.contains(&run), "the key of {run}, which was called off");
        assert!(!truth.ended, "attempt {attempt} of {run} is over");
        let times = self.keys.entry((run.clone(), attempt)).or_default();
        *times += 1;
        assert_eq!(*times, 1, "attempt {attempt} of {run} got its key twice");
    }

    /// What was given is told once, and what is destroyed is nowhere.
    fn check_keys(&self) {
        let kept = self.world.memory.0.lock().unwrap();
        let desk = self.world.desk.0.lock().unwrap();
        let mut told = BTreeMap::<(RunId, u32), usize>::new();
        for of in &kept.told {
            if let What::Key(KeyEvent { action: KeyAction::Released, attempt: Some(attempt), .. }) = &of.happening.what
            {
                *told.entry((of.happening.run.clone(), *attempt)).or_default() += 1;
            }
        }
        assert!(told.values().all(|times| *times == 1), "{told:?}");
        assert!(self.keys.keys().all(|got| told.contains_key(got)), "{:?} of {told:?}", self.keys);
        for record in kept.runs.values() {
            let sealed = record.luks_key.as_ref().and_then(|key| key.sealed.as_ref());
            let is_called_off = record.state == State::Cancelled
                || record.cancel.as_ref().is_some_and(|order| order.ending == Ending::Cancelled);
            assert!(!is_called_off || sealed.is_none(), "{record:?}");
            assert!(sealed.is_none_or(|sealed| desk.keys.contains_key(sealed.text())), "a key was lost: {record:?}");
        }
    }

    /// An agent takes its target: with a reservation it preempts the keys of those before it.
    async fn has_target(&mut self, of: u8) {
        let Some(at) = self.agent(of) else { return };
        if self.agents[at].could_write() {
            self.takes(at);
            let _ = self.agents[at].agent.send(&self.world, has_target()).await;
        }
    }

    fn takes(&mut self, at: usize) {
        if self.agents[at].target.1 {
            let target = self.agents[at].target.clone();
            let (before, _) = self.agents.split_at_mut(at);
            before.iter_mut().filter(|other| other.target == target).for_each(|other| other.shut_out = true);
        }
    }

    /// An agent ends: it has closed everything, and says so until it is heard.
    async fn end(&mut self, of: u8, body: Body) {
        let Some(at) = self.agent(of) else { return };
        if self.agents[at].ended {
            return;
        }
        // Who has lost the right to write does not reach its goal.
        let could = self.agents[at].could_write();
        self.end_as(at, if could { body } else { failed("target", true) }).await;
    }

    async fn end_as(&mut self, at: usize, body: Body) {
        self.agents[at].ended = true;
        let event = self.agents[at].agent.event(body);
        for _ in 0..100 {
            match self.agents[at].agent.report(&self.world, vec![event.clone()]).await {
                Err(problem) if problem.status == 503 => self.world.settle().await,
                _ => return,
            }
        }
    }

    fn freeze(&mut self, of: u8) {
        if let Some(at) = self.agent(of) {
            // One whose lease is over has stopped by itself already.
            self.agents[at].frozen = self.agents[at].lease > Instant::now() && !self.agents[at].ended;
        }
    }

    fn kill(&mut self, at: usize) {
        self.agents[at].dead = true;
        let (run, attempt) = (&self.agents[at].agent.enrolled.run, self.agents[at].agent.enrolled.attempt);
        if let Some(handle) = self.world.fake.handle(run, attempt) {
            self.world.fake.kill(&handle);
        }
    }

    async fn confirm(&mut self, run: &RunId) {
        let silent = self.silent(run);
        let Some(latest) = silent.last() else { return };
        for at in 0..self.agents.len() {
            let of = &self.agents[at].agent.enrolled;
            if of.run == *run && of.attempt <= *latest {
                self.kill(at);
            }
        }
        let _ = self.world.engine.confirm_death(run, *latest).await;
    }

    fn silent(&self, run: &RunId) -> Vec<u32> {
        self.world.memory.0.lock().unwrap().runs.get(run).map(|run| run.silent.clone()).unwrap_or_default()
    }

    fn check(&self) {
        self.check_keys();
        let kept = self.world.memory.0.lock().unwrap();
        for record in kept.runs.values() {
            let open = record.attempts.iter().filter(|attempt| attempt.outcome.is_none()).count();
            assert!(open <= 1 && record.attempt() <= record.budget, "{record:?}");
            let needs_attempt = matches!(record.state, State::Launching | State::Running);
            assert!(!needs_attempt || open == 1, "{record:?}");
            assert!(!record.state.is_over() || (open == 0 && record.ended.is_some()), "{record:?}");
            let ends = kept.told.iter().filter(|told| {
                told.happening.run == record.run
                    && matches!(&told.happening.what, What::State(changed) if changed.state.is_over())
            });
            let ended = usize::from(record.state.is_over());
            let retried = self.retries.get(&record.run).copied().unwrap_or(0);
            // A retry of unknown outcome may have happened without our knowing.
            assert!(ends.count() <= retried + ended + 1, "{record:?}");
        }
    }

    /// Once a service was started again, whoever keeps keys has those of runs and no other, and nobody waits for anything.
    async fn nothing_is_left(&mut self) {
        self.world.crash().await;
        self.world.wait(10).await;
        let (kept, desk) = (self.world.memory.0.lock().unwrap(), self.world.desk.0.lock().unwrap());
        let keys = kept.runs.values().filter_map(|record| record.luks_key.as_ref()?.sealed.as_ref());
        let keys: BTreeSet<&str> = keys.map(|sealed| sealed.text()).collect();
        assert_eq!(keys, desk.keys.keys().map(String::as_str).collect());
        assert!(kept.elsewhere.is_empty(), "{:?}", kept.elsewhere);
        assert!(kept.runs.values().all(|record| record.remains.is_empty()));
        let told = |run: &RunId, action: &KeyAction| {
            let of = kept.told.iter().filter(|told| told.happening.run == *run);
            of.filter(|told| matches!(&told.happening.what, What::Key(event) if event.action == *action)).count()
        };
        for run in kept.runs.keys() {
            assert_eq!(told(run, &KeyAction::Destroyed), told(run, &KeyAction::Erased), "each is told once, of {run}");
        }
    }

    /// Nothing fails any more: every run ends.
    async fn heal(&mut self) {
        self.world.memory.0.lock().unwrap().faults.clear();
        {
            let mut desk = self.world.desk.0.lock().unwrap();
            (desk.shut, desk.loses) = (false, false);
        }
        self.world.wait(2).await;
        for at in 0..self.agents.len() {
            self.kill(at);
        }
        for _ in 0..400 {
            self.world.wait(15).await;
            self.bury();
            self.check();
            let open: Vec<RunId> = {
                let kept = self.world.memory.0.lock().unwrap();
                kept.runs.values().filter(|run| !run.state.is_over()).map(|run| run.run.clone()).collect()
            };
            if open.is_empty() {
                return self.nothing_is_left().await;
            }
            for run in open {
                self.confirm(&run).await;
                if let Ok(mut agent) = self.world.enrol(&run).await {
                    agent.send(&self.world, has_target()).await.unwrap();
                    agent.send(&self.world, finished()).await.unwrap();
                }
            }
        }
        let kept = self.world.memory.0.lock().unwrap();
        let open: Vec<_> = kept.runs.values().filter(|run| !run.state.is_over()).collect();
        panic!("runs that do not end: {open:#?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, ..ProptestConfig::with_cases(
        std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(256)) })]

    #[test]
    fn whatever_happens_no_two_agents_could_write_and_every_run_ends(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut play = Play::new().await;
            for step in &steps {
                play.step(step).await;
            }
            play.heal().await;
        });
    }
}
