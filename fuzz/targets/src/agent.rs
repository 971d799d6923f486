//! What agents send to the orchestrating service, given to its real interface: whatever it is, it is answered with a
//! success or with a problem that says what is wrong, and a run is never brought into a state that it cannot be in.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::future::ready;
use http_body_util::BodyExt;
use orchestrator::api::{Answer, Changes, Limits, Rate, Service, Settings, router};
use orchestrator::engine::{Agent, Fresh, Standing};
use orchestrator::identity::{People, SessionKey, Shown};
use orchestrator::metrics::Tally;
use orchestrator::model::{self, BackOff, Input, Moment, Record, Rules, State};
use orchestrator::store::{Filter, Told};
use protocol::control::agent::{Enrol, Enrolled, Lease, Orders, Report, Terms};
use protocol::control::key::{ReleasedKey, ShownKey};
use protocol::control::problem::{Code, MEDIA_TYPE, Problem};
use protocol::control::run::{EnrolmentToken, Glance, NewRun, Run, RunPage};
use protocol::event::Progress;
use protocol::{RunId, Token};
use tower::ServiceExt;

/// The run that everything is about. Its first attempt went silent and is shut out by a reservation; its second runs.
const RUNNING: &str = include_str!("running.json");
/// Which attempt runs.
const ATTEMPT: u32 = 2;

/// An enrolment.
pub fn enrol(data: &[u8]) -> bool {
    post("/v1/agent/enrol", data)
}

/// A report of events.
pub fn report(data: &[u8]) -> bool {
    post(&format!("/v1/agent/runs/r-fuzz/attempts/{ATTEMPT}/events"), data)
}

/// The renewal of a lease.
pub fn lease(data: &[u8]) -> bool {
    post(&format!("/v1/agent/runs/r-fuzz/attempts/{ATTEMPT}/lease"), data)
}

fn post(path: &str, data: &[u8]) -> bool {
    static ROUTER: OnceLock<axum::Router> = OnceLock::new();
    let router = ROUTER.get_or_init(|| {
        let without = Rate { per_second: u32::MAX, burst: u32::MAX };
        let limits = Limits { per_peer: without, per_caller: without, per_person: without, ..Limits::default() };
        let tokens = SessionKey::new(&[0; 32]);
        let settings = Settings {
            people: Arc::new(People::new(nobody(), nobody(), tokens.clone())),
            tokens,
            limits,
            drain: Default::default(),
            metrics: Default::default(),
        };
        router(Arc::new(One), settings)
    });
    let mut request = axum::http::Request::post(path)
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {}", "t".repeat(43)))
        .body(axum::body::Body::from(data.to_vec()))
        .expect("a request");
    orchestrator::api::show(&mut request, shown());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let answer = router.clone().oneshot(request).await.expect("an answer");
        let status = answer.status();
        assert!(status.as_u16() < 500, "{status} is no answer to anything that a stranger can say");
        if status.is_success() {
            return true;
        }
        let kind = answer.headers().get("content-type").cloned();
        assert_eq!(kind.as_ref().map(|kind| kind.as_bytes()), Some(MEDIA_TYPE.as_bytes()));
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        let problem: Problem = serde_json::from_slice(&body).expect("a problem");
        assert_eq!(problem.status, status.as_u16());
        let text = problem.detail + problem.hint.as_deref().unwrap_or_default();
        assert!(text.len() < 4096 && !text.chars().any(|c| c.is_control()), "not fit to be shown: {text:?}");
        false
    })
}

/// A certificate that is good, for whoever looks no closer.
fn shown() -> Shown {
    let (until, ends) = (Moment(i64::MAX), Instant::now() + Duration::from_secs(3600));
    let (fingerprint, key, uris, names) = (nobody(), nobody(), Vec::new(), Vec::new());
    Shown { fingerprint, key, client_key: None, is_ours: true, until, ends, uris, names }
}

/// The digest of a token that nobody has.
fn nobody() -> protocol::Digest {
    format!("sha256:{:064}", 0).try_into().expect("a digest")
}

fn running() -> &'static Record {
    static RECORD: OnceLock<Record> = OnceLock::new();
    RECORD.get_or_init(|| serde_json::from_str(RUNNING).expect("a record"))
}

/// What the state machine makes of an input, and whether that can be.
fn decide(input: &Input) -> Result<model::Decision, Problem> {
    let before = running();
    let back_off = BackOff { first: Duration::from_secs(10), most: Duration::from_secs(60) };
    let now = Moment(1_800_000_000_000);
    let decided = model::decide(before, input, now, &Rules { back_off, dice: 0.5 }).map_err(|refusal| *refusal);
    if let Input::Report { attempt, events } = input
        && let Some(answer) = model::only_progress(before, *attempt, events)
    {
        let decided = decided.as_ref().map(|decision| (decision.record == *before, &decision.answer));
        let answer = answer.map_err(|refusal| *refusal);
        assert_eq!(answer.as_ref().map(|answer| (true, answer)), decided, "the short way is another one");
    }
    let decision = decided?;
    let after = &decision.record;
    assert!(after.version == before.version || after.version == before.version + 1);
    assert!(after.version > before.version || (after == before && decision.told.is_empty()));
    assert_eq!((after.attempt(), &after.order, after.seq), (before.attempt(), &before.order, before.seq));
    assert!(after.state != State::Launching, "an agent launches nothing");
    assert!(!after.state.is_over() || after.silent.is_empty(), "a silent agent is forgotten");
    assert_eq!(after.ended.is_some(), after.state.is_over());
    assert!(after.state == State::Running || after.attempts.iter().all(|attempt| attempt.outcome.is_some()));
    serde_json::to_string(after).expect("it can be stored");
    Ok(decision)
}

