//! The service, put together: what it is, where it keeps runs, who launches, and who may ask.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use protocol::control::agent::Terms;
use protocol::control::run::LauncherKind;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::config::{self, Config};
use crate::engine::{Engine, Keeper, Settings};
use crate::error::{Context, Error, Result};
use crate::identity::{Certificates, Folder, Identity, LET_GO, TICKET_PUBLIC};
use crate::keys::{KEK, Kek, Sealer, Vault, kek_of};
use crate::launch::{External, Kubernetes, KubernetesSettings, Launchers, Process, ProcessSettings};
use crate::metrics::Metrics;
use crate::model::{BackOff, Moment, Record, Sealed};
use crate::store::{self, Filter, Store};

/// How often it is looked whether the certificate has to be renewed.
const REFRESH: Duration = Duration::from_secs(3600);
/// Folder of the keys that agents trust for images, in the data folder.
const TRUST: &str = "trust";
/// Folder of what agents say, in the data folder.
const LOGS: &str = "agents";

/// Serves until it is cancelled.
///
/// # Errors
/// What is configured cannot be had, or another service has taken over the store.
pub async fn run(config: Config, cancel: CancellationToken) -> Result<()> {
    let identity = Identity::open(&config, Moment::of_wall_clock())?;
    let store = store::open(&config.location(identity.folder.path())?).await.map_err(|error| {
        Error::unavailable(format!("opening the store: {error}")).with_hint("see that it can be reached and written")
    })?;
    let keeper = keeper(&config, &identity.folder, &*store).await?;
    let policy = config.policy(identity.folder.path());
    if let Err(why) = policy.look() {
        tracing::error!("no run is created: the policy for images {}: {why}", policy.path().display());
    }
    let (listeners, addresses) = listen(&config.listen).await?;
    let metrics = Metrics::default();
    let settings = Settings {
        limits: config.schedule_limits(),
        back_off: BackOff {
            first: Duration::from_secs(config.retry.first_seconds),
            most: Duration::from_secs(config.retry.most_seconds),
        },
        lease: Terms { seconds: config.lease.seconds, renew_after: config.lease.renew_after },
        grace: Duration::from_secs(config.lease.grace),
        enrol_within: Duration::from_secs(config.patience.enrol),
        cancel_within: Duration::from_secs(config.patience.cancel),
        launchers: launchers(&config, identity.folder.path(), &addresses)?,
        credentials: identity.keys.clone(),
        metrics: metrics.clone(),
        keeper,
        policy: Arc::new(policy),
        retention: config.retention.time(),
    };
    let ending = cancel.child_token();
    let (engine, mut deciding) = Engine::start(store, settings, ending.clone())
        .await
        .map_err(|error| Error::unavailable(format!("reading the runs: {error}")))?;
    let api_limits = within_files(api_limits(&config.limits))?;
    let drain = cancel.child_token();
    let api_settings = api::Settings {
        people: identity.people,
        tokens: identity.keys.sessions.clone(),
        limits: api_limits.clone(),
        drain: drain.clone(),
        metrics: metrics.clone(),
    };
    let app = api::router(Arc::new(engine), api_settings);
    let config = Arc::new(identity.certificates.server_config(&identity.clients)?);
    let tls = api::Tls { config, clients: identity.clients };
    let mut serving = tokio::spawn(api::serve(listeners, Some(tls), app, api_limits, drain.clone(), metrics));
    tokio::spawn(refresh(identity.certificates, cancel.clone()));
    for address in &addresses {
        tracing::info!("listening on https://{address}");
    }
    let decided = tokio::select! {
        // In this order: a service that is stopped while nobody asks it anything has ended serving just as soon, and that is no defect.
        biased;
        () = cancel.cancelled() => None,
        decided = &mut deciding => Some(decided),
        served = &mut serving => {
            ending.cancel();
            let why = served.err().map_or_else(|| "it has ended".into(), |error| error.to_string());
            return Err(Error::system(format!("nothing is accepted any more: {why}"))
                .with_hint("start the service again: it goes on where it was; and report this"));
        }
    };
    // Requests in flight are answered before what answers them ends.
    drain.cancel();
    if !serving.is_finished() {
        let _ = serving.await;
    }
    ending.cancel();
    let decided = match decided {
        Some(decided) => decided,
        None => deciding.await,
    };
    match decided {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Error::refused(format!("{error}; this one has ended, and its agents go on"))
            .with_hint("one store has one service: see which other one was started on it")),
        Err(error) => Err(Error::system(format!("the engine has a defect: {error}"))
            .with_hint("start the service again: it goes on where it was; and report this")),
    }
}

