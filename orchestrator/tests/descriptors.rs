//! A server whose machine has no descriptor left for another connection. A test program of its own: the limit is the process's.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use nix::sys::resource::{Resource, UsageWho, getrusage, setrlimit};
use orchestrator::api::{Limits, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

fn seconds_of_processor() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    [usage.user_time(), usage.system_time()].iter().map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6).sum()
}

#[tokio::test]
async fn a_server_without_descriptors_waits_quietly_and_goes_on_when_there_are_some() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let drain = CancellationToken::new();
    let app = Router::new().route("/", get(async || "here"));
    let serving = tokio::spawn(serve(vec![listener], None, app, Limits::default(), drain.clone(), Default::default()));

    setrlimit(Resource::RLIMIT_NOFILE, 100, 100).unwrap();
    let mut held: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).take(200).collect();
    assert!(held.len() < 100, "the limit must be reached");
    // One for this end of the connection; the other end gets none.
    held.pop();
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let before = seconds_of_processor();
    let mut answer = String::new();
    assert!(
        timeout(Duration::from_secs(1), client.read_to_string(&mut answer)).await.is_err(),
        "nobody can answer yet"
    );
    let burnt = seconds_of_processor() - before;
    assert!(burnt < 0.2, "{burnt} s of processor in a second of waiting");

    held.clear();
    timeout(Duration::from_secs(5), client.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.ends_with("here"), "{answer}");
    sleep(Duration::from_millis(10)).await;
    drain.cancel();
    timeout(Duration::from_secs(5), serving).await.unwrap().unwrap();
}
