//! Bits that flip anywhere: where nobody vouches for them, and, worse, where the holder of a trusted key does.

use std::path::PathBuf;

use e2e::forge::{self, Blobs};
use e2e::layout::Layout;
use e2e::sample::noise;
use e2e::second_reader::{CORRUPT, Expect, Matrix};
use e2e::{Key, exit};

use super::{one_span, two_spans};

/// Numbers for a seed.
struct Dice(Vec<u8>);

impl Dice {
    fn new(seed: u64, throws: usize) -> Self {
        Dice(noise(seed, 8 * throws))
    }

    fn below(&mut self, bound: usize) -> usize {
        let rest = self.0.split_off(self.0.len() - 8);
        (u64::from_le_bytes(rest.try_into().unwrap()) % bound as u64) as usize
    }

    /// Flips a bit, or writes, drops or repeats a byte; says what it did.
    fn damage(&mut self, bytes: &mut Vec<u8>) -> String {
        let (at, bit, kind) = (self.below(bytes.len()), self.below(8), self.below(8));
        match kind {
            0 => drop(bytes.remove(at)),
            1 => bytes.insert(at, bytes[at]),
            2 => bytes[at] = b"\0\"0{}[],\xff"[bit],
            _ => bytes[at] ^= 1 << bit,
        }
        format!("byte {at}, bit {bit}, kind {kind}")
    }
}

/// A way to damage an image, of which the readers are only expected to say the same.
type Damage = fn(&Layout, &Key, &mut Dice) -> String;

const FRAME: &str = "a frame that is signed";

const DAMAGES: [(&str, Damage); 7] = [
    ("any file", |layout, _, dice| {
        let mut files = layout.blobs();
        files.push(layout.index_path());
        let at = dice.below(files.len());
        format!("{} {}", files[at].display(), rewrite(files[at].clone(), dice))
    }),
    ("index.json", |layout, _, dice| rewrite(layout.index_path(), dice)),
    ("a manifest that index.json names", |layout, _, dice| {
        let mut bytes = std::fs::read(layout.manifest_path()).unwrap();
        let what = dice.damage(&mut bytes);
        layout.put_manifest_bytes(&bytes);
        what
    }),
    ("an envelope that the manifest names", |layout, _, dice| {
        let mut bytes = std::fs::read(layout.envelope_path()).unwrap();
        let what = dice.damage(&mut bytes);
        layout.put_envelope(&bytes);
        what
    }),
    ("a descriptor that is signed", |layout, key, dice| {
        let mut bytes = layout.payload();
        let what = dice.damage(&mut bytes);
        layout.sign_payload(&[key], &bytes);
        what
    }),
    ("an index or data blob that is signed", |layout, key, dice| {
        let mut blobs = Blobs::of(layout);
        let which = dice.below(2);
        let what = dice.damage(if which == 0 { &mut blobs.index } else { &mut blobs.data });
        blobs.sign(layout, key);
        format!("{} {what}", ["index", "data"][which])
    }),
    (FRAME, |layout, key, dice| {
        let mut what = String::new();
        forge::rows(layout, key, |rows| {
            let at = dice.below(rows.len());
            what = format!("frame {at} {}", dice.damage(&mut rows[at].frame));
        });
        what
    }),
];

fn rewrite(file: PathBuf, dice: &mut Dice) -> String {
    let mut bytes = std::fs::read(&file).unwrap();
    let what = dice.damage(&mut bytes);
    std::fs::write(file, bytes).unwrap();
    what
}

/// Both readers judge so many images damaged in each way, by numbers from a seed.
#[track_caller]
fn judge(matrix: &mut Matrix, seed: u64, each: usize) -> usize {
    let key = matrix.image.key.clone();
    for (number, (what, damage)) in DAMAGES.iter().enumerate() {
        let expect = if *what == FRAME { Expect::AgreementButForDecoders } else { Expect::Agreement };
        let mut dice = Dice::new(seed * 100 + number as u64, 8 * each);
        for _ in 0..each {
            let dir = matrix.lab.copy(&matrix.image.dir);
            let did = damage(&Layout::new(&dir), &key, &mut dice);
            matrix.add_dir(&format!("seed {seed}: {what}: {did}"), expect, dir);
        }
    }
    matrix.judge()
}

#[test]
fn they_agree_on_images_with_a_byte_damaged() {
    let cases = judge(&mut two_spans(), 1, 12) + judge(&mut one_span(), 2, 12);
    println!("the readers agree on {cases} damaged images");
}

#[test]
#[ignore = "soak"]
fn they_agree_on_thousands_of_images_with_a_byte_damaged() {
    let (mut two, mut one) = (two_spans(), one_span());
    let cases: usize = (10..40).map(|seed| judge(&mut two, seed, 12) + judge(&mut one, seed + 1000, 12)).sum();
    assert!(cases > 5000, "{cases}");
    println!("the readers agree on {cases} damaged images");
}

#[test]
fn a_flipped_bit_in_a_blob_is_the_bytes_fault_to_both() {
    let mut matrix = two_spans();
    let blobs = |layout: &Layout| {
        let spans = layout.index_blobs().into_iter().chain(layout.data_blobs());
        spans.chain([layout.manifest_path(), layout.envelope_path()]).collect::<Vec<_>>()
    };
    assert_eq!(CORRUPT, Expect::Code(exit::SOURCE));
    for number in 0..6 {
        let len = std::fs::metadata(&blobs(&matrix.image.layout())[number]).unwrap().len();
        for at in (0..8).map(|eighth| (len - 1) * eighth / 7) {
            matrix.add(&format!("blob {number} byte {at}"), CORRUPT, |l| e2e::layout::flip(&blobs(l)[number], at));
        }
    }
    println!("the readers agree on {} blobs with a flipped bit", matrix.judge());
}
