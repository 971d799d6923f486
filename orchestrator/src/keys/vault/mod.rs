//! Keys of disks in the KV engine, version 2, of a HashiCorp Vault or an OpenBao: each is a secret of its own, and what is stored of it with
//! its run is the place.
//!
//! A place is new for each key and written once (`cas: 0`), so that its version is 1; nothing in it is ever changed. To destroy it is to
//! delete its metadata, with which all versions go for good. That it is this service's folder of this server, a marker in it says.

mod http;
mod proof;
mod trouble;

use futures_util::future::{BoxFuture, FutureExt, ready};
use hyper::Method;
use protocol::{RunId, UnlockKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use self::http::Http;
use self::trouble::Trouble;
use crate::config;
use crate::engine::{Keeper, KeeperError};
use crate::error::Result;
use crate::model::Sealed;

/// Which form of place this is.
const FORM: &str = "z-orchestrator-vault-1";
/// Room for a secret as it is written, which must not move while it is.
const ROOM: usize = 1024;
/// The version of what is written once.
const WRITTEN: u32 = 1;
/// Bytes of a name that is drawn.
const DRAWN: usize = 8;

/// Keeps keys in a Vault.
pub struct Vault {
    http: Http,
    mount: String,
    folder: String,
    /// Who we are.
    service: String,
    /// The folder's own name, once it was found to be what it must be.
    keeper: OnceCell<String>,
}

/// What is stored of a key.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    form: String,
    /// The folder's own name.
    keeper: String,
    /// The secret's name in it: the run's, and a part that is drawn.
    name: String,
}

/// A key as it lies there. The run is compared.
#[derive(Serialize, Deserialize)]
struct Key {
    run: RunId,
    key: UnlockKey,
}

/// A secret that is read.
#[derive(Deserialize)]
struct Read<T> {
    data: ReadData<T>,
}

#[derive(Deserialize)]
struct ReadData<T> {
    data: Option<T>,
}

/// A secret that is written.
#[derive(Serialize)]
struct Write<'a, T> {
    options: Options,
    data: &'a T,
}

#[derive(Serialize)]
struct Options {
    cas: u32,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vault({}, {}/{})", self.http.address, self.mount, self.folder)
    }
}

impl Vault {
    /// As it is configured, for the service of this name. A server that is merely away is waited for: runs without keys of the service go on.
    ///
    /// # Errors
    /// It is none that keys could be given to: another engine, another service's folder, a token that may not do what is needed.
    pub async fn open(config: &config::Vault, service: String) -> Result<Self> {
        let vault = Vault {
            http: Http::new(config)?,
            mount: config.mount.clone(),
            folder: config.path.clone(),
            service,
            keeper: OnceCell::new(),
        };
        match vault.keeper().await {
            Ok(keeper) => tracing::info!("keys are kept by {vault:?}, whose name is {keeper}"),
            Err(trouble) if trouble.is_away() => {
                let KeeperError { what, hint, .. } = trouble.keeper_error(&vault.policy());
                tracing::error!(
                    hint,
                    "no key is made or given until {vault:?} answers, and runs without one go on: {what}"
                );
            }
            Err(trouble) => return Err(trouble.error(&vault.policy())),
        }
        Ok(vault)
    }

    /// The policy that the token must have.
    fn policy(&self) -> String {
        let Vault { mount, folder, .. } = self;
        format!(
            "path \"{mount}/data/{folder}/*\" {{ capabilities = [\"create\", \"read\"] }}, path \"{mount}/metadata/{folder}/*\" {{ capabilities = [\"delete\"] }}"
        )
    }

    /// The folder's own name. To find it out takes no longer than a request may: whoever comes meanwhile waits for the same.
    async fn keeper(&self) -> Result<&String, Trouble> {
        self.http.within(self.keeper.get_or_try_init(|| self.prove())).await?
    }

    /// A secret's path as the server shows it.
    fn shown(&self, name: &str) -> String {
        format!("{}/{}/{name}", self.mount, self.folder)
    }

