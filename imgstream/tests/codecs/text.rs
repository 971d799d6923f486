//! Texts that people and other programs write: digests, sizes, places.

use imgstream::digest::Digest;
use imgstream::size::Size;
use imgstream::source::Locator;
use proptest::prelude::*;

use crate::damage::{damaged, edits};

proptest! {
    #[test]
    fn a_digest_is_read_as_it_is_written_and_in_no_other_way(bytes in any::<[u8; 32]>(), edits in edits()) {
        let digest = Digest::from_bytes(bytes);
        let text = digest.to_string();
        prop_assert_eq!(text.parse(), Ok(digest));
        prop_assert_eq!(digest.as_bytes(), &bytes);
        let damaged = String::from_utf8_lossy(&damaged(text.as_bytes(), &edits)).into_owned();
        if let Ok(found) = damaged.parse::<Digest>() {
            prop_assert_eq!(found.to_string(), damaged);
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,90}", prefix in "(sha256:|oci://|oci\\+http://|http://|https://|[a-z]{1,4}://|)") {
        let text = prefix + &text;
        let _ = text.parse::<Digest>();
        let _ = text.parse::<Size>();
        let _ = text.parse::<Locator>();
    }

    #[test]
    fn a_size_is_read_with_every_unit(number in 0..=u64::MAX >> 40, unit in 1..5usize, blanks in " {0,2}") {
        let text = format!("{number}{blanks}{}", ["B", "KiB", "MiB", "GiB", "TiB"][unit]);
        prop_assert_eq!(text.parse(), Ok(Size(number << (10 * unit))));
        prop_assert_eq!(number.to_string().parse(), Ok(Size(number)));
    }

    #[test]
    fn a_size_beyond_64_bits_is_refused(number in (u64::MAX >> 40) + 1.., more in any::<u64>()) {
        for text in [format!("{number}TiB"), format!("{number}{more:020}")] {
            prop_assert!(text.parse::<Size>().is_err());
        }
    }

    /// What a person reads is what the number is, to the digits that are shown.
    #[test]
    fn a_size_is_shown_rightly(bytes in any::<u64>()) {
        let shown = Size(bytes).to_string();
        let (number, unit) = shown.split_once(' ').unwrap();
        let unit = 1u128 << (10 * ["B", "KiB", "MiB", "GiB", "TiB"].iter().position(|name| *name == unit).unwrap());
        #[allow(clippy::cast_precision_loss)]
        let (found, real) = (number.parse::<f64>().unwrap() * unit as f64, bytes as f64);
        #[allow(clippy::cast_precision_loss)]
        let off = 0.051 * unit as f64;
        prop_assert!((found - real).abs() <= off, "{}: {}", bytes, shown);
    }

    #[test]
    fn a_reference_is_read_as_it_is_written(
        scheme in "oci(\\+http)?",
        host in "[a-z0-9][a-z0-9.-]{0,12}(:[0-9]{1,5})?",
        repository in "[a-z0-9][a-z0-9._-]{0,8}(/[a-z0-9][a-z0-9._-]{0,8}){0,3}",
        version in prop_oneof![
            ":[A-Za-z0-9_.-]{1,128}",
            any::<[u8; 32]>().prop_map(|bytes| format!("@{}", Digest::from_bytes(bytes))),
        ],
    ) {
        let text = format!("{scheme}://{host}/{repository}{version}");
        let Ok(Locator::Registry(found)) = text.parse() else { panic!("{text} is refused") };
        prop_assert_eq!(found.to_string(), text);
    }

    /// Whatever is taken for a reference makes a URL whose host is the one that stands in it.
    #[test]
    fn a_reference_never_leads_to_another_host(rest in "[a-z0-9@:/?#.\\[\\]\\\\%_-]{1,40}") {
        if let Ok(Locator::Registry(found)) = format!("oci+http://{rest}").parse() {
            let url = format!("{}://{}/v2/{}/blobs/", found.scheme, found.authority, found.repository);
            if let Ok(url) = url::Url::parse(&url) {
                prop_assert!(url.username().is_empty() && url.password().is_none() && url.query().is_none());
                let path = format!("/v2/{}/blobs/", found.repository);
                prop_assert_eq!(url.path(), path);
            }
        }
    }

    #[test]
    fn a_url_has_no_password_and_ends_in_a_slash(rest in "[a-z0-9@:/?#.\\[\\]\\\\%_-]{1,40}") {
        if let Ok(Locator::Http(url)) = format!("http://{rest}").parse() {
            prop_assert!(url.username().is_empty() && url.password().is_none());
            prop_assert!(url.path().ends_with('/'));
        }
    }
}
