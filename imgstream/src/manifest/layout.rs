//! The OCI side of an image: `oci-layout`, `index.json`, the manifest, and how one image is chosen among several.
//!
//! None of this is trusted. It leads to an envelope; only what the envelope's signature covers counts. Of `index.json`
//! only `org.opencontainers.image.ref.name` is relied on to choose, because skopeo drops `artifactType` there.

use std::collections::HashSet;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::descriptor::{BlobRef, Descriptor};
use super::strict;
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

/// An OCI content descriptor: the fields used here, and whatever else it carries.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    #[serde(default)]
    media_type: String,
    /// As text: an entry of a foreign image may use another algorithm, which is no reason to refuse ours beside it.
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    annotations: Json,
    #[serde(flatten)]
    rest: Json,
}

type Json = serde_json::Map<String, serde_json::Value>;

impl Content {
    fn new(media_type: &str, blob: BlobRef) -> Self {
        let (media_type, digest) = (media_type.into(), blob.digest.to_string());
        Content { media_type, digest, size: blob.size, annotations: Json::new(), rest: Json::new() }
    }

    fn blob(&self) -> Result<BlobRef> {
        let digest = self.digest.parse().map_err(|error| Error::image(format!("an OCI document: {error}")))?;
        Ok(BlobRef { digest, size: self.size })
    }

    fn ref_name(&self) -> Option<&str> {
        self.annotations.get(REF_NAME)?.as_str()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IndexJson {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    media_type: String,
    #[serde(with = "strict::objects")]
    manifests: Vec<Content>,
    #[serde(flatten)]
    rest: Json,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    artifact_type: String,
    #[serde(with = "strict::object")]
    config: Content,
    #[serde(with = "strict::objects")]
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
        rest: Json::new(),
    })
}

/// `index.json` with every entry for `old` pointing at `new`; everything else stays.
///
/// # Errors
/// When it is no OCI index or has no such entry.
pub fn replace_in_index(index_json: &[u8], old: Digest, new: BlobRef) -> Result<Vec<u8>> {
    let mut index: IndexJson = parse("index.json", index_json)?;
    let mut found = false;
    for entry in index.manifests.iter_mut().filter(|entry| entry.digest == old.to_string()) {
        (entry.digest, entry.size, found) = (new.digest.to_string(), new.size, true);
    }
    if !found {
        return Err(Error::image(format!("index.json has no entry for {old}")));
    }
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
        [one] => one.blob(),
        [] => Err(Error::image(format!("the layout has no image that fits; it has: {}", listed()))
            .with_hint("demand one of them by name and architecture, or copy it into a layout of its own with skopeo")),
        several => Err(Error::image(format!("{} images of the layout fit; it has: {}", several.len(), listed()))
            .with_hint("demand one by name and architecture, or copy it into a layout of its own with skopeo")),
    }
}

impl Choice {
    /// Whether a reference name is `NAME-VERSION-ARCHITECTURE` with the wanted parts, or exactly the wanted name.
    fn fits(&self, ref_name: &str) -> bool {
        let mut parts = ref_name.rsplitn(3, '-');
        let (architecture, version, name) = (parts.next(), parts.next(), parts.next());
        let digits = |version: &str| !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit());
        let ours = name.is_some() && version.is_some_and(digits);
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
        (Some(one), None) => one.blob(),
        (None, _) => {
            Err(Error::image("the OCI manifest carries no z-provisioner envelope: it is another kind of image")
                .with_hint("pack a raw image with `imgstream pack`"))
        }
        _ => Err(Error::image("the OCI manifest carries several envelopes")),
    }
}

fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    strict::parse(bytes).map_err(|error| Error::image(format!("{what} is not what OCI says it should be: {error}")))
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    // Serialising these types into memory has no way to fail: string keys only, no foreign serialisers.
    serde_json::to_vec(value).unwrap_or_default()
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
        to_json(&IndexJson { schema_version: 2, media_type: String::new(), manifests, rest: Json::new() })
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

    #[test]
    fn foreign_entries_stay_as_they_are() {
        let index = br#"{"schemaVersion":2,"manifests":[
            {"digest":"sha512:00","size":1,"platform":{"os":"linux"},"annotations":{"org.opencontainers.image.ref.name":"foreign"}},
            {"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":1,"annotations":{"org.opencontainers.image.ref.name":"a-1-s390x"}},
            {"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":1}]}"#;
        assert_eq!(choose(index, &wanted("a", "s390x")).unwrap().digest, Digest::of(b""));
        let replaced =
            replace_in_index(index, Digest::of(b""), BlobRef { digest: Digest::of(b"new"), size: 3 }).unwrap();
        let text = String::from_utf8(replaced).unwrap();
        assert!(text.contains(r#""platform":{"os":"linux"}"#) && text.contains("sha512:00"), "{text}");
        assert_eq!(text.matches(&Digest::of(b"new").hex()).count(), 2);
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
