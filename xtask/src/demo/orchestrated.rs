//! Three servers at once, each with a disk of its own, queued with the orchestrating service, which starts an agent for each.

use std::time::Instant;

use serde_json::json;

use super::{Stage, attach, compare};
use crate::fail::{Outcome, Tried};
use crate::server::Server;
use crate::shell::{capture, release_binary, tool};

/// How many.
const SERVERS: usize = 3;

/// Provisions all of them; says how it went.
pub(super) fn provision(stage: &mut Stage) -> Outcome<String> {
    let Stage { steps, scratch, subject, trusted, key_id, server: images, .. } = stage;
    let (program, agent) = (release_binary("z-orchestrator")?, release_binary("z-provisioner")?);

    steps.start("Start the orchestrating service (in the background)");
    let (config, data) = (scratch.path("service.json"), scratch.path("service"));
    let text = json!({"listen": ["127.0.0.1:0"], "data": data, "process": {"agent": agent, "trust": [trusted]}});
    std::fs::write(&config, format!("{text:#}\n")).tried("write the service's configuration")?;
    steps.say(&format!("{} holds {text:#}", config.display()));
    let mut serve = tool(&program);
    steps.show(serve.arg("serve").arg("--config").arg(&config));
    let service = Server::start(&mut serve, &scratch.path("service.log"))?;
    steps.say(&format!("listening on {}", service.url));
    let client = |command: &str| {
        let mut client = tool(&program);
        client.args(["run", command, "--url", &service.url, "--data"]).arg(&data);
        client
    };

    steps.start("Attach three block devices: the servers' disks");
    let disks = (1..=SERVERS).map(|number| attach(scratch, subject, steps, &format!("disk-{number}.img")));
    let disks = disks.collect::<Outcome<Vec<_>>>()?;

    steps.start("Queue a run for each server");
    let began = Instant::now();
    let mut runs = Vec::new();
    for (number, disk) in disks.iter().enumerate() {
        let file = scratch.path(&format!("run-{}.json", number + 1));
        let text = json!({
            "server": format!("server-{}", number + 1),
            "image": {"name": subject.name, "sources": [images.url], "trust": [key_id]},
            "target": {"device": disk.device},
        });
        std::fs::write(&file, format!("{text:#}\n")).tried("write the run")?;
        if number == 0 {
            steps.say(&format!("{} holds {text:#}", file.display()));
        }
        let mut create = client("create");
        steps.show(create.arg(&file));
        let run = capture(&mut create)?.trim().to_owned();
        steps.say(&run);
        runs.push(run);
    }

    steps.start("Watch them until they have ended");
    steps.run(client("watch").args(&runs))?;
    let took = began.elapsed();

    steps.start("Look at what came of it");
    steps.run(&mut client("list"))?;
    steps.run(client("show").args(&runs[..1]))?;

    steps.start("Compare each device with the raw image, by means that are not ours");
    for disk in &disks {
        compare(disk, subject, steps)?;
    }
    let names: Vec<&str> = disks.iter().map(|disk| disk.device.as_str()).collect();
    Ok(format!("{SERVERS} servers in {:.1} s onto {}", took.as_secs_f64(), names.join(", ")))
}
