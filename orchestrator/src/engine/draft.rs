//! A run before it is created: what must be made for it beforehand, because the task that decides waits for nobody.

use protocol::Digest;
use protocol::RunId;
use protocol::control::problem::{Code, Problem};
use protocol::control::run::NewRun;
use protocol::spec::KeySource;

use super::Engine;
use super::chance::run_id;
use crate::model::{PolicyPin, Sealed};

/// A run that may be created.
pub(super) struct Draft {
    /// Its name, if it comes to be.
    pub(super) run: RunId,
    /// The idempotency key.
    pub(super) key: Option<String>,
    /// SHA-256 of the request, as it came.
    pub(super) request: Digest,
    /// What will be done, or why it must not. The policy has no say in what a key has made already: the same request gets the same run,
    /// whatever the policy says by now.
    pub(super) plan: Result<Plan, Problem>,
}

/// What will be done.
pub(super) struct Plan {
    /// The order, completed by the policy.
    pub(super) order: NewRun,
    /// The rule that it obeys.
    pub(super) policy: Option<PolicyPin>,
    /// The key of its disk.
    pub(super) sealed: Option<Sealed>,
}

impl Engine {
    /// Makes ready what a request asks for.
    pub(super) async fn draft(&self, new: NewRun, key: Option<String>) -> Result<Draft, Problem> {
        let credentials = &self.0.settings.credentials;
        let internal = |error: String| Problem::new(Code::Internal, error);
        let request = serde_json::to_string(&new).map_err(|error| internal(error.to_string()))?;
        let request = credentials.digest_of(&request);
        let token = credentials.new_token().map_err(internal)?;
        let run = run_id(token.reveal()).map_err(internal)?;
        let plan = self.plan(&run, new).await;
        Ok(Draft { run, key, request, plan })
    }

    async fn plan(&self, run: &RunId, new: NewRun) -> Result<Plan, Problem> {
        let settings = &self.0.settings;
        let (order, policy) = settings.policy.apply(new)?;
        let is_ours = order.key_source() == Some(KeySource::Service);
        let sealed = if is_ours { Some(self.make_key(run).await?) } else { None };
        Ok(Plan { order, policy, sealed })
    }
}
