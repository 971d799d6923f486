//! A header is not authenticated: somebody on the storage network may have edited it. What it says, and what the kernel makes of
//! it, are compared with what they must be, each time.

use e2e::Lab;
use serde_json::{Value, json};
use vm::{Disk, Guest, MIB};

use crate::stage::{
    WHOLE_HEADER, Whole, agent_with_key, failed, finished, next_attempt, nothing_is_left, until_writing, with,
};

/// Bytes of one copy of the metadata, and where its parts lie ("LUKS2 On-Disk Format Specification" 1.1.1, 2.1).
const COPY: usize = 16 << 10;
const JSON: usize = 4096;
const CHECKSUM: std::ops::Range<usize> = 448..512;

/// Edits the JSON of both copies of a header, and makes their checksums right again.
pub fn edit(disk: &Disk, change: &dyn Fn(&mut Value)) {
    use std::os::unix::fs::FileExt;
    let lab = Lab::new();
    let file = std::fs::File::options().read(true).write(true).open(disk.path()).unwrap();
    for copy in 0..2 {
        let mut header = vec![0; COPY];
        file.read_exact_at(&mut header, (copy * COPY) as u64).unwrap();
        let end = header[JSON..].iter().position(|byte| *byte == 0).unwrap();
        let mut metadata: Value = serde_json::from_slice(&header[JSON..JSON + end]).unwrap();
        change(&mut metadata);
        let text = metadata.to_string();
        header[JSON..].fill(0);
        header[JSON..JSON + text.len()].copy_from_slice(text.as_bytes());
        header[CHECKSUM].fill(0);
        let digest = crate::stage::digest_of_file(&lab.file("header", &header));
        for (at, pair) in digest.as_bytes().chunks(2).enumerate() {
            header[CHECKSUM.start + at] = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        }
        file.write_all_at(&header, (copy * COPY) as u64).unwrap();
    }
    file.sync_all().unwrap();
}

pub fn forget_what_was_read(guest: &Guest, disk: &Disk) {
    guest.sh(&format!("blockdev --flushbufs /dev/mapper/{}; echo 3 >/proc/sys/vm/drop_caches", disk.wwid()));
}

#[test]
fn an_edited_header_is_refused_with_the_difference_and_nothing_is_written() {
    let Whole { stage: _stage, lun, guest, key, spec } = Whole::new();
    finished(agent_with_key(&guest, &spec).done());
    let good = std::fs::read(lun.path()).unwrap();
    let resume = next_attempt(&spec);

    type Edit<'a> = (&'a str, &'a dyn Fn(&mut Value));
    let edits: [Edit; 6] = [
        ("segment's encryption is \"cipher_null-ecb\"", &|metadata| {
            metadata["segments"]["0"]["encryption"] = json!("cipher_null-ecb")
        }),
        // Opened by any passphrase, if it were opened: the volume key is whoever's who wrote the header.
        ("key slot's area encryption is \"cipher_null-ecb\"", &|metadata| {
            metadata["keyslots"]["0"]["area"]["encryption"] = json!("cipher_null-ecb");
            metadata["keyslots"]["0"]["area"]["key_size"] = json!(32);
        }),
        ("kdf", &|metadata| metadata["keyslots"]["0"]["kdf"]["iterations"] = json!(100_000_000)),
        ("requires", &|metadata| {
            metadata["config"]["requirements"] = json!({"mandatory": ["online-reencrypt-v2"]});
        }),
        ("2 segments", &|metadata| {
            let mut second = metadata["segments"]["0"].clone();
            metadata["segments"]["0"]["size"] = json!((8 * MIB).to_string());
            second["offset"] = json!((WHOLE_HEADER + 8 * MIB).to_string());
            second["iv_tweak"] = json!((8 * MIB / 512).to_string());
            metadata["segments"]["1"] = second;
            metadata["digests"]["0"]["segments"] = json!(["0", "1"]);
        }),
        ("2 key slots", &|metadata| {
            metadata["keyslots"]["1"] = metadata["keyslots"]["0"].clone();
            metadata["keyslots"]["1"]["area"]["offset"] = json!("290816");
            metadata["digests"]["0"]["keyslots"] = json!(["0", "1"]);
        }),
    ];
    for (named, change) in edits {
        std::fs::write(lun.path(), &good).unwrap();
        edit(&lun, change);
        forget_what_was_read(&guest, &lun);
        let edited = std::fs::read(lun.path()).unwrap();
        let done = agent_with_key(&guest, &resume).done();
        let failure = failed(done, 4, &["the LUKS2 header"]);
        let said = failure["message"].as_str().unwrap();
        println!("{named}: {said}");
        // Some are so wrong that cryptsetup itself does not take them.
        assert!(said.contains(named) || said.contains("cryptsetup does not take it"), "{named}: {said}");
        assert_eq!(failure["target"], "untouched", "{failure}");
        assert!(edited == std::fs::read(lun.path()).unwrap(), "{named}: something was written");
        nothing_is_left(&guest, &lun.wwid());
    }
    // It was the edits: the header as it was is kept.
    std::fs::write(lun.path(), &good).unwrap();
    forget_what_was_read(&guest, &lun);
    assert_eq!(finished(agent_with_key(&guest, &resume).done())["target"]["containers"][0]["kept"], true);
    // A reencryption as cryptsetup itself begins one.
    let begin =
        "cryptsetup reencrypt --batch-mode --init-only --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file -";
    let begun = guest.run(&format!("{begin} /dev/mapper/{}", lun.wwid())).stdin(key).limit(120);
    begun.done().ok();
    failed(agent_with_key(&guest, &next_attempt(&resume)).done(), 4, &["the LUKS2 header", "it requires"]);
    nothing_is_left(&guest, &lun.wwid());
}

