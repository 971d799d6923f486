//! The run spec, version 1: which image goes onto which target, and how. JSON; unknown and doubled keys are errors.
//!
//! It names no secret and holds none: whoever may read it learns where an image goes, not how to open it.

mod luks;
mod options;
mod target;

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::text::{Digest, RunId};

pub use luks::{KeySource, LuksSpec, Pbkdf, Unlock};
pub use options::{Engine, MAX_CONNECTIONS, Options, REQUEST_SIZE, STALL_LIMIT};
pub use target::{FcpSpec, Layout, LunSpec, MIN_PATHS, Place, Reservation, Tail, TargetSpec};

/// Largest run spec that is read, in bytes.
pub const MAX_SPEC: usize = 1 << 20;
/// Most sources of one image.
pub const MAX_SOURCES: usize = 16;
/// The highest fencing epoch: it takes two bytes of a reservation's key.
pub const MAX_EPOCH: u32 = 65_535;
/// Most trusted keys.
pub const MAX_TRUST: usize = 64;
/// One run: put this image onto this target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RunSpec {
    /// Names the run in every event.
    pub run: RunId,
    /// The fencing epoch, from 1: of two agents of one run, the one with the higher epoch has the target. It grows with each
    /// attempt, and is part of the key of the target's reservation.
    #[serde(default = "first")]
    #[cfg_attr(feature = "schema", schema(default = 1, minimum = 1, maximum = 65535))]
    pub epoch: u32,
    /// Which image, from where, signed by whom.
    pub image: ImageSpec,
    /// Where it goes.
    pub target: TargetSpec,
    /// Where the key of what the layout encrypts comes from.
    #[serde(default, skip_serializing_if = "KeySource::is_usual")]
    pub key: KeySource,
    /// How it goes there.
    #[serde(default)]
    pub options: Options,
    /// What protects the way from the sources.
    #[serde(default)]
    pub ipsec: IpsecDemand,
    /// What becomes of the machine afterwards.
    #[serde(default)]
    pub hand_over: HandOver,
}

/// What is demanded of the network between the sources and this machine. What stays on the machine (a folder, a loopback address) is
/// asked nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum IpsecDemand {
    /// Each connection is made only where the kernel's policies and security associations protect this very flow.
    #[default]
    Required,
    /// The platform says it protects the flow outside of what this agent can see, as from within a pod's network namespace.
    Platform,
    /// Packets may go in the clear.
    NotRequired,
}

impl IpsecDemand {
    /// As it is written in a spec.
    pub fn name(self) -> &'static str {
        match self {
            IpsecDemand::Required => "required",
            IpsecDemand::Platform => "platform",
            IpsecDemand::NotRequired => "not-required",
        }
    }

    /// Whether it lets pass what another does not.
    pub fn is_weaker_than(self, other: IpsecDemand) -> bool {
        let strength = |demand| match demand {
            IpsecDemand::NotRequired => 0,
            IpsecDemand::Platform => 1,
            IpsecDemand::Required => 2,
        };
        strength(self) < strength(other)
    }
}

/// What becomes of the machine when the target is proven and closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum HandOver {
    /// It goes on running.
    #[default]
    None,
    /// It halts.
    Halt,
    /// It starts what is on the target.
    ReIpl,
}

/// Which image. A signed image that does not match all of this is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageSpec {
    /// The image's name. Also chooses among the images of a layout.
    #[cfg_attr(feature = "schema", schema(pattern = "^[a-z0-9][a-z0-9._-]{0,127}$"))]
    pub name: String,
    /// The architecture, as `uname -m` says it.
    #[serde(default = "s390x")]
    #[cfg_attr(feature = "schema", schema(default = "s390x", pattern = "^[a-z0-9_]{1,32}$"))]
    pub architecture: String,
    /// The image's digest, where only exactly this one will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The lowest image version allowed: the defence against being given an old, vulnerable image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<u64>,
    /// Where to get it: directories, `http(s)://…` or `oci://…`. All are used at once.
    #[cfg_attr(feature = "schema", schema(min_items = 1, max_items = 16))]
    pub sources: Vec<String>,
    /// Files with the trusted public keys, one PEM (SPKI) each.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>, max_items = 64))]
    pub trust: Vec<PathBuf>,
    /// How many distinct trusted keys must have signed; 1 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(minimum = 1, maximum = 64))]
    pub threshold: Option<usize>,
}

