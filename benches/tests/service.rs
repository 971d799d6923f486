//! The simulator of agents works, on a small fleet: what it says of the service is another matter, and depends on the machine.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

#[test]
fn a_small_fleet_loses_nothing_and_its_watchers_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let program = PathBuf::from(env!("CARGO_BIN_EXE_benches"));
    let mut benches = Command::new(&program);
    // Named by whoever runs all tests; else the one beside the simulator.
    if std::env::var_os("Z_ORCHESTRATOR_BIN").is_none() {
        let beside = program.with_file_name("z-orchestrator");
        assert!(beside.is_file(), "run `cargo build -p orchestrator`, or name z-orchestrator in Z_ORCHESTRATOR_BIN");
    }
    benches.args(["service", "--agents", "50", "--seconds", "2", "--high-every", "1"]);
    benches.args(["--watchers", "20", "--fleet-watchers", "3", "--p99", "60000", "--memory", "4096"]);
    let done = benches.arg("--target-dir").arg(folder.path()).arg("--json").arg(&report).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    let fleet = &report["data"]["fleets"][0];
    assert_eq!(fleet["losses"], Value::Array(Vec::new()), "{said}");
    // Six events at the beginning, two at the end, and one each second.
    assert!(fleet["taken"].as_u64().unwrap() >= 50 * (6 + 2 + 2), "{said}");
    assert!(fleet["events_per_second"].as_f64().unwrap() > 50.0, "{said}");
    for told in ["told_progress", "fleet_runs", "fleet_bytes", "cpu_per_event"] {
        assert!(fleet[told].as_f64().unwrap() > 0.0, "{told}: {said}");
    }
}
