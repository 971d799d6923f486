//! Indexes and data blobs that are rightly signed and wrong: every field of an index in every wrong way, blobs cut and
//! extended, rows that lie about their frames.

use std::ops::Range;

use e2e::counterfeit::{Forgery, sha256};
use e2e::offers::{CHUNK, DATA};
use e2e::{Offers, Target, exit};

/// What `write` does with an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Refuses it.
    Refused,
    /// Finds frames that are not what their rows say.
    Corrupt,
    /// Finds that the target does not hold what the rows say.
    NotProven,
    /// Writes the image.
    Written,
}
use Outcome::{Corrupt, NotProven, Refused, Written};

/// The rows tried: the first, one of zeros, one in the middle, the last of the span.
const ROWS: [usize; 4] = [0, 1, 5, 15];

/// Ways to be wrong, for a field of so many bytes.
fn values(old: &[u8]) -> Vec<Vec<u8>> {
    let bits = 8 * old.len().min(8) as u32;
    let number = old.iter().rev().take(8).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    let largest = u64::MAX >> (64 - bits);
    let numbers = [0, 1, 2, 4, largest, largest - 1, largest / 2, largest / 2 + 1, number.wrapping_add(1)];
    let more = [number.wrapping_sub(1), number.wrapping_mul(2), number / 2, number ^ 0x80, number.wrapping_add(80)];
    let mut values: Vec<Vec<u8>> = numbers
        .into_iter()
        .chain(more)
        .map(|number| {
            let mut value = old.to_vec();
            let len = old.len().min(8);
            value[..len].copy_from_slice(&number.to_le_bytes()[..len]);
            value
        })
        .filter(|value| value != old)
        .collect();
    values.sort();
    values.dedup();
    values
}

/// What comes of a value in a field.
type Judge = Box<dyn Fn(&[u8]) -> Outcome>;

/// The fields of an index by their place, and what comes of another value there.
fn fields(forgery: &Forgery) -> Vec<(Range<usize>, Judge)> {
    let fixed = |_: &[u8]| Refused;
    let mut fields: Vec<(_, Judge)> =
        vec![(8..12, Box::new(fixed)), (12..16, Box::new(fixed)), (16..24, Box::new(fixed)), (24..32, Box::new(fixed))];
    fields.extend((0..8).map(|at| (at..at + 1, Box::new(fixed) as Box<_>)));
    for number in ROWS {
        let row = &forgery.spans[0].rows[number];
        let at = 32 + 80 * number;
        let data = row.kind == 1;
        // Zeros may be called data, zero or hole: all three are what the target then holds.
        let kind = move |value: &[u8]| if !data && (1..=3).contains(&value[0]) { Written } else { Refused };
        fields.push((at..at + 1, Box::new(kind)));
        fields.extend((1..4).map(|byte| (at + byte..at + byte + 1, Box::new(fixed) as Box<_>)));
        fields.push((at + 4..at + 8, Box::new(fixed)));
        fields.push((at + 8..at + 16, Box::new(fixed)));
        fields.push((at + 16..at + 48, Box::new(move |_: &[u8]| if data { Corrupt } else { Written })));
        fields.push((at + 48..at + 80, Box::new(move |_: &[u8]| if data { NotProven } else { Refused })));
    }
    fields
}

fn try_one(offers: &Offers, forgery: &Forgery, index: &[u8], outcome: Outcome, untouched: &Target, what: &str) {
    offers.counts();
    let mut forgery = forgery.clone();
    let data = forgery.spans[0].data();
    forgery.name(0, index, &data);
    let dir = forgery.make_from(&offers.lab, &forgery.descriptor.to_string(), &[index]);
    if outcome == Refused {
        let done = offers.write(&dir, untouched);
        assert!(done.status.code() == Some(exit::IMAGE) && done.stderr.contains("index of span 0"), "{what}: {done:?}");
    } else {
        let target = offers.target();
        let done = offers.write(&dir, &target);
        let code = match outcome {
            Corrupt => exit::SOURCE,
            NotProven => exit::PROOF,
            Written | Refused => 0,
        };
        assert_eq!(done.status.code(), Some(code), "{what}: {done:?}");
        if outcome == Written {
            assert!(target.now() == offers.raw, "{what}: written wrongly");
        } else {
            target.is_unbootable_and_never_wrong(&offers.raw, CHUNK);
        }
        std::fs::remove_file(target.backing()).unwrap();
    }
    // What writing has no use for, verifying finds all the same; but it says nothing about what zeros are called.
    let verified = offers.command("verify", &dir).done();
    let expected = match outcome {
        Refused | NotProven => exit::IMAGE,
        Corrupt => exit::SOURCE,
        Written if what.contains("digest") => exit::SOURCE,
        Written => 0,
    };
    assert_eq!(verified.status.code(), Some(expected), "{what}: {verified:?}");
    std::fs::remove_dir_all(dir).unwrap();
}

