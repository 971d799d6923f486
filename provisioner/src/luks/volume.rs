//! A container on its slot: made, opened, compared, closed, made useless. `cryptsetup` does it.

use std::path::Path;
use std::time::Duration;

use imgstream::error::{Error, Kind, Result};
use protocol::spec::Pbkdf;

use super::checksum;
use super::copy::{self, Copy, Header};
use super::header::{self, Shape};
use super::{Key, mapping};
use crate::block::Block;
use crate::dm;
use crate::thread::apart;
use crate::tool::Tool;

/// `cryptsetup`'s exit codes: "no", and "this passphrase opens no key slot".
const NO: i32 = 1;
const WRONG_KEY: i32 = 2;
/// How long making or opening a container may take: a slow device, and a deliberately slow PBKDF.
const LIMIT: Duration = Duration::from_secs(300);
/// Bytes of each of the two copies of the metadata: cryptsetup's usual size.
const METADATA: u64 = 16 << 10;
/// Most bytes of key slots that LUKS2 allows.
const MAX_KEYSLOTS: u64 = 128 << 20;

/// A LUKS2 container that is to be, or is, on a block device of its own.
#[derive(Debug, Clone)]
pub struct Container {
    /// The image's region in it; `disk` where it holds the whole image.
    pub region: String,
    /// Its UUID.
    pub uuid: String,
    /// What it must be.
    pub shape: Shape,
    /// The block device that it takes whole.
    pub slot: Block,
    /// The name of its mapping.
    pub name: String,
}

/// What lies in the place of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// No LUKS2 container, or what a power cut has left of one.
    Nothing,
    /// Metadata that are whole, and that `cryptsetup` does not take.
    Rejected,
    /// One with another UUID.
    Another,
    /// It, with no key slot: it was being made when the power went, or its keys were destroyed. Nobody can open it.
    WithoutKeys,
    /// It.
    Itself,
}

/// An open container.
#[derive(Debug, Clone)]
pub struct Volume {
    /// The mapping: what is written here is encrypted.
    pub mapping: Block,
    /// Whether it was there already.
    pub kept: bool,
    /// Its header.
    pub header: Header,
}

impl Container {
    /// Bytes that fit inside it.
    pub fn capacity(&self) -> u64 {
        let sector = u64::from(self.shape.sector_size);
        self.slot.size.saturating_sub(self.shape.header_bytes) / sector * sector
    }

    /// What lies in its place.
    ///
    /// # Errors
    /// When `cryptsetup` cannot be asked, or says neither yes nor no.
    pub async fn found(&self) -> Result<Found> {
        let is_luks = cryptsetup().args(["isLuks", "--type", "luks2"]).arg(self.slot.path()).end().await?;
        match is_luks.code {
            Some(0) => {}
            Some(NO) if self.has_whole_metadata().await? => return Ok(Found::Rejected),
            Some(NO) => return Ok(Found::Nothing),
            _ => return Err(is_luks.failure()),
        }
        let uuid = cryptsetup().arg("luksUUID").arg(self.slot.path()).run().await?;
        match uuid.trim() == self.uuid {
            false => Ok(Found::Another),
            true if header::has_no_keyslots(&dump(&self.slot.path()).await?) => Ok(Found::WithoutKeys),
            true => Ok(Found::Itself),
        }
    }

    async fn has_whole_metadata(&self) -> Result<bool> {
        let slot = self.slot.path();
        let both = apart("reads a header", move || copy::read(&slot, 2 * METADATA as usize)).await?;
        Ok(both.chunks(METADATA as usize).any(checksum::is_whole))
    }

    /// That a header is whole, and nothing that cryptsetup would make.
    pub fn rejected(&self) -> Error {
        self.refused("the LUKS2 header", &header::Differs::new("cryptsetup does not take it, though it is whole"))
    }

    /// Whether the container on the slot is opened by `key`.
    ///
    /// # Errors
    /// When `cryptsetup` fails otherwise.
    pub async fn is_opened_by(&self, key: &Key) -> Result<bool> {
        let test = cryptsetup().args(["open", "--test-passphrase", "--type", "luks2", "--disable-external-tokens"]);
        let tested = test.args(["--key-file", "-"]).arg(self.slot.path()).key(key).end().await?;
        match tested.code {
            Some(0) => Ok(true),
            Some(WRONG_KEY) => Ok(false),
            _ => Err(tested.failure()),
        }
    }

    /// Makes the container, whatever the slot held.
    ///
    /// # Errors
    /// [`Kind::Device`] when it cannot be written; [`Kind::Target`] when what was made is not what was asked for.
    pub async fn format(&self, key: &Key) -> Result<()> {
        let Shape { cipher, key_size, sector_size, header_bytes, discards, pbkdf } = &self.shape;
        let mut format = cryptsetup().args(["luksFormat", "--batch-mode", "--type", "luks2", "--key-file", "-"]);
        let numbers = [
            ("--key-size", u64::from(*key_size)),
            ("--sector-size", u64::from(*sector_size)),
            ("--offset", header_bytes / 512),
            ("--luks2-metadata-size", METADATA),
            ("--luks2-keyslots-size", self.keyslots_size()),
            ("--keyslot-key-size", u64::from(header::SLOT_KEY_SIZE)),
        ];
        for (option, number) in numbers {
            format = format.arg(option).arg(number.to_string());
        }
        format = format.args(["--cipher", cipher, "--uuid", &self.uuid]).args(pbkdf_options(pbkdf));
        format = format.args(["--keyslot-cipher", header::SLOT_CIPHER, "--hash", header::HASH]);
        format.arg(self.slot.path()).key(key).kind(Kind::Device).run().await?;
        self.check_header().await?;
        if *discards { self.allow_discards_for_good(key).await } else { Ok(()) }
    }