/// What strangers may cost grows with the runs that there may be. Each agent keeps one connection, and has a second or third for a while, which
/// no stranger may take from it; it asks once a second, and more at the beginning and the end; and all those of this machine, or behind one
/// gateway, are one peer. Whoever orders so many runs asks for each a few times.
fn api_limits(limits: &config::Limits) -> api::Limits {
    let defaults = api::Limits::default();
    // So many for one caller, as all are who have the same token, and a third more, which it leaves to others.
    let watchers = usize::try_from(limits.watchers + limits.watchers.div_ceil(3)).unwrap_or(usize::MAX);
    let of_agents = usize::try_from(limits.runs).unwrap_or(usize::MAX).saturating_mul(4);
    let held = of_agents.saturating_add(watchers);
    let per_peer = limits.runs.saturating_mul(4);
    let per_person = limits.runs / 10;
    api::Limits {
        connections: defaults.connections.max(held.saturating_add(1024)),
        connections_per_peer: defaults.connections_per_peer.max(held.saturating_add(64)),
        connections_kept: defaults.connections_kept.max(of_agents / 4 * 3),
        watchers,
        per_peer: defaults.per_peer.at_least(per_peer),
        per_person: defaults.per_person.at_least(per_person),
        ..defaults
    }
}

/// Who keeps the keys of disks.
async fn keeper(config: &Config, folder: &Folder, store: &dyn Store) -> Result<Arc<dyn Keeper>> {
    if let Some(vault) = &config.keys.vault {
        return Ok(Arc::new(Vault::open(vault, service_id(folder.path())?).await?));
    }
    Ok(Arc::new(sealer(config, store, folder).await?))
}

