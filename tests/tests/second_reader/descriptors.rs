//! Descriptors that a trusted key has signed, right and wrong: sections 4 and 9.

use e2e::second_reader::{ACCEPTED, CORRUPT, Expect, Matrix, REFUSED};
use serde_json::{Value, json};

use super::two_spans;

type Change = fn(&mut Value);

fn judge(what: &str, changes: &[(&str, Expect, Change)]) {
    let mut matrix = two_spans();
    for (what, expect, change) in changes {
        add(&mut matrix, what, *expect, change);
    }
    println!("{what}: the readers agree on {} signed descriptors", matrix.judge());
}

fn add(matrix: &mut Matrix, what: &str, expect: Expect, change: impl FnOnce(&mut Value)) {
    let key = matrix.image.key.clone();
    matrix.add(what, expect, |layout| layout.sign_changed(&[&key], change));
}

fn remove(object: &mut Value, member: &str) {
    object.as_object_mut().unwrap().remove(member).unwrap();
}

/// Two regions, the second of them encrypted.
fn encrypt(descriptor: &mut Value) {
    descriptor["raw_size"] = json!(4 << 20);
    descriptor["spans"] = json!([descriptor["spans"][0]]);
    descriptor["spans"][0]["raw_length"] = json!(4 << 20);
    descriptor["spans"][0]["index"]["size"] = json!(32 + 80 * 64);
    let luks = json!({"uuid": "01234567-89ab-cdef-0123-456789abcdef", "header_bytes": 1 << 20});
    descriptor["regions"] = json!([
        {"name": "boot", "offset": 0, "length": 1 << 20, "encrypt": false},
        {"name": "root", "offset": 1 << 20, "length": 3 << 20, "encrypt": true, "luks": luks},
    ]);
}

#[test]
fn they_agree_on_every_member_that_is_missing_null_or_of_another_type() {
    let mut matrix = two_spans();
    add(&mut matrix, "nothing but another order of members", ACCEPTED, |_| {});
    let descriptor = matrix.image.layout().descriptor();
    let places = ["", "/regions/0", "/boot", "/spans/0", "/spans/1/index", "/spans/0/data"];
    for place in places {
        for (member, value) in descriptor.pointer(place).unwrap().as_object().unwrap() {
            let optional = ["expires", "boot"].contains(&member.as_str());
            let absent = if optional { ACCEPTED } else { REFUSED };
            let what = format!("{place}/{member}");
            add(&mut matrix, &format!("{what} missing"), absent, |d| remove(d.pointer_mut(place).unwrap(), member));
            add(&mut matrix, &format!("{what} null"), absent, |d| d.pointer_mut(place).unwrap()[member] = Value::Null);
            let others = [json!("text"), json!(7), json!(true), json!([]), json!({}), json!(-1), json!(1.5)];
            let same = |other: &Value| std::mem::discriminant(other) == std::mem::discriminant(value);
            for other in others.into_iter().filter(|other| !same(other)) {
                let what = format!("{what} is {other}");
                add(&mut matrix, &what, REFUSED, |d| d.pointer_mut(place).unwrap()[member] = other);
            }
        }
    }
    println!("the readers agree on {} descriptors with a member changed", matrix.judge());
}

