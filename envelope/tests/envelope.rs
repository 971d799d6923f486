//! What an envelope lets through, and what it does not.

// clippy's allowance for tests does not reach helper functions of integration tests.
#![allow(clippy::unwrap_used)]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use envelope::{
    Error, MAX_ENVELOPE, MAX_PAYLOAD, MAX_SIGNATURES, PublicKey, Role, SecretKey, Trust, add_signature, open, peek,
    sign,
};
use serde_json::{Value, json};

const PAYLOAD: &[u8] = b"{\"name\":\"rhel\"}";

fn keys<const N: usize>() -> [SecretKey; N] {
    std::array::from_fn(|_| SecretKey::generate().unwrap())
}

fn trust(keys: &[&SecretKey], threshold: usize) -> Trust {
    Trust::new(keys.iter().map(|key| key.public()).collect(), threshold).unwrap()
}

fn value(envelope: &[u8]) -> Value {
    serde_json::from_slice(envelope).unwrap()
}

/// An envelope by `key`, changed by `change`.
fn changed(key: &SecretKey, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut json = value(&sign(Role::Image, PAYLOAD, key));
    change(&mut json);
    json.to_string().into_bytes()
}

fn opens(envelope: &[u8], trust: &Trust) -> bool {
    match open(envelope, Role::Image, trust) {
        Ok(opened) => {
            assert_eq!(opened.payload(), PAYLOAD);
            true
        }
        Err(error) => {
            assert!(matches!(error, Error::NotEnoughSignatures { .. }), "{error}");
            false
        }
    }
}

#[test]
fn two_of_three() {
    let [a, b, c, stranger] = keys();
    let trust = trust(&[&a, &b, &c], 2);
    let one = sign(Role::Image, PAYLOAD, &b);
    assert!(!opens(&one, &trust));
    assert!(!opens(&add_signature(&one, Role::Image, &stranger).unwrap(), &trust));
    let two = add_signature(&one, Role::Image, &a).unwrap();
    assert!(opens(&two, &trust));
    let three = add_signature(&two, Role::Image, &stranger).unwrap();
    let opened = open(&three, Role::Image, &trust).unwrap();
    assert_eq!(opened.signers(), [b.public().id(), a.public().id()], "strangers are not named");
    assert_eq!(opened.into_payload(), PAYLOAD);
}

#[test]
fn an_empty_payload_is_one() {
    let [key] = keys();
    let opened = open(&sign(Role::Ticket, b"", &key), Role::Ticket, &trust(&[&key], 1)).unwrap();
    assert_eq!(opened.payload(), b"");
    assert_eq!(opened.into_payload(), b"");
}

#[test]
fn two_signatures_by_one_key_count_once() {
    let [a, b] = keys();
    let envelope = changed(&a, |json| {
        let mut again = json["signatures"][0].clone();
        again["keyid"] = b.public().id().to_string().into();
        json["signatures"].as_array_mut().unwrap().push(again);
    });
    assert!(opens(&envelope, &trust(&[&a, &b], 1)));
    assert!(!opens(&envelope, &trust(&[&a, &b], 2)));
}

#[test]
fn key_ids_are_hints_only() {
    let [a, b] = keys();
    let both = trust(&[&a, &b], 1);
    for claim in [json!(null), json!(""), json!("nonsense"), json!(b.public().id().to_string())] {
        assert!(opens(&changed(&a, |json| json["signatures"][0]["keyid"] = claim), &both));
    }
    let unnamed = changed(&a, |json| {
        json["signatures"][0].as_object_mut().unwrap().remove("keyid");
    });
    assert!(opens(&unnamed, &both));
    // A claim alone proves nothing.
    let claimed = changed(&a, |json| {
        json["signatures"][0]["keyid"] = b.public().id().to_string().into();
    });
    assert!(!opens(&claimed, &trust(&[&b], 1)));
}

