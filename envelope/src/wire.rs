//! The envelope's JSON. Read by hand and not with `derive`: a derived reader takes an array for an object, and does
//! not see when a member that it does not know is given twice.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::MAX_SIGNATURES;

/// The most members of one JSON object. DSSE has three; more than a few mean that somebody feeds us junk.
const MAX_MEMBERS: usize = 64;

#[derive(Default)]
pub(crate) struct WireEnvelope {
    pub(crate) payload_type: String,
    pub(crate) payload: String,
    pub(crate) signatures: WireSignatures,
}

#[derive(Default)]
pub(crate) struct WireSignature {
    pub(crate) keyid: String,
    pub(crate) sig: String,
}

/// Keeps no more than [`MAX_SIGNATURES`], counts all.
#[derive(Default)]
pub(crate) struct WireSignatures {
    pub(crate) first: Vec<WireSignature>,
    pub(crate) count: usize,
}

impl<'de> Deserialize<'de> for WireEnvelope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Object::<Self>::default())
    }
}

impl Members for WireEnvelope {
    const REQUIRED: &'static [&'static str] = &["payload", "payloadType", "signatures"];

    fn read<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "payload" => self.payload = map.next_value()?,
            "payloadType" => self.payload_type = map.next_value()?,
            "signatures" => self.signatures = map.next_value()?,
            _ => drop(map.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for WireSignature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Object::<Self>::default())
    }
}

impl Members for WireSignature {
    const REQUIRED: &'static [&'static str] = &["sig"];

    fn read<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            // DSSE treats an unset key id like an empty one; some writers say null for unset.
            "keyid" => self.keyid = map.next_value::<Option<String>>()?.unwrap_or_default(),
            "sig" => self.sig = map.next_value()?,
            _ => drop(map.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for WireSignatures {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = WireSignatures;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of signatures")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<WireSignatures, A::Error> {
                let mut all = WireSignatures::default();
                while all.first.len() < MAX_SIGNATURES {
                    let Some(signature) = seq.next_element()? else {
                        break;
                    };
                    all.first.push(signature);
                }
                all.count = all.first.len();
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    all.count += 1;
                }
                Ok(all)
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// A JSON object that is read member by member.
trait Members: Default {
    const REQUIRED: &'static [&'static str];

    /// Takes the value of the member `name` from `map`.
    fn read<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error>;
}

/// Reads a [`Members`]: each member at most once, the required ones exactly once.
#[derive(Default)]
struct Object<T>(T);

impl<'de, T: Members> Visitor<'de> for Object<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with the members {}", T::REQUIRED.join(", "))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<T, A::Error> {
        let mut seen: Vec<String> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if seen.contains(&name) {
                return Err(de::Error::custom(format_args!("the member {name:.64?} is given twice")));
            }
            if seen.len() == MAX_MEMBERS {
                return Err(de::Error::custom(format_args!("an object has more than {MAX_MEMBERS} members")));
            }
            self.0.read(&name, &mut map)?;
            seen.push(name);
        }
        match T::REQUIRED.iter().find(|name| !seen.iter().any(|seen| seen == *name)) {
            Some(missing) => Err(de::Error::missing_field(missing)),
            None => Ok(self.0),
        }
    }
}