/// An index with one field changed.
struct Case {
    index: Vec<u8>,
    outcome: Outcome,
    what: String,
}

fn cases(forgery: &Forgery) -> Vec<Case> {
    let good = forgery.spans[0].index();
    let mut cases = Vec::new();
    for (place, outcome) in fields(forgery) {
        for value in values(&good[place.clone()]) {
            let mut index = good.clone();
            index[place.clone()].copy_from_slice(&value);
            let kind = if place.len() == 32 { "digest" } else { "bytes" };
            let what = format!("{kind} {place:?} of the index are {value:02x?}");
            cases.push(Case { index, outcome: outcome(&value), what });
        }
    }
    cases
}

#[test]
fn every_field_of_the_index_in_every_wrong_way() {
    let offers = Offers::new();
    let forgery = offers.forgery();
    let cases = cases(&forgery);
    for outcome in [Refused, Corrupt, NotProven, Written] {
        assert!(cases.iter().any(|case| case.outcome == outcome), "{outcome:?} never comes");
    }
    assert!(cases.len() > 350, "{}", cases.len());
    offers.try_all(&cases, |case, untouched| {
        try_one(&offers, &forgery, &case.index, case.outcome, untouched, &case.what);
    });
}

#[test]
fn an_index_cut_short_or_extended() {
    let offers = Offers::new();
    let forgery = offers.forgery();
    let (index, data) = (forgery.spans[0].index(), forgery.spans[0].data());
    let row = index[32..112].to_vec();
    let cuts = [0, 1, 31, 32, 111, 112, index.len() - 80, index.len() - 1].map(|len| index[..len].to_vec());
    let extended = [&[0][..], &row, &[0; 80], &index].map(|more| [&index[..], more].concat());
    for changed in cuts.into_iter().chain(extended) {
        // The descriptor says the blob's true length, which its geometry contradicts.
        let mut forged = forgery.clone();
        forged.name(0, &changed, &data);
        let dir = forged.make_from(&offers.lab, &forged.descriptor.to_string(), &[&changed]);
        offers.refused_at_once(&dir, "span 0");
        // It says the length of its geometry: the blob cannot be it.
        forged.descriptor["spans"][0]["index"]["size"] = index.len().into();
        let dir = forged.make_from(&offers.lab, &forged.descriptor.to_string(), &[&changed]);
        let target = offers.target();
        offers.write(&dir, &target).exits(exit::SOURCE).says("instead of");
        target.is_untouched();
        offers.counts();
    }
}

#[test]
fn a_wrong_index_of_a_later_span_leaves_nothing_that_boots() {
    let offers = Offers::new();
    let forgery = offers.forgery();
    let (first, second) = (&forgery.spans[0], &forgery.spans[1]);
    let mut magic = second.index();
    magic[7] = 2;
    let mut overlapping = second.clone();
    overlapping.rows[1].offset = 0;
    let mut zeros_that_are_none = second.clone();
    zeros_that_are_none.rows[DATA[3] - 16].kind = 2;
    // Another span's, which contradicts the geometry of this one.
    let wrong = [magic, overlapping.index(), zeros_that_are_none.index(), first.index()[..32 + 80 * 9].to_vec()];
    for index in wrong {
        let mut forged = forgery.clone();
        forged.name(1, &index, &second.data());
        let dir = forged.make_from(&offers.lab, &forged.descriptor.to_string(), &[&index]);
        offers.refused_midway(&dir, exit::IMAGE, "index of span 1");
    }
}

/// Spans of equal length may name the same blobs; here they must not, since the indexes are for other lengths.
#[test]
fn spans_that_name_each_others_blobs() {
    let offers = Offers::new();
    let mut forgery = offers.forgery();
    let spans = forgery.descriptor["spans"].as_array_mut().unwrap();
    let (first, second) = (spans[0].clone(), spans[1].clone());
    (spans[0]["data"], spans[1]["data"]) = (second["data"].clone(), first["data"].clone());
    offers.refused(&forgery.make_from(&offers.lab, &forgery.descriptor.to_string(), &[]), "contradicts");
}

