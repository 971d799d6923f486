//! The launcher of processes, with real ones.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use orchestrator::launch::{Death, Ending, Launched, Launcher, Order, Process, ProcessSettings, Says};
use protocol::{Label, Token};
use tempfile::TempDir;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

/// An agent that is a shell script, in a folder of its own.
fn launcher(folder: &TempDir, script: &str) -> Process {
    let agent = folder.path().join("agent");
    std::fs::write(&agent, format!("#!/bin/sh\ncd {}\n{script}\n", folder.path().display())).unwrap();
    std::fs::set_permissions(&agent, std::fs::Permissions::from_mode(0o755)).unwrap();
    Process::new(ProcessSettings {
        command: Ok((agent, vec!["--some".into()])),
        trust: None,
        logs: folder.path().into(),
    })
    .unwrap()
}

fn order() -> Order {
    Order {
        run: "r-1".to_owned().try_into().unwrap(),
        attempt: 3,
        server: "s1".to_owned().try_into().unwrap(),
        fabric: Label::default(),
        is_local: true,
    }
}

fn ending(handle: &str) -> Ending {
    Ending { run: order().run, attempt: 3, handle: Some(handle.to_owned()), may_write: true }
}

/// For what is said of no process.
fn nobody() -> Says {
    Arc::new(|_| {})
}

fn token() -> Token {
    "t".repeat(43).try_into().unwrap()
}

async fn launch(launcher: &Process) -> Launched {
    launcher.launch(order(), nobody()).await.unwrap().unwrap()
}

