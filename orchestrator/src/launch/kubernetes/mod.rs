//! The launcher that starts each attempt as a Job of a Kubernetes cluster.
//!
//! The Job's name is always the same for an attempt, and the API server takes it once. Its pod cannot start without its Secret, which is
//! made when the handle of the Job is stored. An attempt is dead when the node of its pod has said so ([`sight`]): pods have a finalizer
//! that keeps them to be seen until then.

mod connection;
mod ending;
mod handle;
mod informer;
mod manifest;
mod server;
mod sight;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, pending};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use protocol::Token;
use tokio::sync::OnceCell;

use self::connection::{Connection, Patience, code, is_there, may_pass, said, within};
use self::handle::{Handle, name};
use self::informer::{Informer, changed};
use self::manifest::Files;
use self::sight::Sight;
use super::{Death, Ending, Launched, Launcher, Leftover, NotLaunched, Order, Says};
use crate::config;

/// How long a cluster that does not answer is asked to take a Job or a Secret. Whoever waits for the agent gives up sooner.
const LAUNCH_WITHIN: Duration = Duration::from_secs(3600);
/// At the latest after this it is looked again, whatever the watches tell.
const LOOK: Duration = Duration::from_secs(5);

/// What Jobs are made of.
#[derive(Debug, Clone)]
pub struct Settings {
    /// As configured; `image` is given.
    pub config: config::Kubernetes,
    /// Where pods find the service.
    pub url: String,
    /// What tells this service's objects from another's: the same over restarts. A label's value.
    pub service: String,
    /// Seconds for which an agent goes on trying to tell how it ended.
    pub report_within: u64,
    /// File with the certificates by which agents know the service.
    pub ca: PathBuf,
    /// File with the public key of tickets.
    pub ticket: PathBuf,
    /// A folder, where every file is a key that agents trust for images; used where the configuration names none.
    pub trust: PathBuf,
}

/// Starts agents in a cluster.
pub struct Kubernetes {
    settings: Arc<Settings>,
    cluster: OnceCell<Arc<Cluster>>,
}

/// A cluster that has answered, and what is seen of it.
struct Cluster {
    connection: Connection,
    informer: Arc<Informer>,
    /// Attempts that are over by their agents' own word, as long as there are pods of them.
    settled: Mutex<HashSet<String>>,
}

impl Kubernetes {
    /// With these settings. Nothing is asked before it is needed.
    pub fn new(settings: Settings) -> Self {
        Kubernetes { settings: Arc::new(settings), cluster: OnceCell::new() }
    }

    /// Looks for the cluster once.
    async fn cluster(&self) -> Result<&Arc<Cluster>, String> {
        self.cluster
            .get_or_try_init(|| async {
                let config = &self.settings.config;
                let connection = Connection::open(config.kubeconfig.as_ref(), config.namespace.as_ref()).await?;
                let (server, namespace) = (&connection.server, &connection.namespace);
                tracing::info!(version = server.version, namespace, "runs can be launched in a Kubernetes cluster");
                for (field, without) in server.drops() {
                    tracing::warn!(
                        version = server.version,
                        field,
                        "the API server does not heed a field of Jobs: {without}"
                    );
                }
                let informer = Informer::start(&connection.client, namespace, &self.settings.service);
                let cluster = Arc::new(Cluster { connection, informer, settled: Mutex::default() });
                ending::bury_the_dead(&cluster);
                Ok(cluster)
            })
            .await
    }

    /// The cluster, as soon as it answers.
    async fn reached(&self, says: &Says) -> &Arc<Cluster> {
        let mut patience = Patience::default();
        loop {
            match self.cluster().await {
                Ok(cluster) => return cluster,
                Err(error) => {
                    tracing::warn!(error, "the Kubernetes cluster does not answer");
                    patience.wait(says, format!("the Kubernetes cluster does not answer: {error}")).await;
                }
            }
        }
    }

    /// The cluster that a handle belongs to. For ever, where this is another one.
    async fn home(&self, handle: &str, says: &Says) -> (&Arc<Cluster>, Handle) {
        let cluster = self.reached(says).await;
        match Handle::parse(handle).filter(|handle| handle.namespace == cluster.connection.uid) {
            Some(handle) => (cluster, handle),
            None => {
                says(format!(
                    "{handle} is in another cluster or namespace than this service's, of which nothing is known"
                ));
                pending().await
            }
        }
    }

    async fn start(&self, order: Order, says: Says) -> Result<Launched, NotLaunched> {
        let broken = |reason| NotLaunched { reason, retryable: false };
        let files = self.settings.files().map_err(broken)?;
        let body = manifest::job(&self.settings, &order, files.trusted.len()).map_err(broken)?;
        let cluster = Arc::clone(self.reached(&says).await);
        let job = cluster.create(&body, &says).await?;
        for (field, without) in server::dropped(&job) {
            tracing::debug!(run = %order.run, field, "the API server has dropped a field of a Job: {without}");
        }
        let uid = job.metadata.uid.clone().unwrap_or_default();
        let handle = Handle { name: name(&order.run, order.attempt), uid, namespace: cluster.connection.uid.clone() };
        let release = move |token: Token| -> BoxFuture<'static, ()> {
            Box::pin(async move { cluster.release(&job, &files, &token, &says).await })
        };
        Ok(Launched { handle: handle.to_string(), release: Box::new(release) })
    }
}

