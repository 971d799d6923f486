//! Where a benchmark works: the cache, a scratch folder on the disk under test, and the two forms of the subject.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use tempfile::TempDir;

use crate::failure::{Context, Result};
use crate::machine;
use crate::measure::{Job, Outcome, command};
use crate::report::Report;
use crate::subject::Subject;
use crate::tools;
use crate::units;

/// The compression level both sides use, so that the same number of bytes travels.
pub const LEVEL: &str = "3";

/// Options every benchmark takes.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Where subjects are kept [default: $XDG_CACHE_HOME/z-provisioner/bench]
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// A folder on the disk to write to [default: the cache]
    #[arg(long, value_name = "DIR")]
    pub target_dir: Option<PathBuf>,
    /// Write every sample and figure to FILE as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Print Markdown, as docs/performance.md holds it, instead of plain text
    #[arg(long)]
    pub markdown: bool,
}

/// How much is measured, how often.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Scale {
    /// Size of the image [default: 8GiB]
    #[arg(long, value_parser = units::parse_size)]
    pub size: Option<u64>,
    /// Measured rounds [default: 7]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub rounds: Option<u16>,
    /// A short look instead of a measurement: 1 GiB, 3 rounds
    #[arg(long)]
    pub quick: bool,
}

impl Scale {
    /// The size of the image, `default` unless something else was asked for.
    pub fn size_or(self, default: u64) -> u64 {
        self.size.unwrap_or(if self.quick { default.min(units::GIB) } else { default })
    }

    /// The number of rounds.
    pub fn rounds(self) -> usize {
        self.rounds.map_or(if self.quick { 3 } else { 7 }, usize::from)
    }
}

/// The place and the tools of one benchmark.
pub struct Lab {
    /// Subjects, images and the signing key; served by nginx as a whole.
    pub cache: PathBuf,
    scratch: TempDir,
    imgstream: PathBuf,
}

impl Lab {
    /// Makes the folders and finds imgstream.
    pub fn open(options: &Options) -> Result<Self> {
        let imgstream = tools::imgstream()?;
        let cache = options.cache.clone().or_else(default_cache).context("neither XDG_CACHE_HOME nor HOME is set")?;
        fs::create_dir_all(&cache).context(format!("could not create {}", cache.display()))?;
        let cache = cache.canonicalize().context("could not resolve the cache's path")?;
        let folder = options.target_dir.as_deref().unwrap_or(&cache);
        let scratch = TempDir::with_prefix_in("bench-", folder)
            .context(format!("could not make a folder in {}", folder.display()))?;
        Ok(Self { cache, scratch, imgstream })
    }

    /// The scratch folder, on the disk under test.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// A report with the machine's facts and the versions of `programs`.
    pub fn report(&self, benchmark: &'static str, programs: &[&str]) -> Report {
        let mut report = Report::new(benchmark, machine::facts(self.scratch()));
        report.fact("tools", format!("{}; {}", tools::version(&self.imgstream), tools::versions(programs)));
        report
    }

    /// Runs a job and says so.
    pub fn run(&self, job: &Job) -> Result<Outcome> {
        job.run(self.scratch())
    }

    /// Runs a job whose output nobody wants.
    pub fn run_quietly(&self, job: &Job) -> Result<Outcome> {
        job.run_into(self.scratch(), Some(Path::new("/dev/null")))
    }

    /// An imgstream command line.
    pub fn ours<S: ToString>(&self, arguments: &[S]) -> Result<Vec<String>> {
        let mut argv = vec![self.imgstream.display().to_string()];
        argv.extend(arguments.iter().map(S::to_string));
        Ok(argv)
    }

    /// The signing key, made on first use; its public half is beside it, `.pub`.
    pub fn key(&self) -> Result<String> {
        let key = self.cache.join("key");
        if !key.exists() {
            self.run(&Job::one(self.ours(&["keygen", &key.display().to_string()])?))?;
        }
        Ok(key.display().to_string())
    }

    /// The job that packs `raw` into `image`, at the default level or at `level`.
    pub fn pack(&self, raw: &Path, image: &Path, level: Option<&str>) -> Result<Job> {
        let (raw, image, key) = (raw.display().to_string(), image.display().to_string(), self.key()?);
        let words = ["pack", &raw, &image, "--name", "bench", "--image-version", "1", "--arch", "s390x", "--key", &key];
        let mut argv = self.ours(&words)?;
        argv.extend(level.into_iter().flat_map(|level| ["--level".to_string(), level.to_string()]));
        Ok(Job::one(argv))
    }

