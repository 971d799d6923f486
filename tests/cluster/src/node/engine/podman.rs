//! Real containers. They go on when the agent does not, and end when the process that owns them does.

use std::collections::HashMap;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{Mount, Order, State};
use crate::podman::Podman;
use crate::process::leash;

/// The containers of one storage. All are killed when the last of its clones is dropped, and when this process ends.
#[derive(Debug, Clone)]
pub struct Containers {
    podman: Podman,
    /// Of containers that ran at the last look: asking podman takes a tenth of a second of a processor.
    running: Arc<Mutex<HashMap<String, First>>>,
    _reaper: Arc<Reaper>,
}

/// A container's first process.
#[derive(Debug, Clone)]
struct First {
    pid: i64,
    /// When it was started, in the kernel's time: another one may have its number later.
    birth: String,
    since: SystemTime,
}

impl Containers {
    /// Of a storage in which nothing runs yet.
    ///
    /// # Panics
    /// When podman is missing.
    pub fn new(podman: Podman) -> Self {
        let reaper = Reaper::start(&podman).unwrap_or_else(|error| panic!("starting a shell: {error}"));
        Containers { podman, running: Arc::default(), _reaper: Arc::new(reaper) }
    }

    async fn run(&self, words: &[&str]) -> io::Result<std::process::Output> {
        // On the leash, so that none starts a container when the reaper has been there already.
        let podman = self.podman.command();
        let mut leashed = tokio::process::Command::from(leash(Path::new(podman.get_program())));
        leashed.args(podman.get_args());
        leashed.args(words).stdin(Stdio::null()).kill_on_drop(true).output().await
    }

    pub(super) async fn has(&self, image: &str) -> bool {
        self.run(&["image", "exists", image]).await.is_ok_and(|done| done.status.success())
    }

    pub(super) async fn start(&self, order: &Order) -> Result<(), String> {
        let words = arguments(order);
        self.remove(&order.name).await;
        let done = self.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let done = done.map_err(|error| format!("podman: {error}"))?;
        let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        if done.status.success() { Ok(()) } else { Err(said) }
    }

    pub(super) async fn state(&self, name: &str) -> State {
        let known = self.running.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(first) = known
            && born(first.pid) == Some(first.birth)
        {
            return State::Running { since: first.since };
        }
        let (state, pid) = self.ask(name).await;
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match (&state, born(pid)) {
            (State::Running { since }, Some(birth)) => {
                running.insert(name.to_owned(), First { pid, birth, since: *since })
            }
            _ => running.remove(name),
        };
        state
    }

    /// How podman says it is, and its first process.
    async fn ask(&self, name: &str) -> (State, i64) {
        let found = self.run(&["container", "inspect", name]).await;
        let found = found.ok().and_then(|done| serde_json::from_slice::<Value>(&done.stdout).ok());
        let Some(state) = found.as_ref().and_then(|found| found.get(0)).map(|found| &found["State"]) else {
            return (State::Absent, 0);
        };
        let since = moment(&state["StartedAt"]);
        let shown = match state["Status"].as_str() {
            Some("running" | "stopping" | "paused") => State::Running { since },
            Some("exited" | "stopped") => State::Ended {
                since,
                at: moment(&state["FinishedAt"]),
                code: state["ExitCode"].as_i64().and_then(|code| i32::try_from(code).ok()).unwrap_or(255),
                starved: state["OOMKilled"] == true,
            },
            // One that was made and never started.
            _ => State::Absent,
        };
        (shown, state["Pid"].as_i64().unwrap_or(0))
    }

    pub(super) async fn signal(&self, name: &str, signal: Signal) {
        let _ = self.run(&["kill", "--signal", signal.as_str(), name]).await;
    }

    pub(super) async fn remove(&self, name: &str) {
        let _ = self.run(&["rm", "--force", "--ignore", "--time", "0", name]).await;
    }

    pub(super) fn kill_all(&self) {
        let _ = self.podman.command().args(["kill", "--all", "--signal", "KILL"]).output();
    }

