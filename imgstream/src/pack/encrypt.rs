//! `--encrypt-region`: partitions that a `split` layout puts inside LUKS. Checks that the LUKS header finds room and that nothing
//! ends up inside which must be readable before anybody has a key.

use std::ops::Range;

use super::filesystem::{self, FileSystem};
use super::input::Input;
use crate::error::{Error, Result};
use crate::manifest::partitions::{Encrypted, Partition, Table, is_reserved};
use crate::manifest::region::{LUKS_HEADER_UNIT, MIN_LUKS_HEADER, derived_uuid, is_uuid};
use crate::manifest::{BootFacts, Luks, descriptor};
use crate::size::Size;
use crate::zeros;

/// Default bytes of a LUKS header: what LUKS2 takes by itself.
pub const DEFAULT_LUKS_HEADER: u64 = 16 << 20;

/// Looked at together when zeros are demanded.
const STEP: u64 = 1 << 20;

/// A partition that becomes an encrypted region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptRegion {
    /// What the region will be called.
    pub name: String,
    /// The partition: its number, or its GPT name.
    pub partition: String,
    /// The UUID of its container; derived from the names of image and region where it is not given.
    pub uuid: Option<String>,
}

/// Checks what can be checked without an image.
pub(super) fn check_options(regions: &[EncryptRegion], header_bytes: u64) -> Result<()> {
    if !header_bytes.is_multiple_of(LUKS_HEADER_UNIT) || header_bytes < MIN_LUKS_HEADER {
        return Err(Error::usage(format!(
            "a LUKS header of {header_bytes} bytes; at least 1MiB and a multiple of {LUKS_HEADER_UNIT} is possible"
        )));
    }
    for (number, EncryptRegion { name, uuid, .. }) in regions.iter().enumerate() {
        descriptor::check_name(name).map_err(Error::usage)?;
        if is_reserved(name) {
            return Err(Error::usage(format!("a region cannot be called {name:?}")).with_hint(
                "names like partition-N, gap-N, end and disk are those of regions without a name of their own",
            ));
        }
        if regions[..number].iter().any(|other| other.name == *name) {
            return Err(Error::usage(format!("two encrypted regions are called {name:?}")));
        }
        if let Some(uuid) = uuid.as_ref().filter(|uuid| !is_uuid(uuid)) {
            return Err(Error::usage(format!("{uuid:?} is no UUID like 6a7e1e3c-0001-4000-8000-000000000001")));
        }
        if uuid.is_some() && regions[..number].iter().any(|other| other.uuid == *uuid) {
            return Err(Error::usage(format!(
                "two encrypted regions have the UUID {}",
                uuid.as_deref().unwrap_or_default()
            )));
        }
    }
    Ok(())
}

/// The encrypted regions of an image, checked against what is in it.
pub(super) fn encrypted(
    input: &Input,
    table: &Table,
    boot: Option<&BootFacts>,
    image_name: &str,
    regions: &[EncryptRegion],
    header_bytes: u64,
) -> Result<Vec<Encrypted>> {
    let mut encrypted: Vec<Encrypted> = Vec::new();
    for wanted in regions {
        let partition = find(table, &wanted.partition).map_err(|error| refuse(input, &error))?;
        if encrypted.iter().any(|other| other.partition == partition.number) {
            return Err(Error::usage(format!("partition {} would be two encrypted regions", partition.number)));
        }
        let subject = Subject { input, partition, header_bytes };
        subject.check_clear(table, boot)?;
        subject.check_file_system()?;
        subject.check_zeros()?;
        let uuid = wanted.uuid.clone().unwrap_or_else(|| derived_uuid(image_name, &wanted.name));
        let luks = Luks { uuid, header_bytes };
        encrypted.push(Encrypted { partition: partition.number, name: wanted.name.clone(), luks });
    }
    Ok(encrypted)
}

fn refuse(input: &Input, what: &str) -> Error {
    Error::usage(format!("{}: {what}", input.name()))
}

/// The partition with this number, else the one with this name.
fn find<'a>(table: &'a Table, wanted: &str) -> Result<&'a Partition, String> {
    let all = &table.partitions;
    if let Some(found) = wanted.parse().ok().and_then(|number: u32| all.iter().find(|one| one.number == number)) {
        return Ok(found);
    }
    let named: Vec<&Partition> = all.iter().filter(|one| one.name == wanted && !wanted.is_empty()).collect();
    match named.as_slice() {
        [found] => Ok(found),
        [] if all.is_empty() => Err(format!("there is no partition {wanted:?}: the image has no partition table")),
        [] => {
            let there: Vec<String> = all.iter().map(called).collect();
            Err(format!("there is no partition {wanted:?}: there are {}", there.join(", ")))
        }
        several => {
            let numbers: Vec<String> = several.iter().map(|one| one.number.to_string()).collect();
            Err(format!("the partitions {} are all called {wanted:?}: give a number", numbers.join(", ")))
        }
    }
}

fn called(partition: &Partition) -> String {
    let Partition { number, name, .. } = partition;
    if name.is_empty() { number.to_string() } else { format!("{number} ({name})") }
}

/// One partition that is to become an encrypted region.
struct Subject<'a> {
    input: &'a Input,
    partition: &'a Partition,
    header_bytes: u64,
}

