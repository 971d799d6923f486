//! `inspect`, `verify` and `serve`; and how an image is opened from options, which `write` and `unpack` share.

use std::sync::Arc;
use std::time::Duration;

use envelope::Role;
use imgstream::abort::unless_cancelled;
use imgstream::digest::Digest;
use imgstream::error::{Error, IoContext, Kind, Result};
use imgstream::manifest::Descriptor;
use imgstream::open::{self, Image};
use imgstream::progress::Progress;
use imgstream::serve::{self, ServeOptions};
use imgstream::size::Size;
use imgstream::source::{self, Locator, Source, SourceOptions};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::display::{self, Display};
use super::{args, keys};

/// Connects the sources.
pub fn sources(locators: &[Locator], reach: &args::Reach) -> Result<Vec<Arc<dyn Source>>> {
    let options = SourceOptions {
        timeout: Duration::from_secs(reach.timeout),
        ca_pem: reach.ca.as_deref().map(keys::read).transpose()?,
        registry_auth: reach.registry_auth.as_deref().map(keys::read).transpose()?.map(Zeroizing::new),
        ..SourceOptions::default()
    };
    locators.iter().map(|locator| source::connect(locator, &options)).collect()
}

/// Opens a signed image, unless cancelled first.
pub async fn open(
    locators: &[Locator],
    trust: &args::Trust,
    wanted: &args::Wanted,
    reach: &args::Reach,
    cancel: &CancellationToken,
) -> Result<Image> {
    let (trust, policy) = (keys::trust(trust)?, wanted.policy());
    let opening = Image::open(sources(locators, reach)?, &trust, &policy);
    unless_cancelled(cancel, "opening the image", opening).await
}

/// Opens the one image of a command that takes one.
pub async fn open_one(from: &args::OneImage, cancel: &CancellationToken) -> Result<Image> {
    open(std::slice::from_ref(&from.image), &from.trust, &from.wanted, &from.reach, cancel).await
}

/// Shows an image.
pub async fn inspect(arguments: args::Inspect, cancel: &CancellationToken) -> Result<()> {
    let from = &arguments.from;
    if !from.trust.trust.is_empty() {
        let image = open_one(from, cancel).await?;
        let signers: Vec<_> = image.signers().iter().map(ToString::to_string).collect();
        show(image.descriptor(), image.digest(), true, &signers, arguments.json);
        return Ok(());
    }
    let sources = sources(std::slice::from_ref(&from.image), &from.reach)?;
    let policy = from.wanted.policy();
    let fetching = open::fetch_envelope(&sources[0], &policy);
    let bytes = unless_cancelled(cancel, "opening the image", fetching).await?;
    let unverified = envelope::peek(&bytes, Role::Image)?;
    let payload = unverified.payload_unverified();
    let descriptor = Descriptor::decode(payload)
        .map_err(|error| Error::image(format!("the descriptor is refused: {error}")).with_source(error))?;
    let claimed: Vec<_> = unverified.claimed_key_ids().iter().map(|id| id.escape_debug().to_string()).collect();
    show(&descriptor, Digest::of(payload), false, &claimed, arguments.json);
    Ok(())
}

fn show(descriptor: &Descriptor, digest: Digest, verified: bool, signers: &[String], as_json: bool) {
    if as_json {
        display::json_line(
            &json!({"digest": digest, "verified": verified, "key_ids": signers, "descriptor": descriptor}),
        );
        return;
    }
    let state = if verified { "signature verified" } else { "NOT VERIFIED: give --trust KEY.pub" };
    print!("{} version {} for {}  ({state})", descriptor.name, descriptor.image_version, descriptor.architecture);
    print!("digest    {digest}");
    let word = if verified { "signed by" } else { "claimed  " };
    signers.iter().for_each(|signer| print!("{word} {signer}"));
    print!("created   {}", descriptor.created);
    if let Some(expires) = descriptor.expires {
        print!("expires   {expires}");
    }
    print!(
        "raw       {} ({} bytes), sectors of {}",
        Size(descriptor.raw_size),
        descriptor.raw_size,
        descriptor.sector_size
    );
    print!(
        "packed    {} in {} spans, chunks of {}",
        Size(descriptor.data_bytes()),
        descriptor.spans.len(),
        Size(descriptor.chunk_size.into())
    );
    match &descriptor.boot {
        Some(boot) => print!("boots by  {} (boot map at byte {})", boot.method, boot.map_offset),
        None => print!("boots by  no boot record found"),
    }
    print!("regions");
    for region in &descriptor.regions {
        let luks = region.luks.as_ref().map_or_else(String::new, |luks| {
            format!("  to be encrypted: LUKS {}, header {}", luks.uuid, Size(luks.header_bytes))
        });
        print!("  {:24} {:>12} at {}{luks}", region.name, Size(region.length).to_string(), region.offset);
    }
}

/// Checks an image.
pub async fn verify(arguments: args::Verify, cancel: &CancellationToken) -> Result<()> {
    let image = open_one(&arguments.from, cancel).await?;
    let (descriptor, digest) = (Arc::clone(image.descriptor()), image.digest());
    let progress = Arc::new(Progress::default());
    let looked_at = Arc::clone(&progress);
    let look = move || {
        let now = looked_at.snapshot();
        display::Shown { what: "verifying", done: now.fetched, total: now.planned_fetch, limit: None }
    };
    let drawn = Display::start(look, arguments.json.then_some(display::progress_line));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let found = imgstream::verify::verify(image, workers, progress, cancel).await?;
    drop(drawn);
    if arguments.json {
        display::json_line(&json!({"event": "summary", "digest": digest, "verified": found}));
    } else {
        let name = &descriptor.name;
        say!(
            "{name} version {} is whole: {} chunks, {} in {} data blobs",
            descriptor.image_version,
            found.chunks,
            Size(found.data_bytes),
            found.data_blobs
        );
        say!("digest {digest}");
    }
    Ok(())
}

/// Serves a directory until it is told to stop.
pub async fn serve(arguments: args::Serve, cancel: CancellationToken) -> Result<()> {
    if !arguments.image.join("index.json").is_file() {
        return Err(Error::usage(format!(
            "{} is not an image's directory: it has no index.json",
            arguments.image.display()
        )));
    }
    let tls = match (&arguments.tls_cert, &arguments.tls_key) {
        (Some(certificate), Some(key)) => {
            let key = Zeroizing::new(keys::read(key)?);
            Some(
                serve::tls_config(&keys::read(certificate)?, &key)
                    .context(Kind::Usage, || "the TLS certificate and key".into())?,
            )
        }
        _ => None,
    };
    let listen = arguments.listen;
    let listener =
        tokio::net::TcpListener::bind(listen).await.context(Kind::Usage, || format!("listening on {listen}"))?;
    let address = listener.local_addr().context(Kind::Usage, || format!("listening on {listen}"))?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    say!("listening on {scheme}://{address}/");
    serve::serve(arguments.image, listener, ServeOptions { tls }, cancel)
        .await
        .map_err(|error| Error::source_failed(format!("serving: {error}")).with_source(error))
}
