//! Runs that were over long ago, with a real service: what is removed, what is kept, and what is said about it.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use e2e::{Lab, Run, Service};
use serde_json::{Value, json};

use super::keys::gauge;

const DAY: u64 = 24 * 3600;

/// Makes all that is over three days older.
const AGE: &str = r"
import json, sqlite3, sys
store = sqlite3.connect(sys.argv[1])
for run, record in store.execute('SELECT run, record FROM runs').fetchall():
    record = json.loads(record)
    if 'ended' in record:
        record['ended'] -= 3 * 24 * 3600 * 1000
    store.execute('UPDATE runs SET record = ? WHERE run = ?', (json.dumps(record), run))
store.commit()
";

fn order(server: &str, layout: &str) -> Value {
    json!({
        "server": server, "launcher": "external",
        "image": {"name": "debian-13", "sources": ["http://127.0.0.1:1/"], "trust": ["a".repeat(64)]},
        "target": {"device": format!("/dev/{server}"), "layout": layout},
    })
}

/// What an agent may have left, three days ago.
fn log(service: &Service, run: &str, attempt: u32) -> PathBuf {
    let path = service.dir().join(format!("agents/{run}.{attempt}.log"));
    let file = std::fs::File::create(&path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(3 * DAY)).unwrap();
    path
}

#[test]
fn what_was_over_long_ago_is_removed_and_the_only_key_of_a_disk_is_not() {
    let lab = Lab::new();
    let mut service = Service::new(&lab, json!({"retention": {"days": 2}}));
    let cancelled = |order: &Value| {
        let run = service.create(&lab, order);
        service.client("cancel").arg(&run).done().ok();
        run
    };
    let (old, latest) = (cancelled(&order("s1", "plain")), cancelled(&order("s1", "plain")));
    let mut late = order("s2", "whole");
    late["deadline"] = json!(1);
    let keyed = service.create(&lab, &late);
    service.until(&keyed, &["failed"], 20);
    let destroyed = cancelled(&order("s2", "whole"));
    let queued = service.create(&lab, &order("s2", "plain"));
    let gone =
        [log(&service, &old, 1), log(&service, &old, 2), log(&service, &destroyed, 1), log(&service, "r-unknown", 1)];
    let kept = [log(&service, &latest, 1), log(&service, &keyed, 1), service.dir().join("agents/r-new.1.log")];
    std::fs::write(&kept[2], "of a run that is not stored any more, written just now").unwrap();
    service.stop();
    Run::tool("python3").args(["-c", AGE]).arg(service.dir().join("runs.sqlite")).done().ok();

    service.go();
    let began = Instant::now();
    while gauge(&service, "runs_pruned_total") != Some(2) || gone.iter().any(|log| log.exists()) {
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", gauge(&service, "runs_pruned_total"));
        std::thread::sleep(Duration::from_millis(50));
    }
    for run in [&old, &destroyed] {
        service.client("show").arg(run).done().exits(4).says("there is no run").says("runs are kept for 2 days");
        service.client("retry").arg(run).done().exits(4).says("runs are kept for 2 days");
    }
    let left: Vec<Value> = service.list().iter().map(|run| run["run"].clone()).collect();
    assert_eq!(left, [&queued, &keyed, &latest].map(|run| json!(run)));
    assert!(kept.iter().all(|log| log.exists()), "{kept:?}");
    assert_eq!(gauge(&service, "runs_kept_for_key"), Some(1));
    // It opens as ever.
    assert_eq!(service.client("key").arg(&keyed).text().trim().len(), 64);
    service.stop().says("runs that were over long ago were removed");
}
