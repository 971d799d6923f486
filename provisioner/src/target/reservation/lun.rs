//! A LUN that can be reserved: asked directly, changed through `mpathpersist`.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use imgstream::error::{Error, IoContext, Kind, Result, Retry};

use crate::target::multipath::Map;
use crate::target::scsi::ScsiError;
use crate::target::scsi::persistent::{self, Key, Registrations, Reservation, WRITE_EXCLUSIVE_REGISTRANTS_ONLY};
use crate::tool::Tool;

/// How long the storage may take to say who has reserved a LUN.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is registered and reserved at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub registrations: Registrations,
    pub reservation: Option<Reservation>,
}

/// A LUN, for whoever reserves it.
#[derive(Debug, Clone)]
pub struct ReservedLun {
    name: String,
    node: PathBuf,
    device: Arc<File>,
}

impl ReservedLun {
    /// The LUN behind a map.
    ///
    /// # Errors
    /// `Target` when the map cannot be opened.
    pub fn open(map: &Map) -> Result<Self> {
        let name = map.name.clone();
        let device = File::open(map.block.path()).context(Kind::Target, || format!("opening multipath map {name}"))?;
        Ok(ReservedLun { name, node: map.node(), device: Arc::new(device) })
    }

    /// Its map's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is registered and reserved now; `None` where the storage knows no reservations.
    pub(super) async fn state(&self) -> Result<Option<State>> {
        let this = self.clone();
        let asked = tokio::task::spawn_blocking(move || this.state_now());
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(state)) => state,
            Ok(Err(error)) => Err(Error::device(format!("the thread that asks {} died: {error}", self.name))),
            Err(_) => Err(Error::device(format!(
                "{} has not said within {} s who has reserved it",
                self.name,
                PATIENCE.as_secs()
            ))
            .with_retry(Retry::Temporary)
            .with_hint("it has no live path: multipath -ll")),
        }
    }

    /// As [`ReservedLun::state`], for a thread that may wait.
    pub(super) fn state_now(&self) -> Result<Option<State>> {
        let state = || -> Result<State, ScsiError> {
            let registrations = persistent::registrations(&self.device)?;
            Ok(State { registrations, reservation: persistent::reservation(&self.device)? })
        };
        match state() {
            Ok(state) => Ok(Some(state)),
            Err(error) if error.is_unsupported() => Ok(None),
            Err(error) => Err(Error::device(format!("asking {} who has reserved it: {error}", self.name))
                .with_source(error)
                .with_retry(Retry::Temporary)
                .with_hint("see its paths: multipath -ll")),
        }
    }

    /// Registers `key` with every path, in place of whatever these paths had registered before.
    pub(super) async fn register(&self, key: Key) -> Result<()> {
        self.persist(&["--register-ignore", &sark(key)]).await
    }

    /// Takes back the registration of `key` from every path.
    pub(super) async fn unregister(&self, key: Key) -> Result<()> {
        self.persist(&["--register", &rk(key), &sark(Key(0))]).await
    }

    pub(super) async fn reserve(&self, key: Key) -> Result<()> {
        self.persist(&["--reserve", &rk(key), &kind(WRITE_EXCLUSIVE_REGISTRANTS_ONLY)]).await
    }

    pub(super) async fn release(&self, key: Key) -> Result<()> {
        self.persist(&["--release", &rk(key), &kind(WRITE_EXCLUSIVE_REGISTRANTS_ONLY)]).await
    }

    /// Removes all registrations and the reservation, those of paths that are gone included.
    pub(super) async fn clear(&self, key: Key) -> Result<()> {
        self.persist(&["--clear", &rk(key)]).await
    }

    /// Removes `victim` and ends the commands it has sent. Where it holds the reservation, `key` holds it afterwards.
    pub(super) async fn preempt(&self, key: Key, victim: Key) -> Result<()> {
        self.persist(&["--preempt-abort", &rk(key), &sark(victim), &kind(WRITE_EXCLUSIVE_REGISTRANTS_ONLY)]).await
    }

    /// Makes multipathd forget the key of a map, so that it does not offer it for a path that returns. Says nothing to the LUN.
    pub(super) async fn forget(&self) -> Result<()> {
        Tool::new("multipathd").args(["unsetprstatus", "map", &self.name]).run().await?;
        Tool::new("multipathd").args(["unsetprkey", "map", &self.name]).run().await.map(drop)
    }

    async fn persist(&self, arguments: &[&str]) -> Result<()> {
        let persist = Tool::new("mpathpersist").kind(Kind::Device).arg("--out").args(arguments);
        persist.arg(&self.node).run().await.map(drop).map_err(|error| {
            error.with_hint(
                "multipath.conf must say `reservation_key file`, multipathd must run, and the storage must allow it",
            )
        })
    }
}

fn rk(key: Key) -> String {
    format!("--param-rk={key}")
}

fn sark(key: Key) -> String {
    format!("--param-sark={key}")
}

fn kind(kind: u8) -> String {
    format!("--prout-type={kind}")
}
