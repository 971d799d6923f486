//! What stands in `containers/kubernetes` for people to install and to copy is what the service takes: configurations, orders, the policy.
#![allow(clippy::unwrap_used)] // tests

use std::path::{Path, PathBuf};

use orchestrator::config::{Config, HOST_DEVICES};
use orchestrator::policy::Policy;
use protocol::control::NewRun;
use protocol::control::run::LauncherKind;
use protocol::spec::IpsecDemand;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../containers/kubernetes").join(name)
}

fn config(name: &str) -> Config {
    Config::load(&file(name)).unwrap()
}

fn order(name: &str) -> NewRun {
    NewRun::parse(&std::fs::read(file(name)).unwrap()).unwrap()
}

#[test]
fn the_configurations_are_the_services_and_leave_its_folder_to_the_environment() {
    for name in ["base/config.json", "overlays/postgres/config.json", "examples/site/config.json"] {
        let config = config(name);
        // Agents reach it by the first of its names, at the port of `listen`: both are the Service's.
        assert_eq!(config.names[0], "z-orchestrator.z-provisioner.svc", "{name}");
        assert_eq!(config.listen, ["0.0.0.0:7443".parse().unwrap()], "{name}");
        assert_eq!(config.data, None, "{name}: `kubectl exec … run` would not find it");
        assert_eq!(config.kubernetes.namespace.as_deref(), Some("z-provisioner"), "{name}");
        assert_eq!(config.kubernetes.devices, HOST_DEVICES, "{name}");
        assert!(config.kubernetes.image.is_some_and(|image| image.contains(".example.")), "{name}");
        assert_eq!(config.kubernetes.trust, [Path::new("/etc/z-provisioner/trust/image.pub")], "{name}");
    }
}

#[test]
fn the_overlays_differ_in_the_store_alone() {
    let (sqlite, postgres) = (config("base/config.json"), config("overlays/postgres/config.json"));
    assert_eq!(postgres.store_file.as_deref(), Some(Path::new("/etc/z-orchestrator-store/url")));
    assert_eq!(Config { store_file: None, ..postgres }, sqlite);
}

#[test]
fn the_example_orders_are_taken_and_the_example_policy_allows_nobodys_image() {
    let policy = Policy::new(file("examples/site/policy.json"), true);
    assert_eq!(policy.look().unwrap().unwrap().len(), 1);
    let site = config("examples/site/config.json");
    for name in ["examples/run-lun.json", "examples/run-device.json"] {
        let order = order(name);
        assert_eq!(order.launcher, LauncherKind::Kubernetes, "{name}");
        // Nothing of the node's IPsec is to be seen from a pod.
        assert_eq!(order.ipsec, IpsecDemand::Platform, "{name}");
        let (order, pin) = policy.apply(order).unwrap();
        // Whoever forgets to name a key trusts none: no key has this id.
        assert_eq!(order.image.trust, [Path::new(&"0".repeat(64))], "{name}");
        assert!(pin.is_some(), "{name}");
    }
    let fabric = order("examples/run-lun.json").fabric;
    assert!(site.kubernetes.fabrics.contains_key(&fabric.to_string()), "no node reaches {fabric}");
}
