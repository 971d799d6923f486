//! The harness itself: what it promises to the tests that use it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

use vm::{Disk, End, Guest, MIB, Signal};

#[test]
fn a_guest_boots_and_answers() {
    let guest = Guest::builder().boot();
    println!("first answer after {:.1?}", guest.booted_in());
    assert_eq!(guest.sh("uname -m"), "s390x");
}

#[test]
fn exit_codes_and_signals_come_back() {
    let guest = Guest::builder().boot();
    guest.run("echo out; echo err >&2; exit 7").done().exits(7).says("out").says("err");
    assert_eq!(guest.run("kill -9 $$").done().end, End::Signal(9));
    let refused = guest.program(["no-such-program"]).done().end;
    assert!(matches!(&refused, End::Refused(why) if why.contains("No such file")), "{refused:?}");
    let sleeping = guest.run("trap 'echo caught; exit 3' TERM; echo ready; sleep 100 & wait").start();
    sleeping.until("ready", |out, _| out.contains("ready"));
    sleeping.signal(Signal::SIGTERM);
    sleeping.finish().exits(3).says("caught");
}

#[test]
fn multipath_assembles_two_paths() {
    let disk = Disk::new(16 * MIB).paths(2);
    let guest = Guest::builder().disk(&disk).boot();
    let map = guest.start_multipath().map(&disk.wwid(), 2);
    guest.run(&format!("dd if=/dev/zero of={map} bs=1M count=16 oflag=direct")).done().ok();
    assert_ne!(guest.path(&disk, 0).name(), guest.path(&disk, 1).name());
}
