//! How attempts end in a cluster: Jobs are deleted, and pods let go once their death is known.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use protocol::RunId;
use serde_json::json;

use super::connection::{Patience, code, said, within};
use super::handle::{Handle, name};
use super::informer::{self, changed};
use super::manifest::{FINALIZER, SERVICE, attempt_of, selector};
use super::sight::{self, Sight};
use super::{Cluster, LOOK};
use crate::launch::{Death, Ending, Leftover, Says};

/// How long a request that nobody waits for any more may take to be carried out.
const UNDERWAY: Duration = Duration::from_secs(60);

/// Lets pods go whose death is known, for as long as there is a cluster. Not only those that are being deleted: who uninstalls the
/// service deletes it together with them, and nobody would be left to do it.
pub(super) fn bury_the_dead(cluster: &Arc<Cluster>) {
    let (weak, mut changes) = (Arc::downgrade(cluster), cluster.informer.changes());
    tokio::spawn(async move {
        loop {
            let Some(cluster) = weak.upgrade() else { return };
            let settled = cluster.settled();
            // A pod that is taken away before it has started never says that it has ended.
            let is_settled = |pod: &Pod| {
                pod.metadata.deletion_timestamp.is_some()
                    && informer::job_of(pod).is_some_and(|job| settled.contains(&job))
            };
            for pod in cluster.informer.pods_that(|pod| is_held(pod) && (sight::is_dead(pod) || is_settled(pod))) {
                cluster.let_go(&pod).await;
            }
            drop(cluster);
            changed(&mut changes, LOOK).await;
        }
    });
}

/// How it died, and why it had to.
pub(super) fn because(doom: Option<String>, death: Death) -> Death {
    match doom {
        Some(why) if !death.how.contains(&why) => Death { how: format!("{why}; {}", death.how), retryable: true },
        _ => death,
    }
}

