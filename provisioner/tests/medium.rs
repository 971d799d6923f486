//! `z-provisioner config`, and the configuration as the machine reads it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use protocol::spec::IpsecDemand;
use provisioner::medium::{self, Task};
use serde_json::{Value, json};
use tempfile::TempDir;

fn config() -> Value {
    json!({
        "server": "lpar-17",
        "trust": { "images": ["keys/image.pub"] },
        "network": { "interfaces": [{
            "name": "vcn0", "device": { "mac": "52:54:00:00:10:01" },
            "ipv4": { "static": { "addresses": ["10.9.0.2/24"], "gateway": "10.9.0.1" } },
        }] },
        "ipsec": {
            "gateway": "10.9.0.1", "local_id": "lpar-17", "gateway_id": "gateway", "auth": { "psk": "psk" },
            "tunnels": [{ "local": "10.9.0.2", "remote": ["10.20.0.0/24"] }],
        },
        "run": {
            "run": "r-1",
            "image": { "name": "debian", "sources": ["http://10.20.0.1/"], "trust": ["keys/image.pub"] },
            "target": { "device": "/dev/vda" },
        },
    })
}

/// Of a machine that asks a service what it is to do.
fn of_service() -> Value {
    let mut config = config();
    config.as_object_mut().unwrap().remove("run");
    config["trust"] =
        json!({ "images": ["keys/image.pub"], "tickets": ["keys/image.pub"], "orchestrator_ca": "ca.pem" });
    config["orchestrator"] = json!({ "url": "https://10.20.0.1:8443", "token": "token" });
    config
}

/// A public key (RFC 8410, section 10.1).
const KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

