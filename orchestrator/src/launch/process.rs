//! The launcher that starts agents as processes of this machine, each in a session of its own, so that they outlive the service and can
//! be killed with all that they have started, whatever process groups that has made.
//!
//! A handle is `PID:START:BOOT:PLACE`: the process, the clock tick in which it was started, which boot of the kernel that was, and on
//! which machine, in which of its process namespaces. No other process has ever the same. Of one that was started elsewhere nothing is
//! known here, and it is never taken for dead.

use std::collections::{HashMap, HashSet};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::{BoxFuture, pending};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::{RunId, Token};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use super::sessions;
use super::{Death, Ending, Launched, Launcher, NotLaunched, Order, Says, ended};

/// How often it is looked whether a process that is not our child is still there.
const LOOK: Duration = Duration::from_millis(100);

/// How agents are started.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The agent, and what each gets on its command line after `run`: where the service is, and what to trust. Or why none can be
    /// started: those that run are watched and killed all the same.
    pub command: Result<(PathBuf, Vec<String>), String>,
    /// A folder, where every file that is there when an agent is started is a key that it trusts for images. Without, the arguments
    /// name them.
    pub trust: Option<PathBuf>,
    /// Where each leaves what it says, in a file of its own. It is removed when the agent has reached its goal.
    pub logs: PathBuf,
}

/// Starts agents on this machine.
#[derive(Debug)]
pub struct Process {
    settings: Settings,
    boot: String,
    place: String,
    /// Our own children, until somebody waits for them: a zombie is ours to bury.
    children: Mutex<HashMap<String, (Child, PathBuf)>>,
}

/// What a handle names.
enum Named {
    /// A process of this boot of this machine.
    Here { pid: i32, started: u64 },
    /// One of an earlier boot: it is dead.
    Before,
    /// One of another machine or namespace.
    Elsewhere,
}

