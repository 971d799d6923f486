//! From IPL to what was installed.

use vm::{Disk, Link, LparBuilder, MIB};

use crate::gateway::{Gateway, Knows, PSK};
use crate::image::Packed;
use crate::medium::Medium;
use crate::wire;

#[test]
fn first_light() {
    let packed = Packed::sample();
    let lun = Disk::new(packed.size + MIB).paths(2);
    let link = Link::new();
    let gateway = Gateway::new(&link, &packed, &Knows::Psk(PSK));
    let medium = Medium::new(&packed, &lun.wwid()).known().with("/run/hand_over", "halt".into());
    let machine = LparBuilder::new(medium.iso()).disk(&lun).link(&link, 1).ipl();
    machine.until_any(&["halting", "NOT PROVISIONED"], 150);
    println!("{}", machine.console());
    println!("{:?}", wire::kinds(&machine.capture()));
    println!("{}", gateway.log());
    println!("{}", gateway.sas());
}

#[test]
fn clear_light() {
    let packed = Packed::of(&vm::lane::debian(false), "");
    let lun = Disk::new(packed.size + MIB).paths(2);
    let link = Link::new();
    let _gateway = Gateway::new(&link, &packed, &Knows::Psk(PSK));
    let medium = Medium::new(&packed, &lun.wwid())
        .with("/run/ipsec", "not-required".into())
        .with("/network/interfaces/0/routes", serde_json::json!([{"to": "10.20.0.0/24", "via": "10.9.0.1"}]));
    let machine = LparBuilder::new(medium.iso()).disk(&lun).link(&link, 1).ipl();
    machine.until_any(&["login:", "NOT PROVISIONED"], 400);
    println!("{}", machine.console());
    for text in [
        "KASLR",
        "z-provisioner: z-provisioner",
        "for server",
        "devices are there",
        "z-provisioner 0.1.0: sample",
        "  network ",
        "  image ",
        "  target ",
        "  write ",
    ] {
        println!("{text}: {:?}", machine.when(text));
    }
    println!(
        "first byte {:?}, written {:?}, login {:?}",
        machine.when("write "),
        machine.when("re-IPL from"),
        machine.elapsed()
    );
}

#[test]
fn timing() {
    let packed = Packed::sample();
    let lun = Disk::new(packed.size + MIB).paths(2);
    let link = Link::new();
    let medium = Medium::new(&packed, &lun.wwid()).with("/run/ipsec", "not-required".into());
    let machine = LparBuilder::new(medium.iso()).disk(&lun).link(&link, 1).ipl();
    machine.until_any(&["login:", "NOT PROVISIONED"], 400);
    println!("{}", machine.console());
}
