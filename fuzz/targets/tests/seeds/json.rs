//! Seeds in JSON: envelopes, descriptors, OCI documents.

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE, Engine as _};
use envelope::{Role, sign};
use fuzz_targets::keys;

use super::Seeds;
use super::packed::Packed;

/// Adds them.
pub fn add(seeds: &mut Seeds, image: &Packed) {
    envelopes(seeds, image);
    descriptors(seeds, image);
    oci(seeds, image);
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn envelopes(seeds: &mut Seeds, image: &Packed) {
    let mut add = |name: &str, bytes: Vec<u8>| seeds.add("envelope", name, bytes);
    add("packed", image.envelope.clone());
    add("signed-twice", image.signed_twice.clone());
    add("empty-payload", sign(Role::Image, b"", keys::first()));
    add("ticket", sign(Role::Ticket, b"payload", keys::first()));
    add("cut-short", image.envelope[..image.envelope.len() / 2].to_vec());
    let small = text(&sign(Role::Image, b"payload", keys::first()));
    let signature = &small[small.find("[{").unwrap() + 1..small.find("}]").unwrap() + 1];
    let mut edit = |name: &str, from: &str, to: &str| add(name, small.replacen(from, to, 1).into_bytes());
    edit("small", "", "");
    edit("role-changed", "image.v1", "ticket.v1");
    edit("payload-changed", "cGF5bG9hZA==", "cGF5bG9hZB==");
    edit("payload-without-padding", "cGF5bG9hZA==", "cGF5bG9hZA");
    edit("unsigned", signature, "");
    edit("one-signature-twice", signature, &format!("{signature},{signature}"));
    edit("sixty-four-signatures", signature, &vec![r#"{"sig":""}"#; 64].join(","));
    edit("too-many-signatures", signature, &vec![r#"{"sig":""}"#; 65].join(","));
    edit("member-twice", "{", r#"{"payload":"",""#.trim_end_matches('"'));
    edit("unknown-members", "{", r#"{"a":{"b":[1,{"b":2,"b":3}]},"c":null,"#);
    edit("key-id-null", &format!("{:?}", keys::first().public().id().to_string()), "null");
    edit("key-id-of-another", &keys::first().public().id().to_string(), &keys::second().public().id().to_string());
    edit("key-id-with-controls", &keys::first().public().id().to_string(), "\\u001b[2J\\u0000\\n");
    edit("escaped-name", "payloadType", "payload\\u0054ype");
    edit("array-for-object", signature, "[\"\",\"\"]");
    let sig = signature.split('"').nth(7).unwrap();
    edit("url-safe", sig, &BASE64_URL_SAFE.encode(BASE64_STANDARD.decode(sig).unwrap()));
}

fn descriptors(seeds: &mut Seeds, image: &Packed) {
    let mut add = |name: &str, bytes: Vec<u8>| seeds.add("descriptor", name, bytes);
    let packed = text(&image.payload);
    add("packed.json", packed.clone().into_bytes());
    add("cut-short.json", packed.as_bytes()[..packed.len() - 40].to_vec());
    add("many-spans.json", many_spans(image));
    add("encrypted.json", encrypted(image));
    let mut edit = |name: &str, from: &str, to: &str| {
        assert!(packed.contains(from), "{name}: {from}");
        add(name, packed.replacen(from, to, 1).into_bytes());
    };
    edit("other-version.json", r#""format":1"#, r#""format":2"#);
    edit("unknown-critical.json", r#""critical":[]"#, r#""critical":["teleport"]"#);
    edit("known-critical.json", r#""critical":[]"#, r#""critical":["spans","spans","expires"]"#);
    edit("unknown-members.json", "{", r#"{"more":[{"a":{"b":1e308}},"\ud83d\ude00"],"#);
    edit("member-twice-deep.json", "{", r#"{"more":[{"a":{"b":1,"\u0062":1}}],"#);
    edit("too-deep.json", "{", &format!(r#"{{"more":{}{},"#, "[".repeat(128), "]".repeat(128)));
    edit("deep.json", "{", &format!(r#"{{"more":{}{},"#, "[".repeat(126), "]".repeat(126)));
    edit("float.json", r#""image_version":7"#, r#""image_version":7.0"#);
    edit("beyond-u64.json", r#""image_version":7"#, r#""image_version":18446744073709551616"#);
    edit("leap-second.json", "2026-01-02T03:04:05Z", "2016-12-31T23:59:60Z");
    edit("year-zero.json", "2026-01-02T03:04:05Z", "0000-01-01t00:00:00.123456789123-23:59");
    edit("far-year.json", "2026-01-02T03:04:05Z", "9999-12-31T23:59:59+23:59");
    edit("null-for-optional.json", r#""boot":{"#, r#""boot":null,"x":{"#);
    edit("array-for-object.json", r#""boot":{"#, r#""boot":["zipl-scsi",0,512,512,512],"x":{"#);
}

/// Spans whose data blobs are, each and lawfully, as large as a file can be.
fn many_spans(image: &Packed) -> Vec<u8> {
    let mut descriptor = image.descriptor.clone();
    descriptor.chunk_size = 1 << 16;
    let span = descriptor.spans.pop().unwrap();
    descriptor.spans.clear();
    let mut at = 0;
    while at < descriptor.raw_size {
        let mut span = span.clone();
        span.raw_offset = at;
        span.raw_length = (1 << 16).min(descriptor.raw_size - at);
        (span.index.size, span.data.size) = (112, i64::MAX as u64);
        at += span.raw_length;
        descriptor.spans.push(span);
    }
    descriptor.encode().unwrap()
}

fn encrypted(image: &Packed) -> Vec<u8> {
    let mut descriptor = image.descriptor.clone();
    let raw_size = 4 << 20;
    descriptor.raw_size = raw_size;
    descriptor.spans.truncate(1);
    descriptor.spans[0].raw_length = raw_size;
    descriptor.spans[0].index.size = 32 + 80 * 64;
    descriptor.regions.truncate(1);
    let region = &mut descriptor.regions[0];
    (region.length, region.encrypt) = (raw_size, true);
    let uuid = "6a7e1e3c-0001-4000-8000-000000000001".into();
    region.luks = Some(imgstream::manifest::Luks { uuid, header_bytes: 1 << 20 });
    descriptor.encode().unwrap()
}

fn oci(seeds: &mut Seeds, image: &Packed) {
    let mut add = |name: &str, bytes: &[u8]| seeds.add("oci", name, bytes);
    let (index, manifest) = (text(&image.index_json), text(&image.manifest));
    add("index.json", index.as_bytes());
    add("manifest.json", manifest.as_bytes());
    add("index-cut-short.json", &index.as_bytes()[..index.len() - 9]);
    let entry = &index[index.find("[{").unwrap() + 1..index.rfind("}]").unwrap() + 1];
    let mut edit = |name: &str, document: &str, from: &str, to: &str| {
        assert!(document.contains(from), "{name}: {from}");
        add(name, document.replacen(from, to, 1).as_bytes());
    };
    edit("no-images.json", &index, entry, "");
    edit("one-image-twice.json", &index, entry, &format!("{entry},{entry}"));
    edit("foreign-image-too.json", &index, entry, &format!(r#"{{"digest":"sha512:00","size":1,"x":1e30}},{entry}"#));
    let x86 = entry.replace("s390x", "x86_64");
    edit("two-architectures.json", &index, entry, &format!("{x86},{entry}"));
    edit("no-name.json", &index, "org.opencontainers.image.ref.name", "other");
    edit("name-is-a-number.json", &index, "\"sample-7-s390x\"", "7");
    edit("annotations-are-an-array.json", &index, r#""annotations":{"#, r#""annotations":[],"x":{"#);
    edit("member-twice.json", &index, "{", r#"{"schemaVersion":2,"#);
    edit("negative-size.json", &index, r#""size":"#, r#""size":-"#);
    edit("nested-index.json", &index, "image.manifest.v1", "image.index.v1");
    edit("no-envelope.json", &manifest, "z-provisioner.envelope", "z-provisioner.other");
    edit("two-envelopes.json", &manifest, "z-provisioner.index.v1", "z-provisioner.envelope.v1+json");
    edit("no-config.json", &manifest, "\"config\"", "\"konfig\"");
    edit("upper-case-digest.json", &manifest, "sha256:", "SHA256:");
}