#[test]
fn a_mapping_that_is_not_what_was_asked_for_is_closed_and_refused() {
    let Whole { stage: _stage, lun, guest, spec, .. } = Whole::new();
    // As if cryptsetup had been led astray: the kernel maps something else than the header that was checked.
    guest.sh("mv /usr/sbin/cryptsetup /usr/sbin/cryptsetup.real");
    let change = |table: &str| {
        let script = format!(
            r#"#!/bin/sh
case "$1" in open) set -- "$@" --disable-keyring ;; esac
/usr/sbin/cryptsetup.real "$@" || exit
set -e
case "$1 $*" in *test-passphrase*) ;; "open "*)
  name=zprov-r-luks0
  set -- $(dmsetup table --showkeys $name)
  dmsetup suspend $name; dmsetup load $name --table "{table}"; dmsetup resume $name ;; esac
exit 0
"#
        );
        guest.put("/usr/sbin/cryptsetup", 0o755, script);
    };
    // Words of a crypt table: start, length, kind, cipher, key, IV offset, device, offset, options.
    let tables = [
        ("cipher", "$1 $2 crypt cipher_null-ecb - $6 $7 $8"),
        ("2 ranges", "0 2048 crypt $4 $5 0 $7 $8\n2048 $(($2 - 2048)) linear $7 $8"),
        ("kind", "$1 $2 linear $7 $8"),
        ("offset", "$1 $2 crypt $4 $5 $6 $7 0"),
    ];
    for (named, table) in tables {
        change(table);
        let wipe = with(&spec, "/target/wipe", json!(true));
        failed(agent_with_key(&guest, &wipe).done(), 4, &["the mapping the kernel made", named]);
        nothing_is_left(&guest, &lun.wwid());
    }
    guest.sh("mv /usr/sbin/cryptsetup.real /usr/sbin/cryptsetup");
    finished(agent_with_key(&guest, &with(&spec, "/target/wipe", json!(true))).done());
}

/// The agent as it would be if somebody wrote to the storage just when cryptsetup opens the container.
#[test]
fn a_header_exchanged_after_it_was_compared_is_not_the_one_that_is_opened_and_ends_without_proof() {
    use std::os::unix::fs::FileExt;
    let Whole { stage, lun, guest, spec, .. } = Whole::slow();
    guest.sh("mv /usr/sbin/cryptsetup /usr/sbin/cryptsetup.real");
    let script = r#"#!/bin/sh
case "$*" in *--header*) echo waiting >>/run/opening; until [ -e /run/go-on ]; do usleep 100000; done ;; esac
exec /usr/sbin/cryptsetup.real "$@"
"#;
    guest.put("/usr/sbin/cryptsetup", 0o755, script);
    let running = agent_with_key(&guest, &spec).start();
    guest.until("the opening", 60, "[ -e /run/opening ]");
    let good = std::fs::read(lun.path()).unwrap();
    edit(&lun, &|metadata| metadata["segments"]["0"]["encryption"] = json!("cipher_null-ecb"));
    forget_what_was_read(&guest, &lun);
    guest.sh("touch /run/go-on");
    until_writing(&running);
    assert!(guest.sh("dmsetup table zprov-r-luks0").contains("aes-xts-plain64"), "the copy is what is opened");
    let failure = failed(running.finish(), 7, &["is not the one that was compared"]);
    assert!(failure["torn_down"]["undone"].to_string().contains("zprov-r-luks0 closed"), "{failure}");
    nothing_is_left(&guest, &lun.wwid());
    // Under the header that was compared, the image is there.
    let file = std::fs::File::options().write(true).open(lun.path()).unwrap();
    file.write_all_at(&good[..WHOLE_HEADER as usize], 0).unwrap();
    forget_what_was_read(&guest, &lun);
    let summary = finished(agent_with_key(&guest, &next_attempt(&spec)).done());
    assert_eq!(summary["kept_bytes"], json!(stage.size));
}

#[test]
#[ignore = "soak"]
fn a_destroyed_header_is_made_anew_and_a_damaged_first_copy_is_no_loss() {
    use std::os::unix::fs::FileExt;
    let Whole { stage: _stage, lun, guest, spec, .. } = Whole::new();
    finished(agent_with_key(&guest, &spec).done());
    let destroy = |range: std::ops::Range<usize>| {
        let file = std::fs::File::options().write(true).open(lun.path()).unwrap();
        file.write_all_at(&e2e::sample::noise(3, range.len()), range.start as u64).unwrap();
        forget_what_was_read(&guest, &lun);
    };
    // Magic and UUID are there, and no metadata: as after a power cut while the container was made.
    destroy(COPY + JSON..2 * COPY);
    destroy(JSON..COPY);
    let anew = finished(agent_with_key(&guest, &next_attempt(&spec)).done());
    assert_eq!(anew["target"]["containers"][0]["kept"], false, "nobody could have opened it");
    destroy(0..4096);
    let kept = finished(agent_with_key(&guest, &next_attempt(&spec)).done());
    assert_eq!(kept["target"]["containers"][0]["kept"], true, "the second copy is as good");
    destroy(0..2 * COPY);
    let anew = finished(agent_with_key(&guest, &next_attempt(&spec)).done());
    assert_eq!((&anew["target"]["containers"][0]["kept"], &anew["kept_bytes"]), (&json!(false), &json!(0)));
    // Key slots destroyed, header whole: nobody's key opens it.
    destroy(2 * COPY..WHOLE_HEADER as usize);
    failed(agent_with_key(&guest, &next_attempt(&spec)).done(), 4, &["is not opened by this run's key", "wipe"]);
}
