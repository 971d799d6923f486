use std::time::Duration;

use crate::commands::{ask, command, said};
use crate::exchanges::ORDER;
use crate::server::{Server, Step, answer, events, json, problem, run, state};

const FAILURE: &str = r#","failure":{"phase":"target","error":"target","exit_code":4,"message":"it is\u001b[2J mounted",
    "hint":"unmount it","retryable":false,"target":"untouched"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn watch_ends_as_the_run_has_ended() {
    let cases = [
        ("succeeded", "", 0, "r-1 succeeded"),
        ("failed", FAILURE, 4, "error: it is\u{fffd}[2J mounted"),
        ("failed", "", 1, "r-1 failed"),
        ("cancelled", "", 8, "r-1 cancelled"),
    ];
    for (end, more, expected, text) in cases {
        let stream = events(&format!("{}{}", state(1, "r-1", "running"), state(2, "r-1", end)));
        let server = Server::new(vec![Step::Cut(stream), json(&run("r-1", end, more))]).await;
        let (code, out, err) = ask(&server, &["watch", "r-1"]).await;
        assert_eq!((code, out.as_str()), (expected, ""), "{end}: {err}");
        assert!(err.contains("2026-01-01T00:00:00Z r-1  running, attempt 1: because\n") && err.contains(text), "{err}");
        assert!(!err.contains('\u{1b}'));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_was_followed_by_a_retry_is_none() {
    let history = format!("{}{}", state(1, "r-1", "failed"), state(2, "r-1", "queued"));
    let server = Server::new(vec![
        Step::Cut(events(&history)),
        json(&run("r-1", "running", "")),
        problem(503, ""),
        Step::Cut(events(&state(3, "r-1", "succeeded"))),
        problem(503, ""),
        json(&run("r-1", "succeeded", "")),
    ])
    .await;
    let (code, out, err) = ask(&server, &["watch", "r-1", "--json"]).await;
    assert_eq!((code, out.lines().count()), (0, 3), "{err}");
    for line in out.lines() {
        let happening: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&happening["run"], &happening["state"]["attempt"]), (&"r-1".into(), &1.into()));
    }
    assert_eq!(err.matches("the service is away").count(), 2, "{err}");
    assert_eq!(err.matches("the service is back").count(), 2, "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_runs_end_as_the_first_that_has_not_succeeded() {
    let server = Server::new(vec![problem(404, "")]).await;
    let (code, _, err) = ask(&server, &["watch", "r-9"]).await;
    assert!(code == 4 && err.starts_with("error: said"), "{err}");
    let many: Vec<String> = (0..65).map(|number| format!("r-{number}")).collect();
    let words: Vec<&str> = std::iter::once("watch").chain(many.iter().map(String::as_str)).collect();
    assert_eq!(ask(&server, &words).await.0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn create_and_watch_are_one_command() {
    let server = Server::new(vec![
        answer(201, "application/json", &run("r-1", "queued", "")),
        Step::Cut(events(&format!("{}{}", state(1, "r-1", "queued"), state(2, "r-1", "failed")))),
        json(&run("r-1", "failed", FAILURE)),
    ])
    .await;
    let file = server.folder.path().join("order.json");
    std::fs::write(&file, ORDER).unwrap();
    let (code, out, err) = ask(&server, &["create", file.to_str().unwrap(), "--watch"]).await;
    assert_eq!((code, out.as_str()), (4, "r-1\n"), "{err}");
    assert!(err.contains("hint: unmount it"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_all_goes_on_until_it_is_interrupted() {
    let server = Server::new(vec![Step::Cut(events(&state(1, "r-7", "failed"))), Step::Stall]).await;
    let child = command(&server, &["watch"]).spawn().unwrap();
    while server.requests().len() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let (code, _, err) = said(child.wait_with_output().await.unwrap());
    assert!(code == 8 && err.contains("r-7  failed") && err.contains("watching; the runs go on"), "{err}");
}
