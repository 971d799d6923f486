//! What a run has opened, in the order it did, and how all of it is closed again.

use std::sync::Arc;

use imgstream::error::{Error, Result};
use imgstream::pipeline::Permit;
use protocol::event::TornDown;

use super::fcp::{Attached, Fabric};
use super::guard::Guard;
use super::multipath::Map;
use super::reservation;
use crate::dm;
use crate::luks::Container;

/// How a run ended, as far as its target is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The target holds the image.
    Done,
    /// It does not, and a later attempt may go on with what is there.
    Resumable,
    /// It does not, and nobody shall: nothing on it can ever be opened again.
    Over,
}

/// What a run has opened. Noted when it exists, closed by [`Held::close`].
#[derive(Default)]
pub struct Held {
    adapters: Option<(Fabric, Attached)>,
    /// Only where it appeared because of us.
    map: Option<Map>,
    reservation: Option<reservation::Held>,
    mappings: Vec<Mapping>,
    /// Containers of this run: made, begun to be made, or kept from an earlier attempt.
    containers: Vec<Container>,
    guard: Arc<Guard>,
}

#[derive(Debug, Clone)]
enum Mapping {
    Linear(String),
    Container(String),
}

impl Mapping {
    fn name(&self) -> &str {
        match self {
            Mapping::Linear(name) | Mapping::Container(name) => name,
        }
    }
}

impl Held {
    pub(super) fn attached(&mut self, fabric: Fabric, attached: Attached) {
        self.adapters = Some((fabric, attached)).filter(|(_, attached)| !attached.is_empty());
    }

    pub(super) fn has_set_adapters(&self) -> bool {
        self.adapters.is_some()
    }

    pub(super) fn map_appeared(&mut self, map: &Map) {
        self.map = Some(map.clone());
    }

    pub(super) fn reserved(&mut self, reservation: reservation::Held) {
        self.reservation = Some(reservation);
    }

    pub(super) fn created_linear(&mut self, name: &str) {
        self.mappings.push(Mapping::Linear(name.to_owned()));
    }

    pub(super) fn container(&mut self, container: &Container) {
        self.containers.push(container.clone());
    }

    pub(super) fn opened_container(&mut self, container: &Container) {
        self.mappings.push(Mapping::Container(container.name.clone()));
    }

    pub(super) fn guarded_by(&mut self, guard: Guard) {
        self.guard = Arc::new(guard);
    }

    /// Asks whether this run may write now.
    ///
    /// # Errors
    /// `Target` when it may not; `Device` when the storage does not say.
    pub(super) async fn may_write(&self) -> Result<()> {
        let guard = Arc::clone(&self.guard);
        let asked = tokio::task::spawn_blocking(move || Permit::may_write(&*guard)).await;
        asked.unwrap_or_else(|error| Err(Error::device(format!("the thread that asks whether to write died: {error}"))))
    }

    /// What says whether this run may still write.
    pub fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// Whether nothing was opened.
    pub fn is_empty(&self) -> bool {
        self.adapters.is_none() && self.map.is_none() && self.reservation.is_none() && self.mappings.is_empty()
    }

    /// Closes everything, the last first. A run that has lost the right to write writes nothing here either.
    pub async fn close(&mut self, ending: Ending) -> TornDown {
        let mut told = Told::default();
        if ending == Ending::Over {
            self.destroy_keys(&mut told).await;
        }
        self.containers.clear();
        while let Some(mapping) = self.mappings.pop() {
            let closed = match &mapping {
                Mapping::Linear(name) => dm::remove(name).await,
                Mapping::Container(name) => dm::close_container(name).await,
            };
            told.note(closed, &format!("mapping {} closed", mapping.name()), &format!("mapping {}", mapping.name()));
        }
        if let Some(reservation) = self.reservation.take() {
            let key = reservation.key();
            let released = reservation.give_back().await;
            told.note(released, &format!("reservation {key} released"), &format!("reservation {key}"));
        }
        if let Some(map) = self.map.take() {
            told.note(
                map.flush().await,
                &format!("multipath map {} removed", map.name),
                &format!("multipath map {}", map.name),
            );
        }
        if let Some((fabric, attached)) = self.adapters.take() {
            let TornDown { undone, left } = fabric.undo(attached).await;
            told.0.undone.extend(undone);
            told.0.left.extend(left);
        }
        told.0
    }

    /// Makes every container useless of this run: with its key slots gone, nobody opens it, with any key.
    async fn destroy_keys(&self, told: &mut Told) {
        if self.containers.is_empty() {
            return;
        }
        let allowed = self.may_write().await;
        for container in &self.containers {
            let what = format!("the key slots of container {} ({})", container.uuid, container.region);
            let destroyed = match &allowed {
                Ok(()) => container.destroy_keys().await,
                Err(error) => Err(Error::target(error.to_string())),
            };
            told.note(destroyed, &format!("{what} destroyed"), &what);
        }
    }
}

#[derive(Default)]
struct Told(TornDown);

impl Told {
    fn note(&mut self, outcome: Result<()>, undone: &str, what: &str) {
        match outcome {
            Ok(()) => self.0.undone.push(undone.to_owned()),
            Err(error) => self.0.left.push(format!("{what}: {error}")),
        }
    }
}
