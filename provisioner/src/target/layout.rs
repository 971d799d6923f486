//! How an image lies on its target: which ranges go into which LUKS containers, and where these lie. A pure function of the
//! image's descriptor, the run and the target's size; nothing here touches a device.

use imgstream::digest::Digest;
use imgstream::error::{Error, Result};
use imgstream::manifest::{Descriptor, Region};
use imgstream::size::Size;
use protocol::RunId;
use protocol::spec::Layout;

/// Bytes of the header of a container that holds a whole image: what cryptsetup takes unless told otherwise.
pub const WHOLE_HEADER: u64 = 16 << 20;

/// Where a container lies on the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The image's region in it; `disk` for the whole image.
    pub region: String,
    /// The container's UUID.
    pub uuid: String,
    /// Bytes its header takes at the slot's start.
    pub header_bytes: u64,
    /// First byte on the target.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

/// A raw range and what it lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// First raw byte.
    pub raw_offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// Where.
    pub place: Place,
}

/// What a raw range lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The target itself, at the same offset.
    Clear,
    /// The container of a slot, from its first byte on.
    Slot(usize),
    /// Nothing: the container's header takes that room.
    Nowhere,
}

/// A layout, worked out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The containers.
    pub slots: Vec<Slot>,
    /// The image, in order and without gaps.
    pub pieces: Vec<Piece>,
}

/// Works out a layout on a target of `size` bytes.
///
/// # Errors
/// `Usage` when image and layout do not suit each other; `Target` when it is too small.
pub fn plan(layout: Layout, descriptor: &Descriptor, run: &RunId, name: &str, size: u64) -> Result<Plan> {
    let (slots, pieces) = match layout {
        Layout::Plain => (Vec::new(), vec![Piece { raw_offset: 0, len: descriptor.raw_size, place: Place::Clear }]),
        Layout::Whole => whole(descriptor, run, name, size)?,
        Layout::Split => split(descriptor, name, size)?,
    };
    Ok(Plan { slots, pieces })
}

fn whole(descriptor: &Descriptor, run: &RunId, name: &str, size: u64) -> Result<(Vec<Slot>, Vec<Piece>)> {
    let raw_size = descriptor.raw_size;
    // dm-crypt maps whole sectors of the container.
    let room =
        size.saturating_sub(WHOLE_HEADER) / u64::from(descriptor.sector_size) * u64::from(descriptor.sector_size);
    if room < raw_size {
        let missing = Size(raw_size - room);
        return Err(Error::target(format!(
            "{name} holds {size} bytes, {room} of them inside a LUKS container; the image needs {raw_size}: {missing} are missing"
        ))
        .with_hint("use a larger device"));
    }
    let region = "disk".to_owned();
    let slot = Slot { region, uuid: uuid_of(run), header_bytes: WHOLE_HEADER, offset: 0, len: size };
    Ok((vec![slot], vec![Piece { raw_offset: 0, len: raw_size, place: Place::Slot(0) }]))
}

fn split(descriptor: &Descriptor, name: &str, size: u64) -> Result<(Vec<Slot>, Vec<Piece>)> {
    if size < descriptor.raw_size {
        let missing = Size(descriptor.raw_size - size);
        return Err(Error::target(format!(
            "{name} holds {size} bytes, the image needs {}: {missing} are missing",
            descriptor.raw_size
        ))
        .with_hint("use a larger device"));
    }
    let (mut slots, mut pieces) = (Vec::new(), Vec::new());
    for Region { name, offset, length, luks, .. } in &descriptor.regions {
        let Some(luks) = luks else {
            pieces.push(Piece { raw_offset: *offset, len: *length, place: Place::Clear });
            continue;
        };
        let inside = length - luks.header_bytes;
        pieces.push(Piece { raw_offset: *offset, len: inside, place: Place::Slot(slots.len()) });
        pieces.push(Piece { raw_offset: offset + inside, len: luks.header_bytes, place: Place::Nowhere });
        let (region, uuid) = (name.clone(), luks.uuid.clone());
        slots.push(Slot { region, uuid, header_bytes: luks.header_bytes, offset: *offset, len: *length });
    }
    if slots.is_empty() {
        return Err(Error::usage(format!(
            "`target.layout: split` encrypts what the image says, and {} version {} says nothing",
            descriptor.name, descriptor.image_version
        ))
        .with_hint(
            "pack it with `imgstream pack --encrypt-region root=PARTITION`, or use `layout: whole` or `plain`",
        ));
    }
    Ok((slots, pieces))
}

