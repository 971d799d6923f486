//! The run spec: read, checked, and everything it names but does not contain (keys, certificates, credentials) read as well.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use envelope::{KeyId, MAX_PEM, PublicKey, Trust};
use imgstream::error::{Error, IoContext, Kind, Result, Retry};
use imgstream::manifest::Policy;
use imgstream::source::{self, Locator, Source, SourceOptions};
use protocol::spec::{HandOver, ImageSpec, IpsecDemand, KeySource, Layout, MAX_SPEC, RunSpec};
use zeroize::Zeroizing;

use crate::control::KeyDesk;
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
    /// Keys (PEM) that this agent trusts. With some, `image.trust` names keys by their ids, and only among these: whoever wrote the spec
    /// can narrow them, and never widen. Without, it names files.
    pub anchors: Vec<PathBuf>,
    /// The addresses to connect to sources from, one after the other: those of the VCN's tunnels. The kernel's choice where there are none.
    pub local_addresses: Vec<IpAddr>,
    /// The least that a spec must demand of the way from its sources, where this machine has a say in that.
    pub least_ipsec: Option<IpsecDemand>,
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
/// [`Kind::Usage`], naming the key of the spec or the file; [`Kind::Target`] when it demands less than this machine does.
pub fn resolve(spec: &RunSpec, files: &Files, has_machine: bool) -> Result<Order> {
    if spec.hand_over != HandOver::None && !has_machine {
        return Err(Error::usage(
            "`hand_over`: this agent runs below an operating system, which it neither halts nor starts anew",
        )
        .with_hint("leave `hand_over` out, or set it to `none`"));
    }
    check_ipsec(spec.ipsec, files.least_ipsec)?;
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
        trust: trust(&spec.image, &files.anchors)?,
        policy: policy(&spec.image)?,
        ipsec,
        key: key(spec, files)?,
    })
}

/// Whoever writes a spec can demand more than the machine does, and never less.
fn check_ipsec(demand: IpsecDemand, least: Option<IpsecDemand>) -> Result<()> {
    let Some(least) = least.filter(|least| demand.is_weaker_than(*least)) else { return Ok(()) };
    let (demand, least) = (demand.name(), least.name());
    Err(Error::target(format!("the run says `ipsec: {demand}`, and this machine takes no less than `{least}`"))
        .with_retry(Retry::Permanent)
        .with_hint(format!("set `ipsec: {least}` in the run at the service, or `orchestrator.ipsec` of the medium")))
}

/// A key that is missing, or that nothing would be done with, is a mistake that must not wait until the disk is touched.
fn key(spec: &RunSpec, files: &Files) -> Result<Option<Key>> {
    let layout = spec.target.layout;
    match (&files.luks_key, layout) {
        (Some(_), Layout::Whole | Layout::Split) if spec.key == KeySource::Service => Err(Error::usage(
            "--luks-key is given (`luks_key` of a medium), but the run says `key: service`: the service has made its key",
        )
        .with_hint("leave the key out here, or create the run with `key: agent`")),
        (None, Layout::Whole | Layout::Split) if spec.key == KeySource::Service => Ok(None),
        (Some(_), Layout::Plain) => Err(Error::usage(
            "--luks-key is given (`luks_key` of a medium), but `target.layout` is `plain`: nothing is encrypted",
        )
        .with_hint("set `target.layout` to `whole` or `split`, or leave the key out")),
        (None, Layout::Whole | Layout::Split) => Err(Error::usage(format!(
            "`target.layout: {}` encrypts, and there is no key",
            layout.name()
        ))
        .with_hint(
            "give the run's key with --luks-key FILE (`luks_key` of a medium); `z-provisioner keygen FILE` makes one",
        )),
        (Some(file), _) => Key::read(file).map(Some),
        (None, Layout::Plain) => Ok(None),
    }
}

/// Where the key is asked for, where the spec says that a service has it.
///
/// # Errors
/// [`Kind::Usage`] where no service is behind this run.
pub fn desk<'a>(spec: &RunSpec, desk: Option<&'a KeyDesk>) -> Result<Option<&'a KeyDesk>> {
    if spec.key == KeySource::Agent {
        return Ok(None);
    }
    desk.map(Some).ok_or_else(|| {
        Error::usage("the spec says `key: service`, and no service has given this run")
            .with_hint("leave `key` out and give the key with --luks-key, or have the service run it")
    })
}

fn trust(image: &ImageSpec, anchors: &[PathBuf]) -> Result<Trust> {
    let keys = if anchors.is_empty() {
        image.trust.iter().map(|path| read_key(path, "`image.trust`")).collect::<Result<_>>()?
    } else {
        let anchors = anchors.iter().map(|path| read_key(path, "a trusted key")).collect::<Result<Vec<_>>>()?;
        image.trust.iter().map(|name| anchor(name, &anchors)).collect::<Result<_>>()?
    };
    Trust::new(keys, image.threshold())
        .map_err(|error| Error::usage(format!("`image.threshold`: {error}")).with_source(error))
}

/// The key among `anchors` that has this id.
fn anchor(name: &Path, anchors: &[PublicKey]) -> Result<PublicKey> {
    let id: Option<KeyId> = name.to_str().and_then(|name| name.parse().ok());
    let id = id.ok_or_else(|| {
        Error::usage(format!("`image.trust`: {} is no key's id (64 hex digits)", name.display()))
            .with_hint("a run from the service names keys by their ids: correct it there")
    })?;
    anchors.iter().find(|key| key.id() == id).cloned().ok_or_else(|| {
        let known: Vec<String> = anchors.iter().map(|key| key.id().to_string()).collect();
        Error::usage(format!("`image.trust`: none of the keys that this agent trusts has the id {id}")).with_hint(
            format!(
                "give that key with --trust (`trust.images` of a medium), if it is to be trusted; these are: {}",
                known.join(", ")
            ),
        )
    })
}