    /// The job that compresses `raw` for the peers.
    pub fn compress(&self, raw: &Path, zst: &Path) -> Job {
        let level = format!("-{LEVEL}");
        let (raw, zst) = (raw.display().to_string(), zst.display().to_string());
        Job::one(command(&["zstd", "-q", "-f", "-T0", &level, &raw, "-o", &zst]))
    }

    /// The subject as our image in the cache; packed again by any other imgstream than the one that packed it.
    pub fn image_of(&self, subject: &Subject) -> Result<String> {
        let name = format!("image-{}", subject.name());
        let (image, stamp) = (self.cache.join(&name), self.cache.join(format!("{name}.by")));
        let facts = fs::metadata(&self.imgstream).context("could not look at imgstream")?;
        let by = format!("{} {} {:?}", self.imgstream.display(), facts.len(), facts.modified().ok());
        let same = fs::read_to_string(&stamp).is_ok_and(|known| known == by);
        if !(same && newer(&image, &[&subject.raw])) {
            eprintln!("packing {name} with imgstream (cached)");
            let _ = fs::remove_dir_all(&image);
            self.run(&self.pack(&subject.raw, &image, Some(LEVEL))?)?;
            fs::write(&stamp, by).context("could not note who packed the image")?;
        }
        Ok(name)
    }

    /// A command line as it can stand in a document: without the places of this machine.
    pub fn anywhere(&self, job: &Job, target: &str, server: &str) -> String {
        let shown = job.shown().replace(target, "TARGET").replace(server, "http://SERVER/");
        let shown = shown.replace(&self.imgstream.display().to_string(), "imgstream");
        let scratch = format!("{}/", self.scratch().display());
        shown.replace(&scratch, "").replace(&format!("{}/", self.cache.display()), "")
    }

    /// The subject as one zstd file in the cache.
    pub fn zst_of(&self, subject: &Subject) -> Result<PathBuf> {
        self.form(subject, "raw.zst", |raw, zst| self.compress(Path::new(raw), Path::new(zst)))
    }

    /// A form of the subject in the cache, a file or a folder, made by the job that `make` gives for the paths of the raw
    /// image and of the form; made again when the raw image or the job is another.
    pub fn form(&self, subject: &Subject, suffix: &str, make: impl FnOnce(&str, &str) -> Job) -> Result<PathBuf> {
        let name = format!("subject-{}.{suffix}", subject.name());
        let (form, stamp) = (self.cache.join(&name), self.cache.join(format!("{name}.by")));
        let partial = self.cache.join(format!("{name}.partial"));
        let job = make(&subject.raw.display().to_string(), &partial.display().to_string());
        let by = job.shown();
        let same = fs::read_to_string(&stamp).is_ok_and(|known| known == by);
        if same && newer(&form, &[&subject.raw]) {
            return Ok(form);
        }
        eprintln!("making {name} (once; cached)");
        remove(&partial)?;
        self.run(&job)?;
        remove(&form)?;
        fs::rename(&partial, &form).context(format!("could not name {name}"))?;
        fs::write(&stamp, by).context(format!("could not note how {name} was made"))?;
        Ok(form)
    }

    /// The data blobs of an image, in no order: the blobs that begin as zstd frames do.
    pub fn data_blobs(&self, image: &Path) -> Result<Vec<PathBuf>> {
        let blobs = image.join("blobs/sha256");
        let entries = fs::read_dir(&blobs).context(format!("could not list {}", blobs.display()))?;
        Ok(entries.flatten().map(|e| e.path()).filter(|p| begins_as_zstd(p)).collect())
    }
}

/// Bytes in `files` together.
pub fn total_length<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> u64 {
    files.into_iter().filter_map(|f| fs::metadata(f).ok()).map(|m| m.len()).sum()
}

fn default_cache() -> Option<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(folder) if Path::new(&folder).is_absolute() => PathBuf::from(folder),
        _ => PathBuf::from(std::env::var_os("HOME")?).join(".cache"),
    };
    Some(base.join("z-provisioner/bench"))
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).context(format!("could not remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn newer(made: &Path, from: &[&PathBuf]) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    time(made).is_some_and(|made| from.iter().all(|f| time(f).is_some_and(|source| source <= made)))
}

fn begins_as_zstd(path: &Path) -> bool {
    use std::io::Read;
    let mut magic = [0; 4];
    let read = fs::File::open(path).and_then(|mut f| f.read_exact(&mut magic));
    read.is_ok() && magic == [0x28, 0xb5, 0x2f, 0xfd]
}
