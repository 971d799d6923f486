//! The world around an engine: a store that outlives it, a launcher whose processes can be frozen and killed, and credentials. Time is
//! tokio's, paused: it passes only where the test waits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, pending};
use orchestrator::engine::{Agent as Who, Credentials, Engine, Keeper, KeeperError, Settings, Standing};
use orchestrator::launch::{Death, Ending, External, Launched, Launcher, NotLaunched, Order, Says};
use orchestrator::model::schedule::Limits;
use orchestrator::model::{BackOff, Record, Sealed};
use orchestrator::policy::Policy;
use orchestrator::store::StoreError;
use protocol::control::agent::{Enrol, Enrolled, Report, Terms};
use protocol::control::run::{LauncherKind, NewRun, Run, RunState};
use protocol::control::{Code, Lease, Orders, Problem};
use protocol::event::{Body, Event, PathChanged, PathState, Phase};
use protocol::{ClientKey, Digest, RunId, Token, UnlockKey};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::memory::Memory;

pub const LEASE: u64 = 60;
pub const GRACE: u64 = 15;
pub const ENROL_WITHIN: u64 = 120;

/// Processes of the launcher, by handle.
#[derive(Default)]
pub struct Processes {
    next: u32,
    /// Order, token once it was let go, and whether it is dead.
    pub all: HashMap<String, (Order, Option<Token>, bool)>,
    /// The next launches fail.
    pub refuse: u32,
    /// What says something of each.
    says: HashMap<String, Says>,
}

#[derive(Clone, Default)]
pub struct Fake(pub Arc<Mutex<Processes>>, Arc<Notify>);

impl Fake {
    pub fn kill(&self, handle: &str) {
        if let Some(process) = self.0.lock().unwrap().all.get_mut(handle) {
            process.2 = true;
        }
        self.1.notify_waiters();
    }

    /// Says something of an attempt.
    pub fn say(&self, run: &RunId, attempt: u32, words: &str) {
        let handle = self.handle(run, attempt).unwrap();
        self.0.lock().unwrap().says[&handle](words.to_owned());
    }

    /// The token of an attempt's process that is alive and was let go.
    pub fn token(&self, run: &RunId, attempt: u32) -> Option<Token> {
        let processes = self.0.lock().unwrap();
        let of = processes.all.values().find(|(order, _, dead)| !dead && order.run == *run && order.attempt == attempt);
        of.and_then(|(_, token, _)| token.clone())
    }

    pub fn handle(&self, run: &RunId, attempt: u32) -> Option<String> {
        let processes = self.0.lock().unwrap();
        let mut of = processes.all.iter();
        of.find(|(_, (order, ..))| order.run == *run && order.attempt == attempt).map(|(handle, _)| handle.clone())
    }

    async fn dead(&self, handle: &str) -> Death {
        loop {
            let notified = self.1.notified();
            if self.0.lock().unwrap().all.get(handle).is_none_or(|(.., dead)| *dead) {
                return Death { how: "it was killed".into(), retryable: true };
            }
            notified.await;
        }
    }
}

impl Launcher for Fake {
    fn launch(&self, order: Order, says: Says) -> BoxFuture<'_, Result<Option<Launched>, NotLaunched>> {
        let mut processes = self.0.lock().unwrap();
        if processes.refuse > 0 {
            processes.refuse -= 1;
            let failed = NotLaunched { reason: "no room".into(), retryable: true };
            return async move { Err(failed) }.boxed();
        }
        processes.next += 1;
        let handle = format!("p{}", processes.next);
        processes.all.insert(handle.clone(), (order, None, false));
        processes.says.insert(handle.clone(), says);
        let (all, of) = (Arc::clone(&self.0), handle.clone());
        let release = move |token| -> BoxFuture<'static, ()> {
            if let Some(process) = all.lock().unwrap().all.get_mut(&of) {
                process.1 = Some(token);
            }
            async {}.boxed()
        };
        async move { Ok(Some(Launched { handle, release: Box::new(release) })) }.boxed()
    }

    fn watch<'a>(&'a self, handle: &'a str, _: Says) -> BoxFuture<'a, Death> {
        self.dead(handle).boxed()
    }

    fn end(&self, ending: Ending, _: Says) -> BoxFuture<'_, Death> {
        async move {
            let Some(handle) = &ending.handle else { return pending().await };
            self.kill(handle);
            self.dead(handle).await
        }
        .boxed()
    }
}

/// A launcher whose processes cannot be killed.
pub struct Stuck(pub Fake);