impl Cluster {
    fn jobs(&self) -> Api<Job> {
        Api::namespaced(self.connection.client.clone(), &self.connection.namespace)
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.connection.client.clone(), &self.connection.namespace)
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.connection.client.clone(), &self.connection.namespace)
    }

    /// Makes the Job. An answer that was lost is no harm: what is found under its name then is the same.
    async fn create(&self, body: &Job, says: &Says) -> Result<Job, NotLaunched> {
        let name = body.metadata.name.clone().unwrap_or_default();
        let (began, mut patience) = (Instant::now(), Patience::default());
        loop {
            let error = match within(self.jobs().create(&PostParams::default(), body)).await {
                Ok(job) => return Ok(job),
                Err(error) => error,
            };
            let why = said(&error);
            match code(&error) {
                409 => match self.found(body, &name).await {
                    Ok(Some(job)) => return Ok(job),
                    Ok(None) => {
                        let reason = format!("there is a Job {name} already, and it is not this attempt's");
                        return Err(NotLaunched { reason, retryable: true });
                    }
                    Err(error) => tracing::warn!(name, error = said(&error), "a Job cannot be looked at"),
                },
                _ if !may_pass(&error) || began.elapsed() > LAUNCH_WITHIN => {
                    // A namespace can be made; a Job that is none stays so.
                    let retryable = !matches!(code(&error), 400 | 422);
                    return Err(NotLaunched {
                        reason: format!("the cluster does not take the Job {name}: {why}"),
                        retryable,
                    });
                }
                _ => {}
            }
            tracing::warn!(name, error = why, "a Job is not created; it is tried again");
            patience.wait(says, format!("its Job {name} is not created yet: {why}")).await;
        }
    }

    /// The Job of this name, if it is the one that would be made, and was not let go.
    async fn found(&self, body: &Job, name: &str) -> Result<Option<Job>, kube::Error> {
        let found = within(self.jobs().get(name)).await?;
        let released = within(self.secrets().get_opt(name)).await?.is_some();
        let same = body.metadata.labels.as_ref().is_some_and(|ours| {
            let theirs = found.metadata.labels.clone().unwrap_or_default();
            ours.iter().all(|(label, value)| theirs.get(label) == Some(value))
        });
        Ok(Some(found).filter(|found| same && !released && found.metadata.deletion_timestamp.is_none()))
    }

    /// Makes the budget, which keeps the pod from being evicted, and the Secret, which lets it start.
    async fn release(&self, job: &Job, files: &Files, token: &Token, says: &Says) {
        let policy = self.connection.server.policy();
        let silent: Says = Arc::new(|_| {});
        let budget = self.insist("policy", policy, "PodDisruptionBudget", manifest::budget(job, policy), &silent);
        let secret = self.insist("", "v1", "Secret", manifest::secret(job, files, token), says);
        tokio::join!(budget, secret);
    }

    /// Makes something that is an attempt's, however often that takes, unless it is refused for good.
    async fn insist(&self, group: &str, version: &str, kind: &str, body: serde_json::Value, says: &Says) {
        let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let (began, mut patience) = (Instant::now(), Patience::default());
        while let Err(error) = self.post(group, version, kind, &body).await {
            // An answer was lost. There are conflicts of other kinds: many who ask at once get in each other's way where there is a quota.
            if is_there(&error) {
                return;
            }
            let why = format!("its {kind} {name} is not created: {}", said(&error));
            tracing::warn!(name, error = why, "something that an attempt needs is not created");
            let is_final = !may_pass(&error) && code(&error) != 409;
            if is_final || began.elapsed() > LAUNCH_WITHIN {
                return says(why);
            }
            patience.wait(says, why).await;
        }
    }

    async fn post(&self, group: &str, version: &str, kind: &str, body: &serde_json::Value) -> Result<(), kube::Error> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let (client, namespace): (Client, &str) = (self.connection.client.clone(), &self.connection.namespace);
        let object: DynamicObject = serde_json::from_value(body.clone()).map_err(kube::Error::SerdeError)?;
        let api = Api::<DynamicObject>::namespaced_with(client, namespace, &resource);
        within(api.create(&PostParams::default(), &object)).await.map(drop)
    }

    /// Whether neither Job nor pods are there, by the word of the server itself.
    async fn is_gone(&self, handle: &Handle) -> Result<bool, kube::Error> {
        let job = within(self.jobs().get_opt(&handle.name)).await?;
        if job.is_some_and(|job| job.metadata.uid.as_deref() == Some(&handle.uid)) {
            return Ok(false);
        }
        self.has_no_pods(handle).await
    }

    /// Whether the server knows no pod of a Job. By whose it is, and not by labels alone: those can be taken away.
    async fn has_no_pods(&self, handle: &Handle) -> Result<bool, kube::Error> {
        let pods = within(self.pods().list(&ListParams::default())).await?;
        let is_of = |pod: &Pod| {
            let mut owners = pod.metadata.owner_references.iter().flatten();
            owners.any(|owner| owner.uid == handle.uid) || informer::job_of(pod).as_deref() == Some(&handle.name)
        };
        Ok(!pods.items.iter().any(is_of))
    }

    /// Watches an attempt until it is dead.
    async fn watch(&self, handle: &Handle, says: &Says) -> Death {
        let mut changes = self.informer.changes();
        let mut doom = None;
        loop {
            changes.mark_unchanged();
            match self.informer.look(&handle.name, &handle.uid) {
                Some(Sight::Dead(death)) => return ending::because(doom, death),
                Some(Sight::Doomed(why)) => {
                    tracing::warn!(job = handle.name, why, "an attempt's pod is taken away: its Job is deleted");
                    doom.get_or_insert(why);
                    self.delete(handle).await;
                }
                Some(Sight::Alive(how)) => says(how),
                Some(Sight::Podless(death)) if self.has_no_pods(handle).await.unwrap_or(false) => {
                    return ending::because(doom, death);
                }
                Some(Sight::Nothing) if self.is_gone(handle).await.unwrap_or(false) => {
                    let how = "its Job and its pod are gone, and nobody has said how it ended".into();
                    return ending::because(doom, Death { how, retryable: true });
                }
                Some(Sight::Podless(_) | Sight::Nothing) | None => {}
            }
            changed(&mut changes, LOOK).await;
        }
    }
}