fn s390x() -> String {
    "s390x".into()
}

fn first() -> u32 {
    1
}

/// Why bytes are not a run spec. The text names the key, and the line where that helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecError(String);

impl SpecError {
    pub(crate) fn new(text: String) -> Self {
        SpecError(text)
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SpecError {}

impl RunSpec {
    /// Reads a run spec and checks it.
    ///
    /// # Errors
    /// Too large, not JSON, a key that is unknown, doubled or missing, or a value out of its bounds.
    pub fn parse(bytes: &[u8]) -> Result<Self, SpecError> {
        if bytes.len() > MAX_SPEC {
            return Err(SpecError(format!("it has {} bytes, at most {MAX_SPEC} are read", bytes.len())));
        }
        let spec: RunSpec = serde_json::from_slice(bytes).map_err(|error| SpecError(error.to_string()))?;
        spec.check()?;
        Ok(spec)
    }

    /// Checks what the types alone do not say.
    ///
    /// # Errors
    /// The first value out of bounds, or the first two that contradict each other.
    pub fn check(&self) -> Result<(), SpecError> {
        self.image.check_trust()?;
        self.check_but_trust()
    }

    /// All that, but for whom to trust.
    pub(crate) fn check_but_trust(&self) -> Result<(), SpecError> {
        holds((1..=MAX_EPOCH).contains(&self.epoch), || format!("`epoch` must be 1 to {MAX_EPOCH}"))?;
        self.image.check()?;
        self.target.check()?;
        self.options.check()?;
        holds(self.key == KeySource::Agent || self.target.layout.encrypts(), || {
            "`key: service` is given, but `target.layout` is `plain`: nothing would be encrypted".into()
        })?;
        let unbootable = self.target.layout == Layout::Whole && self.hand_over == HandOver::ReIpl;
        holds(!unbootable, || {
            "`hand_over: re-ipl` cannot start a target of `layout: whole`: no firmware reads LUKS; use `split`".into()
        })
    }
}

impl ImageSpec {
    /// How many distinct trusted keys must have signed.
    pub fn threshold(&self) -> usize {
        self.threshold.unwrap_or(1)
    }

    fn check(&self) -> Result<(), SpecError> {
        let sources = self.sources.len();
        holds(is_image_name(&self.name), || {
            format!(
                "`image.name`: {} is no image's name: 1 to 128 of a-z, 0-9, '.', '_', '-', of which the first is a letter or digit",
                shown(&self.name)
            )
        })?;
        holds(is_architecture(&self.architecture), || {
            format!(
                "`image.architecture`: {} is none: 1 to 32 of a-z, 0-9, '_', as `uname -m` says it",
                shown(&self.architecture)
            )
        })?;
        holds((1..=MAX_SOURCES).contains(&sources), || {
            format!("`image.sources` names {sources} sources; give 1 to {MAX_SOURCES}")
        })
    }

    /// Checks whom to trust.
    pub(crate) fn check_trust(&self) -> Result<(), SpecError> {
        let (trust, threshold) = (self.trust.len(), self.threshold());
        holds((1..=MAX_TRUST).contains(&trust), || format!("`image.trust` names {trust} keys; give 1 to {MAX_TRUST}"))?;
        holds((1..=trust).contains(&threshold), || {
            format!("`image.threshold` is {threshold}, with {trust} trusted keys; give 1 to {trust}")
        })
    }
}

/// Whether an image can be called so; docs/format.md, "The descriptor", has the rule.
fn is_image_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-');
    let starts_well = name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    starts_well && name.len() <= 128 && name.bytes().all(fits)
}

fn is_architecture(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=32).contains(&name.len()) && name.bytes().all(fits)
}

/// The start of a text, for messages.
fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(80).collect::<String>())
}

/// A rule of the spec, and what is told where it does not hold.
pub(crate) fn holds(rule: bool, broken: impl FnOnce() -> String) -> Result<(), SpecError> {
    if rule { Ok(()) } else { Err(SpecError(broken())) }
}
