//! Launchers: who starts agents, and who can say that one is dead.
//!
//! A launcher starts an agent in two steps, so that no agent ever runs that nobody knows of: [`Launcher::launch`] starts something that
//! can do nothing yet, its handle is stored, and only then it is let go, with its token. A service that ends in between leaves something
//! behind that ends by itself.

mod external;
mod kubernetes;
mod process;
mod sessions;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::{BoxFuture, ready};
use protocol::control::run::LauncherKind;
use protocol::{Label, RunId, ServerName, Token};

pub use external::External;
pub use kubernetes::{Kubernetes, Settings as KubernetesSettings};
pub use process::{Process, Settings as ProcessSettings};

/// An attempt to launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The run.
    pub run: RunId,
    /// The attempt.
    pub attempt: u32,
    /// The server.
    pub server: ServerName,
    /// The storage fabric.
    pub fabric: Label,
    /// Whether its target is a device of this server alone, by a path, and not a LUN that every machine of the fabric reaches.
    pub is_local: bool,
}

/// An attempt to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The run.
    pub run: RunId,
    /// The attempt.
    pub attempt: u32,
    /// What its launcher knows it by. Without, whatever an earlier service may have started and had no time to note.
    pub handle: Option<String>,
    /// Whether its agent may still write. One that has not enrolled cannot, and never will: its token is worth nothing any more; nor can
    /// one that has said how it ended, that somebody vouches for, or whose reservation is gone.
    pub may_write: bool,
}

/// Something that an earlier service has started, and that is still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// The run.
    pub run: RunId,
    /// The attempt.
    pub attempt: u32,
    /// What it is known by.
    pub handle: String,
}

/// Takes words about an attempt: what it waits for, and what its platform reports of it.
pub type Says = Arc<dyn Fn(String) + Send + Sync>;

/// What was started and waits.
pub struct Launched {
    /// What it is known by, also to a launcher of a later service.
    pub handle: String,
    /// Lets it go, with its enrolment token. Dropped instead, it ends by itself.
    pub release: Box<dyn FnOnce(Token) -> BoxFuture<'static, ()> + Send>,
}

/// Why nothing was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotLaunched {
    /// What was tried, and what happened.
    pub reason: String,
    /// Whether trying again may help.
    pub retryable: bool,
}

/// That an agent is dead, and all that it had started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// How it died, in words.
    pub how: String,
    /// Whether another attempt may do better.
    pub retryable: bool,
}

/// Starts agents.
pub trait Launcher: Send + Sync {
    /// Starts an agent. `None`: it is somebody else who does, and the agent enrols by itself.
    fn launch(&self, order: Order, says: Says) -> BoxFuture<'_, Result<Option<Launched>, NotLaunched>>;

    /// Waits until what a handle names is dead. For ever, where that cannot be known.
    fn watch<'a>(&'a self, handle: &'a str, says: Says) -> BoxFuture<'a, Death>;

    /// Kills an attempt, and waits until it is dead. For ever, where it cannot be killed or that cannot be known.
    fn end(&self, ending: Ending, says: Says) -> BoxFuture<'_, Death>;

    /// An attempt is over by its agent's own word: it writes nothing more, also where nobody sees how it ends.
    fn settle(&self, _handle: &str) {}

    /// After a restart: whether what a handle names has been let go, so that it may still enrol.
    fn was_released<'a>(&'a self, _handle: &'a str) -> BoxFuture<'a, bool> {
        Box::pin(ready(false))
    }

    /// Runs of which it keeps what their agents have said, of which nothing was written since then.
    fn kept_since_before(&self, _time: SystemTime) -> Vec<RunId> {
        Vec::new()
    }

    /// Removes what it keeps of runs that there are no more.
    fn forget(&self, _runs: &HashSet<RunId>) {}

    /// After a restart: what is still there, of any attempt. Those that are over are ended then.
    fn leftovers(&self) -> BoxFuture<'_, Vec<Leftover>> {
        Box::pin(ready(Vec::new()))
    }
}

/// How an agent ended that said nothing, by its exit code.
fn ended(code: i32) -> String {
    match code {
        0 => "its agent ended well and did not say so".into(),
        code => format!("its agent ended with exit code {code} and did not say why; its log does"),
    }
}

/// The launchers there are.
pub type Launchers = HashMap<LauncherKind, Arc<dyn Launcher>>;