#[test]
fn a_data_blob_cut_short_or_extended() {
    let offers = Offers::new();
    let forgery = offers.forgery();
    let (index, data) = (forgery.spans[0].index(), forgery.spans[0].data());
    let cuts = [1, data.len() / 2, data.len() - 1].map(|len| data[..len].to_vec());
    for changed in cuts.into_iter().chain([[&data[..], &[0]].concat(), [&data[..], &data].concat()]) {
        // Only the descriptor knows of it.
        let mut forged = forgery.clone();
        forged.name(0, &index, &changed);
        offers.refused(&forged.make_from(&offers.lab, &forged.descriptor.to_string(), &[&changed]), "contradicts");
        // The index's header knows of it too, its rows do not.
        let mut header = index.clone();
        header[24..32].copy_from_slice(&(changed.len() as u64).to_le_bytes());
        forged.name(0, &header, &changed);
        let dir = forged.make_from(&offers.lab, &forged.descriptor.to_string(), &[&header, &changed]);
        offers.refused(&dir, "seek table");
    }
}

/// Nobody but a verifier and other people's tools reads it.
#[test]
fn a_seek_table_that_lies_is_found_by_verify_and_harms_no_writer() {
    let offers = Offers::new();
    for at in [0, 4, 8, 12, 8 + 8 * 16, 12 + 8 * 16, 13 + 8 * 16] {
        let mut forgery = offers.forgery();
        forgery.spans[0].seek_table[at] ^= 1;
        let dir = forgery.make(&offers.lab);
        offers.written(&dir);
        offers.command("verify", &dir).done().exits(exit::IMAGE).says("seek table of span 0");
    }
}

#[test]
fn frames_of_two_chunks_swapped_with_their_digests_but_not_those_of_their_content() {
    let offers = Offers::new();
    let mut forgery = offers.forgery();
    let span = &mut forgery.spans[0];
    span.frames.swap(DATA[1], DATA[2]);
    span.settle();
    let dir = forgery.clone().make(&offers.lab);
    // What is signed contradicts itself: the frames say one thing, the digests of their content another. A writer finds
    // it where it compares the media with the signed digests.
    let target = offers.target();
    offers.write(&dir, &target).exits(exit::PROOF).says("chunk 5 of span 0");
    assert!(target.starts_with_zeros(CHUNK), "it must not boot");
    offers.agent(&dir, &target).exits(exit::PROOF);
    assert!(target.starts_with_zeros(CHUNK), "it must not boot");
    // Several check at once: whichever of the two is looked at first is named.
    offers.command("verify", &dir).done().exits(exit::IMAGE).says("of span 0").says("raw bytes");
    offers.counts();
}

#[test]
fn frames_of_two_chunks_swapped_with_every_digest_are_another_image() {
    let mut offers = Offers::new();
    let mut forgery = offers.forgery();
    let span = &mut forgery.spans[0];
    let (one, other) = (DATA[1], DATA[2]);
    span.frames.swap(one, other);
    let digest = span.rows[one].raw_digest;
    span.rows[one].raw_digest = span.rows[other].raw_digest;
    span.rows[other].raw_digest = digest;
    span.settle();
    let dir = forgery.make(&offers.lab);
    let chunk = CHUNK as usize;
    let (head, tail) = offers.raw.split_at_mut(other * chunk);
    head[one * chunk..][..chunk].swap_with_slice(&mut tail[..chunk]);
    offers.accepted(&dir);
}

/// A writer never fetches the frames of zeros; a verifier does, because other tools unpack them.
#[test]
fn zeros_and_holes_whose_frames_are_not_zeros() {
    let offers = Offers::new();
    for kind in [2, 3] {
        let mut forgery = offers.forgery();
        let noise = forgery.spans[0].frames[DATA[1]].clone();
        forgery.spans[0].rows[1].kind = kind;
        forgery.spans[0].put_frame(1, &noise);
        let dir = forgery.make(&offers.lab);
        offers.written(&dir);
        offers.command("verify", &dir).done().exits(exit::IMAGE).says("chunk 1 of span 0").says("raw bytes");
    }
}

#[test]
fn chunks_of_zeros_that_are_called_holes_are_zeroed_where_old_content_lies() {
    let offers = Offers::new();
    let mut forgery = offers.forgery();
    for row in forgery.spans.iter_mut().flat_map(|span| &mut span.rows).filter(|row| row.kind == 2) {
        row.kind = 3;
    }
    offers.accepted(&forgery.make(&offers.lab));
}

#[test]
fn data_that_is_called_zeros_is_refused_whatever_its_digest_says() {
    let offers = Offers::new();
    let zeros = sha256(&vec![0; CHUNK as usize]);
    for kind in [2, 3] {
        let mut forgery = offers.forgery();
        forgery.spans[0].rows[DATA[1]].kind = kind;
        offers.refused(&forgery.clone().make(&offers.lab), "index of span 0");
        // With the digest of zeros it is a chunk of zeros, to every writer; its frame is not, as a verifier finds.
        forgery.spans[0].rows[DATA[1]].raw_digest = zeros;
        let dir = forgery.make(&offers.lab);
        offers.command("verify", &dir).done().exits(exit::IMAGE).says("chunk 5 of span 0");
    }
}
