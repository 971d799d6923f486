//! The bill of materials of an image for one architecture, in SPDX 2.3: Debian packages of which files were taken, and Rust crates.

use serde_json::{Value, json};

use crate::cache::fnv1a;
use crate::containers::Arch;
use crate::containers::contents::Image;
use crate::containers::crates::Crate;
use crate::containers::inputs::Inputs;
use crate::fail::{Outcome, Tried};
use crate::packages::owner::Owner;

/// Where it is in the image.
pub const PLACE: &str = "usr/share/z-provisioner/sbom.spdx.json";

/// What an image is made of.
pub struct Bill<'a> {
    /// Which image.
    pub image: &'a Image,
    /// For which architecture.
    pub arch: Arch,
    /// Debian's release.
    pub suite: &'a str,
    /// Debian's packages.
    pub owners: &'a [Owner],
    /// The program's crates.
    pub crates: &'a [Crate],
    /// Of which time and commit.
    pub inputs: &'a Inputs,
}

impl Bill<'_> {
    /// As a document.
    pub fn text(&self) -> Outcome<String> {
        let mut packages = vec![self.whole()];
        packages.extend(self.owners.iter().map(|owner| self.debian(owner)));
        packages.extend(self.crates.iter().map(crate_));
        let whole = packages[0]["SPDXID"].clone();
        let mut relations = vec![
            json!({ "spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": whole }),
        ];
        relations.extend(packages.iter().skip(1).map(|package| {
            json!({ "spdxElementId": whole, "relationshipType": "CONTAINS", "relatedSpdxElement": package["SPDXID"] })
        }));
        let name = format!("{}-{}-{}", self.image.name, env!("CARGO_PKG_VERSION"), self.arch.name());
        // The namespace must be another for every other document.
        let digest = fnv1a(&Value::from(packages.clone()).to_string());
        let of = self.inputs.revision.as_deref().unwrap_or(&self.inputs.epoch);
        let document = json!({
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": name,
            "documentNamespace": format!("urn:z-provisioner:sbom:{name}:{of}:{digest:016x}"),
            "creationInfo": { "created": self.inputs.created, "creators": [format!("Tool: z-provisioner-xtask-{}", env!("CARGO_PKG_VERSION"))] },
            "packages": packages,
            "relationships": relations,
        });
        serde_json::to_string_pretty(&document).tried("write a bill of materials")
    }

    fn whole(&self) -> Value {
        json!({
            "SPDXID": "SPDXRef-image",
            "name": self.image.name,
            "versionInfo": env!("CARGO_PKG_VERSION"),
            "primaryPackagePurpose": "CONTAINER",
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": "Apache-2.0",
            "copyrightText": "NOASSERTION",
        })
    }

    /// Debian's names of licences are not SPDX's, so they stand in a comment.
    fn debian(&self, owner: &Owner) -> Value {
        let package = &owner.package;
        let (name, version, architecture) = (&package.name, &package.version, &package.architecture);
        let url = format!("pkg:deb/debian/{name}@{}?arch={architecture}&distro={}", encoded(version), self.suite);
        json!({
            "SPDXID": format!("SPDXRef-deb-{}", identifier(name)),
            "name": name,
            "versionInfo": version,
            "supplier": "Organization: Debian",
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "checksums": [{ "algorithm": "SHA256", "checksumValue": package.sha256 }],
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": "NOASSERTION",
            "licenseComments": format!("Debian's copyright file: {}", owner.licences),
            "copyrightText": "NOASSERTION",
            "comment": format!("{} of its files are in the image; the checksum is the package's", owner.files),
            "externalRefs": [reference(&url)],
        })
    }
}

fn crate_(of: &Crate) -> Value {
    let Crate { name, version, licence, sha256 } = of;
    let mut package = json!({
        "SPDXID": format!("SPDXRef-crate-{}-{}", identifier(name), identifier(version)),
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": licence.as_deref().unwrap_or("NOASSERTION"),
        "copyrightText": "NOASSERTION",
    });
    // Those without are of this workspace, and in no registry.
    if let Some(sha256) = sha256 {
        package["downloadLocation"] = format!("https://static.crates.io/crates/{name}/{name}-{version}.crate").into();
        package["checksums"] = json!([{ "algorithm": "SHA256", "checksumValue": sha256 }]);
        package["externalRefs"] = json!([reference(&format!("pkg:cargo/{name}@{}", encoded(version)))]);
    }
    package
}

fn reference(url: &str) -> Value {
    json!({ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": url })
}

/// What may stand in an SPDX identifier: letters, digits, `.` and `-`.
fn identifier(text: &str) -> String {
    let fine = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    text.chars().map(fine).collect()
}

/// A version in a package URL.
fn encoded(version: &str) -> String {
    version.replace('%', "%25").replace('+', "%2B").replace(':', "%3A")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions_fit_where_they_stand() {
        assert_eq!(encoded("2:2.7.5-2+deb13u1~x"), "2%3A2.7.5-2%2Bdeb13u1~x");
        assert_eq!(identifier("libstdc++6_x"), "libstdc--6-x");
    }
}
