//! What watchers are told.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use orchestrator::api::Limits;
use serde_json::Value;
use tokio::net::TcpSocket;
use tokio::time::{Instant, sleep, timeout};

use crate::fake::{OPERATOR, VIEWER};
use crate::house::{Answer, House, SHOWN, SOON, connect2, request, send1};

/// A stream of events, read.
struct Events {
    body: Incoming,
    text: String,
}

/// A block of a stream: its lines by their names; comments have none.
type Block = Vec<(String, String)>;

fn line(block: &Block, name: &str) -> Option<String> {
    block.iter().find(|(of, _)| of == name).map(|(_, value)| value.clone())
}

impl Events {
    async fn of(house: &House, path: &str, last: Option<&str>) -> Self {
        Self::read(send1(house.connect().await, ask(path, last)).await)
    }

    fn read(response: Response<Incoming>) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Events { body: response.into_body(), text: String::new() }
    }

    /// The next block; `None` when the stream has ended.
    async fn block(&mut self) -> Option<Block> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let lines = block.lines().map(|line| line.split_once(':').unwrap());
                let block = lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
                self.text = rest.to_owned();
                return Some(block);
            }
            let frame = timeout(SOON, self.body.frame()).await.expect("something more")?;
            let data = frame.ok()?.into_data().unwrap();
            self.text.push_str(std::str::from_utf8(&data).unwrap());
        }
    }

    /// The next event that is not only a comment: its name, its id, its data.
    async fn next(&mut self) -> (String, Option<i64>, Value) {
        loop {
            let block = self.block().await.expect("an event");
            let Some(name) = line(&block, "event") else { continue };
            let id = line(&block, "id").map(|id| id.parse().unwrap());
            return (name, id, serde_json::from_str(&line(&block, "data").unwrap()).unwrap());
        }
    }

    /// The ids of the next so many events.
    async fn ids(&mut self, count: usize) -> Vec<i64> {
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(self.next().await.1.unwrap());
        }
        ids
    }

    /// That nothing but comments is there.
    async fn must_be_quiet(&mut self) {
        sleep(Duration::from_millis(200)).await;
        let next = self.next().now_or_never();
        assert!(next.is_none(), "{next:?}");
    }
}

fn ask(path: &str, last: Option<&str>) -> Request<Full<Bytes>> {
    let mut ask = request(Method::GET, path, Some(OPERATOR), None);
    if let Some(last) = last {
        ask.headers_mut().insert("last-event-id", last.parse().unwrap());
    }
    ask
}

async fn until(holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, wait).await.expect("it must become so");
}

#[tokio::test]
async fn a_run_is_told_from_its_beginning_and_then_as_it_goes() {
    let house = House::plain(Limits::default()).await;
    house.fake.tell("r-1", 2);
    house.fake.tell("r-2", 1);
    let mut events = Events::of(&house, "/v1/runs/r-1/events", None).await;
    assert_eq!(line(&events.block().await.unwrap(), "retry").unwrap(), "2000");
    let (name, id, data) = events.next().await;
    assert_eq!((name.as_str(), id), ("state", Some(1)));
    assert_eq!((&data["run"], &data["state"]["state"]), (&"r-1".into(), &"running".into()));
    assert_eq!(events.ids(1).await, [2]);
    events.must_be_quiet().await;
    house.fake.tell("r-1", 2);
    assert_eq!(events.ids(2).await, [4, 5]);
}

#[tokio::test]
async fn whoever_was_away_goes_on_where_it_was() {
    let house = House::plain(Limits::default()).await;
    house.fake.tell("r-1", 1000);
    for (path, last, first) in [
        ("/v1/runs/r-1/events", Some("990"), 991),
        ("/v1/runs/r-1/events?after=995", None, 996),
        ("/v1/runs/r-1/events?after=5", Some("997"), 998),
        ("/v1/events", Some("0"), 1),
        ("/v1/events?after=999", None, 1000),
    ] {
        let mut events = Events::of(&house, path, last).await;
        let rest = usize::try_from(1001 - first).unwrap();
        assert_eq!(events.ids(rest).await, (first..=1000).collect::<Vec<_>>(), "{path}");
    }
    // Of all runs, nothing is told again to whoever does not say where it was.
    let mut events = Events::of(&house, "/v1/events", None).await;
    until(|| house.fake.watchers() > 0).await;
    house.fake.tell("r-2", 1);
    assert_eq!(events.ids(1).await, [1001]);
}