impl Process {
    /// With these settings.
    ///
    /// # Errors
    /// When the kernel does not say which boot of which machine this is.
    pub fn new(settings: Settings) -> io::Result<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let boot = boot.trim().chars().filter(|c| *c != '-').take(16).collect();
        Ok(Self { settings, boot, place: place()?, children: Mutex::default() })
    }

    fn start(&self, order: &Order) -> io::Result<Launched> {
        let trusted = self.trusted()?;
        let (agent, arguments) =
            self.settings.command.as_ref().map_err(|why| io::Error::new(io::ErrorKind::NotFound, why.clone()))?;
        let path = self.settings.logs.join(format!("{}.{}.log", order.run, order.attempt));
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        // It becomes the agent, in a session of its own: with no terminal of ours, and no signals from it.
        let mut command = Command::new("setsid");
        command.arg("--").arg(agent).arg("run").args(arguments);
        command.args(trusted.iter().flat_map(|key| [std::ffi::OsStr::new("--trust"), key.as_os_str()]));
        command.args(["--run", order.run.as_str(), "--server", order.server.as_str(), "--token", "/dev/stdin"]);
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.kill_on_drop(false).spawn()?;
        let stdin = child.stdin.take();
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.ok_or_else(|| io::Error::other("it has no process number"))?;
        let started = sessions::process(pid)?.ok_or_else(|| io::Error::other("it is gone already"))?.started;
        let handle = format!("{pid}:{started}:{}:{}", self.boot, self.place);
        self.lock().insert(handle.clone(), (child, path));
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

    /// The keys in the folder of those that agents trust, where there is one.
    fn trusted(&self) -> io::Result<Vec<PathBuf>> {
        let Some(folder) = &self.settings.trust else { return Ok(Vec::new()) };
        let entries = std::fs::read_dir(folder)?;
        let mut trusted = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        trusted.sort();
        if trusted.is_empty() {
            let why = format!("there is no key that it could trust for images in {}", folder.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        Ok(trusted)
    }

    /// What agents have left, with the runs that they were of. Other files are nobody's of ours.
    fn logs(&self) -> Vec<(RunId, PathBuf)> {
        let entries = std::fs::read_dir(&self.settings.logs).into_iter().flatten().flatten();
        entries.filter_map(|entry| Some((run_of(entry.file_name().to_str()?)?, entry.path()))).collect()
    }

    /// Waits for our own child, where it is one and nobody else does.
    async fn wait(&self, handle: &str) -> Option<std::process::ExitStatus> {
        let child = self.lock().remove(handle);
        let (mut child, log) = child?;
        let ended = child.wait().await.ok()?;
        if ended.success() {
            let _ = std::fs::remove_file(log);
        }
        Some(ended)
    }

    /// Waits until it is dead, with all that it has started, and says how it ended where it was our child.
    async fn buried(&self, handle: &str) -> Death {
        let ended = self.wait(handle).await;
        while self.lives(handle).await {
            tokio::time::sleep(LOOK).await;
        }
        match ended {
            Some(status) => Death { how: how(status), retryable: is_retryable(status.code()) },
            None => Death { how: "its process has ended".into(), retryable: true },
        }
    }

    /// Whether the process, or anything in its session, is there. What cannot be found out is taken for life.
    async fn lives(&self, handle: &str) -> bool {
        match self.named(handle) {
            Named::Before => false,
            Named::Elsewhere => pending().await,
            Named::Here { pid, started } => sessions::lives(pid, started).unwrap_or_else(|error| {
                tracing::warn!(handle, %error, "it cannot be seen whether an agent lives");
                true
            }),
        }
    }

    fn named(&self, handle: &str) -> Named {
        let mut parts = handle.splitn(4, ':');
        let mut next = || parts.next().unwrap_or_default();
        let (pid, started, boot, place) = (next().parse(), next().parse(), next(), next());
        match (pid, started) {
            _ if place != self.place => Named::Elsewhere,
            _ if boot != self.boot => Named::Before,
            (Ok(pid), Ok(started)) if pid > 0 => Named::Here { pid, started },
            _ => Named::Elsewhere,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Child, PathBuf)>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Launcher for Process {
    fn launch(&self, order: Order, _: Says) -> BoxFuture<'_, Result<Option<Launched>, NotLaunched>> {
        let started = self.start(&order).map(Some).map_err(|error| NotLaunched {
            reason: format!("no agent was started: {error}"),
            retryable: !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied),
        });
        Box::pin(std::future::ready(started))
    }

    fn watch<'a>(&'a self, handle: &'a str, _: Says) -> BoxFuture<'a, Death> {
        Box::pin(self.buried(handle))
    }

    fn end(&self, ending: Ending, _: Says) -> BoxFuture<'_, Death> {
        Box::pin(async move {
            // What was started and not noted has no token, and ends by itself.
            let Some(handle) = &ending.handle else { return pending().await };
            while self.lives(handle).await {
                if let Named::Here { pid, .. } = self.named(handle) {
                    // The process itself may not have its session yet.
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                    for member in sessions::members(pid).unwrap_or_default() {
                        let _ = kill(Pid::from_raw(member), Signal::SIGKILL);
                    }
                }
                tokio::time::sleep(LOOK).await;
            }
            self.wait(handle).await;
            Death { how: "it was killed".into(), retryable: true }
        })
    }

    fn kept_since_before(&self, time: SystemTime) -> Vec<RunId> {
        let mut runs: HashMap<RunId, bool> = HashMap::new();
        for (run, log) in self.logs() {
            let written = std::fs::metadata(log).and_then(|facts| facts.modified());
            // One whose time cannot be told is left.
            let is_old = written.is_ok_and(|written| written < time);
            *runs.entry(run).or_insert(true) &= is_old;
        }
        runs.into_iter().filter(|(_, is_old)| *is_old).map(|(run, _)| run).collect()
    }

    fn forget(&self, runs: &HashSet<RunId>) {
        for (run, log) in self.logs().into_iter().filter(|(of, _)| runs.contains(of)) {
            if let Err(error) = std::fs::remove_file(&log) {
                tracing::warn!(%run, %error, "removing {}", log.display());
            }
        }
    }
}

/// Whose log has this name.
fn run_of(name: &str) -> Option<RunId> {
    let (run, attempt) = name.strip_suffix(".log")?.rsplit_once('.')?;
    attempt.parse::<u32>().ok()?;
    run.to_owned().try_into().ok()
}

/// Which machine this is, and which of its process namespaces.
fn place() -> io::Result<String> {
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let machine = match machine.trim() {
        "" | "uninitialized" => nix::unistd::gethostname()?.to_string_lossy().into_owned(),
        machine => machine.to_owned(),
    };
    let namespace = std::fs::read_link("/proc/self/ns/pid")?;
    let namespace: String = namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    Ok(format!("{}-{namespace}", machine.chars().filter(|c| c.is_ascii_alphanumeric()).take(32).collect::<String>()))
}

fn how(status: std::process::ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => ended(code),
        (None, Some(signal)) => format!("its agent was killed by signal {signal}"),
        (None, None) => "its agent ended".into(),
    }
}

/// A command line or an image that is refused is refused again.
fn is_retryable(code: Option<i32>) -> bool {
    !matches!(code, Some(2 | 3))
}
