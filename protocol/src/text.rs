//! Strings with rules: checked once, when they come in, and believed from then on.

mod unlock;

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use unlock::UnlockKey;

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

/// A string type and its rule.
macro_rules! checked {
    ($(#[doc = $doc:literal])* $name:ident, $fits:expr, $pattern:literal, $rule:literal) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Its rule as a regular expression.
            pub const PATTERN: &'static str = $pattern;

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadText;

            fn try_from(text: String) -> Result<Self, BadText> {
                let fits: fn(&str) -> bool = $fits;
                if fits(&text) { Ok($name(text)) } else { refuse(&text, $rule) }
            }
        }

        impl From<$name> for String {
            fn from(checked: $name) -> String {
                checked.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        #[cfg(feature = "schema")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                $crate::schema::text(concat!($($doc),*), $pattern)
            }
        }

        #[cfg(feature = "schema")]
        impl utoipa::ToSchema for $name {}
    };
}

checked! {
    /// The name of a run. It stands in file names, log lines, URLs, labels and names of mappings, so it is harmless in all of
    /// them.
    RunId,
    |text| starts_alphanumeric(text) && text.len() <= 64 && text.bytes().all(is_harmless),
    "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
    "a run id: 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"
}

checked! {
    /// A SHA-256 digest as text.
    Digest,
    |text| text.strip_prefix("sha256:").is_some_and(|hex| is_hex(hex, 64)),
    "^sha256:[0-9a-f]{64}$",
    "a digest: sha256: and 64 lower-case hex digits"
}

checked! {
    /// A LUN's identity as dm-multipath and udev's `scsi_id` write it: `3` and the NAA identifier in hex for nearly all storage.
    Wwid,
    |text| starts_alphanumeric(text) && text.len() <= 128 && text.bytes().all(is_harmless),
    "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
    "a WWID: 1 to 128 letters, digits, '.', '_' or '-', as `multipath -ll` shows it"
}

checked! {
    /// The bus id of a channel-attached device, such as `0.0.1900`.
    BusId,
    |text| matches!(text.split('.').collect::<Vec<_>>()[..], [css, ss, number]
        if is_hex(css, css.len()) && (1..=2).contains(&css.len()) && is_hex(ss, 1) && is_hex(number, 4)),
    r"^[0-9a-f]{1,2}\.[0-9a-f]\.[0-9a-f]{4}$",
    "a bus id such as 0.0.1900, in lower-case hex"
}

checked! {
    /// The name of a storage port.
    Wwpn,
    is_long_hex,
    "^0x[0-9a-f]{16}$",
    "a WWPN: 0x and 16 lower-case hex digits"
}

checked! {
    /// The number of a LUN behind a storage port, as zFCP writes it.
    Lun,
    is_long_hex,
    "^0x[0-9a-f]{16}$",
    "a LUN: 0x and 16 lower-case hex digits, such as 0x4010400000000000"
}

checked! {
    /// The name of a server. Like a run's it is harmless wherever it stands.
    ServerName,
    |text| starts_alphanumeric(text) && text.len() <= 128 && text.bytes().all(is_harmless),
    "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
    "a server's name: 1 to 128 letters, digits, '.', '_' or '-', the first a letter or digit"
}

checked! {
    /// A short name for something that runs have in common.
    Label,
    |text| starts_alphanumeric(text) && text.len() <= 64 && text.bytes().all(is_harmless),
    "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
    "a label: 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"
}

checked! {
    /// A public key of ECDSA on the curve P-256: its SubjectPublicKeyInfo in DER, in base64url without padding. The curve and what
    /// kind of key it is are always the same bytes.
    ClientKey,
    |text| text.strip_prefix(P256).is_some_and(|point| point.len() == 86
        && point.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        && point.ends_with(['A', 'Q', 'g', 'w'])),
    "^MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE[A-Za-z0-9_-]{85}[AQgw]$",
    "a client key: the SubjectPublicKeyInfo of an ECDSA P-256 key in base64url, 122 characters"
}

/// What every such key begins with, in base64url: all but the point, of which it has the byte that says that both coordinates follow.
const P256: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE";

impl Default for Label {
    fn default() -> Self {
        Label("default".into())
    }
}

/// 32 random bytes as text (base64url without padding). A secret, most of the time: it shows itself only where it is asked to, and is
/// wiped when it is dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token(Zeroizing<String>);

impl Token {
    /// Characters of a token.
    pub const LEN: usize = 43;

    /// Its rule as a regular expression.
    pub const PATTERN: &'static str = "^[A-Za-z0-9_-]{43}$";

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Token {
    type Error = BadText;

    fn try_from(text: String) -> Result<Self, BadText> {
        let text = Zeroizing::new(text);
        let fits = text.len() == Token::LEN
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        // What it is instead is not shown: it may be a secret all the same.
        if fits { Ok(Token(text)) } else { Err(BadText("this is no token: 43 letters, digits, '-' or '_'".into())) }
    }
}

impl From<Token> for String {
    fn from(token: Token) -> String {
        token.0.to_string()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(feature = "schema")]
impl utoipa::PartialSchema for Token {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        crate::schema::text("32 random bytes in base64url without padding. A secret.", Token::PATTERN)
    }
}

#[cfg(feature = "schema")]
impl utoipa::ToSchema for Token {}

fn starts_alphanumeric(text: &str) -> bool {
    text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
}

fn is_harmless(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_long_hex(text: &str) -> bool {
    text.strip_prefix("0x").is_some_and(|hex| is_hex(hex, 16))
}
