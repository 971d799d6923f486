//! The OCI documents, of which nothing is trusted: they are read, chosen from and pointed elsewhere.

use imgstream::digest::Digest;
use imgstream::error::{Error, Kind};
use imgstream::manifest::BlobRef;
use imgstream::manifest::layout::{Choice, choose, envelope_of, replace_in_index};

/// Reads the bytes as `index.json` and as a manifest.
pub fn oci(data: &[u8]) -> bool {
    let mut accepted = false;
    let wanted = |name: Option<&str>, architecture: Option<&str>| Choice {
        name: name.map(str::to_owned),
        architecture: architecture.map(str::to_owned),
    };
    for choice in [wanted(None, None), wanted(Some("sample"), None), wanted(Some("sample"), Some("s390x"))] {
        match choose(data, &choice) {
            Ok(chosen) => {
                points_elsewhere(data, &choice, chosen);
                accepted = true;
            }
            Err(error) => is_the_images_fault(&error),
        }
    }
    match envelope_of(data) {
        Ok(_) => true,
        Err(error) => {
            is_the_images_fault(&error);
            accepted
        }
    }
}

/// What `imgstream sign` does to a layout: the same choice then leads to the new manifest.
fn points_elsewhere(data: &[u8], choice: &Choice, chosen: BlobRef) {
    let new = BlobRef { digest: Digest::of(b"another manifest"), size: 16 };
    let replaced = replace_in_index(data, chosen.digest, new).expect("what was chosen is there");
    assert_eq!(choose(&replaced, choice).expect("the same entry fits"), new);
}

fn is_the_images_fault(error: &Error) {
    assert_eq!(error.kind(), Kind::Image);
    assert!(!error.to_string().is_empty());
}
