//! A pod's life on this node, from its volumes to its end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::api::{DeleteParams, Preconditions};
use nix::sys::signal::Signal;
use tokio::sync::watch;

use super::engine::State;
use super::shared::{Shared, Wish, place};
use super::status::{Contained, lost, phase, status};
use super::{environment, probe, volumes};

/// Between two looks at containers, and at what else changes.
const LOOK: Duration = Duration::from_millis(100);

/// Until something that failed is tried again, at first and at most. A kubelet goes up to minutes.
const BACK_OFF: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(3)];

/// One pod.
pub struct Life {
    shared: Arc<Shared>,
    pod: Pod,
    wish: watch::Receiver<Wish>,
    containers: Vec<Contained>,
    probes: Vec<probe::Probe>,
}

impl Life {
    /// Of a pod that was bound to this node.
    pub fn new(shared: Arc<Shared>, pod: Pod, wish: watch::Receiver<Wish>) -> Self {
        let specs = pod.spec.iter().flat_map(|spec| &spec.containers);
        let contained = |container: &Container| Contained {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            state: State::Absent,
            waiting: ("ContainerCreating".into(), String::new()),
            last: State::Absent,
            restarts: 0,
            ready: container.readiness_probe.is_none(),
            id: environment::name(&pod, &container.name),
        };
        let containers = specs.clone().map(contained).collect();
        let probes = specs.map(probe::Probe::of).collect();
        Life { shared, pod, wish, containers, probes }
    }

    /// Lives it, until the pod is deleted.
    pub async fn live(mut self) {
        self.look().await;
        let known = self.pod.status.clone().unwrap_or_default();
        let over = matches!(known.phase.as_deref(), Some("Succeeded" | "Failed"));
        let started = known
            .container_statuses
            .iter()
            .flatten()
            .any(|one| one.container_id.as_ref().is_some_and(|id| !id.is_empty()));
        if self.containers.iter().any(|one| one.state != State::Absent) {
            // An earlier agent has started it: it is taken over.
            self.run().await;
        } else if started && !over {
            // It ran once, and this machine has nothing of it any more.
            self.containers.iter_mut().for_each(|one| one.state = lost());
            self.report(None).await;
        } else if !over && self.prepare().await {
            self.run().await;
        }
        self.bury().await;
    }

    /// Until every container has been started: false if the pod is to end first.
    async fn prepare(&mut self) -> bool {
        let mut pause = BACK_OFF[0];
        self.report(None).await;
        while !self.ending() {
            match self.start_all().await {
                Ok(()) => return true,
                Err((reason, message)) => {
                    let waiting = if reason == "FailedMount" { "ContainerCreating" } else { &reason };
                    let changed =
                        self.containers.iter().any(|one| one.state == State::Absent && one.waiting.0 != waiting);
                    for one in self.containers.iter_mut().filter(|one| one.state == State::Absent) {
                        one.waiting =
                            (waiting.to_owned(), if reason == "FailedMount" { String::new() } else { message.clone() });
                    }
                    if changed {
                        self.report(None).await;
                    }
                    let event = if reason == "FailedMount" { "FailedMount" } else { "Failed" };
                    self.shared.event(&self.pod, "Warning", event, &message).await;
                }
            }
            let _ = tokio::time::timeout(pause, self.wish.changed()).await;
            pause = (pause * 2).min(BACK_OFF[1]);
        }
        false
    }

    async fn start_all(&mut self) -> Result<(), (String, String)> {
        let folder = self.shared.pods.join(self.pod.metadata.uid.as_deref().unwrap_or_default());
        let made = volumes::make(&self.shared, &self.pod, &folder).await;
        let volumes = made.map_err(|why| ("FailedMount".to_owned(), why))?;
        let specs = self.pod.spec.as_ref().map(|spec| spec.containers.clone()).unwrap_or_default();
        for (index, spec) in specs.iter().enumerate() {
            if self.containers[index].state == State::Absent {
                self.start(index, spec, &volumes).await?;
            }
        }
        Ok(())
    }

    async fn start(
        &mut self,
        index: usize,
        spec: &Container,
        volumes: &BTreeMap<String, volumes::Source>,
    ) -> Result<(), (String, String)> {
        let shared = Arc::clone(&self.shared);
        let image = self.containers[index].image.clone();
        if !shared.engine.has(&image).await {
            // Once it is an error, and from then on a wait for the next try.
            let again = self.containers[index].waiting.0 == "ErrImagePull";
            let reason = if again { "ImagePullBackOff" } else { "ErrImagePull" };
            return Err((reason.into(), format!("Failed to pull image {image:?}: it is not in this node's storage")));
        }
        let order = environment::order(&shared, &self.pod, spec, volumes, &shared.devices).await;
        let order = order.map_err(|why| ("CreateContainerConfigError".to_owned(), why))?;
        shared.engine.start(&order).await.map_err(|why| ("CreateContainerError".to_owned(), why))?;
        self.containers[index].state = shared.engine.state(&order.name).await;
        shared.event(&self.pod, "Normal", "Started", &format!("Started container {}", spec.name)).await;
        Ok(())
    }

