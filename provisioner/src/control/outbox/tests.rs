use imgstream::error::Error;
use protocol::event::{PathChanged, PathState, Phase, Progress, Rates, Step};
use serde_json::Value;

use super::super::testing::run_id;
use super::*;
use crate::report::failure;

fn event(index: u64, event: Body) -> Event {
    Event { run: run_id("r"), attempt: 1, index, at: 0.5, time: "t".into(), event }
}

fn warning(text: &str) -> Body {
    Body::Warning { message: text.into() }
}

fn progress() -> Body {
    Body::Progress(Progress {
        phase: Phase::Stream,
        step: Step::Write,
        bytes: 1,
        total_bytes: 100,
        chunks: 0,
        total_chunks: 0,
        rates: Rates::default(),
        limited_by: None,
        eta_seconds: None,
    })
}

fn step() -> Body {
    Body::StepStarted { phase: Phase::Stream, step: Step::Write }
}

fn failed(message: &str) -> Body {
    Body::RunFailed(Box::new(failure::before_the_run(&Error::image(message))))
}

fn path_changed() -> Body {
    let (path, way) = ("sda".into(), "0:0:0:0".into());
    Body::PathChanged(PathChanged { path, way, state: PathState::Down, live: 1, total: 2 })
}

fn outbox(bodies: impl IntoIterator<Item = Body>) -> Outbox {
    let mut outbox = Outbox::default();
    bodies.into_iter().enumerate().for_each(|(index, body)| outbox.tell(&event(index as u64, body)));
    outbox
}

fn told(batch: &Batch) -> Vec<(u64, String)> {
    let report: Value = serde_json::from_slice(&batch.body).unwrap();
    let events = report["events"].as_array().unwrap();
    assert_eq!(events.len(), batch.count);
    let told =
        events.iter().map(|event| (event["index"].as_u64().unwrap(), event["event"]["kind"].as_str().unwrap().into()));
    let told: Vec<(u64, String)> = told.collect();
    assert_eq!(told.last().unwrap().0, batch.last);
    assert!(told.is_sorted());
    told
}

fn indices(outbox: &Outbox, most: usize) -> Vec<u64> {
    outbox.batch(most).iter().flat_map(told).map(|(index, _)| index).collect()
}

#[test]
fn only_the_latest_progress_is_kept_and_none_once_a_step_has_begun() {
    let held = outbox([warning("a"), progress(), progress(), warning("b")]);
    assert_eq!(indices(&held, 10), [0, 2, 3], "a warning supersedes nothing");
    let held = outbox([progress(), step(), progress(), failed("x")]);
    assert_eq!(indices(&held, 10), [1, 3]);
}

#[test]
fn what_the_service_has_is_dropped_and_what_it_says_it_has_not_is_sent_again() {
    let held = outbox([step(), warning("a"), warning("b"), warning("c")]);
    let batch = held.batch(3).unwrap();
    assert_eq!((batch.count, batch.last), (3, 2));
    assert!(held.answered(&batch, 2));
    assert_eq!(indices(&held, 10), [2, 3], "it has two of three");
    assert!(!held.answered(&batch, 0), "it has gone back to before what is here");
    assert_eq!(indices(&held, 10), [2, 3]);
    let batch = held.batch(1).unwrap();
    assert!(held.answered(&batch, u64::MAX), "more than was sent");
    assert_eq!(indices(&held, 10), [3]);
}

#[test]
fn the_end_is_accepted_when_the_service_has_it() {
    let held = outbox([step(), failed("x")]);
    assert!(held.has_ended() && !held.is_accepted());
    let first = held.batch(1).unwrap();
    assert!(held.answered(&first, u64::MAX) && !held.is_accepted(), "it was not sent yet");
    let second = held.batch(1).unwrap();
    assert!(!held.answered(&second, 1) && !held.is_accepted());
    assert!(held.answered(&second, 2) && held.is_accepted());
}

