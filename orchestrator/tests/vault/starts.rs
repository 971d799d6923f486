//! Starts that are refused, and why.

use std::os::unix::fs::PermissionsExt;

use e2e::Vault as Server;
use orchestrator::config::Config;
use orchestrator::engine::Keeper;
use orchestrator::keys::Vault;
use serde_json::{Value, json};

use crate::bed::{Bed, SERVICE, config, play, run};

/// A start is refused, with this reason and this in its hint, and does not show the token.
async fn refused(bed: &Bed, adjust: impl FnOnce(&mut Value), what: &str, hint: &str) {
    let error = bed.try_open(adjust).await.unwrap_err();
    let said = error.lines();
    assert!(said.contains(what) && error.hint().is_some_and(|text| text.contains(hint)), "{what}: {said}");
    let token = std::fs::read_to_string(&bed.token_file).unwrap();
    assert!(token.trim().len() < 10 || !said.contains(token.trim()), "{said}");
}

#[test]
fn a_server_that_cannot_keep_keys_is_refused_with_the_reason() {
    play(async |bed| {
        let good = std::fs::read_to_string(&bed.token_file).unwrap();
        let set = |key: &'static str, value: Value| move |config: &mut Value| config[key] = value;
        refused(bed, set("mount", json!("none")), "looking at the secrets engine `none`", "its policy must have").await;
        let other = bed.lab.path("vault/server.pem");
        refused(bed, set("ca", json!(other)), "invalid peer certificate", "keys.vault.ca").await;
        refused(bed, set("ca", json!(bed.lab.path("none"))), "`keys.vault.ca`", "PEM").await;
        refused(
            bed,
            set("address", json!(bed.server.url().replace("127.0.0.1", "localhost"))),
            "certificate",
            "a name in its own",
        )
        .await;

        // Each right that is missing is named.
        let (data, metadata) = ("secret/data/z-provisioner/keys/*", "secret/metadata/z-provisioner/keys/*");
        let rule = |path: &str, rights: &[&str]| format!("path {path:?} {{ capabilities = {} }}\n", json!(rights));
        for (text, what) in [
            (rule(data, &["create"]) + &rule(metadata, &["delete"]), "reading secret/z-provisioner/keys/service"),
            (rule(data, &["read"]) + &rule(metadata, &["delete"]), "writing secret/z-provisioner/keys/service"),
            (rule(data, &["create", "read"]), "destroying secret/z-provisioner/keys/probe"),
            (
                rule(data, &["create", "read"]) + &rule(metadata, &["read"]),
                "destroying secret/z-provisioner/keys/probe",
            ),
        ] {
            bed.server.set_policy(&text);
            refused(bed, |_| (), what, r#"capabilities = ["delete"]"#).await;
        }
        // A mount of version 1, to which the token has every right.
        bed.server.set_policy(&rule("old/*", &["create", "read", "update", "delete", "list"]));
        refused(bed, set("mount", json!("old")), "`kv` of version 1", "-version=2").await;

        Server::write_token(&bed.token_file, "s.nobodys");
        refused(bed, |_| (), "has answered 403", "must be valid").await;
        for (text, what) in [("two words", "holds no token"), (&*"x".repeat(20_000), "more than")] {
            Server::write_token(&bed.token_file, text);
            let error = bed.try_open(|_| ()).await.unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
        }
        Server::write_token(&bed.token_file, &good);
        std::fs::set_permissions(&bed.token_file, std::fs::Permissions::from_mode(0o640)).unwrap();
        refused(bed, |_| (), "is a secret that others may read", "chmod 600").await;
        refused(bed, set("token_file", json!(bed.lab.dir())), "is no file", "name a file").await;
    });
}

#[test]
fn a_token_that_is_not_there_yet_is_waited_for_like_its_vault() {
    play(async |bed| {
        // As after a power cut: an agent that gets the token waits for Vault as well.
        let good = std::fs::read_to_string(&bed.token_file).unwrap();
        for is_empty in [false, true] {
            std::fs::remove_file(&bed.token_file).unwrap();
            if is_empty {
                Server::write_token(&bed.token_file, "");
            }
            let vault = bed.open().await;
            let error = Keeper::place(&vault, &run("r-1")).await.unwrap_err();
            let says = if is_empty { "is empty" } else { "is not there" };
            assert!(error.may_pass && error.what.contains(says) && error.hint.contains("sink"), "{error:?}");
            Server::write_token(&bed.token_file, &good);
            Keeper::place(&vault, &run("r-1")).await.unwrap().unwrap();
        }
    });
}

#[test]
fn a_folder_is_one_services_alone_and_can_be_handed_over() {
    play(async |bed| {
        let first = bed.open().await;
        let settings = config(&bed.server.config(&bed.token_file));
        let error = Vault::open(&settings, "fedcba9876543210".into()).await.unwrap_err();
        assert!(error.to_string().contains(&format!("belongs to the service {SERVICE}")), "{error}");
        // As the hint says it.
        let hint = error.hint().unwrap();
        let words: Vec<&str> = hint.split(' ').collect();
        let value = |name: &str| words.iter().find_map(|word| word.strip_prefix(name)).unwrap();
        let marker = json!({"data": {"service": value("service="), "keeper": value("keeper=")}});
        bed.server.must("POST", "secret/data/z-provisioner/keys/service", &marker);
        Vault::open(&settings, "fedcba9876543210".into()).await.unwrap();
        bed.try_open(|_| ()).await.unwrap_err();
        drop(first);

        // One that somebody has deleted is not replaced: keys may lie there.
        bed.server.must("DELETE", "secret/data/z-provisioner/keys/service", &Value::Null);
        let error = bed.try_open(|_| ()).await.unwrap_err();
        assert!(error.to_string().contains("writing secret/z-provisioner/keys/service"), "{error}");
        bed.server.must("POST", "secret/data/z-provisioner/keys/service", &json!({"data": {"of": "somebody"}}));
        let error = bed.try_open(|_| ()).await.unwrap_err();
        assert!(error.to_string().contains("is none of this program's"), "{error}");

        // A probe that a killed service has left is in nobody's way.
        let mut another = bed.server.config(&bed.token_file);
        another["path"] = json!("z-provisioner/keys/two");
        bed.server.must("POST", "secret/data/z-provisioner/keys/two/probe", &json!({"data": {"x": 1}}));
        Vault::open(&config(&another), SERVICE.into()).await.unwrap();
    });
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused_by_name() {
    let good = json!({"address": "https://vault.example:8200", "token_file": "/run/token"});
    let parse = |keys: &Value| Config::parse(json!({ "keys": keys }).to_string().as_bytes());
    let read = parse(&json!({ "vault": good })).unwrap().keys.vault.unwrap();
    assert_eq!((read.mount.as_str(), read.path.as_str(), read.timeout), ("secret", "z-provisioner/keys", 5));
    for address in [
        "https://vault.example",
        "https://192.0.2.1:1/",
        "http://127.0.0.1:8200",
        "http://[::1]:1",
        "http://localhost:1",
    ] {
        let mut vault = good.clone();
        vault["address"] = json!(address);
        parse(&json!({ "vault": vault })).unwrap();
    }
    let cases = [
        ("address", json!("http://vault.example:8200")),
        ("address", json!("http://127.0.0.1.example:8200")),
        ("address", json!("vault.example:8200")),
        ("address", json!("https://u:hushhush@vault.example")),
        ("address", json!("https://vault.example/v1")),
        ("mount", json!("")),
        ("mount", json!("/secret")),
        ("path", json!("a/../b")),
        ("path", json!("a?b")),
        ("path", json!("a/")),
        ("namespace", json!("a b")),
        ("token_file", json!("")),
        ("ca", json!("")),
        ("timeout", json!(0)),
        ("timeout", json!(9)),
    ];
    for (key, value) in cases {
        let mut vault = good.clone();
        vault[key] = value.clone();
        let error = parse(&json!({ "vault": vault })).unwrap_err();
        assert!(
            error.to_string().contains(&format!("`keys.vault.{key}`")) && error.hint().is_some(),
            "{value}: {error}"
        );
        assert!(!error.lines().contains("hushhush"), "{error}");
    }
    for (keys, what) in [
        (json!({"vault": good, "file": "/f"}), "`keys.vault` is given with"),
        (json!({"vault": good, "command": ["x"]}), "`keys.vault` is given with"),
        (json!({"vault": {"address": "https://a"}}), "missing field `token_file`"),
        (json!({"vault": {"address": "https://a", "token_file": "/t", "tokenfile": 1}}), "unknown field `tokenfile`"),
        (json!({"vault": {"address": "http://[::1]", "token_file": "/t", "ca": "/c"}}), "`keys.vault.ca` is given"),
    ] {
        let error = parse(&keys).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
}