    /// Until the containers have ended for good.
    async fn run(&mut self) {
        self.report(None).await;
        let mut next = Instant::now();
        while !self.ending() {
            let before = (phase(&self.containers), self.shape());
            self.look().await;
            if Instant::now() >= next {
                next = Instant::now() + Duration::from_millis(500);
                self.probe().await;
            }
            self.start_again().await;
            if before != (phase(&self.containers), self.shape()) {
                self.report(None).await;
            }
            if matches!(phase(&self.containers), "Succeeded" | "Failed") {
                return;
            }
            let _ = tokio::time::timeout(LOOK, self.wish.changed()).await;
        }
        self.stop().await;
    }

    /// What of the containers is worth a report when it changes.
    fn shape(&self) -> Vec<(State, bool, u32)> {
        self.containers.iter().map(|one| (one.state.clone(), one.ready, one.restarts)).collect()
    }

    async fn look(&mut self) {
        let engine = self.shared.engine.clone();
        let running = self.containers.iter_mut().filter(|one| !matches!(one.state, State::Ended { .. }));
        join_all(running.map(async |one| one.state = engine.state(&one.id).await)).await;
    }

    async fn probe(&mut self) {
        for (one, probe) in self.containers.iter_mut().zip(&self.probes) {
            if matches!(one.state, State::Running { .. }) {
                one.ready = probe.passes().await;
            }
        }
    }

    /// Starts those that have ended once more, where the pod says so.
    async fn start_again(&mut self) {
        let policy = self.pod.spec.as_ref().and_then(|spec| spec.restart_policy.clone()).unwrap_or_default();
        for one in &mut self.containers {
            let State::Ended { at, code, .. } = one.state else { continue };
            let wanted = policy == "Always" || (policy == "OnFailure" && code != 0);
            let pause = BACK_OFF[0] * 2u32.saturating_pow(one.restarts.min(6));
            if wanted && at.elapsed().is_ok_and(|past| past >= pause.min(BACK_OFF[1])) {
                one.last = std::mem::replace(&mut one.state, State::Absent);
                one.waiting = ("CrashLoopBackOff".into(), String::new());
                one.restarts += 1;
            }
        }
        if self.containers.iter().any(|one| one.state == State::Absent)
            && let Err((reason, message)) = self.start_all().await
        {
            self.shared.event(&self.pod, "Warning", "Failed", &format!("{reason}: {message}")).await;
            tokio::time::sleep(BACK_OFF[0]).await;
        }
    }

    fn ending(&self) -> bool {
        let wish = self.wish.borrow();
        wish.evict || wish.delete.is_some()
    }

    /// Ends the containers: asks them to, and kills those that have not done it in time.
    async fn stop(&mut self) {
        let wish = self.wish.borrow().clone();
        let own = self.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        let grace = wish.delete.unwrap_or(own).max(0);
        let message = format!("Stopping containers, which have {grace} s for that");
        self.shared.event_apart(&self.pod, "Normal", "Killing", &message);
        let began = Instant::now();
        let running: Vec<String> = self.containers.iter().map(|one| one.id.clone()).collect();
        for id in &running {
            self.shared.engine.signal(id, Signal::SIGTERM).await;
        }
        loop {
            self.look().await;
            let left = self.containers.iter().any(|one| matches!(one.state, State::Running { .. }));
            // It may be deleted once more, with less patience.
            let grace = self.wish.borrow().delete.map_or(grace, |later| later.min(grace)).max(0);
            if !left {
                break;
            }
            if began.elapsed() >= Duration::from_secs(grace.cast_unsigned()) {
                for id in &running {
                    self.shared.engine.signal(id, Signal::SIGKILL).await;
                }
            }
            let _ = tokio::time::timeout(LOOK, self.wish.changed()).await;
        }
        if wish.evict {
            self.report(Some(("Failed", "Evicted", "The node was low on resource: memory."))).await;
        } else {
            self.report(None).await;
        }
    }

    async fn report(&self, ended: Option<(&str, &str, &str)>) {
        self.shared.report(&self.pod, &status(&self.pod, &self.containers, ended)).await;
    }

    /// Waits until the pod is deleted, if it is not yet, and lets go of it. Finalizers may keep the object.
    async fn bury(mut self) {
        if self.wish.borrow().evict && self.containers.iter().all(|one| one.state == State::Absent) {
            self.report(Some(("Failed", "Evicted", "The node was low on resource: memory."))).await;
        }
        // The sender goes away only with the pod.
        let _ = self.wish.wait_for(|wish| wish.delete.is_some()).await;
        let (namespace, name) = place(&self.pod);
        let uid = self.pod.metadata.uid.clone();
        let now = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid, resource_version: None }),
            ..DeleteParams::default()
        };
        let api = self.shared.api(&namespace);
        let _ = self.shared.insist(|| api.delete(&name, &now)).await;
        for one in &self.containers {
            self.shared.engine.remove(&one.id).await;
        }
        let folder = self.shared.pods.join(self.pod.metadata.uid.as_deref().unwrap_or("none"));
        let _ = std::fs::remove_dir_all(folder);
    }
}
