//! A LUN that can be reserved: asked directly, changed through `mpathpersist`.

use std::time::Duration;

use imgstream::error::{Error, Kind, Result, Retry};

use crate::target::ask;
use crate::target::multipath::Map;
use crate::target::scsi::persistent::{self, Key, Reservation, WRITE_EXCLUSIVE_REGISTRANTS_ONLY};
use crate::thread::apart;
use crate::tool::Tool;

/// How long the storage may take to say who has reserved a LUN.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is registered and reserved at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    /// One per path of each registrant.
    pub keys: Vec<Key>,
    pub reservation: Option<Reservation>,
}

/// A LUN, for whoever reserves it.
#[derive(Debug, Clone)]
pub struct ReservedLun {
    map: Map,
}

impl ReservedLun {
    /// The LUN behind a map.
    pub fn behind(map: &Map) -> Self {
        ReservedLun { map: map.clone() }
    }

    /// Its map's name.
    pub fn name(&self) -> &str {
        &self.map.name
    }

    /// What is registered and reserved now; `None` where the storage knows no reservations.
    pub(super) async fn state(&self) -> Result<Option<State>> {
        let this = self.clone();
        let does = format!("asks {}", self.name());
        match tokio::time::timeout(PATIENCE, apart(&does, move || this.state_now())).await {
            Ok(state) => state,
            Err(_) => Err(Error::device(format!(
                "{} has not said within {} s who has reserved it",
                self.name(),
                PATIENCE.as_secs()
            ))
            .with_retry(Retry::Temporary)
            .with_hint("it has no live path: multipath -ll")),
        }
    }

    /// As [`ReservedLun::state`], for a thread that may wait.
    pub(super) fn state_now(&self) -> Result<Option<State>> {
        let asking = format!("asking {} who has reserved it", self.name());
        ask::first_answer(&self.map, &asking, |path| {
            Ok(State { keys: persistent::keys(path)?, reservation: persistent::reservation(path)? })
        })
    }

    /// The key that multipathd will register for a path that returns, if any.
    ///
    /// # Errors
    /// `Target` when multipathd does not answer.
    pub(super) async fn key_of_multipathd(&self) -> Result<Option<Key>> {
        let said = Tool::new("multipathd").args(["getprkey", "map", self.name()]).run().await?;
        // `none`, or the key and perhaps a flag behind it.
        let hex = said.split(|c: char| c.is_whitespace() || c == ':').find_map(|word| word.strip_prefix("0x"));
        Ok(hex.and_then(|hex| u64::from_str_radix(hex, 16).ok()).map(Key))
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
        Tool::new("multipathd").args(["unsetprstatus", "map", self.name()]).run().await?;
        Tool::new("multipathd").args(["unsetprkey", "map", self.name()]).run().await.map(drop)
    }

    async fn persist(&self, arguments: &[&str]) -> Result<()> {
        let persist = Tool::new("mpathpersist").kind(Kind::Device).arg("--out").args(arguments);
        persist.arg(self.map.node()).run().await.map(drop).map_err(|error| {
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
