//! What the cluster shows of one service's attempts, kept up to date: its Jobs, their pods, and what is warned of.
//!
//! One watch for each, for all attempts together. Where a watch breaks off it is resumed, with a back-off; where it is too old for that
//! (410) everything is listed anew. What is seen may be old: who concludes from an absence asks the server itself.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event as Warning, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt, watcher::Error};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::handle::name;
use super::manifest::{attempt_of, selector};
use super::sight::{Sight, look};

/// Longest text of a warning that is shown, in characters.
const MAX_WARNING: usize = 500;

#[derive(Debug, Default)]
struct Seen {
    jobs: HashMap<String, Job>,
    /// By the name of their Job, then by UID.
    pods: HashMap<String, BTreeMap<String, Pod>>,
    /// By the UID of what they are about.
    warnings: HashMap<String, Warned>,
    jobs_listed: bool,
    pods_listed: bool,
}

/// The last warning about something.
#[derive(Debug)]
pub(super) struct Warned {
    /// The UID of the event.
    event: String,
    at: Option<Time>,
    /// What it says.
    pub(super) text: String,
}

/// What is seen.
#[derive(Debug)]
pub struct Informer {
    seen: Mutex<Seen>,
    changes: watch::Sender<u64>,
    /// The watches, which end with this.
    tasks: Mutex<Vec<tokio::task::AbortHandle>>,
}

impl Informer {
    /// Watches.
    pub fn start(client: &Client, namespace: &str, service: &str) -> Arc<Self> {
        let informer =
            Arc::new(Informer { seen: Mutex::default(), changes: watch::Sender::new(0), tasks: Mutex::default() });
        let ours = || watcher::Config::default().labels(&selector(service));
        let jobs = watcher(Api::<Job>::namespaced(client.clone(), namespace), ours());
        let pods = watcher(Api::<Pod>::namespaced(client.clone(), namespace), ours());
        let warned = watcher::Config::default().fields("type=Warning");
        let warnings = watcher(Api::<Warning>::namespaced(client.clone(), namespace), warned);
        informer.follow(jobs, Seen::job, Seen::all_jobs);
        informer.follow(pods, Seen::pod, Seen::all_pods);
        informer.follow(warnings, Seen::warning, Seen::all_warnings);
        informer
    }

    fn follow<K>(
        self: &Arc<Self>,
        events: impl Stream<Item = Result<Event<K>, Error>> + Send + 'static,
        one: fn(&mut Seen, K, bool),
        all: fn(&mut Seen, Vec<K>),
    ) where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let informer = Arc::downgrade(self);
        let task = tokio::spawn(async move {
            let mut events = std::pin::pin!(events.default_backoff());
            let mut listing = Vec::new();
            while let Some(event) = events.next().await {
                let Some(informer) = informer.upgrade() else { return };
                match event {
                    Ok(Event::Init) => listing.clear(),
                    Ok(Event::InitApply(object)) => listing.push(object),
                    Ok(Event::InitDone) => informer.change(|seen| all(seen, std::mem::take(&mut listing))),
                    Ok(Event::Apply(object)) => informer.change(|seen| one(seen, object, true)),
                    Ok(Event::Delete(object)) => informer.change(|seen| one(seen, object, false)),
                    Err(error) => {
                        tracing::warn!(kind = %K::kind(&()), %error, "the watch of a cluster broke off; it is begun again")
                    }
                }
            }
        });
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task.abort_handle());
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Looks at an attempt. A Job of its name with another UID is not its Job. `None`: the cluster has not been listed yet.
    pub fn look(&self, name: &str, uid: &str) -> Option<Sight> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let job = seen.jobs.get(name).filter(|job| job.metadata.uid.as_deref() == Some(uid));
        let mut pods: Vec<&Pod> = seen.pods.get(name).into_iter().flat_map(BTreeMap::values).collect();
        pods.sort_by(|one, other| one.metadata.creation_timestamp.cmp(&other.metadata.creation_timestamp));
        (seen.jobs_listed && seen.pods_listed).then(|| look(job, &pods, &seen.warnings))
    }

    /// The pods of an attempt.
    pub fn pods(&self, name: &str) -> Vec<Pod> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.pods.get(name).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    /// The pods, of all attempts, that are such.
    pub fn pods_that(&self, are_such: impl Fn(&Pod) -> bool) -> Vec<Pod> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.pods.values().flat_map(BTreeMap::values).filter(|pod| are_such(pod)).cloned().collect()
    }

    /// Tells of changes from now on.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl Warned {
    /// One that says something.
    #[cfg(test)]
    pub(super) fn saying(text: &str) -> Self {
        Warned { event: String::new(), at: None, text: text.to_owned() }
    }
}

impl Drop for Informer {
    fn drop(&mut self) {
        for task in self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}

/// Waits for a change, and not for ever.
pub async fn changed(changes: &mut watch::Receiver<u64>, most: Duration) {
    let _ = tokio::time::timeout(most, changes.changed()).await;
}

impl Seen {
    fn job(&mut self, job: Job, is_there: bool) {
        let Some(name) = job.metadata.name.clone() else { return };
        if is_there {
            self.jobs.insert(name, job);
        } else {
            self.jobs.remove(&name);
        }
    }

    fn all_jobs(&mut self, jobs: Vec<Job>) {
        (self.jobs, self.jobs_listed) = (HashMap::new(), true);
        jobs.into_iter().for_each(|job| self.job(job, true));
    }

    fn pod(&mut self, pod: Pod, is_there: bool) {
        let (Some(job), Some(uid)) = (job_of(&pod), pod.metadata.uid.clone()) else { return };
        let pods = self.pods.entry(job.clone()).or_default();
        if is_there {
            pods.insert(uid, pod);
        } else {
            pods.remove(&uid);
        }
        if pods.is_empty() {
            self.pods.remove(&job);
        }
    }

    fn all_pods(&mut self, pods: Vec<Pod>) {
        (self.pods, self.pods_listed) = (HashMap::new(), true);
        pods.into_iter().for_each(|pod| self.pod(pod, true));
    }

    fn warning(&mut self, warning: Warning, is_there: bool) {
        let Some(uid) = warning.involved_object.uid else { return };
        let event = warning.metadata.uid.unwrap_or_default();
        let before = self.warnings.get(&uid);
        if !is_there {
            // It has grown old, and so has what it said.
            if before.is_some_and(|before| before.event == event) {
                self.warnings.remove(&uid);
            }
            return;
        }
        let at = warning.last_timestamp.or_else(|| warning.event_time.map(|time| Time(time.0)));
        let at = at.or(warning.metadata.creation_timestamp);
        if before.is_some_and(|before| before.at > at) {
            return;
        }
        let reason = warning.reason.unwrap_or_default();
        let message: String = warning.message.unwrap_or_default().chars().take(MAX_WARNING).collect();
        self.warnings.insert(uid, Warned { event, at, text: format!("{reason}: {message}") });
    }

    fn all_warnings(&mut self, warnings: Vec<Warning>) {
        self.warnings.clear();
        warnings.into_iter().for_each(|warning| self.warning(warning, true));
    }
}

/// The name of a pod's Job, by its labels: they stay when the Job does not.
pub fn job_of(pod: &Pod) -> Option<String> {
    attempt_of(&pod.metadata).map(|(run, attempt)| name(&run, attempt))
}
