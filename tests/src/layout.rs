//! An image's directory, read and changed by means that are not `imgstream`'s: JSON, files and openssl.

use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};

use crate::command::Run;
use crate::lab::Key;

/// The directory of an OCI image layout with one image.
pub struct Layout(PathBuf);

impl Layout {
    /// The layout in a directory.
    pub fn new(dir: &Path) -> Self {
        Layout(dir.to_owned())
    }

    /// `index.json`.
    pub fn index_path(&self) -> PathBuf {
        self.0.join("index.json")
    }

    /// `index.json`, parsed.
    pub fn index(&self) -> Value {
        parse(&std::fs::read(self.index_path()).expect("reading index.json"))
    }

    /// The file of a blob, named by a value with a `digest`.
    ///
    /// # Panics
    /// When the value has none.
    pub fn blob(&self, content: &Value) -> PathBuf {
        let digest = content["digest"].as_str().expect("a digest");
        self.0.join("blobs/sha256").join(digest.strip_prefix("sha256:").expect("a SHA-256 digest"))
    }

    /// All blobs.
    pub fn blobs(&self) -> Vec<PathBuf> {
        let dir = self.0.join("blobs/sha256");
        crate::lab::listing(&dir).into_iter().map(|name| dir.join(name)).collect()
    }

    /// The OCI manifest's file.
    pub fn manifest_path(&self) -> PathBuf {
        self.blob(&self.index()["manifests"][0])
    }

    /// The OCI manifest.
    pub fn manifest(&self) -> Value {
        parse(&std::fs::read(self.manifest_path()).expect("reading the manifest"))
    }

    /// The envelope's file.
    pub fn envelope_path(&self) -> PathBuf {
        self.blob(&self.manifest()["layers"][0])
    }

    /// The envelope.
    pub fn envelope(&self) -> Value {
        parse(&std::fs::read(self.envelope_path()).expect("reading the envelope"))
    }

    /// The signed bytes.
    ///
    /// # Panics
    /// When the envelope has none.
    pub fn payload(&self) -> Vec<u8> {
        BASE64_STANDARD.decode(self.envelope()["payload"].as_str().expect("a payload")).expect("base64")
    }

    /// The descriptor.
    pub fn descriptor(&self) -> Value {
        parse(&self.payload())
    }

    /// The data blobs of the spans, in order; equal ones as often as they are used.
    pub fn data_blobs(&self) -> Vec<PathBuf> {
        self.span_blobs("data")
    }

    /// The index blobs of the spans, in order.
    pub fn index_blobs(&self) -> Vec<PathBuf> {
        self.span_blobs("index")
    }

    fn span_blobs(&self, which: &str) -> Vec<PathBuf> {
        let descriptor = self.descriptor();
        descriptor["spans"].as_array().expect("spans").iter().map(|span| self.blob(&span[which])).collect()
    }

    /// Puts other bytes in the envelope's place; manifest and index follow, so that nothing but the envelope is wrong.
    pub fn put_envelope(&self, bytes: &[u8]) {
        let mut manifest = self.manifest();
        let place = &mut manifest["layers"][0];
        (place["digest"], place["size"]) = self.put(bytes);
        self.put_manifest(&manifest);
    }

    /// Puts another manifest in the manifest's place; the index follows.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn put_manifest(&self, manifest: &Value) {
        self.put_manifest_bytes(manifest.to_string().as_bytes());
    }

    /// Puts other bytes in the manifest's place; the index follows.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn put_manifest_bytes(&self, bytes: &[u8]) {
        let mut index = self.index();
        let place = &mut index["manifests"][0];
        (place["digest"], place["size"]) = self.put(bytes);
        std::fs::write(self.index_path(), index.to_string()).expect("writing index.json");
    }

    /// Adds a blob; its digest and size.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn put(&self, bytes: &[u8]) -> (Value, Value) {
        let dir = self.0.join("blobs/sha256");
        let new = dir.join("new");
        std::fs::write(&new, bytes).expect("writing a blob");
        let digest = sha256(&new);
        std::fs::rename(new, dir.join(&digest)).expect("naming a blob");
        (json!(format!("sha256:{digest}")), json!(bytes.len()))
    }

    /// Changes the descriptor and signs it anew, by openssl, with these keys.
    pub fn sign_changed(&self, keys: &[&Key], change: impl FnOnce(&mut Value)) {
        let mut descriptor = self.descriptor();
        change(&mut descriptor);
        self.sign_payload(keys, descriptor.to_string().as_bytes());
    }

    /// Puts these bytes as payload and signs them, by openssl, with these keys.
    ///
    /// # Panics
    /// When openssl fails.
    pub fn sign_payload(&self, keys: &[&Key], payload: &[u8]) {
        let mut envelope = self.envelope();
        let kind = envelope["payloadType"].as_str().expect("a payload type").to_owned();
        let signatures: Vec<_> = keys
            .iter()
            .map(|key| json!({"sig": BASE64_STANDARD.encode(openssl_sign(&pae(&kind, payload), &key.secret))}))
            .collect();
        envelope["payload"] = json!(BASE64_STANDARD.encode(payload));
        envelope["signatures"] = json!(signatures);
        self.put_envelope(envelope.to_string().as_bytes());
    }
}

fn parse(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

/// DSSE's pre-authentication encoding: what is signed.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// The SHA-256 of a file, by `sha256sum`, in hexadecimal digits.
///
/// # Panics
/// When it cannot be had.
pub fn sha256(file: &Path) -> String {
    let line = Run::tool("sha256sum").arg(file).text();
    line.split_whitespace().next().expect("a digest").to_owned()
}

/// The SHA-256 of bytes, by `sha256sum`.
///
/// # Panics
/// When it cannot be had.
pub fn sha256_of(bytes: &[u8]) -> [u8; 32] {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("bytes");
    std::fs::write(&file, bytes).expect("writing bytes");
    let digits = sha256(&file);
    std::array::from_fn(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("digits"))
}

/// Signs a message with a private key, by openssl.
///
/// # Panics
/// When openssl fails.
pub fn openssl_sign(message: &[u8], secret: &Path) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a directory");
    let (input, output) = (dir.path().join("message"), dir.path().join("signature"));
    std::fs::write(&input, message).expect("writing a message");
    Run::tool("openssl")
        .words("pkeyutl -sign -rawin -inkey")
        .arg(secret)
        .arg("-in")
        .arg(&input)
        .arg("-out")
        .arg(&output)
        .done()
        .ok();
    std::fs::read(output).expect("reading a signature")
}

/// Whether openssl accepts a signature.
///
/// # Panics
/// When the files for it cannot be written.
pub fn openssl_verifies(message: &[u8], signature: &[u8], public: &Path) -> bool {
    let dir = tempfile::tempdir().expect("a directory");
    let (input, signed) = (dir.path().join("message"), dir.path().join("signature"));
    std::fs::write(&input, message).expect("writing a message");
    std::fs::write(&signed, signature).expect("writing a signature");
    let verify = Run::tool("openssl").words("pkeyutl -verify -rawin -pubin -inkey").arg(public);
    verify.arg("-in").arg(&input).arg("-sigfile").arg(&signed).done().status.success()
}

/// Flips one bit of a file.
///
/// # Panics
/// When it has no such byte.
pub fn flip(file: &Path, at: u64) {
    let mut bytes = std::fs::read(file).expect("reading a file to damage");
    bytes[at as usize] ^= 1 << (at % 8);
    std::fs::write(file, bytes).expect("damaging a file");
}
