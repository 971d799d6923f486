//! Images that a hostile holder of a trusted key would make: spans with other rows, frames and seek tables, with every
//! digest right and the descriptor signed.

use serde_json::{Value, json};

use crate::lab::Key;
use crate::layout::{Layout, sha256_of};

const HEADER: usize = 32;
const ROW: usize = 80;
/// Bytes of a seek table beside its entries.
const SEEK_TABLE: usize = 17;

/// A row of an index, and the frame it stands for.
#[derive(Clone, Debug)]
pub struct Row {
    /// 1 data, 2 zero, 3 hole.
    pub kind: u8,
    /// Zeros.
    pub reserved: [u8; 3],
    /// SHA-256 of the chunk's raw bytes.
    pub raw_digest: [u8; 32],
    /// The chunk's raw length, as the seek table says it.
    pub raw_length: u32,
    /// The frame.
    pub frame: Vec<u8>,
}

/// The blobs of the first span.
#[derive(Clone, Debug)]
pub struct Blobs {
    /// The index blob.
    pub index: Vec<u8>,
    /// The data blob.
    pub data: Vec<u8>,
}

impl Blobs {
    /// As they are stored.
    ///
    /// # Panics
    /// When they cannot be read.
    pub fn of(layout: &Layout) -> Self {
        let read = |paths: Vec<std::path::PathBuf>| std::fs::read(&paths[0]).expect("reading a blob");
        Blobs { index: read(layout.index_blobs()), data: read(layout.data_blobs()) }
    }

    /// Their rows.
    pub fn rows(&self) -> Vec<Row> {
        let count = (self.index.len() - HEADER) / ROW;
        let table = self.data.len() - SEEK_TABLE - 8 * count;
        let row = |number: usize| {
            let bytes = &self.index[HEADER + ROW * number..][..ROW];
            let (length, offset) = (le32(&bytes[4..]) as usize, le32(&bytes[8..]) as usize);
            Row {
                kind: bytes[0],
                reserved: [bytes[1], bytes[2], bytes[3]],
                raw_digest: bytes[48..].try_into().expect("32 bytes"),
                raw_length: le32(&self.data[table + 12 + 8 * number..]),
                frame: self.data[offset..offset + length].to_vec(),
            }
        };
        (0..count).map(row).collect()
    }

    /// Index and data blob of these rows, for a span of as many raw bytes as before; all of it consistent.
    pub fn from_rows(&self, rows: &[Row]) -> Self {
        let (mut index, mut data, mut table) = (self.index[..HEADER].to_vec(), Vec::new(), Vec::new());
        for row in rows {
            index.push(row.kind);
            index.extend(row.reserved);
            index.extend((row.frame.len() as u32).to_le_bytes());
            index.extend((data.len() as u64).to_le_bytes());
            index.extend(sha256_of(&row.frame));
            index.extend(row.raw_digest);
            data.extend(&row.frame);
            table.extend((row.frame.len() as u32).to_le_bytes());
            table.extend(row.raw_length.to_le_bytes());
        }
        data.extend([0x5e, 0x2a, 0x4d, 0x18]);
        data.extend((table.len() as u32 + 9).to_le_bytes());
        data.extend(table);
        data.extend((rows.len() as u32).to_le_bytes());
        data.extend([0, 0xb1, 0xea, 0x92, 0x8f]);
        index[12..16].copy_from_slice(&(rows.len() as u32).to_le_bytes());
        index[24..32].copy_from_slice(&(data.len() as u64).to_le_bytes());
        Blobs { index, data }
    }

    /// Stores them as the first span's, and signs a descriptor that says so.
    pub fn sign(&self, layout: &Layout, key: &Key) {
        let stored = |bytes: &[u8]| {
            let (digest, size): (Value, Value) = layout.put(bytes);
            json!({"digest": digest, "size": size})
        };
        let (index, data) = (stored(&self.index), stored(&self.data));
        layout.sign_changed(&[key], |descriptor| {
            descriptor["spans"][0]["index"] = index;
            descriptor["spans"][0]["data"] = data;
        });
    }
}

/// Changes the rows and frames of the first span; everything else follows.
pub fn rows(layout: &Layout, key: &Key, change: impl FnOnce(&mut Vec<Row>)) {
    let blobs = Blobs::of(layout);
    let mut rows = blobs.rows();
    change(&mut rows);
    blobs.from_rows(&rows).sign(layout, key);
}

/// Changes the first span's blobs; nothing follows but the descriptor.
pub fn blobs(layout: &Layout, key: &Key, change: impl FnOnce(&mut Blobs)) {
    let mut blobs = Blobs::of(layout);
    change(&mut blobs);
    blobs.sign(layout, key);
}

fn le32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().expect("4 bytes"))
}
