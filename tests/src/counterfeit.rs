//! Images that are rightly signed and wrong: one is taken apart, changed in any part, put together and signed again, by
//! nothing of `imgstream`'s. Digests and signatures are made in this process: a tool started for each of them would take
//! longer than the thousands of commands under test. That `openssl` agrees with them is shown elsewhere.

use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use ring::digest::{SHA256, digest};
use ring::signature::Ed25519KeyPair;
use serde_json::{Value, json};

use crate::lab::{Image, Key, Lab};
use crate::layout::pae;

/// The payload type of images.
pub const IMAGE_TYPE: &str = "application/vnd.z-provisioner.image.v1+json";

/// One row of an index, as its bytes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// 1 data, 2 zero, 3 hole.
    pub kind: u8,
    /// Length of the frame.
    pub length: u32,
    /// Where it begins in the data blob.
    pub offset: u64,
    /// SHA-256 of the frame.
    pub digest: [u8; 32],
    /// SHA-256 of the chunk.
    pub raw_digest: [u8; 32],
}

/// A span taken apart.
#[derive(Debug, Clone)]
pub struct Span {
    /// The index's header.
    pub header: Vec<u8>,
    /// The index's rows.
    pub rows: Vec<Row>,
    /// The frames of the data blob.
    pub frames: Vec<Vec<u8>>,
    /// What follows them there.
    pub seek_table: Vec<u8>,
}

impl Span {
    fn read(index: &[u8], data: &[u8]) -> Self {
        let (header, table) = index.split_at(32);
        let rows: Vec<Row> = table.chunks(80).map(Row::read).collect();
        let frames = rows.iter().map(|row| data[row.offset as usize..][..row.length as usize].to_vec()).collect();
        let end = rows.last().map_or(0, |row| row.offset as usize + row.length as usize);
        Span { header: header.to_vec(), rows, frames, seek_table: data[end..].to_vec() }
    }

    /// Puts another frame in a chunk's place; digests, offsets, lengths and the seek table follow, so that nothing but
    /// the frame is wrong.
    pub fn put_frame(&mut self, chunk: usize, frame: &[u8]) {
        self.frames[chunk] = frame.to_vec();
        self.settle();
    }

    /// Makes rows, seek table and header say what the frames are.
    pub fn settle(&mut self) {
        let (mut offset, raw_lengths) = (0, self.raw_lengths());
        for (row, frame) in self.rows.iter_mut().zip(&self.frames) {
            (row.offset, row.length, row.digest) = (offset, frame.len() as u32, sha256(frame));
            offset += frame.len() as u64;
        }
        let rows = self.rows.len() as u32;
        let mut table = [0x184D_2A5E_u32, 8 * rows + 9].map(u32::to_le_bytes).concat();
        for (row, raw_length) in self.rows.iter().zip(raw_lengths) {
            table.extend([row.length, raw_length].map(u32::to_le_bytes).concat());
        }
        table.extend([&rows.to_le_bytes()[..], &[0], &0x8F92_EAB1_u32.to_le_bytes()].concat());
        self.seek_table = table;
        let size = self.data().len() as u64;
        self.header[24..32].copy_from_slice(&size.to_le_bytes());
    }

    fn raw_lengths(&self) -> Vec<u32> {
        let number = |at: usize| u64::from_le_bytes(self.header[at..at + 8].try_into().expect("eight bytes"));
        let (chunk, raw) = (number(8) & 0xffff_ffff, number(16));
        (0..self.rows.len() as u64).map(|n| raw.saturating_sub(n * chunk).min(chunk) as u32).collect()
    }

    /// The index blob.
    pub fn index(&self) -> Vec<u8> {
        self.rows.iter().fold(self.header.clone(), |index, row| [index, row.bytes()].concat())
    }

    /// The data blob.
    pub fn data(&self) -> Vec<u8> {
        [self.frames.concat(), self.seek_table.clone()].concat()
    }
}

impl Row {
    fn read(bytes: &[u8]) -> Self {
        Row {
            kind: bytes[0],
            length: u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes")),
            offset: u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes")),
            digest: bytes[16..48].try_into().expect("a digest"),
            raw_digest: bytes[48..80].try_into().expect("a digest"),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let head = [&[self.kind, 0, 0, 0][..], &self.length.to_le_bytes(), &self.offset.to_le_bytes()].concat();
        [&head[..], &self.digest, &self.raw_digest].concat()
    }
}

/// An image taken apart.
#[derive(Debug, Clone)]
pub struct Forgery {
    /// What will be signed.
    pub descriptor: Value,
    /// The spans.
    pub spans: Vec<Span>,
    key: PathBuf,
    blobs: PathBuf,
}

impl Forgery {
    /// Takes an image apart.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn of(image: &Image) -> Self {
        let layout = image.layout();
        let read = |path: PathBuf| std::fs::read(path).expect("reading a blob");
        let blobs = layout.index_blobs().into_iter().zip(layout.data_blobs());
        let spans = blobs.map(|(index, data)| Span::read(&read(index), &read(data))).collect();
        let blobs = image.dir.join("blobs/sha256");
        Forgery { descriptor: layout.descriptor(), spans, key: image.key.secret.clone(), blobs }
    }

