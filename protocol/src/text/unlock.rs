//! The key of a run as text: what unlocks its disk.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::BadText;

/// RFC 4648, table 3.
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// Characters of the text without its hyphens: five bits each.
const LETTERS: usize = (UnlockKey::BYTES * 8).div_ceil(5);
/// Characters between two hyphens.
const GROUP: usize = 4;

/// 32 random bytes, written so that a person can read and type them: base32 in groups of four.
///
/// What LUKS is given is the text, not the bytes: whoever unlocks the disk at a console types just that. It never shows itself unless
/// it is asked to, and is wiped when it is dropped; it lies on the heap, because a move copies what lies inline.
#[derive(Clone, PartialEq, Eq)]
pub struct UnlockKey(Zeroizing<String>);

impl UnlockKey {
    /// Random bytes of a key.
    pub const BYTES: usize = 32;
    /// Characters of its text.
    pub const LEN: usize = LETTERS + LETTERS / GROUP - 1;
    /// Its rule as a regular expression.
    pub const PATTERN: &'static str = "^[A-Z2-7]{4}(-[A-Z2-7]{4}){12}$";

    /// The text of these bytes.
    pub fn of(bytes: &[u8; Self::BYTES]) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(Self::LEN));
        for number in 0..LETTERS {
            if number > 0 && number % GROUP == 0 {
                text.push('-');
            }
            let bit = number * 5;
            // Five bits out of two bytes; what lies beyond the last byte is zero.
            let high = u16::from(bytes[bit / 8]) << 8;
            let low = bytes.get(bit / 8 + 1).copied().map_or(0, u16::from);
            text.push(char::from(ALPHABET[usize::from((high | low) >> (11 - bit % 8)) & 31]));
        }
        UnlockKey(text)
    }

    /// The text: what LUKS is given, and what a person types.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for UnlockKey {
    type Error = BadText;

    fn try_from(text: String) -> Result<Self, BadText> {
        let text = Zeroizing::new(text);
        let fits = |(at, byte): (usize, u8)| match at % (GROUP + 1) {
            GROUP => byte == b'-',
            _ => ALPHABET.contains(&byte),
        };
        // What it is instead is not shown: it may be a secret all the same.
        if text.len() == Self::LEN && text.bytes().enumerate().all(fits) {
            Ok(UnlockKey(text))
        } else {
            Err(BadText("this is no key: 13 groups of four of A-Z and 2-7, with hyphens between".into()))
        }
    }
}

impl Serialize for UnlockKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for UnlockKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
    }
}

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKey(…)")
    }
}

#[cfg(feature = "schema")]
impl utoipa::PartialSchema for UnlockKey {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        crate::schema::text(
            "32 random bytes in base32, 13 groups of four: what unlocks a disk. A secret.",
            UnlockKey::PATTERN,
        )
    }
}

#[cfg(feature = "schema")]
impl utoipa::ToSchema for UnlockKey {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_base32_in_groups_of_four() {
        let mut bytes = [0; UnlockKey::BYTES];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = at as u8;
        }
        // As `base32` of coreutils writes it.
        let plain = "AAAQEAYEAUDAOCAJBIFQYDIOB4IBCEQTCQKRMFYYDENBWHA5DYPQ";
        let groups: Vec<_> = plain.as_bytes().chunks(4).map(String::from_utf8_lossy).collect();
        assert_eq!(UnlockKey::of(&bytes).reveal(), groups.join("-"));
        assert_eq!(UnlockKey::of(&[0xff; UnlockKey::BYTES]).reveal()[..5], *"7777-");
    }

    #[test]
    fn a_key_is_read_as_it_was_written_and_only_so_and_never_shown() {
        let key = UnlockKey::of(&[7; UnlockKey::BYTES]);
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<UnlockKey>(&json).unwrap(), key);
        assert_eq!(format!("{key:?}"), "UnlockKey(…)");
        let good = key.reveal();
        for bad in ["".into(), good[1..].to_owned(), format!("{good}A"), good.to_lowercase(), good.replace('-', " ")] {
            let error = UnlockKey::try_from(bad.clone()).unwrap_err();
            assert!(bad.is_empty() || !error.to_string().contains(&bad), "{error}");
        }
    }
}