    /// 16 hex digits.
    fn draw(&self) -> Result<String, Trouble> {
        let mut bytes = [0; DRAWN];
        let drawn = SystemRandom::new().fill(&mut bytes);
        drawn.map_err(|_| Trouble::Wrong("the system gives no random numbers".into()))?;
        Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Writes what was never there.
    async fn write(&self, name: &str, data: &impl Serialize) -> Result<(), Trouble> {
        let doing = format!("writing {}", self.shown(name));
        let mut body = Zeroizing::new(Vec::with_capacity(ROOM));
        let written = serde_json::to_writer(&mut *body, &Write { options: Options { cas: 0 }, data });
        written.map_err(|_| Trouble::Wrong("it cannot be written as JSON".into()).while_doing(&doing))?;
        let path = format!("{}/data/{}/{name}", self.mount, self.folder);
        let answer = self.http.ask(Method::POST, &path, body).await.map_err(|trouble| trouble.while_doing(&doing))?;
        match answer.status {
            200 => Ok(()),
            status => Err(Trouble::Wrong(format!("{} has answered {status}", self.http.address)).while_doing(&doing)),
        }
    }

    /// Reads a version, the latest where that is 0; nothing where it is not there any more.
    async fn read(&self, name: &str, version: u32) -> Result<Option<Zeroizing<Vec<u8>>>, Trouble> {
        let path = format!("{}/data/{}/{name}?version={version}", self.mount, self.folder);
        let answer = self.http.ask(Method::GET, &path, Zeroizing::default()).await;
        let answer = answer.map_err(|trouble| trouble.while_doing(&format!("reading {}", self.shown(name))))?;
        Ok(Some(answer.body).filter(|_| answer.status == 200))
    }

    /// Removes all versions and what is known of them, for good.
    async fn remove(&self, name: &str) -> Result<(), Trouble> {
        let doing = format!("destroying {}", self.shown(name));
        let path = format!("{}/metadata/{}/{name}", self.mount, self.folder);
        let answer = self.http.ask(Method::DELETE, &path, Zeroizing::default()).await;
        // It answers so for what is not there as well. That there is no such engine is 404.
        match answer.map_err(|trouble| trouble.while_doing(&doing))?.status {
            204 => Ok(()),
            status => Err(Trouble::Wrong(format!("{} has answered {status}", self.http.address)).while_doing(&doing)),
        }
    }

    /// The place of a run's key, where that is one of this folder.
    async fn known(&self, run: &RunId, sealed: &Sealed) -> Result<String, KeeperError> {
        let keeper = self.keeper().await.map_err(|trouble| self.failed(trouble))?;
        self.name_in(keeper, run, sealed)
    }

    /// The same, of the folder that is called so.
    fn name_in(&self, keeper: &str, run: &RunId, sealed: &Sealed) -> Result<String, KeeperError> {
        let place = serde_json::from_str::<Place>(sealed.text()).ok().filter(|place| place.form == FORM);
        let place = place.filter(|place| is_of(&place.name, run)).ok_or_else(|| moved(run))?;
        if place.keeper == *keeper {
            return Ok(place.name);
        }
        Err(KeeperError {
            what: format!("the key of run {run} is kept by {}, and {self:?} is {keeper}", crate::text::printable(&place.keeper)),
            hint: "give `keys.vault` back as it was when the key was made (address, namespace, mount and path), and start the service again".into(),
            may_pass: false,
        })
    }

    async fn make(&self, run: &RunId, place: Option<&Sealed>) -> Result<Sealed, KeeperError> {
        let place = place.ok_or_else(|| self.failed(Trouble::Wrong(format!("a key for run {run} has no place"))))?;
        let name = self.known(run, place).await?;
        let mut bytes = Zeroizing::new([0; UnlockKey::BYTES]);
        let drawn = SystemRandom::new().fill(&mut bytes[..]);
        drawn.map_err(|_| self.failed(Trouble::Wrong("the system gives no random numbers".into())))?;
        let key = Key { run: run.clone(), key: UnlockKey::of(&bytes) };
        self.write(&name, &key).await.map_err(|trouble| self.failed(trouble))?;
        Ok(place.clone())
    }

    async fn open_key(&self, run: &RunId, sealed: &Sealed) -> Result<UnlockKey, KeeperError> {
        if !sealed.is_elsewhere() {
            return Err(here(run));
        }
        let name = self.known(run, sealed).await?;
        let found = self.read(&name, WRITTEN).await.map_err(|trouble| self.failed(trouble))?;
        let found = found.ok_or_else(|| KeeperError {
            what: format!("the key of run {run} is not at {} any more: somebody else has destroyed it there", self.shown(&name)),
            hint: "undelete it where that is possible (bao kv undelete), or restore the server from a backup; else destroy the key (z-orchestrator run destroy-key) and install anew".into(),
            may_pass: false,
        })?;
        // What is wrong with it is not said: it might be the key.
        let key = serde_json::from_slice::<Read<Key>>(&found).ok().and_then(|read| read.data.data);
        key.filter(|key| key.run == *run).map(|key| key.key).ok_or_else(|| moved(run))
    }

    async fn destroy_key(&self, run: &RunId, sealed: &Sealed) -> Result<(), KeeperError> {
        if !sealed.is_elsewhere() {
            return Ok(());
        }
        let name = self.known(run, sealed).await?;
        let keeper = self.keeper().await.map_err(|trouble| self.failed(trouble))?;
        // Another server would say that nothing is left of it, and be right.
        self.is_still(keeper).await.map_err(|trouble| self.failed(trouble))?;
        self.remove(&name).await.map_err(|trouble| self.failed(trouble))
    }

    fn failed(&self, trouble: Trouble) -> KeeperError {
        trouble.keeper_error(&self.policy())
    }
}

/// Whether a name was drawn for this run.
fn is_of(name: &str, run: &RunId) -> bool {
    let drawn = name.strip_prefix(run.as_str()).and_then(|rest| rest.strip_prefix('.'));
    drawn.is_some_and(|drawn| drawn.len() == 2 * DRAWN && drawn.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// It is in the store, and this service has nothing to open it with.
fn here(run: &RunId) -> KeeperError {
    KeeperError {
        what: format!("the key of run {run} was sealed with a key-encryption key, and this service keeps keys in a Vault"),
        hint: "take `keys.vault` out of the configuration, give the service that key-encryption key back and start it again; or destroy the key (z-orchestrator run destroy-key) and install anew".into(),
        may_pass: false,
    }
}

fn moved(run: &RunId) -> KeeperError {
    KeeperError {
        what: format!("what is stored of the key of run {run}, or the key itself, was changed, or is another run's"),
        hint: "restore the store, or the secret, from a backup of before that; or destroy the key (z-orchestrator run destroy-key) and install anew".into(),
        may_pass: false,
    }
}

impl Keeper for Vault {
    fn place<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, Result<Option<Sealed>, KeeperError>> {
        async move {
            let keeper = self.keeper().await.map_err(|trouble| self.failed(trouble))?.clone();
            let drawn = self.draw().map_err(|trouble| self.failed(trouble))?;
            let place = Place { form: FORM.into(), keeper, name: format!("{run}.{drawn}") };
            let text = serde_json::to_string(&place).map_err(|error| self.failed(Trouble::Wrong(error.to_string())))?;
            Ok(Some(Sealed::at(&text)))
        }
        .boxed()
    }

    fn make<'a>(&'a self, run: &'a RunId, place: Option<&'a Sealed>) -> BoxFuture<'a, Result<Sealed, KeeperError>> {
        self.make(run, place).boxed()
    }

    fn open<'a>(&'a self, run: &'a RunId, sealed: &'a Sealed) -> BoxFuture<'a, Result<UnlockKey, KeeperError>> {
        self.open_key(run, sealed).boxed()
    }

    fn destroy<'a>(&'a self, run: &'a RunId, sealed: &'a Sealed) -> BoxFuture<'a, Result<(), KeeperError>> {
        self.destroy_key(run, sealed).boxed()
    }

    /// Nothing is renewed there. What could not be opened is told, as far as that is known without asking for each key.
    fn renew<'a>(&'a self, run: &'a RunId, sealed: &'a Sealed) -> BoxFuture<'a, Result<Option<Sealed>, KeeperError>> {
        let known = match (sealed.is_elsewhere(), self.keeper.get()) {
            (false, _) => Err(here(run)),
            (true, Some(keeper)) => self.name_in(keeper, run, sealed).map(drop),
            (true, None) => Ok(()),
        };
        ready(known.map(|()| None)).boxed()
    }
}
