//! What a LUKS2 header must say: one segment, the cipher that was asked for, nothing half done.
//!
//! Source: "LUKS2 On-Disk Format Specification" 1.1.1, chapter 3 (the JSON area). Read from `cryptsetup luksDump
//! --dump-json-metadata`, which has checked the header's own checksum.

use std::fmt;

use serde_json::{Map, Value};

/// What a container must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// The cipher, as dm-crypt names it.
    pub cipher: String,
    /// Bits of the volume key.
    pub key_size: u32,
    /// Bytes of its sectors.
    pub sector_size: u32,
    /// Bytes its header takes.
    pub header_bytes: u64,
    /// Whether discards pass through it.
    pub discards: bool,
}

/// In what a header or a mapping differs from its [`Shape`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differs(String);

impl Differs {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Differs(what.into())
    }
}

impl fmt::Display for Differs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Compares a header's JSON with what it must say.
///
/// # Errors
/// The first difference.
pub fn check(json: &str, shape: &Shape) -> Result<(), Differs> {
    let metadata: Value = serde_json::from_str(json).map_err(|error| Differs(format!("it is no JSON: {error}")))?;
    check_config(&metadata["config"])?;
    check_segments(&metadata["segments"], shape)?;
    check_keyslots(&metadata["keyslots"], shape)?;
    match object(&metadata["tokens"])?.len() {
        0 => Ok(()),
        count => Err(Differs(format!("it has {count} tokens, which could give the key to somebody else"))),
    }
}

/// Whether no key at all opens the container.
pub fn has_no_keyslots(json: &str) -> bool {
    let metadata: Option<Value> = serde_json::from_str(json).ok();
    metadata.is_some_and(|metadata| metadata["keyslots"].as_object().is_some_and(Map::is_empty))
}

/// A header that asks for something special is one in the middle of a reencryption, or one that we do not know.
fn check_config(config: &Value) -> Result<(), Differs> {
    let list = |name: &str| match &config[name] {
        Value::Null => Vec::new(),
        Value::Array(all) => all.iter().map(|one| one.as_str().unwrap_or("?").to_owned()).collect(),
        Value::Object(parts) => parts.values().filter_map(Value::as_array).flatten().map(ToString::to_string).collect(),
        other => vec![other.to_string()],
    };
    let requirements = list("requirements");
    if !requirements.is_empty() {
        return Err(Differs(format!("it requires {}", requirements.join(", "))));
    }
    match list("flags").into_iter().find(|flag| flag != "allow-discards") {
        Some(flag) => Err(Differs(format!("it has the flag {flag}"))),
        None => Ok(()),
    }
}

fn check_segments(segments: &Value, shape: &Shape) -> Result<(), Differs> {
    let segments = object(segments)?;
    let [segment] = segments.values().collect::<Vec<_>>()[..] else {
        return Err(Differs(format!("it has {} segments instead of one", segments.len())));
    };
    let text = |name: &str| segment[name].as_str().unwrap_or("nothing");
    let expected = [
        ("type", "crypt".to_owned()),
        ("offset", shape.header_bytes.to_string()),
        ("size", "dynamic".to_owned()),
        ("iv_tweak", "0".to_owned()),
        ("encryption", shape.cipher.clone()),
    ];
    if let Some((name, wanted)) = expected.iter().find(|(name, wanted)| text(name) != *wanted) {
        return Err(Differs(format!("its segment's {name} is {:?} instead of {wanted:?}", text(name))));
    }
    if segment["sector_size"].as_u64() != Some(shape.sector_size.into()) {
        let (found, wanted) = (&segment["sector_size"], shape.sector_size);
        return Err(Differs(format!("its segment's sector_size is {found} instead of {wanted}")));
    }
    let known = ["type", "offset", "size", "iv_tweak", "encryption", "sector_size"];
    match object(segment)?.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(Differs(format!("its segment has {name}"))),
        None => Ok(()),
    }
}

fn check_keyslots(keyslots: &Value, shape: &Shape) -> Result<(), Differs> {
    let keyslots = object(keyslots)?;
    let [slot] = keyslots.values().collect::<Vec<_>>()[..] else {
        return Err(Differs(format!("it has {} key slots instead of one: another key may open it", keyslots.len())));
    };
    if slot["type"].as_str() != Some("luks2") {
        return Err(Differs(format!("its key slot is of type {}", slot["type"])));
    }
    if slot["key_size"].as_u64() != Some(u64::from(shape.key_size / 8)) {
        let (found, wanted) = (&slot["key_size"], shape.key_size / 8);
        return Err(Differs(format!("its key slot holds {found} bytes instead of {wanted}")));
    }
    Ok(())
}