/// What this service is known by to others: the first 16 hex digits of the SHA-256 of its ticket key.
fn service_id(data: &Path) -> Result<String> {
    let ticket = data.join(TICKET_PUBLIC);
    let key = std::fs::read(&ticket).doing(|| format!("reading {}", ticket.display()))?;
    let digest = ring::digest::digest(&ring::digest::SHA256, &key);
    Ok(digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

/// Keeps keys in the store. A key-encryption key that is not there is made where nothing is lost by it.
async fn sealer(config: &Config, store: &dyn Store, folder: &Folder) -> Result<Sealer> {
    let previous = Kek::previous(&config.keys)?;
    if Kek::is_to_be_made(&config.keys, folder) {
        must_have_sealed_nothing_else(store, folder, &previous).await?;
    }
    let sealer = Sealer::new(&Kek::open(&config.keys, folder)?)?.with_previous(&previous)?;
    tracing::info!("keys are sealed with the key-encryption key {}", sealer.id());
    let ids: Vec<&str> = sealer.previous().collect();
    if !ids.is_empty() {
        tracing::info!("keys that are sealed with {} are sealed anew with it", ids.join(", "));
    }
    Ok(sealer)
}

/// No more connections than there may be open files, less what else is open: the store, logs, processes, clusters. Strangers that take all
/// of them must not take those.
fn within_files(limits: api::Limits) -> Result<api::Limits> {
    const OTHERS: u64 = 256;
    let (files, _) = getrlimit(Resource::RLIMIT_NOFILE).doing(|| "reading how many files may be open".into())?;
    let room = usize::try_from(files.saturating_sub(OTHERS).max(files / 2)).unwrap_or(usize::MAX);
    Ok(api::Limits { connections: limits.connections.min(room), ..limits })
}

/// A new key-encryption key opens nothing that was sealed before with others than these: one that is lost is not replaced without a word.
async fn must_have_sealed_nothing_else(store: &dyn Store, folder: &Folder, previous: &[Kek]) -> Result<()> {
    const PAGE: u32 = 1000;
    let previous: Vec<String> = previous.iter().map(Kek::id).collect();
    let is_known = |sealed: &Sealed| kek_of(sealed).is_some_and(|kek| previous.contains(&kek));
    let mut before = None;
    loop {
        let runs = store.list(&Filter::default(), before, PAGE).await;
        let runs = runs.map_err(|error| Error::unavailable(format!("reading the runs: {error}")))?;
        let has_other =
            |record: &&Record| record.sealed().is_some_and(|sealed| !sealed.is_elsewhere() && !is_known(sealed));
        if let Some(record) = runs.iter().find(has_other) {
            let (kek, run) = (folder.file(KEK), &record.run);
            let which = if previous.is_empty() { "it" } else { "none of `keys.previous`" };
            return Err(Error::refused(format!("{} is lost, and the key of run {run} was sealed with {which}", kek.display()))
                .with_hint("restore it from a backup, or name it in `keys.previous` where it is to be changed. Where there is none, put a new one there (`head -c 32 /dev/urandom | base64`, mode 600): what was sealed before is lost then, as docs/operating.md says"));
        }
        match runs.last().filter(|_| runs.len() == PAGE as usize) {
            Some(last) => before = Some(last.seq),
            None => return Ok(()),
        }
    }
}

async fn listen(at: &[SocketAddr]) -> Result<(Vec<TcpListener>, Vec<SocketAddr>)> {
    let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
    for address in at {
        let began = Instant::now();
        let bound = loop {
            match TcpListener::bind(address).await {
                Err(error) if error.kind() == ErrorKind::AddrInUse && began.elapsed() < LET_GO => {
                    tokio::time::sleep(LET_GO / 40).await;
                }
                bound => break bound,
            }
        };
        let listener = bound.map_err(|error| {
            Error::usage(format!("listening on {address}: {error}"))
                .with_hint("see what listens there already (ss -ltnp), or set `listen`")
        })?;
        addresses.push(listener.local_addr().doing(|| format!("listening on {address}"))?);
        listeners.push(listener);
    }
    Ok((listeners, addresses))
}

fn launchers(config: &Config, data: &Path, addresses: &[SocketAddr]) -> Result<Launchers> {
    let mut launchers = Launchers::new();
    launchers.insert(LauncherKind::External, Arc::new(External));
    let command = command(config, data, addresses).map_err(|error| {
        // Whoever only waits for machines that boot by themselves needs none. Those that run are watched and killed all the same.
        tracing::warn!("no agent can be started here: {error}");
        error.to_string()
    });
    let logs = data.join(LOGS);
    std::fs::create_dir_all(&logs).doing(|| format!("making {}", logs.display()))?;
    let trust = data.join(TRUST);
    std::fs::create_dir_all(&trust).doing(|| format!("making {}", trust.display()))?;
    let trust = Some(trust).filter(|_| config.process.trust.is_empty());
    let process = Process::new(ProcessSettings { command, trust, logs });
    let process = process.doing(|| "setting up the launcher of processes".into())?;
    launchers.insert(LauncherKind::Process, Arc::new(process));
    if config.kubernetes.image.is_some() {
        let settings = kubernetes(config, data, addresses)?;
        launchers.insert(LauncherKind::Kubernetes, Arc::new(Kubernetes::new(settings)));
    }
    Ok(launchers)
}

/// What Jobs are made of.
fn kubernetes(config: &Config, data: &Path, addresses: &[SocketAddr]) -> Result<KubernetesSettings> {
    let of = &config.kubernetes;
    let port = addresses.first().map_or(0, SocketAddr::port);
    let named = config.names.first().map(|name| format!("https://{name}:{port}"));
    let url = of.url.clone().or(named).ok_or_else(|| {
        Error::usage("nothing says where pods find the service")
            .with_hint("set `kubernetes.url`, and its name in `names`")
    })?;
    let ca = of.ca.clone().or_else(|| config.process_ca(data)).ok_or_else(|| {
        Error::usage("nothing says by which certificates agents in pods know the service")
            .with_hint("set `kubernetes.ca`")
    })?;
    let ticket = data.join(TICKET_PUBLIC);
    let service = service_id(data)?;
    let (report_within, trust) = (config.report_within, data.join(TRUST));
    Ok(KubernetesSettings { config: of.clone(), url, service, report_within, ca, ticket, trust })
}

/// How an agent is started on this machine.
fn command(config: &Config, data: &Path, addresses: &[SocketAddr]) -> Result<(PathBuf, Vec<String>)> {
    let agent = config.process.agent()?;
    let ca = config.process_ca(data).ok_or_else(|| {
        Error::usage("nothing says by which certificates agents know the service").with_hint("set `process.ca`")
    })?;
    let file = |path: &Path| path.display().to_string();
    let mut arguments = vec!["--orchestrator".to_owned(), url(config, addresses)?];
    arguments.extend(["--orchestrator-ca".to_owned(), file(&ca)]);
    arguments.extend(["--ticket-key".to_owned(), file(&data.join(TICKET_PUBLIC))]);
    arguments.extend(config.process.trust.iter().flat_map(|key| ["--trust".to_owned(), file(key)]));
    arguments.extend(config.process.registry_auth.iter().flat_map(|auth| ["--registry-auth".to_owned(), file(auth)]));
    arguments.extend(["--report-within".to_owned(), config.report_within.to_string()]);
    arguments.extend(config.process.args.iter().cloned());
    Ok((agent, arguments))
}

/// Where agents of this machine find the service.
fn url(config: &Config, addresses: &[SocketAddr]) -> Result<String> {
    let address = addresses.first().ok_or_else(|| Error::usage("`listen` is empty"))?;
    let host = match config.names.first().filter(|_| config.tls.is_some()) {
        Some(name) if name.contains(':') => format!("[{name}]"),
        Some(name) => name.clone(),
        None if address.ip().is_unspecified() && address.is_ipv6() => "[::1]".into(),
        None if address.ip().is_unspecified() => "127.0.0.1".into(),
        None if address.is_ipv6() => format!("[{}]", address.ip()),
        None => address.ip().to_string(),
    };
    Ok(format!("https://{host}:{}", address.port()))
}

async fn refresh(certificates: Arc<Certificates>, cancel: CancellationToken) {
    while cancel.run_until_cancelled(tokio::time::sleep(REFRESH)).await.is_some() {
        match certificates.refresh(Moment::of_wall_clock()) {
            Ok(true) => tracing::info!("the certificate was renewed"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the certificate is not renewed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_let_go_soon_is_waited_for_and_another_is_named() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = held.local_addr().unwrap();
        let error = listen(&[address]).await.unwrap_err();
        assert!(error.lines().contains(&format!("listening on {address}")), "{}", error.lines());
        let letting_go = std::thread::spawn(move || {
            std::thread::sleep(LET_GO / 4);
            drop(held);
        });
        assert_eq!(listen(&[address]).await.unwrap().1, [address]);
        letting_go.join().unwrap();
    }

    #[test]
    fn what_strangers_may_cost_grows_with_the_runs() {
        let few = api_limits(&config::Limits::default());
        let defaults = api::Limits::default();
        assert_eq!((few.watchers, few.per_peer, few.per_person), (256 + 86, defaults.per_peer, defaults.per_person));
        let many = api_limits(&config::Limits { runs: 10_000, watchers: 1050, ..config::Limits::default() });
        assert!(many.connections_per_peer > 3 * 10_000 + 1050 && many.connections > many.connections_per_peer);
        assert!(many.per_peer.per_second >= 2 * 10_000 && many.per_peer.burst >= 2 * many.per_peer.per_second);
        assert!(many.per_person.per_second >= 1000 && many.per_caller == defaults.per_caller);
        assert_eq!(many.watchers, 1050 + 350);
        let per_peer = many.connections_per_peer;
        assert!(many.connections_kept >= 3 * 10_000 && per_peer - many.connections_kept > 10_000 + 1400);
    }
}
