//! What there is to see: the command `z-provisioner adapters`, and the ways to disks.

use std::process::Command;

use provisioner::target::fcp::Listing;
use serde_json::{Value, json};

use crate::channel::{Channel, Storage};
use crate::kernel::Kernel;
use crate::*;

const OPERATING: &str = include_str!("../../../docs/operating.md");

/// The machine of the example in docs/operating.md: an adapter with NPIV, one with a LUN that was added and one that is
/// not there, one without light, one that was never online, and one that is boxed.
async fn machine() -> Kernel {
    let two = Storage { luns: vec![(LUN, When::Always), ("0x4010403400000000", When::Always)], ..storage(WWPN) };
    let closed = Storage { lets_in: false, ..storage("0x500507630308c562") };
    let kernel = Kernel::new([
        Channel { storage: vec![two, closed], ..npiv() },
        other_channel(),
        Channel { bus_id: "0.0.1980", link: false, ..channel() },
        Channel { bus_id: "0.0.19c0", ..channel() },
        Channel { bus_id: "0.0.1a00", availability: "boxed", ..channel() },
        Channel { bus_id: "0.0.2000", control_unit: "3990/e9", driver: Some("dasd-eckd"), ..channel() },
    ]);
    for number in 0..3 {
        kernel.with(|state| state.set_online(number)).unwrap();
    }
    kernel.settle().await;
    kernel.with(|state| state.add_unit(1, OTHER_WWPN, LUN)).unwrap();
    kernel.with(|state| state.add_unit(1, OTHER_WWPN, "0x4010403500000000")).unwrap();
    kernel.settle().await;
    kernel
}

#[tokio::test(start_paused = true)]
async fn the_example_in_the_manual_is_what_the_command_prints() {
    let kernel = machine().await;
    let listing = Listing(kernel.fabric().adapters().unwrap());
    let text = listing.to_string();
    assert!(OPERATING.contains(&format!("\n{text}\n```\n")), "docs/operating.md does not have\n{text}");
}

/// Every key there is, is explained.
#[tokio::test(start_paused = true)]
async fn the_manual_knows_every_key() {
    fn keys(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(object) => object.iter().for_each(|(key, value)| {
                found.push(key.clone());
                keys(value, found);
            }),
            Value::Array(array) => array.iter().for_each(|value| keys(value, found)),
            _ => {}
        }
    }
    let (_, chapter) = OPERATING.split_once("\n## zFCP\n").unwrap();
    let (chapter, _) = chapter.split_once("\n## ").unwrap();
    let mut found = Vec::new();
    keys(&Listing(machine().await.fabric().adapters().unwrap()).to_json(), &mut found);
    let missing: Vec<_> = found.iter().filter(|key| !chapter.contains(&format!("`{key}`"))).collect();
    assert!(found.len() > 60 && missing.is_empty(), "{missing:?}");
}

#[tokio::test(start_paused = true)]
async fn everything_there_is_to_know_is_told_to_machines() {
    let json = Listing(machine().await.fabric().adapters().unwrap()).to_json();
    assert_eq!(json["event"], "adapters");
    let adapters = json["adapters"].as_array().unwrap();
    let bus_ids: Vec<_> = adapters.iter().map(|adapter| adapter["bus_id"].as_str().unwrap()).collect();
    assert_eq!(bus_ids, [ADAPTER, OTHER_ADAPTER, "0.0.1980", "0.0.19c0", "0.0.1a00"]);
    let of = |name: &str| adapters.iter().map(|adapter| adapter[name].clone()).collect::<Vec<_>>();
    assert_eq!(of("online"), [true, true, true, false, false].map(Value::from));
    assert_eq!(of("failed"), [false, false, true, false, false].map(Value::from));
    assert_eq!(of("availability"), ["good", "good", "good", "good", "boxed"].map(Value::from));
    let hosts = of("fc_host");
    assert_eq!(hosts[0]["npiv"], true);
    assert_eq!((&hosts[1]["npiv"], &hosts[1]["number"]), (&Value::from(false), &Value::from(1)));
    assert_eq!((&hosts[2]["port_state"], &hosts[3]), (&Value::from("Linkdown"), &Value::Null));
    let luns = &adapters[1]["ports"][0]["luns"];
    let disk = &luns[0];
    assert_eq!(
        (&disk["lun"], &disk["added"], &disk["scsi_device"]["disk"]),
        (&json!(LUN), &json!(true), &json!("sdc"))
    );
    assert_eq!(luns[1], json!({ "lun": "0x4010403500000000", "added": true, "scsi_device": null }));
    let closed = &adapters[0]["ports"][1];
    assert_eq!((&closed["failed"], &closed["state"]), (&json!(true), &Value::Null));
}

#[tokio::test]
async fn a_machine_without_adapters_has_none() {
    for kernel in [Kernel::without_channels(), Kernel::new([])] {
        let listing = Listing(kernel.fabric().adapters().unwrap());
        assert_eq!(listing.to_string(), "no FCP channels on this machine");
        assert_eq!(listing.to_json(), json!({ "event": "adapters", "adapters": [] }));
    }
}

#[test]
fn the_command_ends_well_with_and_without_adapters() {
    let call = |more: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_z-provisioner"))
            .arg("adapters")
            .args(more)
            .env_remove("RUST_LOG")
            .output()
            .unwrap()
    };
    let (people, machines) = (call(&[]), call(&["--json"]));
    assert_eq!((people.status.code(), machines.status.code()), (Some(0), Some(0)));
    assert!(people.stdout.is_empty() && machines.stderr.is_empty());
    let told: Value = serde_json::from_slice(&machines.stdout).unwrap();
    let has_none = told["adapters"].as_array().unwrap().is_empty();
    let says_none = String::from_utf8(people.stderr).unwrap() == "no FCP channels on this machine\n";
    assert_eq!(has_none, says_none);
}

#[tokio::test(start_paused = true)]
async fn a_disk_on_zfcp_has_its_way_in_words() {
    let kernel = machine().await;
    let fabric = kernel.fabric();
    assert_eq!(fabric.way_of("sda"), format!("{ADAPTER} {WWPN} {LUN}"));
    assert_eq!(fabric.way_of("sdb"), format!("{ADAPTER} {WWPN} 0x4010403400000000"));
    assert_eq!(fabric.way_of("sdc"), format!("{OTHER_ADAPTER} {OTHER_WWPN} {LUN}"));
}

#[tokio::test]
async fn a_disk_elsewhere_has_its_scsi_address_and_one_that_is_gone_its_name() {
    let kernel = Kernel::new([]);
    let disk = "sys/devices/pci0000:00/0000:00:05.0/virtio3/host0/target0:0:1/0:0:1:0";
    kernel.tree().attributes(disk, &[("state", "running")]);
    kernel.tree().attributes(&format!("{disk}/block/sda"), &[("ro", "0")]);
    kernel.tree().link(&format!("{disk}/block/sda/device"), disk);
    kernel.tree().link("sys/block/sda", &format!("{disk}/block/sda"));
    kernel.tree().attributes("sys/devices/virtio2/block/vda", &[("ro", "0")]);
    kernel.tree().link("sys/devices/virtio2/block/vda/device", "sys/devices/virtio2");
    kernel.tree().link("sys/block/vda", "sys/devices/virtio2/block/vda");
    let fabric = kernel.fabric();
    assert_eq!(["sda", "vda", "sdz"].map(|name| fabric.way_of(name)), ["0:0:1:0", "vda", "sdz"]);
}
