//! An engine that follows a script. Names of servers and runs say what it does.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use futures_util::future::BoxFuture;
use orchestrator::api::{Answer, Changes, Service};
use orchestrator::engine::{Agent, Fresh, Standing};
use orchestrator::metrics::Tally;
use orchestrator::store::{Filter, Told};
use protocol::control::agent::{Enrol, Enrolled, Lease, Orders, Report, Terms};
use protocol::control::key::{ReleasedKey, ShownKey};
use protocol::control::problem::{Code, Problem};
use protocol::control::run::{EnrolmentToken, Glance, Happening, NewRun, Run, RunPage, RunState, StateChanged, What};
use protocol::event::Progress;
use protocol::{Digest, RunId, Token, UnlockKey};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

/// The operator's token.
pub const OPERATOR: &str = "operator-operator-operator-operator-operato";
/// The viewer's token.
pub const VIEWER: &str = "viewer--viewer--viewer--viewer--viewer--vie";
/// An enrolment token.
pub const ENROLMENT: &str = "enrolment-enrolment-enrolment-enrolment-enr";
/// The session of attempt 1 of run `r-1`.
pub const SESSION: &str = "session-session-session-session-session-ses";
/// The session of another run.
pub const OTHERS: &str = "others--others--others--others--others--oth";

/// How many runs a page must be asked for to have as many.
pub const MANY: u32 = 1000;

/// A client key.
pub const KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li_hp_m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q";

/// The digest of the key that the agent of run `r-1` has.
pub fn client_key() -> Digest {
    format!("sha256:{}", "5".repeat(64)).try_into().unwrap()
}

pub fn id(text: &str) -> RunId {
    RunId::try_from(text.to_owned()).unwrap()
}

/// A request for a run.
pub fn order(server: &str) -> Value {
    json!({
        "server": server,
        "image": {"name": "debian-13", "sources": ["http://images.example/debian"], "trust": ["ab".repeat(32)]},
        "target": {"device": "/dev/loop0"},
    })
}

/// A run in a state.
pub fn run(name: &str, state: RunState) -> Run {
    serde_json::from_value(json!({
        "run": name, "state": state, "server": "lpar-1", "launcher": "process", "image": "debian-13", "target": "/dev/loop0",
        "fabric": "default", "priority": 0, "created": "2027-01-01T00:00:00Z", "max_attempts": 3,
    }))
    .unwrap()
}

/// Progress of so many bytes.
pub fn progress(bytes: u64) -> Progress {
    serde_json::from_value(json!({
        "phase": "stream", "step": "write", "bytes": bytes, "total_bytes": 1000, "chunks": 1, "total_chunks": 10,
        "rates": {"source": 1, "decode": 1, "write": 1, "read_back": 0},
    }))
    .unwrap()
}

#[derive(Default)]
pub struct Fake {
    pub told: Mutex<Vec<Told>>,
    /// How far runs are, and the look after which they got there.
    progress: Mutex<Vec<(RunId, Progress, u64)>>,
    /// How often all runs were looked at.
    pub looks: AtomicUsize,
    /// What it was asked.
    pub asked: Mutex<Vec<String>>,
    /// How often what was told was read, and the longest page of that.
    pub reads: AtomicUsize,
    pub longest: AtomicUsize,
    pub broken: AtomicBool,
    /// The digest of the agent's key, where it is another one than [`client_key`].
    pub key: OnceLock<Digest>,
    /// When something was told last, and how often a run got on.
    changes: watch::Sender<(Option<Instant>, u64)>,
}

impl Fake {
    /// Tells so many times something of a run.
    pub fn tell(&self, run: &str, times: usize) {
        self.tell_at_length(run, times, 20);
    }

    /// The same with texts of this length.
    pub fn tell_at_length(&self, run: &str, times: usize, length: usize) {
        let mut told = self.told.lock().unwrap();
        for _ in 0..times {
            let seq = told.len() as i64 + 1;
            let reason = format!("number {seq}, {}", "x".repeat(length));
            let what = What::State(StateChanged { state: RunState::Running, attempt: 1, reason });
            told.push(Told { seq, happening: Happening { run: id(run), time: "2027-01-01T00:00:00Z".into(), what } });
        }
        drop(told);
        self.changes.send_modify(|count| count.0 = Some(Instant::now()));
    }

    /// Makes progress.
    pub fn advance(&self, run: &str, bytes: u64) {
        let look = self.looks.load(Ordering::Relaxed) as u64;
        let mut all = self.progress.lock().unwrap();
        all.retain(|(of, ..)| of.as_str() != run);
        all.push((id(run), progress(bytes), look));
        drop(all);
        self.changes.send_modify(|count| count.1 += 1);
    }