async fn file(path: &Path) -> String {
    let wait = async {
        loop {
            match std::fs::read_to_string(path) {
                Ok(text) if !text.is_empty() => return text,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(SOON, wait).await.expect("a file")
}

fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

#[tokio::test]
async fn an_agent_gets_its_orders_and_its_token_when_it_is_let_go() {
    let folder = TempDir::new().unwrap();
    let launcher = launcher(&folder, "echo \"$*\" >arguments; cat /dev/stdin >token; echo said; exit 5");
    let launched = launch(&launcher).await;
    let arguments = file(&folder.path().join("arguments")).await;
    assert_eq!(arguments.trim(), "run --some --run r-1 --server s1 --token /dev/stdin");
    assert!(!folder.path().join("token").exists() || std::fs::read(folder.path().join("token")).unwrap().is_empty());
    (launched.release)(token()).await;
    let death = timeout(SOON, launcher.watch(&launched.handle, nobody())).await.unwrap();
    assert_eq!(
        death,
        Death { how: "its agent ended with exit code 5 and did not say why; its log does".into(), retryable: true }
    );
    assert_eq!(std::fs::read_to_string(folder.path().join("token")).unwrap(), "t".repeat(43));
    let log = folder.path().join("r-1.3.log");
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "said\n");
    assert_eq!(std::fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn one_that_is_never_let_go_ends_by_itself() {
    let folder = TempDir::new().unwrap();
    let launcher = launcher(&folder, "cat >token; echo over >over");
    let Launched { handle, release } = launch(&launcher).await;
    drop(release);
    assert!(timeout(SOON, launcher.watch(&handle, nobody())).await.unwrap().how.contains("ended well"));
    assert_eq!(file(&folder.path().join("over")).await, "over\n");
    // It reached its goal, as far as anybody can see: its log is not needed.
    assert!(!folder.path().join("r-1.3.log").exists());
}

#[tokio::test]
async fn what_is_refused_is_refused_again() {
    let folder = TempDir::new().unwrap();
    for (code, retryable) in [(2, false), (3, false), (4, true), (6, true), (1, true)] {
        let launcher = launcher(&folder, &format!("exit {code}"));
        let launched = launch(&launcher).await;
        assert_eq!(
            timeout(SOON, launcher.watch(&launched.handle, nobody())).await.unwrap().retryable,
            retryable,
            "{code}"
        );
    }
    // Without an agent nothing is started, and what runs is seen all the same.
    let command = Err("there is no program z-provisioner".into());
    let launcher = Process::new(ProcessSettings { command, trust: None, logs: folder.path().into() }).unwrap();
    let failed = launcher.launch(order(), nobody()).await.err().unwrap();
    assert!(!failed.retryable && failed.reason.contains("no program"), "{failed:?}");
}

#[tokio::test]
async fn keys_that_lie_in_the_folder_are_trusted_and_without_one_nothing_is_started() {
    let folder = TempDir::new().unwrap();
    let trust = folder.path().join("trust");
    std::fs::create_dir(&trust).unwrap();
    let agent = folder.path().join("agent");
    std::fs::write(&agent, format!("#!/bin/sh\necho \"$*\" >{}/arguments\n", folder.path().display())).unwrap();
    std::fs::set_permissions(&agent, std::fs::Permissions::from_mode(0o755)).unwrap();
    let settings =
        ProcessSettings { command: Ok((agent, vec![])), trust: Some(trust.clone()), logs: folder.path().into() };
    let launcher = Process::new(settings).unwrap();
    let failed = launcher.launch(order(), nobody()).await.err().unwrap();
    assert!(!failed.retryable && failed.reason.contains("trust"), "{failed:?}");
    for key in ["b.pub", "a.pub"] {
        std::fs::write(trust.join(key), "").unwrap();
    }
    launch(&launcher).await;
    let arguments = file(&folder.path().join("arguments")).await;
    let trust = trust.display();
    assert!(arguments.starts_with(&format!("run --trust {trust}/a.pub --trust {trust}/b.pub --run")), "{arguments}");
}

#[tokio::test]
async fn it_is_killed_with_all_that_it_has_started_also_when_frozen() {
    let folder = TempDir::new().unwrap();
    let launcher = launcher(&folder, "set -m; sleep 600 & echo $! >child; kill -STOP $$; sleep 600");
    let launched = launch(&launcher).await;
    let child = file(&folder.path().join("child")).await;
    assert!(lives(&child));
    let (watched, ended) = timeout(SOON, async {
        tokio::join!(launcher.watch(&launched.handle, nobody()), launcher.end(ending(&launched.handle), nobody()))
    })
    .await
    .unwrap();
    assert_eq!(watched.how, "its agent was killed by signal 9");
    assert!(ended.retryable && !lives(&child));
    // Again it is dead at once.
    timeout(SOON, launcher.end(ending(&launched.handle), nobody())).await.unwrap();
}

#[tokio::test]
async fn a_later_service_watches_and_kills_what_it_has_not_started() {
    let folder = TempDir::new().unwrap();
    let first = launcher(&folder, "trap '' HUP INT TERM; cat >token; sleep 600");
    let launched = launch(&first).await;
    (launched.release)(token()).await;
    let elsewhere = TempDir::new().unwrap();
    let later = launcher(&elsewhere, "");
    let watch = later.watch(&launched.handle, nobody());
    assert!(timeout(Duration::from_millis(500), watch).await.is_err(), "it lives");
    let (watched, _) = timeout(SOON, async {
        tokio::join!(later.watch(&launched.handle, nobody()), later.end(ending(&launched.handle), nobody()))
    })
    .await
    .unwrap();
    assert_eq!(watched.how, "its process has ended");
}

#[tokio::test]
async fn a_handle_of_another_boot_or_another_process_is_dead_and_nobody_is_killed() {
    let folder = TempDir::new().unwrap();
    let launcher = launcher(&folder, "cat >token; sleep 600");
    let launched = launch(&launcher).await;
    let parts: Vec<&str> = launched.handle.split(':').collect();
    let [pid, started, boot, place] = parts[..] else { panic!("{}", launched.handle) };
    let later = started.parse::<u64>().unwrap() + 1;
    for dead in [format!("{pid}:{started}:0123456789abcdef:{place}"), format!("{pid}:{later}:{boot}:{place}")] {
        timeout(SOON, launcher.watch(&dead, nobody())).await.expect("dead");
        timeout(SOON, launcher.end(ending(&dead), nobody())).await.expect("dead");
    }
    // Of another machine, or none at all: whether it is dead is not known here.
    for unknown in
        [format!("{pid}:{started}:{boot}:another-1"), format!("{pid}:{started}:0123:another-1"), "nonsense".into()]
    {
        let both = async {
            tokio::select! { _ = launcher.watch(&unknown, nobody()) => (), _ = launcher.end(ending(&unknown), nobody()) => () }
        };
        assert!(timeout(Duration::from_millis(300), both).await.is_err(), "{unknown}");
    }
    assert!(lives(pid));
    timeout(SOON, launcher.end(ending(&launched.handle), nobody())).await.unwrap();
}

#[tokio::test]
async fn what_agents_have_left_is_known_by_their_runs_and_removed_with_them() {
    let folder = TempDir::new().unwrap();
    let launcher = launcher(&folder, "true");
    let now = SystemTime::now();
    let log = |name: &str, days: u64| {
        let path = folder.path().join(name);
        let file = std::fs::File::create(&path).unwrap();
        file.set_modified(now - Duration::from_secs(days * 24 * 3600)).unwrap();
        path
    };
    let (one, two) = (log("r-1.1.log", 9), log("r-1.2.log", 8));
    let (other, recent) = (log("r-2.1.log", 9), log("r-2.2.log", 1));
    let nobodys = ["notes", "r-3.log", "r-3.x.log", "..1.log", ".log"].map(|name| log(name, 9));
    let old = now - Duration::from_secs(7 * 24 * 3600);
    assert_eq!(launcher.kept_since_before(old), [order().run], "the other has written since");
    launcher.forget(&[order().run].into());
    assert!(!one.exists() && !two.exists() && other.exists() && recent.exists());
    assert!(nobodys.iter().all(|file| file.exists()));
    assert_eq!(launcher.kept_since_before(old), []);
}
