//! What is counted. Each piece of work is set up from prepared inputs, and is then one call.

use std::fs;
use std::hint::black_box;
use std::path::Path;

use envelope::{Role, Trust};
use imgstream::buffer::Pool;
use imgstream::decode::Decoder;
use imgstream::digest::Digest;
use imgstream::manifest::{Descriptor, SpanIndex};
use imgstream::pack::DEFAULT_CHUNK_SIZE;

use crate::Outcome;
use crate::prepare::{ENVELOPE, FRAME, FRAME_INDEX, INDEX, INDEX_WITH_ZEROS, RAW, key, pack_raw};

/// A piece of work that is ready to be done.
pub type Work = Box<dyn FnOnce() -> Outcome<()>>;

/// Every piece of work, in the order of the data.
pub const NAMES: [&str; 6] = ["pack", "descriptor", "index", "index-with-zeros", "decode", "digest"];

/// Sets up the work of this name from the inputs in `folder`.
pub fn set_up(name: &str, folder: &Path) -> Outcome<Work> {
    match name {
        "pack" => Ok(pack(folder)),
        "descriptor" => descriptor(folder),
        "index" => index(folder, INDEX),
        "index-with-zeros" => index(folder, INDEX_WITH_ZEROS),
        "decode" => decode(folder),
        "digest" => digest(folder),
        _ => Err(format!("there is no {name}; there are {}", NAMES.join(", ")).into()),
    }
}

/// Four chunks of 2 MiB are compressed, digested and written, and the descriptor is signed.
fn pack(folder: &Path) -> Work {
    let folder = folder.to_path_buf();
    Box::new(move || {
        black_box(pack_raw(&folder, "packed-counted")?);
        Ok(())
    })
}

/// The signed descriptor of an image of 1 TiB is opened: one signature, 256 spans.
fn descriptor(folder: &Path) -> Outcome<Work> {
    let bytes = fs::read(folder.join(ENVELOPE))?;
    let trust = Trust::new(vec![key()?.public()], 1)?;
    Ok(Box::new(move || {
        let opened = envelope::open(&bytes, Role::Image, &trust)?;
        black_box(Descriptor::decode(opened.payload())?);
        Ok(())
    }))
}

/// The index of a full span is read: 2048 rows.
fn index(folder: &Path, file: &str) -> Outcome<Work> {
    let bytes = fs::read(folder.join(file))?;
    Ok(Box::new(move || {
        black_box(SpanIndex::decode(&bytes)?);
        Ok(())
    }))
}

/// One frame is verified and decoded to 2 MiB.
fn decode(folder: &Path) -> Outcome<Work> {
    let row = SpanIndex::decode(&fs::read(folder.join(FRAME_INDEX))?)?.rows()[0];
    let frame = fs::read(folder.join(FRAME))?;
    let pool = Pool::new(1, DEFAULT_CHUNK_SIZE as usize)?;
    let mut decoder = Decoder::new();
    Ok(Box::new(move || {
        let buffer = pool.acquire().ok_or("the pool of buffers is closed")?;
        black_box(decoder.decode(&row, 0, DEFAULT_CHUNK_SIZE as usize, &frame, buffer)?);
        Ok(())
    }))
}

/// What reading back does with each chunk: the digest of 2 MiB.
fn digest(folder: &Path) -> Outcome<Work> {
    let mut raw = fs::read(folder.join(RAW))?;
    raw.truncate(DEFAULT_CHUNK_SIZE as usize);
    Ok(Box::new(move || {
        black_box(Digest::of(&raw));
        Ok(())
    }))
}
