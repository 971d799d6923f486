//! Putting a configuration into a medium: `z-provisioner config`. The files it names come with it, under names of their own, and the
//! digests of all of them, in an archive that the kernel unpacks after the medium's own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use envelope::PublicKey;
use imgstream::digest::Digest;
use imgstream::error::{Error, IoContext, Kind, Result};
use initramfs::Archive;
use iso::slot::Places;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{Config, DIGESTS, FILE, FOLDER, load, written};
use crate::control::read_token;
use crate::file;
use crate::ipsec::credentials::Credentials;
use crate::luks::Key;

/// Largest file that is taken in, in bytes.
const MAX_FILE: usize = 128 << 10;

/// An archive with a configuration. It holds secrets.
#[derive(Debug)]
pub struct Packed {
    /// The bytes.
    pub archive: Zeroizing<Vec<u8>>,
    /// What it says.
    pub config: Config,
}

/// Reads a configuration and what it names, and packs both. Paths in it count from where it lies. `made` is now, unless it says.
///
/// # Errors
/// [`Kind::Usage`], naming the key or the file.
pub fn pack(path: &Path) -> Result<Packed> {
    let text = read(path)?;
    let value: Value = serde_json::from_slice(&text).map_err(|error| {
        Error::usage(format!("{} is not JSON: {error}", path.display())).with_hint("docs/operating.md has an example")
    })?;
    let mut dated = Zeroizing::new(text.to_vec());
    if value.get("made").is_none()
        && let Some(brace) = dated.iter().position(|byte| *byte == b'{')
    {
        // Into the text: a value would have lost keys that are there twice, which are mistakes.
        let comma = if value.as_object().is_some_and(|keys| keys.is_empty()) { "" } else { "," };
        dated.splice(
            brace + 1..=brace,
            format!("\"made\": \"{}\"{comma}", written(OffsetDateTime::now_utc())).into_bytes(),
        );
    }
    let mut config = load::parse(&dated).map_err(|error| {
        Error::usage(format!("{}: {error}", path.display())).with_hint("docs/operating.md explains every key")
    })?;
    let beside = path.parent().unwrap_or(Path::new(""));
    config.files().into_iter().for_each(|file| *file = beside.join(&*file));
    check_files(&config)?;
    let mut taken: BTreeMap<PathBuf, (String, Zeroizing<Vec<u8>>)> = BTreeMap::new();
    for file in config.files() {
        let source = file.clone();
        let number = taken.len();
        if !taken.contains_key(&source) {
            let base = source.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            taken.insert(source.clone(), (format!("files/{number:02}-{base}"), read(&source)?));
        }
        if let Some((name, _)) = taken.get(&source) {
            *file = Path::new(FOLDER).join(name);
        }
    }
    let mut files: Vec<(String, Zeroizing<Vec<u8>>)> = taken.into_values().collect();
    let text = serde_json::to_vec_pretty(&config).map_err(|error| Error::usage(format!("writing JSON: {error}")))?;
    files.push((FILE.to_owned(), Zeroizing::new(text)));
    Ok(Packed { archive: archive(files)?, config })
}

/// That each file is what it is named for: a machine that finds out is far away.
fn check_files(config: &Config) -> Result<()> {
    let public = |path: &PathBuf| -> Result<()> {
        let wrong = |why: &dyn std::fmt::Display| Error::usage(format!("`trust`: {}: {why}", path.display()));
        PublicKey::from_pem(&read(path)?)
            .map(drop)
            .map_err(|error| wrong(&error).with_hint("a PEM file with a public key, such as `imgstream keygen` makes"))
    };
    config.trust.images.iter().chain(&config.trust.tickets).try_for_each(public)?;
    for path in config.trust.orchestrator_ca.iter().chain(&config.ca) {
        let found = CertificateDer::pem_slice_iter(&read(path)?).filter(std::result::Result::is_ok).count();
        if found == 0 {
            return Err(Error::usage(format!("{} holds no certificate", path.display()))
                .with_hint("a PEM file with one or more"));
        }
    }
    config.luks_key.as_deref().map_or(Ok(()), |path| Key::read(path).map(drop))?;
    if let Some(service) = &config.orchestrator {
        read_token(&service.token, "`orchestrator.token`")?;
    }
    config.ipsec.as_ref().map_or(Ok(()), |ipsec| Credentials::read(&ipsec.auth).map(drop))
}

