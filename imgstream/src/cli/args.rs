//! What can be typed. Every option's help is its documentation.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use imgstream::digest::Digest;
use imgstream::manifest::Policy;
use imgstream::pipeline::TailPolicy;
use imgstream::sink::EngineChoice;
use imgstream::size::Size;
use imgstream::source::Locator;
use time::OffsetDateTime;

/// Signed images as chunked, verified zstd streams.
///
/// IMAGE is the directory of an image, http(s)://host/path/ of one, or oci://registry/repository:tag (or @sha256:…;
/// oci+http:// for a registry without TLS). Sizes take KiB, MiB, GiB, TiB.
///
/// Exit codes: 0 done · 2 usage · 3 image refused · 4 target refused · 5 source or network, corrupt chunks included ·
/// 6 device I/O · 7 proof failed (media differ) · 8 cancelled.
#[derive(Debug, Parser)]
#[command(name = "imgstream", version, max_term_width = 100)]
pub struct Arguments {
    /// Say more: causes of errors; twice: what happens inside.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a signing key: KEY (private, mode 0600) and KEY.pub
    Keygen(Keygen),
    /// Pack a raw image into a new directory, and sign it
    Pack(Pack),
    /// Add a signature to an image in a directory
    Sign(Sign),
    /// Show what an image is; without --trust nothing shown is verified
    Inspect(Inspect),
    /// Check every blob and every chunk of an image
    Verify(Verify),
    /// Unpack a verified image into a new raw file
    Unpack(Unpack),
    /// Serve an image's directory over HTTP, with ranges
    Serve(Serve),
    /// Write a verified image to a block device or file, and prove it
    Write(Write),
    /// Measure how fast this machine, a source and a device are, and say which stage limits
    ///
    /// Measures each stage of `write` alone and then the whole, and ends in a verdict in words. All rates are in bytes of the
    /// raw image, whatever it was packed to. Interrupted, it keeps what was measured.
    Bench(Bench),
}

/// `keygen`
#[derive(Debug, Args)]
pub struct Keygen {
    /// File for the private key; the public one gets `.pub` appended.
    pub key: PathBuf,
}

/// `pack`
#[derive(Debug, Args)]
pub struct Pack {
    /// The raw image: a file or a block device that nobody writes to.
    pub raw: PathBuf,
    /// The directory to make; must not exist.
    pub image: PathBuf,
    /// The image's name, such as debian-13.
    #[arg(long)]
    pub name: String,
    /// The image's version; higher is newer.
    #[arg(long)]
    pub image_version: u64,
    /// The architecture the image runs on.
    #[arg(long, default_value = "s390x")]
    pub arch: String,
    /// Private key to sign with (PKCS#8 PEM, Ed25519).
    #[arg(long)]
    pub key: PathBuf,
    /// Raw bytes per chunk: a power of two from 64KiB to 8MiB.
    #[arg(long, default_value = "2MiB")]
    pub chunk_size: Size,
    /// Raw bytes per data blob.
    #[arg(long, default_value = "4GiB")]
    pub span_size: Size,
    /// zstd level, 1 to 22.
    #[arg(long, default_value_t = imgstream::pack::DEFAULT_LEVEL)]
    pub level: i32,
    /// Holes of a sparse file mean "content unspecified", not zeros. Only for files whose maker vouches for that.
    #[arg(long)]
    pub holes: bool,
    /// The time to record (RFC 3339); the same time, input and options give the same bytes. Default: now.
    #[arg(long, value_parser = parse_time)]
    pub created: Option<OffsetDateTime>,
    /// From when on the image must not be used (RFC 3339).
    #[arg(long, value_parser = parse_time)]
    pub expires: Option<OffsetDateTime>,
    /// Logical sector size the image was built for: 512 or 4096. Default: found out.
    #[arg(long)]
    pub sector_size: Option<Size>,
    /// A partition, by its number or GPT name, that the layout `split` puts inside LUKS, and what its region is called. May be
    /// given several times. Its file system (ext2/3/4, XFS, btrfs) must leave the end free for the LUKS header.
    #[arg(long, value_name = "NAME=PARTITION", value_parser = parse_pair)]
    pub encrypt_region: Vec<(String, String)>,
    /// The UUID of an encrypted region's LUKS container, as boot parameters inside the image name it. Default: derived from the
    /// names of image and region, and printed.
    #[arg(long, value_name = "NAME=UUID", value_parser = parse_pair, requires = "encrypt_region")]
    pub luks_uuid: Vec<(String, String)>,
    /// Bytes that a LUKS header takes: a multiple of 4096, at least 1MiB.
    #[arg(long, value_name = "SIZE", default_value = "16MiB")]
    pub luks_header: Size,
    /// Threads that compress. Default: one per core.
    #[arg(long)]
    pub workers: Option<usize>,
    /// Write one JSON object to stdout at the end.
    #[arg(long)]
    pub json: bool,
}

