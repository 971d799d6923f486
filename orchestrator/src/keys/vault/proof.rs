//! What is found out before a key is given to the server: that it is a KV engine of version 2, that this folder of it is this service's, and
//! that the token may write there, read, and destroy.

use hyper::Method;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Vault;
use super::trouble::Trouble;

/// The name of the secret that says whose folder it is.
const MARKER: &str = "service";
/// The name of the secret with which is tried what the token may do. Keys have a dot in their names.
const PROBE: &str = "probe";

/// An operator may have written a marker anew.
const LATEST: u32 = 0;

/// Whose folder it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    /// The service's, by the digest of its ticket key.
    service: String,
    /// The folder's own name, drawn when it was first used: it stands in what is stored of each key, so that a key is never looked for, or
    /// taken for destroyed, in another folder or another server.
    keeper: String,
}

/// The answer on a mount.
#[derive(Deserialize)]
struct Mount {
    data: MountData,
}

#[derive(Deserialize)]
struct MountData {
    path: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    options: Option<MountOptions>,
}

#[derive(Deserialize)]
struct MountOptions {
    #[serde(default)]
    version: Option<String>,
}

impl Vault {
    /// Finds all of it out. Returns the folder's own name.
    pub(super) async fn prove(&self) -> Result<String, Trouble> {
        self.prove_mount().await?;
        let keeper = self.claim().await?;
        self.prove_token().await?;
        Ok(keeper)
    }

    async fn prove_mount(&self) -> Result<(), Trouble> {
        let mount = &self.mount;
        let doing = format!("looking at the secrets engine `{mount}`");
        let path = format!("sys/internal/ui/mounts/{mount}");
        let answer = self.http.ask(Method::GET, &path, Zeroizing::default()).await.map_err(|trouble| match trouble {
            // The server does not tell these apart.
            Trouble::Denied(what) => Trouble::Denied(format!(
                "{what}: it is not mounted, the policy says nothing of it, or the token is not valid"
            )),
            trouble => trouble,
        });
        let answer = answer.map_err(|trouble| trouble.while_doing(&doing))?;
        let found = serde_json::from_slice::<Mount>(&answer.body).map(|found| found.data);
        let found =
            found.map_err(|_| Trouble::Wrong("what was answered is not understood".into()).while_doing(&doing))?;
        let version = found.options.and_then(|options| options.version).unwrap_or_else(|| "1".into());
        let is_right = found.path.trim_end_matches('/') == mount && found.kind == "kv" && version == "2";
        if is_right {
            return Ok(());
        }
        let (path, kind) = (crate::text::printable(&found.path), crate::text::printable(&found.kind));
        Err(Trouble::Other {
            what: format!("{doing}: `{path}` is an engine `{kind}` of version {}, and must be `kv` of version 2", crate::text::printable(&version)),
            hint: "name the mount of such an engine with `keys.vault.mount`; `bao secrets enable -path=NAME -version=2 kv` makes one".into(),
        })
    }

    /// Takes the folder, where it is nobody's.
    async fn claim(&self) -> Result<String, Trouble> {
        let mut found = self.marker().await?;
        if found.is_none() {
            let marker = Marker { service: self.service.clone(), keeper: self.draw()? };
            // Somebody else may be faster. Who was is read.
            let written = self.write(MARKER, &marker).await;
            found = self.marker().await?;
            if found.is_none() {
                written?;
            }
        }
        let marker =
            found.ok_or_else(|| Trouble::Wrong(format!("{} was written, and is not there", self.shown(MARKER))))?;
        if marker.service == self.service {
            return Ok(marker.keeper);
        }
        let (path, ours) = (self.shown(MARKER), &self.service);
        let (theirs, keeper) = (crate::text::printable(&marker.service), crate::text::printable(&marker.keeper));
        Err(Trouble::Other {
            what: format!("{path} says that this folder belongs to the service {theirs}, and this is {ours}"),
            hint: format!(
                "give each service a folder of its own with `keys.vault.path`. Where this service has lost its data folder and goes on with the store of that one: bao kv put -mount={} {}/{MARKER} service={ours} keeper={keeper}",
                self.mount, self.folder
            ),
        })
    }

    async fn marker(&self) -> Result<Option<Marker>, Trouble> {
        let Some(found) = self.read(MARKER, LATEST).await? else { return Ok(None) };
        let marker = serde_json::from_slice::<super::Read<Marker>>(&found).ok().and_then(|read| read.data.data);
        marker.map(Some).ok_or_else(|| Trouble::Other {
            what: format!("{} is none of this program's", self.shown(MARKER)),
            hint: "give the service a folder of its own with `keys.vault.path`".into(),
        })
    }

    /// That this is still the folder of this name, and not another server at the same address.
    pub(super) async fn is_still(&self, keeper: &str) -> Result<(), Trouble> {
        match self.marker().await? {
            Some(marker) if marker.keeper == keeper => Ok(()),
            _ => Err(Trouble::Wrong(format!(
                "{} is not there any more, or another one: this is another server",
                self.shown(MARKER)
            ))),
        }
    }

    /// Writes, reads and destroys a secret that means nothing.
    async fn prove_token(&self) -> Result<(), Trouble> {
        // A service that was killed may have left one, which could not be written again.
        self.remove(PROBE).await?;
        self.write(PROBE, &serde_json::json!({"probe": "of what the token may do"})).await?;
        let was_there = self.read(PROBE, LATEST).await?.is_some();
        self.remove(PROBE).await?;
        let is_there = self.read(PROBE, LATEST).await?.is_some();
        if was_there && !is_there {
            return Ok(());
        }
        let what = if was_there { "was destroyed, and is there" } else { "was written, and is not there" };
        Err(Trouble::Wrong(format!("{} {what}", self.shown(PROBE))))
    }
}
