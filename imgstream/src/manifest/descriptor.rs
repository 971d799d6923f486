//! The descriptor: what an image is. Its exact bytes are what is signed, and their SHA-256 is the image's digest.
//! There is no canonical form. `docs/format.md` §4.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::boot::BootFacts;
use super::region::Region;
use super::strict;
use super::{MAX_CHUNK_SIZE, MAX_CHUNKS_PER_SPAN, MAX_RAW_SIZE, MAX_SPANS, MIN_CHUNK_SIZE, index};
use crate::digest::Digest;

/// The format version this crate reads and writes.
pub const FORMAT: u32 = 1;
/// Largest descriptor accepted, in bytes: enough for [`MAX_SPANS`] spans and a thousand regions.
pub const MAX_DESCRIPTOR: usize = 6 << 20;

/// Every field of version 1, which is what a `critical` list may name.
const KNOWN_FIELDS: [&str; 15] = [
    "format",
    "critical",
    "name",
    "image_version",
    "architecture",
    "created",
    "expires",
    "raw_size",
    "chunk_size",
    "sector_size",
    "digest",
    "compression",
    "regions",
    "boot",
    "spans",
];

/// The signed description of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Format version, [`FORMAT`].
    pub format: u32,
    /// Names of things a reader must understand or refuse the image.
    pub critical: Vec<String>,
    /// The image's name, such as `debian-13`.
    pub name: String,
    /// Monotonic version of the image of this name.
    pub image_version: u64,
    /// Architecture as `uname -m` says it: `s390x`.
    pub architecture: String,
    /// When it was packed.
    #[serde(with = "time::serde::rfc3339")]
    pub created: OffsetDateTime,
    /// From when on it must not be used any more.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub expires: Option<OffsetDateTime>,
    /// Length of the raw image in bytes.
    pub raw_size: u64,
    /// Raw bytes per chunk; a power of two.
    pub chunk_size: u32,
    /// Logical sector size the image was built for: 512 or 4096.
    pub sector_size: u32,
    /// Digest algorithm: `sha256`.
    pub digest: String,
    /// Compression: `zstd`.
    pub compression: String,
    /// Named ranges that cover the raw image, in order, without gaps.
    #[serde(with = "strict::objects")]
    pub regions: Vec<Region>,
    /// How it IPLs, where the packer could tell.
    #[serde(default, with = "strict::optional_object", skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootFacts>,
    /// The spans that cover the raw image, in order, without gaps.
    #[serde(with = "strict::objects")]
    pub spans: Vec<Span>,
}

/// A fixed range of the raw image and the two blobs that hold it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// First raw byte.
    pub raw_offset: u64,
    /// Raw bytes covered; a multiple of the chunk size except in the last span.
    pub raw_length: u64,
    /// The chunk index.
    #[serde(with = "strict::object")]
    pub index: BlobRef,
    /// The frames and their seek table.
    #[serde(with = "strict::object")]
    pub data: BlobRef,
}

/// A blob by digest and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// SHA-256 of the blob.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// Why bytes are not a descriptor this crate accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescriptorError(String);

impl std::fmt::Display for DescriptorError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DescriptorError {}

fn refuse<T>(why: impl Into<String>) -> Result<T, DescriptorError> {
    Err(DescriptorError(why.into()))
}

impl Descriptor {
    /// Reads a descriptor and checks every invariant. Call it on bytes whose signature has been verified.
    ///
    /// # Errors
    /// When the bytes are no JSON, have a duplicate key anywhere, name an unknown critical entry, or break an invariant.
    pub fn decode(bytes: &[u8]) -> Result<Self, DescriptorError> {
        if bytes.len() > MAX_DESCRIPTOR {
            return refuse(format!("{} bytes are more than a descriptor's {MAX_DESCRIPTOR}", bytes.len()));
        }
        let version: Version = strict::parse(bytes).map_err(|error| DescriptorError(error.to_string()))?;
        if version.format != FORMAT {
            return refuse(format!("format version {}; this program reads version {FORMAT}", version.format));
        }
        let descriptor: Descriptor = strict::parse(bytes).map_err(|error| DescriptorError(error.to_string()))?;
        descriptor.check()?;
        Ok(descriptor)
    }

    /// The bytes to sign.
    ///
    /// # Errors
    /// When an invariant does not hold, so that nothing is signed that no reader would accept.
    pub fn encode(&self) -> Result<Vec<u8>, DescriptorError> {
        self.check()?;
        serde_json::to_vec(self).map_err(|error| DescriptorError(error.to_string()))
    }

