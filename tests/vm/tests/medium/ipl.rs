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
