//! Where things are: what the configuration says, and what it leaves to the machine.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use protocol::Label;
use rustls_pki_types::ServerName;
use url::Url;

use super::{Config, EVERY_FABRIC, FABRIC_LIMIT, Limits, Process, check::check_url};
use crate::error::{Context, Error, Result};
use crate::identity::{CA, bounded};
use crate::model::schedule;
use crate::policy::{POLICY, Policy};
use crate::store::Location;

const NAME: &str = "z-orchestrator";
const AGENT: &str = "z-provisioner";
const SQLITE: &str = "runs.sqlite";
const MAX_URL: usize = 4096;

/// A database's URL as it may be shown: a password may also stand among its parameters, so those are left out.
pub(super) fn without_password(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else {
        return if text == "sqlite" { text.to_owned() } else { "…".to_owned() };
    };
    if url.password().is_some() && url.set_password(Some("…")).is_err() {
        return "…".to_owned();
    }
    url.set_query(None);
    url.set_fragment(None);
    url.to_string().replace("%E2%80%A6", "…")
}

/// The data folder where none is named: the service's, and where its client looks for tokens and certificates.
///
/// # Errors
/// The environment does not say where this user's state is.
pub fn default_data() -> Result<PathBuf> {
    data_of(Uid::effective().is_root(), std::env::var_os("XDG_STATE_HOME"), std::env::var_os("HOME"))
}

fn data_of(is_root: bool, state: Option<OsString>, home: Option<OsString>) -> Result<PathBuf> {
    if is_root {
        return Ok(Path::new("/var/lib").join(NAME));
    }
    let absolute = |path: Option<OsString>| path.map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute(state).or_else(|| absolute(home).map(|home| home.join(".local/state")));
    state.map(|state| state.join(NAME)).ok_or_else(|| {
        Error::usage("no data folder: neither XDG_STATE_HOME nor HOME names a folder").with_hint("name one with --data")
    })
}

impl Config {
    /// The data folder.
    ///
    /// # Errors
    /// None is configured, and the environment does not say where this user's state is.
    pub fn data(&self) -> Result<PathBuf> {
        self.data.clone().map_or_else(default_data, Ok)
    }

    /// All names and addresses of the service, each once.
    ///
    /// # Errors
    /// One is neither a DNS name nor an address.
    pub fn all_names(&self) -> Result<Vec<ServerName<'static>>> {
        let always = ["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string(), Ipv6Addr::LOCALHOST.to_string()];
        let concrete = self.listen.iter().map(|address| address.ip()).filter(|address| !address.is_unspecified());
        let texts = always.into_iter().chain(concrete.map(|address: IpAddr| address.to_string()));
        let mut names: Vec<ServerName<'static>> = Vec::new();
        for text in texts.chain(self.names.iter().cloned()) {
            let name = ServerName::try_from(text.clone())
                .map_err(|_| Error::usage(format!("`names`: {text:?} is neither a DNS name nor an address")))?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Where runs are kept.
    ///
    /// # Errors
    /// `store_file` cannot be read or holds no `postgres://` URL.
    pub fn location(&self, data: &Path) -> Result<Location> {
        let parse =
            |key: &str, text: &str| Location::parse(text).map_err(|error| Error::usage(format!("`{key}`: {error}")));
        if let Some(path) = &self.store_file {
            let reading = || format!("reading `store_file` {}", path.display());
            let text = std::fs::File::open(path).and_then(|file| bounded(file, MAX_URL)).doing(reading)?;
            let text = text.unwrap_or_default();
            let url = std::str::from_utf8(&text).unwrap_or_default().trim();
            check_url("store_file", url)?;
            return parse("store_file", url);
        }
        match self.store.reveal() {
            "sqlite" => Ok(Location::File(data.join(SQLITE))),
            url => parse("store", url),
        }
    }

    /// The policy for images. Whoever names its file wants it to be there.
    pub fn policy(&self, data: &Path) -> Policy {
        Policy::new(self.policy.clone().unwrap_or_else(|| data.join(POLICY)), self.policy.is_some())
    }

    /// The limits as the scheduler takes them.
    pub fn schedule_limits(&self) -> schedule::Limits {
        let Limits { runs, per_source, per_fabric, watchers: _ } = &self.limits;
        let named = per_fabric.iter().filter_map(|(name, limit)| Some((Label::try_from(name.clone()).ok()?, *limit)));
        let others = per_fabric.get(EVERY_FABRIC).copied().unwrap_or(FABRIC_LIMIT);
        schedule::Limits { runs: *runs, per_source: *per_source, fabrics: named.collect(), per_fabric: others }
    }

    /// The certificates by which agents that the service starts know it. `None`: those that the machine trusts.
    pub fn process_ca(&self, data: &Path) -> Option<PathBuf> {
        self.process.ca.clone().or_else(|| self.tls.is_none().then(|| data.join(CA)))
    }
}

impl Process {
    /// The agent's program.
    ///
    /// # Errors
    /// It is not where it should be.
    pub fn agent(&self) -> Result<PathBuf> {
        let own = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.to_owned()));
        self.agent_in(own.as_deref(), std::env::var_os("PATH"))
    }