    /// Whoever watches now hears the end.
    pub fn forget(&self) {
        self.changes.send_modify(|count| count.1 = FORGOTTEN);
    }

    /// How many watchers there are.
    pub fn watchers(&self) -> usize {
        self.changes.receiver_count()
    }

    fn note(&self, what: impl Into<String>) {
        self.asked.lock().unwrap().push(what.into());
    }

    /// What it was asked since this was last called.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn answer<'a, T: Send + 'a>(answer: Result<T, Problem>) -> Answer<'a, T> {
    Box::pin(async { answer })
}

/// Run `r-1` is there, `r-over` is over, and others are not.
#[allow(clippy::result_large_err)] // As the service has it.
fn there(name: &RunId) -> Result<Run, Problem> {
    match name.as_str() {
        "r-1" => Ok(run("r-1", RunState::Running)),
        "r-over" => Err(Problem::new(Code::Conflict, "run r-over has succeeded")),
        _ => Err(Problem::new(Code::NotFound, format!("there is no run {name}"))),
    }
}

/// So often no run gets on.
const FORGOTTEN: u64 = u64::MAX;

struct Subscription(watch::Receiver<(Option<Instant>, u64)>, (Option<Instant>, u64));

impl Changes for Subscription {
    fn changed(&mut self) -> BoxFuture<'_, Option<Fresh>> {
        Box::pin(async {
            self.0.changed().await.ok()?;
            let now = *self.0.borrow_and_update();
            let before = std::mem::replace(&mut self.1, now);
            let told = now.0.filter(|_| now.0 != before.0);
            (now.1 != FORGOTTEN).then_some(Fresh { told, progress: now.1 != before.1 })
        })
    }
}

const TERMS: Terms = Terms { seconds: 60, renew_after: 20 };
const ORDERS: Orders = Orders { next: 3, cancel: false, progress_every: None };

