//! Wall clocks that are off, and one that is set under a service that runs: ahead by more than any certificate of an agent is good for, and
//! behind.

use std::time::Duration;

use e2e::{Lab, MIB, Run, Service, Target, sample};
use serde_json::{Value, json};

use super::agents;

/// libfaketime, which changes what the C library says of the wall clock and of nothing else.
fn library() -> String {
    let found =
        std::fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    let found = found.into_iter().find(|path| path.is_file());
    found
        .expect("libfaketime is missing: apt-get install --no-install-recommends libfaketime, or `cargo xtask test`")
        .display()
        .to_string()
}

/// A program whose wall clock is off by so much, such as `-2d`.
pub(super) fn at(clock: &str, program: Run) -> Run {
    let program = program.env("LD_PRELOAD", library()).env("FAKETIME", clock);
    program.env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
}

#[test]
fn a_wall_clock_that_jumps_ends_no_lease_and_no_deadline() {
    let lab = Lab::new();
    let raw = sample::noise(74, 6 * MIB as usize);
    let image = lab.pack_bytes(&raw, "--chunk-size 64KiB");
    let server = e2e::server::Server::nginx(&lab, &image.dir, Some("400k"));
    let clock = lab.file("clock", b"+0\n");
    let mut service = Service::unstarted(
        &lab,
        json!({
            "lease": {"seconds": 8, "renew_after": 1, "grace": 2},
            "retry": {"first_seconds": 1, "most_seconds": 2},
            "process": {"agent": e2e::command::binary("z-provisioner", "Z_PROVISIONER_BIN"), "trust": [image.key.public]},
        }),
    )
    .env("LD_PRELOAD", library())
    .env("FAKETIME_TIMESTAMP_FILE", clock.display().to_string())
    .env("FAKETIME_NO_CACHE", "1")
    .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    service.go();
    let target = Target::device(&lab, 6 * MIB, "");
    let mut new = agents::order(&image, "s1", &server.url(), &target);
    new["deadline"] = json!(1800);
    let run = service.create(&lab, &new);
    // Not while it enrols: its ticket would be one of another day, and refused.
    agents::until_it_writes(&service, &run);
    // The last one lasts: it ends an hour before it has begun, by that clock.
    for jump in ["+108000\n", "+0\n", "-3600\n"] {
        std::fs::write(&clock, jump).unwrap();
        std::thread::sleep(Duration::from_secs(3));
        let shown = service.show(&run);
        assert!(shown["state"] == "running" || shown["state"] == "succeeded", "after {jump}: {shown:#}");
    }
    let ended = service.until(&run, &["succeeded", "failed"], 60);
    assert_eq!((&ended["state"], ended["attempts"].as_array().unwrap().len()), (&json!("succeeded"), 1), "{ended:#}");
    // Its own time went on as if nothing had been: what happened later is later, and none of it in another hour.
    let attempt = &ended["attempts"][0];
    let moments = [&ended["created"], &attempt["started"], &attempt["ended"], &ended["ended"]].map(seconds);
    assert!(moments.is_sorted() && moments[3] - moments[0] < 300.0, "{moments:?}: {ended:#}");
}

/// Since 1970, of a moment as the service writes it.
fn seconds(moment: &Value) -> f64 {
    let date = Run::tool("date").arg("--date").arg(moment.as_str().unwrap()).arg("+%s.%N").text();
    date.trim().parse().unwrap()
}
