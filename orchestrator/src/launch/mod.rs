//! Launchers: who starts agents, and who can say that one is dead.
//!
//! A launcher starts an agent in two steps, so that no agent ever runs that nobody knows of: [`Launcher::launch`] starts something that
//! can do nothing yet, its handle is stored, and only then it is let go, with its token. A service that ends in between leaves something
//! behind that ends by itself.

mod external;
mod process;
mod sessions;

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use protocol::control::run::LauncherKind;
use protocol::{RunId, ServerName, Token};

pub use external::External;
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
}

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
    fn launch(&self, order: Order) -> BoxFuture<'_, Result<Option<Launched>, NotLaunched>>;

    /// Waits until what a handle names is dead. For ever, where that cannot be known.
    fn watch<'a>(&'a self, handle: &'a str) -> BoxFuture<'a, Death>;

    /// Kills what a handle names, and waits until it is dead. For ever, where it cannot be killed or that cannot be known.
    fn end<'a>(&'a self, handle: &'a str) -> BoxFuture<'a, Death>;
}

/// The launchers there are.
pub type Launchers = HashMap<LauncherKind, Arc<dyn Launcher>>;
