//! What a run has opened, in the order it did, and how all of it is closed again.

use std::fs::File;
use std::sync::Arc;

use imgstream::error::{Error, IoContext, Result};
use imgstream::pipeline::Permit;
use protocol::event::TornDown;
use tokio_util::sync::CancellationToken;

use super::fcp::{Attached, Fabric};
use super::guard::Guard;
use super::multipath::Map;
use super::reservation;
use crate::block::Block;
use crate::control::Lease;
use crate::dm;
use crate::luks::{Container, Header, Volume};
use crate::thread::apart;

/// How a run ended, as far as its target is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The target holds the image.
    Done,
    /// It does not, and a later attempt may go on with what is there.
    Resumable,
    /// It does not, and nobody shall go on with it: what this attempt has encrypted can never be opened again.
    Over {
        /// Whether anything of the image, or in its place, was written. Before that, a container that was there already is not
        /// this attempt's to destroy.
        written: bool,
    },
}

/// What a run has opened. Noted when it exists, closed by [`Held::close`].
#[derive(Default)]
pub struct Held {
    adapters: Option<(Fabric, Attached)>,
    /// Only where it appeared because of us.
    map: Option<Map>,
    reservation: Option<reservation::Held>,
    mappings: Vec<Mapping>,
    containers: Vec<HeldContainer>,
    guard: Arc<Guard>,
    /// All of the image was read back from the media.
    proven: bool,
    /// Why the reservation could not be given back: who has the target now is not certain.
    lost: Option<String>,
}

#[derive(Debug)]
enum Mapping {
    /// Open as long as it is ours: another agent of this run that takes it for a leftover cannot remove it.
    Linear(String, Option<File>),
    Container(String),
}

/// A container of this run.
#[derive(Debug)]
struct HeldContainer {
    container: Container,
    /// By this attempt, be it in part; else it was there.
    made: bool,
    /// What its header was when it was opened.
    header: Option<Header>,
}

impl Held {
    /// Nothing yet, of a run that has this lease, where it has one.
    pub fn of(lease: Option<Arc<Lease>>) -> Self {
        Held { guard: Arc::new(Guard::default().with_lease(lease)), ..Held::default() }
    }

    pub(super) fn attached(&mut self, fabric: Fabric, attached: Attached) {
        self.adapters = Some((fabric, attached)).filter(|(_, attached)| !attached.is_empty());
    }

    pub(super) fn has_set_adapters(&self) -> bool {
        self.adapters.is_some()
    }

    pub(super) fn map_appeared(&mut self, map: Map) {
        self.map = Some(map);
    }

    pub(super) fn reserved(&mut self, reservation: reservation::Held) {
        self.reservation = Some(reservation);
    }

    pub(super) fn created_linear(&mut self, name: &str, block: &Block) -> Result<()> {
        self.mappings.push(Mapping::Linear(name.to_owned(), None));
        let file = File::open(block.path()).device(|| format!("opening mapping {name}"))?;
        if let Some(Mapping::Linear(_, held)) = self.mappings.last_mut() {
            *held = Some(file);
        }
        Ok(())
    }

    /// A container that was there is gone on with.
    pub(super) fn kept(&mut self, container: &Container) {
        self.containers.push(HeldContainer { container: container.clone(), made: false, header: None });
    }

    /// A container is about to be made.
    pub(super) fn made(&mut self, container: &Container) {
        self.containers.push(HeldContainer { container: container.clone(), made: true, header: None });
    }

    pub(super) fn opened_container(&mut self, container: &Container, volume: &Volume) {
        self.mappings.push(Mapping::Container(container.name.clone()));
        for held in self.containers.iter_mut().filter(|held| held.container.name == container.name) {
            held.header = Some(volume.header.clone());
        }
    }

    /// By this, and still by the lease.
    pub(super) fn guarded_by(&mut self, guard: Guard) {
        self.guard = Arc::new(guard.with_lease(self.guard.lease().cloned()));
    }