#[test]
fn they_agree_on_names_versions_and_words() {
    judge(
        "words",
        &[
            ("format 2", REFUSED, |d| d["format"] = json!(2)),
            ("format 0", REFUSED, |d| d["format"] = json!(0)),
            ("format 2^32 + 1", REFUSED, |d| d["format"] = json!((1u64 << 32) + 1)),
            ("critical, known", ACCEPTED, |d| d["critical"] = json!(["boot", "spans", "boot", "expires", "format"])),
            ("critical, unknown", REFUSED, |d| d["critical"] = json!(["teleport"])),
            ("critical, nested", REFUSED, |d| d["critical"] = json!(["luks"])),
            ("critical, another case", REFUSED, |d| d["critical"] = json!(["Boot"])),
            ("critical, empty", REFUSED, |d| d["critical"] = json!([""])),
            ("critical, a number", REFUSED, |d| d["critical"] = json!([1])),
            ("unknown members", ACCEPTED, |d| d["spans"][0]["data"]["weather"] = json!({"a": [1.5, null, -7]})),
            ("another name", ACCEPTED, |d| d["name"] = json!("0.a_b-c")),
            ("a name of 128", ACCEPTED, |d| d["name"] = json!("n".repeat(128))),
            ("a name of 129", REFUSED, |d| d["name"] = json!("n".repeat(129))),
            ("an empty name", REFUSED, |d| d["name"] = json!("")),
            ("a name that begins with a dot", REFUSED, |d| d["name"] = json!(".hidden")),
            ("a name with a newline", REFUSED, |d| d["name"] = json!("sample\n")),
            ("a name in upper case", REFUSED, |d| d["name"] = json!("Sample")),
            ("a name beyond ASCII", REFUSED, |d| d["name"] = json!("s\u{e4}mple")),
            ("a name with other digits", REFUSED, |d| d["name"] = json!("sample\u{0663}")),
            ("an architecture of 32", ACCEPTED, |d| d["architecture"] = json!("_".repeat(32))),
            ("an architecture of 33", REFUSED, |d| d["architecture"] = json!("a".repeat(33))),
            ("an empty architecture", REFUSED, |d| d["architecture"] = json!("")),
            ("an architecture with a hyphen", REFUSED, |d| d["architecture"] = json!("s390-x")),
            ("version 0", ACCEPTED, |d| d["image_version"] = json!(0)),
            ("version 2^64 - 1", ACCEPTED, |d| d["image_version"] = json!(u64::MAX)),
            ("digest", REFUSED, |d| d["digest"] = json!("sha512")),
            ("digest in upper case", REFUSED, |d| d["digest"] = json!("SHA256")),
            ("compression", REFUSED, |d| d["compression"] = json!("zstd ")),
            ("a digest in upper case", REFUSED, |d| d["spans"][0]["index"]["digest"] = upper(d, "index")),
            ("a digest of another kind", REFUSED, |d| d["spans"][0]["data"]["digest"] = json!("sha512:00")),
            ("a digest cut short", REFUSED, |d| d["spans"][0]["data"]["digest"] = json!("sha256:0123")),
            ("a digest of nothing there", CORRUPT, |d| {
                d["spans"][0]["data"]["digest"] = json!(format!("sha256:{}", "0".repeat(64)));
            }),
        ],
    );
}

fn upper(descriptor: &Value, which: &str) -> Value {
    json!(descriptor["spans"][0][which]["digest"].as_str().unwrap().to_uppercase().replace("SHA", "sha"))
}