#[tokio::test]
async fn a_place_that_makes_no_sense_is_refused() {
    let house = House::plain(Limits::default()).await;
    house.fake.tell("r-1", 3);
    for (path, last, says) in [
        ("/v1/events", Some("x"), "no number"),
        ("/v1/events", Some("-1"), "no number"),
        ("/v1/events", Some("4"), "ever told"),
        ("/v1/events?after=-1", None, "no number"),
        ("/v1/events?after=x", None, "after"),
        ("/v1/events?before=1", None, "unknown field `before`"),
        ("/v1/runs/r-1/events?after=9", None, "ever told"),
    ] {
        house.ask(ask(path, last)).await.must_be_problem("bad-request", says);
    }
    until(|| house.fake.watchers() == 0).await;
}

#[tokio::test]
async fn progress_is_told_now_and_then_and_the_latest_always() {
    let house = House::plain(Limits { progress: Duration::from_millis(300), ..Limits::default() }).await;
    house.fake.advance("r-1", 0);
    let mut events = Events::of(&house, "/v1/runs/r-1/events", None).await;
    let mut all = Events::of(&house, "/v1/events", None).await;
    let began = Instant::now();
    let makes = async {
        for bytes in 1..=100 {
            house.fake.advance("r-1", bytes);
            sleep(Duration::from_millis(10)).await;
        }
    };
    let reads = async |events: &mut Events, event: &str, bytes: &str| {
        let mut told = 0;
        loop {
            let (name, id, data) = events.next().await;
            assert_eq!((name.as_str(), id), (event, None));
            told += 1;
            if *data.pointer(bytes).unwrap() == 100 {
                return told;
            }
        }
    };
    let one = reads(&mut events, "progress", "/progress/bytes");
    let ((), one, every) = tokio::join!(makes, one, reads(&mut all, "fleet", "/runs/0/bytes"));
    let most = began.elapsed().as_millis() / 300 + 2;
    assert!(u128::from(one.max(every) as u32) <= most, "{one} and {every} times in {:?}", began.elapsed());
    // What has not changed is not told again, and progress makes nobody ask the store.
    assert_eq!(house.fake.reads.load(Ordering::Relaxed), 2);
    house.fake.tell("r-1", 1);
    assert_eq!(events.ids(1).await, [1]);
    assert_eq!(all.ids(1).await, [1]);
    events.must_be_quiet().await;
    all.must_be_quiet().await;
}

#[tokio::test]
async fn whoever_watches_all_is_first_told_how_far_all_are_and_then_of_those_that_got_on() {
    let house = House::plain(Limits { progress: Duration::from_millis(100), ..Limits::default() }).await;
    let runs = async |events: &mut Events| {
        let (name, _, data) = events.next().await;
        assert_eq!(name, "fleet");
        let runs: Vec<String> =
            data["runs"].as_array().unwrap().iter().map(|run| run["run"].as_str().unwrap().to_owned()).collect();
        runs.join(" ")
    };
    house.fake.advance("r-1", 1);
    house.fake.advance("r-2", 1);
    let mut first = Events::of(&house, "/v1/events", None).await;
    assert_eq!(runs(&mut first).await, "r-1 r-2");
    let mut second = Events::of(&house, "/v1/events", None).await;
    assert_eq!(runs(&mut second).await, "r-1 r-2");
    first.must_be_quiet().await;
    house.fake.advance("r-2", 2);
    assert_eq!(runs(&mut first).await, "r-2");
    assert_eq!(runs(&mut second).await, "r-2");
    // All of them are looked at once in a while, however many watch, and not at all where nobody does.
    let began = (Instant::now(), house.fake.looks.load(Ordering::Relaxed));
    sleep(Duration::from_millis(500)).await;
    let looks = house.fake.looks.load(Ordering::Relaxed) - began.1;
    assert!(looks as u128 <= began.0.elapsed().as_millis() / 100 + 1, "{looks} looks");
    drop((first, second));
    until(|| house.fake.watchers() == 0).await;
    let looks = house.fake.looks.load(Ordering::Relaxed);
    sleep(Duration::from_millis(300)).await;
    assert_eq!(house.fake.looks.load(Ordering::Relaxed), looks);
}

