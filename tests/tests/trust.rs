//! Images that must be refused: exit 3, a message that says why, and a target on which no byte has changed.

use std::ffi::OsString;
use std::path::Path;

use e2e::lab::pack;
use e2e::layout::flip;
use e2e::server::Server;
use e2e::{Image, Key, Lab, Layout, Run, Target, exit, sample};
use serde_json::json;

const SIZE: usize = 300 * 1024;

fn image(lab: &Lab, options: &str) -> Image {
    lab.pack_bytes(&sample::noise(11, SIZE), &format!("--chunk-size 64KiB {options}"))
}

/// Offers the image, from its directory and over HTTP, to `write` onto a device and a file, and to `verify` and
/// `unpack`; each refuses it and says `why`.
#[track_caller]
fn refused(lab: &Lab, dir: &Path, trust: &[&Path], options: &str, why: &str) {
    let trust = || trust.iter().flat_map(|key| [OsString::from("--trust"), key.into()]);
    let server = Server::imgstream(dir);
    for target in [Target::device(lab, SIZE as u64, ""), Target::file(lab, SIZE as u64)] {
        for from in [dir.to_str().unwrap(), &server.url()] {
            let write = Run::imgstream().args(["write", from]).arg(target.path()).args(trust()).words(options);
            write.done().exits(exit::IMAGE).says(why);
        }
        target.is_untouched();
    }
    let verify = Run::imgstream().arg("verify").arg(dir).args(trust()).words(options);
    verify.done().exits(exit::IMAGE).says(why);
    let raw = lab.fresh("unpacked");
    let unpack = Run::imgstream().arg("unpack").args([dir, &raw]).args(trust()).words(options);
    unpack.done().exits(exit::IMAGE).says(why);
    assert!(!raw.exists());
    let file = lab.fresh("new");
    let write = Run::imgstream().arg("write").args([dir, &file]).args(trust()).words(options);
    write.done().exits(exit::IMAGE).says(why);
    assert!(!file.exists(), "a refused image must not even make the file");
}

fn sign(image: &Image, key: &Key) -> e2e::Done {
    Run::imgstream().arg("sign").arg(&image.dir).arg("--key").arg(&key.secret).done()
}

#[test]
fn unsigned() {
    let lab = Lab::new();
    let image = image(&lab, "");
    let mut envelope = image.layout().envelope();
    envelope["signatures"] = json!([]);
    image.layout().put_envelope(envelope.to_string().as_bytes());
    refused(&lab, &image.dir, &[&image.key.public], "", "signature");
}

#[test]
fn signed_by_somebody_else() {
    let lab = Lab::new();
    let image = image(&lab, "");
    refused(&lab, &image.dir, &[&lab.key().public], "", "signature");
}

#[test]
fn signed_by_somebody_else_who_claims_the_trusted_key() {
    let lab = Lab::new();
    let (image, thief) = (image(&lab, ""), lab.key());
    let id = image.layout().envelope()["signatures"][0]["keyid"].clone();
    let layout = image.layout();
    layout.sign_payload(&[&thief], &layout.payload());
    let mut envelope = layout.envelope();
    envelope["signatures"][0]["keyid"] = id;
    layout.put_envelope(envelope.to_string().as_bytes());
    refused(&lab, &image.dir, &[&image.key.public], "", "signature");
}

#[test]
fn a_signature_over_another_payload() {
    let lab = Lab::new();
    let image = image(&lab, "");
    let other = lab.fresh("other");
    let raw = lab.file("other-raw", &sample::noise(12, SIZE));
    pack(&raw, &other, &image.key, "--chunk-size 64KiB").done().ok();
    let mut envelope = image.layout().envelope();
    envelope["signatures"] = Layout::new(&other).envelope()["signatures"].clone();
    image.layout().put_envelope(envelope.to_string().as_bytes());
    refused(&lab, &image.dir, &[&image.key.public], "", "signature");
}

#[test]
fn an_envelope_of_another_role() {
    let lab = Lab::new();
    let image = image(&lab, "");
    let layout = image.layout();
    let ticket = "application/vnd.z-provisioner.ticket.v1+json";
    let mut envelope = layout.envelope();
    envelope["payloadType"] = json!(ticket);
    layout.put_envelope(envelope.to_string().as_bytes());
    // Signed by the trusted key, as a ticket.
    layout.sign_payload(&[&image.key], &layout.payload());
    assert_eq!(layout.envelope()["payloadType"], ticket);
    refused(&lab, &image.dir, &[&image.key.public], "", "ticket");
}

#[test]
fn another_name() {
    let lab = Lab::new();
    let image = image(&lab, "");
    refused(&lab, &image.dir, &[&image.key.public], "--name debian-13", "its name is sample");
}

