//! The end of an encrypted region, which a LUKS header takes the place of: section 8.1.

use e2e::encrypted::{Disk, FileSystem};
use e2e::forge;
use e2e::sample::noise;
use e2e::second_reader::{ACCEPTED, Expect, Matrix, REFUSED};
use e2e::{KIB, Lab, MIB};
use serde_json::{Value, json};

const CHUNK: u64 = 64 * KIB;
/// The encrypted region, and the end of it that has no place: it begins and ends within chunks, and lies in two spans.
const REGION: [u64; 2] = [CHUNK / 2, 2 * MIB + CHUNK / 2];
const ROOM: u64 = REGION[1] - MIB;
const SIZE: u64 = 2 * MIB + 2 * CHUNK;

/// Noise everywhere, but zeros where there is no place.
fn raw() -> Vec<u8> {
    let mut raw = noise(41, SIZE as usize);
    raw[ROOM as usize..REGION[1] as usize].fill(0);
    raw
}

/// Three regions, the middle one encrypted.
fn encrypt(descriptor: &mut Value, from: u64, to: u64) {
    let luks = json!({"uuid": "01234567-89ab-cdef-0123-456789abcdef", "header_bytes": MIB});
    let size = descriptor["raw_size"].as_u64().unwrap();
    descriptor["regions"] = json!([
        {"name": "boot", "offset": 0, "length": from, "encrypt": false},
        {"name": "root", "offset": from, "length": to - from, "encrypt": true, "luks": luks},
        {"name": "end", "offset": to, "length": size - to, "encrypt": false},
    ]);
}

/// What both say of an image with a byte in some place.
fn judge_byte(what: &str, at: u64, expect: Expect) {
    let mut raw = raw();
    raw[at as usize] = 1;
    let mut matrix = Matrix::new(&raw, "--chunk-size 64KiB --span-size 1MiB");
    let key = matrix.image.key.clone();
    matrix.add(what, expect, |layout| layout.sign_changed(&[&key], |d| encrypt(d, REGION[0], REGION[1])));
    matrix.judge();
}

#[test]
fn they_agree_on_what_imgstream_packs_to_be_encrypted() {
    let lab = Lab::new();
    let disk = Disk::new(&lab, FileSystem::Ext4, 9 * MIB, 8 * MIB);
    let options = "--chunk-size 256KiB --span-size 4MiB --encrypt-region root=root --luks-header 1MiB";
    for holes in ["", "--holes"] {
        let mut matrix = Matrix::new(&disk.bytes(), &format!("{options} {holes}"));
        matrix.add("as it was packed", ACCEPTED, |_| {});
        matrix.judge();
    }
}

#[test]
fn they_agree_on_a_byte_in_every_kind_of_place() {
    judge_byte("the last byte before", ROOM - 1, ACCEPTED);
    judge_byte("the first byte", ROOM, REFUSED);
    judge_byte("a byte in the middle", ROOM + MIB / 2, REFUSED);
    judge_byte("the last byte of the first span", 2 * MIB - 1, REFUSED);
    judge_byte("the first byte of the second span", 2 * MIB, REFUSED);
    judge_byte("the last byte", REGION[1] - 1, REFUSED);
    judge_byte("the first byte after", REGION[1], ACCEPTED);
}

/// Zeros may be called data.
#[test]
fn they_agree_on_data_that_is_zeros() {
    let mut matrix = Matrix::new(&raw(), "--chunk-size 64KiB --span-size 4MiB");
    let key = matrix.image.key.clone();
    matrix.add("zeros as data", ACCEPTED, |layout| {
        forge::rows(layout, &key, |rows| {
            let zeros = rows.iter_mut().filter(|row| row.kind == 2);
            assert_eq!(zeros.map(|row| row.kind = 1).count(), 15, "whole chunks of zeros");
        });
        layout.sign_changed(&[&key], |d| encrypt(d, REGION[0], REGION[1]));
    });
    matrix.judge();
}

/// Blobs that are read once serve two spans, of which only the second lies where there is no place.
#[test]
fn they_agree_on_equal_spans_of_which_one_has_no_place() {
    let mut matrix = Matrix::new(&noise(42, MIB as usize).repeat(2), "--chunk-size 64KiB --span-size 1MiB");
    let key = matrix.image.key.clone();
    let blobs = matrix.image.layout().data_blobs();
    assert_eq!(blobs[0], blobs[1], "the spans have blobs of their own");
    matrix.add("in the clear", ACCEPTED, |_| {});
    matrix.add("no place for the second", REFUSED, |layout| {
        layout.sign_changed(&[&key], |descriptor| {
            encrypt(descriptor, MIB - CHUNK, 2 * MIB);
            descriptor["regions"].as_array_mut().unwrap().pop();
        });
    });
    matrix.judge();
}
