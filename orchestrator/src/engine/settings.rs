//! What an engine is told about the world: its limits, its patience, who launches, and who vouches.

use std::sync::Arc;
use std::time::Duration;

use protocol::control::agent::Terms;
use protocol::control::problem::{Code, Problem};
use protocol::{ClientKey, Digest, RunId, Token};

use super::keeper::Keeper;
use super::{Agent, Standing};
use crate::launch::Launchers;
use crate::metrics::Metrics;
use crate::model::schedule::Limits;
use crate::model::{BackOff, Record};
use crate::policy::Policy;

/// All of it.
#[derive(Clone)]
pub struct Settings {
    /// How many runs may be active.
    pub limits: Limits,
    /// Before a run is tried again.
    pub back_off: BackOff,
    /// What agents are granted.
    pub lease: Terms,
    /// How much longer than that the service waits before it takes an agent for lost.
    pub grace: Duration,
    /// How long an agent that was launched may take to enrol.
    pub enrol_within: Duration,
    /// How long an agent may take to obey a cancellation, before its lease is not renewed any more.
    pub cancel_within: Duration,
    /// Who starts agents.
    pub launchers: Launchers,
    /// Who makes and checks secrets.
    pub credentials: Arc<dyn Credentials>,
    /// Where what happens is counted.
    pub metrics: Metrics,
    /// Who makes and keeps the keys of disks.
    pub keeper: Arc<dyn Keeper>,
    /// Which images may be installed, and whose.
    pub policy: Arc<Policy>,
    /// How long runs are kept that are over; without, for ever.
    pub retention: Option<Duration>,
}

impl Settings {
    /// That there is no such run; where it may have been removed, that runs are.
    pub(super) fn no_run(&self, run: &RunId) -> Problem {
        let problem = Problem::new(Code::NotFound, format!("there is no run {run}"));
        match self.retention.map(|kept| kept.as_secs()) {
            None => problem,
            Some(seconds) => {
                let kept = match seconds / DAY {
                    0 => format!("{seconds} seconds"),
                    1 => "1 day".to_owned(),
                    days => format!("{days} days"),
                };
                problem.with_hint(format!(
                    "see that the name is right; runs are kept for {kept} after their end (`retention` of the service's configuration)"
                ))
            }
        }
    }
}

/// In seconds.
const DAY: u64 = 24 * 3600;

/// Makes secrets, digests and tickets. The engine itself knows no cryptography.
pub trait Credentials: Send + Sync {
    /// An enrolment token that nobody can guess.
    ///
    /// # Errors
    /// When the kernel gives no random numbers.
    fn new_token(&self) -> Result<Token, String>;

    /// SHA-256 of a token's text.
    fn digest(&self, token: &Token) -> Digest;

    /// SHA-256 of any text.
    fn digest_of(&self, text: &str) -> Digest;

    /// The session token of the process that enrolled with a nonce of this digest: always the same.
    fn session(&self, run: &RunId, attempt: u32, nonce: &Digest) -> Token;

    /// Whether two tokens are the same, in a time that tells nothing.
    fn is_same(&self, one: &Token, other: &Token) -> bool;

    /// SHA-256 of a client key.
    fn digest_of_key(&self, key: &ClientKey) -> Digest;

    /// A certificate over that key for an attempt (PEM).
    ///
    /// # Errors
    /// When it cannot be made.
    fn certificate(&self, run: &RunId, attempt: u32, key: &ClientKey) -> Result<String, String>;

    /// Another certificate over the same key, where it is time for one: less than half is left of the one that is shown.
    ///
    /// # Errors
    /// When it cannot be made.
    fn renewed(&self, agent: &Agent, shown: Standing<'_>) -> Result<Option<String>, String>;

    /// A signed ticket for the current attempt of a run and its client key, for this spec and this nonce.
    ///
    /// # Errors
    /// When it cannot be signed.
    fn ticket(&self, record: &Record, spec: &str, nonce: &Token) -> Result<String, String>;
}