/// The UUID of the container that holds a run's whole image: the same for every attempt, so that a later one knows it again.
/// RFC 9562 version 8, of the run's name.
fn uuid_of(run: &RunId) -> String {
    let digest = Digest::of(format!("z-provisioner container {run}").as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn descriptor(encrypted: bool) -> Descriptor {
        let luks = r#"{"uuid":"7a707276-0000-4000-8000-000000000003","header_bytes":2097152}"#;
        let root = if encrypted { format!(r#""encrypt":true,"luks":{luks}"#) } else { r#""encrypt":false"#.into() };
        let text = format!(
            r#"{{"format":1,"critical":[],"name":"d","image_version":1,"architecture":"s390x","created":"2026-01-01T00:00:00Z",
            "raw_size":20971520,"chunk_size":1048576,"sector_size":512,"digest":"sha256","compression":"zstd","regions":[
            {{"name":"partition-table","offset":0,"length":1048576,"encrypt":false}},
            {{"name":"root","offset":1048576,"length":18874368,{root}}},
            {{"name":"end","offset":19922944,"length":1048576,"encrypt":false}}],
            "spans":[{{"raw_offset":0,"raw_length":20971520,
            "index":{{"digest":"sha256:{zeros}","size":{index}}},"data":{{"digest":"sha256:{zeros}","size":1000}}}}]}}"#,
            zeros = "0".repeat(64),
            index = imgstream::manifest::index::encoded_len(20 * MIB, 1 << 20),
        );
        Descriptor::decode(text.as_bytes()).unwrap()
    }

    fn run() -> RunId {
        RunId::try_from("r-1".to_owned()).unwrap()
    }

    fn planned(layout: Layout, encrypted: bool, size: u64) -> Result<Plan> {
        plan(layout, &descriptor(encrypted), &run(), "LUN x", size)
    }

    #[test]
    fn a_split_image_leaves_room_for_the_header_and_loses_the_regions_end() {
        let plan = planned(Layout::Split, true, 20 * MIB).unwrap();
        let piece = |raw_offset, len, place| Piece { raw_offset, len, place };
        let expected = [
            piece(0, MIB, Place::Clear),
            piece(MIB, 16 * MIB, Place::Slot(0)),
            piece(17 * MIB, 2 * MIB, Place::Nowhere),
            piece(19 * MIB, MIB, Place::Clear),
        ];
        assert_eq!(plan.pieces, expected);
        let [slot] = &plan.slots[..] else { panic!() };
        assert_eq!((slot.offset, slot.len, slot.header_bytes, slot.region.as_str()), (MIB, 18 * MIB, 2 * MIB, "root"));
        assert_eq!(plan.pieces.iter().map(|piece| piece.len).sum::<u64>(), 20 * MIB);
    }

    #[test]
    fn a_whole_image_needs_room_for_the_header_to_the_last_sector() {
        let plan = planned(Layout::Whole, false, 36 * MIB).unwrap();
        assert_eq!((plan.slots[0].offset, plan.slots[0].len), (0, 36 * MIB));
        let error = planned(Layout::Whole, false, 36 * MIB - 512).unwrap_err();
        assert!(error.to_string().ends_with("512 B are missing"), "{error}");
        assert!(planned(Layout::Split, true, 20 * MIB - 512).unwrap_err().to_string().ends_with("512 B are missing"));
    }

    #[test]
    fn an_image_without_encrypted_regions_cannot_be_split() {
        let error = planned(Layout::Split, false, 20 * MIB).unwrap_err();
        assert!(error.hint().unwrap().contains("--encrypt-region"), "{error}");
    }

    #[test]
    fn the_container_of_a_run_keeps_its_uuid() {
        let uuid = uuid_of(&run());
        assert_eq!(uuid, uuid_of(&run()));
        assert_eq!((uuid.len(), &uuid[14..15]), (36, "8"));
        assert_ne!(uuid, uuid_of(&RunId::try_from("r-2".to_owned()).unwrap()));
    }
}