#[test]
fn another_name_inside_than_on_the_label() {
    let lab = Lab::new();
    let image = image(&lab, "");
    let mut index = image.layout().index();
    index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] = json!("debian-13-7-s390x");
    std::fs::write(image.layout().index_path(), index.to_string()).unwrap();
    refused(&lab, &image.dir, &[&image.key.public], "--name debian-13", "its name is sample");
}

#[test]
fn expired() {
    let lab = Lab::new();
    let image = image(&lab, "--created 2020-01-01T00:00:00Z --expires 2020-02-01T00:00:00Z");
    refused(&lab, &image.dir, &[&image.key.public], "", "expired");
}

#[test]
fn not_yet_expired_is_fine() {
    let lab = Lab::new();
    let image = image(&lab, "--expires 2999-01-01T00:00:00Z");
    image.verify().done().ok();
}

#[test]
fn the_wrong_architecture() {
    let lab = Lab::new();
    let image = image(&lab, "");
    refused(&lab, &image.dir, &[&image.key.public], "--arch x86_64", "architecture");
}

#[test]
fn below_the_version_floor() {
    let lab = Lab::new();
    let image = image(&lab, "");
    refused(&lab, &image.dir, &[&image.key.public], "--min-version 8", "its version is 7");
    image.verify().args(["--min-version", "7"]).done().ok();
}

#[test]
fn another_digest() {
    let lab = Lab::new();
    let image = image(&lab, "");
    let digest = format!("--digest sha256:{}", "5".repeat(64));
    refused(&lab, &image.dir, &[&image.key.public], &digest, "its digest is sha256:");
}

#[test]
fn too_few_signatures() {
    let lab = Lab::new();
    let (image, second) = (image(&lab, ""), lab.key());
    refused(&lab, &image.dir, &[&image.key.public, &second.public], "--threshold 2", "signature");
}

#[test]
fn a_second_signature_makes_two_of_two_and_leaves_the_digest_alone() {
    let lab = Lab::new();
    let (image, second) = (image(&lab, ""), lab.key());
    let (payload, data) = (image.layout().payload(), image.layout().data_blobs());
    sign(&image, &second).ok().says("unchanged");
    assert!(image.layout().payload() == payload, "the digest is that of the payload");
    assert_eq!(image.layout().data_blobs(), data);
    let target = Target::device(&lab, SIZE as u64, "");
    let write = image.write(&image.dir, target.path()).arg("--trust").arg(&second.public);
    let done = write.args(["--threshold", "2"]).done().ok();
    assert_eq!(done.stderr.matches("signed by").count(), 2, "{}", done.stderr);
    assert!(target.now() == sample::noise(11, SIZE));
    // Two of two others, of whom one signed.
    let third = lab.key();
    refused(&lab, &image.dir, &[&image.key.public, &third.public], "--threshold 2", "signature");
}

#[test]
fn two_signatures_by_one_key_count_once() {
    let lab = Lab::new();
    let (image, second) = (image(&lab, ""), lab.key());
    let mut envelope = image.layout().envelope();
    let signature = envelope["signatures"][0].clone();
    envelope["signatures"] = json!([signature, signature]);
    image.layout().put_envelope(envelope.to_string().as_bytes());
    refused(&lab, &image.dir, &[&image.key.public, &second.public], "--threshold 2", "signature");
}

#[test]
fn one_key_given_twice_is_one_key() {
    let lab = Lab::new();
    let image = image(&lab, "");
    let target = Target::file(&lab, SIZE as u64);
    let write = image.write(&image.dir, target.path()).arg("--trust").arg(&image.key.public);
    let done = write.args(["--threshold", "2"]).done();
    assert!(matches!(done.status.code(), Some(exit::USAGE | exit::IMAGE)), "{done:?}");
    target.is_untouched();
}

#[test]
fn signing_twice_with_one_key_is_refused_and_changes_nothing() {
    let lab = Lab::new();
    let image = image(&lab, "");
    let before = lab.copy(&image.dir);
    sign(&image, &image.key).exits(exit::IMAGE);
    Run::tool("diff").arg("-r").args([&before, &image.dir]).done().ok();
}

#[test]
fn without_a_trusted_key_nothing_is_written() {
    let lab = Lab::new();
    let image = image(&lab, "");
    let target = Target::file(&lab, SIZE as u64);
    Run::imgstream().arg("write").args([&image.dir, target.path()]).done().exits(exit::USAGE).says("--trust");
    target.is_untouched();
}

