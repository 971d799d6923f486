//! The raw image being packed: a file or block device, its holes, and whether it stays as it was.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::source_error;
use crate::error::{Error, Kind, Result};
use crate::sink::facts::{self, Facts, FileKind};

/// An open raw image.
pub(super) struct Input {
    file: File,
    name: String,
    facts: Facts,
    metadata: Metadata,
}

impl Input {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let opening = |error| source_error(format!("opening {name} to pack it"), error);
        let file = File::open(path).map_err(opening)?;
        let metadata = file.metadata().map_err(opening)?;
        let facts = facts::of(&file).map_err(|error| {
            Error::usage(format!("{name}: {error}")).with_hint("give a raw image file or a whole block device")
        })?;
        Ok(Input { file, name, facts, metadata })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn size(&self) -> u64 {
        self.facts.size
    }

    /// The sector size the image was built for: as told, else the device's, else where its GPT lies, else 512.
    pub(super) fn sector_size(&self, told: Option<u32>) -> Result<u32> {
        let found = match (told, self.facts.kind) {
            (Some(told), _) => told,
            (None, FileKind::Block) => self.facts.sector_size,
            (None, FileKind::Regular) => {
                let mut magic = [0; 8];
                let gpt_at_4096 =
                    self.size() >= 8192 && self.file.read_exact_at(&mut magic, 4096).is_ok() && &magic == b"EFI PART";
                if gpt_at_4096 { 4096 } else { 512 }
            }
        };
        match found {
            512 | 4096 => Ok(found),
            other => Err(Error::usage(format!("a sector size of {other}; 512 and 4096 are possible"))),
        }
    }

    /// Fills `into` from `offset`.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    /// The error of a failed [`Input::read`] while packing.
    pub(super) fn read_error(&self, offset: u64, error: io::Error) -> Error {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Error::new(Kind::Source, format!("{} became shorter while it was packed", self.name))
                .with_hint(CHANGED);
        }
        source_error(format!("reading {} at offset {offset}", self.name), error)
    }

    /// Whether the file system says that nothing was ever written to the range. Only regular files can say so.
    pub(super) fn is_hole(&self, offset: u64, len: u64) -> bool {
        facts::is_hole(&self.file, self.facts.kind, offset, len)
    }

    /// Refuses an input that was written to while it was packed: the result would be a mixture of two images.
    pub(super) fn check_unchanged(&self) -> Result<()> {
        let now = self.file.metadata().map_err(|error| source_error(format!("looking at {}", self.name), error))?;
        let state = |of: &Metadata| (of.len(), of.mtime(), of.mtime_nsec());
        if self.facts.kind == FileKind::Regular && state(&now) != state(&self.metadata) {
            return Err(
                Error::new(Kind::Source, format!("{} was changed while it was packed", self.name)).with_hint(CHANGED)
            );
        }
        Ok(())
    }
}

const CHANGED: &str = "pack a copy or a snapshot that nobody writes to";
