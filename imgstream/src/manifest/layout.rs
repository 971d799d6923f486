//! The OCI side of an image: `oci-layout`, `index.json`, the manifest, and how one image is chosen among several.
//!
//! None of this is trusted. It leads to an envelope; only what the envelope's signature covers counts. Of `index.json`
//! only `org.opencontainers.image.ref.name` is relied on to choose, because skopeo drops `artifactType` there.

use std::collections::HashSet;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::descriptor::{BlobRef, Descriptor};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// Content of the file `oci-layout`.
pub const OCI_LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// Largest `index.json` and OCI manifest accepted, in bytes: two layers per span of the largest image.
pub const MAX_MANIFEST: u64 = 64 << 20;

/// Media type of an OCI image manifest.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Artifact type of our images.
pub const ARTIFACT_TYPE: &str = "application/vnd.z-provisioner.image.v1";
/// Media type of the envelope's layer.
pub const ENVELOPE_TYPE: &str = "application/vnd.z-provisioner.envelope.v1+json";
/// Media type of index layers.
pub const INDEX_TYPE: &str = "application/vnd.z-provisioner.index.v1";
/// Media type of data layers.
pub const DATA_TYPE: &str = "application/vnd.z-provisioner.data.v1+zstd";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// The empty config the OCI specification has for artifacts.
pub const EMPTY_CONFIG: &[u8] = b"{}";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An OCI content descriptor: the fields used here.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Content {
    /// Media type.
    #[serde(default)]
    pub media_type: String,
    /// Digest of the blob.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Annotations.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub annotations: serde_json::Map<String, serde_json::Value>,
}

impl Content {
    fn new(media_type: &str, blob: BlobRef) -> Self {
        Content {
            media_type: media_type.into(),
            digest: blob.digest,
            size: blob.size,
            annotations: serde_json::Map::new(),
        }
    }

    /// The blob it points at.
    pub fn blob(&self) -> BlobRef {
        BlobRef { digest: self.digest, size: self.size }
    }

    fn ref_name(&self) -> Option<&str> {
        self.annotations.get(REF_NAME)?.as_str()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IndexJson {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    manifests: Vec<Content>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: String,
    #[serde(default)]
    artifact_type: String,
    config: Content,
    layers: Vec<Content>,
}

/// Which image of a layout is wanted; `None` is "whichever there is".
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// The image's name.
    pub name: Option<String>,
    /// Its architecture.
    pub architecture: Option<String>,
}

/// The manifest's bytes for an image: envelope first, then index and data of each span. Equal blobs are listed once.
pub fn encode_manifest(envelope: BlobRef, descriptor: &Descriptor) -> Vec<u8> {
    let spans = descriptor.spans.iter().flat_map(|span| [(INDEX_TYPE, span.index), (DATA_TYPE, span.data)]);
    let mut seen = HashSet::new();
    let layers = std::iter::once((ENVELOPE_TYPE, envelope))
        .chain(spans)
        .filter(|(_, blob)| seen.insert(blob.digest))
        .map(|(media_type, blob)| Content::new(media_type, blob))
        .collect();
    let config = BlobRef { digest: Digest::of(EMPTY_CONFIG), size: EMPTY_CONFIG.len() as u64 };
    to_json(&Manifest {
        schema_version: 2,
        media_type: MANIFEST_TYPE.into(),
        artifact_type: ARTIFACT_TYPE.into(),
        config: Content::new(EMPTY_TYPE, config),
        layers,
    })
}

/// `index.json` for one image.
pub fn encode_index(manifest: BlobRef, ref_name: &str) -> Vec<u8> {
    let mut content = Content::new(MANIFEST_TYPE, manifest);
    content.annotations.insert(REF_NAME.into(), ref_name.into());
    to_json(&IndexJson {
        schema_version: 2,
        media_type: "application/vnd.oci.image.index.v1+json".into(),
        manifests: vec![content],
    })
}

/// `index.json` with the entry for `old` pointing at `new`; everything else stays.
///
/// # Errors
/// When it is no OCI index or has no such entry.
pub fn replace_in_index(index_json: &[u8], old: Digest, new: BlobRef) -> Result<Vec<u8>> {
    let mut index: IndexJson = parse("index.json", index_json)?;
    let entry = index.manifests.iter_mut().find(|entry| entry.digest == old);
    let entry = entry.ok_or_else(|| Error::image(format!("index.json has no entry for {old}")))?;
    (entry.digest, entry.size) = (new.digest, new.size);
    Ok(to_json(&index))
}

/// The reference name an image gets in a layout: `NAME-VERSION-ARCHITECTURE`.
pub fn ref_name(descriptor: &Descriptor) -> String {
    format!("{}-{}-{}", descriptor.name, descriptor.image_version, descriptor.architecture)
}

/// The manifest that `index.json` names for `choice`.
///
/// # Errors
/// When it is no OCI index, nothing fits, or several fit.
pub fn choose(index_json: &[u8], choice: &Choice) -> Result<BlobRef> {
    let index: IndexJson = parse("index.json", index_json)?;
    let listed = || {
        let names: Vec<_> =
            index.manifests.iter().take(20).map(|entry| entry.ref_name().unwrap_or("(no name)")).collect();
        names.join(", ")
    };
    // A lone image needs no choosing; its signed descriptor is checked against what was asked for anyway.
    let fits = |entry: &&Content| index.manifests.len() == 1 || entry.ref_name().is_some_and(|name| choice.fits(name));
    let fitting: Vec<&Content> = index.manifests.iter().filter(fits).collect();
    match fitting.as_slice() {
        [one] => Ok(one.blob()),
        [] => Err(Error::image(format!("the layout has no image that fits; it has: {}", listed()))
            .with_hint("give the --name and --arch of one of them")),
        several => Err(Error::image(format!("{} images of the layout fit; it has: {}", several.len(), listed()))
            .with_hint("give --name and --arch, or copy the wanted one into a layout of its own with skopeo")),
    }
}

impl Choice {
    /// Whether a reference name is `NAME-VERSION-ARCHITECTURE` with the wanted parts, or exactly the wanted name.
    fn fits(&self, ref_name: &str) -> bool {
        let mut parts = ref_name.rsplitn(3, '-');
        let (architecture, version, name) = (parts.next(), parts.next(), parts.next());
        let ours = version.is_some_and(|version| !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit()));
        let name = if ours { name } else { Some(ref_name) };
        let architecture = if ours { architecture } else { None };
        let agrees = |wanted: &Option<String>, found: Option<&str>| match (wanted, found) {
            (Some(wanted), Some(found)) => wanted == found,
            _ => true,
        };
        agrees(&self.name, name) && agrees(&self.architecture, architecture)
    }
}