#[test]
fn signatures_of_other_kinds_are_stepped_over() {
    let [key] = keys();
    let envelope = changed(&key, |json| {
        let signatures = json["signatures"].as_array_mut().unwrap();
        signatures.insert(0, json!({ "sig": STANDARD.encode([7; 71]), "keyid": "ecdsa" }));
        signatures.insert(0, json!({ "sig": "" }));
    });
    assert!(opens(&envelope, &trust(&[&key], 1)));
}

#[test]
fn a_role_is_not_another() {
    let [key] = keys();
    let image = sign(Role::Image, PAYLOAD, &key);
    let error = open(&image, Role::Ticket, &trust(&[&key], 1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected a ticket (payload type \"application/vnd.z-provisioner.ticket.v1+json\"), found payload type \
         \"application/vnd.z-provisioner.image.v1+json\"; give the envelope of a ticket"
    );
    assert!(matches!(peek(&image, Role::Ticket), Err(Error::WrongRole { .. })));
    assert!(matches!(add_signature(&image, Role::Ticket, &key), Err(Error::WrongRole { .. })));

    // The label on the envelope can be exchanged, the one under the signature cannot.
    let mut json = value(&image);
    json["payloadType"] = Role::Ticket.payload_type().into();
    let error = open(json.to_string().as_bytes(), Role::Ticket, &trust(&[&key], 1)).unwrap_err();
    assert!(matches!(error, Error::NotEnoughSignatures { valid: 0, .. }));
    // One payload type per role: nothing that merely looks alike.
    for alike in ["Application/vnd.z-provisioner.image.v1+json", "application/json", ""] {
        let envelope = changed(&key, |json| json["payloadType"] = alike.into());
        let error = open(&envelope, Role::Image, &trust(&[&key], 1)).unwrap_err();
        assert!(matches!(error, Error::WrongRole { .. }), "{alike}");
    }
}

#[test]
fn adding_a_signature_keeps_all_the_rest() {
    let [a, b] = keys();
    let before = changed(&a, |json| {
        json["annotation"] = json!({ "by": ["someone"] });
        json["signatures"][0]["cert"] = json!("kept");
        json["signatures"].as_array_mut().unwrap().push(json!({ "sig": "AAAA" }));
    });
    let mut after = value(&add_signature(&before, Role::Image, &b).unwrap());
    let added = after["signatures"].as_array_mut().unwrap().pop().unwrap();
    assert_eq!(after, value(&before));
    assert_eq!(added["keyid"], b.public().id().to_string());
}

#[test]
fn a_key_signs_once() {
    let [a, b] = keys();
    let again = |envelope: &[u8]| add_signature(envelope, Role::Image, &a);
    let error = again(&sign(Role::Image, PAYLOAD, &a)).unwrap_err();
    assert!(matches!(error, Error::AlreadySigned { key } if key == a.public().id()));
    // Told by the signature, not by the claim, in both directions.
    let disguised = changed(&a, |json| json["signatures"][0]["keyid"] = "other".into());
    assert!(matches!(again(&disguised), Err(Error::AlreadySigned { .. })));
    let squatted = changed(&b, |json| {
        json["signatures"][0]["keyid"] = a.public().id().to_string().into();
    });
    assert!(opens(&again(&squatted).unwrap(), &trust(&[&a, &b], 2)));
}

#[test]
fn sizes_and_counts_are_bounded() {
    let [a, b] = keys();
    let any = trust(&[&a], 1);
    let junk = json!({ "sig": "" });
    let full = changed(&a, |json| {
        json["signatures"].as_array_mut().unwrap().resize(MAX_SIGNATURES, junk.clone());
    });
    assert!(opens(&full, &any));
    assert!(matches!(
        add_signature(&full, Role::Image, &b),
        Err(Error::TooManySignatures { found, .. }) if found == MAX_SIGNATURES + 1
    ));
    let over = changed(&a, |json| {
        json["signatures"].as_array_mut().unwrap().resize(1000, junk);
    });
    let error = open(&over, Role::Image, &any).unwrap_err();
    assert!(matches!(error, Error::TooManySignatures { found: 1000, .. }), "{error}");

    let mut padded = sign(Role::Image, PAYLOAD, &a);
    padded.resize(MAX_ENVELOPE, b' ');
    assert!(opens(&padded, &any));
    padded.push(b' ');
    for error in [
        open(&padded, Role::Image, &any).unwrap_err(),
        peek(&padded, Role::Image).unwrap_err(),
        add_signature(&padded, Role::Image, &b).unwrap_err(),
    ] {
        assert!(matches!(error, Error::EnvelopeTooLarge { size, .. } if size == MAX_ENVELOPE + 1));
    }
}

#[test]
fn the_largest_payload_is_signed_and_opened() {
    let [a, b] = keys();
    let payload = vec![0xa5; MAX_PAYLOAD];
    let envelope = add_signature(&sign(Role::Image, &payload, &a), Role::Image, &b).unwrap();
    let opened = open(&envelope, Role::Image, &trust(&[&a, &b], 2)).unwrap();
    assert!(opened.into_payload() == payload);
}

#[test]
fn members_given_twice_are_refused_and_unknown_ones_ignored() {
    let [key] = keys();
    let any = trust(&[&key], 1);
    let text = String::from_utf8(sign(Role::Image, PAYLOAD, &key)).unwrap();
    let with = |members: &str| text.replacen('{', &format!("{{{members},"), 1);
    assert!(opens(with("\"x\":{\"y\":[1,{}]},\"Payload\":\"\"").as_bytes(), &any));
    assert!(opens(text.replace("{\"keyid\"", "{\"cert\":null,\"keyid\"").as_bytes(), &any));

    let twice = [
        with("\"payload\":\"\""),
        with("\"pa\\u0079load\":\"\""),
        with("\"payloadType\":\"\""),
        with("\"signatures\":[]"),
        with("\"x\":1,\"x\":2"),
        text.replace("{\"keyid\"", "{\"sig\":\"\",\"keyid\""),
        text.replace("{\"keyid\"", "{\"keyid\":\"\",\"keyid\""),
    ];
    for envelope in twice {
        let error = open(envelope.as_bytes(), Role::Image, &any).unwrap_err();
        assert!(error.to_string().contains("is given twice"), "{error}");
    }
    let many: String = (0..100).map(|n| format!(",\"x{n}\":0")).collect();
    let error = open(with(&many[1..]).as_bytes(), Role::Image, &any).unwrap_err();
    assert!(error.to_string().contains("more than 64 members"), "{error}");
}

#[test]
fn what_is_not_a_dsse_envelope_is_refused() {
    let [key] = keys();
    let any = trust(&[&key], 1);
    let text = String::from_utf8(sign(Role::Image, PAYLOAD, &key)).unwrap();
    let deep = format!("{{\"x\":{}", "[".repeat(100_000));
    let broken = [
        String::new(),
        "null".into(),
        "[]".into(),
        "{}".into(),
        format!("{text}x"),
        format!("\u{feff}{text}"),
        text[..text.len() - 1].into(),
        deep,
        // A derived reader would take these.
        format!("[\"{}\",\"\",[]]", Role::Image.payload_type()),
        text.replace("[{", "[[").replace("}]", "]]"),
    ];
    for envelope in broken {
        let error = open(envelope.as_bytes(), Role::Image, &any).unwrap_err();
        assert!(matches!(error, Error::Json { .. }), "{error}");
    }
    for member in ["payload", "payloadType", "signatures"] {
        for change in [None, Some(json!(null)), Some(json!(7))] {
            let envelope = changed(&key, |json| match change {
                Some(value) => json[member] = value,
                None => drop(json.as_object_mut().unwrap().remove(member)),
            });
            let error = open(&envelope, Role::Image, &any).unwrap_err();
            assert!(matches!(error, Error::Json { .. }), "{member}: {error}");
        }
    }
    for bad in ["A", "AAA", "AA=", "AB==", "A A=", "+-==", "AAAA\n", "====", "é"] {
        let payload = changed(&key, |json| json["payload"] = bad.into());
        let signature = changed(&key, |json| json["signatures"][0]["sig"] = bad.into());
        for (envelope, member) in [(payload, "payload"), (signature, "signature")] {
            let error = open(&envelope, Role::Image, &any).unwrap_err();
            assert!(matches!(error, Error::Base64 { field, .. } if field == member), "{bad}: {error}");
        }
    }
}

#[test]
fn peek_shows_what_is_claimed() {
    let [a, b] = keys();
    let envelope = changed(&a, |json| {
        json["payload"] = STANDARD.encode("forged").into();
        json["signatures"].as_array_mut().unwrap().push(json!({ "sig": "" }));
    });
    let seen = peek(&envelope, Role::Image).unwrap();
    assert_eq!(seen.payload_unverified(), b"forged");
    assert_eq!(seen.signature_count(), 2);
    assert_eq!(seen.claimed_key_ids(), [a.public().id().to_string(), String::new()]);
    assert!(open(&envelope, Role::Image, &trust(&[&a, &b], 1)).is_err());
}

#[test]
fn an_unsigned_envelope_is_never_enough() {
    let [key] = keys();
    let envelope = changed(&key, |json| json["signatures"] = json!([]));
    assert!(!opens(&envelope, &trust(&[&key], 1)));
    assert_eq!(peek(&envelope, Role::Image).unwrap().signature_count(), 0);
    assert!(opens(&add_signature(&envelope, Role::Image, &key).unwrap(), &trust(&[&key], 1)));
}

#[test]
fn a_trust_that_makes_no_sense_is_refused() {
    let [a, b] = keys();
    let trust = |keys: &[&SecretKey], threshold| Trust::new(keys.iter().map(|key| key.public()).collect(), threshold);
    assert!(matches!(trust(&[], 1), Err(Error::NoTrustedKeys)));
    assert!(matches!(trust(&[&a], 0), Err(Error::ZeroThreshold)));
    assert!(matches!(trust(&[&a, &b, &a], 3), Err(Error::ThresholdTooHigh { threshold: 3, keys: 2 })));
    let good = trust(&[&a, &b, &a], 2).unwrap();
    assert_eq!(good.threshold(), 2);
    assert_eq!(good.keys().len(), 2);
    assert!(good.keys().iter().map(PublicKey::id).is_sorted());
}

#[test]
fn too_few_signatures_are_explained() {
    let [a, b, stranger] = keys();
    let (a_id, b_id) = (a.public().id(), b.public().id());
    let mut envelope = add_signature(&sign(Role::Image, PAYLOAD, &a), Role::Image, &stranger).unwrap();
    let both = trust(&[&a, &b], 2);
    let trusted = both.keys().iter().map(|key| key.id().to_string()).collect::<Vec<_>>().join(", ");
    let message = |envelope: &[u8]| open(envelope, Role::Image, &both).unwrap_err().to_string();
    assert_eq!(
        message(&envelope),
        format!(
            "1 of 2 needed signatures are valid (trusted: {trusted}; the envelope carries signatures claiming keys \
             {a_id}, {}); have it signed with enough of the trusted keys, or trust the keys it is really signed with",
            stranger.public().id()
        )
    );
    assert!(!message(&envelope).contains(&format!("claiming keys {b_id}")));

    // Claims are anybody's text: escaped, shortened, and not all of them.
    let mut json = value(&envelope);
    let hostile = json!({ "sig": "", "keyid": format!("\u{1b}[2J{}", "x".repeat(10_000)) });
    json["signatures"] = Value::Array(vec![hostile; 20]);
    envelope = json.to_string().into_bytes();
    let text = message(&envelope);
    assert!(!text.contains('\u{1b}') && text.contains("and 12 more") && text.len() < 2000, "{text}");
}
