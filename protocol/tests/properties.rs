//! Properties of what agent and orchestrator say to each other: what is written is read again, and damage to it is an
//! error or something that can be written again.

#![allow(clippy::unwrap_used)]

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::Index;
use protocol::event::Event;
use protocol::spec::{
    HandOver, ImageSpec, IpsecDemand, MAX_CONNECTIONS, MAX_EPOCH, MAX_SOURCES, MAX_TRUST, MIN_PATHS, Options,
    REQUEST_SIZE, TargetSpec,
};
use protocol::{BusId, Digest, Label, Lun, RunId, RunSpec, ServerName, Token, Wwid, Wwpn};
use serde_json::json;

fn digest() -> impl Strategy<Value = Digest> {
    "[0-9a-f]{64}".prop_map(|hex| Digest::try_from(format!("sha256:{hex}")).unwrap())
}

fn run_id() -> impl Strategy<Value = RunId> {
    "[A-Za-z0-9][A-Za-z0-9._-]{0,63}".prop_map(|id| RunId::try_from(id).unwrap())
}

fn image() -> impl Strategy<Value = ImageSpec> {
    let texts = (
        "[a-z0-9][a-z0-9._-]{0,127}",
        "[a-z0-9_]{1,32}",
        vec("\\PC{0,20}", 1..=MAX_SOURCES),
        vec("/\\PC{0,9}", 1..=MAX_TRUST),
    );
    (texts, of(digest()), any::<Option<u64>>(), any::<Index>()).prop_map(
        |((name, architecture, sources, trust), digest, min_version, threshold)| {
            let threshold = Some(1 + threshold.index(trust.len()));
            let trust = trust.into_iter().map(Into::into).collect();
            ImageSpec { name, architecture, digest, min_version, sources, trust, threshold }
        },
    )
}

/// As JSON, so that an option that is new need not stand here.
fn options() -> impl Strategy<Value = Options> {
    let engine = proptest::sample::select(vec!["auto", "uring", "direct", "buffered"]);
    (engine, any::<bool>(), of(1..=MAX_CONNECTIONS), of(REQUEST_SIZE)).prop_map(
        |(engine, read_back, connections, request_size)| {
            let options = json!({"engine": engine, "read_back": read_back, "connections": connections, "request_size": request_size});
            serde_json::from_value(options).unwrap()
        },
    )
}

/// As JSON, for the same reason.
fn target() -> impl Strategy<Value = TargetSpec> {
    let fcp = ("0\\.[0-3]\\.[0-9a-f]{4}", of(("0x[0-9a-f]{16}", "0x[0-9a-f]{16}"))).prop_map(|(adapter, way)| {
        let (wwpn, lun) = way.unzip();
        json!({"adapter": adapter, "wwpn": wwpn, "lun": lun})
    });
    let ways = proptest::collection::btree_map("[a-z]", fcp, 0..4).prop_map(|ways| {
        let mut ways: Vec<_> = ways.into_values().collect();
        ways.dedup();
        ways
    });
    let lun = ("[0-9A-Za-z][0-9A-Za-z._-]{0,60}", ways, MIN_PATHS, 1..=3600u64);
    let lun = lun.prop_map(|(wwid, fcp, min_paths, wait)| {
        json!({"lun": {"wwid": wwid, "fcp": fcp, "min_paths": min_paths, "wait": wait}, "reservation": "prefer"})
    });
    let place = prop_oneof!["/\\PC{0,30}".prop_map(|device| json!({ "device": device })), lun];
    let luks = prop_oneof![
        Just(json!({})),
        Just(json!({"cipher": "serpent-xts-plain64", "key_size": 256, "discards": true})),
        (1000..9999u32).prop_map(|iterations| json!({"pbkdf": {"type": "pbkdf2", "iterations": iterations}})),
        Just(json!({"pbkdf": {"type": "argon2id", "memory": 1024, "time": 4, "parallel": 1}})),
    ];
    let layout = prop_oneof![
        Just(json!({"layout": "plain"})),
        (luks, any::<bool>())
            .prop_map(|(luks, whole)| json!({"layout": if whole { "whole" } else { "split" }, "luks": luks})),
    ];
    let rest = (any::<bool>(), of(proptest::sample::select(vec!["zero", "keep", "discard"])));
    (place, layout, rest).prop_filter_map("a way is named twice", |(place, layout, (wipe, tail))| {
        let mut target = place.as_object().cloned().unwrap();
        target.extend(layout.as_object().cloned().unwrap());
        target.extend([("wipe".to_owned(), json!(wipe)), ("tail".to_owned(), json!(tail))]);
        serde_json::from_value(target.into()).ok()
    })
}

fn spec() -> impl Strategy<Value = RunSpec> {
    (run_id(), 1..=MAX_EPOCH, image(), target(), options()).prop_filter_map(
        "it contradicts itself",
        |(run, epoch, image, target, options)| {
            let spec = RunSpec {
                run,
                epoch,
                image,
                target,
                key: Default::default(),
                options,
                ipsec: IpsecDemand::Required,
                hand_over: HandOver::None,
            };
            spec.check().is_ok().then_some(spec)
        },
    )
}

