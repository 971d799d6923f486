//! From IPL to what was installed.

use std::time::Duration;

use serde_json::{Value, json};
use vm::{Disk, Frame, Guest, Link, Lpar, LparBuilder, MIB, lane};

use crate::fixture;
use crate::gateway::{Gateway, INSIDE, Knows, NOW, OUTSIDE, PSK};
use crate::image::Packed;
use crate::medium::Medium;
use crate::orchestrated::Orchestrated;
use crate::pki::Pki;
use crate::refusals::is_blank;
use crate::wire;

/// How long a machine may take from IPL to its end, in seconds.
const LIMIT: u64 = 600;

/// Nothing but what protects itself was on the wire, and of that all that belongs there.
fn only_ipsec(machine: &Lpar) {
    let kinds = wire::kinds(&machine.capture());
    println!("on the wire: {kinds:?}");
    assert!(wire::EXPECTED.iter().all(|kind| kinds.contains_key(kind)), "{kinds:?}");
    assert!(kinds.keys().all(|kind| wire::EXPECTED.contains(kind)), "{kinds:?}");
}

/// Waits until one of these is on the console, and demands that it is not that the machine has given up.
#[track_caller]
fn until(machine: &Lpar, text: &str) {
    let found = machine.until_any(&[text, "NOT PROVISIONED"], LIMIT);
    assert_eq!(found, text, "{}", machine.console());
}

/// Says how long each part took, for docs/performance.md.
fn say_times(machine: &Lpar, parts: &[&str]) {
    let mut before = Duration::ZERO;
    for part in parts {
        let at = machine.when(part);
        println!("{:6.1} s (+{:5.1} s)  {part:?}", at.as_secs_f64(), (at - before).as_secs_f64());
        before = at;
    }
}

/// Says when IKE began, and when the first packet went through the tunnel.
fn say_negotiation(frames: &[Frame]) {
    let first = |kind| frames.iter().find(|frame| wire::kind(&frame.bytes) == kind).map(|frame| frame.at.as_secs_f64());
    println!("IKE began at {:.1?} s, ESP at {:.1?} s", first("IKE"), first("ESP"));
}

/// What a run says on its way, in order.
const PARTS: [&str; 9] = [
    "z-provisioner: z-provisioner",
    "z-provisioner: for server",
    "→ LUN",
    "\n  network ",
    "\n  image ",
    "\n  target ",
    "\n  write ",
    "\n  stream ",
    "z-provisioner: re-IPL from",
];

#[test]
#[ignore = "soak"]
fn a_machine_boots_the_medium_and_then_the_debian_it_was_given() {
    let packed = Packed::of(&lane::debian(false), "");
    let lun = Disk::new(packed.size + MIB).paths(2);
    let (link, pki) = (Link::new(), Pki::new("vcn"));
    let _gateway = Gateway::new(&link, &packed, &Knows::Certificates(&pki, &pki, NOW));
    // Nobody is there to accept the end.
    let report = |port: u16| json!({"url": format!("http://{INSIDE}:{port}/accepted"), "within": 10});
    let medium = Medium::new(&packed, &lun.wwid()).certificates(&pki).with("/report", report(81));
    let machine = medium.machine().disk(&lun).link(&link, 1).ipl();
    until(&machine, "\n  write ");
    // In the middle of the stream the tunnel is gone, for longer than it takes to notice.
    machine.set_link(false);
    std::thread::sleep(Duration::from_secs(20));
    machine.set_link(true);
    until(&machine, "PROVISIONED, BUT NOT STARTED: the end of the run was not accepted");
    machine.until("waiting; IPL again to try again\n", 60);
    fixture::compare("end-not-accepted", &machine.console());
    say_times(&machine, &PARTS[..8]);
    only_ipsec(&machine);
    assert!(!machine.console().contains("re-IPL from"), "it starts nothing that nobody knows of");

    // Power is cut between what the firmware was told and the start. The same medium again finds everything there.
    let again = machine.power_cut();
    let medium =
        medium.with("/report", report(80)).with("/run/options/resume", json!(true)).with("/run/epoch", json!(2));
    let machine = again.boot(medium.iso()).ipl();
    until(&machine, "z-provisioner: re-IPL from");
    only_ipsec(&machine);
    machine.until("z-demo login:", LIMIT);
    fixture::compare("resumed", up_to_ipl(&machine.console()));
    machine.type_line("root");
    machine.until("Password:", 120);
    machine.type_line("demo");
    machine.until("root@z-demo", 120);
}

/// What a console showed before firmware started what was written.
fn up_to_ipl(console: &str) -> &str {
    console
        .find("z-provisioner: re-IPL from")
        .map_or(console, |at| console[at..].find("LOADPARM").map_or(console, |end| &console[..at + end]))
}

/// What a machine says on its way that a service has a run for, in order.
const ENROLLED_PARTS: [&str; 11] = [
    PARTS[0],
    PARTS[1],
    "\n  network ",
    "\n  enrol ",
    "→ LUN",
    "\n  image ",
    "\n  target ",
    "\n  stream ",
    "z-provisioner: re-IPL from",
    "Please unlock disk",
    "z-demo login:",
];

