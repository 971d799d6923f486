//! An agent that plays its part: everything it says to the service is real (it is the agent's own code), and its target is a fake one
//! that a witness watches. What it does with its attempt is drawn by lot, so that a crowd of them does everything.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use e2e::witness::Worker;
use imgstream::source::SourceOptions;
use nix::sys::signal::{Signal, raise};
use protocol::event::Body;
use protocol::spec::KeySource;
use provisioner::control::{Named, Options, Session};
use provisioner::report::Reporter;
use serde_json::json;
use tokio_util::sync::CancellationToken;

struct Args(Vec<String>);

impl Args {
    fn all(&self, name: &str) -> Vec<String> {
        let pairs = self.0.windows(2).filter(|pair| pair[0] == name);
        pairs.map(|pair| pair[1].clone()).collect()
    }

    fn one(&self, name: &str) -> Option<String> {
        self.all(name).into_iter().next()
    }
}

fn lot() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

fn main() -> std::process::ExitCode {
    let args = Args(std::env::args().collect());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(act(&args));
    std::process::ExitCode::from(ended)
}

async fn act(args: &Args) -> u8 {
    let cancel = CancellationToken::new();
    let options = Options {
        url: args.one("--orchestrator").unwrap(),
        ca: args.one("--orchestrator-ca").map(PathBuf::from),
        token: args.one("--token").unwrap().into(),
        ticket_keys: args.all("--ticket-key").into_iter().map(PathBuf::from).collect(),
        run: args.one("--run").map(|run| run.try_into().unwrap()),
        server: args.one("--server").map(|server| server.try_into().unwrap()),
        enrol_within: Duration::from_secs(60),
        source: SourceOptions::default(),
        named: Named::OPTIONS,
    };
    let session = match Session::begin(&options, &|text| eprintln!("{text}"), &cancel).await {
        Ok(session) => session,
        Err(error) => {
            eprintln!("{error}");
            return error.kind().exit_code();
        }
    };
    let spec = session.spec().clone();
    let reporter = Arc::new(Reporter::new(spec.run.clone(), spec.epoch, vec![session.output()]));
    let underway = session.start(&reporter, &cancel);
    let run = spec.run.to_string();
    let witness = PathBuf::from(args.one("--witness").unwrap());
    let worker = Worker::begin(&witness, &spec.target.name(), &run, spec.epoch).expect("a witness");
    let mild = args.0.iter().any(|arg| arg == "--mild") || spec.epoch > 3;
    if spec.epoch == 1 && args.0.iter().any(|arg| arg == "--frozen") {
        raise(Signal::SIGSTOP).unwrap();
    }
    let has_key = spec.key == KeySource::Agent || asked(&session, &worker, &cancel).await;
    let last = if has_key { work(&session, &reporter, &cancel, mild).await } else { failed("source", true) };
    if matches!(last, Body::RunFinished(_)) {
        worker.done(&run).expect("a witness");
    }
    drop(worker);
    reporter.emit(last);
    match underway.finish(Duration::from_secs(60), &|text| eprintln!("{text}"), &cancel).await {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            5
        }
    }
}

/// Whether it has got its key. It asks twice at the same time, and says each key that it gets.
async fn asked(session: &Session, worker: &Worker, cancel: &CancellationToken) -> bool {
    let spec = session.spec();
    let ask = || async {
        match session.mandate().key.ask(cancel).await {
            Ok(key) => {
                let key = std::str::from_utf8(key.passphrase()).expect("a text").to_owned();
                worker.key(spec.run.as_str(), spec.epoch, &key).expect("a witness");
                true
            }
            Err(error) => {
                eprintln!("{error}");
                false
            }
        }
    };
    let (one, other) = tokio::join!(ask(), ask());
    one || other
}

/// What becomes of the attempt.
async fn work(session: &Session, reporter: &Reporter, cancel: &CancellationToken, mild: bool) -> Body {
    let lot = lot();
    let long = Duration::from_millis(lot / 100 % 600);
    reporter.emit(Body::Warning { message: "it begins".into() });
    if cancel.run_until_cancelled(tokio::time::sleep(long)).await.is_none() {
        return failed(if session.lease().is_over() { "target" } else { "cancelled" }, true);
    }
    match lot % 100 {
        _ if mild => finished(),
        0..4 => {
            // Frozen past its lease: whoever wakes it finds it too late.
            raise(Signal::SIGSTOP).unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            failed("target", true)
        }
        4..10 => std::process::abort(),
        10..20 => failed("source", true),
        _ => finished(),
    }
}

fn failed(error: &str, retryable: bool) -> Body {
    serde_json::from_value(json!({
        "kind": "run-failed", "phase": "stream", "error": error, "exit_code": 5, "message": "it was its lot",
        "retryable": retryable, "target": "not-bootable",
    }))
    .unwrap()
}

fn finished() -> Body {
    let digest = format!("sha256:{}", "0".repeat(64));
    serde_json::from_value(json!({
        "kind": "run-finished",
        "image": {"name": "sample", "version": 7, "architecture": "s390x", "digest": digest, "signers": []},
        "target": {"device": "a fake", "size": 1},
        "raw_bytes": 1, "data_bytes": 1, "zero_bytes": 0, "fetched_bytes": 1,
        "proof": {"read-back": {"bytes": 1}}, "engine": "none", "retries": 0, "phases": [],
        "write_seconds": 1.0, "read_back_seconds": 1.0, "total_seconds": 2.0,
    }))
    .unwrap()
}
