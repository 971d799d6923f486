//! `docs/operating.md` names every key of the service's configuration and of a run, every state, every wait and every problem.
#![allow(clippy::unwrap_used)] // tests

use std::collections::BTreeSet;
use std::time::Duration;

use orchestrator::config::{Config, Keys, Tls};
use orchestrator::metrics::{Metrics, Now, Tally};
use orchestrator::model::State;
use protocol::control::problem::Code;
use protocol::control::run::{NewRun, WaitsFor};
use serde_json::Value;

const OPERATING: &str = include_str!("../../docs/operating.md");

/// The chapter on the service.
fn chapter() -> &'static str {
    let (_, rest) = OPERATING.split_once("\n## The orchestrating service\n").unwrap();
    rest.split_once("\n## ").unwrap().0
}

/// The first cells of the tables below a heading, as they are written.
fn explained(heading: &str) -> Vec<String> {
    let (_, rest) = chapter().split_once(&format!("\n### {heading}\n")).unwrap();
    let section = rest.split_once("\n### ").map_or(rest, |(section, _)| section);
    let rows = section.lines().filter_map(|line| line.strip_prefix("| "));
    rows.flat_map(|row| row.split(" | ").next().unwrap().split(", ").map(|cell| cell.trim_matches('`').to_owned()))
        .collect()
}

fn keys(value: &Value, name: &str) -> Vec<String> {
    match value {
        // Names that people give are no keys.
        Value::Object(object) if !["limits.per_fabric", "kubernetes.fabrics"].contains(&name) => object
            .iter()
            .flat_map(|(key, value)| keys(value, format!("{name}.{key}").trim_start_matches('.')))
            .collect(),
        _ => vec![name.to_owned()],
    }
}

#[test]
fn every_key_of_the_configuration_is_explained() {
    let tls = Some(Tls { certificate: "c".into(), key: "k".into() });
    let vault = serde_json::from_str(r#"{"address": "a", "token_file": "t"}"#).unwrap();
    let keys_elsewhere = Keys { vault: Some(vault), ..Keys::default() };
    let config = serde_json::to_value(Config { tls, keys: keys_elsewhere, ..Config::default() }).unwrap();
    let explained = explained("Its configuration");
    let all = keys(&config, "");
    assert!(all.len() > 15, "{all:?}");
    for key in &all {
        assert!(explained.contains(key), "`{key}` is not explained");
    }
    let keys = explained.iter().filter(|key| *key != "key" && !key.starts_with('-'));
    assert!(
        keys.clone().all(|key| all.contains(key)),
        "{:?}",
        keys.filter(|key| !all.contains(key)).collect::<Vec<_>>()
    );
}

#[test]
fn every_key_of_a_run_is_explained() {
    let new = r#"{"server":"s","image":{"name":"n","sources":["http://a/"],"trust":["TRUST"]},"target":{"device":"/dev/x","layout":"whole"},"key":"agent","deadline":1}"#;
    let new = NewRun::parse(new.replace("TRUST", &"a".repeat(64)).as_bytes()).unwrap();
    let Value::Object(object) = serde_json::to_value(new).unwrap() else { panic!() };
    let explained = explained("A run");
    for key in object.keys() {
        assert!(explained.contains(key), "`{key}` is not explained");
    }
}

#[test]
fn every_state_wait_and_problem_is_explained() {
    let states = explained("The states, and what a person can do");
    for state in State::ALL {
        assert!(states.contains(&state.name().to_owned()), "{state:?}");
    }
    for wait in WaitsFor::ALL {
        assert!(states.contains(&wait.name().to_owned()), "{wait}");
    }
    let problems = explained("Its interface");
    for code in Code::ALL {
        assert!(problems.contains(&code.name().to_owned()), "{code}");
    }
}

#[test]
fn every_metric_is_explained_and_every_one_explained_is_there() {
    let metrics = Metrics::default();
    metrics.answered("GET", "/healthz", 204, Duration::ZERO);
    let text = metrics.text(&Tally::default(), Now { watchers: 0, store_up: true });
    let there: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() })
        .map(|name| if name.ends_with("_build") { format!("{name}_info") } else { name })
        .collect();
    let explained: BTreeSet<String> =
        explained("Its metrics").into_iter().filter(|name| name.contains('_') && !name.starts_with('-')).collect();
    assert!(there.len() > 15, "{there:?}");
    assert_eq!(there, explained);
}
