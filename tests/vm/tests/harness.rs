//! The harness itself: what it promises to the tests that use it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use vm::{Disk, End, Guest, MIB, Signal};

/// What a panic says.
fn said<T>(done: Result<T, Box<dyn std::any::Any + Send>>) -> String {
    let Err(panic) = done else { panic!("it should have panicked") };
    *panic.downcast::<String>().expect("a panic with a message")
}

/// Whether a process is there and is no mere memory of one.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Waits until a process is no more.
fn gone_within(pid: u32, limit: Duration) -> bool {
    let began = Instant::now();
    while lives(pid) && began.elapsed() < limit {
        std::thread::sleep(Duration::from_millis(20));
    }
    !lives(pid)
}

#[test]
fn a_guest_boots_answers_and_is_gone_when_dropped() {
    let guest = Guest::builder().boot();
    println!("first answer after {:.1?}", guest.booted_in());
    assert_eq!(guest.sh("uname -m"), "s390x");
    assert_eq!(
        guest.sh("imgstream --version | cut -d' ' -f1; z-provisioner --version | cut -d' ' -f1"),
        "imgstream\nz-provisioner"
    );
    let pid = guest.pid();
    assert!(lives(pid));
    drop(guest);
    assert!(!lives(pid));
}

#[test]
fn exit_codes_signals_and_refusals_come_back() {
    let guest = Guest::builder().boot();
    guest.run("echo out; echo err >&2; exit 7").done().exits(7).says("out").says("err");
    assert_eq!(guest.run("kill -9 $$").done().end, End::Signal(9));
    let refused = guest.program(["no-such-program"]).done().end;
    assert!(matches!(&refused, End::Refused(why) if why.contains("No such file")), "{refused:?}");
    let sleeping = guest.run("trap 'echo caught; exit 3' TERM; echo ready; sleep 100 & wait").start();
    sleeping.until("ready", |out, _| out.contains("ready"));
    sleeping.signal(Signal::SIGTERM);
    sleeping.finish().exits(3).says("caught");
    let environment =
        guest.run("echo $NAME; pwd; cat").env("NAME", "a value").within("/usr").stdin("input").done().ok();
    assert_eq!(environment.stdout, "a value\n/usr\ninput");
}

#[test]
fn a_process_group_can_be_killed_and_orphans_are_reaped() {
    let guest = Guest::builder().boot();
    let family = guest.run("sleep 1000 & sleep 1001 & echo ready; wait").start();
    family.until("ready", |out, _| out.contains("ready"));
    family.signal_group(Signal::SIGKILL);
    assert_eq!(family.finish().end, End::Signal(9));
    // Dropped before its end: killed as well. Left behind by its parent: reaped by the first process.
    drop(guest.run("sleep 1002 & sleep 1003").start());
    guest.sh("(sleep 0.2 & exit 0); (true & exit 0)");
    guest.until("the end of all of them", 10, "! ps -o stat,comm | grep -E '^Z|sleep'");
}