/// The envelope's layer in a manifest.
///
/// # Errors
/// When it is no OCI manifest or has not exactly one envelope.
pub fn envelope_of(manifest: &[u8]) -> Result<BlobRef> {
    let manifest: Manifest = parse("the OCI manifest", manifest)?;
    let mut envelopes = manifest.layers.iter().filter(|layer| layer.media_type == ENVELOPE_TYPE);
    match (envelopes.next(), envelopes.next()) {
        (Some(one), None) => Ok(one.blob()),
        (None, _) => {
            Err(Error::image("the OCI manifest carries no z-provisioner envelope: it is another kind of image")
                .with_hint("pack a raw image with `imgstream pack`"))
        }
        _ => Err(Error::image("the OCI manifest carries several envelopes")),
    }
}

fn parse<'de, T: Deserialize<'de>>(what: &str, bytes: &'de [u8]) -> Result<T> {
    refuse_duplicate_keys(bytes)
        .and_then(|()| serde_json::from_slice(bytes))
        .map_err(|error| Error::image(format!("{what} is not what OCI says it should be: {error}")))
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    // Serialising these types into memory has no way to fail: string keys only, no foreign serialisers.
    serde_json::to_vec(value).unwrap_or_default()
}

/// Refuses JSON in which any object, at any depth, has a key twice: two readers could disagree on which one counts.
///
/// # Errors
/// When a key stands twice, or the bytes are not one JSON value.
pub fn refuse_duplicate_keys(bytes: &[u8]) -> serde_json::Result<()> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    UniqueKeys.deserialize(&mut deserializer)?;
    deserializer.end()
}

struct UniqueKeys;

impl<'de> DeserializeSeed<'de> for UniqueKeys {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON without duplicate keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if seen.contains(&key) {
                return Err(serde::de::Error::custom(format!("the key {key:?} stands twice in one object")));
            }
            seen.insert(key);
            map.next_value_seed(UniqueKeys)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(UniqueKeys)?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn index_of(names: &[&str]) -> Vec<u8> {
        let manifests = names
            .iter()
            .map(|name| {
                let mut content = Content::new(MANIFEST_TYPE, BlobRef { digest: Digest::of(name.as_bytes()), size: 1 });
                content.annotations.insert(REF_NAME.into(), (*name).into());
                content
            })
            .collect();
        to_json(&IndexJson { schema_version: 2, media_type: String::new(), manifests })
    }

    fn wanted(name: &str, architecture: &str) -> Choice {
        Choice { name: Some(name.into()), architecture: Some(architecture.into()) }
    }

    #[test]
    fn one_among_several_is_chosen_by_name_and_architecture() {
        let index = index_of(&["debian-13-7-s390x", "debian-13-7-x86_64", "rhel-10-1-s390x"]);
        let chosen = choose(&index, &wanted("debian-13", "s390x")).unwrap();
        assert_eq!(chosen.digest, Digest::of(b"debian-13-7-s390x"));
        assert!(choose(&index, &Choice::default()).unwrap_err().to_string().contains("3 images"));
        assert!(choose(&index, &wanted("sles", "s390x")).unwrap_err().to_string().contains("no image that fits"));
    }

    #[test]
    fn a_lone_image_is_taken_whatever_its_name() {
        assert!(choose(&index_of(&["latest"]), &wanted("debian-13", "s390x")).is_ok());
    }

    #[test]
    fn the_manifest_leads_to_the_envelope_and_lists_equal_blobs_once() {
        let mut descriptor = super::super::descriptor::tests::sample();
        descriptor.spans.push(descriptor.spans[0].clone());
        let envelope = BlobRef { digest: Digest::of(b"envelope"), size: 8 };
        let manifest = encode_manifest(envelope, &descriptor);
        assert_eq!(envelope_of(&manifest).unwrap(), envelope);
        let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(manifest.layers.len(), 3);
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = choose(&bytes, &Choice::default());
            let _ = envelope_of(&bytes);
        }

        #[test]
        fn any_json_never_panics(text in r#"[\{\}\[\]",:a0-9]{0,200}"#) {
            let _ = choose(text.as_bytes(), &Choice::default());
            let _ = envelope_of(text.as_bytes());
        }
    }
}
