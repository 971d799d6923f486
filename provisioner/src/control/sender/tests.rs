use imgstream::error::Error;
use protocol::control::Code;
use protocol::event::{Body, Event};
use tokio_util::sync::CancellationToken;

use super::super::lease;
use super::super::testing::{Heard, Reply, Service, good, problem, run_id, token};
use super::*;
use crate::report::{Reporter, failure};

struct Run {
    reporter: Arc<Reporter>,
    outbox: Outbox,
    cancel: CancellationToken,
    lease: Arc<Lease>,
    sending: tokio::task::JoinHandle<Delivered>,
}

fn run(service: &Service) -> Run {
    let (outbox, cancel) = (Outbox::default(), CancellationToken::new());
    let reporter = Arc::new(Reporter::new(run_id("r"), 1, vec![Box::new(outbox.clone())]));
    let terms = protocol::control::agent::Terms { seconds: 60, renew_after: 20 };
    let lease = Arc::new(Lease::new("attempt 1 of run r".into(), terms, lease::now()));
    let sender = Sender {
        outbox: outbox.clone(),
        client: service.client().another(Duration::from_millis(500)),
        path: "/v1/agent/runs/r/attempts/1/events".into(),
        session: token("s"),
        obedience: Arc::new(Obedience::new(Arc::clone(&reporter), outbox.clone(), cancel.clone())),
        lease: Arc::clone(&lease),
    };
    Run { reporter, outbox, cancel, lease, sending: tokio::spawn(sender.send()) }
}

impl Run {
    fn warn(&self, message: &str) {
        self.reporter.emit(Body::Warning { message: message.into() });
    }

    fn end(&self) {
        self.reporter.emit(Body::RunFailed(Box::new(failure::before_the_run(&Error::image("the end")))));
    }

    async fn delivered(self) -> Delivered {
        tokio::time::timeout(Duration::from_secs(20), self.sending).await.unwrap().unwrap()
    }
}

fn events(heard: &Heard) -> Vec<Event> {
    serde_json::from_value(heard.body["events"].clone()).unwrap()
}

fn messages(heard: &Heard) -> Vec<String> {
    let message = |event: Event| match event.event {
        Body::Warning { message } => message,
        Body::RunFailed(failure) => failure.message,
        other => panic!("{other:?}"),
    };
    events(heard).into_iter().map(message).collect()
}

/// As a service that has everything it was told.
fn has_all(heard: &Heard) -> Orders {
    let next = events(heard).last().unwrap().index + 1;
    Orders { next, cancel: false, progress_every: None }
}

#[tokio::test]
async fn answers_that_are_lost_or_make_no_sense_are_asked_for_again() {
    let service = Service::start(|number, heard| match number {
        0 => Reply::Closed,
        1 => problem(Code::Unavailable),
        2 => good(&"nonsense"),
        3 => Reply::Bytes(b"SMTP ready\r\n".to_vec()),
        4 => Reply::Silence(Duration::from_secs(1)),
        _ => good(&has_all(heard)),
    });
    let run = run(&service);
    run.warn("a");
    run.end();
    assert_eq!(run.delivered().await, Delivered::Accepted);
    let heard = service.heard();
    assert_eq!(heard.len(), 6);
    assert_eq!(heard[0].path, "/v1/agent/runs/r/attempts/1/events");
    assert!(heard.iter().all(|heard| messages(heard) == ["a", "the end"]), "{heard:?}");
}

#[tokio::test]
async fn the_end_is_told_until_the_service_has_it_also_when_its_cursor_goes_back() {
    let cursors = [2, 1, 0, 3];
    let service =
        Service::start(move |number, _| good(&Orders { next: cursors[number], cancel: false, progress_every: None }));
    let run = run(&service);
    ["a", "b"].iter().for_each(|text| run.warn(text));
    tokio::time::sleep(Duration::from_millis(200)).await;
    run.end();
    assert_eq!(run.delivered().await, Delivered::Accepted);
    let told: Vec<_> = service.heard().iter().map(messages).collect();
    assert_eq!(told, [vec!["a", "b"], vec!["the end"], vec!["the end"], vec!["the end"]]);
    assert_eq!(service.connections(), 1, "the connection is kept");
}

#[tokio::test]
async fn an_order_to_cancel_is_told_once_and_carried_out() {
    let service = Service::start(|_, heard| good(&Orders { cancel: true, ..has_all(heard) }));
    let run = run(&service);
    run.warn("a");
    tokio::time::timeout(Duration::from_secs(2), run.cancel.cancelled()).await.unwrap();
    run.end();
    assert_eq!(run.delivered().await, Delivered::Accepted);
    let told: Vec<_> = service.heard().iter().flat_map(messages).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[1].starts_with("the service has cancelled the run"), "{told:?}");
}

#[tokio::test]
async fn an_order_to_cancel_what_has_ended_is_not_carried_out() {
    let service = Service::start(|_, heard| good(&Orders { cancel: true, ..has_all(heard) }));
    let run = run(&service);
    run.end();
    let cancel = run.cancel.clone();
    assert_eq!(run.delivered().await, Delivered::Accepted);
    assert!(!cancel.is_cancelled());
}

#[tokio::test]
async fn an_attempt_that_is_over_takes_the_lease_with_it() {
    let service =
        Service::start(|number, heard| if number == 0 { good(&has_all(heard)) } else { problem(Code::AttemptOver) });
    let run = run(&service);
    run.warn("a");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!run.lease.is_over());
    run.warn("b");
    tokio::time::timeout(Duration::from_secs(2), run.lease.ended()).await.unwrap();
    assert!(run.lease.over().unwrap().to_string().contains("the service has ended it"));
    let Delivered::NotWanted(why) = run.delivered().await else { panic!() };
    assert!(why.contains("attempt-over"), "{why}");
}

/// The service takes at most two events at once, and none that says "bad".
#[tokio::test]
async fn what_is_refused_is_sent_in_parts_and_without_what_is_wrong() {
    let service = Service::start(|_, heard| match &messages(heard)[..] {
        many if many.len() > 2 => problem(Code::TooLarge),
        some if some.iter().any(|text| text == "bad") => problem(Code::BadRequest),
        _ => good(&has_all(heard)),
    });
    let run = run(&service);
    ["a", "b", "c", "bad", "d"].iter().for_each(|text| run.warn(text));
    run.end();
    assert_eq!(run.delivered().await, Delivered::Accepted);
    let heard = service.heard();
    assert!(heard.len() < 30, "{}", heard.len());
    let last: Vec<_> = heard.iter().map(|heard| (messages(heard), events(heard).len())).collect();
    assert!(
        last.iter().any(|(told, _)| told.iter().any(|text| text.contains("of kind warning was left out"))),
        "{last:?}"
    );
}

#[tokio::test]
async fn what_is_never_taken_is_not_sent_for_ever() {
    let service = Service::start(|_, _| problem(Code::BadRequest));
    let run = run(&service);
    run.warn("a");
    run.end();
    let outbox = run.outbox.clone();
    let Delivered::Refused(why) = run.delivered().await else { panic!() };
    assert!(why.contains("bad-request") && !outbox.is_accepted(), "{why}");
}
