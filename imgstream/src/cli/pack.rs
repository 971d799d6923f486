//! `pack` and `sign`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use imgstream::error::{Error, Result};
use imgstream::manifest::Luks;
use imgstream::manifest::layout::Choice;
use imgstream::pack::{self, EncryptRegion, PackOptions, PackProgress, Packed};
use imgstream::size::Size;
use serde_json::json;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::display::{self, Display, Shown};
use super::{args, keys};

/// Packs and signs.
pub async fn pack(arguments: args::Pack, cancel: CancellationToken) -> Result<()> {
    let key = keys::secret_key(&arguments.key)?;
    let options = options(&arguments)?;
    let progress = Arc::new(PackProgress::default());
    let looked_at = Arc::clone(&progress);
    let drawn = Display::start(
        move || Shown {
            what: "packing",
            done: looked_at.packed.load(Relaxed),
            total: looked_at.total.load(Relaxed),
            limit: None,
        },
        arguments.json.then_some(display::progress_line),
    );
    let start = std::time::Instant::now();
    let packed = tokio::task::spawn_blocking({
        let (raw, image, progress) = (arguments.raw.clone(), arguments.image.clone(), Arc::clone(&progress));
        move || pack::pack(&raw, &image, &options, &key, &progress, &cancel)
    });
    let packed = packed.await.map_err(|error| Error::device(format!("the packing thread died: {error}")))??;
    drop(drawn);
    summary(&arguments, &packed, &progress, start.elapsed().as_secs_f64());
    Ok(())
}

fn options(arguments: &args::Pack) -> Result<PackOptions> {
    let whole = |size: Size, what: &str| {
        u32::try_from(size.0).map_err(|_| Error::usage(format!("a {what} of {size} is too large")))
    };
    let now = OffsetDateTime::now_utc();
    Ok(PackOptions {
        name: arguments.name.clone(),
        image_version: arguments.image_version,
        architecture: arguments.arch.clone(),
        created: arguments.created.unwrap_or(now).replace_nanosecond(0).unwrap_or(now),
        expires: arguments.expires,
        chunk_size: whole(arguments.chunk_size, "chunk")?,
        span_size: arguments.span_size.0,
        level: arguments.level,
        holes: arguments.holes,
        sector_size: arguments.sector_size.map(|size| whole(size, "sector")).transpose()?,
        encrypt: encrypt(arguments)?,
        luks_header: arguments.luks_header.0,
        workers: arguments.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
    })
}

/// The regions to encrypt, each with the UUID that is given for it.
fn encrypt(arguments: &args::Pack) -> Result<Vec<EncryptRegion>> {
    let mut regions: Vec<EncryptRegion> = Vec::new();
    for (name, partition) in &arguments.encrypt_region {
        regions.push(EncryptRegion { name: name.clone(), partition: partition.clone(), uuid: None });
    }
    for (name, uuid) in &arguments.luks_uuid {
        let Some(region) = regions.iter_mut().find(|region| region.name == *name) else {
            return Err(Error::usage(format!("--luks-uuid {name}={uuid}: no --encrypt-region is called {name:?}")));
        };
        if region.uuid.replace(uuid.to_ascii_lowercase()).is_some() {
            return Err(Error::usage(format!("--luks-uuid names {name:?} twice")));
        }
    }
    Ok(regions)
}

fn summary(arguments: &args::Pack, packed: &Packed, progress: &PackProgress, seconds: f64) {
    let Packed { descriptor, digest } = packed;
    let stored: u64 = descriptor.data_bytes();
    if arguments.json {
        display::json_line(&json!({
            "event": "summary", "image": arguments.image, "digest": digest, "name": descriptor.name,
            "image_version": descriptor.image_version, "architecture": descriptor.architecture,
            "raw_size": descriptor.raw_size, "regions": descriptor.regions,
            "frame_bytes": progress.compressed.load(Relaxed), "data_bytes": stored, "seconds": seconds,
        }));
        return;
    }
    say!("packed   {} version {} for {}", descriptor.name, descriptor.image_version, descriptor.architecture);
    say!("into     {}", arguments.image.display());
    say!("digest   {digest}");
    say!(
        "raw      {} in chunks of {}, sectors of {}",
        Size(descriptor.raw_size),
        Size(descriptor.chunk_size.into()),
        descriptor.sector_size
    );
    say!("packed   {} in {seconds:.1} s", Size(stored));
    let regions: Vec<_> =
        descriptor.regions.iter().map(|region| format!("{} {}", region.name, Size(region.length))).collect();
    say!("regions  {}", regions.join(", "));
    for region in &descriptor.regions {
        if let Some(Luks { uuid, header_bytes }) = &region.luks {
            say!("encrypt  {} as LUKS {uuid}, its header {}", region.name, Size(*header_bytes));
        }
    }
    say!("boots    {}", descriptor.boot.as_ref().map_or("no boot record found", |boot| &boot.method));
}

/// Adds a signature.
pub fn sign(arguments: &args::Sign) -> Result<()> {
    let key = keys::secret_key(&arguments.key)?;
    let choice = Choice { name: arguments.name.clone(), architecture: arguments.arch.clone() };
    let digest = pack::add_signature(&arguments.image, &choice, &key)?;
    say!("signed   {}", arguments.image.display());
    say!("key id   {}", key.public().id());
    say!("digest   {digest} (unchanged)");
    Ok(())
}
