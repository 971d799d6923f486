//! The images that are packed and written: real data of this machine, cached outside any checkout.
//!
//! A dense subject is seven eighths real files (each at a 4 KiB boundary, as a file system would place them) and one eighth
//! holes, spread over sixteen stretches. It needs no network, no privileges and no spare copy of the data. It isn't
//! mountable; for compression, hashing and writing that makes no difference.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::children::check_interrupted;
use crate::failure::{Context, Failure, Result};
use crate::units::{KIB, MIB, gib, size_name};

const STRETCHES: u64 = 16;
const ALIGN: u64 = 4 * KIB;

/// A raw image and what it is made of.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Subject {
    /// The raw image.
    pub raw: PathBuf,
    /// Its length.
    pub size: u64,
    /// Bytes of it that come from files.
    pub data: u64,
    /// How many files were copied.
    pub files: u64,
    /// How often the list of files was started; more than one when the machine has less data than the image.
    pub passes: u64,
}

impl Subject {
    /// `8GiB`, the name in the cache.
    pub fn name(&self) -> String {
        size_name(self.size)
    }

    /// For the report.
    pub fn fact(&self) -> String {
        let again = if self.passes > 1 { format!(", the list begun {} times", self.passes) } else { String::new() };
        format!("{} ({}) with {} of real data from {} files{again}", self.name(), self.size, gib(self.data), self.files)
    }
}

/// The dense subject of `size` bytes, from the cache or made now.
pub fn dense(cache: &Path, size: u64) -> Result<Subject> {
    cached(cache, &format!("subject-{}", size_name(size)), |raw| fill(raw, size))
}

/// A subject of `size` bytes that is all hole but for 64 short stretches of data.
pub fn sparse(cache: &Path, size: u64) -> Result<Subject> {
    cached(cache, &format!("sparse-{}", size_name(size)), |raw| sprinkle(raw, size))
}

fn cached(cache: &Path, name: &str, make: impl FnOnce(&Path) -> Result<Subject>) -> Result<Subject> {
    let (raw, card) = (cache.join(format!("{name}.raw")), cache.join(format!("{name}.json")));
    let known = fs::read(&card).ok().and_then(|text| serde_json::from_slice::<Subject>(&text).ok());
    if let Some(known) = known.filter(|known| fs::metadata(&raw).is_ok_and(|m| m.len() == known.size)) {
        return Ok(Subject { raw, ..known });
    }
    eprintln!("making {name} (once; cached)");
    let partial = cache.join(format!("{name}.partial"));
    let made = make(&partial).inspect_err(|_| drop(fs::remove_file(&partial)))?;
    fs::rename(&partial, &raw).context("could not name the finished subject")?;
    let made = Subject { raw, ..made };
    let text = serde_json::to_vec_pretty(&made).context("could not describe the subject")?;
    fs::write(&card, text).context("could not write the subject's card")?;
    Ok(made)
}

fn fill(raw: &Path, size: u64) -> Result<Subject> {
    let mut files = Files::of_this_machine()?;
    let mut image = create(raw, size)?;
    let mut subject = Subject { raw: raw.into(), size, data: 0, files: 0, passes: 1 };
    let stretch = size / STRETCHES / ALIGN * ALIGN;
    for start in (0..STRETCHES).map(|i| i * stretch) {
        let end = start + stretch / 8 * 7 / ALIGN * ALIGN;
        let mut at = start;
        while at < end {
            check_interrupted()?;
            let copied = append(&mut image, at, end - at, &files.next(&mut subject.passes)?)?;
            subject.files += u64::from(copied > 0);
            subject.data += copied;
            at += copied.div_ceil(ALIGN) * ALIGN;
        }
    }
    image.sync_all().context("could not sync the subject")?;
    Ok(subject)
}

/// Copies at most `room` bytes of `file`; a file that cannot be read adds nothing.
fn append(image: &mut File, at: u64, room: u64, file: &Path) -> Result<u64> {
    let Ok(source) = File::open(file) else {
        return Ok(0);
    };
    image.seek(SeekFrom::Start(at)).context("could not seek in the subject")?;
    std::io::copy(&mut source.take(room), image).context(format!("could not copy {} into the subject", file.display()))
}

fn sprinkle(raw: &Path, size: u64) -> Result<Subject> {
    const PIECES: u64 = 64;
    let mut files = Files::of_this_machine()?;
    let image = create(raw, size)?;
    let mut subject = Subject { raw: raw.into(), size, data: 0, files: 0, passes: 1 };
    let step = size / PIECES / ALIGN * ALIGN;
    for i in 0..PIECES {
        let mut data = Vec::new();
        while data.len() < MIB as usize {
            let room = MIB - data.len() as u64;
            let source = File::open(files.next(&mut subject.passes)?);
            let _ = source.and_then(|f| f.take(room).read_to_end(&mut data));
            subject.files += 1;
        }
        image.write_all_at(&data, i * step).context("could not write the sparse subject")?;
        subject.data += data.len() as u64;
    }
    image.sync_all().context("could not sync the subject")?;
    Ok(subject)
}

fn create(raw: &Path, size: u64) -> Result<File> {
    let what = format!("could not make a file of {} at {}", size_name(size), raw.display());
    let mut file = File::create(raw).context(&what)?;
    file.set_len(size).context(&what)?;
    file.flush().context(&what)?;
    Ok(file)
}

/// The machine's own files, in a fixed order, over and over.
struct Files {
    paths: Vec<PathBuf>,
    next: usize,
}

impl Files {
    fn of_this_machine() -> Result<Self> {
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let own = |name: &str, fallback: &str| std::env::var_os(name).map_or(home.join(fallback), PathBuf::from);
        let roots = [
            PathBuf::from("/usr"),
            own("RUSTUP_HOME", ".rustup"),
            own("CARGO_HOME", ".cargo").join("registry"),
            "/opt".into(),
        ];
        let mut list = Listing::default();
        for root in roots {
            list.walk(&root);
        }
        if list.bytes < 64 * MIB {
            return Err(Failure::new("this machine has hardly any files below /usr to make an image from"));
        }
        Ok(Self { paths: list.paths, next: 0 })
    }

    fn next(&mut self, passes: &mut u64) -> Result<PathBuf> {
        if self.next == self.paths.len() {
            self.next = 0;
            *passes += 1;
        }
        self.next += 1;
        self.paths.get(self.next - 1).cloned().context("no files to copy")
    }
}

#[derive(Default)]
struct Listing {
    paths: Vec<PathBuf>,
    seen: HashSet<(u64, u64)>,
    bytes: u64,
}

impl Listing {
    /// Adds the regular files below `folder`, each inode once, sorted; symbolic links are not followed.
    fn walk(&mut self, folder: &Path) {
        let Ok(entries) = fs::read_dir(folder) else {
            return;
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        paths.sort();
        for path in paths {
            let Ok(facts) = fs::symlink_metadata(&path) else {
                continue;
            };
            if facts.is_dir() {
                self.walk(&path);
            } else if facts.is_file() && facts.len() > 0 && self.seen.insert((facts.dev(), facts.ino())) {
                self.bytes += facts.len();
                self.paths.push(path);
            }
        }
    }
}