impl Launcher for Kubernetes {
    fn launch(&self, order: Order, says: Says) -> BoxFuture<'_, Result<Option<Launched>, NotLaunched>> {
        Box::pin(async move { self.start(order, says).await.map(Some) })
    }

    fn watch<'a>(&'a self, handle: &'a str, says: Says) -> BoxFuture<'a, Death> {
        Box::pin(async move {
            let (cluster, handle) = self.home(handle, &says).await;
            cluster.watch(&handle, &says).await
        })
    }

    fn end(&self, ending: Ending, says: Says) -> BoxFuture<'_, Death> {
        Box::pin(async move {
            let silent: Says = Arc::new(|_| {});
            match &ending.handle {
                Some(handle) => {
                    let (cluster, handle) = self.home(handle, &says).await;
                    cluster.end(&handle, &ending, &says).await
                }
                None => {
                    let cluster = self.reached(&silent).await;
                    cluster.end_unnoted(&ending, &self.settings.service).await
                }
            }
        })
    }

    fn settle(&self, handle: &str) {
        if let (Some(cluster), Some(handle)) = (self.cluster.get(), Handle::parse(handle)) {
            cluster.settled.lock().unwrap_or_else(PoisonError::into_inner).insert(handle.name);
        }
    }

    fn was_released<'a>(&'a self, handle: &'a str) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let silent: Says = Arc::new(|_| {});
            let mut patience = Patience::default();
            loop {
                let Some(handle) = Handle::parse(handle) else { return false };
                let cluster = self.reached(&silent).await;
                match within(cluster.secrets().get_opt(&handle.name)).await {
                    Ok(secret) => return secret.is_some() && handle.namespace == cluster.connection.uid,
                    Err(error) => patience.wait(&silent, said(&error)).await,
                }
            }
        })
    }

    fn leftovers(&self) -> BoxFuture<'_, Vec<Leftover>> {
        Box::pin(async move {
            let silent: Says = Arc::new(|_| {});
            let mut patience = Patience::default();
            loop {
                let cluster = self.reached(&silent).await;
                match cluster.leftovers(&self.settings.service).await {
                    Ok(leftovers) => return leftovers,
                    Err(error) => patience.wait(&silent, said(&error)).await,
                }
            }
        })
    }
}

impl Settings {
    /// Reads what agents are given.
    fn files(&self) -> Result<Files, String> {
        let read = |path: &PathBuf| std::fs::read(path).map_err(|error| format!("reading {}: {error}", path.display()));
        let mut trusted = self.config.trust.clone();
        if trusted.is_empty() {
            let reading = |error| format!("reading {}: {error}", self.trust.display());
            let entries = std::fs::read_dir(&self.trust).map_err(reading)?;
            trusted =
                entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().map_err(reading)?;
            // What a mounted ConfigMap has besides its files begins with a dot.
            trusted.retain(|path| path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b".")));
            trusted.sort();
        }
        if trusted.is_empty() {
            return Err(format!("there is no key that an agent could trust for images in {}", self.trust.display()));
        }
        Ok(Files {
            ca: read(&self.ca)?,
            ticket: read(&self.ticket)?,
            trusted: trusted.iter().map(read).collect::<Result<_, _>>()?,
            registry: self.config.registry_auth.as_ref().map(read).transpose()?,
        })
    }
}