#[tokio::test]
async fn what_many_watch_is_read_once() {
    let house = House::plain(Limits { gather: Duration::ZERO, ..Limits::default() }).await;
    let mut all = Vec::new();
    for _ in 0..20 {
        all.push(Events::of(&house, "/v1/events", None).await);
    }
    until(|| house.fake.watchers() == 20).await;
    let before = house.fake.reads.load(Ordering::Relaxed);
    for round in 1..=10 {
        house.fake.tell("r-1", 1);
        for events in &mut all {
            assert_eq!(events.ids(1).await, [round]);
        }
    }
    let reads = house.fake.reads.load(Ordering::Relaxed) - before;
    assert!((10..=40).contains(&reads), "{reads} reads for 20 watchers of 10 events");
}

#[tokio::test]
async fn whoever_comes_later_is_told_also_what_others_have_not_read_yet() {
    let house = House::plain(Limits { gather: Duration::from_secs(60), ..Limits::default() }).await;
    house.fake.tell("r-1", 1);
    let mut first = Events::of(&house, "/v1/events", Some("0")).await;
    assert_eq!(first.ids(1).await, [1]);
    // The first has just been told something, and waits; what it has read is kept for others.
    house.fake.tell("r-1", 1);
    let mut second = Events::of(&house, "/v1/events", Some("0")).await;
    assert_eq!(second.ids(2).await, [1, 2]);
}

#[tokio::test]
async fn comments_keep_a_quiet_stream_open() {
    let house = House::plain(Limits { comment: Duration::from_millis(50), ..Limits::default() }).await;
    let mut events = Events::of(&house, "/v1/events", None).await;
    events.block().await.unwrap();
    for _ in 0..3 {
        assert_eq!(events.block().await.unwrap(), [(String::new(), String::new())]);
    }
}

