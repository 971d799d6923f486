//! `z-provisioner release-reservation`: what a run that nobody ended has left on a LUN.

use std::fmt;

use imgstream::error::{Error, Result};
use protocol::RunId;

use super::key::Whose;
use super::key::{distinct, is_ours, run_key, whose};
use super::lun::{ReservedLun, State};
use crate::target::scsi::persistent::Key;

/// Which registrations are to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// None: only look.
    None,
    /// Those of a run, whatever their epoch.
    Run(RunId),
    /// These.
    Keys(Vec<Key>),
    /// All.
    All,
}

/// What is, or was, on a LUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftovers {
    /// The map.
    pub lun: String,
    /// Keys and how many paths each is registered on.
    pub registered: Vec<(Key, usize)>,
    /// Whose the reservation is.
    pub reserved_by: Option<Key>,
    /// The keys that were removed.
    pub removed: Vec<Key>,
}

/// Looks at `lun` and removes the registrations that `which` names, and the reservation where it is one of theirs.
///
/// # Errors
/// `Target` when the storage knows no reservations, or a key that is to go is not there; `Device` when it cannot be done.
pub async fn release(lun: &ReservedLun, which: &Which) -> Result<Leftovers> {
    let state =
        lun.state().await?.ok_or_else(|| Error::target(format!("{} knows no persistent reservations", lun.name())))?;
    let victims = victims(&state, which, lun.name())?;
    if !victims.is_empty() {
        refuse_our_hosts_own(lun, &victims).await?;
        remove(lun, &victims).await?;
        confirm_gone(lun, &victims).await?;
    }
    let keys = &state.keys;
    let count = |key: Key| (key, keys.iter().filter(|one| **one == key).count());
    Ok(Leftovers {
        lun: lun.name().to_owned(),
        registered: distinct(keys).into_iter().map(count).collect(),
        reserved_by: state.reservation.map(|reservation| reservation.key),
        removed: victims,
    })
}

fn victims(state: &State, which: &Which, name: &str) -> Result<Vec<Key>> {
    let mut there = state.keys.clone();
    there.extend(state.reservation.map(|reservation| reservation.key).filter(|key| key.0 != 0));
    let there = distinct(&there);
    match which {
        Which::None => Ok(Vec::new()),
        Which::All => Ok(there),
        Which::Run(run) => {
            let own = run_key(run, 0);
            Ok(there.into_iter().filter(|key| whose(*key, own) != Whose::Foreign).collect())
        }
        Which::Keys(keys) => match keys.iter().find(|key| !there.contains(key)) {
            Some(missing) => Err(Error::target(format!("{name} shows no key {missing}"))
                .with_hint("without --key, --run and --all the command lists what is there")),
            None => Ok(keys.clone()),
        },
    }
}

/// To remove others' keys these paths register one of their own, which takes the place of what they had registered.
async fn refuse_our_hosts_own(lun: &ReservedLun, victims: &[Key]) -> Result<()> {
    match lun.key_of_multipathd().await? {
        Some(own) if !victims.contains(&own) => Err(Error::target(format!(
            "this machine itself is registered with {}, by the key {own}, which would go as well",
            lun.name()
        ))
        .with_hint("do this on another machine, or when whoever registered it here has ended; or name that key too")),
        _ => Ok(()),
    }
}

async fn confirm_gone(lun: &ReservedLun, victims: &[Key]) -> Result<()> {
    let left = lun.state().await?.map(|state| state.keys).unwrap_or_default();
    match victims.iter().find(|victim| left.contains(victim)) {
        Some(victim) => Err(Error::target(format!("{victim} was removed from {} and is there again", lun.name()))
            .with_hint("whoever registered it is at work: end it first")),
        None => Ok(()),
    }
}

/// Registers for a moment, because only who is registered may remove others.
async fn remove(lun: &ReservedLun, victims: &[Key]) -> Result<()> {
    // No run has the epoch 0.
    let name = RunId::try_from("release-reservation".to_owned()).map_err(|error| Error::usage(error.to_string()))?;
    let own = run_key(&name, 0);
    lun.register(own).await?;
    let removed = async {
        for victim in victims {
            // These paths' own registrations have been replaced already; the reservation follows the path that holds it.
            let there = lun.state().await?.is_some_and(|state| state.keys.contains(victim));
            if there {
                lun.preempt(own, *victim).await?;
            }
        }
        if lun.state().await?.is_some_and(|state| state.reservation.is_some_and(|held| held.key == own)) {
            lun.release(own).await?;
        }
        Ok(())
    };
    let removed = removed.await;
    let unregistered = lun.unregister(own).await;
    removed.and(unregistered)
}

impl Leftovers {
    /// For machines.
    pub fn to_json(&self) -> serde_json::Value {
        let registered: Vec<_> = self
            .registered
            .iter()
            .map(|(key, paths)| serde_json::json!({"key": key.to_string(), "paths": paths, "ours": is_ours(*key)}))
            .collect();
        serde_json::json!({
            "event": "reservation",
            "lun": self.lun,
            "registered": registered,
            "reserved_by": self.reserved_by.map(|key| key.to_string()),
            "removed": self.removed.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reserved_by {
            Some(key) => writeln!(f, "{} was reserved by {key}", self.lun)?,
            None => writeln!(f, "{} was not reserved", self.lun)?,
        }
        for (key, paths) in &self.registered {
            let ours = if is_ours(*key) { ", a run of z-provisioner" } else { "" };
            writeln!(f, "  registered {key} on {paths} paths{ours}")?;
        }
        match &self.removed[..] {
            [] => write!(f, "  removed    nothing"),
            removed => {
                write!(f, "  removed    {}", removed.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::scsi::persistent::Reservation;

    fn state(keys: &[Key]) -> State {
        let reservation = keys.first().map(|key| Reservation { key: *key, kind: 5 });
        State { keys: keys.to_vec(), reservation }
    }

    #[test]
    fn only_what_was_named_goes() {
        let run = |name: &str| RunId::try_from(name.to_owned()).unwrap();
        let (one, two, other) = (run_key(&run("a"), 1), run_key(&run("a"), 2), Key(0xabc));
        let state = state(&[one, two, other]);
        let victims = |which| victims(&state, &which, "m");
        assert_eq!(victims(Which::None).unwrap(), []);
        assert_eq!(victims(Which::Run(run("a"))).unwrap(), distinct(&[one, two]));
        assert_eq!(victims(Which::Run(run("b"))).unwrap(), []);
        assert_eq!(victims(Which::Keys(vec![other])).unwrap(), [other]);
        assert!(victims(Which::Keys(vec![Key(1)])).is_err());
        assert_eq!(victims(Which::All).unwrap().len(), 3);
    }

    #[test]
    fn the_list_names_keys_paths_and_whose() {
        let left = Leftovers {
            lun: "m".into(),
            registered: vec![(Key(0xabc), 2)],
            reserved_by: Some(Key(0xabc)),
            removed: Vec::new(),
        };
        let text = left.to_string();
        assert!(
            text.contains("reserved by 0x0000000000000abc") && text.contains("on 2 paths") && text.ends_with("nothing")
        );
    }
}
