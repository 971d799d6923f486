//! The command as others script against it: exit codes, and messages that name the thing and the remedy.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A public key that openssl made; nobody has its secret half any more.
const KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA+WMgWIX48AArgSIidrnLlXc2RW/YR4gH8qE2X3quVtc=\n-----END PUBLIC KEY-----\n";

struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Bench { dir: tempfile::tempdir().unwrap() };
        std::fs::write(bench.path("image.pub"), KEY).unwrap();
        std::fs::write(bench.path("disk"), vec![7; 1 << 16]).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A spec that is in order, but for an image that is not there.
    fn spec(&self) -> serde_json::Value {
        serde_json::json!({
            "run": "r-1",
            "image": { "name": "debian-13", "sources": [self.path("images")], "trust": [self.path("image.pub")] },
            "target": { "device": self.path("disk") }
        })
    }

    fn run_text(&self, spec: &str, more: &[&str]) -> Output {
        let path = self.path("run.json");
        std::fs::write(&path, spec).unwrap();
        run(&path, more)
    }

    fn run(&self, spec: &serde_json::Value) -> Output {
        self.run_text(&spec.to_string(), &[])
    }
}

fn run(spec: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_z-provisioner"));
    command.arg("run").arg("--spec").arg(spec).args(more).env_remove("RUST_LOG").output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The exit code is `code`; the message names all of `named`, and a hint follows.
#[track_caller]
fn assert_refused(output: &Output, code: i32, named: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    let error = text.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("no error in {text}"));
    for name in named {
        assert!(error.contains(name), "{error:?} does not name {name:?}");
    }
    assert!(text.contains("\nhint: "), "no remedy in {text}");
}

#[test]
fn wrong_arguments_are_usage() {
    let call = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_z-provisioner")).args(args).output().unwrap();
    assert_eq!(call(&[]).status.code(), Some(2));
    assert_eq!(call(&["run"]).status.code(), Some(2));
    assert!(stderr(&call(&["run"])).contains("--spec"));
    assert_eq!(call(&["run", "--spec", "x", "--fast"]).status.code(), Some(2));
}

#[test]
fn help_names_every_exit_code() {
    let help = Command::new(env!("CARGO_BIN_EXE_z-provisioner")).args(["run", "--help"]).output().unwrap();
    assert_eq!(help.status.code(), Some(0));
    let text = String::from_utf8(help.stdout).unwrap();
    for line in ["0  done", "2  usage", "3  image", "4  target", "5  source", "6  device", "7  proof", "8  cancelled"] {
        assert!(text.contains(line), "{line:?} is missing in\n{text}");
    }
}

#[test]
fn a_spec_that_is_not_there_or_not_one_is_usage() {
    let bench = Bench::new();
    assert_refused(&run(&bench.path("none.json"), &[]), 2, &["none.json", "No such file"]);
    assert_refused(&bench.run_text("{\"run\": ", &[]), 2, &["run.json", "not a run spec"]);
    assert_refused(&bench.run_text("", &["--json"]), 2, &["run.json"]);
    assert_refused(&bench.run_text(&" ".repeat(2 << 20), &[]), 2, &["run.json", "more than"]);
}

#[test]
fn a_key_that_is_unknown_or_wrong_is_named() {
    let bench = Bench::new();
    let mut spec = bench.spec();
    spec["target"]["wiped"] = true.into();
    assert_refused(&bench.run(&spec), 2, &["run.json", "unknown field `wiped`"]);
    let mut spec = bench.spec();
    spec["run"] = "a b".into();
    assert_refused(&bench.run(&spec), 2, &["run id"]);
    let mut spec = bench.spec();
    spec["image"]["sources"] = serde_json::json!(["ftp://x/"]);
    assert_refused(&bench.run(&spec), 2, &["image.sources", "ftp://"]);
}

#[test]
fn files_that_the_spec_or_the_command_names_must_be_there_and_be_what_they_should() {
    let bench = Bench::new();
    let mut spec = bench.spec();
    spec["image"]["trust"] = serde_json::json!([bench.path("none.pub")]);
    assert_refused(&bench.run(&spec), 2, &["none.pub", "No such file"]);
    spec["image"]["trust"] = serde_json::json!([bench.path("disk")]);
    assert_refused(&bench.run(&spec), 2, &["image.trust", "disk"]);
    let spec = bench.spec().to_string();
    assert_refused(&bench.run_text(&spec, &["--ca", "/none/ca.pem"]), 2, &["--ca", "/none/ca.pem"]);
    assert_refused(&bench.run_text(&spec, &["--registry-auth", "/none/auth"]), 2, &["--registry-auth", "/none/auth"]);
    let twice = [bench.path("image.pub"), bench.path("image.pub")];
    let mut spec = bench.spec();
    spec["image"]["trust"] = serde_json::json!(twice);
    spec["image"]["threshold"] = 2.into();
    assert_refused(&bench.run(&spec), 2, &["image.threshold", "distinct"]);
}

/// The image is opened before the target, so this is a source's failure whatever the target is; and nothing is written.
#[test]
fn an_image_that_cannot_be_had_leaves_the_target_alone() {
    let bench = Bench::new();
    let output = bench.run(&bench.spec());
    assert_refused(&output, 5, &["images"]);
    assert!(stderr(&output).contains("target: not touched"));
    assert_eq!(std::fs::read(bench.path("disk")).unwrap(), vec![7; 1 << 16]);
    let mut spec = bench.spec();
    spec["target"]["device"] = "/dev/none".into();
    assert_refused(&bench.run(&spec), 5, &["images"]);
}

#[test]
fn json_tells_the_same_in_numbered_events_on_stdout() {
    let bench = Bench::new();
    let output = bench.run_text(&bench.spec().to_string(), &["--json"]);
    let events: Vec<protocol::Event> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert!(events.iter().enumerate().all(|(place, event)| event.index == place as u64 && event.run.as_str() == "r-1"));
    assert!(matches!(events[0].event, protocol::Body::RunStarted(_)));
    let protocol::Body::RunFailed(failure) = &events.last().unwrap().event else { panic!("{events:?}") };
    assert_eq!((failure.exit_code, failure.error.name(), failure.target.name()), (5, "source", "untouched"));
    assert!(stderr(&output).contains(&format!("error: {}", failure.message)));
    assert!(!stderr(&output).contains("caused by"));
}