    /// Sum of the data blobs in bytes, seek tables included. What they are said to be can be more than 64 bits hold, and
    /// only their indexes, read later, tell that it is a lie: until then it is "very much".
    pub fn data_bytes(&self) -> u64 {
        self.spans.iter().fold(0, |sum, span| sum.saturating_add(span.data.size))
    }

    fn check(&self) -> Result<(), DescriptorError> {
        self.check_identity()?;
        self.check_geometry()?;
        self.check_regions()?;
        self.check_boot()?;
        self.check_spans()
    }

    fn check_identity(&self) -> Result<(), DescriptorError> {
        if self.format != FORMAT {
            return refuse(format!("format version {}; this program knows version {FORMAT}", self.format));
        }
        if let Some(unknown) = self.critical.iter().find(|entry| !KNOWN_FIELDS.contains(&entry.as_str())) {
            return refuse(format!("it needs {unknown:?}, which this program does not know"));
        }
        check_name(&self.name).map_err(DescriptorError)?;
        check_architecture(&self.architecture).map_err(DescriptorError)?;
        if self.digest != "sha256" || self.compression != "zstd" {
            return refuse(format!(
                "digest {:?} with compression {:?}; only sha256 with zstd is known",
                self.digest, self.compression
            ));
        }
        if self.expires.is_some_and(|expires| expires <= self.created) {
            return refuse("it expires before it was created");
        }
        Ok(())
    }

    fn check_geometry(&self) -> Result<(), DescriptorError> {
        if !matches!(self.sector_size, 512 | 4096) {
            return refuse(format!("sector size {}; 512 and 4096 are known", self.sector_size));
        }
        if !self.chunk_size.is_power_of_two() || !(MIN_CHUNK_SIZE..=MAX_CHUNK_SIZE).contains(&self.chunk_size) {
            return refuse(format!("chunk size {} is not a power of two from 64 KiB to 8 MiB", self.chunk_size));
        }
        if self.raw_size == 0
            || self.raw_size > MAX_RAW_SIZE
            || !self.raw_size.is_multiple_of(u64::from(self.sector_size))
        {
            return refuse(format!(
                "raw size {} is not a positive multiple of the {}-byte sector",
                self.raw_size, self.sector_size
            ));
        }
        Ok(())
    }

    fn check_regions(&self) -> Result<(), DescriptorError> {
        let mut names = std::collections::HashSet::new();
        let mut end = 0u64;
        for region in &self.regions {
            let Region { name, offset, length, encrypt, luks } = region;
            check_name(name).map_err(DescriptorError)?;
            if !names.insert(name) {
                return refuse(format!("two regions are called {name:?}"));
            }
            if *offset != end || *length == 0 || length % u64::from(self.sector_size) != 0 {
                return refuse(format!(
                    "region {name:?} at {offset} with {length} bytes does not follow the one before"
                ));
            }
            if *encrypt != luks.is_some() {
                return refuse(format!("region {name:?} must have LUKS facts exactly when it is to be encrypted"));
            }
            if luks.as_ref().is_some_and(|luks| !luks.is_sane(*length)) {
                return refuse(format!("region {name:?} has LUKS facts that are out of bounds"));
            }
            end = end.saturating_add(*length);
        }
        if end != self.raw_size {
            return refuse(format!("the regions cover {end} of {} bytes", self.raw_size));
        }
        Ok(())
    }

    fn check_boot(&self) -> Result<(), DescriptorError> {
        let Some(boot) = &self.boot else {
            return Ok(());
        };
        let inside =
            |offset: u64, length: u64| length > 0 && offset.checked_add(length).is_some_and(|end| end <= self.raw_size);
        if boot.method.is_empty()
            || !inside(boot.record_offset, boot.record_length)
            || !inside(boot.map_offset, boot.map_length)
        {
            return refuse("its boot facts lie outside the image");
        }
        Ok(())
    }