/// Bytes with some of them taken out and others put in.
fn damaged(text: &str, edits: &[(Index, usize, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for (at, remove, insert) in edits {
        let at = at.index(bytes.len() + 1);
        let end = (at + remove).min(bytes.len());
        bytes.splice(at..end, insert.iter().copied());
    }
    bytes
}

fn edits() -> impl Strategy<Value = Vec<(Index, usize, Vec<u8>)>> {
    let words = vec!["null", "-1", "0", "{}", "[]", "\"\"", "18446744073709551616", ",", "\"kind\":\"progress\","];
    let word = proptest::sample::select(words).prop_map(|word| word.as_bytes().to_vec());
    vec((any::<Index>(), 0..9usize, prop_oneof![vec(any::<u8>(), 0..4), word]), 1..4)
}

type Takes = fn(String) -> bool;

/// A text that fits the pattern of a type, and whether that takes it.
fn fitting() -> impl Strategy<Value = (Takes, String)> {
    fn of<T: TryFrom<String>>(pattern: &'static str) -> impl Strategy<Value = (Takes, String)> {
        let takes: Takes = |text| T::try_from(text).is_ok();
        // Without its anchors: proptest makes whole texts only.
        let whole = &pattern[1..pattern.len() - 1];
        whole.prop_map(move |text| (takes, text))
    }
    prop_oneof![
        of::<RunId>(RunId::PATTERN),
        of::<Digest>(Digest::PATTERN),
        of::<Wwid>(Wwid::PATTERN),
        of::<BusId>(BusId::PATTERN),
        of::<Wwpn>(Wwpn::PATTERN),
        of::<Lun>(Lun::PATTERN),
        of::<ServerName>(ServerName::PATTERN),
        of::<Label>(Label::PATTERN),
        of::<Token>(Token::PATTERN),
    ]
}

proptest! {
    #[test]
    fn a_run_spec_is_read_as_it_is_written(spec in spec()) {
        let text = serde_json::to_string(&spec).unwrap();
        prop_assert_eq!(RunSpec::parse(text.as_bytes()), Ok(spec));
    }

    #[test]
    fn a_damaged_run_spec_is_refused_or_keeps_the_rules(spec in spec(), edits in edits()) {
        let text = serde_json::to_string(&spec).unwrap();
        if let Ok(found) = RunSpec::parse(&damaged(&text, &edits)) {
            prop_assert!(found.check().is_ok());
            prop_assert!((1..=found.image.trust.len()).contains(&found.image.threshold()));
            prop_assert!(found.target.place().is_some() && found.epoch > 0);
            let again = serde_json::to_string(&found).unwrap();
            prop_assert_eq!(RunSpec::parse(again.as_bytes()), Ok(found));
        }
    }

    /// A key that is not known, wherever it stands, is refused: a run spec says everything or nothing.
    #[test]
    fn an_unknown_key_is_refused_in_every_object(spec in spec(), key in "[a-z_]{1,12}x", place in any::<Index>()) {
        let text = serde_json::to_string(&spec).unwrap();
        let objects = ["{", "\"image\":{", "\"target\":{", "\"options\":{"];
        let object = objects[place.index(objects.len())];
        let changed = text.replacen(object, &format!("{object}\"{key}\":1,"), 1);
        prop_assert_ne!(&changed, &text);
        prop_assert!(RunSpec::parse(changed.as_bytes()).is_err(), "{}", changed);
    }

    #[test]
    fn texts_with_rules_are_what_was_read_or_refused(text in "(sha256:)?[0-9a-zA-Z._/é-]{0,70}") {
        if let Ok(digest) = Digest::try_from(text.clone()) {
            prop_assert_eq!(digest.as_str(), &text);
            prop_assert_eq!(text.len(), 71);
        }
        if let Ok(id) = RunId::try_from(text.clone()) {
            prop_assert_eq!(id.as_str(), &text);
            prop_assert!(!text.contains('/') && text.is_ascii() && (1..=64).contains(&text.len()));
        }
    }

    /// The other direction, that a type takes nothing else, is tested where schemas are compared with values.
    #[test]
    fn a_text_that_fits_its_pattern_is_taken((takes, text) in fitting()) {
        prop_assert!(takes(text.clone()), "{:?}", text);
    }

    /// Events come from another program: whatever is read can be written and read again as the same.
    #[test]
    fn a_damaged_event_is_refused_or_can_be_written_again(edits in edits(), which in any::<Index>()) {
        let texts = [
            r#"{"run":"r","attempt":1,"index":0,"at":0.5,"time":"t","event":{"kind":"progress","phase":"stream","step":"write","bytes":1,"total_bytes":2,"chunks":3,"total_chunks":4,"rates":{"source":1,"decode":2,"write":3,"read_back":4},"limited_by":"write","eta_seconds":9}}"#,
            r#"{"run":"r","attempt":1,"index":7,"at":1.5,"time":"t","event":{"kind":"run-failed","phase":"image","error":"image","exit_code":3,"message":"m","hint":"h","causes":["c"],"retryable":false,"target":"untouched"}}"#,
            r#"{"run":"r","attempt":1,"index":8,"at":2.0,"time":"t","event":{"kind":"x-new","a":[1,{"b":null}]}}"#,
        ];
        let text = texts[which.index(texts.len())];
        prop_assert!(serde_json::from_str::<Event>(text).is_ok());
        if let Ok(found) = serde_json::from_slice::<Event>(&damaged(text, &edits)) {
            let again = serde_json::to_string(&found).unwrap();
            prop_assert!(!again.contains('\n'));
            // Not compared as a whole: seconds are doubles, of which serde_json reads the last bit as it likes.
            let read: Event = serde_json::from_str(&again).unwrap();
            prop_assert_eq!((&read.run, read.attempt, read.index), (&found.run, found.attempt, found.index));
            prop_assert_eq!(std::mem::discriminant(&read.event), std::mem::discriminant(&found.event));
        }
    }
}
