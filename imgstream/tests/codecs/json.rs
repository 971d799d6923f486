//! Strict JSON.

use imgstream::manifest::strict;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value};

use crate::damage::{damaged, edits};

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            vec(("[a-dé\"\\\\\n]{0,3}", inner), 0..5)
                .prop_map(|members| members.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
}

fn object() -> impl Strategy<Value = Map<String, Value>> {
    vec(("[a-f]{0,3}", value()), 1..6).prop_map(|members| members.into_iter().collect())
}

proptest! {
    #[test]
    fn what_has_no_key_twice_is_read_as_everybody_reads_it(object in object()) {
        let text = serde_json::to_vec(&object).unwrap();
        prop_assert_eq!(strict::parse::<Map<String, Value>>(&text).unwrap(), object);
    }

    /// A key put in a second time, wherever an object is that has it, escaped or not.
    #[test]
    fn a_key_twice_is_refused_wherever_it_stands(
        object in object(),
        outer in vec(any::<bool>(), 0..20),
        place in any::<prop::sample::Index>(),
        escaped in any::<bool>(),
    ) {
        let text = serde_json::to_string(&object).unwrap();
        let (key, _) = object.iter().nth(place.index(object.len())).unwrap();
        let quoted = serde_json::to_string(key).unwrap();
        let again = match key.chars().next() {
            Some(first) if escaped => format!("\"\\u{:04x}{}\"", u32::from(first), &key[first.len_utf8()..]),
            _ => quoted,
        };
        let mut doubled = format!("{{{again}:0,{}", &text[1..]);
        for object in outer {
            doubled = if object { format!("{{\"x\":{doubled}}}") } else { format!("[{doubled}]") };
        }
        let whole = format!("{{\"whole\":{doubled}}}");
        let refused = strict::parse::<Map<String, Value>>(whole.as_bytes()).unwrap_err();
        prop_assert!(refused.to_string().contains("twice"), "{}", refused);
    }

    /// Never more than serde_json reads, and never anything else.
    #[test]
    fn damage_is_refused_or_read_as_everybody_reads_it(object in object(), edits in edits()) {
        let damaged = damaged(&serde_json::to_vec(&object).unwrap(), &edits);
        if let Ok(found) = strict::parse::<Map<String, Value>>(&damaged) {
            prop_assert_eq!(serde_json::from_slice::<Map<String, Value>>(&damaged).unwrap(), found);
        }
    }
}