/// `sign`
#[derive(Debug, Args)]
pub struct Sign {
    /// The image's directory.
    pub image: PathBuf,
    /// Private key to sign with.
    #[arg(long)]
    pub key: PathBuf,
    /// The image's name, where the directory has several.
    #[arg(long)]
    pub name: Option<String>,
    /// The image's architecture, where the directory has several.
    #[arg(long)]
    pub arch: Option<String>,
}

/// Which keys are trusted, and how many must have signed.
#[derive(Debug, Args)]
pub struct Trust {
    /// Public keys (SPKI PEM) that may have signed the image. Takes all that follow: put it last, or before another option.
    #[arg(long, value_name = "KEY.pub", num_args = 1..)]
    pub trust: Vec<PathBuf>,
    /// How many of the trusted keys must have signed.
    #[arg(long, default_value_t = 1)]
    pub threshold: usize,
}

/// What the image must be.
#[derive(Debug, Args)]
pub struct Wanted {
    /// The image must have this name.
    #[arg(long)]
    pub name: Option<String>,
    /// The image must be for this architecture.
    #[arg(long)]
    pub arch: Option<String>,
    /// The image must have this digest.
    #[arg(long)]
    pub digest: Option<Digest>,
    /// The image must have at least this version.
    #[arg(long)]
    pub min_version: Option<u64>,
}

impl Wanted {
    /// As a policy.
    pub fn policy(&self) -> Policy {
        Policy {
            name: self.name.clone(),
            architecture: self.arch.clone(),
            digest: self.digest,
            min_version: self.min_version,
        }
    }
}

/// How to reach sources.
#[derive(Debug, Args)]
pub struct Reach {
    /// Certificates (PEM) to trust for TLS instead of the machine's.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Registry credentials, in the format of docker's config.json.
    #[arg(long, value_name = "FILE")]
    pub registry_auth: Option<PathBuf>,
    /// Seconds without a connection, an answer or a byte after which a request counts as failed.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
}

/// One image: where it is, and what it must be.
#[derive(Debug, Args)]
pub struct OneImage {
    /// The image.
    pub image: Locator,
    #[command(flatten)]
    pub trust: Trust,
    #[command(flatten)]
    pub wanted: Wanted,
    #[command(flatten)]
    pub reach: Reach,
}

/// `inspect`
#[derive(Debug, Args)]
pub struct Inspect {
    #[command(flatten)]
    pub from: OneImage,
    /// Write the descriptor and what is known of it as one JSON object to stdout.
    #[arg(long)]
    pub json: bool,
}

/// `verify`
#[derive(Debug, Args)]
pub struct Verify {
    #[command(flatten)]
    pub from: OneImage,
    /// Write the result as one JSON object to stdout.
    #[arg(long)]
    pub json: bool,
}

/// `unpack`
#[derive(Debug, Args)]
pub struct Unpack {
    #[command(flatten)]
    pub from: OneImage,
    /// The raw file to make; must not exist.
    pub raw: PathBuf,
}

