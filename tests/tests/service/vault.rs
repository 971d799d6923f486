//! Keys of disks in a real OpenBao, with the service as it is shipped.

use std::time::{Duration, Instant};

use e2e::{Lab, Service, Vault};
use serde_json::{Value, json};

use super::strangers::{Agent, nobody, order, token};

/// A service whose keys lie in this server, not started yet.
fn service(lab: &Lab, vault: &Vault) -> Service {
    let token_file = lab.path("vault-token");
    Vault::write_token(&token_file, &vault.token());
    Service::unstarted(lab, json!({"keys": {"vault": vault.config(&token_file)}}))
}

fn encrypted(server: &str) -> Value {
    let mut order = order(server);
    order["target"]["layout"] = json!("whole");
    order
}

/// How many keys are to be destroyed, as Prometheus is told.
fn to_erase(service: &Service) -> String {
    let bearer = format!("Bearer {}", token(service, "viewer.token"));
    let metrics = nobody(service).send("GET", "/metrics", &[("authorization", &bearer)], "").unwrap();
    let line = metrics.text().lines().find_map(|line| line.strip_prefix("z_orchestrator_keys_to_erase "));
    line.unwrap_or_else(|| panic!("{metrics:?}")).to_owned()
}

#[track_caller]
fn until(what: &str, so: impl Fn() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what} has not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_key_in_a_vault_is_given_shown_and_destroyed_however_often_the_service_is_killed() {
    let lab = Lab::new();
    let vault = Vault::new(&lab);
    let mut service = service(&lab, &vault).env("RUST_LOG", "trace").arg("--json-logs");
    service.go();
    assert!(!service.dir().join("kek.key").exists(), "there is no KEK then");
    let before = vault.stored();
    let agent = Agent::enrol_for(&lab, &service, "lpar-1", &encrypted("lpar-1"));
    let session = agent.answer["session"].as_str().unwrap();
    let given = agent.client.post(&agent.path("key"), Some(session), &[], "{}").unwrap().json();
    let key = service.client("key").arg(&agent.run).text().trim().to_owned();
    assert_eq!((key.len(), given["key"].as_str()), (64, Some(&*key)), "the owner is shown what the agent was given");
    assert_eq!(vault.keys().len(), 1);

    // While it is sealed, what needs no key goes on, and what is destroyed is given to nobody.
    vault.seal();
    let mut seen = service
        .client("create")
        .arg(lab.file("run.json", encrypted("lpar-2").to_string().as_bytes()))
        .done()
        .exits(4)
        .says("sealed")
        .stderr;
    let plain = service.create(&lab, &order("lpar-3"));
    service.client("cancel").arg(&agent.run).done().ok();
    service.client("key").arg(&agent.run).done().exits(4).says("was destroyed");
    seen += &service.client("show").arg(&agent.run).text();
    assert!(seen.contains("that it is destroyed where it was kept is not confirmed yet"), "{seen}");
    assert_eq!((service.show(&agent.run)["key"]["remains"].clone(), to_erase(&service).as_str()), (json!(1), "1"));
    assert_eq!(nobody(&service).get("/readyz").unwrap().status, 204);
    seen += &service.running().stderr();
    service.kill();
    assert!(seen.contains("is not destroyed yet"), "{seen}");

    // Killed between "forgotten" and "destroyed"; the next one starts while it is sealed still.
    service.go();
    assert_eq!(
        (service.show(&agent.run)["key"]["remains"].clone(), service.show(&plain)["state"].clone()),
        (json!(1), json!("launching"))
    );
    assert!(service.running().stderr().contains("no key is made or given until"), "it says so");
    vault.unseal();
    until("the end of the key", || service.show(&agent.run)["key"]["remains"].is_null());
    // And of the one that was to be made for a run that was refused.
    until("that nothing is left", || to_erase(&service) == "0");
    assert_eq!((vault.keys().len(), vault.stored()), (0, before));
    let told = nobody(&service)
        .send(
            "GET",
            &format!("/v1/runs/{}", agent.run),
            &[("authorization", &format!("Bearer {}", token(&service, "viewer.token")))],
            "",
        )
        .unwrap();
    seen += told.text();
    let mut watcher = service.client("watch --json").arg(&agent.run).start();
    watcher.until("that the key is gone", |watcher| watcher.stdout().contains(r#""erased""#));
    let stdout = watcher.stdout();
    let actions: Vec<&str> = ["made", "released", "shown", "destroyed", "erased"]
        .into_iter()
        .filter(|action| stdout.contains(&format!(r#""action":"{action}""#)))
        .collect();
    assert_eq!(actions.len(), 5, "{stdout}");
    watcher.kill();

    // The token is replaced while it runs.
    let token_file = lab.path("vault-token");
    let first = std::fs::read_to_string(&token_file).unwrap().trim().to_owned();
    vault.must("POST", "auth/token/revoke", &json!({ "token": first }));
    let second = vault.token();
    Vault::write_token(&token_file, &second);
    let another = service.create(&lab, &encrypted("lpar-4"));
    let shown = service.client("key").arg(&another).text().trim().to_owned();
    assert_ne!(shown, key);
    seen += &stdout;
    seen += &service.stop().stderr;
    let mut stored = Vec::new();
    for entry in std::fs::read_dir(service.dir()).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        stored.extend(std::fs::read(entry.path()).unwrap());
    }
    for secret in [&key, &shown, &first, &second, &key.replace('-', "")] {
        assert!(!seen.contains(secret.as_str()), "a secret was said");
        assert!(!stored.windows(secret.len()).any(|window| window == secret.as_bytes()), "a secret is stored");
    }
    assert!(seen.contains("z-orchestrator-vault") || String::from_utf8_lossy(&stored).contains("z-orchestrator-vault"));
}

#[test]
fn a_service_whose_vault_cannot_keep_keys_does_not_start_and_says_why() {
    let lab = Lab::new();
    let vault = Vault::new(&lab);
    let service = service(&lab, &vault);
    vault.set_policy(r#"path "secret/data/z-provisioner/keys/*" { capabilities = ["create", "read"] }"#);
    let refused = service.serve().done().exits(4).says("destroying secret/z-provisioner/keys/probe");
    assert!(
        refused.stderr.contains("hint: ") && refused.stderr.contains(r#"{ capabilities = ["delete"] }"#),
        "{}",
        refused.stderr
    );
    let token = std::fs::read_to_string(lab.path("vault-token")).unwrap();
    assert!(!refused.stderr.contains(token.trim()));
}