#[tokio::test]
async fn a_slow_watcher_costs_a_page_and_delays_nobody() {
    const EVENTS: usize = 10_000;
    let house = House::plain(Limits::default()).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let slow = socket.connect(house.address).await.unwrap();
    let mut slow = Events::read(send1(slow, ask("/v1/events", None)).await);
    slow.block().await.unwrap();
    // What it does not take waits in buffers of the kernel, until those are full, and then in the store.
    house.fake.tell_at_length("r-1", EVENTS, 2000);
    sleep(Duration::from_millis(500)).await;
    let read = house.fake.reads.swap(0, Ordering::Relaxed);
    assert!(read < EVENTS / 256 - 5, "{read} pages were read for whoever takes none");
    assert!(house.fake.longest.load(Ordering::Relaxed) <= 256);

    let began = Instant::now();
    let mut quick = Events::of(&house, "/v1/events", Some("0")).await;
    assert_eq!(quick.ids(EVENTS).await.last(), Some(&10_000));
    house.fake.tell("r-1", 1);
    assert_eq!(quick.ids(1).await, [10_001]);
    assert_eq!(house.get("/healthz").await.status, StatusCode::NO_CONTENT);
    assert!(began.elapsed() < 3 * SOON, "{:?}", began.elapsed());

    // It has lost nothing.
    assert_eq!(slow.ids(EVENTS + 1).await, (1..=10_001).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_watcher_that_takes_nothing_any_more_is_let_go_by_either_protocol() {
    let house = House::plain(Limits { stall: Duration::from_millis(300), ..Limits::default() }).await;
    house.fake.tell_at_length("r-1", 10_000, 2000);
    let first = send1(house.connect().await, ask("/v1/runs/r-1/events", None)).await;
    let mut sender = connect2(house.connect().await).await;
    let second = sender.send_request(ask("http://localhost/v1/runs/r-1/events", None)).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    // One stream of HTTP/2 that is stuck does not stop the others of its connection, until that ends.
    let other = sender.send_request(request(Method::GET, "http://localhost/healthz", None, None)).await.unwrap();
    assert_eq!(other.status(), StatusCode::NO_CONTENT);
    until(|| house.fake.watchers() == 0).await;
    drop((first, second));
}

#[tokio::test]
async fn a_watcher_that_is_gone_is_noticed() {
    let house = House::plain(Limits::default()).await;
    let events = Events::of(&house, "/v1/events", None).await;
    until(|| house.fake.watchers() == 1).await;
    drop(events);
    until(|| house.fake.watchers() == 0).await;
}

#[tokio::test]
async fn there_are_only_so_many_watchers() {
    let house = House::plain(Limits { watchers: 3, ..Limits::default() }).await;
    let one = Events::of(&house, "/v1/events", None).await;
    let _two = Events::of(&house, "/v1/events", None).await;
    house.ask(ask("/v1/events", None)).await.must_be_problem("too-many", "of 3 watchers");
    drop(one);
    until(|| house.fake.watchers() == 1).await;
    // The place is free a moment after the subscription.
    let again = async {
        while send1(house.connect().await, ask("/v1/events", None)).await.status() != StatusCode::OK {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, again).await.unwrap();
}

#[tokio::test]
async fn whoever_watches_a_run_that_is_removed_hears_the_end_of_it_and_finds_it_no_more() {
    let house = House::plain(Limits::default()).await;
    house.fake.tell("r-1", 1);
    let mut events = Events::of(&house, "/v1/runs/r-1/events", None).await;
    assert_eq!(events.ids(1).await, [1]);
    until(|| house.fake.watchers() == 1).await;
    house.fake.forget();
    let mut last = Vec::new();
    while let Some(block) = events.block().await {
        last = block;
    }
    assert_eq!(last, [(String::new(), "the service ends, or keeps the run no longer".to_owned())]);
    let again = send1(house.connect().await, ask("/v1/runs/r-gone/events", Some("1"))).await;
    assert_eq!(again.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn one_caller_leaves_some_watchers_to_others() {
    let house = House::plain(Limits { watchers: 8, ..Limits::default() }).await;
    let ask = |token| {
        let mut ask = request(Method::GET, "/v1/runs/r-1/events", Some(token), None);
        ask.headers_mut().insert(SHOWN, "none".parse().unwrap());
        ask
    };
    let mut held = Vec::new();
    for _ in 0..6 {
        let answer = send1(house.connect().await, ask(VIEWER)).await;
        assert_eq!(answer.status(), StatusCode::OK);
        held.push(answer);
    }
    house.ask(ask(VIEWER)).await.must_be_problem("too-many", "viewer token has as many as it may have");
    assert_eq!(send1(house.connect().await, ask(OPERATOR)).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn watchers_are_told_when_the_service_ends_or_its_store_does_not_answer() {
    let house = House::plain(Limits::default()).await;
    let mut events = Events::of(&house, "/v1/events", None).await;
    until(|| house.fake.watchers() == 1).await;
    house.fake.broken.store(true, Ordering::Relaxed);
    house.fake.tell("r-1", 1);
    let mut last = Vec::new();
    while let Some(block) = events.block().await {
        last = block;
    }
    assert!(last[0].1.contains("come again"), "{last:?}");
    house.fake.broken.store(false, Ordering::Relaxed);

    let mut events = Events::of(&house, "/v1/events", None).await;
    let began = Instant::now();
    house.drain.cancel();
    let mut last = Vec::new();
    while let Some(block) = events.block().await {
        last = block;
    }
    assert_eq!(last, [(String::new(), "the service ends".to_owned())]);
    timeout(SOON, house.serving).await.expect("the service must end").unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn watching_by_http_2() {
    let house = House::tls(Limits::default()).await;
    house.fake.tell("r-1", 3);
    let mut sender = connect2(house.connect_tls(b"h2").await).await;
    let response = sender.send_request(ask("https://localhost/v1/events", Some("1"))).await.unwrap();
    assert_eq!(Events::read(response).ids(2).await, [2, 3]);
    let refused = sender.send_request(request(Method::GET, "https://localhost/v1/events", None, None)).await.unwrap();
    Answer::whole(refused).await.must_be_problem("unauthorized", "Bearer");
}