    pub(super) fn agent_in(&self, own: Option<&Path>, path: Option<OsString>) -> Result<PathBuf> {
        let name = self.agent.as_deref().unwrap_or(Path::new(AGENT));
        let is_name = name.components().count() == 1 && !name.is_absolute();
        let beside = own.filter(|_| self.agent.is_none()).map(Path::to_owned);
        let folders = beside.into_iter().chain(path.iter().flat_map(std::env::split_paths));
        let found = if is_name {
            folders.map(|folder| folder.join(name)).find(|program| is_program(program))
        } else {
            Some(name.to_owned()).filter(|program| is_program(program))
        };
        found.ok_or_else(|| {
            let whereabouts = if is_name { " beside this program and in $PATH" } else { "" };
            Error::usage(format!("there is no program {}{whereabouts}", name.display()))
                .with_hint("name the agent with `process.agent`, or let other launchers start the runs")
        })
    }
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_folder_is_the_machines_for_root_and_the_users_for_others() {
        let data = |root, state: Option<&str>, home: Option<&str>| {
            data_of(root, state.map(OsString::from), home.map(OsString::from)).map(|path| path.display().to_string())
        };
        assert_eq!(data(true, Some("/s"), Some("/h")).unwrap(), "/var/lib/z-orchestrator");
        assert_eq!(data(false, Some("/s"), Some("/h")).unwrap(), "/s/z-orchestrator");
        assert_eq!(data(false, Some("relative"), Some("/h")).unwrap(), "/h/.local/state/z-orchestrator");
        assert!(data(false, None, None).unwrap_err().hint().is_some_and(|hint| hint.contains("--data")));
    }

    #[test]
    fn a_password_is_not_shown() {
        let shown = [
            "postgres://z:secret@db/runs",
            "postgres://db/runs?user=z&password=secret",
            "postgres://z:sec ret@:99999999/secret",
        ]
        .map(without_password);
        assert_eq!(shown, ["postgres://z:…@db/runs", "postgres://db/runs", "…"]);
    }

    #[test]
    fn the_agent_is_found_beside_the_service_then_in_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let (own, path) = (folder.path().join("own"), folder.path().join("path"));
        let place = |at: &Path, name: &str, mode| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::create_dir_all(at).unwrap();
            std::fs::write(at.join(name), "").unwrap();
            std::fs::set_permissions(at.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let find = |agent: Option<&Path>| {
            let process = Process { agent: agent.map(Path::to_owned), ..Process::default() };
            process.agent_in(Some(&own), Some(path.clone().into_os_string()))
        };
        place(&own, AGENT, 0o644);
        assert!(find(None).unwrap_err().to_string().contains("there is no program z-provisioner"));
        place(&path, AGENT, 0o755);
        assert_eq!(find(None).unwrap(), path.join(AGENT));
        place(&own, AGENT, 0o755);
        assert_eq!(find(None).unwrap(), own.join(AGENT));
        place(&path, "other", 0o755);
        assert_eq!(find(Some(Path::new("other"))).unwrap(), path.join("other"));
        assert_eq!(find(Some(&own.join(AGENT))).unwrap(), own.join(AGENT));
        find(Some(&own.join("none"))).unwrap_err();
    }
}