    pub(super) fn said(&self, name: &str) -> String {
        let done = self.podman.command().args(["logs", name]).output();
        done.map(|done| String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned()).unwrap_or_default()
    }
}

/// Podman's command line.
fn arguments(order: &Order) -> Vec<String> {
    // There is no network between pods here: all have the machine's.
    let mut words: Vec<String> =
        ["run", "--detach", "--pull", "never", "--network", "host", "--log-driver", "k8s-file"]
            .map(String::from)
            .into();
    // Those of a machine on which root may not raise its own.
    words.extend(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"].map(String::from));
    let mut say = |name: &str, value: String| words.push(format!("--{name}={value}"));
    say("name", order.name.clone());
    order.environment.iter().for_each(|(name, value)| say("env", format!("{name}={value}")));
    order.hosts.iter().for_each(|(name, address)| say("add-host", format!("{name}:{address}")));
    order.devices.iter().for_each(|device| say("device", device.display().to_string()));
    order.groups.iter().for_each(|group| say("group-add", group.to_string()));
    if let Some((user, group)) = order.user {
        say("user", group.map_or_else(|| user.to_string(), |group| format!("{user}:{group}")));
    }
    if order.host_ipc {
        say("ipc", "host".into());
    }
    if order.read_only {
        say("read-only", "true".into());
        say("read-only-tmpfs", "false".into());
    }
    if order.no_new_privileges {
        say("security-opt", "no-new-privileges".into());
    }
    if order.privileged {
        say("privileged", "true".into());
    } else {
        order.capabilities[0].iter().for_each(|name| say("cap-drop", name.clone()));
        // Whoever is not root gets none of them from Kubernetes, which knows no ambient ones; podman would give them.
        if order.user.is_none_or(|(user, _)| user == 0) {
            order.capabilities[1].iter().for_each(|name| say("cap-add", name.clone()));
        }
        order.seccomp.iter().for_each(|profile| say("security-opt", format!("seccomp={profile}")));
    }
    order.memory.iter().for_each(|bytes| say("memory", bytes.clone()));
    order.folder.iter().for_each(|folder| say("workdir", folder.clone()));
    for Mount { source, target, read_only } in &order.mounts {
        let mode = if *read_only { "ro" } else { "rw" };
        match source {
            Ok(folder) => say("volume", format!("{}:{target}:{mode},rslave", folder.display())),
            Err(size) => {
                let size = size.as_ref().map(|size| format!(",size={size}")).unwrap_or_default();
                say("tmpfs", format!("{target}:{mode},mode=1777{size}"));
            }
        }
    }
    let (mut command, mut rest) = (order.command.clone(), Vec::new());
    if !command.is_empty() {
        rest = command.split_off(1);
        say("entrypoint", Value::from(command).to_string());
    }
    words.push(order.image.clone());
    words.extend(rest);
    words.extend(order.arguments.clone());
    words
}

/// When a process was started, in the kernel's time.
fn born(pid: i64) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program, in parentheses, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let dead = fields.next() == Some("Z");
    fields.nth(18).filter(|_| !dead).map(str::to_owned)
}

/// `2026-01-02T03:04:05.678901234+01:00`
fn moment(text: &Value) -> SystemTime {
    let parsed = text.as_str().and_then(|text| text.parse::<k8s_openapi::jiff::Timestamp>().ok());
    parsed.map_or_else(SystemTime::now, SystemTime::from)
}

/// A shell that waits until nobody holds the other end of its pipe any more, which the kernel sees to, and then ends the containers:
/// their own parents are not ours, so no signal at our death would reach them.
#[derive(Debug)]
struct Reaper {
    shell: Child,
}

impl Reaper {
    fn start(podman: &Podman) -> io::Result<Self> {
        let command = podman.command();
        let mut shell = Command::new("sh");
        // In a group of its own, and deaf: what is meant for the whole group of a test, or for all that it has started, must not reach it.
        shell.args(["-c", "trap '' TERM; read _; exec \"$@\" rm --all --force --time 0", "sh"]).process_group(0);
        shell.arg(command.get_program()).args(command.get_args());
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Reaper { shell: shell.spawn()? })
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