#[test]
fn they_agree_on_times() {
    let created = |matrix: &mut Matrix, time: &str, expect| {
        add(matrix, &format!("created {time}"), expect, |d| d["created"] = json!(time));
    };
    let expires = |matrix: &mut Matrix, time: &str, expect| {
        add(matrix, &format!("created 2026-01-02T03:04:05Z, expires {time}"), expect, |d| d["expires"] = json!(time));
    };
    let mut matrix = two_spans();
    let right = ["0001-01-01T00:00:00Z", "2024-02-29T23:59:59Z", "2026-01-01T00:00:00.000000001+23:59"];
    let more = ["2000-02-29T00:00:00-00:00", "2026-01-01T00:00:00.1234567890123456789Z", "0001-01-01T00:00:00+01:00"];
    for time in right.into_iter().chain(more) {
        created(&mut matrix, time, ACCEPTED);
    }
    for time in [
        "",
        "2026-01-01",
        "2026-01-01T00:00Z",
        "2026-01-01T00:00:00",
        "2026-01-01T00:00:00.Z",
        "2026-1-01T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2025-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:61Z",
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00+00:60",
        "2026-01-01T00:00:00+0100",
        "2026-01-01T00:00:00+01",
        "2026-01-01T00:00:00Z ",
        " 2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00Z\n",
        "+2026-01-01T00:00:00Z",
        "02026-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "2026-01-01T00:00:00,5Z",
        "2026-01-01T00:00:00ZZ",
        "\u{0662}026-01-01T00:00:00Z",
        "-001-01-01T00:00:00Z",
    ] {
        created(&mut matrix, time, REFUSED);
    }
    for (time, expect) in [
        ("2026-01-02T03:04:05Z", REFUSED),
        ("2026-01-02T03:04:04.999Z", REFUSED),
        ("2026-01-02T05:04:05+02:00", REFUSED),
        ("2026-01-02T03:04:05.000000001Z", REFUSED), // long over
        ("2026-01-03T03:04:05Z", REFUSED),
        ("9999-12-31T23:59:59.999999999Z", ACCEPTED),
        ("9999-12-31T23:59:59-23:59", ACCEPTED),
    ] {
        expires(&mut matrix, time, expect);
    }
    // Digits after the ninth do not count.
    for (fraction, expect) in [("0000000002", REFUSED), ("0000000012", REFUSED), ("000000002", ACCEPTED)] {
        add(&mut matrix, &format!("a life of .{fraction} seconds"), expect, |d| {
            d["created"] = json!("2998-01-01T00:00:00.0000000010Z");
            d["expires"] = json!(format!("2998-01-01T00:00:00.{fraction}Z"));
        });
    }
    println!("the readers agree on {} times", matrix.judge());
}

#[test]
fn they_agree_on_sizes() {
    judge(
        "sizes",
        &[
            ("sector size 520", REFUSED, |d| d["sector_size"] = json!(520)),
            ("sector size 1024", REFUSED, |d| d["sector_size"] = json!(1024)),
            ("sector size 4096, not whole ones", REFUSED, |d| d["sector_size"] = json!(4096)),
            ("chunk size 32 KiB", REFUSED, |d| d["chunk_size"] = json!(32768)),
            ("chunk size 96 KiB", REFUSED, |d| d["chunk_size"] = json!(98304)),
            ("chunk size 16 MiB", REFUSED, |d| d["chunk_size"] = json!(16 << 20)),
            ("chunk size 128 KiB", REFUSED, |d| d["chunk_size"] = json!(131_072)),
            ("chunk size 0", REFUSED, |d| d["chunk_size"] = json!(0)),
            ("raw size 0", REFUSED, |d| d["raw_size"] = json!(0)),
            ("raw size a sector more", REFUSED, |d| d["raw_size"] = json!(131_584 + 512)),
            ("raw size a sector less", REFUSED, |d| d["raw_size"] = json!(131_584 - 512)),
            ("raw size 2^64 - 512", REFUSED, |d| d["raw_size"] = json!(u64::MAX - 511)),
            ("raw size 2^63", REFUSED, |d| huge(d, 1 << 63)),
            ("raw size 2^63 - 512", REFUSED, |d| huge(d, (1 << 63) - 512)),
            ("raw size not whole sectors", REFUSED, |d| {
                d["raw_size"] = json!(131_585);
                d["regions"][0]["length"] = json!(131_585);
                d["spans"][1]["raw_length"] = json!(513);
            }),
        ],
    );
}

/// An image of one size in regions and raw size; its spans cannot follow.
fn huge(descriptor: &mut Value, size: u64) {
    descriptor["raw_size"] = json!(size);
    descriptor["regions"][0]["length"] = json!(size);
}