    /// Asks whether this run may write now.
    ///
    /// # Errors
    /// `Target` when it may not; `Device` when the storage does not say.
    pub async fn may_write(&self) -> Result<()> {
        let guard = Arc::clone(&self.guard);
        apart("asks whether to write", move || Permit::may_write(&*guard)).await
    }

    /// As [`Held::may_write`], for what is changed before the image is written: then a run that is to end changes nothing more.
    ///
    /// # Errors
    /// Those, and `Cancelled`.
    pub(super) async fn may_change(&self, cancel: &CancellationToken) -> Result<()> {
        self.may_write().await?;
        if cancel.is_cancelled() { Err(Error::cancelled("taking the target")) } else { Ok(()) }
    }

    /// Compares the header of each container on the media with the one that was opened: the image inside is worth nothing without.
    ///
    /// # Errors
    /// `Proof` when one differs; `Device` when it cannot be read.
    pub async fn prove_headers(&self) -> Result<()> {
        for HeldContainer { container, header, .. } in &self.containers {
            let Some(header) = header.clone() else { continue };
            let slot = container.slot.path();
            apart("reads a header", move || header.prove(&slot)).await?;
        }
        Ok(())
    }

    /// Takes note that all of the image was read back from the media.
    pub fn note_proven(&mut self) {
        self.proven = true;
    }

    /// Whether the target holds the image, for certain: read back, and nobody else has had it since.
    pub fn is_proven(&self) -> bool {
        self.proven && self.lost.is_none()
    }

    /// Demands that the target was this run's until it was closed.
    ///
    /// # Errors
    /// `Target` when another machine may have it by now.
    pub fn demand_kept(&self) -> Result<()> {
        match &self.lost {
            None => Ok(()),
            Some(why) => Err(Error::target(format!("another machine may have the target by now: {why}")).with_hint(
                "see who has reserved it (z-provisioner release-reservation), and which attempt is the latest",
            )),
        }
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
        self.close_target(ending).await.and(self.close_adapters().await)
    }

    /// Closes everything but adapters: mappings, the reservation, the map.
    pub async fn close_target(&mut self, ending: Ending) -> TornDown {
        let mut told = Told::default();
        if let Ending::Over { written } = ending {
            self.destroy_keys(written, &mut told).await;
        }
        self.containers.clear();
        while let Some(mapping) = self.mappings.pop() {
            let (name, closed) = match mapping {
                Mapping::Linear(name, file) => {
                    drop(file);
                    let removed = dm::remove(&name).await;
                    (name, removed)
                }
                Mapping::Container(name) => {
                    let closed = dm::close_container(&name).await;
                    (name, closed)
                }
            };
            told.note(closed, &format!("mapping {name} closed"), &format!("mapping {name}"));
        }
        if let Some(reservation) = self.reservation.take() {
            let key = reservation.key();
            let released = reservation.give_back().await;
            self.lost = released.as_ref().err().map(ToString::to_string);
            told.note(released, &format!("reservation {key} released"), &format!("reservation {key}"));
        }
        if let Some(map) = self.map.take() {
            told.note(
                map.flush().await,
                &format!("multipath map {} removed", map.name),
                &format!("multipath map {}", map.name),
            );
        }
        told.0
    }

    /// Sets adapters as they were.
    pub async fn close_adapters(&mut self) -> TornDown {
        match self.adapters.take() {
            Some((fabric, attached)) => fabric.undo(attached).await,
            None => TornDown::default(),
        }
    }

    /// Makes containers useless that this attempt has made, or has written to: with its key slots gone, nobody opens one, with any
    /// key.
    async fn destroy_keys(&self, written: bool, told: &mut Told) {
        let mut doomed = self.containers.iter().filter(|held| held.made || written).peekable();
        if doomed.peek().is_none() {
            return;
        }
        for HeldContainer { container, .. } in doomed {
            let what = format!("the key slots of container {} ({})", container.uuid, container.region);
            // Each takes a while: the right to write may be lost in between.
            let destroyed = match self.may_write().await {
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