/// In memory, since it may hold keys.
fn archive(mut files: Vec<(String, Zeroizing<Vec<u8>>)>) -> Result<Zeroizing<Vec<u8>>> {
    files.sort_by(|(one, _), (other, _)| one.cmp(other));
    let digests: String = files.iter().map(|(name, bytes)| format!("{}  {name}\n", Digest::of(bytes).hex())).collect();
    files.push((DIGESTS.to_owned(), Zeroizing::new(digests.into_bytes())));
    let mut bytes = Zeroizing::new(Vec::with_capacity(iso::slot::SIZE));
    let made = (|| {
        let mut archive = Archive::to(&mut *bytes);
        for (name, content) in &files {
            archive.file(&format!("{}/{name}", FOLDER.trim_start_matches('/')), 0o600, content)?;
        }
        archive.finish()
    })();
    made.context(Kind::Usage, || "packing the configuration".into())?;
    Ok(bytes)
}

/// Puts it into a medium: an ISO, a memory image, or a folder with all the forms that `cargo xtask iso` makes. A file system that is
/// handed to a kernel by itself gets it appended.
///
/// # Errors
/// [`Kind::Usage`] when it is no medium; [`Kind::Device`] when it cannot be written.
pub fn put(packed: &Packed, medium: &Path, parameters: Option<&str>) -> Result<Vec<PathBuf>> {
    let media: Vec<PathBuf> = if medium.is_dir() {
        let forms = [iso::ISO, iso::IMAGE].map(|name| medium.join(name));
        forms.into_iter().filter(|form| form.exists()).collect()
    } else {
        vec![medium.to_owned()]
    };
    if media.is_empty() {
        return Err(Error::usage(format!("there is no medium in {}", medium.display()))
            .with_hint("make one with `cargo xtask iso`, or name the file"));
    }
    for file in &media {
        let doing = || format!("putting the configuration into {}", file.display());
        let mut opened = OpenOptions::new().read(true).write(true).open(file).context(Kind::Usage, doing)?;
        let places = Places::find(&mut opened).context(Kind::Usage, doing)?;
        let told = places.parameters(&mut opened).context(Kind::Usage, doing)?;
        // Those of an earlier configuration go.
        let mut all: Vec<&str> = told.split_whitespace().filter(|word| !word.starts_with("zprov.")).collect();
        all.extend(parameters.iter().flat_map(|parameters| parameters.split_whitespace()));
        let mut once = BTreeSet::new();
        all.retain(|word| once.insert(*word));
        places.set_parameters(&mut opened, &all.join(" ")).context(Kind::Usage, doing)?;
        // It is a secret from here on.
        opened.set_permissions(Permissions::from_mode(0o600)).context(Kind::Device, doing)?;
        places.fill(&mut opened, &packed.archive).context(Kind::Device, doing)?;
        opened.sync_all().context(Kind::Device, doing)?;
    }
    Ok(media)
}

/// Writes the archive to a file of its own, which only its owner may read: to be appended to a file system.
///
/// # Errors
/// [`Kind::Usage`] when the file is there already or cannot be made.
pub fn write_new(packed: &Packed, path: &Path) -> Result<()> {
    use std::io::Write;
    let doing = || format!("writing {}", path.display());
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.context(Kind::Usage, doing)?;
    file.write_all(&packed.archive).and_then(|()| file.sync_all()).context(Kind::Device, doing)
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let bytes = file::read(path, MAX_FILE).context(Kind::Usage, || format!("reading {}", path.display()))?;
    bytes.ok_or_else(|| {
        Error::usage(format!("{} has more than {MAX_FILE} bytes", path.display()))
            .with_hint("it is another kind of file: check the path")
    })
}
