//! What the types alone do not say. Each error names the key, and what would be right.

use std::ops::RangeInclusive;
use std::path::Path;

use protocol::Label;
use rustls_pki_types::ServerName;
use url::Url;

use super::{Config, EVERY_FABRIC, HOST_DEVICES, Limits};
use crate::error::{Error, Result};

const MAX_LIST: usize = 64;
/// Longest name in a certificate, in bytes.
const MAX_NAME: usize = 256;
const LIMIT: RangeInclusive<u64> = 1..=100_000;
const MAX_FABRICS: usize = 1024;

pub(super) fn holds(rule: bool, broken: impl FnOnce() -> String, remedy: &str) -> Result<()> {
    if rule { Ok(()) } else { Err(Error::usage(broken()).with_hint(remedy)) }
}

pub(super) fn within(key: &str, value: u64, bounds: RangeInclusive<u64>) -> Result<()> {
    let (least, most) = (bounds.start(), bounds.end());
    holds(
        bounds.contains(&value),
        || format!("`{key}` is {value}"),
        &format!("give `{key}` a value from {least} to {most}"),
    )
}

fn at_most(key: &str, count: usize) -> Result<()> {
    holds(count <= MAX_LIST, || format!("`{key}` has {count} entries"), &format!("give `{key}` at most {MAX_LIST}"))
}

pub(super) fn is_path(key: &str, path: Option<&Path>) -> Result<()> {
    let empty = path.is_some_and(|path| path.as_os_str().is_empty());
    holds(!empty, || format!("`{key}` is empty"), "name a file, or leave the key out")
}

impl Config {
    /// Checks what the types alone do not say.
    ///
    /// # Errors
    /// The first value out of its bounds, or the first two that contradict each other.
    pub fn check(&self) -> Result<()> {
        holds(
            !self.listen.is_empty(),
            || "`listen` is empty".into(),
            "name an address and a port, such as 127.0.0.1:7443",
        )?;
        at_most("listen", self.listen.len())?;
        let twice = self
            .listen
            .iter()
            .enumerate()
            .find(|(at, address)| self.listen[..*at].contains(address) && address.port() != 0);
        holds(twice.is_none(), || "`listen` names one address twice".into(), "name each address and port once")?;
        at_most("names", self.names.len())?;
        for name in &self.names {
            holds(
                ServerName::try_from(name.as_str()).is_ok(),
                || format!("`names`: {name:?} is neither a DNS name nor an address"),
                "give names such as z.example.com or 192.0.2.7, without a port",
            )?;
        }
        is_path("data", self.data.as_deref())?;
        self.check_store()?;
        if let Some(tls) = &self.tls {
            is_path("tls.certificate", Some(&tls.certificate))?;
            is_path("tls.key", Some(&tls.key))?;
            holds(
                self.names.is_empty(),
                || "`names` is given with `tls`".into(),
                "leave `names` out: the given certificate has the names that it has",
            )?;
        }
        self.check_clients()?;
        self.check_times()?;
        self.limits.check()?;
        self.check_process()?;
        self.check_kubernetes()?;
        self.check_keys()?;
        if let Some(days) = self.retention.days {
            within("retention.days", days.into(), 1..=36_500)?;
        }
        is_path("policy", self.policy.as_deref())
    }

    fn check_keys(&self) -> Result<()> {
        let keys = &self.keys;
        is_path("keys.file", keys.file.as_deref())?;
        at_most("keys.command", keys.command.len())?;
        at_most("keys.previous", keys.previous.len())?;
        keys.previous.iter().try_for_each(|file| is_path("keys.previous", Some(file)))?;
        let both = keys.file.is_some() && !keys.command.is_empty();
        holds(!both, || "`keys.file` and `keys.command` are both given".into(), "give one of them")?;
        holds(
            keys.command.first().is_none_or(|program| !program.is_empty()),
            || "`keys.command` names no program".into(),
            "name the program first, then its arguments",
        )?;
        let tainted = keys.command.iter().any(|argument| argument.contains('\0'));
        holds(!tainted, || "`keys.command` has an argument with a zero byte".into(), "remove it")?;
        let Some(vault) = &keys.vault else { return Ok(()) };
        let is_alone = keys.file.is_none() && keys.command.is_empty() && keys.previous.is_empty();
        let remedy = "give one of them: a Vault keeps keys without a key-encryption key";
        holds(is_alone, || "`keys.vault` is given with `keys.file`, `keys.command` or `keys.previous`".into(), remedy)?;
        vault.check()
    }