/// A service with one run.
struct One;

fn nothing<T: Send + 'static>() -> Answer<'static, T> {
    Box::pin(ready(Err(Problem::new(Code::NotFound, "not here"))))
}

impl Service for One {
    fn create(&self, _: NewRun, _: Option<String>) -> Answer<'_, (Run, bool)> {
        nothing()
    }
    fn run<'a>(&'a self, _: &'a RunId) -> Answer<'a, Run> {
        nothing()
    }
    fn list<'a>(&'a self, _: &'a Filter, _: Option<&'a str>, _: u32) -> Answer<'a, RunPage> {
        nothing()
    }
    fn cancel<'a>(&'a self, _: &'a RunId, _: &'a str) -> Answer<'a, Run> {
        nothing()
    }
    fn retry<'a>(&'a self, _: &'a RunId) -> Answer<'a, Run> {
        nothing()
    }
    fn confirm_death<'a>(&'a self, _: &'a RunId, _: u32) -> Answer<'a, Run> {
        nothing()
    }
    fn revoke<'a>(&'a self, _: &'a RunId, _: u32, _: &'a str) -> Answer<'a, Run> {
        nothing()
    }
    fn token<'a>(&'a self, _: &'a RunId) -> Answer<'a, EnrolmentToken> {
        nothing()
    }
    fn release_key<'a>(&'a self, _: &'a Agent) -> Answer<'a, ReleasedKey> {
        nothing()
    }
    fn show_key<'a>(&'a self, _: &'a RunId, _: &'a str) -> Answer<'a, ShownKey> {
        nothing()
    }
    fn destroy_key<'a>(&'a self, _: &'a RunId, _: &'a str) -> Answer<'a, Run> {
        nothing()
    }

    fn enrol<'a>(&'a self, token: &'a Token, enrol: Enrol) -> Answer<'a, Enrolled> {
        let digest = |text: &str| format!("sha256:{:064x}", text.len()).try_into().expect("a digest");
        let (token, nonce) = (digest(token.reveal()), digest(enrol.nonce.reveal()));
        let client_key = digest(enrol.client_key.as_str());
        let decided = decide(&Input::Enrol { token, nonce, client_key, agent: enrol.agent, server: enrol.server });
        let enrolled = decided.map(|_| Enrolled {
            run: running().run.clone(),
            attempt: ATTEMPT,
            session: enrol.nonce,
            lease: Terms { seconds: 60, renew_after: 15 },
            spec: String::new(),
            ticket: String::new(),
            certificate: String::new(),
        });
        Box::pin(ready(enrolled))
    }

    fn agent<'a>(&'a self, run: &'a RunId, attempt: u32, _: &'a Token, _: &'a protocol::Digest) -> Answer<'a, Agent> {
        Box::pin(ready(Ok(Agent { run: run.clone(), attempt })))
    }

    fn report<'a>(&'a self, agent: &'a Agent, report: Report) -> Answer<'a, Orders> {
        let count = report.events.len();
        let decided = decide(&Input::Report { attempt: agent.attempt, events: report.events });
        let orders = decided.map(|decision| {
            assert!(decision.told.len() <= count + 2, "more is told than was said");
            let model::Answer::Reported { next, .. } = decision.answer else { panic!("another answer") };
            let known = running().current().map_or(0, |current| current.next_index);
            assert!(next >= known, "the cursor goes back");
            Orders { next, cancel: false, progress_every: None }
        });
        Box::pin(ready(orders))
    }

    fn renew<'a>(&'a self, _: &'a Agent, _: Option<Standing<'a>>) -> Answer<'a, Lease> {
        let orders = Orders { next: 0, cancel: false, progress_every: None };
        Box::pin(ready(Ok(Lease { lease: Terms { seconds: 60, renew_after: 15 }, orders, certificate: None })))
    }

    fn told<'a>(&'a self, _: i64, _: Option<&'a RunId>, _: u32) -> Answer<'a, Vec<Told>> {
        nothing()
    }
    fn last_told(&self) -> Answer<'_, i64> {
        nothing()
    }
    fn progress(&self, _: &RunId) -> Option<Progress> {
        None
    }
    fn fleet(&self, since: u64) -> (u64, Vec<Glance>) {
        (since, Vec::new())
    }
    fn watch(&self, _: Option<&RunId>) -> Box<dyn Changes> {
        Box::new(Never)
    }
    fn tally(&self) -> Tally {
        Tally::default()
    }

    fn ready(&self) -> Answer<'_, ()> {
        nothing()
    }
}

struct Never;

impl Changes for Never {
    fn changed(&mut self) -> futures_util::future::BoxFuture<'_, Option<Fresh>> {
        Box::pin(ready(None))
    }
}