#[test]
fn a_flood_is_counted_and_not_kept_and_what_must_fit_fits() {
    let mut held = outbox((0..MOST).map(|_| path_changed()));
    let mut index = MOST as u64;
    let mut tell = |held: &mut Outbox, body: Body| {
        held.tell(&event(index, body));
        index += 1;
    };
    for _ in 0..100_000 {
        tell(&mut held, path_changed());
    }
    tell(&mut held, step());
    tell(&mut held, warning("late"));
    assert_eq!(held.lock().high.len(), MOST + 1);
    assert!(held.lock().bytes < MOST_BYTES);
    let batch = held.batch(MAX_EVENTS).unwrap();
    assert!(held.answered(&batch, batch.last + 1));
    let batch = held.batch(MAX_EVENTS).unwrap();
    assert_eq!(held.lock().high.len(), MOST + 1 - MAX_EVENTS + 1, "one warning stands for them");
    assert!(held.answered(&batch, batch.last + 1));
    tell(&mut held, failed("x"));
    let json = held.lock().high.iter().rev().nth(1).unwrap().json.clone();
    assert!(json.contains("100001 warnings were left out"), "{json}");
    assert_eq!(held.lock().high.back().unwrap().index, index - 1);
}

#[test]
fn bytes_are_bounded_too_and_the_end_tells_what_was_left_out() {
    let long = "x".repeat(400 << 10);
    let held = outbox((0..20).map(|_| warning(&long)).chain([warning(&"y".repeat(600 << 10)), failed("x")]));
    assert!(held.lock().bytes < MOST_BYTES + 4096);
    let state = held.lock();
    let texts: Vec<_> = state.high.iter().rev().take(2).map(|entry| entry.json.clone()).collect();
    assert!(texts[1].contains("11 warnings were left out") && texts[0].contains("run-failed"), "{}", texts[1]);
    drop(state);
    let batch = held.batch(MAX_EVENTS).unwrap();
    assert!(batch.count == 1 && batch.body.len() <= BATCH_BYTES, "{} {}", batch.count, batch.body.len());
}

#[test]
fn what_is_refused_is_replaced_and_then_dropped_but_never_the_end() {
    let held = outbox([path_changed(), warning("a"), failed(&"é".repeat(4000))]);
    assert_eq!(held.refused(0), Fallback::GoOn);
    let batch = held.batch(1).unwrap();
    assert_eq!(told(&batch), [(0, "warning".to_owned())]);
    assert!(String::from_utf8(batch.body.to_vec()).unwrap().contains("an event of kind path-changed was left out"));
    assert_eq!(held.refused(0), Fallback::GoOn);
    assert_eq!(indices(&held, 10), [1, 2]);
    assert_eq!((held.refused(1), held.refused(1), held.refused(2)), (Fallback::GoOn, Fallback::GoOn, Fallback::GoOn));
    let batch = held.batch(1).unwrap();
    assert!(told(&batch) == [(2, "run-failed".to_owned())] && batch.body.len() < 3000, "{}", batch.body.len());
    assert_eq!(held.refused(2), Fallback::Hopeless);
    assert!(!held.is_accepted());
}

#[tokio::test(start_paused = true)]
async fn what_must_arrive_is_due_at_once_and_progress_now_and_then() {
    let mut held = Outbox::default();
    let since = Instant::now();
    held.tell(&event(0, progress()));
    held.due(since).await;
    assert_eq!(since.elapsed(), PACE);
    held.set_pace(Duration::ZERO);
    let since = Instant::now();
    held.due(since).await;
    assert_eq!(since.elapsed(), PACES[0], "no faster than that");
    held.set_pace(Duration::from_secs(3));
    let (since, waiting) = (Instant::now(), held.clone());
    let waiting = tokio::spawn(async move { waiting.due(since).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    held.tell(&event(1, warning("a")));
    waiting.await.unwrap();
    assert_eq!(since.elapsed(), Duration::from_secs(1));
}