    fn check_spans(&self) -> Result<(), DescriptorError> {
        if self.spans.len() > MAX_SPANS {
            return refuse(format!("{} spans are more than {MAX_SPANS}", self.spans.len()));
        }
        let mut end = 0u64;
        for (number, span) in self.spans.iter().enumerate() {
            let last = number + 1 == self.spans.len();
            let chunk_size = u64::from(self.chunk_size);
            if span.raw_offset != end
                || span.raw_length == 0
                || span.raw_length.div_ceil(chunk_size) > MAX_CHUNKS_PER_SPAN
                || (!last && span.raw_length % chunk_size != 0)
            {
                return refuse(format!(
                    "span {number} at {} with {} bytes does not follow the one before",
                    span.raw_offset, span.raw_length
                ));
            }
            if span.index.size != index::encoded_len(span.raw_length, self.chunk_size) {
                return refuse(format!(
                    "span {number} has an index of {} bytes for {} raw bytes",
                    span.index.size, span.raw_length
                ));
            }
            if span.data.size == 0 || span.data.size > i64::MAX as u64 {
                return refuse(format!("span {number} has a data blob of {} bytes", span.data.size));
            }
            end = end.saturating_add(span.raw_length);
        }
        if end != self.raw_size {
            return refuse(format!("the spans cover {end} of {} bytes", self.raw_size));
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Version {
    format: u32,
}

/// Checks an image's or region's name: 1 to 128 of `a-z 0-9 . _ -`, starting with a letter or digit.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    let shape = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-');
    let starts_well = name.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
    if starts_well && name.len() <= 128 && name.bytes().all(shape) {
        return Ok(());
    }
    Err(format!(
        "the name {name:?} is not made of a-z, 0-9, dot, underscore and hyphen, starting with a letter or digit"
    ))
}

/// Checks an architecture's name: 1 to 32 of `a-z 0-9 _`.
///
/// # Errors
/// What is wrong with it.
pub fn check_architecture(name: &str) -> Result<(), String> {
    let shape = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if !name.is_empty() && name.len() <= 32 && name.bytes().all(shape) {
        return Ok(());
    }
    Err(format!("the architecture {name:?} is not one that `uname -m` could say, such as s390x or x86_64"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn sample() -> Descriptor {
        let raw_size = 3 << 20;
        Descriptor {
            format: 1,
            critical: vec!["regions".into()],
            name: "debian-13".into(),
            image_version: 7,
            architecture: "s390x".into(),
            created: OffsetDateTime::UNIX_EPOCH,
            expires: None,
            raw_size,
            chunk_size: 1 << 20,
            sector_size: 512,
            digest: "sha256".into(),
            compression: "zstd".into(),
            regions: super::super::partitions::regions(&[], raw_size, &[]),
            boot: None,
            spans: vec![Span {
                raw_offset: 0,
                raw_length: raw_size,
                index: BlobRef { digest: Digest::of(b"index"), size: index::encoded_len(raw_size, 1 << 20) },
                data: BlobRef { digest: Digest::of(b"data"), size: 1000 },
            }],
        }
    }

    fn text() -> String {
        String::from_utf8(sample().encode().unwrap()).unwrap()
    }

    #[test]
    fn round_trip() {
        assert_eq!(Descriptor::decode(text().as_bytes()), Ok(sample()));
    }

    #[test]
    fn unknown_fields_are_ignored_unless_critical() {
        let extended = text().replacen('{', r#"{"colour":"green","#, 1);
        assert_eq!(Descriptor::decode(extended.as_bytes()), Ok(sample()));
        let critical = extended.replace(r#"["regions"]"#, r#"["colour"]"#);
        assert!(Descriptor::decode(critical.as_bytes()).unwrap_err().to_string().contains("colour"));
    }

    #[test]
    fn every_broken_invariant_is_refused() {
        let breaks: [fn(&mut Descriptor); 14] = [
            |d| d.format = 2,
            |d| d.name = "../etc".into(),
            |d| d.architecture = String::new(),
            |d| d.expires = Some(OffsetDateTime::UNIX_EPOCH),
            |d| d.raw_size += 512,
            |d| d.raw_size = 0,
            |d| d.chunk_size = 3 << 19,
            |d| d.sector_size = 520,
            |d| d.digest = "sha1".into(),
            |d| d.regions[0].length -= 512,
            |d| d.regions[0].encrypt = true,
            |d| d.spans[0].index.size = 10 << 30,
            |d| d.spans[0].raw_length = u64::MAX,
            |d| d.spans.clear(),
        ];
        for (number, broken) in breaks.iter().enumerate() {
            let mut descriptor = sample();
            broken(&mut descriptor);
            let bytes = serde_json::to_vec(&descriptor).unwrap();
            assert!(Descriptor::decode(&bytes).is_err(), "break {number} was accepted");
            assert!(descriptor.encode().is_err(), "break {number} was encoded");
        }
    }

    #[test]
    fn a_duplicate_key_is_refused_at_any_depth() {
        let top = text().replacen('{', r#"{"unknown":1,"unknown":2,"#, 1);
        let deep = text().replacen('{', r#"{"unknown":[{"a":{"b":1,"b":1}}],"#, 1);
        for text in [top, deep] {
            assert!(Descriptor::decode(text.as_bytes()).unwrap_err().to_string().contains("twice"));
        }
    }

    proptest! {
        #[test]
        fn any_mutation_never_panics(at in 0usize..2000, byte in any::<u8>()) {
            let mut bytes = text().into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Descriptor::decode(&bytes);
        }
    }
}