#[test]
fn they_agree_on_regions_and_boot_facts() {
    judge(
        "regions",
        &[
            ("two regions", ACCEPTED, |d| split(d, 512, "a", "b")),
            ("a name twice", REFUSED, |d| split(d, 512, "a", "a")),
            ("half a sector", REFUSED, |d| split(d, 256, "a", "b")),
            ("an empty region", REFUSED, |d| split(d, 0, "a", "b")),
            ("an empty region at the end", REFUSED, |d| split(d, 131_584, "a", "b")),
            ("a region's name", REFUSED, |d| split(d, 512, "-a", "b")),
            ("no regions", REFUSED, |d| d["regions"] = json!([])),
            ("a region too short", REFUSED, |d| d["regions"][0]["length"] = json!(131_072)),
            ("a region at 512", REFUSED, |d| d["regions"][0]["offset"] = json!(512)),
            ("a region without end", REFUSED, |d| d["regions"][0]["length"] = json!(u64::MAX - 511)),
            ("a region that is an array", REFUSED, |d| d["regions"] = json!([["disk", 0, 131_584, false]])),
            ("encrypt without luks", REFUSED, |d| d["regions"][0]["encrypt"] = json!(true)),
            ("luks without encrypt", REFUSED, |d| {
                d["regions"][0]["luks"] =
                    json!({"uuid": "01234567-89ab-cdef-0123-456789abcdef", "header_bytes": 1 << 20});
            }),
            ("luks null", ACCEPTED, |d| d["regions"][0]["luks"] = Value::Null),
            ("boot of another method", ACCEPTED, |d| d["boot"]["method"] = json!("grub")),
            ("boot of no method", REFUSED, |d| d["boot"]["method"] = json!("")),
            ("an empty record", REFUSED, |d| d["boot"]["record_length"] = json!(0)),
            ("an empty map", REFUSED, |d| d["boot"]["map_length"] = json!(0)),
            ("a map at the end", ACCEPTED, |d| d["boot"]["map_offset"] = json!(131_584 - 512)),
            ("a map beyond the end", REFUSED, |d| d["boot"]["map_offset"] = json!(131_584 - 511)),
            ("a record beyond 2^64", REFUSED, |d| d["boot"]["record_offset"] = json!(u64::MAX)),
            ("boot that is an array", REFUSED, |d| d["boot"] = json!(["zipl-scsi", 0, 512, 512, 512])),
        ],
    );
}

fn split(descriptor: &mut Value, at: u64, first: &str, second: &str) {
    descriptor["regions"] = json!([
        {"name": first, "offset": 0, "length": at, "encrypt": false},
        {"name": second, "offset": at, "length": 131_584 - at, "encrypt": false},
    ]);
}

#[test]
fn they_agree_on_encrypted_regions() {
    // The descriptor is fine; its first blob is not the one it names the size of: that is how we see it was accepted.
    judge(
        "encryption",
        &[
            ("an encrypted region", CORRUPT, encrypt),
            ("a header of 1 MiB - 4096", REFUSED, |d| luks(d, "header_bytes", json!((1 << 20) - 4096))),
            ("a header of 1 MiB + 512", REFUSED, |d| luks(d, "header_bytes", json!((1 << 20) + 512))),
            ("a header of all but 4096", CORRUPT, |d| luks(d, "header_bytes", json!((3 << 20) - 4096))),
            ("a header of all of it", REFUSED, |d| luks(d, "header_bytes", json!(3 << 20))),
            ("a header that is text", REFUSED, |d| luks(d, "header_bytes", json!("1048576"))),
            ("no uuid", REFUSED, |d| luks(d, "uuid", Value::Null)),
            ("a uuid in upper case", REFUSED, |d| luks(d, "uuid", json!("01234567-89AB-cdef-0123-456789abcdef"))),
            ("a uuid without hyphens", REFUSED, |d| luks(d, "uuid", json!("0123456789abcdef0123456789abcdef"))),
            ("a uuid in braces", REFUSED, |d| luks(d, "uuid", json!("{01234567-89ab-cdef-0123-456789abcdef}"))),
            ("luks that is an array", REFUSED, |d| {
                encrypt(d);
                d["regions"][1]["luks"] = json!(["01234567-89ab-cdef-0123-456789abcdef", 1 << 20]);
            }),
        ],
    );
}