/// A token: 32 bytes in base64url.
const TOKEN: &str = "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee";

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("keys")).unwrap();
    std::fs::write(folder.path().join("keys/image.pub"), KEY).unwrap();
    std::fs::write(folder.path().join("psk"), "sixteen bytes or more").unwrap();
    std::fs::write(folder.path().join("short"), "fifteen bytes..").unwrap();
    std::fs::write(folder.path().join("token"), format!("{TOKEN}\n")).unwrap();
    // What it holds is looked at by who uses it.
    std::fs::write(folder.path().join("ca.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    folder
}

fn pack(folder: &TempDir, config: &Value) -> (i32, String, PathBuf) {
    let (file, out) = (folder.path().join("config.json"), folder.path().join("out.cpio"));
    std::fs::write(&file, config.to_string()).unwrap();
    let _ = std::fs::remove_file(&out);
    let mut command = Command::new(env!("CARGO_BIN_EXE_z-provisioner"));
    let done = command.arg("config").arg(&file).arg("--out").arg(&out).output().unwrap();
    (done.status.code().unwrap(), String::from_utf8(done.stderr).unwrap(), out)
}

/// Unpacks as the kernel would, and returns the folder that it lies in.
fn unpack(folder: &TempDir, archive: &Path) -> PathBuf {
    let root = folder.path().join("root");
    let _ = std::fs::remove_dir_all(&root);
    std::fs::create_dir(&root).unwrap();
    let mut cpio = Command::new("cpio");
    cpio.args(["--extract", "--quiet", "--directory"])
        .arg(&root)
        .stdin(Stdio::from(std::fs::File::open(archive).unwrap()));
    assert!(cpio.status().expect("cpio (package cpio)").success());
    root.join("etc/z-provisioner")
}

#[test]
fn what_is_put_in_is_read_again_with_its_files() {
    let folder = folder();
    let (code, said, out) = pack(&folder, &config());
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("is for lpar-17 alone, and a secret"), "{said}");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    let unpacked = unpack(&folder, &out);
    let read = medium::load(&unpacked, "quiet zprov.max_age_days=7 zprov.network.interfaces.0.mtu=9000").unwrap();
    assert_eq!((read.server.as_str(), read.max_age_days, read.network.interfaces[0].mtu), ("lpar-17", 7, Some(9000)));
    let key = &read.run.as_ref().unwrap().image.trust[0];
    assert_eq!(key, &read.trust.images[0], "one file, once");
    let name = key.strip_prefix("/etc/z-provisioner").unwrap();
    assert_eq!(std::fs::read_to_string(unpacked.join(name)).unwrap(), KEY);
    for secret in std::fs::read_dir(unpacked.join("files")).unwrap() {
        assert_eq!(secret.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_token_comes_along_as_a_secret() {
    let folder = folder();
    let mut config = of_service();
    config["orchestrator"]["run"] = json!("r-1");
    let (code, said, out) = pack(&folder, &config);
    assert_eq!(code, 0, "{said}");
    let unpacked = unpack(&folder, &out);
    let line = "zprov.orchestrator.enrol_within=60 zprov.orchestrator.url=https://o.example";
    let read = medium::load(&unpacked, line).unwrap();
    let Ok(Task::Enrol(service)) = read.task() else { panic!("{read:?}") };
    assert_eq!((service.url.as_str(), service.enrol_within, service.report_within), ("https://o.example", 60, 300));
    assert_eq!((service.ipsec, service.run.as_ref().unwrap().as_str()), (IpsecDemand::Required, "r-1"));
    let token = unpacked.join(service.token.strip_prefix("/etc/z-provisioner").unwrap());
    assert_eq!(std::fs::read_to_string(&token).unwrap().trim(), TOKEN);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&token).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!std::fs::read_to_string(unpacked.join("config.json")).unwrap().contains(TOKEN), "it is in its file alone");
    // A run typed at the console does not take the place of the service's.
    let error = medium::load(&unpacked, "zprov.run.epoch=2").unwrap_err();
    assert!(error.to_string().starts_with("with the kernel's parameters: "), "{error}");
}

#[test]
fn what_a_service_needs_is_demanded_and_named() {
    let folder = folder();
    let refused = |pointer: &str, value: Value, words: &str| {
        let mut config = of_service();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[key] = value;
        let (code, said, out) = pack(&folder, &config);
        assert!(code == 2 && said.contains(words) && !out.exists(), "{pointer}: {code} {said}");
    };
    refused("/orchestrator", Value::Null, "neither `run` nor `orchestrator`");
    refused("/run", config()["run"].take(), "`run` and `orchestrator` both");
    refused("/trust/tickets", json!([]), "`trust.tickets` is empty: give the key");
    refused("/trust/orchestrator_ca", Value::Null, "`trust.orchestrator_ca` is missing: give the authority");
    refused("/report", json!({"url": "http://x/"}), "leave `report` out");
    refused("/server", json!("lpar/17"), "`server`: \"lpar/17\" is not a server's name");
    refused("/ipsec", Value::Null, "`orchestrator.ipsec` is `required`");
    refused("/orchestrator/url", json!("http://10.20.0.1"), "`orchestrator.url`: ");
    refused("/orchestrator/url", json!("http://127.0.0.1"), "`orchestrator.url` must begin with https://");
    refused("/orchestrator/url", json!("https://me@10.20.0.1"), "`orchestrator.url`: ");
    refused("/orchestrator/enrol_within", json!(0), "`orchestrator.enrol_within` must be 1 to 86400");
    refused("/orchestrator/enrol_within", json!(86_401), "`orchestrator.enrol_within` must be 1 to 86400");
    refused("/orchestrator/report_within", json!(3601), "`orchestrator.report_within` must be 1 to 3600");
    refused("/orchestrator/run", json!("a/b"), "is not a run id");
    refused("/orchestrator/typo", json!(1), "unknown field `typo`");
    refused("/orchestrator/token", json!("missing"), "missing");
    refused("/orchestrator/token", json!("psk"), "`orchestrator.token`");

    for (pointer, value) in [("/orchestrator/ipsec", json!("not-required")), ("/luks_key", json!("luks-key"))] {
        let mut config = of_service();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[key] = value;
        if key == "ipsec" {
            config.as_object_mut().unwrap().remove("ipsec");
        } else {
            let file = folder.path().join("luks-key");
            let mut command = Command::new(env!("CARGO_BIN_EXE_z-provisioner"));
            assert!(command.arg("keygen").arg(file).status().unwrap().success());
        }
        let (code, said, _) = pack(&folder, &config);
        assert_eq!(code, 0, "{pointer}: {said}");
    }
}

#[test]
fn the_same_configuration_gives_the_same_bytes() {
    let folder = folder();
    let mut config = config();
    config["made"] = json!("2026-07-14T08:00:00Z");
    let first = std::fs::read(pack(&folder, &config).2).unwrap();
    assert!(first == std::fs::read(pack(&folder, &config).2).unwrap());
}

#[test]
fn what_makes_no_sense_is_refused_and_named() {
    let folder = folder();
    let refused = |pointer: &str, value: Value, words: &str| {
        let mut config = config();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[key] = value;
        let (code, said, out) = pack(&folder, &config);
        assert!(code == 2 && said.contains(words) && !out.exists(), "{pointer}: {code} {said}");
    };
    refused("/typo", json!(1), "unknown field `typo`");
    refused("/network/interfaces/0/ipv4/static/typo", json!(1), "unknown field `typo`");
    refused("/run/image/typo", json!(1), "unknown field `typo`");
    refused("/max_age_days", json!(0), "`max_age_days`");
    refused("/server", json!(""), "`server` is empty");
    refused("/trust/images", json!([]), "`trust.images` is empty");
    refused("/run/image/trust", json!(["other.pub"]), "`run.image.trust` names other.pub");
    refused("/run/epoch", json!(0), "`epoch`");
    refused("/ipsec/auth/psk", json!("missing"), "missing");
    refused("/report", json!({"url": "https://x/"}), "no http:// URL");
    refused("/luks_key", json!("psk"), "`luks_key` is given, but `run.target.layout` is `plain`");
    refused("/run/target/layout", json!("split"), "there is no `luks_key`");
    let mut run = config()["run"].take();
    (run["target"]["layout"], run["key"]) = (json!("split"), json!("service"));
    refused("/run", run, "`run.key` is `service`, and no service has the run");
    refused("/trust/tickets", json!(["psk"]), "`trust`: ");
    refused("/trust/orchestrator_ca", json!("psk"), "holds no certificate");
    refused("/ipsec/auth/psk", json!("short"), "at least 16");
    refused(
        "/ipsec/tunnels/0/local",
        json!("10.9.0.3"),
        "`ipsec.tunnels[0].local` is 10.9.0.3, which no interface has",
    );
    refused("/ipsec", Value::Null, "there is no `ipsec`");
    refused("/network/interfaces/0/ipv6", json!("auto"), "must name `neighbour-discovery`");
    refused("/network/interfaces/0/ipv4", json!("dhcp"), "must name `dhcp`");
}

#[test]
fn a_key_that_is_there_twice_is_a_mistake() {
    let folder = folder();
    let file = folder.path().join("config.json");
    std::fs::write(&file, config().to_string().replacen('{', r#"{"server":"another","#, 1)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_z-provisioner"));
    let done = command.arg("config").arg(&file).arg("--out").arg(folder.path().join("out")).output().unwrap();
    assert_eq!(done.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&done.stderr).contains("duplicate field `server`"), "{done:?}");
}

#[test]
fn a_damaged_configuration_is_not_used() {
    let folder = folder();
    let (_, _, out) = pack(&folder, &config());
    let unpacked = unpack(&folder, &out);
    let key = medium::load(&unpacked, "").unwrap().trust.images[0].clone();
    let key = unpacked.join(key.strip_prefix("/etc/z-provisioner").unwrap());
    std::fs::write(&key, "another key").unwrap();
    let error = medium::load(&unpacked, "").unwrap_err();
    assert!(error.to_string().contains("-image.pub is not what was put in"), "{error}");
    std::fs::remove_file(&key).unwrap();
    assert!(medium::load(&unpacked, "").unwrap_err().to_string().contains("is missing"));
    std::fs::remove_file(unpacked.join("digests")).unwrap();
    assert!(medium::load(&unpacked, "").unwrap_err().to_string().contains("list of digests is missing"));
    std::fs::remove_file(unpacked.join("config.json")).unwrap();
    assert!(medium::load(&unpacked, "").unwrap_err().to_string().contains("this medium has no configuration"));
}

#[test]
fn kernel_parameters_that_make_no_sense_are_refused() {
    let folder = folder();
    let (_, _, out) = pack(&folder, &config());
    let unpacked = unpack(&folder, &out);
    for (line, words) in [
        ("zprov.typo=1", "unknown field `typo`"),
        ("zprov.max_age_days=none", "invalid type"),
        ("zprov.network.interfaces.7.mtu=9000", "there is no 7"),
        ("zprov.trust.images.0=/etc/passwd", "can only be set in the configuration"),
    ] {
        let error = medium::load(&unpacked, line).unwrap_err();
        assert!(error.to_string().contains(words), "{line}: {error}");
    }
}

#[test]
fn what_is_no_medium_is_not_written_to() {
    let folder = folder();
    let file = folder.path().join("config.json");
    std::fs::write(&file, config().to_string()).unwrap();
    let other = folder.path().join("other.iso");
    std::fs::write(&other, vec![0x5a; 1 << 20]).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_z-provisioner"));
    let done = command.arg("config").arg(&file).arg("--medium").arg(&other).output().unwrap();
    assert_eq!(done.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&done.stderr).contains("no boot medium of z-provisioner"));
    assert!(std::fs::read(&other).unwrap() == vec![0x5a; 1 << 20]);
}