impl Subject<'_> {
    fn refuse(&self, what: &str) -> Error {
        Error::image(format!("{}: partition {} cannot be encrypted: {what}", self.input.name(), called(self.partition)))
    }

    fn read(&self, within: u64, into: &mut [u8]) -> std::io::Result<()> {
        self.input.read(self.partition.offset + within, into)
    }

    /// Firmware, boot loader and kernel read these before there is a key.
    fn check_clear(&self, table: &Table, boot: Option<&BootFacts>) -> Result<()> {
        let Partition { offset, length, .. } = self.partition;
        let touches = |place: &Range<u64>| place.start < offset + length && *offset < place.end;
        if table.places.iter().any(touches) {
            return Err(self.refuse("the partition table lies in it").with_hint("make the partition table anew"));
        }
        let Some(boot) = boot else { return Ok(()) };
        let record = boot.record_offset..boot.record_offset + boot.record_length;
        let map = boot.map_offset..boot.map_offset + boot.map_length;
        for (place, what) in [(record, "the boot record"), (map, "the boot map")] {
            if touches(&place) {
                let why = format!("{what} lies in it (at byte {}), and no firmware reads LUKS", place.start);
                return Err(self.refuse(&why).with_hint("put /boot on a partition of its own and run zipl there"));
            }
        }
        Ok(())
    }

    fn check_file_system(&self) -> Result<()> {
        let (length, header) = (self.partition.length, self.header_bytes);
        let room = length.checked_sub(header).filter(|room| *room > 0).ok_or_else(|| {
            let why = format!("it has {}, no more than its LUKS header takes ({})", Size(length), Size(header));
            self.refuse(&why).with_hint("make the partition larger, or give a smaller --luks-header")
        })?;
        let found = filesystem::probe(length, |at, into| self.read(at, into))
            .map_err(|error| self.refuse(&error.to_string()).with_hint("check its file system"))?;
        let Some(FileSystem { kind, bytes }) = found else {
            let why = "what it holds does not say how far it reaches";
            return Err(self.refuse(why).with_hint(format!("file systems that do are {}", filesystem::KNOWN)));
        };
        if bytes <= room {
            return Ok(());
        }
        let why = format!(
            "its {} file system has {bytes} bytes of {length}, but must leave the last {} to the LUKS header: {} too many",
            kind.name(),
            Size(header),
            Size(bytes - room)
        );
        Err(self.refuse(&why).with_hint(format!(
            "{}, or make the partition {} larger (its file system must stay as it is)",
            kind.remedy(room),
            Size(bytes - room)
        )))
    }

    /// What has no place on a target must not be missed there.
    fn check_zeros(&self) -> Result<()> {
        let Partition { offset, length, .. } = self.partition;
        let end = offset + length;
        let mut at = end - self.header_bytes;
        let mut bytes = vec![0; STEP as usize];
        while at < end {
            let step = (end - at).min(STEP);
            if !self.input.is_hole(at, step) {
                let bytes = &mut bytes[..step as usize];
                self.input.read(at, bytes).map_err(|error| self.input.read_error(at, error))?;
                if let Some(found) = zeros::first_nonzero(bytes) {
                    let (header, place) = (Size(self.header_bytes), at + found as u64);
                    let why = format!(
                        "its last {header} must be zeros, since the LUKS header takes their place, but byte {place} is not"
                    );
                    return Err(self.refuse(&why).with_hint(
                        "nothing of its file system lies there: zero it (`blkdiscard -z`, `fallocate -z` on the image's file)",
                    ));
                }
            }
            at += step;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: u32, name: &str) -> Partition {
        Partition { number, name: name.into(), offset: u64::from(number) << 20, length: 1 << 20 }
    }

    #[test]
    fn a_partition_is_found_by_number_or_by_its_only_name() {
        let partitions =
            vec![partition(1, "boot"), partition(2, "1"), partition(3, "root"), partition(4, "root"), partition(5, "")];
        let table = Table { partitions, places: Vec::new() };
        let number = |wanted: &str| find(&table, wanted).map(|found| found.number);
        assert_eq!((number("1"), number("boot"), number("3")), (Ok(1), Ok(1), Ok(3)));
        assert!(number("root").unwrap_err().contains("3, 4 are all called \"root\""));
        let missing = number("6").unwrap_err();
        assert!(missing.contains("there are 1 (boot), 2 (1), 3 (root), 4 (root), 5"), "{missing}");
        assert!(number("").is_err());
        assert!(find(&Table::default(), "1").unwrap_err().contains("no partition table"));
    }

    #[test]
    fn options_that_contradict_themselves_are_refused() {
        let region = |name: &str, uuid: Option<&str>| EncryptRegion {
            name: name.into(),
            partition: "1".into(),
            uuid: uuid.map(Into::into),
        };
        let uuid = Some("6a7e1e3c-0001-4000-8000-000000000001");
        let said = |regions: &[EncryptRegion], header| check_options(regions, header).unwrap_err().to_string();
        check_options(&[region("root", uuid), region("home", None)], DEFAULT_LUKS_HEADER).unwrap();
        check_options(&[], MIN_LUKS_HEADER).unwrap();
        assert!(said(&[], MIN_LUKS_HEADER - 4096).contains("at least 1MiB"));
        assert!(said(&[], MIN_LUKS_HEADER + 512).contains("a multiple of 4096"));
        assert!(said(&[region("Root", None)], MIN_LUKS_HEADER).contains("\"Root\""));
        assert!(said(&[region("partition-1", None)], MIN_LUKS_HEADER).contains("cannot be called"));
        assert!(said(&[region("root", None), region("root", None)], MIN_LUKS_HEADER).contains("two encrypted regions"));
        assert!(said(&[region("root", uuid), region("home", uuid)], MIN_LUKS_HEADER).contains("have the UUID"));
        assert!(said(&[region("root", Some("x"))], MIN_LUKS_HEADER).contains("is no UUID"));
    }
}
