//! What is asked for: a run, and who starts its agents.

use std::path::Component;

use serde::{Deserialize, Serialize};

use crate::spec::{
    HandOver, ImageSpec, IpsecDemand, KeySource, MAX_TRUST, Options, Place, RunSpec, SpecError, TargetSpec, holds,
};
use crate::text::{Label, RunId, ServerName};

/// Largest request for a run, in bytes.
pub const MAX_NEW_RUN: usize = 256 << 10;
/// Least and most urgent.
pub const PRIORITY: std::ops::RangeInclusive<i32> = -100..=100;
/// Fewest and most attempts.
pub const ATTEMPTS: std::ops::RangeInclusive<u32> = 1..=100;
/// Shortest and longest deadline, in seconds: up to 30 days.
pub const DEADLINE: std::ops::RangeInclusive<u64> = 1..=2_592_000;

/// A run that is wanted: this image onto that target of this server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewRun {
    /// The server. It has one active run at a time.
    pub server: ServerName,
    /// Who starts the agent.
    #[serde(default)]
    pub launcher: LauncherKind,
    /// Which image. `trust` names keys by their id (64 hex digits); the agent knows keys of its own, and uses of these only those named.
    /// Where the service has a policy for images, what is left out of `trust`, `threshold` and `min_version` is what that says.
    pub image: ImageSpec,
    /// Where it goes. A target has one active run at a time.
    pub target: TargetSpec,
    /// Where the key of what the layout encrypts comes from; the service, where absent and there is anything to encrypt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeySource>,
    /// How it goes there.
    #[serde(default)]
    pub options: Options,
    /// What protects the way from the sources.
    #[serde(default)]
    pub ipsec: IpsecDemand,
    /// What becomes of the machine afterwards.
    #[serde(default)]
    pub hand_over: HandOver,
    /// The storage fabric that it burdens; how many runs may do so at once is limited.
    #[serde(default)]
    pub fabric: Label,
    /// -100 to 100; the higher goes first.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(default = 0, minimum = -100, maximum = 100))]
    pub priority: i32,
    /// How often it is tried, 1 to 100.
    #[serde(default = "three")]
    #[cfg_attr(feature = "schema", schema(default = 3, minimum = 1, maximum = 100))]
    pub max_attempts: u32,
    /// Seconds from now until which it must have ended, or it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(minimum = 1, maximum = 2592000))]
    pub deadline: Option<u64>,
}

fn three() -> u32 {
    3
}

impl NewRun {
    /// Reads a request and checks it.
    ///
    /// # Errors
    /// Too large, not JSON, a key that is unknown, doubled or missing, or a value out of its bounds.
    pub fn parse(bytes: &[u8]) -> Result<Self, SpecError> {
        if bytes.len() > MAX_NEW_RUN {
            return Err(SpecError::new(format!("it has {} bytes, at most {MAX_NEW_RUN} are read", bytes.len())));
        }
        let new: NewRun = serde_json::from_slice(bytes).map_err(|error| SpecError::new(error.to_string()))?;
        new.check()?;
        Ok(new)
    }

    /// Checks what the types alone do not say. Whom to trust may be left out: a policy may say it.
    ///
    /// # Errors
    /// The first value out of bounds, or the first two that contradict each other.
    pub fn check(&self) -> Result<(), SpecError> {
        holds(PRIORITY.contains(&self.priority), || "`priority` must be -100 to 100".into())?;
        holds(ATTEMPTS.contains(&self.max_attempts), || "`max_attempts` must be 1 to 100".into())?;
        holds(self.deadline.is_none_or(|deadline| DEADLINE.contains(&deadline)), || {
            format!("`deadline` must be {} to {} seconds", DEADLINE.start(), DEADLINE.end())
        })?;
        let digits = |id: &str| id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let stranger = self.image.trust.iter().find(|key| !key.to_str().is_some_and(digits));
        if let Some(stranger) = stranger {
            return Err(SpecError::new(format!(
                "`image.trust`: {} is no key's id: give 64 hex digits, as `imgstream inspect` and `openssl pkey -pubin -outform DER | sha256sum` print them",
                stranger.display()
            )));
        }
        holds(self.key.is_none() || self.target.layout.encrypts(), || {
            "`key` is given, but `target.layout` is `plain`: nothing would be encrypted".into()
        })?;
        let run = RunId::try_from("run".to_owned()).map_err(|error| SpecError::new(error.to_string()))?;
        self.spec(run, 1).check_but_trust()?;
        if self.image.trust.is_empty() {
            let threshold = self.image.threshold();
            holds((1..=MAX_TRUST).contains(&threshold), || format!("`image.threshold` must be 1 to {MAX_TRUST}"))?;
        } else {
            self.image.check_trust()?;
        }
        if let Some(Place::Device(device)) = self.target.place() {
            let plain = device.is_absolute() && device.components().all(|part| part != Component::ParentDir);
            holds(plain, || "`target.device` must be an absolute path without `..`".into())?;
        }
        Ok(())
    }

    /// [`NewRun::check`], and that it says whom to trust.
    ///
    /// # Errors
    /// Those, and that it names no key.
    pub fn check_whole(&self) -> Result<(), SpecError> {
        self.check()?;
        self.image.check_trust()
    }

    /// Where the key of what the layout encrypts comes from; nothing where nothing is encrypted.
    pub fn key_source(&self) -> Option<KeySource> {
        self.target.layout.encrypts().then(|| self.key.unwrap_or(KeySource::Service))
    }

    /// The run spec of an attempt.
    pub fn spec(&self, run: RunId, epoch: u32) -> RunSpec {
        RunSpec {
            run,
            epoch,
            image: self.image.clone(),
            target: self.target.clone(),
            key: self.key_source().unwrap_or_default(),
            options: self.options.clone(),
            ipsec: self.ipsec,
            hand_over: self.hand_over,
        }
    }
}

/// Who starts an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LauncherKind {
    /// The service itself, on its own machine.
    #[default]
    Process,
    /// A Kubernetes cluster: a Job for each attempt.
    Kubernetes,
    /// Somebody else: a machine that boots the medium and enrols by itself.
    External,
}

impl LauncherKind {
    /// All of them.
    pub const ALL: [LauncherKind; 3] = [LauncherKind::Process, LauncherKind::Kubernetes, LauncherKind::External];

    /// Whether the service starts the agent, and can say that it is dead.
    pub fn starts_agents(self) -> bool {
        matches!(self, LauncherKind::Process | LauncherKind::Kubernetes)
    }

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            LauncherKind::Process => "process",
            LauncherKind::Kubernetes => "kubernetes",
            LauncherKind::External => "external",
        }
    }
}
