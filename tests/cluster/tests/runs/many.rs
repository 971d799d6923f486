//! Many runs at once.

use std::path::Path;
use std::time::{Duration, Instant};

use e2e::{Lab, Witness};
use serde_json::json;

use crate::stage::Stage;

#[test]
fn hundreds_of_runs_fifty_at_a_time_end_well_and_once() {
    let runs = 500;
    let watching = Lab::new();
    let witness = Witness::new(watching.dir());
    let actor = Path::new(env!("CARGO_BIN_EXE_actor-in-a-pod"));
    let more = json!({
        "limits": {"runs": 50, "per_source": 50, "per_fabric": {"*": 50}},
        "lease": {"seconds": 60, "renew_after": 15, "grace": 15},
        "kubernetes": {"args": ["--witness", witness.path(), "--mild"], "keep": 5},
    });
    let stage = Stage::with(&["n1"], actor, more);
    let began = Instant::now();
    let order = |number: usize| {
        let target = json!({"lun": {"wwid": format!("3600{number:04}")}});
        let image = json!({"name": "sample", "sources": ["http://127.0.0.1:1/"], "trust": ["a".repeat(64)]});
        json!({"server": format!("s{number}"), "launcher": "kubernetes", "image": image, "target": target, "max_attempts": 10})
    };
    let names: Vec<String> = (0..runs).map(|number| stage.create(&order(number))).collect();
    let ended = loop {
        let all = stage.service.list();
        let open = all.iter().filter(|run| run["ended"].is_null()).count();
        if open == 0 {
            break all;
        }
        let stuck = || all.iter().find(|run| run["ended"].is_null());
        assert!(began.elapsed() < Duration::from_secs(600), "{open} do not end: {:#?}", stuck());
        std::thread::sleep(Duration::from_millis(500));
    };
    let took = began.elapsed().as_secs_f64();
    witness.saw_no_two();
    for run in &ended {
        assert_eq!(run["state"], "succeeded", "{run:#}");
    }
    assert!(names.iter().all(|name| witness.done(name) == 1));
    // Kubernetes clears up after them, and the service lets the pods go.
    while stage.kubectl("get jobs,pods,secrets,pdb -o name").contains("z-r-") {
        assert!(began.elapsed() < Duration::from_secs(700), "{}", stage.kubectl("get jobs,pods"));
        std::thread::sleep(Duration::from_millis(500));
    }
    eprintln!("{runs} runs, 50 at a time: {took:.1} s, {:.1} a second", runs as f64 / took);
}
