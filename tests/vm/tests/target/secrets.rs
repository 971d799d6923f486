//! The key is nowhere but in its file: not while the agent runs, not after it, not after it has died.

use serde_json::json;
use vm::Signal;

use crate::stage::{
    Stage, WHOLE_HEADER, agent_with_key, failed, finished, make_key, multipath, next_attempt, until_writing, with,
};

/// Whether `bytes` have `needle` in them.
fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn the_key_is_found_nowhere_but_in_its_file() {
    let stage = Stage::new();
    let lun = stage.lun(WHOLE_HEADER);
    let guest = stage.guest(&lun);
    multipath(&guest, &lun);
    let key = make_key(&guest);
    // What a handler of core dumps would be given, as systemd-coredump is.
    guest.put("/run/keep-core", 0o755, "#!/bin/sh\ncat >/run/cores/$1\n");
    guest.sh("mkdir -p /run/cores; echo '|/run/keep-core %p' >/proc/sys/kernel/core_pattern; echo 2 >/proc/sys/fs/suid_dumpable || true");
    let watch = guest
        .run("while :; do cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\000' '\\n' >>/run/seen; usleep 20000; done")
        .limit(600)
        .start();
    let spec = with(&stage.slow_spec(&lun.wwid()), "/target/layout", json!("whole"));

    // One that dies of a fault of its own, in the middle.
    let running = agent_with_key(&guest, &spec).start();
    until_writing(&running);
    running.signal(Signal::SIGSEGV);
    let died = running.finish();
    // A tool that dies of one while it has the key, in an attempt that ends by that.
    guest.sh("mv /usr/sbin/cryptsetup /usr/sbin/cryptsetup.real");
    let script = "#!/bin/sh\ncase \"$1\" in open) /usr/sbin/cryptsetup.real \"$@\" <&0 & pid=$!; usleep 300000; kill -SEGV $pid; wait $pid; exit ;; esac\nexec /usr/sbin/cryptsetup.real \"$@\"\n";
    guest.put("/usr/sbin/cryptsetup", 0o755, script);
    let second = next_attempt(&spec);
    failed(agent_with_key(&guest, &second).done(), 4, &["cryptsetup open"]);
    guest.sh("mv /usr/sbin/cryptsetup.real /usr/sbin/cryptsetup");
    // The handler works: whoever does not see to it is dumped.
    guest.run("sleep 60 & pid=$!; kill -SEGV $pid; wait $pid").done();
    assert_eq!(guest.until("a core", 20, "ls /run/cores | wc -l | grep -v '^0'"), "1", "of sleep alone");
    // And one that reaches its goal, as talkative as it can be.
    guest.put("/run/spec.json", 0o600, next_attempt(&second).to_string());
    let line = "z-provisioner run -vv --json --spec /run/spec.json --luks-key /run/luks-key";
    let done = guest.run(line).limit(300).done();
    watch.signal_group(Signal::SIGKILL);
    finished(done.clone());

    let seen = guest.get("/run/seen");
    assert!(holds(&seen, b"cryptsetup") && holds(&seen, b"--luks-key"), "the watch has seen what runs");
    let said = [&died.stdout, &died.stderr, &done.stdout, &done.stderr].map(|text| text.as_bytes().to_vec());
    let disk = std::fs::read(lun.path()).unwrap();
    let files = guest
        .run("cat $(find /run /tmp /var /etc /root -type f ! -name luks-key ! -path '/run/udev/*')")
        .done()
        .stdout
        .into_bytes();
    let cores = guest.run("cat /run/cores/* 2>/dev/null").done().stdout.into_bytes();
    let places: Vec<(&str, Vec<u8>)> = vec![
        ("process list and environments", seen),
        ("output", said.concat()),
        ("kernel log", guest.run("dmesg").text().into_bytes()),
        ("console", guest.console().into_bytes()),
        ("files", files),
        ("core dumps", cores),
        ("disk", disk.clone()),
    ];
    // The text itself, and it without its hyphens, as somebody might print it.
    let plain = key.replace('-', "");
    for (place, bytes) in &places {
        for text in [key.as_bytes(), plain.as_bytes(), &key.as_bytes()[..24]] {
            assert!(!holds(bytes, text), "the key is in the {place}");
        }
    }
    // Nor does the volume key, which the passphrase protects, lie on the disk.
    let map = format!("/dev/mapper/{}", lun.wwid());
    let dump = format!(
        "cryptsetup luksDump --batch-mode --dump-volume-key --volume-key-file /run/volume-key --key-file - {map}"
    );
    guest.run(&dump).stdin(key).limit(60).done().ok();
    let volume_key = guest.get("/run/volume-key");
    assert_eq!(volume_key.len(), 64);
    assert!(!holds(&disk, &volume_key[..32]) && !holds(&disk, &volume_key[32..]), "the volume key is on the disk");
}