/// `serve`
#[derive(Debug, Args)]
pub struct Serve {
    /// The image's directory.
    pub image: PathBuf,
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Certificate chain (PEM), for https.
    #[arg(long, requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

/// `write`
#[derive(Debug, Args)]
pub struct Write {
    /// Where the image is, once or several times, and then the target: a whole block device, or a file.
    #[arg(value_name = "IMAGE… TARGET", num_args = 2.., required = true)]
    pub images_and_target: Vec<String>,
    #[command(flatten)]
    pub trust: Trust,
    #[command(flatten)]
    pub wanted: Wanted,
    #[command(flatten)]
    pub reach: Reach,
    /// How to write: auto, uring, direct or buffered.
    #[arg(long, default_value = "auto")]
    pub engine: EngineChoice,
    /// Compare first, and fetch and write only what the target does not hold already: after an interrupted write, or to
    /// bring a target from one version to the next.
    #[arg(long)]
    pub resume: bool,
    /// What becomes of a larger target beyond the image: zero, keep (it may be a previous owner's data) or discard.
    #[arg(long, default_value = "zero")]
    pub tail: TailPolicy,
    /// Do not read back what was written; the result then says that it is not proven.
    #[arg(long)]
    pub no_read_back: bool,
    /// Read back only when all is written, instead of following the writing: slower, but nothing is written any more when the
    /// proof begins.
    #[arg(long, conflicts_with = "no_read_back")]
    pub read_back_last: bool,
    /// Requests in flight per source.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub connections: u16,
    /// Bytes per request.
    #[arg(long, default_value = "16MiB")]
    pub request_size: Size,
    /// Writes in flight.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(2..=512))]
    pub depth: u16,
    /// Threads that verify and decode. Default: one per core.
    #[arg(long)]
    pub workers: Option<usize>,
    /// Seconds in which nothing moves, neither from the source nor on the device, after which the run fails.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub stall_limit: u64,
    /// Write progress and the result as JSON objects, one per line, to stdout.
    #[arg(long)]
    pub json: bool,
}

/// `bench`
#[derive(Debug, Args)]
pub struct Bench {
    /// Where the image comes from: synthetic (made here, held in memory), or an IMAGE, which needs --trust.
    #[arg(long, value_name = "synthetic|IMAGE", default_value = "synthetic")]
    pub source: String,
    /// Where it goes: null (writes are done at once), a file, or a whole block device. What a file or a device held before is
    /// lost. A file that is not there is made, and removed at the end.
    #[arg(long, value_name = "null|FILE|DEVICE", default_value = "null")]
    pub sink: PathBuf,
    /// Yes, destroy what this file or device holds: the same path as --sink. Without it, the path must be typed.
    #[arg(long, value_name = "PATH")]
    pub yes_destroy: Option<PathBuf>,
    /// Raw bytes of the synthetic image.
    #[arg(long, default_value = "2GiB")]
    pub size: Size,
    /// How many raw bytes of the synthetic image become one, 1 to 16.
    #[arg(long, default_value_t = 3.0)]
    pub ratio: f64,
    #[command(flatten)]
    pub trust: Trust,
    #[command(flatten)]
    pub reach: Reach,
    /// Runs of each stage and of the whole.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=99))]
    pub runs: u8,
    /// The longest that one run of a stage alone may take.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Settings to vary, one at a time, two runs per value: engine, depth, chunk-size, request-size, connections, workers; or
    /// all, or none.
    #[arg(long, value_name = "SETTING,…|all|none", default_value = "none")]
    pub sweep: String,
    /// How to write: auto, uring, direct or buffered.
    #[arg(long, default_value = "auto")]
    pub engine: EngineChoice,
    /// Writes in flight.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(2..=512))]
    pub depth: u16,
    /// Cut chunks into writes of at most so many bytes. Default: whole chunks.
    #[arg(long, value_name = "SIZE")]
    pub largest_write: Option<Size>,
    /// Raw bytes per chunk of the synthetic image: a power of two from 64KiB to 8MiB.
    #[arg(long, default_value = "2MiB")]
    pub chunk_size: Size,
    /// Bytes per request.
    #[arg(long, default_value = "16MiB")]
    pub request_size: Size,
    /// Requests in flight.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub connections: u16,
    /// Threads that verify and decode. Default: one per core.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,
    /// Also compare a map of so many extents, as a target of many regions has, with one: the device alone and the whole, in pairs
    /// of runs that take turns.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..))]
    pub extents: Option<u16>,
    /// Read back what was written, as `write` does unless told not to.
    #[arg(long)]
    pub read_back: bool,
    /// What other tools took for the same job (JSON, as `cargo xtask bench` writes it), to be shown beside.
    #[arg(long, value_name = "FILE")]
    pub peers: Option<PathBuf>,
    /// Write the findings into this directory, which is made.
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Write the findings as one JSON object to stdout.
    #[arg(long)]
    pub json: bool,
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| format!("{text:?} is not NAME=VALUE"))
}

fn parse_time(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339)
        .map_err(|_| format!("{text:?} is not a time like 2026-11-22T12:00:00Z"))
}