impl Launcher for Stuck {
    fn launch(&self, order: Order, says: Says) -> BoxFuture<'_, Result<Option<Launched>, NotLaunched>> {
        self.0.launch(order, says)
    }

    fn watch<'a>(&'a self, _: &'a str, _: Says) -> BoxFuture<'a, Death> {
        pending().boxed()
    }

    fn end(&self, _: Ending, _: Says) -> BoxFuture<'_, Death> {
        pending().boxed()
    }
}

/// Digests that are none, for tests that need no secrets.
struct Plain(Mutex<u64>);

fn hash(text: &str) -> u128 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let of = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, text).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    of(0) << 64 | of(1)
}

/// The client key of a process.
pub fn client_key(number: u64) -> ClientKey {
    format!("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE{number:0>85}A").try_into().unwrap()
}

pub fn token(text: &str) -> Token {
    format!("{:0>43}", format!("{:x}", hash(text))).try_into().unwrap()
}

impl Credentials for Plain {
    fn new_token(&self) -> Result<Token, String> {
        let mut next = self.0.lock().unwrap();
        *next += 1;
        Ok(format!("{:0<43}", format!("{:016x}", hash(&format!("token {next}")) as u64)).try_into().unwrap())
    }

    fn digest(&self, token: &Token) -> Digest {
        self.digest_of(token.reveal())
    }

    fn digest_of(&self, text: &str) -> Digest {
        format!("sha256:{:064x}", hash(text)).try_into().unwrap()
    }

    fn session(&self, run: &RunId, attempt: u32, nonce: &Digest) -> Token {
        token(&format!("{run} {attempt} {nonce}"))
    }

    fn is_same(&self, one: &Token, other: &Token) -> bool {
        one == other
    }

    fn digest_of_key(&self, key: &ClientKey) -> Digest {
        self.digest_of(key.as_str())
    }

    fn certificate(&self, run: &RunId, attempt: u32, key: &ClientKey) -> Result<String, String> {
        Ok(format!("certificate of {run} {attempt} over {key}"))
    }

    /// Every certificate is due.
    fn renewed(&self, who: &Who, shown: Standing<'_>) -> Result<Option<String>, String> {
        self.certificate(&who.run, who.attempt, shown.key).map(Some)
    }

    fn ticket(&self, record: &Record, _: &str, _: &Token) -> Result<String, String> {
        Ok(format!("ticket of {} {}", record.run, record.attempt()))
    }
}

/// Keeps keys elsewhere, in memory, and can be told to fail.
#[derive(Clone, Default)]
pub struct Desk(pub Arc<Mutex<Kept>>);

#[derive(Default)]
pub struct Kept {
    next: u8,
    /// Keys that were made and not destroyed, by what is sealed.
    pub keys: HashMap<String, UnlockKey>,
    /// Nothing opens, and nothing is destroyed.
    pub shut: bool,
    /// Keys are made, and nobody hears of it.
    pub loses: bool,
    /// The keys of this run are never destroyed.
    pub stuck: Option<RunId>,
}

impl Keeper for Desk {
    fn place<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, Result<Option<Sealed>, KeeperError>> {
        let mut kept = self.0.lock().unwrap();
        kept.next = kept.next.wrapping_add(1);
        let place = Sealed::at(&format!("{run} {}", kept.next));
        async { Ok(Some(place)) }.boxed()
    }

    fn make<'a>(&'a self, _: &'a RunId, place: Option<&'a Sealed>) -> BoxFuture<'a, Result<Sealed, KeeperError>> {
        let mut kept = self.0.lock().unwrap();
        let place = place.expect("a place");
        let number = place.text().rsplit(' ').next().unwrap().parse().unwrap();
        let known = kept.keys.insert(place.text().to_owned(), UnlockKey::of(&[number; UnlockKey::BYTES]));
        assert!(known.is_none(), "a place that had a key");
        let answer = if kept.loses { Err(shut()) } else { Ok(place.clone()) };
        async { answer }.boxed()
    }

    fn open<'a>(&'a self, run: &'a RunId, sealed: &'a Sealed) -> BoxFuture<'a, Result<UnlockKey, KeeperError>> {
        let kept = self.0.lock().unwrap();
        assert!(sealed.text().starts_with(run.as_str()), "a key of another run");
        let found = kept.keys.get(sealed.text()).filter(|_| !kept.shut).cloned();
        async { found.ok_or_else(shut) }.boxed()
    }

    fn destroy<'a>(&'a self, run: &'a RunId, sealed: &'a Sealed) -> BoxFuture<'a, Result<(), KeeperError>> {
        let mut kept = self.0.lock().unwrap();
        let is_stuck = kept.shut || kept.stuck.as_ref() == Some(run);
        let answer = if is_stuck { Err(shut()) } else { Ok(()) };
        if answer.is_ok() {
            kept.keys.remove(sealed.text());
        }
        async { answer }.boxed()
    }
}

