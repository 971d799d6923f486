//! Descriptors.

use imgstream::digest::Digest;
use imgstream::manifest::index::encoded_len;
use imgstream::manifest::{BlobRef, BootFacts, Descriptor, Luks, Region, Span};
use proptest::collection::vec;
use proptest::prelude::*;
use time::{Duration, OffsetDateTime};

use crate::damage::{damaged, edits};

fn blob() -> impl Strategy<Value = BlobRef> {
    (any::<[u8; 32]>(), 1..=i64::MAX as u64)
        .prop_map(|(digest, size)| BlobRef { digest: Digest::from_bytes(digest), size })
}

/// Lengths of spans in chunks, the last with so many sectors less; the chunk size.
fn spans() -> impl Strategy<Value = (u32, Vec<Span>)> {
    (vec((1..=65_536u64, blob(), blob()), 1..5), 16..=23u32, 0..128u64).prop_map(|(parts, bits, less)| {
        let (chunk_size, count, mut at) = (1u32 << bits, parts.len(), 0);
        let span = |(number, (chunks, mut index, data)): (usize, (u64, BlobRef, BlobRef))| {
            let last = if number + 1 == count { less * 512 } else { 0 };
            let raw_length = chunks * u64::from(chunk_size) - last;
            index.size = encoded_len(raw_length, chunk_size);
            at += raw_length;
            Span { raw_offset: at - raw_length, raw_length, index, data }
        };
        (chunk_size, parts.into_iter().enumerate().map(span).collect())
    })
}

/// Regions that cover so many sectors, some of them encrypted where they are large enough.
fn regions(raw_size: u64, cuts: &[(prop::sample::Index, bool)]) -> Vec<Region> {
    let sectors = (raw_size / 512) as usize;
    let mut ends: Vec<(u64, bool)> =
        cuts.iter().map(|(at, encrypt)| (at.index(sectors) as u64 * 512, *encrypt)).collect();
    ends.push((raw_size, true));
    ends.sort_unstable();
    ends.dedup_by_key(|(end, _)| *end);
    let mut at = 0;
    let region = |(end, encrypt): (u64, bool)| {
        let (offset, length) = (std::mem::replace(&mut at, end), end);
        let length = length - offset;
        let encrypt = encrypt && length > 1 << 20;
        let uuid = "6a7e1e3c-0001-4000-8000-000000000001".to_owned();
        let luks = encrypt.then_some(Luks { uuid, header_bytes: 1 << 20 });
        Region { name: format!("r{offset}"), offset, length, encrypt, luks }
    };
    ends.into_iter().filter(|(end, _)| *end > 0).map(region).collect()
}

fn time() -> impl Strategy<Value = OffsetDateTime> {
    (0..253_000_000_000i64).prop_map(|seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap())
}

fn descriptor() -> impl Strategy<Value = Descriptor> {
    let identity = ("[a-z0-9][a-z0-9._-]{0,127}", any::<u64>(), "[a-z0-9_]{1,32}", time(), any::<Option<u32>>());
    let cuts = vec(any::<(prop::sample::Index, bool)>(), 0..6);
    (identity, spans(), cuts, proptest::option::of("[a-z-]{1,20}"), any::<bool>()).prop_map(
        |((name, image_version, architecture, created, lives), (chunk_size, spans), cuts, method, critical)| {
            let raw_size = spans.iter().map(|span| span.raw_length).sum();
            let boot = method.map(|method| {
                let (record_offset, record_length, map_offset, map_length) = (0, raw_size, raw_size - 1, 1);
                BootFacts { method, record_offset, record_length, map_offset, map_length }
            });
            Descriptor {
                format: 1,
                critical: if critical { vec!["spans".into(), "boot".into()] } else { Vec::new() },
                name,
                image_version,
                architecture,
                created,
                expires: lives.map(|seconds| created + Duration::seconds(1 + i64::from(seconds / 64))),
                raw_size,
                chunk_size,
                sector_size: 512,
                digest: "sha256".into(),
                compression: "zstd".into(),
                regions: regions(raw_size, &cuts),
                boot,
                spans,
            }
        },
    )
}

/// What any accepted descriptor must keep, said again.
fn keeps_the_rules(found: &Descriptor) {
    let covered = |ranges: Vec<(u64, u64)>| {
        let end = ranges.iter().fold(0u128, |end, (at, len)| {
            assert!(u128::from(*at) == end && *len > 0);
            end + u128::from(*len)
        });
        assert_eq!(end, u128::from(found.raw_size));
    };
    covered(found.regions.iter().map(|region| (region.offset, region.length)).collect());
    covered(found.spans.iter().map(|span| (span.raw_offset, span.raw_length)).collect());
    for span in &found.spans {
        assert_eq!(span.index.size, encoded_len(span.raw_length, found.chunk_size));
        assert!(span.index.size <= 5_242_912);
    }
    assert_eq!(Descriptor::decode(&found.encode().unwrap()).as_ref(), Ok(found));
}

proptest! {
    #[test]
    fn what_is_written_is_read(descriptor in descriptor()) {
        let bytes = descriptor.encode().unwrap();
        prop_assert_eq!(Descriptor::decode(&bytes), Ok(descriptor.clone()));
        keeps_the_rules(&descriptor);
        let _ = descriptor.data_bytes();
    }

    #[test]
    fn damage_is_refused_or_keeps_the_rules(descriptor in descriptor(), edits in edits()) {
        if let Ok(found) = Descriptor::decode(&damaged(&descriptor.encode().unwrap(), &edits)) {
            keeps_the_rules(&found);
            let _ = found.data_bytes();
        }
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Descriptor::decode(&bytes);
    }
}