fn luks(descriptor: &mut Value, member: &str, value: Value) {
    encrypt(descriptor);
    descriptor["regions"][1]["luks"][member] = value;
}

#[test]
fn they_agree_on_spans() {
    judge(
        "spans",
        &[
            ("no spans", REFUSED, |d| d["spans"] = json!([])),
            ("spans in another order", REFUSED, |d| d["spans"].as_array_mut().unwrap().reverse()),
            ("a span twice", REFUSED, |d| d["spans"] = json!([d["spans"][0], d["spans"][0]])),
            ("a gap", REFUSED, |d| d["spans"][1]["raw_offset"] = json!(131_072 + 512)),
            ("the first not at 0", REFUSED, |d| d["spans"][0]["raw_offset"] = json!(65536)),
            ("a span too long", REFUSED, |d| d["spans"][1]["raw_length"] = json!(1024)),
            ("a span of nothing", REFUSED, |d| d["spans"][1]["raw_length"] = json!(0)),
            ("a span of 2^64 - 1", REFUSED, |d| d["spans"][1]["raw_length"] = json!(u64::MAX)),
            ("a span of half a chunk", REFUSED, |d| d["spans"][0]["raw_length"] = json!(32768)),
            ("an index of another size", REFUSED, |d| d["spans"][0]["index"]["size"] = json!(112)),
            ("an index of 0 bytes", REFUSED, |d| d["spans"][0]["index"]["size"] = json!(0)),
            ("an index of 10 GiB", REFUSED, |d| d["spans"][0]["index"]["size"] = json!(10u64 << 30)),
            ("a data blob of 0 bytes", REFUSED, |d| d["spans"][0]["data"]["size"] = json!(0)),
            ("a data blob of 2^63", REFUSED, |d| d["spans"][0]["data"]["size"] = json!(1u64 << 63)),
            ("a data blob of 2^63 - 1", REFUSED, |d| d["spans"][0]["data"]["size"] = json!((1u64 << 63) - 1)),
            ("a data blob a byte longer", REFUSED, |d| longer(d)),
            ("the other span's blobs", REFUSED, |d| d["spans"][0]["index"] = d["spans"][1]["index"].clone()),
            ("the other span's data", REFUSED, |d| d["spans"][0]["data"] = d["spans"][1]["data"].clone()),
            ("a span that is an array", REFUSED, |d| d["spans"][0] = json!([0, 131_072])),
            ("more spans than allowed", REFUSED, |d| many(d, 16_385)),
            ("as many spans as allowed", CORRUPT, |d| many(d, 16_384)),
            ("more chunks than allowed", REFUSED, |d| wide(d, 65_537)),
            ("as many chunks as allowed", CORRUPT, |d| wide(d, 65_536)),
        ],
    );
}

fn longer(descriptor: &mut Value) {
    let size = &mut descriptor["spans"][0]["data"]["size"];
    *size = json!(size.as_u64().unwrap() + 1);
}

/// One span of so many chunks, whose index blob is not there.
fn wide(descriptor: &mut Value, chunks: u64) {
    huge(descriptor, chunks * 65536);
    descriptor["spans"] = json!([descriptor["spans"][0]]);
    let span = &mut descriptor["spans"][0];
    span["raw_length"] = json!(chunks * 65536);
    span["index"] = json!({"digest": format!("sha256:{}", "0".repeat(64)), "size": 32 + 80 * chunks});
}

/// So many spans of one chunk, whose index blob is not there.
fn many(descriptor: &mut Value, spans: u64) {
    huge(descriptor, spans * 65536);
    let span = |number: u64| {
        let mut span = descriptor["spans"][0].clone();
        span["raw_offset"] = json!(number * 65536);
        span["raw_length"] = json!(65536);
        span["index"] = json!({"digest": format!("sha256:{}", "0".repeat(64)), "size": 112});
        span
    };
    descriptor["spans"] = (0..spans).map(span).collect();
}
