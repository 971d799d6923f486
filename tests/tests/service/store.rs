//! The store goes away: a full disk, a database that is stopped. Leases go on, requests are told to come again, nothing is lost.

use std::path::Path;
use std::time::Duration;

use e2e::postgres::Postgres;
use e2e::{KIB, Lab, MIB, Mount, Run, Service, Target, sample};
use serde_json::json;

use super::agents;

/// As long as a database may be away in this test; a minute where there is time.
fn away() -> Duration {
    Duration::from_secs(if std::env::var_os("Z_SOAK").is_some() { 60 } else { 15 })
}

#[test]
fn a_database_that_is_away_for_longer_than_a_lease_costs_no_run() {
    let lab = Lab::new();
    let raw = sample::noise(72, 6 * MIB as usize);
    let image = lab.pack_bytes(&raw, "--chunk-size 64KiB");
    let server = e2e::server::Server::nginx(&lab, &image.dir, Some("250k"));
    let mut postgres = Postgres::durable();
    let service = Service::new(
        &lab,
        json!({
            "store": postgres.url(),
            "lease": {"seconds": 6, "renew_after": 1, "grace": 2},
            "process": {"agent": e2e::command::binary("z-provisioner", "Z_PROVISIONER_BIN"), "trust": [image.key.public]},
        }),
    );
    let target = Target::device(&lab, 6 * MIB, "");
    let new = agents::order(&image, "s1", &server.url(), &target);
    let run = service.create(&lab, &new);
    service.until(&run, &["running"], 20);
    postgres.stop();
    let other = Target::device(&lab, 6 * MIB, "");
    let file = lab.file("another.json", agents::order(&image, "s2", &server.url(), &other).to_string().as_bytes());
    let another = service.client("create --key another").arg(&file).start();
    std::thread::sleep(away());
    postgres.go();
    // The client has gone on asking, or says that it was in vain; the same key then makes the run it would have made.
    drop(another.finish());
    service.client("create --key another").arg(&file).done().ok();
    let ended = service.until(&run, &["succeeded", "failed"], 120);
    assert_eq!((&ended["state"], ended["attempts"].as_array().unwrap().len()), (&json!("succeeded"), 1), "{ended:#}");
    assert_eq!(service.list().len(), 2);
    assert!(target.now()[..raw.len()] == raw[..]);
}

fn free(at: &Path) -> u64 {
    let facts = nix::sys::statvfs::statvfs(at).unwrap();
    facts.blocks_available() * facts.fragment_size()
}

#[test]
fn a_full_disk_is_waited_for() {
    let lab = Lab::new();
    let raw = sample::noise(73, MIB as usize);
    let image = lab.pack_bytes(&raw, "--chunk-size 64KiB");
    let folder = lab.fresh_dir("small");
    let _small = Mount::tmpfs(&folder, "size=4m");
    let mut service = Service::unstarted(
        &lab,
        json!({
            "process": {"agent": e2e::command::binary("z-provisioner", "Z_PROVISIONER_BIN"), "trust": [image.key.public]},
            "retry": {"first_seconds": 1, "most_seconds": 1},
        }),
    )
    .within(&folder);
    service.go();
    let target = Target::device(&lab, MIB, "");
    let new = agents::order(&image, "s1", image.dir.to_str().unwrap(), &target);
    let first = service.create(&lab, &new);
    service.until(&first, &["succeeded"], 30);
    let filling = folder.join("filling");
    std::fs::write(&filling, vec![1; free(&folder) as usize]).ok();
    let file = lab.file("new.json", new.to_string().as_bytes());
    let mut refused = false;
    for number in 0..20 {
        // What room there is in the log is used up first.
        let done = Run::tool("curl")
            .words("--silent --show-error --max-time 20 --output /dev/null --write-out %{http_code} -X POST")
            .args(["-H", "Content-Type: application/json", "-H", &format!("Idempotency-Key: k{number}"), "-H"])
            .arg(format!(
                "Authorization: Bearer {}",
                std::fs::read_to_string(service.dir().join("operator.token")).unwrap().trim()
            ))
            .arg("--cacert")
            .arg(service.dir().join("ca.pem"))
            .arg("--data-binary")
            .arg(format!("@{}", file.display()))
            .arg(format!("{}/v1/runs", service.url()))
            .text();
        refused |= done == "503";
        if refused {
            break;
        }
    }
    assert!(refused, "the disk was never full; {} KiB are free", free(&folder) / KIB);
    assert_eq!(service.show(&first)["state"], "succeeded", "what is there can be read");
    std::fs::remove_file(&filling).unwrap();
    let run = service.create(&lab, &new);
    service.until(&run, &["succeeded"], 60);
    // It comes back with all that it had.
    let before = service.list().len();
    service.kill();
    service.go();
    assert_eq!(service.list().len(), before);
}