/// What a builder's mistake or a stolen layout might hold: rightly signed, and still refused.
#[test]
fn signed_descriptors_that_break_a_rule() {
    let lab = Lab::new();
    let image = image(&lab, "");
    let original = lab.copy(&image.dir);
    type Change = fn(&mut serde_json::Value);
    let changes: [(&str, Change); 12] = [
        ("format", |d| d["format"] = json!(2)),
        ("critical", |d| d["critical"] = json!(["teleport"])),
        ("digest", |d| d["digest"] = json!("md5")),
        ("compression", |d| d["compression"] = json!("xz")),
        ("sector_size", |d| d["sector_size"] = json!(520)),
        ("chunk_size", |d| d["chunk_size"] = json!(65537)),
        ("raw_size", |d| d["raw_size"] = json!(SIZE + 512)),
        ("no spans", |d| d["spans"] = json!([])),
        ("a gap", |d| d["spans"][0]["raw_offset"] = json!(512)),
        ("name", |d| d["name"] = json!("../../etc")),
        ("regions", |d| d["regions"][0]["length"] = json!(u64::MAX)),
        ("huge index", |d| d["spans"][0]["index"]["size"] = json!(10u64 << 30)),
    ];
    for (what, change) in changes {
        let dir = lab.copy(&original);
        Layout::new(&dir).sign_changed(&[&image.key], change);
        let target = Target::file(&lab, SIZE as u64 + 4096);
        let done = image.write(&dir, target.path()).done();
        assert_eq!(done.status.code(), Some(exit::IMAGE), "{what}: {done:?}");
        target.is_untouched();
    }
}

#[test]
fn a_signed_descriptor_with_a_key_twice_is_refused_and_unknown_ones_are_not() {
    let lab = Lab::new();
    let image = image(&lab, "");
    let text = String::from_utf8(image.layout().payload()).unwrap();
    let twice = text.replacen('{', r#"{"name":"other","#, 1);
    let copy = lab.copy(&image.dir);
    Layout::new(&copy).sign_payload(&[&image.key], twice.as_bytes());
    refused(&lab, &copy, &[&image.key.public], "", "twice");
    let more = text.replacen('{', r#"{"weather":"fine","#, 1);
    image.layout().sign_payload(&[&image.key], more.as_bytes());
    image.verify().done().ok();
}

#[test]
fn a_flipped_bit_anywhere_in_the_envelope_is_refused() {
    let lab = Lab::new();
    let image = image(&lab, "");
    let envelope = std::fs::read(image.layout().envelope_path()).unwrap();
    let target = Target::file(&lab, SIZE as u64);
    let key_id = image.layout().envelope()["signatures"][0]["keyid"].as_str().unwrap().to_owned();
    let text = String::from_utf8(envelope.clone()).unwrap();
    let hint = text.find(&key_id).map(|at| at..at + key_id.len());
    for at in (0..envelope.len()).step_by(envelope.len() / 60) {
        // The key id is only a hint (DSSE): a wrong one makes no good signature bad.
        if hint.as_ref().is_some_and(|hint| hint.contains(&at)) {
            continue;
        }
        let mut bytes = envelope.clone();
        bytes[at] ^= 1 << (at % 7);
        let copy = lab.copy(&image.dir);
        Layout::new(&copy).put_envelope(&bytes);
        let done = image.write(&copy, target.path()).done();
        assert_eq!(done.status.code(), Some(exit::IMAGE), "byte {at}: {done:?}");
        target.is_untouched();
    }
}

#[test]
fn a_flipped_bit_in_the_payload_is_refused_at_every_place() {
    let lab = Lab::new();
    let image = image(&lab, "");
    let target = Target::file(&lab, SIZE as u64);
    let payload = image.layout().payload();
    let signatures = image.layout().envelope()["signatures"].clone();
    for at in (0..payload.len()).step_by(payload.len() / 40) {
        let mut bytes = payload.clone();
        bytes[at] ^= 1;
        let copy = lab.copy(&image.dir);
        let layout = Layout::new(&copy);
        layout.sign_payload(&[], &bytes);
        let mut envelope = layout.envelope();
        envelope["signatures"] = signatures.clone();
        layout.put_envelope(envelope.to_string().as_bytes());
        image.write(&copy, target.path()).done().exits(exit::IMAGE).says("signature");
        target.is_untouched();
    }
}

#[test]
fn a_public_key_that_is_none_is_a_usage_error() {
    let lab = Lab::new();
    let image = image(&lab, "");
    let target = Target::file(&lab, SIZE as u64);
    let broken = lab.copy(&image.key.public);
    flip(&broken, 40);
    for key in [broken.as_path(), &image.key.secret, Path::new("/nonexistent")] {
        let write = Run::imgstream().arg("write").args([&image.dir, target.path()]).arg("--trust").arg(key);
        let done = write.done();
        // A flipped bit may give another, untrusted key.
        assert!(matches!(done.status.code(), Some(exit::USAGE | exit::IMAGE)), "{done:?}");
        target.is_untouched();
    }
}
