use protocol::control::run::StateChanged;

use super::*;

fn text(metrics: &Metrics, tally: &Tally) -> String {
    metrics.text(tally, Now { watchers: 3, store_up: true })
}

#[test]
fn what_has_not_happened_yet_is_zero_and_what_has_is_counted() {
    let metrics = Metrics::default();
    let empty = text(&metrics, &Tally::default());
    for line in [
        r#"z_orchestrator_run_states_entered_total{state="failed"} 0"#,
        r#"z_orchestrator_events_total{priority="high"} 0"#,
        r#"z_orchestrator_keys_total{action="released"} 0"#,
        "z_orchestrator_watchers 3",
        "z_orchestrator_store_up 1",
    ] {
        assert!(empty.lines().any(|there| there == line), "{line}: {empty}");
    }
    let changed = StateChanged { state: State::Failed.into(), attempt: 1, reason: "a secret reason".into() };
    metrics.told(&What::State(changed));
    metrics.progressed(7);
    metrics.committed(true, Duration::from_millis(3));
    metrics.answered("BREW", "/v1/runs/{run}", 405, Duration::from_millis(1));
    let connected = metrics.connected();
    let tally = Tally {
        states: vec![(State::Running, 2)],
        waits: vec![("person".into(), 1)],
        rates: Rates { write: 5, ..Rates::default() },
    };
    let full = text(&metrics, &tally);
    for line in [
        r#"z_orchestrator_run_states_entered_total{state="failed"} 1"#,
        r#"z_orchestrator_events_total{priority="progress"} 7"#,
        r#"z_orchestrator_commit_seconds_bucket{le="0.005"} 1"#,
        r#"z_orchestrator_requests_total{method="other",route="/v1/runs/{run}",status="405"} 1"#,
        r#"z_orchestrator_runs{state="running"} 2"#,
        r#"z_orchestrator_runs_waiting{what="person"} 1"#,
        r#"z_orchestrator_stage_bytes_per_second{stage="write"} 5"#,
        "z_orchestrator_connections 1",
    ] {
        assert!(full.lines().any(|there| there == line), "{line}: {full}");
    }
    assert!(!full.contains("secret"), "nobody's words are in labels");
    drop(connected);
    assert!(text(&metrics, &tally).contains("z_orchestrator_connections 0"));
}

#[test]
fn the_process_is_seen() {
    let text = text(&Metrics::default(), &Tally::default());
    let value = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name}: {text}")).parse().unwrap()
    };
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_open_fds") >= 3.0 && value("process_max_fds") >= value("process_open_fds"));
    assert!(value("process_cpu_seconds_total") >= 0.0 && value("process_start_time_seconds") > 1.7e9);
}
