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

/// The key of a run, shown to its owner.
#[track_caller]
fn shown(service: &Service, run: &str) -> String {
    let key = service.client("key").arg(run).text().trim().to_owned();
    assert_eq!(key.len(), 64);
    key
}

/// While the Vault is sealed, what needs no key goes on, and what is destroyed is given to nobody. All that was said, and the plain run.
fn while_it_is_sealed(lab: &Lab, service: &mut Service, run: &str, untold: &str) -> (String, String) {
    let shut = service.client("key").arg(untold).done().exits(4).says("sealed");
    assert!(shut.stderr.contains("unsealed") && !shut.stderr.contains("look whether it was shown"), "{}", shut.stderr);
    let operator = token(service, "operator.token");
    let refused = nobody(service).post("/v1/runs", Some(&operator), &[], &encrypted("lpar-2").to_string()).unwrap();
    let problem = refused.json();
    let said = (refused.status, &problem["code"], &problem["retry_after"]);
    assert_eq!(said, (409, &json!("key-shut"), &json!(5)), "{problem}");
    let plain = service.create(lab, &order("lpar-3"));
    service.client("cancel").arg(run).done().ok();
    service.client("key").arg(run).done().exits(4).says("was destroyed");
    let shown = service.client("show").arg(run).text();
    assert!(shown.contains("that it is destroyed where it was kept is not confirmed yet"), "{shown}");
    assert_eq!((service.show(run)["key"]["remains"].clone(), to_erase(service).as_str()), (json!(1), "1"));
    assert_eq!(nobody(service).get("/readyz").unwrap().status, 204);
    (refused.text().to_owned() + &shown + &service.running().stderr(), plain)
}

/// What is told of a run, until its key is known to be gone.
fn told_to_the_end(service: &Service, run: &str) -> String {
    let mut watcher = service.client("watch --json").arg(run).start();
    watcher.until("that the key is gone", |watcher| watcher.stdout().contains(r#""erased""#));
    let told = watcher.stdout();
    watcher.kill();
    for action in ["made", "released", "shown", "destroyed", "erased"] {
        assert_eq!(told.matches(&format!(r#""action":"{action}""#)).count(), 1, "{action}: {told}");
    }
    told
}

/// None of these secrets was said, or lies in the data folder.
fn are_nowhere(secrets: &[String], seen: &str, service: &Service) {
    let files = std::fs::read_dir(service.dir()).unwrap().flatten().map(|entry| entry.path());
    let stored: Vec<u8> = files.filter(|path| path.is_file()).flat_map(|path| std::fs::read(path).unwrap()).collect();
    for secret in secrets {
        assert!(secret.len() > 20 && !seen.contains(secret.as_str()), "a secret was said");
        assert!(!stored.windows(secret.len()).any(|window| window == secret.as_bytes()), "a secret is stored");
    }
    assert!(
        seen.contains("audit") && String::from_utf8_lossy(&stored).contains("z-orchestrator-vault-1"),
        "all was looked at"
    );
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
    let key = shown(&service, &agent.run);
    assert_eq!(given["key"].as_str(), Some(&*key), "the owner is shown what the agent was given");
    let untold = service.create(&lab, &encrypted("lpar-5"));
    assert_eq!(vault.keys().len(), 2);

    vault.seal();
    let (mut seen, plain) = while_it_is_sealed(&lab, &mut service, &agent.run, &untold);
    service.kill();
    assert!(seen.contains("is not destroyed yet"), "{seen}");
    // Killed between "forgotten" and "destroyed"; the next one starts while it is sealed still.
    service.go();
    assert_eq!(
        (&service.show(&agent.run)["key"]["remains"], &service.show(&plain)["state"]),
        (&json!(1), &json!("launching"))
    );
    assert!(service.running().stderr().contains("no key is made or given until"), "it says so");
    vault.unseal();
    until("the end of the key", || service.show(&agent.run)["key"]["remains"].is_null());
    // And of the place that was kept for the run that was refused.
    until("that nothing is left", || to_erase(&service) == "0");
    assert_eq!(vault.keys().len(), 1);
    let other = shown(&service, &untold);
    service.client("cancel").arg(&untold).done().ok();
    until("the end of the other key", || to_erase(&service) == "0" && vault.keys().is_empty());
    assert_eq!(vault.stored(), before);
    seen += &told_to_the_end(&service, &agent.run);

    // The token is replaced while it runs.
    let token_file = lab.path("vault-token");
    let first = std::fs::read_to_string(&token_file).unwrap().trim().to_owned();
    vault.must("POST", "auth/token/revoke", &json!({ "token": first }));
    let second = vault.token();
    Vault::write_token(&token_file, &second);
    let another = service.create(&lab, &encrypted("lpar-4"));
    let third = shown(&service, &another);
    assert!(key != other && key != third);
    seen += &service.stop().stderr;
    are_nowhere(&[key.replace('-', ""), key, other, third, first, second], &seen, &service);
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
