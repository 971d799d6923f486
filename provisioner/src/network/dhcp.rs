//! DHCP: busybox's `udhcpc` asks, this program applies.
//!
//! udhcpc runs for as long as the lease is used, and renews it. Its script only notes what it was given
//! (`lease.rs`), so that addresses and routes are set in one place, and only after they were checked. An address is given to
//! the kernel with its lifetime: if nobody renews the lease, it is gone when the lease is.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use imgstream::error::{Error, Kind, Result, Retry};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::Places;
use super::address::{self, Way};
use super::lease::{self, LEASES_VARIABLE, Lease, News};
use super::link;
use super::wait::Patience;
use crate::medium::check::MIN_MTU_IPV6;
use crate::medium::config::{Interface, Ipv6, Route};
use crate::tool;

/// How often is looked for a first lease, and for news of one.
const LOOK: Duration = Duration::from_millis(100);
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// An interface that gets a lease, and how its routes are used.
#[derive(Debug, Clone)]
pub(super) struct Lessee {
    name: String,
    metric: usize,
    /// Whether the lease may say the MTU, and the smallest that is taken.
    mtu: Option<u32>,
    /// Configured routes: they go when the address does, and must come again with it.
    routes: Vec<Route>,
}

/// A DHCP client with a lease that it renews; ended when this is dropped.
#[derive(Debug)]
pub(super) struct Kept {
    task: JoinHandle<()>,
}

impl Kept {
    /// Ends it. The lease is not given back: what is started next may get the same.
    pub(super) async fn end(mut self) {
        self.task.abort();
        // It was told to end, and says only that.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Lessee {
    /// The interface called `name`, configured as `interface`.
    pub(super) fn new(name: &str, interface: &Interface, metric: usize) -> Self {
        let smallest = if interface.ipv6 == Ipv6::Off { 0 } else { MIN_MTU_IPV6 };
        let mtu = interface.mtu.is_none().then_some(smallest);
        let routes = interface.routes.iter().filter(|route| route.to.address.is_ipv4()).cloned().collect();
        Lessee { name: name.to_owned(), metric, mtu, routes }
    }

    /// Gets a lease and applies it. Returns what renews it, and the name servers that it names.
    pub(super) async fn lease(self, places: &Places, patience: &Patience<'_>) -> Result<(Kept, Vec<IpAddr>)> {
        let file = lease::file(&places.leases, &self.name);
        let mut client = Client::start(&self.name, places, file)?;
        let what = format!("a DHCP lease for {}", self.name);
        let lease = match patience.during(&what, client.first()).await {
            Some(lease) => lease?,
            None => return Err(client.unanswered(patience.seconds())),
        };
        self.apply(&lease).await?;
        if let Some(trouble) = self.apply_mtu(&lease).await {
            patience.tell(trouble);
        }
        let dns = lease.dns.clone();
        let task = tokio::spawn(async move { self.keep(client, lease).await });
        Ok((Kept { task }, dns))
    }

    async fn apply(&self, lease: &Lease) -> Result<()> {
        address::add(&self.name, lease.address, lease.lasts).await?;
        for route in lease.routes.iter().chain(&self.routes) {
            address::add_route(&self.name, route, self.way(lease, route)).await?;
        }
        Ok(())
    }

    /// Routers outside of the leased network are usual where a host has a network of its own.
    fn way(&self, lease: &Lease, route: &Route) -> Way {
        Way { metric: self.metric, onlink: route.via.is_some_and(|via| !lease.address.contains(via)) }
    }

    /// Sets the lease's MTU, where none is configured. What is wrong with it is told: many a server names one that its
    /// network does not have.
    async fn apply_mtu(&self, lease: &Lease) -> Option<String> {
        let (mtu, smallest) = (lease.mtu?, self.mtu?);
        if mtu < smallest {
            return Some(format!("{}: DHCP names an MTU of {mtu}, too small for IPv6: not used", self.name));
        }
        let refused = link::set_mtu(&self.name, mtu).await.err()?;
        Some(format!("{}: DHCP names an MTU of {mtu}, which is not used: {refused}", self.name))
    }

    /// Follows what becomes of the lease.
    async fn keep(self, mut client: Client, lease: Lease) {
        let name = &self.name;
        let mut current = Some(lease);
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            match client.news() {
                Ok(None) => {}
                Ok(Some(News::Lease(lease))) => {
                    self.exchange(current.as_ref(), &lease).await;
                    current = Some(lease);
                }
                Ok(Some(News::Lost)) => {
                    if let Some(lost) = current.take() {
                        tracing::warn!("{name}: the DHCP lease of {} is lost", lost.address);
                        self.withdraw(&lost).await;
                    }
                }
                Err(odd) => tracing::warn!("{name}: the DHCP server has answered what makes no sense: {odd}"),
            }
            if let Some(how) = client.has_ended() {
                tracing::warn!("{name}: udhcpc has ended ({how}): the DHCP lease is not renewed any more");
                return;
            }
        }
    }