/// Reads a public key that `named` has named.
pub(crate) fn read_key(path: &Path, named: &str) -> Result<PublicKey> {
    let pem = read_file(path, MAX_PEM, "the trusted key")?;
    PublicKey::from_pem(&pem)
        .map_err(|error| Error::usage(format!("{named}: {}: {error}", path.display())).with_source(error))
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

/// Reads a file that somebody has named. It may hold a secret.
pub(crate) fn read_file(path: &Path, limit: usize, what: &str) -> Result<Zeroizing<Vec<u8>>> {
    let bytes = file::read(path, limit)
        .context(Kind::Usage, || format!("reading {what} {}", path.display()))
        .map_err(|error| error.with_hint("check the path, and that this user may read it"))?;
    bytes.ok_or_else(|| {
        Error::usage(format!("{what} {} has more than {limit} bytes", path.display()))
            .with_hint("this is another kind of file: check the path")
    })
}

#[cfg(test)]
mod tests {
    use envelope::SecretKey;

    use super::*;

    fn image(trust: &[&str]) -> ImageSpec {
        let image = serde_json::json!({"name": "x", "sources": ["/x"], "trust": trust});
        serde_json::from_value(image).unwrap()
    }

    #[test]
    fn a_spec_can_demand_more_ipsec_than_the_machine_and_never_less() {
        use IpsecDemand::{NotRequired, Platform, Required};
        let refused = [(NotRequired, Platform), (NotRequired, Required), (Platform, Required)];
        for demand in [NotRequired, Platform, Required] {
            assert!(check_ipsec(demand, None).is_ok());
            for least in [NotRequired, Platform, Required] {
                let checked = check_ipsec(demand, Some(least));
                assert_eq!(checked.is_err(), refused.contains(&(demand, least)), "{demand:?} {least:?}");
            }
        }
        let error = check_ipsec(NotRequired, Some(Required)).unwrap_err();
        assert_eq!((error.kind(), error.retry()), (Kind::Target, Retry::Permanent));
        assert!(error.hint().is_some_and(|hint| hint.contains("`orchestrator.ipsec`")), "{error}");
    }

    #[test]
    fn a_key_that_encrypts_nothing_is_refused() {
        let spec = serde_json::json!({"run": "r", "image": {"name": "x", "sources": ["/x"], "trust": ["k"]}, "target": {"device": "/dev/x"}});
        let spec: RunSpec = serde_json::from_value(spec).unwrap();
        let files = Files { luks_key: Some("key".into()), ..Files::default() };
        let error = key(&spec, &files).unwrap_err();
        assert!(error.kind() == Kind::Usage && error.to_string().contains("nothing is encrypted"), "{error}");
        assert!(key(&spec, &Files::default()).unwrap().is_none());
    }

    #[test]
    fn a_key_of_the_service_needs_one_and_no_other_key() {
        let spec = serde_json::json!({"run": "r", "image": {"name": "x", "sources": ["/x"], "trust": ["k"]},
            "target": {"device": "/dev/x", "layout": "whole"}, "key": "service"});
        let mut spec: RunSpec = serde_json::from_value(spec).unwrap();
        assert!(key(&spec, &Files::default()).unwrap().is_none());
        let files = Files { luks_key: Some("key".into()), ..Files::default() };
        let error = key(&spec, &files).unwrap_err();
        assert!(error.kind() == Kind::Usage && error.to_string().contains("the service has made its key"), "{error}");
        let error = desk(&spec, None).unwrap_err();
        assert!(error.kind() == Kind::Usage && error.to_string().contains("no service"), "{error}");
        spec.key = KeySource::Agent;
        assert!(desk(&spec, None).unwrap().is_none());
        assert!(key(&spec, &Files::default()).unwrap_err().to_string().contains("there is no key"));
    }

    #[test]
    fn with_anchors_a_spec_can_narrow_and_not_widen() {
        let (dir, keys) =
            (tempfile::tempdir().unwrap(), [SecretKey::generate().unwrap(), SecretKey::generate().unwrap()]);
        let anchors: Vec<PathBuf> = ["a", "b"].map(|name| dir.path().join(name)).to_vec();
        for (path, key) in anchors.iter().zip(&keys) {
            std::fs::write(path, key.public().to_pem()).unwrap();
        }
        let [one, other] = keys.map(|key| key.public().id().to_string());
        assert_eq!(trust(&image(&[&one]), &anchors).unwrap().keys().len(), 1);
        assert_eq!(trust(&image(&[&one.to_uppercase(), &other]), &anchors).unwrap().keys().len(), 2);
        let error = trust(&image(&[&one]), &anchors[1..]).unwrap_err();
        assert!(error.kind() == Kind::Usage && error.to_string().ends_with(&format!("has the id {one}")), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains(&other)));
        let path = anchors[0].to_str().unwrap();
        let error = trust(&image(&[path]), &anchors).unwrap_err();
        assert!(error.to_string().contains("is no key's id"), "{error}");
        assert_eq!(trust(&image(&[path]), &[]).unwrap().keys().len(), 1, "a spec in a file names files");
        assert!(trust(&image(&[&one]), &[]).is_err());
    }
}
