//! `write` and `unpack`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use imgstream::error::{Error, IoContext, Kind, Result};
use imgstream::open::Image;
use imgstream::pipeline::{self, Report, WriteOptions};
use imgstream::progress::{Phase, Progress};
use imgstream::sink::{Device, EngineChoice, EngineKind, OpenOptions, Target, open_patiently};
use imgstream::size::Size;
use imgstream::source::Locator;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::args;
use super::display::{self, Display};
use super::image;

/// Writes an image to a target.
pub async fn write(arguments: args::Write, cancel: &CancellationToken) -> Result<()> {
    let (target, locators) = arguments.images_and_target.split_last().ok_or_else(|| Error::usage("no target"))?;
    let locators =
        locators.iter().map(|text| text.parse()).collect::<Result<Vec<Locator>, _>>().map_err(Error::usage)?;
    let target = PathBuf::from(target);
    let image = image::open(&locators, &arguments.trust, &arguments.wanted, &arguments.reach, cancel).await?;
    let buffered = arguments.engine == EngineChoice::Only(EngineKind::Buffered);
    let device = open_device(&target, &image, buffered, cancel).await?;
    let defaults = WriteOptions::default();
    let options = WriteOptions {
        engine: arguments.engine,
        read_back: !arguments.no_read_back,
        read_back_last: arguments.read_back_last,
        resume: arguments.resume,
        tail: arguments.tail,
        workers: arguments.workers.unwrap_or(defaults.workers),
        connections: arguments.connections.into(),
        request_size: arguments.request_size.0,
        depth: arguments.depth.into(),
        stall_limit: Duration::from_secs(arguments.stall_limit),
        ..defaults
    };
    let report = stream(image.clone(), device, &options, arguments.json, cancel).await?;
    if arguments.json {
        display::json_line(&json!({"event": "summary", "image": image.digest(), "target": target, "report": report}));
    } else {
        summary(&image, &target, &report);
    }
    Ok(())
}

async fn open_device(path: &Path, image: &Image, buffered: bool, cancel: &CancellationToken) -> Result<Device> {
    let descriptor = image.descriptor();
    let options = OpenOptions { buffered, create: true, raw_size: descriptor.raw_size };
    let device = open_patiently(path, options, cancel).await?;
    device.check_fits(descriptor.raw_size, descriptor.sector_size)?;
    Ok(device)
}

async fn stream(
    image: Image,
    device: Device,
    options: &WriteOptions,
    json: bool,
    cancel: &CancellationToken,
) -> Result<Report> {
    let progress = Arc::new(Progress::default());
    let drawn = Display::start(display::data_path(Arc::clone(&progress)), json.then_some(display::progress_line));
    let target = Target::single(device, image.descriptor().raw_size);
    let report = pipeline::write(image, target, options, Arc::clone(&progress), cancel).await;
    drop(drawn);
    let reached = progress.snapshot();
    report.inspect_err(|_| {
        if progress.given_up.load(Relaxed) {
            say!("target: uncertain: it did not answer, and may still be written");
        } else if !reached.has_touched_target() {
            say!("target: not touched");
        } else if reached.has_entered(Phase::Invalidating) {
            say!(
                "target: holds part of the image and does not boot; write it again, with --resume to keep what is there"
            );
        } else {
            say!("target: holds the image and boots, but what lies beyond it is not cleared; run this again");
        }
    })
}

fn summary(image: &Image, target: &Path, report: &Report) {
    let descriptor = image.descriptor();
    say!("image      {} version {} for {}", descriptor.name, descriptor.image_version, descriptor.architecture);
    say!("digest     {}", image.digest());
    image.signers().iter().for_each(|signer| say!("signed by  {signer}"));
    say!("target     {}", target.display());
    say!("engine     {}", report.engine);
    if let Some(fallback) = &report.fallback {
        say!("           {fallback}");
    }
    let limit = report.limited_by.map(|stage| format!(", limited by {}", stage.name())).unwrap_or_default();
    if let Some(kept) = report.kept_bytes {
        say!(
            "kept       {} that were there already, compared in {:.1} s",
            Size(kept),
            report.compare_seconds.unwrap_or(0.0)
        );
    }
    say!(
        "wrote      {} of data and {} of zeros{}{limit}",
        Size(report.data_bytes),
        Size(report.zero_bytes),
        pace(report.data_bytes, report.write_seconds)
    );
    say!("fetched    {} ({} requests repeated)", Size(report.fetched_bytes), report.retries);
    if report.sources.len() > 1 {
        report.sources.iter().for_each(|share| say!("           {} from {}", Size(share.bytes), share.source));
    }
    match report.read_back_bytes {
        Some(bytes) => {
            say!("proven     {} read back and right{}", Size(bytes), pace(bytes, report.read_back_seconds));
        }
        None => say!("NOT PROVEN read-back was turned off"),
    }
    if let Some(tail) = &report.tail {
        let proven = Size(tail.proven_bytes);
        say!(
            "tail       {} beyond the image: {}; {proven} of them read back as zeros",
            Size(tail.bytes),
            tail.how.name()
        );
    }
    if let Some(gpt) = &report.gpt {
        say!("GPT        backup at the device's end: {gpt}");
    }
    if let Some(partitions) = &report.partitions {
        say!("partitions {partitions}");
    }
}

/// How long it took and how fast that was; nothing where there was nothing to do.
fn pace(bytes: u64, seconds: f64) -> String {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let per_second = (bytes as f64 / seconds.max(0.001)) as u64;
    if seconds > 0.0 { format!(" in {seconds:.1} s ({}/s)", Size(per_second)) } else { String::new() }
}

/// Unpacks an image into a new file, which gets its name only when it is whole.
pub async fn unpack(arguments: args::Unpack, cancel: &CancellationToken) -> Result<()> {
    let raw = &arguments.raw;
    if std::fs::symlink_metadata(raw).is_ok() {
        return Err(Error::usage(format!("{} exists; a raw image is never overwritten", raw.display()))
            .with_hint("choose another name; to write onto a device, use `imgstream write`"));
    }
    let image = image::open_one(&arguments.from, cancel).await?;
    let name = raw.file_name().ok_or_else(|| Error::usage(format!("{} is no name for a file", raw.display())))?;
    let path = raw.with_file_name(imgstream::pack::partial_name(&name.to_string_lossy())?);
    let device = open_device(&path, &image, false, cancel).await?;
    let partial = Partial(path);
    let options = WriteOptions { read_back: false, ..WriteOptions::default() };
    let report = stream(image.clone(), device, &options, false, cancel).await?;
    nix::fcntl::renameat2(
        nix::fcntl::AT_FDCWD,
        &partial.0,
        nix::fcntl::AT_FDCWD,
        raw,
        nix::fcntl::RenameFlags::RENAME_NOREPLACE,
    )
    .context(Kind::Device, || format!("renaming {} to {}", partial.0.display(), raw.display()))?;
    say!("unpacked {} version {} into {}", image.descriptor().name, image.descriptor().image_version, raw.display());
    say!("raw      {} in {:.1} s", Size(report.raw_bytes), report.total_seconds);
    Ok(())
}

/// A file that goes away unless it was renamed.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
