//! What becomes of keys.

use e2e::Vault as Server;
use orchestrator::engine::{Keeper, KeeperError};
use orchestrator::keys::{Kek, Sealer};
use orchestrator::model::Sealed;
use serde_json::{Value, json};

use crate::bed::{SERVICE, make, play, run};

#[track_caller]
fn says(result: Result<impl std::fmt::Debug, KeeperError>, what: &str, may_pass: bool) {
    let error = result.unwrap_err();
    assert!(error.what.contains(what) && error.may_pass == may_pass && !error.hint.is_empty(), "{error:?}");
}

#[test]
fn a_key_is_made_and_opened_and_nothing_is_left_of_it_when_it_is_destroyed() {
    play(async |bed| {
        let vault = bed.open().await;
        let (before, one) = (bed.server.stored(), run("r-1"));
        let (sealed, other) = (make(&vault, &one).await.unwrap(), make(&vault, &one).await.unwrap());
        assert!(sealed.is_elsewhere() && sealed != other, "a run may have several");
        let key = vault.open(&one, &sealed).await.unwrap();
        assert_eq!(vault.open(&one, &sealed).await.unwrap(), key);
        assert!(vault.open(&one, &other).await.unwrap() != key, "each is drawn anew");
        let stored = serde_json::to_string(&sealed).unwrap();
        let token = std::fs::read_to_string(&bed.token_file).unwrap();
        for secret in [&key.reveal()[..5], token.trim()] {
            assert!(!stored.contains(secret) && !format!("{vault:?}").contains(secret), "{stored}");
        }
        // Another start of the same service has the same folder.
        let again = bed.open().await;
        assert_eq!(again.open(&one, &sealed).await.unwrap(), key);
        assert_eq!(bed.server.keys().len(), 2);
        assert!(bed.server.stored() > before);
        for sealed in [&sealed, &other] {
            vault.destroy(&one, sealed).await.unwrap();
            says(vault.open(&one, sealed).await, "somebody else has destroyed it", false);
            vault.destroy(&one, sealed).await.unwrap();
        }
        assert_eq!((bed.server.keys(), bed.server.stored()), (Vec::new(), before));
    });
}

#[test]
fn what_is_anothers_does_not_open_and_is_not_taken_for_destroyed() {
    play(async |bed| {
        let vault = bed.open().await;
        let (one, other) = (run("r-1"), run("r-1.other"));
        let sealed = make(&vault, &one).await.unwrap();
        says(vault.open(&other, &sealed).await, "is another run's", false);
        says(vault.destroy(&other, &sealed).await, "is another run's", false);
        // As if somebody had changed the record so that the name is the other run's.
        let moved = |name: &str| {
            let mut place: Value = serde_json::from_str(sealed.text()).unwrap();
            place["name"] = json!(name);
            Sealed::at(&place.to_string())
        };
        let name = bed.server.keys().remove(0);
        let key = bed.server.must("GET", &format!("secret/data/z-provisioner/keys/{name}"), &Value::Null);
        let copied = "r-2.0123456789abcdef";
        bed.server.must(
            "POST",
            &format!("secret/data/z-provisioner/keys/{copied}"),
            &json!({"data": key["data"]["data"]}),
        );
        says(vault.open(&run("r-2"), &moved(copied)).await, "is another run's", false);
        for name in ["service", "probe", "../x", "r-1.", "r-1.0123456789abcde/", ""] {
            says(vault.open(&one, &moved(name)).await, "is another run's", false);
            says(vault.destroy(&one, &moved(name)).await, "is another run's", false);
        }
        // Another folder of the same server, where nothing of the kind is.
        let elsewhere = bed.try_open(|config| config["path"] = json!("z-provisioner/keys/more")).await.unwrap();
        says(elsewhere.open(&one, &sealed).await, "is kept by", false);
        says(elsewhere.destroy(&one, &sealed).await, "is kept by", false);
        // What was sealed with a KEK, and the other way round.
        let sealer = Sealer::new(&Kek::of([1; Kek::BYTES])).unwrap();
        let here = Keeper::make(&sealer, &one, None).await.unwrap();
        says(vault.open(&one, &here).await, "was sealed with a key-encryption key", false);
        vault.destroy(&one, &here).await.unwrap();
        says(Keeper::open(&sealer, &one, &sealed).await, "is kept in a Vault", false);
        says(Keeper::destroy(&sealer, &one, &sealed).await, "is kept in a Vault", false);
        vault.open(&one, &sealed).await.unwrap();
    });
}

#[test]
fn a_server_that_is_sealed_and_a_token_that_is_replaced_are_waited_for() {
    play(async |bed| {
        let vault = bed.open().await;
        let one = run("r-1");
        let sealed = make(&vault, &one).await.unwrap();
        bed.server.seal();
        says(make(&vault, &one).await, "sealed", true);
        says(vault.open(&one, &sealed).await, "sealed", true);
        says(vault.destroy(&one, &sealed).await, "sealed", true);
        bed.server.unseal();
        let key = vault.open(&one, &sealed).await.unwrap();

        let old = std::fs::read_to_string(&bed.token_file).unwrap();
        bed.server.must("POST", "auth/token/revoke", &json!({ "token": old.trim() }));
        let refused = vault.open(&one, &sealed).await.unwrap_err();
        assert!(refused.may_pass && refused.what.contains("403") && !format!("{refused:?}").contains(old.trim()));
        assert!(refused.hint.contains(r#"path "secret/data/z-provisioner/keys/*""#), "{refused:?}");
        std::fs::remove_file(&bed.token_file).unwrap();
        says(vault.open(&one, &sealed).await, "token_file", true);
        Server::write_token(&bed.token_file, &bed.server.token());
        assert_eq!(vault.open(&one, &sealed).await.unwrap(), key);
        vault.destroy(&one, &sealed).await.unwrap();
    });
}

#[test]
fn a_server_that_comes_late_is_found_and_another_at_its_address_is_not_taken_for_it() {
    play(async |bed| {
        // The first one is gone, and what it kept.
        let one = run("r-1");
        let first = bed.open().await;
        let sealed = make(&first, &one).await.unwrap();
        let port = bed.server.url().rsplit_once(':').unwrap().1.parse().unwrap();
        std::mem::replace(&mut bed.server, Server::new(&bed.lab)).kill();
        says(first.open(&one, &sealed).await, &format!("127.0.0.1:{port}"), true);
        let address = json!(format!("https://127.0.0.1:{port}"));
        let vault = bed.try_open(|config| config["address"] = address.clone()).await.unwrap();
        says(vault.place(&one).await, "refused", true);

        bed.server = Server::at(&bed.lab, port);
        Server::write_token(&bed.token_file, &bed.server.token());
        let new = make(&vault, &one).await.unwrap();
        vault.open(&one, &new).await.unwrap();
        says(first.destroy(&one, &sealed).await, "this is another server", false);
        says(vault.destroy(&one, &sealed).await, "is kept by", false);
        assert_eq!(SERVICE.len(), 16);
    });
}
