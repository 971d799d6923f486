//! Answers that nobody takes, over HTTP/2: nothing of that is seen in TCP.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode};
use orchestrator::api::Limits;
use tokio::time::{Instant, sleep, timeout};

use crate::fake::{MANY, OPERATOR, VIEWER};
use crate::house::{House, SHOWN, SOON, connect2_taking, request};

const BRIEF: Duration = Duration::from_millis(300);

/// A request of somebody who has shown no certificate.
fn ask(path: &str, token: Option<&str>) -> Request<Full<Bytes>> {
    let mut ask = request(Method::GET, &format!("http://localhost{path}"), token, None);
    ask.headers_mut().insert(SHOWN, "none".parse().unwrap());
    ask
}

#[tokio::test]
async fn an_answer_that_is_not_taken_ends_its_connection_whatever_else_happens_on_it() {
    let house = House::plain(Limits { stall: BRIEF, connections: 1, ..Limits::default() }).await;
    // Nothing is taken; a byte, of which the rest lies in another place; and a good part.
    for window in [0, 1, 10_000] {
        let place = async {
            loop {
                let (mut sender, ended) = connect2_taking(house.connect().await, window).await;
                let began = Instant::now();
                if let Ok(answer) = sender.send_request(ask("/page.js", None)).await {
                    return (sender, ended, answer, began);
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        let (mut sender, ended, answer, began) = timeout(SOON, place).await.expect("the only place is free again");
        assert_eq!(answer.status(), StatusCode::OK);
        // It answers, and is asked other things, all the time.
        let busy = async {
            while let Ok(answer) = sender.send_request(ask("/healthz", None)).await {
                assert_eq!(answer.status(), StatusCode::NO_CONTENT);
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(SOON, busy).await.unwrap_or_else(|_| panic!("a window of {window}: it must end"));
        let _ = ended.await;
        assert!(began.elapsed() >= BRIEF, "a window of {window}: it ended after {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn an_answer_that_is_taken_slowly_is_given() {
    let house = House::plain(Limits { stall: BRIEF, ..Limits::default() }).await;
    let (mut sender, _) = connect2_taking(house.connect().await, 1 << 12).await;
    let mut body = sender.send_request(ask("/page.js", None)).await.unwrap().into_body();
    let (began, mut read) = (Instant::now(), 0);
    while began.elapsed() < 4 * BRIEF {
        sleep(BRIEF / 3).await;
        read += body.frame().await.expect("it is longer").unwrap().into_data().unwrap().len();
    }
    assert!(read > 4096, "{read} bytes");
}

#[tokio::test]
async fn a_stream_of_events_may_be_silent_and_must_be_taken() {
    let limits = Limits { stall: BRIEF, comment: SOON, idle: BRIEF, ..Limits::default() };
    let house = House::plain(limits).await;
    let (mut sender, _) = connect2_taking(house.connect().await, 1 << 16).await;
    let answer = sender.send_request(ask("/v1/runs/r-1/events", Some(VIEWER))).await.unwrap();
    let mut events = answer.into_body();
    // The second one takes how long it should wait until it comes again, and no more.
    let (mut sender, ended) = connect2_taking(house.connect().await, 16).await;
    let held = sender.send_request(ask("/v1/runs/r-1/events", Some(VIEWER))).await.unwrap();
    sleep(4 * BRIEF).await;
    assert_eq!(events.frame().await.unwrap().unwrap().into_data().unwrap(), "retry: 2000\n\n");
    assert!(!ended.is_finished(), "nothing was told, and nothing could be taken");
    house.fake.tell("r-1", 1);
    let told = timeout(SOON, events.frame()).await.expect("it is told").unwrap().unwrap();
    assert!(told.into_data().unwrap().starts_with(b"id: 1\n"));
    let _ = timeout(SOON, ended).await.expect("it takes nothing of what it is told");
    drop(held);
    // The first one goes on.
    house.fake.tell("r-1", 1);
    timeout(SOON, events.frame()).await.expect("it is told").unwrap().unwrap();
    assert_eq!(house.fake.watchers(), 1);
}

#[tokio::test]
async fn what_is_not_taken_holds_only_so_much() {
    let house = House::plain(Limits { stall: 2 * BRIEF, answers: 1 << 20, ..Limits::default() }).await;
    let path = format!("/v1/runs?limit={MANY}");
    let of = async |token| {
        let mut answers = Vec::new();
        // Several connections have no more than one.
        for _ in 0..4 {
            let (mut sender, _) = connect2_taking(house.connect().await, 0).await;
            for _ in 0..4 {
                answers.push(sender.send_request(ask(&path, Some(token))).await.unwrap());
            }
        }
        answers
    };
    let count = |answers: &[hyper::Response<_>]| answers.iter().filter(|one| one.status() == StatusCode::OK).count();
    let answers = of(VIEWER).await;
    let given = count(&answers);
    assert!((1..=4).contains(&given), "{given} answers of some 250 KiB each");
    assert!(answers.iter().all(|one| [200, 429].contains(&one.status().as_u16())));
    // Somebody else has something as well, and whoever takes it has all of it.
    let (mut sender, _) = connect2_taking(house.connect().await, 1 << 20).await;
    for _ in 0..8 {
        let answer = sender.send_request(ask(&path, Some(OPERATOR))).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(answer.into_body().collect().await.unwrap().to_bytes().len() > 200_000);
    }
    // When their connections have ended, they hold nothing.
    let again = async {
        while count(&of(VIEWER).await) == 0 {
            sleep(BRIEF).await;
        }
    };
    timeout(SOON, again).await.expect("what was held is free again");
}
