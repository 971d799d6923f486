//! No key twice in an object of JSON, at any depth: two readers could disagree on which one counts.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Refuses what is not one JSON value, or has a key twice in an object.
///
/// # Errors
/// Those, with the key and the place.
pub fn value(bytes: &[u8]) -> serde_json::Result<()> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    BELOW.deserialize(&mut deserializer)?;
    deserializer.end()
}

/// As [`value`], and refuses what is no object: derived readers take a list for one.
///
/// # Errors
/// Those of [`value`], and that it is no object.
pub fn object(bytes: &[u8]) -> serde_json::Result<()> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    deserializer.deserialize_map(Distinct { only_objects: true })?;
    deserializer.end()
}

#[derive(Clone, Copy)]
struct Distinct {
    only_objects: bool,
}

const BELOW: Distinct = Distinct { only_objects: false };

impl<'de> DeserializeSeed<'de> for Distinct {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Distinct {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.only_objects { "an object" } else { "JSON" })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = Seen::default();
        while let Some(Key(key)) = map.next_key()? {
            if let Some(twice) = seen.add(key) {
                return Err(A::Error::custom(format_args!("the key {twice:?} stands twice in one object")));
            }
            map.next_value_seed(BELOW)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(BELOW)?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A key, copied only where it is not written plainly.
struct Key<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }

            fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// Keys that are looked through one by one: more are hashed.
const FEW: usize = 24;

/// The keys of an object so far.
#[derive(Default)]
struct Seen<'de> {
    few: Vec<Cow<'de, str>>,
    many: HashSet<Cow<'de, str>>,
}

impl<'de> Seen<'de> {
    /// Adds a key; gives it back where it is there already.
    fn add(&mut self, key: Cow<'de, str>) -> Option<Cow<'de, str>> {
        if self.few.contains(&key) || self.many.contains(&key) {
            return Some(key);
        }
        if self.few.len() < FEW {
            self.few.push(key);
        } else {
            self.many.insert(key);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stands_once_in_an_object() {
        object(br#"{"a": {"x": 1}, "b": {"x": [null, true, 1.5, -1, "x", {"a": 1}]}}"#).unwrap();
        for (text, says) in [
            (r#"{"a": 1, "a": 1}"#, "\"a\" stands twice"),
            (r#"{"a": [{"b": 1, "\u0062": 2}]}"#, "\"b\" stands twice"),
            (r#"[]"#, "expected an object"),
            (r#""text""#, "expected an object"),
            ("{} {}", "trailing"),
            ("", "EOF"),
        ] {
            let refusal = object(text.as_bytes()).unwrap_err().to_string();
            assert!(refusal.contains(says), "{text}: {refusal}");
        }
        let keys = |last: usize| {
            let keys: Vec<String> = (0..100).chain([last]).map(|key| format!("\"key {key}\": 0")).collect();
            format!("{{{}}}", keys.join(","))
        };
        object(keys(100).as_bytes()).unwrap();
        for (known, says) in [(0, "\"key 0\""), (99, "\"key 99\"")] {
            assert!(object(keys(known).as_bytes()).unwrap_err().to_string().contains(says));
        }
        assert!(object("[".repeat(10_000).as_bytes()).is_err(), "deep nesting must be refused, not followed");
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(object(deep.as_bytes()).is_err(), "deep nesting must be refused, not followed");
    }
}