fn is_held(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

impl Cluster {
    /// Attempts that are over by their agents' own word. Of those without a pod nothing is kept.
    fn settled(&self) -> HashSet<String> {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        settled.retain(|name| !self.informer.pods(name).is_empty());
        settled.clone()
    }

    /// Deletes a Job, and what it owns first. Says whether there is nothing left to ask for.
    pub(super) async fn delete(&self, handle: &Handle) -> bool {
        let only_this = Preconditions { uid: Some(handle.uid.clone()), ..Preconditions::default() };
        let parameters = DeleteParams { preconditions: Some(only_this), ..DeleteParams::foreground() };
        match within(self.jobs().delete(&handle.name, &parameters)).await {
            Ok(_) => true,
            Err(error) if code(&error) == 404 => true,
            // Another one has its name; or somebody got in the way.
            Err(error) if code(&error) == 409 => {
                let found = within(self.jobs().get_opt(&handle.name)).await;
                found.is_ok_and(|job| job.is_none_or(|job| job.metadata.uid.as_deref() != Some(&handle.uid)))
            }
            Err(error) => {
                tracing::warn!(job = handle.name, error = said(&error), "a Job is not deleted; it is tried again");
                false
            }
        }
    }

    /// Removes our finalizer from a pod.
    async fn let_go(&self, pod: &Pod) {
        let (Some(name), Some(uid)) = (&pod.metadata.name, &pod.metadata.uid) else { return };
        let others: Vec<&String> = pod.metadata.finalizers.iter().flatten().filter(|of| *of != FINALIZER).collect();
        // With the version that was seen: somebody else's finalizer that came meanwhile is not lost.
        let metadata = json!({ "uid": uid, "resourceVersion": pod.metadata.resource_version, "finalizers": others });
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        if let Err(error) = within(self.pods().patch_metadata(name, &PatchParams::default(), &patch)).await
            && !matches!(code(&error), 404 | 409)
        {
            tracing::warn!(pod = name, error = said(&error), "a pod that is dead is not let go; it is tried again");
        }
    }

    /// Deletes an attempt's Job, and waits until its pods are dead, or cannot ever write.
    pub(super) async fn end(&self, handle: &Handle, ending: &Ending, says: &Says) -> Death {
        let killed = || Death { how: "its Job was deleted".into(), retryable: true };
        let mut changes = self.informer.changes();
        let mut asked = false;
        loop {
            changes.mark_unchanged();
            if !ending.may_write {
                // Whatever its node does with it.
                for pod in self.informer.pods(&handle.name).iter().filter(|pod| is_held(pod)) {
                    self.let_go(pod).await;
                }
            }
            asked = asked || self.delete(handle).await;
            match self.informer.look(&handle.name, &handle.uid) {
                Some(Sight::Dead(death)) => return death,
                Some(Sight::Podless(death)) if self.has_no_pods(handle).await.unwrap_or(false) => return death,
                Some(Sight::Alive(how) | Sight::Doomed(how)) => {
                    says(format!("attempt {} is being ended: {how}", ending.attempt));
                    self.delete_orphans(handle).await;
                }
                Some(Sight::Nothing) if self.is_gone(handle).await.unwrap_or(false) => return killed(),
                Some(Sight::Podless(_) | Sight::Nothing) | None => {}
            }
            changed(&mut changes, LOOK).await;
        }
    }

    /// Pods stay when somebody deletes their Job and not what it owns.
    async fn delete_orphans(&self, handle: &Handle) {
        let is_kept = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none();
        for pod in self.informer.pods(&handle.name).iter().filter(is_kept) {
            let Ok(None) = within(self.jobs().get_opt(&handle.name)).await else { return };
            let _ =
                within(self.pods().delete(pod.metadata.name.as_deref().unwrap_or_default(), &DeleteParams::default()))
                    .await;
        }
    }

    /// Ends what an earlier service may have created without having noted it.
    pub(super) async fn end_unnoted(&self, ending: &Ending, service: &str) -> Death {
        let (name, mut patience) = (name(&ending.run, ending.attempt), Patience::default());
        let silent: Says = Arc::new(|_| {});
        let mut looked = false;
        loop {
            match within(self.jobs().get_opt(&name)).await {
                Ok(job) => match job.and_then(|job| of_service(&job, service)) {
                    Some(found) => return self.end(&found.handle(&self.connection.uid), ending, &silent).await,
                    None if looked => return Death { how: "it had not been started".into(), retryable: true },
                    // It may have been asked for, and be on its way.
                    None => {
                        looked = true;
                        tokio::time::sleep(UNDERWAY).await;
                    }
                },
                Err(error) => patience.wait(&silent, said(&error)).await,
            }
        }
    }

    /// The Jobs of one service that have not ended, and those that are gone and have left a pod which is kept to be seen.
    pub(super) async fn leftovers(&self, service: &str) -> Result<Vec<Leftover>, kube::Error> {
        let jobs = within(self.jobs().list(&ListParams::default().labels(&selector(service)))).await?;
        let open =
            jobs.items.iter().filter(|job| sight::verdict(job).is_none()).filter_map(|job| of_service(job, service));
        let leftover = |found: Found| {
            let handle = found.handle(&self.connection.uid).to_string();
            Leftover { run: found.run, attempt: found.attempt, handle }
        };
        let mut leftovers: Vec<Leftover> = open.map(leftover).collect();
        let pods = within(self.pods().list(&ListParams::default().labels(&selector(service)))).await?;
        let kept = pods.items.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some() && is_held(pod));
        for left in kept.filter_map(of_pod).map(leftover) {
            if !leftovers.contains(&left) {
                leftovers.push(left);
            }
        }
        Ok(leftovers)
    }
}

/// A Job of a service's.
struct Found {
    run: RunId,
    attempt: u32,
    uid: String,
}

impl Found {
    fn handle(&self, namespace: &str) -> Handle {
        Handle { name: name(&self.run, self.attempt), uid: self.uid.clone(), namespace: namespace.to_owned() }
    }
}

fn of_service(job: &Job, service: &str) -> Option<Found> {
    let labels = job.metadata.labels.as_ref()?;
    let (run, attempt) = attempt_of(&job.metadata).filter(|_| labels.get(SERVICE).is_some_and(|of| of == service))?;
    Some(Found { run, attempt, uid: job.metadata.uid.clone()? })
}

/// The Job that a pod is of.
fn of_pod(pod: &Pod) -> Option<Found> {
    let owner = pod.metadata.owner_references.iter().flatten().find(|owner| owner.kind == "Job")?;
    let (run, attempt) = attempt_of(&pod.metadata)?;
    Some(Found { run, attempt, uid: owner.uid.clone() })
}
