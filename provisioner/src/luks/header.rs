//! What a LUKS2 header must say: one segment and one key slot, encrypted as was asked for, nothing half done.
//!
//! The slot counts as much as the segment. One whose area is "encrypted" by the null cipher is opened by any passphrase, and hands
//! out a volume key that whoever wrote the header has chosen (CVE-2025-59054).
//!
//! Source: "LUKS2 On-Disk Format Specification" 1.1.1, chapter 3 (the JSON area). Read from `cryptsetup luksDump
//! --dump-json-metadata`, which has checked the header's own checksum.

use std::fmt;

use protocol::spec::Pbkdf;
use serde_json::{Map, Value, json};

/// What encrypts the volume key in a key slot, whatever the cipher of the data is.
pub const SLOT_CIPHER: &str = "aes-xts-plain64";
/// Bits of the key for [`SLOT_CIPHER`].
pub const SLOT_KEY_SIZE: u32 = 512;
/// The hash of everything in a header that has one.
pub const HASH: &str = "sha256";
/// Stripes of the anti-forensic splitter: cryptsetup knows no other number.
const STRIPES: u32 = 4000;

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
    /// How the passphrase becomes a key.
    pub pbkdf: Pbkdf,
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
    check_config(&metadata["config"], shape)?;
    check_segments(&metadata["segments"], shape)?;
    check_keyslots(&metadata["keyslots"], shape)?;
    check_digests(&metadata)?;
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

/// Whether the installed system will pass discards on. One that was asked to, and whose header does not say so yet, was being made
/// when the power went.
pub fn passes_discards(json: &str) -> bool {
    let metadata: Option<Value> = serde_json::from_str(json).ok();
    metadata.is_some_and(|metadata| list(&metadata["config"], "flags").iter().any(|flag| flag == ALLOW_DISCARDS))
}

const ALLOW_DISCARDS: &str = "allow-discards";

fn list(config: &Value, name: &str) -> Vec<String> {
    match &config[name] {
        Value::Null => Vec::new(),
        Value::Array(all) => all.iter().map(|one| one.as_str().unwrap_or("?").to_owned()).collect(),
        Value::Object(parts) => parts.values().filter_map(Value::as_array).flatten().map(ToString::to_string).collect(),
        other => vec![other.to_string()],
    }
}

/// A header that asks for something special is one in the middle of a reencryption, or one that we do not know.
fn check_config(config: &Value, shape: &Shape) -> Result<(), Differs> {
    let requirements = list(config, "requirements");
    if !requirements.is_empty() {
        return Err(Differs(format!("it requires {}", requirements.join(", "))));
    }
    let is_allowed = |flag: &String| flag == ALLOW_DISCARDS && shape.discards;
    match list(config, "flags").into_iter().find(|flag| !is_allowed(flag)) {
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
    let fixed = [
        ("/type", json!("luks2")),
        ("/key_size", json!(shape.key_size / 8)),
        ("/af/type", json!("luks1")),
        ("/af/stripes", json!(STRIPES)),
        ("/af/hash", json!(HASH)),
        ("/area/type", json!("raw")),
        ("/area/encryption", json!(SLOT_CIPHER)),
        ("/area/key_size", json!(SLOT_KEY_SIZE / 8)),
    ];
    for (place, wanted) in fixed {
        let found = slot.pointer(place).unwrap_or(&Value::Null);
        if *found != wanted {
            let name = place.replace('/', " ");
            return Err(Differs(format!("its key slot's{name} is {found} instead of {wanted}")));
        }
    }
    check_kdf(&slot["kdf"], &shape.pbkdf)?;
    let known = ["type", "key_size", "af", "area", "kdf"];
    match object(slot)?.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(Differs(format!("its key slot has {name}"))),
        None => Ok(()),
    }
}

