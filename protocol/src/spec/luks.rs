//! How what a layout encrypts is encrypted, and where its key comes from. The key is never in the spec.

use serde::{Deserialize, Serialize};

use super::{SpecError, holds};

/// Fewest and most iterations of PBKDF2; the lower bound is cryptsetup's.
pub const PBKDF2_ITERATIONS: std::ops::RangeInclusive<u32> = 1000..=100_000_000;
/// Least and most memory of Argon2id, in KiB; cryptsetup's bounds.
pub const ARGON2_MEMORY: std::ops::RangeInclusive<u32> = 32..=4_194_304;
/// Fewest and most passes of Argon2id; the lower bound is cryptsetup's.
pub const ARGON2_TIME: std::ops::RangeInclusive<u32> = 4..=10_000;
/// Fewest and most lanes of Argon2id; cryptsetup's bounds.
pub const ARGON2_PARALLEL: std::ops::RangeInclusive<u32> = 1..=4;

/// Where the key of what a layout encrypts comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum KeySource {
    /// The service has made it, and gives it to each attempt once.
    Service,
    /// The agent's machine has it.
    #[default]
    Agent,
}

impl KeySource {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            KeySource::Service => "service",
            KeySource::Agent => "agent",
        }
    }

    /// Whether it is what a spec means that does not say it.
    pub(super) fn is_usual(&self) -> bool {
        *self == KeySource::default()
    }
}

/// How a LUKS2 container is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct LuksSpec {
    /// The cipher, as dm-crypt names it.
    pub cipher: String,
    /// Bits of the volume key; XTS uses half of them twice.
    pub key_size: u32,
    /// How the passphrase becomes a key.
    pub pbkdf: Pbkdf,
    /// Whether the installed system's discards reach the storage: they tell it which blocks are free.
    pub discards: bool,
    /// How the installed system unlocks it.
    pub unlock: Unlock,
}

impl Default for LuksSpec {
    fn default() -> Self {
        LuksSpec {
            cipher: "aes-xts-plain64".into(),
            key_size: 512,
            pbkdf: Pbkdf::default(),
            discards: false,
            unlock: Unlock::Console,
        }
    }
}

impl LuksSpec {
    pub(super) fn check(&self) -> Result<(), SpecError> {
        let harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b':' | b'(' | b')');
        let shape = (1..=64).contains(&self.cipher.len()) && self.cipher.bytes().all(harmless);
        holds(shape && self.cipher.contains('-'), || {
            format!("`target.luks.cipher` {:?} is no cipher such as aes-xts-plain64", self.cipher)
        })?;
        holds(!self.cipher.contains("null"), || "`target.luks.cipher` must encrypt".into())?;
        holds([128, 192, 256, 512].contains(&self.key_size), || {
            "`target.luks.key_size` must be 128, 192, 256 or 512 bits".into()
        })?;
        self.pbkdf.check()
    }
}

/// How a passphrase becomes a key.
///
/// The passphrase of a run stands for 32 random bytes: nobody can guess it, and stretching it would only make every start of
/// the server slower (and Argon2 needs memory that an initramfs may not have). So the least that cryptsetup allows is enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Pbkdf {
    /// PBKDF2 with SHA-256.
    Pbkdf2 {
        /// How often.
        #[cfg_attr(feature = "schema", schema(minimum = 1000, maximum = 100000000))]
        iterations: u32,
    },
    /// Argon2id.
    Argon2id {
        /// Memory in KiB.
        #[cfg_attr(feature = "schema", schema(minimum = 32, maximum = 4194304))]
        memory: u32,
        /// Passes over it.
        #[cfg_attr(feature = "schema", schema(minimum = 4, maximum = 10000))]
        time: u32,
        /// Lanes.
        #[cfg_attr(feature = "schema", schema(minimum = 1, maximum = 4))]
        parallel: u32,
    },
}

impl Default for Pbkdf {
    fn default() -> Self {
        Pbkdf::Pbkdf2 { iterations: *PBKDF2_ITERATIONS.start() }
    }
}

impl Pbkdf {
    fn check(&self) -> Result<(), SpecError> {
        let within = |name: &str, value: u32, bounds: std::ops::RangeInclusive<u32>| {
            holds(bounds.contains(&value), || {
                format!("`target.luks.pbkdf.{name}` must be {} to {}", bounds.start(), bounds.end())
            })
        };
        match *self {
            Pbkdf::Pbkdf2 { iterations } => within("iterations", iterations, PBKDF2_ITERATIONS),
            Pbkdf::Argon2id { memory, time, parallel } => within("memory", memory, ARGON2_MEMORY)
                .and_then(|()| within("time", time, ARGON2_TIME))
                .and_then(|()| within("parallel", parallel, ARGON2_PARALLEL)),
        }
    }
}

/// How the installed system unlocks its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Unlock {
    /// Somebody types the key at the console.
    Console,
}
