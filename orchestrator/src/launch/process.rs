//! The launcher that starts agents as processes of this machine, each in a process group of its own, so that they outlive the service
//! and can be killed with all that they have started.
//!
//! A handle is `PID:START:BOOT`: the process, the clock tick in which it was started, and which boot of the kernel that was. No other
//! process has ever the same.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use protocol::Token;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use super::{Death, Launched, Launcher, NotLaunched, Order};

/// How often it is looked whether a process that is not our child is still there.
const LOOK: Duration = Duration::from_millis(100);

/// How agents are started.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The agent.
    pub agent: PathBuf,
    /// What each gets on its command line after `run`: where the service is, and what to trust.
    pub arguments: Vec<String>,
    /// Where each leaves what it says, in a file of its own. It is removed when the agent has reached its goal.
    pub logs: PathBuf,
}

/// Starts agents on this machine.
#[derive(Debug)]
pub struct Process {
    settings: Settings,
    boot: String,
    /// How our own children ended, until somebody asks: a zombie is ours to bury.
    children: Mutex<HashMap<String, (Child, PathBuf)>>,
}

impl Process {
    /// With these settings.
    ///
    /// # Errors
    /// When the kernel does not say which boot this is.
    pub fn new(settings: Settings) -> std::io::Result<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let boot = boot.trim().chars().filter(|c| *c != '-').take(16).collect();
        Ok(Self { settings, boot, children: Mutex::default() })
    }

    fn start(&self, order: &Order) -> std::io::Result<Launched> {
        let path = self.log(order);
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        let mut command = Command::new(&self.settings.agent);
        command.arg("run").args(&self.settings.arguments);
        command.args(["--run", order.run.as_str(), "--server", order.server.as_str(), "--token", "/dev/stdin"]);
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        // It neither hears our terminal's signals nor dies with us.
        command.process_group(0).kill_on_drop(false);
        let mut child = command.spawn()?;
        let pid = child.id().ok_or_else(|| std::io::Error::other("it has no process id"))?;
        let started = started(pid).ok_or_else(|| std::io::Error::other("it is gone already"))?;
        let handle = format!("{pid}:{started}:{}", self.boot);
        let stdin = child.stdin.take();
        self.children.lock().unwrap_or_else(PoisonError::into_inner).insert(handle.clone(), (child, path));
        let release = move |token: Token| -> BoxFuture<'static, ()> {
            Box::pin(async move {
                let Some(mut stdin) = stdin else { return };
                // One that is dead already is found dead.
                let _ = stdin.write_all(token.reveal().as_bytes()).await;
                let _ = stdin.shutdown().await;
            })
        };
        Ok(Launched { handle, release: Box::new(release) })
    }

    fn log(&self, order: &Order) -> PathBuf {
        self.settings.logs.join(format!("{}.{}.log", order.run, order.attempt))
    }

    /// Waits until it is dead, and says how it ended where it was our child.
    async fn buried(&self, handle: &str) -> Death {
        let child = self.children.lock().unwrap_or_else(PoisonError::into_inner).remove(handle);
        let ended = match child {
            Some((mut child, log)) => {
                let ended = child.wait().await.ok();
                if ended.is_some_and(|ended| ended.success()) {
                    let _ = std::fs::remove_file(log);
                }
                ended
            }
            None => None,
        };
        while self.lives(handle) {
            tokio::time::sleep(LOOK).await;
        }
        match ended {
            Some(status) => Death { how: how(status), retryable: is_retryable(status.code()) },
            None => Death { how: "its process has ended".into(), retryable: true },
        }
    }

    /// Whether the process, or anything in its group, is there. A zombie does nothing any more.
    fn lives(&self, handle: &str) -> bool {
        let Some((pid, started)) = self.parse(handle) else { return false };
        match self::started(pid) {
            Some(of) if of == started => !is_zombie(pid) || group_lives(pid),
            // The kernel gives a number away again only when no group has it any more.
            Some(_) => false,
            None => group_lives(pid),
        }
    }

    /// Process and start of a handle; nothing for one of another boot: whatever it named is dead.
    fn parse(&self, handle: &str) -> Option<(u32, u64)> {
        let mut parts = handle.split(':');
        let (pid, started, boot) = (parts.next()?, parts.next()?, parts.next()?);
        (boot == self.boot).then_some(())?;
        Some((pid.parse().ok()?, started.parse().ok()?))
    }
}

impl Launcher for Process {
    fn launch(&self, order: Order) -> BoxFuture<'_, Result<Option<Launched>, NotLaunched>> {
        let started = self.start(&order).map(Some).map_err(|error| NotLaunched {
            reason: format!("starting {}: {error}", self.settings.agent.display()),
            retryable: !matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied),
        });
        Box::pin(std::future::ready(started))
    }

    fn watch<'a>(&'a self, handle: &'a str) -> BoxFuture<'a, Death> {
        Box::pin(self.buried(handle))
    }

    fn end<'a>(&'a self, handle: &'a str) -> BoxFuture<'a, Death> {
        Box::pin(async move {
            loop {
                // Whoever watches it as our child buries it; a zombie is dead enough.
                if !self.lives(handle) {
                    return Death { how: "it was killed".into(), retryable: true };
                }
                let group = self.parse(handle).and_then(|(pid, _)| i32::try_from(pid).ok());
                if let Some(group) = group {
                    let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
                }
                tokio::time::sleep(LOOK).await;
            }
        })
    }
}

/// Field 22 of `/proc/PID/stat`, in clock ticks since boot. The second field is in parentheses and may hold anything.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
    // Its other threads may still be at work when the first has ended.
    state.is_none_or(|state| matches!(state, "Z" | "X")) && threads(pid) <= 1
}

fn threads(pid: u32) -> usize {
    std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task")).map_or(0, Iterator::count)
}

/// Whether any process of this group is there that is no zombie: tools that the agent has started.
fn group_lives(group: u32) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    let mut pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.any(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace()).into_iter().flatten();
        let (state, of_group) = (fields.next(), fields.nth(1).and_then(|group| group.parse::<u32>().ok()));
        of_group == Some(group) && !matches!(state, Some("Z" | "X") | None)
    })
}

fn how(status: std::process::ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(0), _) => "its agent ended well and did not say so".into(),
        (Some(code), _) => format!("its agent ended with exit code {code} and did not say why; its log does"),
        (None, Some(signal)) => format!("its agent was killed by signal {signal}"),
        (None, None) => "its agent ended".into(),
    }
}

/// A command line or an image that is refused is refused again.
fn is_retryable(code: Option<i32>) -> bool {
    !matches!(code, Some(2 | 3))
}