    /// Puts blobs in the place of a span's; the descriptor names them by digest and size.
    pub fn name(&mut self, span: usize, index: &[u8], data: &[u8]) {
        for (which, blob) in [("index", index), ("data", data)] {
            self.descriptor["spans"][span][which] =
                json!({"digest": format!("sha256:{}", hex(&sha256(blob))), "size": blob.len()});
        }
    }

    /// Puts the image together, with the spans as they are now, and signs it. Returns its directory.
    pub fn make(mut self, lab: &Lab) -> PathBuf {
        for number in 0..self.spans.len() {
            let (index, data) = (self.spans[number].index(), self.spans[number].data());
            self.name(number, &index, &data);
        }
        let payload = self.descriptor.to_string();
        self.make_from(lab, &payload, &[])
    }

    /// Puts the image together with this payload, these blobs and those of the image it was made of.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn make_from(&self, lab: &Lab, payload: &str, blobs: &[&[u8]]) -> PathBuf {
        let dir = lab.fresh("forged");
        let store = dir.join("blobs/sha256");
        std::fs::create_dir_all(&store).expect("making a layout");
        for name in crate::lab::listing(&self.blobs) {
            // The same file under two names: nothing here ever writes into one.
            std::fs::hard_link(self.blobs.join(&name), store.join(&name)).expect("linking a blob");
        }
        let own = self.spans.iter().flat_map(|span| [span.index(), span.data()]);
        own.for_each(|blob| drop(put(&store, &blob)));
        blobs.iter().for_each(|blob| drop(put(&store, blob)));
        let signer = Signer::read(&self.key);
        put_envelope(&dir, &envelope(payload.as_bytes(), &[signer.sign(IMAGE_TYPE, payload.as_bytes())]));
        dir
    }
}

/// The envelope of an image with these signatures.
pub fn envelope(payload: &[u8], signatures: &[Vec<u8>]) -> Value {
    let signatures: Vec<_> = signatures.iter().map(|sig| json!({"sig": BASE64_STANDARD.encode(sig)})).collect();
    json!({"payload": BASE64_STANDARD.encode(payload), "payloadType": IMAGE_TYPE, "signatures": signatures})
}

/// Writes manifest and `index.json` around an envelope.
pub fn put_envelope(dir: &Path, envelope: &Value) {
    put_text(dir, &envelope.to_string());
}

/// The same for the text of an envelope.
///
/// # Panics
/// When they cannot be written.
pub fn put_text(dir: &Path, envelope: &str) {
    let store = dir.join("blobs/sha256");
    let mut layer = put(&store, envelope.as_bytes());
    layer["mediaType"] = json!("application/vnd.z-provisioner.envelope.v1+json");
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(&store, b"{}"), "layers": [layer]});
    let entry = put(&store, manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    std::fs::write(dir.join("index.json"), index.to_string()).expect("writing index.json");
}

/// Adds a blob; its digest and size.
fn put(store: &Path, bytes: &[u8]) -> Value {
    let name = hex(&sha256(bytes));
    let path = store.join(&name);
    if !path.exists() {
        std::fs::write(path, bytes).expect("writing a blob");
    }
    json!({"digest": format!("sha256:{name}"), "size": bytes.len()})
}

/// A private key at hand.
pub struct Signer(Ed25519KeyPair);

impl Signer {
    /// The key of this file.
    ///
    /// # Panics
    /// When it is none.
    pub fn read(secret: &Path) -> Self {
        let pem = std::fs::read_to_string(secret).expect("reading a key");
        let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = BASE64_STANDARD.decode(base64).expect("PEM");
        Signer(Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).expect("an Ed25519 key"))
    }

    /// Of this key pair.
    pub fn of(key: &Key) -> Self {
        Self::read(&key.secret)
    }

    /// A signature over a payload of this type.
    pub fn sign(&self, payload_type: &str, payload: &[u8]) -> Vec<u8> {
        self.0.sign(&pae(payload_type, payload)).as_ref().to_vec()
    }
}

/// The SHA-256 of some bytes.
///
/// # Panics
/// Never.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("32 bytes")
}

/// As hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
