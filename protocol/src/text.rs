//! Strings with rules: checked once, when they come in, and believed from then on.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A string broke its rule; the text says which and shows the start of what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadText(String);

impl fmt::Display for BadText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadText {}

fn refuse<T>(found: &str, rule: &str) -> Result<T, BadText> {
    let start: String = found.chars().take(80).collect();
    Err(BadText(format!("{start:?} is not {rule}")))
}

/// The name of a run: 1 to 64 letters, digits, `.`, `_` and `-`, starting with a letter or digit. It stands in file names,
/// log lines, URLs and labels, so it is harmless in all of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

impl RunId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RunId {
    type Error = BadText;

    fn try_from(text: String) -> Result<Self, BadText> {
        let harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let starts_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !starts_well || text.len() > 64 || !text.bytes().all(harmless) {
            return refuse(&text, "a run id: 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit");
        }
        Ok(RunId(text))
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> String {
        id.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SHA-256 digest as text: `sha256:` and 64 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Digest {
    type Error = BadText;

    fn try_from(text: String) -> Result<Self, BadText> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() != 64 || !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return refuse(&text, "a digest: sha256: and 64 lower-case hex digits");
        }
        Ok(Digest(text))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
