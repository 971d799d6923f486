//! The run spec: read, checked, and everything it names but does not contain (keys, certificates, credentials) read as well.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use envelope::{MAX_PEM, PublicKey, Trust};
use imgstream::error::{Error, IoContext, Kind, Result};
use imgstream::manifest::Policy;
use imgstream::source::{self, Locator, Source, SourceOptions};
use protocol::spec::{HandOver, ImageSpec, Layout, MAX_SPEC, RunSpec};
use zeroize::Zeroizing;

use crate::file;
use crate::ipsec::demand::Demand;
use crate::luks::Key;

/// Largest certificate or credentials file that is read, in bytes.
const MAX_FILE: usize = 1 << 20;

/// Files named on the command line, and addresses: what belongs to the machine and not to the run.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// Certificates to trust instead of the machine's.
    pub ca: Option<PathBuf>,
    /// Registry credentials.
    pub registry_auth: Option<PathBuf>,
    /// The key of an encrypted target. It belongs to the run, but nothing secret stands in a spec.
    pub luks_key: Option<PathBuf>,
    /// The addresses to connect to sources from, one after the other: those of the VCN's tunnels. The kernel's choice where there are none.
    pub local_addresses: Vec<IpAddr>,
}

/// What the spec orders, ready to be carried out.
#[derive(Debug)]
pub struct Order {
    /// Where the image is.
    pub sources: Vec<Arc<dyn Source>>,
    /// Whose signatures count, and how many are needed.
    pub trust: Trust,
    /// What the image must be.
    pub policy: Policy,
    /// What protects the way from them.
    pub ipsec: Demand,
    /// The key of the target, where it will be encrypted.
    key: Option<Key>,
}

impl Order {
    /// The order without the key, and the key, which only the target needs.
    pub fn into_parts(mut self) -> (Self, Option<Key>) {
        let key = self.key.take();
        (self, key)
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources: Vec<_> = self.sources.iter().map(|source| source.name()).collect();
        let (needed, keys) = (self.trust.threshold(), self.trust.keys().len());
        write!(f, "{needed} of {keys} trusted keys must have signed; from {}", sources.join(", "))
    }
}

/// Reads the spec.
///
/// # Errors
/// [`Kind::Usage`], naming the file and the key.
pub fn read(path: &Path) -> Result<RunSpec> {
    let bytes = read_file(path, MAX_SPEC, "the run spec")?;
    RunSpec::parse(&bytes).map_err(|error| {
        Error::usage(format!("{} is not a run spec: {error}", path.display()))
            .with_hint("docs/operating.md has an example and explains every key")
    })
}

/// Reads what the spec names and makes its sources. Nothing is connected yet. `has_machine`: whether the agent has one to itself.
///
/// # Errors
/// [`Kind::Usage`], naming the key of the spec or the file.
pub fn resolve(spec: &RunSpec, files: &Files, has_machine: bool) -> Result<Order> {
    if spec.hand_over != HandOver::None && !has_machine {
        return Err(Error::usage(
            "`hand_over`: this agent runs below an operating system, which it neither halts nor starts anew",
        )
        .with_hint("leave `hand_over` out, or set it to `none`"));
    }
    let ipsec = Demand::new(spec.ipsec);
    let options = SourceOptions {
        vet: ipsec.vet(),
        local_addresses: files.local_addresses.clone(),
        ca_pem: read_optional(files.ca.as_deref(), "the certificates of --ca")?.map(|bytes| bytes.to_vec()),
        registry_auth: read_optional(files.registry_auth.as_deref(), "the credentials of --registry-auth")?,
        ..SourceOptions::default()
    };
    let connect = |text: &String| -> Result<Arc<dyn Source>> {
        let locator: Locator = text.parse().map_err(|why| Error::usage(format!("`image.sources`: {why}")))?;
        source::connect(&locator, &options)
    };
    Ok(Order {
        sources: spec.image.sources.iter().map(connect).collect::<Result<_>>()?,
        trust: trust(&spec.image)?,
        policy: policy(&spec.image)?,
        ipsec,
        key: key(spec, files)?,
    })
}

/// A key that is missing, or that nothing would be done with, is a mistake that must not wait until the disk is touched.
fn key(spec: &RunSpec, files: &Files) -> Result<Option<Key>> {
    let layout = spec.target.layout;
    match (&files.luks_key, layout) {
        (Some(_), Layout::Plain) => {
            Err(Error::usage("--luks-key is given, but `target.layout` is `plain`: nothing is encrypted")
                .with_hint("set `target.layout` to `whole` or `split`, or leave the key out"))
        }
        (None, Layout::Whole | Layout::Split) => {
            Err(Error::usage(format!("`target.layout: {}` encrypts, and there is no key", layout.name()))
                .with_hint("give the run's key with --luks-key FILE; `z-provisioner keygen FILE` makes one"))
        }
        (Some(file), _) => Key::read(file).map(Some),
        (None, Layout::Plain) => Ok(None),
    }
}

fn trust(image: &ImageSpec) -> Result<Trust> {
    let read_key = |path: &PathBuf| {
        let pem = read_file(path, MAX_PEM, "the trusted key")?;
        PublicKey::from_pem(&pem)
            .map_err(|error| Error::usage(format!("`image.trust`: {}: {error}", path.display())).with_source(error))
    };
    let keys = image.trust.iter().map(read_key).collect::<Result<_>>()?;
    Trust::new(keys, image.threshold)
        .map_err(|error| Error::usage(format!("`image.threshold`: {error}")).with_source(error))
}

fn policy(image: &ImageSpec) -> Result<Policy> {
    let parse = |digest: &protocol::Digest| {
        digest.as_str().parse().map_err(|error| Error::usage(format!("`image.digest`: {error}")))
    };
    Ok(Policy {
        name: Some(image.name.clone()),
        architecture: Some(image.architecture.clone()),
        digest: image.digest.as_ref().map(parse).transpose()?,
        min_version: image.min_version,
    })
}

fn read_optional(path: Option<&Path>, what: &str) -> Result<Option<Zeroizing<Vec<u8>>>> {
    path.map(|path| read_file(path, MAX_FILE, what)).transpose()
}

fn read_file(path: &Path, limit: usize, what: &str) -> Result<Zeroizing<Vec<u8>>> {
    let bytes = file::read(path, limit)
        .context(Kind::Usage, || format!("reading {what} {}", path.display()))
        .map_err(|error| error.with_hint("check the path, and that this user may read it"))?;
    bytes.ok_or_else(|| {
        Error::usage(format!("{what} {} has more than {limit} bytes", path.display()))
            .with_hint("this is another kind of file: check the path")
    })
}