impl Service for Fake {
    fn create(&self, new: NewRun, key: Option<String>) -> Answer<'_, (Run, bool)> {
        self.note(format!("create {} {key:?}", new.server));
        match new.server.as_str() {
            "panics" => panic!("as the script says"),
            "sleeps" => Box::pin(std::future::pending()),
            "naps" => Box::pin(async {
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                Ok((run("r-1", RunState::Queued), true))
            }),
            "reused" => answer(Err(Problem::new(Code::KeyReused, "the key was used for another run"))),
            "full" => answer(Err(Problem::new(Code::Unavailable, "the store is full").retry_after(7))),
            _ => answer(Ok((run("r-1", RunState::Queued), key.as_deref() != Some("again")))),
        }
    }

    fn run<'a>(&'a self, run: &'a RunId) -> Answer<'a, Run> {
        answer(there(run))
    }

    fn list<'a>(&'a self, filter: &'a Filter, page: Option<&'a str>, limit: u32) -> Answer<'a, RunPage> {
        self.note(format!("list {filter:?} {page:?} {limit}"));
        let runs = if limit == MANY { limit as usize } else { 1 };
        answer(Ok(RunPage { runs: vec![run("r-1", RunState::Queued); runs], next: Some("1".into()) }))
    }

    fn cancel<'a>(&'a self, run: &'a RunId, reason: &'a str) -> Answer<'a, Run> {
        self.note(format!("cancel {run}: {reason}"));
        answer(there(run))
    }

    fn retry<'a>(&'a self, run: &'a RunId) -> Answer<'a, Run> {
        self.note(format!("retry {run}"));
        answer(there(run))
    }

    fn confirm_death<'a>(&'a self, run: &'a RunId, attempt: u32) -> Answer<'a, Run> {
        self.note(format!("confirm {run} {attempt}"));
        answer(there(run))
    }

    fn revoke<'a>(&'a self, run: &'a RunId, attempt: u32, reason: &'a str) -> Answer<'a, Run> {
        self.note(format!("revoke {run} {attempt} {reason}"));
        answer(there(run))
    }

    fn token<'a>(&'a self, run: &'a RunId) -> Answer<'a, EnrolmentToken> {
        let token = Token::try_from(ENROLMENT.to_owned()).unwrap();
        answer(there(run).map(|there| EnrolmentToken { run: there.run, attempt: 1, token }))
    }

    fn enrol<'a>(&'a self, token: &'a Token, enrol: Enrol) -> Answer<'a, Enrolled> {
        self.note(format!("enrol {}", enrol.agent));
        if token.reveal() != ENROLMENT {
            return answer(Err(Problem::new(Code::Unauthorized, "no attempt has this enrolment token")));
        }
        let session = Token::try_from(SESSION.to_owned()).unwrap();
        answer(Ok(Enrolled {
            run: id("r-1"),
            attempt: 1,
            session,
            lease: TERMS,
            spec: "{}".into(),
            ticket: "{}".into(),
            certificate: "-----BEGIN CERTIFICATE-----".into(),
        }))
    }

    fn agent<'a>(&'a self, run: &'a RunId, attempt: u32, session: &'a Token, key: &'a Digest) -> Answer<'a, Agent> {
        if key != self.key.get_or_init(client_key) {
            return answer(Err(Problem::new(Code::Forbidden, "the client certificate is not that of the attempt")));
        }
        answer(match (run.as_str(), attempt, session.reveal()) {
            ("r-1", 1, SESSION) => Ok(Agent { run: run.clone(), attempt }),
            ("r-1", 2, SESSION) => Err(Problem::new(Code::AttemptOver, "attempt 2 is over")),
            (_, _, SESSION | OTHERS) => Err(Problem::new(Code::Forbidden, "the session is of another attempt")),
            _ => Err(Problem::new(Code::Unauthorized, "no session has this token")),
        })
    }

    fn report<'a>(&'a self, _: &'a Agent, report: Report) -> Answer<'a, Orders> {
        self.note(format!("report {}", serde_json::to_string(&report.events).unwrap()));
        answer(Ok(ORDERS))
    }

    fn release_key<'a>(&'a self, agent: &'a Agent) -> Answer<'a, ReleasedKey> {
        self.note(format!("release {} {}", agent.run, agent.attempt));
        answer(Ok(ReleasedKey { key: UnlockKey::of(&[7; UnlockKey::BYTES]) }))
    }

    fn show_key<'a>(&'a self, run: &'a RunId, by: &'a str) -> Answer<'a, ShownKey> {
        self.note(format!("show key {run} to {by}"));
        answer(there(run).map(|there| ShownKey { run: there.run, key: UnlockKey::of(&[7; UnlockKey::BYTES]) }))
    }

    fn destroy_key<'a>(&'a self, run: &'a RunId, by: &'a str) -> Answer<'a, Run> {
        self.note(format!("destroy key {run} by {by}"));
        answer(there(run))
    }

    fn renew<'a>(&'a self, agent: &'a Agent, _: Option<Standing<'a>>) -> Answer<'a, Lease> {
        self.note(format!("renew {} {}", agent.run, agent.attempt));
        answer(Ok(Lease { lease: TERMS, orders: ORDERS, certificate: None }))
    }

    fn told<'a>(&'a self, after: i64, run: Option<&'a RunId>, limit: u32) -> Answer<'a, Vec<Told>> {
        if self.broken.load(Ordering::Relaxed) {
            return answer(Err(Problem::new(Code::Unavailable, "the store does not answer")));
        }
        let told = self.told.lock().unwrap();
        let rest = told.iter().skip(usize::try_from(after).unwrap());
        let of_run = rest.filter(|told| run.is_none_or(|run| *run == told.happening.run));
        let page: Vec<Told> = of_run.take(limit as usize).cloned().collect();
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.longest.fetch_max(page.len(), Ordering::Relaxed);
        answer(Ok(page))
    }

    fn last_told(&self) -> Answer<'_, i64> {
        answer(Ok(self.told.lock().unwrap().len() as i64))
    }

    fn progress(&self, run: &RunId) -> Option<Progress> {
        self.progress.lock().unwrap().iter().find(|(of, ..)| of == run).map(|(_, progress, _)| progress.clone())
    }

    fn fleet(&self, since: u64) -> (u64, Vec<Glance>) {
        let all = self.progress.lock().unwrap();
        let look = self.looks.fetch_add(1, Ordering::Relaxed) as u64 + 1;
        let news = all.iter().filter(|(.., after)| *after >= since);
        (look, news.map(|(run, progress, _)| Glance::of(run.clone(), progress)).collect())
    }

    fn watch(&self, _: Option<&RunId>) -> Box<dyn Changes> {
        Box::new(Subscription(self.changes.subscribe(), *self.changes.borrow()))
    }

    fn tally(&self) -> Tally {
        Tally::default()
    }

    fn ready(&self) -> Answer<'_, ()> {
        let broken = self.broken.load(Ordering::Relaxed);
        answer(if broken {
            Err(Problem::new(Code::Unavailable, "the store does not answer").retry_after(5))
        } else {
            Ok(())
        })
    }
}