#[test]
fn many_commands_run_at_once() {
    let guest = Guest::builder().boot();
    let began = Instant::now();
    let all: Vec<_> = (0..12).map(|n| guest.run(&format!("sleep 3; echo {n}")).start()).collect();
    for (n, process) in all.into_iter().enumerate() {
        assert_eq!(process.finish().ok().stdout, format!("{n}\n"));
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn large_files_and_outputs_arrive_whole() {
    let guest = Guest::builder().boot();
    let file = e2e::sample::noise(1, 8 << 20);
    let began = Instant::now();
    guest.put("/var/tmp/deep/file", 0o640, file.clone());
    let put = began.elapsed();
    assert!(guest.get("/var/tmp/deep/file") == file, "what was put is what was got");
    println!("8 MiB put in {put:.1?}, got in {:.1?}", began.elapsed() - put);
    assert_eq!(guest.sh("stat -c %a /var/tmp/deep/file"), "640");
    let numbers: String = (1..=400_000).map(|n| format!("{n}\n")).collect();
    assert!(guest.run("seq 400000; seq 10 >&2").done().ok().stdout == numbers, "all of a large output");
}

#[test]
fn a_wait_has_a_limit_and_says_what_for() {
    let guest = Guest::builder().boot();
    let why = said(catch_unwind(AssertUnwindSafe(|| guest.run("echo working; sleep 60").limit(2).done())));
    assert!(why.contains("the end of `sh -ec echo working; sleep 60` did not come within"), "{why}");
    assert!(why.contains("Show Blocked State"), "what the kernel waits for is told: {why}");
    assert!(why.contains("working"), "{why}");
    let why = said(catch_unwind(AssertUnwindSafe(|| guest.until("the impossible", 1, "echo no; false"))));
    assert!(why.contains("the impossible did not come within 1 s") && why.contains("said last: no"), "{why}");
}

#[test]
fn a_kernel_that_panics_fails_the_test_at_once_and_its_console_is_kept() {
    let test = || {
        let guest = Guest::builder().boot();
        let began = Instant::now();
        let why = said(catch_unwind(AssertUnwindSafe(|| guest.run("echo c >/proc/sysrq-trigger; sleep 50").done())));
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        panic!("{why}");
    };
    let name = "panics-on-purpose";
    let why = said(std::thread::Builder::new().name(name.into()).spawn(test).unwrap().join());
    assert!(why.contains("Kernel panic - not syncing: sysrq triggered crash"), "{why}");
    let kept =
        std::path::Path::new(&std::env::var_os("VM_LOGS").unwrap()).join(format!("{name}-{}.log", std::process::id()));
    let console = std::fs::read_to_string(&kept).expect("a console that is kept");
    std::fs::remove_file(kept).unwrap();
    assert!(console.contains("sysrq triggered crash"), "{console}");
}

#[test]
fn a_guest_nobody_talks_to_powers_off() {
    let guest = Guest::builder().boot();
    let pid = guest.pid();
    guest.hang_up();
    assert!(!lives(pid));
}

#[test]
fn no_guest_outlives_a_test_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_guest"));
    // It cannot clean up: what it leaves behind is left where it goes with this test.
    let mut test = command.env("TMPDIR", folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(test.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pid = line.split([' ', ';']).find_map(|word| word.parse().ok()).unwrap_or_else(|| panic!("{line:?}"));
    assert!(lives(pid));
    test.kill().unwrap();
    test.wait().unwrap();
    assert!(gone_within(pid, Duration::from_secs(10)), "QEMU, process {pid}, is still there");
}

#[test]
fn a_power_cut_keeps_what_was_flushed_and_loses_what_was_not() {
    let disk = Disk::new(32 * MIB);
    let guest = Guest::builder().disk(&disk).boot();
    guest.sh("mke2fs -q -t ext4 /dev/sda; mount /dev/sda /mnt; sync");
    guest.sh("dd if=/dev/zero bs=1M count=2 conv=fsync of=/mnt/flushed; dd if=/dev/zero bs=1M count=2 of=/mnt/lost");
    let busy = guest.run("echo busy; sleep 50").start();
    busy.until("a word", |out, _| out.contains("busy"));
    let guest = guest.power_cut().boot();
    let why = said(catch_unwind(AssertUnwindSafe(|| busy.finish())));
    assert!(why.contains("never came: the guest is switched off"), "{why}");
    guest.sh("mount /dev/sda /mnt");
    assert_eq!(guest.sh("stat -c %s /mnt/flushed"), (2 * MIB).to_string());
    assert_ne!(guest.run("stat -c %s /mnt/lost").done().stdout.trim(), (2 * MIB).to_string());
    guest.sh("echo whole >/mnt/lost");
    let guest = guest.power_off().boot();
    assert_eq!(guest.sh("mount /dev/sda /mnt; cat /mnt/lost"), "whole");
}

#[test]
fn a_reset_boots_again_with_the_same_disks() {
    let disk = Disk::new(4 * MIB).virtio_blk();
    let guest = Guest::builder().disk(&disk).boot();
    guest.sh("echo kept | dd of=/dev/vda bs=4096 conv=sync oflag=direct; touch /tmp/lost");
    guest.reset();
    assert_eq!(guest.sh("dd if=/dev/vda bs=4096 count=1 iflag=direct | head -c 4"), "kept");
    guest.sh("! [ -e /tmp/lost ]");
    let why = said(catch_unwind(AssertUnwindSafe(|| guest.run("reboot -f; sleep 50").done())));
    assert!(why.contains("has booted again, and nobody asked it to"), "{why}");
}
