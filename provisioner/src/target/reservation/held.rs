//! Taking the reservation, knowing at any moment whether it is still ours, and giving it back.

use imgstream::error::{Error, Result, Retry};
use protocol::RunId;
use protocol::spec::Reservation as Policy;

use super::key::{Whose, distinct, is_ours, run_key, whose};
use super::lun::{ReservedLun, State};
use crate::target::scsi::persistent::{Key, WRITE_EXCLUSIVE_REGISTRANTS_ONLY};

/// A reservation that is ours, or was.
#[derive(Debug, Clone)]
pub struct Held {
    lun: ReservedLun,
    key: Key,
    /// Keys that were preempted, and whose.
    pub preempted: Vec<Key>,
}

/// What became of the wish for a reservation.
#[derive(Debug, Clone)]
pub enum Taken {
    /// It is held.
    Held(Held),
    /// The storage knows no reservations, and the run does without.
    Unsupported,
}

impl Taken {
    /// The reservation, where there is one.
    pub fn held(&self) -> Option<Held> {
        match self {
            Taken::Held(held) => Some(held.clone()),
            Taken::Unsupported => None,
        }
    }
}

/// What stands on a LUN against, or for, the holder of `own`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Findings {
    earlier: Vec<Key>,
    foreign: Vec<Key>,
}

impl Findings {
    /// # Errors
    /// `Target` when this epoch is not the newest one, or has been on the LUN already.
    fn of(state: &State, own: Key, name: &str) -> Result<Self> {
        let mut keys = state.keys.clone();
        keys.extend(state.reservation.map(|reservation| reservation.key).filter(|key| key.0 != 0));
        let mut findings = Findings::default();
        for key in distinct(&keys) {
            match whose(key, own) {
                Whose::Earlier => findings.earlier.push(key),
                Whose::Foreign => findings.foreign.push(key),
                Whose::Later(epoch) => {
                    return Err(Error::target(format!(
                        "{name} is reserved by a later attempt at this run: epoch {epoch}, key {key}"
                    ))
                    .with_hint("this attempt has been given up on: let it end; only the newest epoch may write"));
                }
                Whose::Own => {
                    return Err(Error::target(format!(
                        "an attempt with this epoch has reserved {name} already: key {key}"
                    ))
                    .with_hint(
                        "it is running, or ended without giving it back: set `epoch` one higher, which shuts it out",
                    ));
                }
            }
        }
        Ok(findings)
    }
}

/// Reserves `lun` for an epoch of a run. Earlier epochs are preempted, their commands aborted; others' keys only with `wipe`.
/// `paths` is how many live paths must be registered.
///
/// # Errors
/// `Target` when somebody else has it, a later epoch does, or the storage cannot and the policy demands it; `Device` when it
/// cannot be done.
pub async fn take(lun: &ReservedLun, run: &RunId, epoch: u32, policy: Policy, wipe: bool, paths: u32) -> Result<Taken> {
    let own = run_key(run, epoch);
    let Some(state) = lun.state().await? else {
        return match policy {
            Policy::Require => Err(Error::target(format!("{} knows no persistent reservations", lun.name()))
                .with_hint("`target.reservation: prefer` does without; then nothing keeps a run that was given up on from writing")),
            Policy::Prefer | Policy::Off => Ok(Taken::Unsupported),
        };
    };
    let Findings { earlier, foreign } = Findings::of(&state, own, lun.name())?;
    if !foreign.is_empty() && !wipe {
        return Err(held_by_others(lun.name(), &foreign));
    }
    let victims: Vec<Key> = earlier.into_iter().chain(foreign).collect();
    let held = Held { lun: lun.clone(), key: own, preempted: victims.clone() };
    let taken = async {
        lun.register(own).await?;
        held.shut_out(&victims).await?;
        held.confirm(paths).await
    };
    match taken.await {
        Ok(()) => Ok(Taken::Held(held)),
        // Also what was registered on some paths, before one failed.
        Err(error) => match held.take_back().await {
            Ok(()) => Err(error),
            Err(stays) => Err(error.in_addition(&format!("and the key {own} may still be on {}: {stays}", lun.name()))),
        },
    }
}

fn held_by_others(name: &str, foreign: &[Key]) -> Error {
    let list: Vec<String> = foreign.iter().map(ToString::to_string).collect();
    let ours =
        if foreign.iter().any(|key| is_ours(*key)) { " (0x7a… are keys of other runs of z-provisioner)" } else { "" };
    Error::target(format!("{name} is reserved or registered by others: {}{ours}", list.join(", "))).with_hint(
        "somebody may be using it: find out who; then `z-provisioner release-reservation`, or `target.wipe: true`, which shuts them out",
    )
}

impl Held {
    /// The key.
    pub fn key(&self) -> Key {
        self.key
    }

    /// Preempts the victims and makes the reservation ours.
    async fn shut_out(&self, victims: &[Key]) -> Result<()> {
        // Registering has replaced what these very paths had registered before, so look again.
        let mut state = self.look().await?;
        if let Some(holder) = state.reservation.filter(|holder| holder.key != self.key) {
            self.lun.preempt(self.key, holder.key).await?;
            state = self.look().await?;
        }
        for victim in distinct(&state.keys).into_iter().filter(|key| victims.contains(key)) {
            self.lun.preempt(self.key, victim).await?;
        }
        match self.look().await?.reservation {
            Some(held) if held.key == self.key && held.kind == WRITE_EXCLUSIVE_REGISTRANTS_ONLY => Ok(()),
            Some(held) if held.key == self.key => {
                // Ours, but of another type: an earlier attempt's on these very paths, made by somebody else's hand.
                self.lun.release(self.key).await?;
                self.lun.reserve(self.key).await
            }
            _ => self.lun.reserve(self.key).await,
        }
    }