    fn check_clients(&self) -> Result<()> {
        let clients = &self.clients;
        is_path("clients.authority", clients.authority.as_deref())?;
        for (key, names) in [("clients.operators", &clients.operators), ("clients.viewers", &clients.viewers)] {
            at_most(key, names.len())?;
            holds(
                names.is_empty() || clients.authority.is_some(),
                || format!("`{key}` is given without `clients.authority`"),
                "name the authority whose certificates have these names; certificates of the service's own say themselves what they may",
            )?;
            for name in names {
                let is_name = (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
                holds(
                    is_name && !name.contains('*'),
                    || format!("`{key}`: {name:?} is no DNS name and no URI of one certificate"),
                    "give the whole name, such as ci.example.com or spiffe://example.com/ci",
                )?;
            }
        }
        Ok(())
    }

    fn check_store(&self) -> Result<()> {
        is_path("store_file", self.store_file.as_deref())?;
        let (store, is_usual) = (self.store.reveal(), self.store == super::StoreUrl::default());
        holds(
            self.store_file.is_none() || is_usual,
            || "`store` and `store_file` are both given".into(),
            "give one of them",
        )?;
        if !is_usual {
            check_url("store", store)?;
        }
        Ok(())
    }

    fn check_times(&self) -> Result<()> {
        let (lease, retry, patience) = (&self.lease, &self.retry, &self.patience);
        within("lease.seconds", lease.seconds, 5..=3600)?;
        within("lease.renew_after", lease.renew_after, 1..=lease.seconds / 2)?;
        within("lease.grace", lease.grace, 0..=3600)?;
        within("lease.certificate", lease.certificate, 2 * lease.seconds..=2_592_000)?;
        within("retry.first_seconds", retry.first_seconds, 1..=3600)?;
        within("retry.most_seconds", retry.most_seconds, retry.first_seconds..=86_400)?;
        within("patience.enrol", patience.enrol, 5..=3600)?;
        within("patience.cancel", patience.cancel, 5..=86_400)?;
        within("report_within", self.report_within, 1..=3600)
    }

    fn check_kubernetes(&self) -> Result<()> {
        let of = &self.kubernetes;
        let text = |key: &str, text: Option<&String>| {
            holds(
                text.is_none_or(|text| !text.trim().is_empty()),
                || format!("`kubernetes.{key}` is empty"),
                "leave it out, or fill it in",
            )
        };
        text("image", of.image.as_ref())?;
        text("namespace", of.namespace.as_ref())?;
        text("priority_class", of.priority_class.as_ref())?;
        text("devices", Some(&of.devices))?;
        text("seccomp", Some(&of.seccomp))?;
        let is_resource =
            of.devices == HOST_DEVICES || of.devices.split('/').filter(|part| !part.is_empty()).count() == 2;
        holds(
            is_resource,
            || format!("`kubernetes.devices` is {:?}", of.devices),
            "give `host`, or the resource of a device plugin, such as example.com/zfcp",
        )?;
        if let Some(url) = &of.url {
            let is_url = url.starts_with("https://") && Url::parse(url).is_ok_and(|url| url.path() == "/");
            holds(
                is_url,
                || format!("`kubernetes.url` is {url:?}"),
                "give https://NAME:PORT, with one of the service's names",
            )?;
        }
        for (key, list) in [("pull_secrets", of.pull_secrets.len()), ("trust", of.trust.len()), ("args", of.args.len())]
        {
            at_most(&format!("kubernetes.{key}"), list)?;
        }
        at_most("kubernetes.tolerations", of.tolerations.len())?;
        is_path("kubernetes.kubeconfig", of.kubeconfig.as_deref())?;
        is_path("kubernetes.ca", of.ca.as_deref())?;
        is_path("kubernetes.registry_auth", of.registry_auth.as_deref())?;
        of.trust.iter().try_for_each(|file| is_path("kubernetes.trust", Some(file)))?;
        within("kubernetes.memory_mib", of.memory_mib.into(), 128..=65_536)?;
        within("kubernetes.cpu_milli", of.cpu_milli.into(), 10..=64_000)?;
        within("kubernetes.run_within", of.run_within.into(), 60..=604_800)?;
        within("kubernetes.keep", of.keep.into(), 0..=604_800)?;
        let count = of.fabrics.len();
        holds(count <= MAX_FABRICS, || format!("`kubernetes.fabrics` names {count} fabrics"), "name at most 1024")
    }

    fn check_process(&self) -> Result<()> {
        let process = &self.process;
        at_most("process.trust", process.trust.len())?;
        at_most("process.args", process.args.len())?;
        is_path("process.agent", process.agent.as_deref())?;
        is_path("process.ca", process.ca.as_deref())?;
        is_path("process.registry_auth", process.registry_auth.as_deref())?;
        process.trust.iter().try_for_each(|file| is_path("process.trust", Some(file)))?;
        let tainted = process.args.iter().any(|argument| argument.contains('\0'));
        holds(!tainted, || "`process.args` has an argument with a zero byte".into(), "remove it")
    }
}

impl Limits {
    fn check(&self) -> Result<()> {
        within("limits.runs", self.runs.into(), LIMIT)?;
        within("limits.per_source", self.per_source.into(), LIMIT)?;
        within("limits.watchers", self.watchers.into(), LIMIT)?;
        let count = self.per_fabric.len();
        holds(count <= MAX_FABRICS, || format!("`limits.per_fabric` names {count} fabrics"), "name at most 1024")?;
        self.per_fabric.iter().try_for_each(|(fabric, limit)| {
            holds(
                fabric == EVERY_FABRIC || Label::try_from(fabric.clone()).is_ok(),
                || format!("`limits.per_fabric`: {fabric:?} is no fabric"),
                "name fabrics as runs do, or `*` for all others",
            )?;
            within(&format!("limits.per_fabric.{fabric}"), (*limit).into(), LIMIT)
        })
    }
}

/// Checks the URL of a database, which is not shown: it may hold a password.
pub(super) fn check_url(key: &str, text: &str) -> Result<()> {
    let is_right = text.starts_with("postgres://") || text.starts_with("postgresql://");
    let remedy = "give `sqlite`, or a URL such as postgres://user@host/database";
    holds(is_right, || format!("`{key}` is neither `sqlite` nor a postgres:// URL"), remedy)?;
    Url::parse(text).map(drop).map_err(|error| Error::usage(format!("`{key}`: {error}")).with_hint(remedy))
}
