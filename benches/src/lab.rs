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
    /// Leave imgstream out: only the peers and the limits
    #[arg(long)]
    pub peers_only: bool,
}

/// The place and the tools of one benchmark.
pub struct Lab {
    /// Subjects, images and the signing key; served by nginx as a whole.
    pub cache: PathBuf,
    scratch: TempDir,
    imgstream: Option<PathBuf>,
}

impl Lab {
    /// Makes the folders and finds imgstream.
    pub fn open(options: &Options) -> Result<Self> {
        let imgstream = if options.peers_only { None } else { Some(tools::imgstream()?) };
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

    /// Whether imgstream takes part.
    pub fn has_ours(&self) -> bool {
        self.imgstream.is_some()
    }

    /// A report with the machine's facts and the versions of `programs`.
    pub fn report(&self, benchmark: &'static str, programs: &[&str]) -> Report {
        let mut report = Report::new(benchmark, machine::facts(self.scratch()));
        let ours = self.imgstream.as_deref().map(|path| format!("{}; ", tools::version(path)));
        report.fact("tools", ours.unwrap_or_default() + &tools::versions(programs));
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
        let program = self.imgstream.as_ref().context("imgstream was left out")?;
        let mut argv = vec![program.display().to_string()];
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
        let program = self.imgstream.as_ref().context("imgstream was left out")?;
        let facts = fs::metadata(program).context("could not look at imgstream")?;
        let by = format!("{} {} {:?}", program.display(), facts.len(), facts.modified().ok());
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
    pub fn anywhere(&self, job: &Job, server: &str) -> String {
        let program = self.imgstream.as_ref().map_or_else(String::new, |p| p.display().to_string());
        let target = self.scratch().join("target").display().to_string();
        let mut shown = job.shown().replace(&target, "TARGET").replace(server, "http://SERVER/");
        if !program.is_empty() {
            shown = shown.replace(&program, "imgstream");
        }
        shown.replace(&format!("{}/", self.cache.display()), "")
    }

    /// The subject as one zstd file in the cache.
    pub fn zst_of(&self, subject: &Subject) -> Result<String> {
        let name = format!("subject-{}.raw.zst", subject.name());
        let zst = self.cache.join(&name);
        if !newer(&zst, &[&subject.raw]) {
            eprintln!("compressing {name} with zstd (cached)");
            let partial = zst.with_extension("partial");
            self.run(&self.compress(&subject.raw, &partial))?;
            fs::rename(&partial, &zst).context("could not name the compressed subject")?;
        }
        Ok(name)
    }

    /// The data blobs of an image: the blobs that begin as zstd frames do.
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