    /// READ KEYS shows this key alone, on enough paths, and the reservation is this key's.
    async fn confirm(&self, paths: u32) -> Result<()> {
        let state = self.look().await?;
        let name = self.lun.name();
        if let Some(other) = distinct(&state.keys).into_iter().find(|key| *key != self.key) {
            return Err(Error::target(format!("{name} still shows the key {other} beside {}", self.key))
                .with_retry(Retry::Temporary)
                .with_hint("somebody registers at this very moment: find out who writes to this LUN"));
        }
        let registered = u32::try_from(state.keys.len()).unwrap_or(u32::MAX);
        if registered < paths {
            return Err(Error::target(format!("{name} shows {registered} registrations for {paths} live paths"))
                .with_retry(Retry::Temporary)
                .with_hint("a path failed meanwhile: multipath -ll"));
        }
        self.is_ours(&state)
    }

    /// Whether the reservation is still ours, asked of the storage. For a thread that may wait.
    ///
    /// # Errors
    /// `Target` when it is not; `Device` when the storage does not say.
    pub fn check_now(&self) -> Result<()> {
        self.is_ours(&self.lun.state_now()?.ok_or_else(|| self.gone())?)
    }

    fn is_ours(&self, state: &State) -> Result<()> {
        let registered = state.keys.contains(&self.key);
        let reserved = state.reservation.is_some_and(|reservation| reservation.key == self.key);
        if registered && reserved {
            return Ok(());
        }
        let others: Vec<String> = distinct(&state.keys).iter().map(ToString::to_string).collect();
        let now = if others.is_empty() {
            "nobody is registered now".into()
        } else {
            format!("registered now: {}", others.join(", "))
        };
        Err(Error::target(format!("the reservation of {} with key {} is lost; {now}", self.lun.name(), self.key)).with_hint(
            "another attempt, or a person, has taken the LUN: it is theirs, and nothing more was written to it; look at their run",
        ))
    }

    async fn look(&self) -> Result<State> {
        self.lun.state().await?.ok_or_else(|| self.gone())
    }

    fn gone(&self) -> Error {
        Error::target(format!("{} knows no reservations any more", self.lun.name()))
            .with_hint("the storage changed under the run: look at it before anything else")
    }

    /// Gives the reservation back, and every registration of this key, those of paths that are gone included.
    ///
    /// # Errors
    /// As [`Held::check_now`]: what is not ours is left alone. `Device` when it cannot be done.
    pub async fn give_back(self) -> Result<()> {
        let given = match self.look().await {
            Ok(state) => match self.is_ours(&state) {
                Ok(()) => self.release(&state).await,
                Err(lost) => Err(lost),
            },
            Err(error) => Err(error),
        };
        if given.is_err() {
            // multipathd must not offer the key again when a path returns.
            let _ = self.lun.forget().await;
        }
        given
    }

    async fn release(&self, state: &State) -> Result<()> {
        if state.keys.iter().all(|key| *key == self.key) {
            return self.lun.clear(self.key).await;
        }
        self.lun.release(self.key).await?;
        self.lun.unregister(self.key).await
    }

    /// Undoes what was done of taking it.
    async fn take_back(&self) -> Result<()> {
        let state = self.look().await?;
        let undone = match () {
            () if self.is_ours(&state).is_ok() => self.release(&state).await,
            () if state.keys.contains(&self.key) => self.lun.unregister(self.key).await,
            () => Ok(()),
        };
        // Nor must multipathd offer the key when a path returns.
        undone.and(self.lun.forget().await)
    }
}

#[cfg(test)]
mod tests {
    use imgstream::error::Kind;

    use super::super::key::run_key;
    use super::*;
    use crate::target::scsi::persistent::Reservation;

    fn key(run: &str, epoch: u32) -> Key {
        run_key(&RunId::try_from(run.to_owned()).unwrap(), epoch)
    }

    fn state(keys: &[Key], holder: Option<Key>) -> State {
        let reservation = holder.map(|key| Reservation { key, kind: WRITE_EXCLUSIVE_REGISTRANTS_ONLY });
        State { keys: keys.to_vec(), reservation }
    }

    fn findings(keys: &[Key], holder: Option<Key>) -> Result<Findings> {
        Findings::of(&state(keys, holder), key("r", 3), "m")
    }

    #[test]
    fn earlier_epochs_are_shut_out_and_others_are_others() {
        let (earlier, foreign) = (key("r", 2), Key(0xabc));
        let found = findings(&[earlier, foreign, earlier], Some(foreign)).unwrap();
        assert_eq!(found, Findings { earlier: vec![earlier], foreign: vec![foreign] });
        assert_eq!(findings(&[], None).unwrap(), Findings::default());
        assert_eq!(findings(&[], Some(Key(0))).unwrap(), Findings::default());
    }

    #[test]
    fn a_later_epoch_and_the_same_one_are_refused() {
        let later = findings(&[key("r", 7)], None).unwrap_err();
        assert_eq!((later.kind(), later.retry()), (Kind::Target, Retry::Permanent));
        assert!(later.to_string().contains("epoch 7"), "{later}");
        let same = findings(&[key("r", 2), key("r", 3)], None).unwrap_err();
        assert!(same.hint().unwrap().contains("one higher"), "{same}");
    }

    #[test]
    fn what_others_hold_is_named() {
        let error = held_by_others("m", &[Key(0xabc), key("other", 1)]);
        assert!(
            error.to_string().contains("0x0000000000000abc") && error.to_string().contains("other runs"),
            "{error}"
        );
        assert!(!held_by_others("m", &[Key(0xabc)]).to_string().contains("other runs"));
    }
}