    /// Applies a lease that takes the place of one.
    async fn exchange(&self, old: Option<&Lease>, new: &Lease) {
        let name = &self.name;
        if let Some(old) = old.filter(|old| (old.address, &old.routes) != (new.address, &new.routes)) {
            tracing::warn!("{name}: DHCP has exchanged {} for {}, or its routes", old.address, new.address);
            self.withdraw(old).await;
        }
        if old.is_some_and(|old| old.dns != new.dns) {
            tracing::warn!("{name}: DHCP names other name servers now: those from before stay");
        }
        if let Err(error) = self.apply(new).await {
            tracing::warn!("{name}: applying a DHCP lease: {error}");
        }
    }

    /// Takes away what a lease gave. What is gone already is.
    async fn withdraw(&self, lease: &Lease) {
        for route in &lease.routes {
            let _ = address::remove_route(&self.name, route, self.way(lease, route)).await;
        }
        let _ = address::remove(&self.name, lease.address).await;
    }
}

/// A running udhcpc.
#[derive(Debug)]
struct Client {
    name: String,
    child: Child,
    file: PathBuf,
    said: Arc<Mutex<String>>,
}

impl Client {
    fn start(name: &str, places: &Places, file: PathBuf) -> Result<Self> {
        let dir = &places.leases;
        fs::create_dir_all(dir).map_err(|error| failed(format!("making {}: {error}", dir.display())))?;
        // One from before would be believed.
        let _ = fs::remove_file(&file);
        let mut command = Command::new("busybox");
        command.args([
            "udhcpc",
            "-f",
            "-i",
            name,
            "-t",
            "5",
            "-T",
            "2",
            "-A",
            "3",
            "-O",
            "mtu",
            "-O",
            "staticroutes",
            "-s",
        ]);
        command.arg(&places.script).env_clear().env("PATH", tool::PATH).env(LEASES_VARIABLE, dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.kill_on_drop(true).process_group(0);
        let mut child = command.spawn().map_err(|error| {
            failed(format!("starting busybox udhcpc: {error}")).with_hint("install busybox with its applet udhcpc")
        })?;
        let said = Arc::new(Mutex::new(String::new()));
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(listen(stderr, Arc::clone(&said)));
        }
        Ok(Client { name: name.to_owned(), child, file, said })
    }

    fn news(&self) -> std::result::Result<Option<News>, String> {
        lease::take(&self.file)
    }

    /// How it has ended, if it has.
    fn has_ended(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(format!("{status}: {}", self.last_words())),
            Err(error) => Some(error.to_string()),
        }
    }

    fn last_words(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first lease.
    async fn first(&mut self) -> Result<Lease> {
        loop {
            match self.news() {
                Ok(Some(News::Lease(lease))) => return Ok(lease),
                // It says so when it starts.
                Ok(Some(News::Lost) | None) => {}
                Err(odd) => {
                    let name = &self.name;
                    return Err(failed(format!("{name}: the DHCP server offers what makes no sense: {odd}"))
                        .with_retry(Retry::Temporary)
                        .with_hint(
                            "look at the DHCP server, and whether it is the right one; or configure addresses",
                        ));
                }
            }
            if let Some(how) = self.has_ended() {
                return Err(failed(format!("{}: udhcpc has ended without a lease ({how})", self.name))
                    .with_retry(Retry::Temporary)
                    .with_hint("look at the kernel log; udhcpc needs packet sockets (module af_packet)"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn unanswered(&self, seconds: u64) -> Error {
        let words = self.last_words();
        Error::source_failed(format!("{}: no DHCP lease after {seconds} s (udhcpc says: {words})", self.name))
            .with_hint("look whether a DHCP server serves this network and VLAN; or configure `ipv4` as `static`")
    }
}

fn failed(message: String) -> Error {
    Error::new(Kind::Source, message)
}

/// Keeps what it says last.
async fn listen(stderr: tokio::process::ChildStderr, said: Arc<Mutex<String>>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::debug!("{line}");
        *said.lock().unwrap_or_else(PoisonError::into_inner) = line.trim_start_matches("udhcpc: ").to_owned();
    }
}