fn shut() -> KeeperError {
    KeeperError { what: "it is shut".into(), hint: "open it".into(), may_pass: true }
}

/// A world.
pub struct World {
    pub desk: Desk,
    pub memory: Memory,
    pub fake: Fake,
    pub settings: Settings,
    pub engine: Engine,
    task: JoinHandle<Result<(), StoreError>>,
    cancel: CancellationToken,
    nonces: u64,
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_, _| ()).await
    }

    pub async fn with(adjust: impl FnOnce(&mut Settings, &Fake)) -> Self {
        let (memory, fake, desk) = (Memory::default(), Fake::default(), Desk::default());
        let mut settings = Settings {
            limits: Limits { runs: 100, per_source: 100, fabrics: Default::default(), per_fabric: 100 },
            back_off: BackOff { first: Duration::from_secs(10), most: Duration::from_secs(60) },
            lease: Terms { seconds: LEASE, renew_after: 15 },
            grace: Duration::from_secs(GRACE),
            enrol_within: Duration::from_secs(ENROL_WITHIN),
            cancel_within: Duration::from_secs(300),
            launchers: HashMap::new(),
            credentials: Arc::new(Plain(Mutex::new(0))),
            metrics: Default::default(),
            keeper: Arc::new(desk.clone()),
            policy: Arc::new(Policy::new("/no/policy".into(), false)),
            retention: None,
        };
        settings.launchers.insert(LauncherKind::Process, Arc::new(fake.clone()));
        settings.launchers.insert(LauncherKind::Kubernetes, Arc::new(fake.clone()));
        settings.launchers.insert(LauncherKind::External, Arc::new(External));
        adjust(&mut settings, &fake);
        let cancel = CancellationToken::new();
        let (engine, task) = Engine::start(Arc::new(memory.clone()), settings.clone(), cancel.clone()).await.unwrap();
        World { desk, memory, fake, settings, engine, task, cancel, nonces: 0 }
    }

    /// The service dies where it stands, and another one starts.
    pub async fn crash(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
        self.cancel = CancellationToken::new();
        loop {
            let store = Arc::new(self.memory.clone());
            match Engine::start(store, self.settings.clone(), self.cancel.clone()).await {
                Ok((engine, task)) => {
                    (self.engine, self.task) = (engine, task);
                    return;
                }
                Err(StoreError::Unavailable(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Lets time pass.
    pub async fn wait(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    /// Lets everything happen that can happen now.
    pub async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(350)).await;
    }

    pub async fn create(&self, new: &Value) -> RunId {
        let new = NewRun::parse(new.to_string().as_bytes()).unwrap();
        self.engine.create(new, None).await.unwrap().0.run
    }

    pub async fn run(&self, run: &RunId) -> Run {
        self.engine.run(run).await.unwrap()
    }

    pub async fn is(&self, run: &RunId, state: RunState) {
        let found = self.run(run).await;
        assert_eq!(found.state, state, "{found:?}");
    }

    /// An agent with this token.
    pub async fn agent(&mut self, token: Token) -> Result<Agent, Problem> {
        self.nonces += 1;
        let nonce = self::token(&format!("nonce {}", self.nonces));
        let client_key = client_key(self.nonces);
        let enrol = Enrol { run: None, nonce, client_key, agent: "z-provisioner test".into(), server: None };
        let enrolled = self.engine.enrol(&token, enrol.clone()).await?;
        Ok(Agent { token, enrol, enrolled, index: 0 })
    }

    /// The agent of the current attempt of a run of the launcher, or of an external one with a fresh token.
    pub async fn enrol(&mut self, run: &RunId) -> Result<Agent, Problem> {
        let found = self.engine.run(run).await?;
        let token = match found.launcher {
            LauncherKind::External => self.engine.token(run).await?.token,
            LauncherKind::Process | LauncherKind::Kubernetes => {
                let attempt = found.attempts.last().map_or(0, |attempt| attempt.attempt);
                let none = || Problem::new(protocol::control::Code::NotYet, "nothing was launched");
                self.fake.token(run, attempt).ok_or_else(none)?
            }
        };
        self.agent(token).await
    }
}

/// An agent.
#[derive(Debug, Clone)]
pub struct Agent {
    pub token: Token,
    pub enrol: Enrol,
    pub enrolled: Enrolled,
    pub index: u64,
}

impl Agent {
    pub async fn who(&self, world: &World) -> Result<Who, Problem> {
        let Enrolled { run, attempt, session, .. } = &self.enrolled;
        let key = world.settings.credentials.digest_of_key(&self.enrol.client_key);
        world.engine.agent(run, *attempt, session, &key).await
    }

    pub fn event(&mut self, body: Body) -> Event {
        self.index += 1;
        let (run, attempt) = (self.enrolled.run.clone(), self.enrolled.attempt);
        Event { run, attempt, index: self.index - 1, at: 0.5, time: "2026-01-02T03:04:05Z".into(), event: body }
    }

    pub async fn send(&mut self, world: &World, body: Body) -> Result<Orders, Problem> {
        let event = self.event(body);
        self.report(world, vec![event]).await
    }

    pub async fn report(&self, world: &World, events: Vec<Event>) -> Result<Orders, Problem> {
        let who = self.who(world).await?;
        world.engine.report(&who, Report { events }).await
    }

    pub async fn key(&self, world: &World) -> Result<UnlockKey, Problem> {
        let who = self.who(world).await?;
        Ok(world.engine.release_key(&who).await?.key)
    }

    pub async fn renew(&self, world: &World) -> Result<Lease, Problem> {
        let who = self.who(world).await?;
        let shown = Standing { key: &self.enrol.client_key, left: Duration::ZERO };
        world.engine.renew(&who, Some(shown)).await
    }
}

pub fn warning(text: &str) -> Body {
    Body::Warning { message: text.into() }
}

pub fn path(state: PathState, live: u32) -> Body {
    let way = "0.0.1900 0x5005076300c213e9 0x4010400000000000".to_owned();
    let total = if state == PathState::Gone { 3 } else { 4 };
    Body::PathChanged(PathChanged { path: "sda".into(), way, state, live, total })
}

pub fn has_target() -> Body {
    Body::PhaseFinished { phase: Phase::Target, seconds: 1.0, detail: "ours alone".into() }
}

pub fn finished() -> Body {
    let digest = format!("sha256:{}", "0".repeat(64));
    serde_json::from_value(json!({
        "kind": "run-finished",
        "image": {"name": "debian-13", "version": 7, "architecture": "s390x", "digest": digest, "signers": []},
        "target": {"device": "LUN 1", "size": 1},
        "raw_bytes": 1, "data_bytes": 1, "zero_bytes": 0, "fetched_bytes": 1,
        "proof": {"read-back": {"bytes": 1}}, "engine": "io_uring", "retries": 0, "phases": [],
        "write_seconds": 1.0, "read_back_seconds": 1.0, "total_seconds": 2.0,
    }))
    .unwrap()
}

pub fn failed(error: &str, retryable: bool) -> Body {
    let code = match error {
        "cancelled" => 8,
        "image" => 3,
        _ => 5,
    };
    serde_json::from_value(json!({
        "kind": "run-failed", "phase": "stream", "error": error, "exit_code": code, "message": "it broke",
        "retryable": retryable, "target": "not-bootable",
    }))
    .unwrap()
}

pub fn progress(bytes: u64) -> Body {
    serde_json::from_value(json!({
        "kind": "progress", "phase": "stream", "step": "write", "bytes": bytes, "total_bytes": 100, "chunks": 1,
        "total_chunks": 2, "rates": {"source": 1, "decode": 1, "write": 1, "read_back": 0},
    }))
    .unwrap()
}

/// What is asked for: a device of the launcher's machine.
pub fn device(server: &str, device: &str) -> Value {
    json!({
        "server": server,
        "image": {"name": "debian-13", "sources": ["http://images.example/debian-13/"], "trust": ["a".repeat(64)]},
        "target": {"device": device},
    })
}

/// What is asked for: a LUN of a server that boots by itself; reserved.
pub fn lun(server: &str, wwid: &str) -> Value {
    let mut new = device(server, "/dev/x");
    new["launcher"] = json!("external");
    new["target"] = json!({"lun": {"wwid": wwid}});
    new
}

/// The same, launched in a cluster.
pub fn in_cluster(mut new: Value) -> Value {
    new["launcher"] = json!("kubernetes");
    new
}

/// What was asked for, encrypted under a key of the service.
pub fn encrypted(mut new: Value) -> Value {
    new["target"]["layout"] = json!("whole");
    new
}

/// What is asked for: a device of a server that boots by itself; nothing reserves it.
pub fn external(server: &str, path: &str) -> Value {
    let mut new = device(server, path);
    new["launcher"] = json!("external");
    new
}

/// Why something was refused.
pub fn code<T: std::fmt::Debug>(answer: Result<T, Problem>) -> Code {
    answer.unwrap_err().code
}