    /// Finishes a container that was being made when the power went, and is opened by `key`.
    ///
    /// # Errors
    /// As [`Container::format`].
    pub async fn finish(&self, key: &Key) -> Result<()> {
        match self.shape.discards && !header::passes_discards(&dump(&self.slot.path()).await?) {
            true => self.allow_discards_for_good(key).await,
            false => Ok(()),
        }
    }

    /// The installed system passes discards on when the header says so; it is written when a mapping is opened.
    async fn allow_discards_for_good(&self, key: &Key) -> Result<()> {
        let open =
            cryptsetup().args(["open", "--type", "luks2", "--allow-discards", "--persistent", "--key-file", "-"]);
        let opened = open.arg(self.slot.path()).arg(&self.name).key(key).kind(Kind::Device).run().await;
        // Also after an error: a tool that was given up on may have got as far as that.
        let closed = dm::close_container(&self.name).await;
        opened.and(closed)
    }

    /// Compares the header with what it must say.
    ///
    /// # Errors
    /// [`Kind::Target`] with the difference.
    pub async fn check_header(&self) -> Result<()> {
        self.check_copy(&self.slot.path()).await
    }

    async fn check_copy(&self, header: &Path) -> Result<()> {
        header::check(&dump(header).await?, &self.shape).map_err(|differs| self.refused("the LUKS2 header", &differs))
    }

    /// Opens the container as a copy of its header says that was compared, and compares what the kernel maps with what it must map.
    /// On an error nothing stays open. The kernel's queues for encryption are left as they are: without them (`--perf-no_write_workqueue`)
    /// the thread that writes encrypts, one core of all (docs/performance.md).
    ///
    /// # Errors
    /// [`Kind::Target`] when the key is wrong, or header or mapping differ; [`Kind::Device`] when it cannot be read.
    pub async fn open(&self, key: &Key, kept: bool) -> Result<Volume> {
        let copy = self.copy_header().await?;
        self.check_copy(&copy.path()).await?;
        match self.map(key, &copy).await {
            Ok(mapping) => Ok(Volume { mapping, kept, header: copy.header() }),
            // Also when cryptsetup failed or was given up on: it may have got as far as the mapping.
            Err(error) => match dm::close_container(&self.name).await {
                Ok(()) => Err(error),
                Err(open) => Err(error.in_addition(&format!("and {} could not be closed: {open}", self.name))),
            },
        }
    }

    async fn copy_header(&self) -> Result<Copy> {
        let (slot, bytes) = (self.slot.path(), (2 * METADATA + self.keyslots_size()) as usize);
        apart("copies a header", move || Copy::of(&slot, bytes)).await
    }

    fn keyslots_size(&self) -> u64 {
        (self.shape.header_bytes - 2 * METADATA).min(MAX_KEYSLOTS)
    }

    async fn map(&self, key: &Key, header: &Copy) -> Result<Block> {
        let open = cryptsetup().args(["open", "--type", "luks2", "--disable-external-tokens", "--key-file", "-"]);
        let open = open.arg("--header").arg(header.path());
        let opened = open.arg(self.slot.path()).arg(&self.name).key(key).end().await?;
        match opened.code {
            Some(0) => {}
            Some(WRONG_KEY) => return Err(self.wrong_key()),
            _ => return Err(opened.failure()),
        }
        let table = dm::table(&self.name).await?;
        mapping::check(&table, &self.shape, self.slot.number, self.capacity())
            .map_err(|differs| self.refused("the mapping the kernel made", &differs))?;
        Block::of_mapping(&self.name)
    }

    /// Overwrites every key slot: nobody can open the container any more, with any key.
    ///
    /// # Errors
    /// [`Kind::Device`] when that cannot be written.
    pub async fn destroy_keys(&self) -> Result<()> {
        cryptsetup().args(["erase", "--batch-mode"]).arg(self.slot.path()).kind(Kind::Device).run().await.map(drop)
    }

    /// That the key opens nothing here.
    pub fn wrong_key(&self) -> Error {
        Error::target(format!(
            "the LUKS container {} on {} (region {}) is not opened by this run's key",
            self.uuid,
            self.slot.path().display(),
            self.region
        ))
        .with_hint("give the key of the run that made it, or set `target.wipe: true` to make it anew")
    }

    fn refused(&self, what: &str, differs: &header::Differs) -> Error {
        Error::target(format!(
            "{what} of container {} on {} is not what this run makes: {differs}",
            self.uuid,
            self.slot.path().display()
        ))
        .with_hint(
            "somebody changed it, or another run made it: find out who writes to this LUN; `target.wipe: true` makes it anew",
        )
    }
}

/// The metadata of a header, on its device or in a file.
async fn dump(header: &Path) -> Result<String> {
    cryptsetup().args(["luksDump", "--dump-json-metadata"]).arg(header).run().await
}

fn cryptsetup() -> Tool<'static> {
    Tool::new("cryptsetup").limit(LIMIT)
}

fn pbkdf_options(pbkdf: &Pbkdf) -> Vec<String> {
    let list: Vec<(&str, String)> = match pbkdf {
        Pbkdf::Pbkdf2 { iterations } => {
            vec![("--pbkdf", "pbkdf2".into()), ("--pbkdf-force-iterations", iterations.to_string())]
        }
        Pbkdf::Argon2id { memory, time, parallel } => vec![
            ("--pbkdf", "argon2id".into()),
            ("--pbkdf-memory", memory.to_string()),
            ("--pbkdf-force-iterations", time.to_string()),
            ("--pbkdf-parallel", parallel.to_string()),
        ],
    };
    list.into_iter().flat_map(|(option, value)| [option.to_owned(), value]).collect()
}
