//! The OCI documents, and choosing.

use imgstream::digest::Digest;
use imgstream::manifest::BlobRef;
use imgstream::manifest::layout::{Choice, choose, encode_index, envelope_of, replace_in_index};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::damage::{damaged, edits};

fn blob() -> impl Strategy<Value = BlobRef> {
    any::<([u8; 32], u64)>().prop_map(|(digest, size)| BlobRef { digest: Digest::from_bytes(digest), size })
}

/// `index.json` of images with these reference names; the digest of each is that of its number.
fn index(names: &[String]) -> Value {
    let entry = |(number, name): (usize, &String)| {
        let annotations = json!({"org.opencontainers.image.ref.name": name});
        json!({"digest": digest(number), "size": number, "annotations": annotations})
    };
    json!({"schemaVersion": 2, "manifests": names.iter().enumerate().map(entry).collect::<Vec<_>>()})
}

fn digest(number: usize) -> Digest {
    Digest::of(&number.to_le_bytes())
}

/// Section 2.4 of the specification, said again.
fn fits(name: &str, wanted_name: &str, wanted_architecture: &str) -> bool {
    let ours = name.rsplit_once('-').and_then(|(rest, architecture)| {
        let (image, version) = rest.rsplit_once('-')?;
        let number = !version.is_empty() && version.chars().all(|digit| digit.is_ascii_digit());
        number.then_some((image, architecture))
    });
    ours.map_or(name == wanted_name, |found| found == (wanted_name, wanted_architecture))
}

proptest! {
    #[test]
    fn one_image_is_found_and_can_be_replaced(old in blob(), new in blob(), name in "\\PC{0,20}") {
        let index = encode_index(old, &name);
        prop_assert_eq!(choose(&index, &Choice::default()).unwrap(), old);
        let replaced = replace_in_index(&index, old.digest, new).unwrap();
        prop_assert_eq!(choose(&replaced, &Choice::default()).unwrap(), new);
    }

    #[test]
    fn exactly_one_of_several_fits_or_none_is_chosen(names in vec("(a|b|a-b|)-?[0-9]{0,2}-(s390x|x86_64)?", 2..7)) {
        let choice = Choice { name: Some("a".into()), architecture: Some("s390x".into()) };
        let fitting: Vec<usize> = (0..names.len()).filter(|number| fits(&names[*number], "a", "s390x")).collect();
        let chosen = choose(index(&names).to_string().as_bytes(), &choice);
        match fitting[..] {
            [one] => prop_assert_eq!(chosen.unwrap().digest, digest(one)),
            _ => prop_assert!(chosen.is_err(), "{:?}: {:?}", names, chosen),
        }
    }

    #[test]
    fn damage_never_panics(names in vec("[a-c]-[0-9]-s390x", 1..4), edits in edits()) {
        let damaged = damaged(index(&names).to_string().as_bytes(), &edits);
        if let Ok(chosen) = choose(&damaged, &Choice::default()) {
            let new = BlobRef { digest: Digest::of(b"new"), size: 1 };
            let replaced = replace_in_index(&damaged, chosen.digest, new).unwrap();
            prop_assert_eq!(choose(&replaced, &Choice::default()).unwrap(), new);
        }
        let _ = envelope_of(&damaged);
    }
}

/// A name that lacks a part is a name as a whole, and not one that fits every wish.
#[test]
fn a_version_and_an_architecture_are_no_name() {
    let choice = Choice { name: Some("a".into()), architecture: Some("s390x".into()) };
    let index = index(&["0-s390x".to_owned(), "a-3-s390x".to_owned()]);
    assert_eq!(choose(index.to_string().as_bytes(), &choice).unwrap().digest, digest(1));
}
