use std::time::Duration;

use orchestrator::client::{Events, News};
use orchestrator::error::Result;
use protocol::RunId;
use protocol::control::run::What;

use crate::server::{Server, Step, answer, answer_with, events, problem, state};

fn id() -> RunId {
    "r-1".to_owned().try_into().unwrap()
}

/// The next news in a word.
async fn next(events: &mut Events) -> Result<String> {
    let news = tokio::time::timeout(Duration::from_secs(20), events.next()).await.unwrap()?;
    Ok(match news {
        News::Happened(happening) => match happening.what {
            What::State(change) => format!("{} {}", happening.run, change.state),
            What::Agent(event) => format!("{} event {}", happening.run, event.index),
            What::Key(event) => format!("{} key {}", happening.run, event.action),
        },
        News::Progress(glance) => format!("{} {} %", glance.run, glance.bytes),
        News::Away { .. } => "away".into(),
        News::Back => "back".into(),
    })
}

#[tokio::test]
async fn a_stream_that_breaks_is_taken_up_where_it_was() {
    let progress = "event: progress\ndata: {\"run\":\"r-1\",\"progress\":{\"phase\":\"stream\",\"step\":\"write\",\"bytes\":7,\
        \"total_bytes\":100,\"chunks\":1,\"total_chunks\":2,\"rates\":{\"source\":1,\"decode\":1,\"write\":1,\"read_back\":0}}}\n\n";
    let glance = |run: &str, bytes: u32| {
        format!(r#"{{"run":"{run}","phase":"stream","step":"write","bytes":{bytes},"total_bytes":100,"rate":1}}"#)
    };
    let fleet = format!("event: fleet\ndata: {{\"runs\":[{},{}]}}\n\n", glance("r-1", 8), glance("r-2", 9));
    let second = state(8, "r-1", "running");
    let (begin, rest) = second.split_at(second.len() - 20);
    let server = Server::new(vec![
        // Cut in the middle of an event whose id has arrived.
        Step::Cut(events(&format!(": hello\n\n{}{begin}", state(7, "r-1", "queued")))),
        problem(503, ""),
        Step::Cut(String::new()),
        Step::Say(events(&format!(
            "{begin}{rest}{progress}{fleet}event: new-in-2030\nid: 9\ndata: x\n\nevent: state\ndata: nonsense\n\n"
        ))),
        problem(404, r#","hint":"it is gone""#),
    ])
    .await;
    let mut events = server.client().events(Some(id()));
    let mut heard = Vec::new();
    let error = loop {
        match next(&mut events).await {
            Ok(news) => heard.push(news),
            Err(error) => break error,
        }
    };
    assert_eq!(
        heard,
        ["r-1 queued", "away", "away", "away", "back", "r-1 running", "r-1 7 %", "r-1 8 %", "r-2 9 %", "away"]
    );
    assert_eq!(error.hint(), Some("it is gone"));
    let requests = server.requests();
    let resumed =
        |request: &String| request.lines().find_map(|line| line.strip_prefix("last-event-id: ").map(ToOwned::to_owned));
    let from: Vec<_> = requests.iter().map(resumed).collect();
    assert_eq!(from, [None, Some("7".into()), Some("7".into()), Some("7".into()), Some("9".into())]);
    assert!(requests.iter().all(|request| request.starts_with("GET /v1/runs/r-1/events HTTP/1.1\r\n")));
    assert!(requests[0].contains("accept: text/event-stream\r\n"));
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_left() {
    let server = Server::new(vec![Step::Stall, Step::Say(events(&state(1, "r-2", "lost")))]).await;
    let mut events = server.hasty_client().events(None);
    let heard = [next(&mut events).await, next(&mut events).await, next(&mut events).await].map(Result::unwrap);
    assert_eq!(heard, ["away", "back", "r-2 lost"]);
    assert!(server.lines().iter().all(|line| line == "GET /v1/events HTTP/1.1"));
}

#[tokio::test]
async fn what_is_no_stream_of_events_is_not_read() {
    let server = Server::new(vec![answer(200, "text/html", "data: x\n\n"), problem(401, "")]).await;
    let error = next(&mut server.client().events(None)).await.unwrap_err();
    assert!(error.to_string().contains("does not answer with events"), "{error}");
    let error = next(&mut server.client().events(None)).await.unwrap_err();
    assert_eq!(error.kind().exit_code(), 4);
}

#[tokio::test]
async fn an_event_that_does_not_end_is_not_read_for_ever() {
    let server = Server::new(vec![Step::Say(events(&format!("data: {}", "x".repeat(3 << 20))))]).await;
    let error = next(&mut server.client().events(Some(id()))).await.unwrap_err();
    assert!(error.to_string().contains("sent an event of more than") && error.retry().is_none(), "{error}");
}

#[tokio::test]
async fn a_service_that_asks_for_time_is_given_it() {
    let server =
        Server::new(vec![answer_with(503, "retry-after: 1\r\n", ""), Step::Say(events(&state(1, "r-1", "queued")))])
            .await;
    let begun = std::time::Instant::now();
    let mut events = server.client().events(None);
    assert_eq!([next(&mut events).await, next(&mut events).await].map(Result::unwrap), ["away", "back"]);
    assert!(begun.elapsed() >= Duration::from_secs(1));
}