#[test]
fn a_machine_enrols_and_boots_a_split_debian_whose_passphrase_is_typed() {
    let packed = Packed::of(&lane::debian(true), &lane::split_pack_options());
    let lun = Disk::new(packed.size + MIB).paths(2);
    let link = Link::new();
    let orchestrated = Orchestrated::new(json!({}));
    let service = &orchestrated.service;
    let gateway = Gateway::before(service, &link, &packed, &Knows::Psk(PSK));
    // Two tunnels, each with an address of its own, for two connections.
    let inner = ["10.20.1.1", "10.20.1.2"];
    let tunnels: Vec<Value> = inner.iter().map(|local| json!({"local": local, "remote": ["10.20.0.0/24"]})).collect();
    let mut addresses = vec![json!(format!("{}/24", OUTSIDE[1]))];
    addresses.extend(inner.iter().map(|inner| json!(format!("{inner}/32"))));
    let medium = Medium::new(&packed, &lun.wwid())
        .known()
        .with("/ipsec/tunnels", json!(tunnels))
        .with("/network/interfaces/0/ipv4/static/addresses", json!(addresses))
        .with("/run/target/layout", json!("split"));
    let (medium, run) = orchestrated.take_over(&packed, medium);
    let machine = medium.machine().disk(&lun).link(&link, 1).ipl();
    until(&machine, "\n  enrol ");
    service.until(&run, &["running"], 10);
    // Whoever has got hold of the medium now has nothing of it.
    orchestrated.steal(&packed, &medium).done().exits(5).says("already-enrolled");
    until(&machine, "\n  write ");
    // Afterwards they are gone.
    while !inner.iter().all(|local| gateway.received(local) > 1000) {
        let is_over = ["\n  stream ", "NOT PROVISIONED"].iter().any(|end| machine.console().contains(end));
        assert!(!is_over && machine.elapsed().as_secs() < LIMIT, "not all tunnels are used:\n{}", gateway.sas());
    }
    until(&machine, "z-provisioner: re-IPL from");
    only_ipsec(&machine);
    let frames = machine.capture();
    machine.until("Please unlock disk", LIMIT);
    let key = orchestrated.shows_the_owner_his_key(&run);
    machine.type_line(&key);
    machine.until("z-demo login:", LIMIT);
    let console = machine.console();
    fixture::compare("split", up_to_ipl(&console));
    say_times(&machine, &ENROLLED_PARTS);
    say_negotiation(&frames);
    let token = std::fs::read_to_string(medium.path("token")).unwrap();
    assert!(!console.contains(&key) && !console.contains(token.trim()), "a secret is on the console");
    orchestrated.knows_all_of(&run, &packed);
    orchestrated.steal(&packed, &medium).done().exits(5).says("token");
}

#[test]
#[ignore = "soak"]
fn a_machine_encrypts_all_of_a_disk_and_halts() {
    let packed = Packed::sample();
    let lun = Disk::new(packed.size + 16 * MIB).paths(1);
    let link = Link::new();
    let gateway = Gateway::new(&link, &packed, &Knows::Psk(PSK));
    gateway.move_to_vlan(17);
    let mut medium = Medium::new(&packed, &lun.wwid())
        .known()
        .with("/network/interfaces/0/vlan", json!(17))
        .with("/network/interfaces/0/mtu", json!(1400))
        .with("/run/target/layout", json!("whole"))
        .with("/run/target/lun/min_paths", json!(1))
        .with("/run/hand_over", json!("halt"));
    let key = medium.luks_key();
    // As a virtual machine manager starts it: kernel and file system, each by itself.
    let machine = LparBuilder::new(medium.kernel()).disk(&lun).link(&link, 1).ipl();
    until(&machine, "z-provisioner: done: halting");
    machine.event("SHUTDOWN", 60);
    only_ipsec(&machine);
    drop(machine);

    let rescue = Guest::builder().named("rescue").disk(&lun).boot();
    rescue.run("cryptsetup open --key-file - /dev/sda content").stdin(key).limit(120).done().ok();
    let line = format!("head -c {} /dev/mapper/content | sha256sum | cut -d' ' -f1", packed.size);
    let found = rescue.run(&line).limit(120).text().trim().to_owned();
    assert_eq!(found, e2e::Run::tool("sha256sum").arg(&packed.raw).text().split(' ').next().unwrap());
}

#[test]
fn a_machine_boots_over_the_network_and_waits_to_be_switched_off() {
    let packed = Packed::sample();
    // Two that fit, and the other one comes first: the WWID decides.
    let (other, lun) = (Disk::new(packed.size + MIB).paths(2), Disk::new(packed.size + MIB).paths(2));
    let link = Link::new();
    let gateway = Gateway::new(&link, &packed, &Knows::Psk(PSK));
    gateway.start_dhcp();
    let medium = Medium::new(&packed, &lun.wwid())
        .known()
        .with("/network/interfaces/0/ipv4", json!("dhcp"))
        .with("/ipsec/clear", json!(["dhcp"]))
        .with("/report", json!({"url": format!("http://{INSIDE}/accepted"), "within": 30}))
        .with("/run/hand_over", json!("none"));
    let machine = LparBuilder::new(medium.ins()).disk(&other).disk(&lun).link(&link, 1).ipl();
    until(&machine, "waiting; IPL again to try again\n");
    fixture::compare("nothing-more-to-do", &machine.console());
    let kinds = wire::kinds(&machine.capture());
    assert!(kinds.keys().all(|kind| wire::EXPECTED.contains(kind) || *kind == "DHCP"), "{kinds:?}");
    assert!(kinds.contains_key("DHCP"), "{kinds:?}");
    let accepted = gateway.guest.sh("grep -c 'POST /accepted' /run/nginx.access");
    assert_eq!(accepted, "1", "the end was told once");
    assert!(is_blank(&other), "the other disk was touched");
    assert!(!is_blank(&lun));
    machine.qmp("system_powerdown", Value::Null);
    machine.event("SHUTDOWN", 60);
}
