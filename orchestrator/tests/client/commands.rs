use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

use crate::exchanges::ORDER;
use crate::server::{Server, Step, answer, json, problem, run};

/// The command, told by its data folder and the environment where the service is.
pub fn command(server: &Server, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_z-orchestrator"));
    command.arg("run").args(words).arg("--data").arg(server.data());
    command.env("Z_ORCHESTRATOR_URL", &server.url).env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

pub async fn ask(server: &Server, words: &[&str]) -> (i32, String, String) {
    let output = tokio::time::timeout(Duration::from_secs(60), command(server, words).output()).await.unwrap();
    said(output.unwrap())
}

pub fn said(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn order_file(server: &Server) -> String {
    let file = server.folder.path().join("order.json");
    std::fs::write(&file, ORDER).unwrap();
    file.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn create_prints_the_name_and_nothing_else() {
    let created = || answer(201, "application/json", &run("r-1", "queued", ""));
    let server = Server::new(vec![Step::Cut(String::new()), created(), created(), created()]).await;
    let file = order_file(&server);
    let (code, out, err) = ask(&server, &["create", &file, "--priority", "5", "--server", "lpar-8"]).await;
    assert_eq!((code, out.as_str()), (0, "r-1\n"), "{err}");
    assert!(err.contains("asking again in"), "{err}");
    let (code, out, _) = ask(&server, &["create", &file, "--key", "mine", "--json"]).await;
    assert_eq!((code, out.lines().count()), (0, 1));
    assert!(out.starts_with(r#"{"run":"r-1","#), "{out}");
    let requests = server.requests();
    let key = |request: &String| request.lines().find(|line| line.starts_with("idempotency-key: ")).unwrap().to_owned();
    assert_eq!(key(&requests[0]), key(&requests[1]));
    assert!(key(&requests[0]).len() == "idempotency-key: ".len() + 36 && key(&requests[2]).ends_with(": mine"));
    assert!(requests[1].contains(r#""priority":5"#) && requests[1].contains(r#""server":"lpar-8""#));
    let mut from_stdin = command(&server, &["create", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut from_stdin.stdin.take().unwrap(), ORDER.as_bytes()).await.unwrap();
    let (code, out, err) = said(from_stdin.wait_with_output().await.unwrap());
    assert_eq!((code, out.as_str()), (0, "r-1\n"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_interrupts_a_creation_is_told_how_to_ask_again() {
    let server = Server::new(vec![Step::Stall]).await;
    let child = command(&server, &["create", &order_file(&server)]).spawn().unwrap();
    while server.requests().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let (code, out, err) = said(child.wait_with_output().await.unwrap());
    assert_eq!((code, out.as_str()), (8, ""));
    let requests = server.requests();
    let key = requests[0].lines().find_map(|line| line.strip_prefix("idempotency-key: ")).unwrap();
    assert!(err.contains(&format!("ask again with --key {key}")), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_say_whose_problem_it_is() {
    let server = Server::new(vec![problem(404, r#","hint":"see\u001b[2J the list""#), problem(500, "")]).await;
    let (code, out, err) = ask(&server, &["show", "r-1"]).await;
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (4, "", "error: said\u{fffd}[2J so\nhint: see\u{fffd}[2J the list\n")
    );
    assert_eq!(ask(&server, &["show", "r-1"]).await.0, 5);
    let (code, _, err) = ask(&server, &["show", "r-1"]).await;
    assert!(code == 5 && err.contains("connecting to") && err.contains("hint: is the service running"), "{err}");
    for words in [
        &["show", "two words"][..],
        &["create", "/no/such/file"],
        &["list", "--state", "odd"],
        &["token", "r-1"],
        &["show", "r-1", "--url", "http://plain"],
        &["show", "r-1", "--ca", "/no/such/file"],
        &["show", "r-1", "--ca", "/dev/null"],
        &["show", "r-1", "--operator-token", "/dev/null"],
        &["show", "r-1", "--operator-token", "/dev/zero"],
    ] {
        let (code, _, err) = ask(&server, words).await;
        assert_eq!(code, 2, "{words:?}: {err}");
    }
    assert!(!ask(&server, &["show", "r-1", "-v"]).await.2.contains(server.token.reveal()));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_a_table_or_json_and_say_when_there_is_more() {
    let page = |name: &str, next: &str| json(&format!(r#"{{"runs":[{}]{next}}}"#, run(name, "running", "")));
    let first = || page("r-2", r#","next":"2""#);
    let server = Server::new(vec![first(), first(), page("r-1", ""), first(), first()]).await;
    let (code, out, err) = ask(&server, &["list"]).await;
    assert_eq!((code, out.lines().count(), err.as_str()), (0, 2, "there are older ones: --all shows them\n"));
    assert!(
        out.starts_with(
            "RUN  STATE    SERVER  IMAGE      TARGET     ATTEMPT  PROGRESS  WAITS-FOR  AGE\nr-2  running  lpar-7"
        ),
        "{out}"
    );
    let (code, out, err) = ask(&server, &["list", "--all", "--json", "--state", "running,lost"]).await;
    assert_eq!((code, out.lines().count(), err.as_str()), (0, 2, ""));
    assert!(server.lines()[2].ends_with("limit=200&state=running%2Clost&page=2 HTTP/1.1"));
    assert_eq!(ask(&server, &["list", "--all"]).await.0, 5, "a list that has no end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_refused_does_not_keep_the_others() {
    let one = || json(&run("r-1", "running", r#","cancel":true"#));
    let server = Server::new(vec![one(), problem(409, ""), one(), problem(404, ""), one()]).await;
    let (code, _, err) = ask(&server, &["cancel", "r-1", "r-2", "r-3", "--reason", "wrong image"]).await;
    assert!(code == 4 && err.contains("error: run r-2: said"), "{err}");
    assert!(err.contains("r-1 is running, and ends as soon as its agent has stopped"), "{err}");
    assert!(server.requests()[2].ends_with(r#"{"reason":"wrong image"}"#));
    assert_eq!(ask(&server, &["retry", "r-1", "r-2"]).await.0, 4);
    assert_eq!(server.lines()[4], "POST /v1/runs/r-2/retry HTTP/1.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_vouches_for_a_death_by_accident() {
    let lost = || json(&run("r-1", "lost", r#","attempts":[{"attempt":2,"started":"A"}]"#));
    let server = Server::new(vec![lost(), lost(), lost(), json(&run("r-1", "queued", ""))]).await;
    let (code, _, err) = ask(&server, &["confirm-death", "r-1", "--attempt", "2"]).await;
    assert!(code == 2 && err.contains("powered off, or cut off from LUN 36005") && err.contains("--yes"), "{err}");
    assert_eq!(ask(&server, &["confirm-death", "r-1", "--attempt", "1", "--yes"]).await.0, 4);
    let (code, _, err) = ask(&server, &["confirm-death", "r-1", "--attempt", "2", "--yes"]).await;
    assert!(code == 0 && err.contains("r-1 is queued"), "{err}");
    let last = server.requests().pop().unwrap();
    assert!(last.starts_with("POST /v1/runs/r-1/confirm-death ") && last.ends_with(r#"{"attempt":2}"#));
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_goes_into_a_file_of_its_own_or_where_it_was_asked_for() {
    let secret = "S".repeat(43);
    let token = || json(&format!(r#"{{"run":"r-1","attempt":3,"token":"{secret}"}}"#));
    let server = Server::new(vec![token(), problem(409, ""), token()]).await;
    let file = server.folder.path().join("token");
    let words = ["token", "r-1", "--out", file.to_str().unwrap()];
    let (code, out, err) = ask(&server, &words).await;
    assert!(code == 0 && out.is_empty() && err.contains("attempt 3") && !err.contains(&secret), "{err}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{secret}\n"));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let (code, _, err) = ask(&server, &words).await;
    assert!(code == 2 && err.contains("hint: a token is never written over anything"), "{err}");
    assert_eq!(server.requests().len(), 1, "a token that nobody gets voids the one before");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(ask(&server, &words).await.0, 4);
    assert!(!file.exists());
    let (code, out, _) = ask(&server, &["token", "r-1", "--out", "-"]).await;
    assert_eq!((code, out), (0, format!("{secret}\n")));
}

#[tokio::test]
async fn shells_complete_it() {
    let program = env!("CARGO_BIN_EXE_z-orchestrator");
    for shell in ["bash", "zsh", "fish"] {
        let output = Command::new(program).args(["completions", shell]).output().await.unwrap();
        assert!(output.status.success() && String::from_utf8(output.stdout).unwrap().contains("confirm-death"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_a_person_is_asked_and_only_yes_is_yes() {
    let lost = || json(&run("r-1", "lost", r#","attempts":[{"attempt":2,"started":"A"}]"#));
    let server = Server::new(vec![lost(), lost(), json(&run("r-1", "queued", ""))]).await;
    for (answer, expected, asked) in [("y\n", 8, 1), ("yes\n", 0, 3)] {
        let terminal = nix::pty::openpty(None, None).unwrap();
        nix::unistd::write(&terminal.master, answer.as_bytes()).unwrap();
        let mut command = command(&server, &["confirm-death", "r-1", "--attempt", "2"]);
        let output = command.stdin(terminal.slave).output();
        let (code, _, err) = said(tokio::time::timeout(Duration::from_secs(20), output).await.unwrap().unwrap());
        assert!(code == expected && err.contains("Type `yes` to vouch for it: "), "{answer:?}: {code} {err}");
        assert_eq!(server.requests().len(), asked);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_as_wide_as_the_terminal() {
    let long = run("r-1", "running", "")
        .replace("LUN 36005", "LUN 36005076307ffd123456789abcdef")
        .replace("lpar-7", "lpar-7.z.example.com");
    let page = format!(r#"{{"runs":[{long}]}}"#);
    let server = Server::new(vec![json(&page)]).await;
    let size = nix::pty::Winsize { ws_row: 24, ws_col: 90, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = nix::pty::openpty(Some(&size), None).unwrap();
    let mut command = command(&server, &["list"]);
    let status = command.stdout(terminal.slave.try_clone().unwrap()).status();
    assert!(tokio::time::timeout(Duration::from_secs(20), status).await.unwrap().unwrap().success());
    let mut bytes = [0; 4096];
    let count = nix::unistd::read(&terminal.master, &mut bytes).unwrap();
    let text = String::from_utf8(bytes[..count].to_vec()).unwrap();
    assert!(text.lines().all(|line| line.chars().count() <= 90) && text.contains("LUN 36005"), "{text}");
    assert!(text.contains('…'), "{text}");
}
