//! Strict JSON: one reading for every reader. No key twice in an object, and an object is an object: serde's derived
//! readers would also take an array of the fields in order.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

/// Reads one JSON object as a `T`.
///
/// # Errors
/// When the bytes are not one JSON value, a key stands twice in any object of it, or it is no `T`.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    envelope::distinct::value(bytes)?;
    let object: Object<T> = serde_json::from_slice(bytes)?;
    Ok(object.0)
}

/// A `T` that is written as an object, and read only from one. For fields: `#[serde(with = "strict::object")]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OnlyMap<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OnlyMap<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_map(OnlyMap(PhantomData)).map(Object)
    }
}

/// For a field that is an object.
pub mod object {
    use super::{Deserialize, Deserializer, Object, Serialize};

    /// As serde's `serialize_with`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<T: Serialize, S: serde::Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }

    /// As serde's `deserialize_with`.
    ///
    /// # Errors
    /// When it is no object, or no `T`.
    pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        Object::deserialize(deserializer).map(|object| object.0)
    }
}

/// For a field that is an object or absent (or null).
pub mod optional_object {
    use super::{Deserialize, Deserializer, Object, Serialize};

    /// As serde's `serialize_with`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<T: Serialize, S: serde::Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }

    /// As serde's `deserialize_with`.
    ///
    /// # Errors
    /// When it is no object, or no `T`.
    pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
        Option::<Object<T>>::deserialize(deserializer).map(|object| object.map(|object| object.0))
    }
}

/// For a field that is a list of objects.
pub mod objects {
    use super::{Deserialize, Deserializer, Object, Serialize};

    /// As serde's `serialize_with`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<T: Serialize, S: serde::Serializer>(value: &[T], serializer: S) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }

    /// As serde's `deserialize_with`.
    ///
    /// # Errors
    /// When an element is no object, or no `T`.
    pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
        let objects = Vec::<Object<T>>::deserialize(deserializer)?;
        Ok(objects.into_iter().map(|object| object.0).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        a: u32,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Outer {
        #[serde(with = "object")]
        one: Inner,
        #[serde(default, with = "optional_object")]
        maybe: Option<Inner>,
        #[serde(default, with = "objects")]
        many: Vec<Inner>,
    }

    impl Serialize for Inner {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_u32(self.a)
        }
    }

    #[test]
    fn an_object_is_an_object() {
        let good = br#"{"one":{"a":1},"many":[{"a":2}]}"#;
        assert_eq!(parse(good).ok(), Some(Outer { one: Inner { a: 1 }, maybe: None, many: vec![Inner { a: 2 }] }));
        let arrays = [
            &br#"[{"a":1}]"#[..],
            br#"{"one":[1]}"#,
            br#"{"one":{"a":1},"maybe":[1]}"#,
            br#"{"one":{"a":1},"many":[[1]]}"#,
        ];
        for bad in arrays {
            assert!(parse::<Outer>(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn a_key_stands_once_at_any_depth() {
        for bad in [&br#"{"one":{"a":1},"x":1,"x":1}"#[..], br#"{"one":{"a":1},"x":[{"y":1,"y":1}]}"#] {
            assert!(parse::<Outer>(bad).is_err_and(|error| error.to_string().contains("twice")));
        }
    }
}
