//! What an index says of its images: architectures, labels, the bill of materials.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use e2e::{Lab, Run};
use serde_json::Value;

use crate::image;

fn json(file: &Path) -> Value {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn blob(layout: &Path, descriptor: &Value) -> PathBuf {
    layout.join("blobs").join(descriptor["digest"].as_str().unwrap().replace(':', "/"))
}

/// The manifests of an index, by architecture.
pub fn manifests(layout: &Path) -> Vec<(String, Value)> {
    let top = json(&layout.join("index.json"));
    let [index] = top["manifests"].as_array().unwrap().as_slice() else { panic!("one index: {top}") };
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(index["annotations"]["org.opencontainers.image.ref.name"], env!("CARGO_PKG_VERSION"));
    let index = json(&blob(layout, index));
    let of = |entry: &Value| {
        assert_eq!(entry["platform"]["os"], "linux");
        (entry["platform"]["architecture"].as_str().unwrap().to_owned(), json(&blob(layout, entry)))
    };
    index["manifests"].as_array().unwrap().iter().map(of).collect()
}

/// An image's files, unpacked.
pub fn unpacked(lab: &Lab, layout: &Path, manifest: &Value) -> PathBuf {
    let root = lab.fresh_dir("root");
    for layer in manifest["layers"].as_array().unwrap() {
        let tar = Run::tool("tar").words("--extract --gzip --same-permissions --file");
        tar.arg(blob(layout, layer)).arg("--directory").arg(&root).done().ok();
    }
    root
}

#[test]
fn every_image_says_what_it_is() {
    for (name, user) in [("z-provisioner", None), ("z-orchestrator", Some("65532:65532"))] {
        let layout = image(name);
        let manifests = manifests(&layout);
        assert!(manifests.iter().any(|(arch, _)| arch == "amd64"), "{name}");
        for (arch, manifest) in manifests {
            let config = json(&blob(&layout, &manifest["config"]));
            assert_eq!((&config["architecture"], &config["os"]), (&arch.as_str().into(), &"linux".into()));
            let inner = &config["config"];
            assert_eq!(inner["Entrypoint"], serde_json::json!([format!("/{name}")]));
            assert_eq!(inner["User"].as_str(), user, "{name}");
            assert!(inner["Volumes"].is_null() && inner["ExposedPorts"].is_null(), "{inner}");
            let label = |key: &str| inner["Labels"][format!("org.opencontainers.image.{key}")].as_str();
            assert_eq!(label("title"), Some(name));
            assert_eq!(label("version"), Some(env!("CARGO_PKG_VERSION")));
            assert_eq!(label("licenses"), Some("Apache-2.0"));
            assert!(label("description").is_some_and(|text| text.len() > 30));
            assert!(label("revision").is_none_or(|text| text.len() == 40), "{inner}");
            // The same time everywhere, and none of the machine that built it.
            assert_eq!(label("created"), config["created"].as_str());
            let labels = inner["Labels"].as_object().unwrap();
            assert!(labels.keys().all(|key| key.starts_with("org.opencontainers.image.")), "{labels:?}");
            assert_eq!(manifest["annotations"]["org.opencontainers.image.title"], name);
            let history = config["history"].to_string();
            assert!(!history.contains("/var/tmp") && !history.contains("/work"), "{history}");
        }
    }
}

#[test]
fn the_bill_of_materials_is_in_the_image_and_beside_it() {
    let lab = Lab::new();
    for (name, demanded) in [
        ("z-provisioner", &["cryptsetup-bin", "multipath-tools", "imgstream"][..]),
        ("z-orchestrator", &["ca-certificates", "sqlx-sqlite"]),
    ] {
        let layout = image(name);
        for (arch, manifest) in manifests(&layout) {
            let root = unpacked(&lab, &layout, &manifest);
            let inside = std::fs::read(root.join("usr/share/z-provisioner/sbom.spdx.json")).unwrap();
            let beside = layout.with_file_name(format!("{name}.{arch}.spdx.json"));
            assert_eq!(inside, std::fs::read(&beside).unwrap());
            let bill: Value = serde_json::from_slice(&inside).unwrap();
            assert_eq!((&bill["spdxVersion"], &bill["SPDXID"]), (&"SPDX-2.3".into(), &"SPDXRef-DOCUMENT".into()));
            let packages = bill["packages"].as_array().unwrap();
            let ids: BTreeSet<&str> = packages.iter().map(|package| package["SPDXID"].as_str().unwrap()).collect();
            assert_eq!(ids.len(), packages.len(), "an identifier stands for one package");
            let related: BTreeSet<&str> = bill["relationships"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["relatedSpdxElement"].as_str().unwrap())
                .collect();
            assert_eq!(ids, related, "every package belongs to something");
            for demanded in demanded {
                assert!(packages.iter().any(|package| package["name"] == *demanded), "{name} has no {demanded}");
            }
            for package in packages.iter().filter(|package| package["externalRefs"].is_array()) {
                let url = package["externalRefs"][0]["referenceLocator"].as_str().unwrap();
                assert!(url.starts_with("pkg:deb/debian/") || url.starts_with("pkg:cargo/"), "{package}");
                let sum = package["checksums"][0]["checksumValue"].as_str().unwrap();
                assert!(sum.len() == 64, "{package}");
            }
        }
    }
}
