//! The example of a run spec in `docs/operating.md` is read by the code it documents.

#![allow(clippy::unwrap_used)]

use protocol::RunSpec;
use protocol::spec::Options;

const OPERATING: &str = include_str!("../../docs/operating.md");

fn example() -> &'static str {
    let (_, rest) = OPERATING.split_once("```json\n").unwrap();
    rest.split_once("\n```").unwrap().0
}

#[test]
fn the_example_is_a_run_spec() {
    let spec = RunSpec::parse(example().as_bytes()).unwrap();
    for source in &spec.image.sources {
        source.parse::<imgstream::source::Locator>().unwrap();
    }
    spec.image.digest.unwrap().as_str().parse::<imgstream::digest::Digest>().unwrap();
    spec.options.engine.name().parse::<imgstream::sink::EngineChoice>().unwrap();
}

/// The names of all keys, with those of the objects they are in.
fn paths(value: &serde_json::Value, name: &str) -> Vec<String> {
    let own = Some(name.to_owned()).filter(|name| name.contains('.') || !value.is_object());
    let below: Vec<String> = match value {
        serde_json::Value::Object(object) => object
            .iter()
            .flat_map(|(key, value)| paths(value, format!("{name}.{key}").trim_start_matches('.')))
            .collect(),
        serde_json::Value::Array(list) => list.iter().flat_map(|value| paths(value, name)).collect(),
        _ => Vec::new(),
    };
    own.into_iter().chain(below).collect()
}

/// The example shows every key there is, and the table explains each.
#[test]
fn every_key_is_shown_and_explained() {
    let shown: serde_json::Value = serde_json::from_str(example()).unwrap();
    let read = serde_json::to_value(RunSpec::parse(example().as_bytes()).unwrap()).unwrap();
    assert_eq!(shown, read, "a key has a default and is not in the example");
    let all =
        Options { connections: Some(1), request_size: Some(1 << 20), stall_limit: Some(300), ..Options::default() };
    let all = serde_json::to_value(all).unwrap();
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&shown["options"]), keys(&all));
    for key in paths(&shown, "") {
        assert!(OPERATING.contains(&format!("`{key}`")), "{key} is not explained");
    }
    assert!(OPERATING.contains("| `run` |"));
}

#[test]
fn every_exit_code_has_a_chapter() {
    for code in [0, 2, 3, 4, 5, 6, 7, 8] {
        assert!(OPERATING.contains(&format!("\n### {code}: ")), "exit code {code}");
    }
}