fn object(value: &Value) -> Result<&Map<String, Value>, Differs> {
    value.as_object().ok_or_else(|| Differs(format!("{value} stands where an object belongs")))
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(in crate::luks) fn shape() -> Shape {
        Shape {
            cipher: "aes-xts-plain64".into(),
            key_size: 512,
            sector_size: 4096,
            header_bytes: 16 << 20,
            discards: false,
        }
    }

    /// As cryptsetup 2.7 makes it.
    fn metadata() -> Value {
        json!({
            "keyslots": {"0": {
                "type": "luks2", "key_size": 64,
                "af": {"type": "luks1", "stripes": 4000, "hash": "sha256"},
                "area": {"type": "raw", "offset": "32768", "size": "258048", "encryption": "aes-xts-plain64", "key_size": 64},
                "kdf": {"type": "pbkdf2", "hash": "sha256", "iterations": 1000, "salt": "AAAA"}
            }},
            "tokens": {},
            "segments": {"0": {
                "type": "crypt", "offset": "16777216", "size": "dynamic", "iv_tweak": "0",
                "encryption": "aes-xts-plain64", "sector_size": 4096
            }},
            "digests": {"0": {"type": "pbkdf2", "keyslots": ["0"], "segments": ["0"], "hash": "sha256", "iterations": 1000, "salt": "A", "digest": "A"}},
            "config": {"json_size": "12288", "keyslots_size": "16744448"}
        })
    }

    fn difference(change: impl Fn(&mut Value)) -> String {
        let mut metadata = metadata();
        change(&mut metadata);
        check(&metadata.to_string(), &shape()).map_or_else(|differs| differs.to_string(), |()| "none".into())
    }

    #[test]
    fn what_was_asked_for_is_accepted() {
        assert_eq!(difference(|_| ()), "none");
        assert_eq!(difference(|metadata| metadata["config"]["flags"] = json!(["allow-discards"])), "none");
    }

    #[test]
    fn destroyed_key_slots_are_none() {
        let mut metadata = metadata();
        assert!(!has_no_keyslots(&metadata.to_string()));
        metadata["keyslots"] = json!({});
        assert!(has_no_keyslots(&metadata.to_string()) && !has_no_keyslots("{}"));
    }

    #[test]
    fn a_cipher_that_encrypts_nothing_is_refused() {
        let found = difference(|metadata| metadata["segments"]["0"]["encryption"] = json!("cipher_null-ecb"));
        assert!(found.contains("encryption is \"cipher_null-ecb\""), "{found}");
    }

    #[test]
    fn a_second_segment_is_refused() {
        let found = difference(|metadata| {
            metadata["segments"]["1"] = json!({"type": "linear", "offset": "16777216", "size": "dynamic"});
        });
        assert!(found.contains("2 segments"), "{found}");
    }

    #[test]
    fn a_reencryption_that_would_continue_is_refused() {
        let required =
            difference(|metadata| metadata["config"]["requirements"] = json!({"mandatory": ["online-reencrypt-v2"]}));
        assert!(required.contains("online-reencrypt-v2"), "{required}");
        let flagged = difference(|metadata| metadata["segments"]["0"]["flags"] = json!(["in-reencryption"]));
        assert!(flagged.contains("has flags"), "{flagged}");
        let slot = difference(|metadata| metadata["keyslots"]["0"]["type"] = json!("reencrypt"));
        assert!(slot.contains("reencrypt"), "{slot}");
    }

    #[test]
    fn every_other_edit_is_refused() {
        let edits: [(&str, &str, Value); 12] = [
            ("/segments/0", "offset", json!("8388608")),
            ("/segments/0", "size", json!("4096")),
            ("/segments/0", "iv_tweak", json!("8")),
            ("/segments/0", "type", json!("linear")),
            ("/segments/0", "sector_size", json!(512)),
            ("/segments/0", "integrity", json!({"type": "hmac(sha256)"})),
            ("", "segments", json!({})),
            ("", "segments", json!(null)),
            ("/keyslots", "1", json!({"type": "luks2", "key_size": 64})),
            ("/keyslots/0", "key_size", json!(32)),
            ("/tokens", "0", json!({"type": "clevis", "keyslots": ["0"]})),
            ("/config", "flags", json!(["no-journal"])),
        ];
        for (at, name, value) in edits {
            let found = difference(|metadata| metadata.pointer_mut(at).unwrap()[name] = value.clone());
            assert_ne!(found, "none", "{at}/{name} = {value}");
        }
        assert!(check("{", &shape()).is_err());
    }
}