/// cryptsetup takes less memory and fewer threads than it was told where the machine has not as many.
fn check_kdf(kdf: &Value, wanted: &Pbkdf) -> Result<(), Differs> {
    let is = |name: &str, wanted: &dyn Fn(u64) -> bool| kdf[name].as_u64().is_some_and(wanted);
    let fits = match wanted {
        Pbkdf::Pbkdf2 { iterations } => {
            kdf["type"] == "pbkdf2" && kdf["hash"] == HASH && is("iterations", &|found| found == u64::from(*iterations))
        }
        Pbkdf::Argon2id { memory, time, parallel } => {
            kdf["type"] == "argon2id"
                && is("time", &|found| found == u64::from(*time))
                && is("memory", &|found| found <= u64::from(*memory))
                && is("cpus", &|found| found <= u64::from(*parallel))
        }
    };
    if fits { Ok(()) } else { Err(Differs(format!("its key slot's kdf is {kdf}, which was not asked for"))) }
}

/// What says that a volume key is the right one must speak of the one slot and the one segment.
fn check_digests(metadata: &Value) -> Result<(), Differs> {
    let digests = object(&metadata["digests"])?;
    let [digest] = digests.values().collect::<Vec<_>>()[..] else {
        return Err(Differs(format!("it has {} digests instead of one", digests.len())));
    };
    for part in ["keyslots", "segments"] {
        let named: Value = object(&metadata[part])?.keys().cloned().collect();
        if digest[part] != named {
            return Err(Differs(format!("its digest is of {part} {} instead of {named}", digest[part])));
        }
    }
    if digest["type"] != "pbkdf2" || digest["hash"] != HASH {
        return Err(Differs(format!("its digest is of type {} and hash {}", digest["type"], digest["hash"])));
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
            pbkdf: Pbkdf::Pbkdf2 { iterations: 1000 },
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
        let mut metadata = metadata();
        assert!(!passes_discards(&metadata.to_string()));
        metadata["config"]["flags"] = json!(["allow-discards"]);
        assert!(passes_discards(&metadata.to_string()));
        assert!(check(&metadata.to_string(), &shape()).is_err(), "discards were not asked for");
        assert_eq!(check(&metadata.to_string(), &Shape { discards: true, ..shape() }), Ok(()));
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
    fn a_key_slot_that_hands_out_somebody_elses_key_is_refused() {
        let null = difference(|metadata| metadata["keyslots"]["0"]["area"]["encryption"] = json!("cipher_null-ecb"));
        assert_eq!(null, r#"its key slot's area encryption is "cipher_null-ecb" instead of "aes-xts-plain64""#);
        let kdf = difference(|metadata| metadata["keyslots"]["0"]["kdf"]["iterations"] = json!(1));
        assert!(kdf.contains("was not asked for"), "{kdf}");
    }

    #[test]
    fn argon2id_may_have_had_less_of_the_machine_and_nothing_else() {
        let wanted = Pbkdf::Argon2id { memory: 65536, time: 4, parallel: 4 };
        let of = |time: u32, memory: u32, cpus: u32| {
            let kdf = json!({"type": "argon2id", "time": time, "memory": memory, "cpus": cpus, "salt": "AAAA"});
            check_kdf(&kdf, &wanted)
        };
        assert_eq!((of(4, 65536, 4), of(4, 32768, 1)), (Ok(()), Ok(())));
        for other in [of(3, 65536, 4), of(4, 65537, 4), of(4, 65536, 5)] {
            assert!(other.is_err());
        }
        assert!(check_kdf(&json!({"type": "pbkdf2", "hash": "sha256", "iterations": 4}), &wanted).is_err());
    }

    #[test]
    fn every_other_edit_is_refused() {
        let edits: [(&str, &str, Value); 21] = [
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
            ("/keyslots/0", "priority", json!(2)),
            ("/keyslots/0/af", "stripes", json!(1)),
            ("/keyslots/0/af", "hash", json!("sha1")),
            ("/keyslots/0/area", "key_size", json!(32)),
            ("/keyslots/0/kdf", "type", json!("argon2id")),
            ("", "digests", json!({})),
            ("/digests/0", "segments", json!([])),
            ("/digests/0", "keyslots", json!(["1"])),
            ("/digests/0", "hash", json!("sha1")),
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
