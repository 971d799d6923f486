//! IPsec: the VCN that the agent joins where no operating system has done it, and what protects the way from the sources.
//!
//! [`policy`] blocks everything before a link is up; [`Vcn::join`] then brings up the tunnels; [`demand`] looks at each connection,
//! whoever has brought them up.

pub(crate) mod credentials;
pub mod demand;
mod explain;
pub mod flow;
mod host;
pub mod kernel;
mod mtu;
pub mod policy;
pub mod status;
pub mod strongswan;
pub mod vici;
mod watch;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use imgstream::error::{Error, Kind, Result};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use self::credentials::Credentials;
use self::status::Status;
use self::strongswan::{Daemon, NAME, Settings, child};
use self::vici::{Message, Vici};
use crate::medium::config::Ipsec;
use crate::medium::net::Net;
use crate::tool::Tool;

pub use self::watch::Watch;

/// How long leaving may wait for the gateway.
const LEAVING: Duration = Duration::from_secs(3);

/// The VCN, joined. Where it is dropped instead of left, the IKE daemon is killed, and the kernel goes on protecting what it was told to.
#[derive(Debug)]
pub struct Vcn {
    daemon: Daemon,
    status: Status,
    local_addresses: Vec<IpAddr>,
    tunnels: Vec<String>,
}

/// One line: what it is, with whom.
impl fmt::Display for Vcn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Status { gateway, identity, .. } = &self.status;
        let tunnels = match self.tunnels.len() {
            1 => "a tunnel".into(),
            several => format!("{several} tunnels"),
        };
        write!(f, "{tunnels} to {gateway}, AES-256-GCM, proven as {identity}")
    }
}

impl Vcn {
    /// Starts the IKE daemon and brings up all tunnels, within the configuration's time. `tell` is told what is waited for.
    ///
    /// Everything must be blocked already that is to stay in: see [`policy::block_all`].
    ///
    /// # Errors
    /// [`Kind::Usage`] for a mistake in the configuration or its files; [`Kind::Source`] when the tunnels do not come up, with the
    /// reason and what to do: permanent where the two ends cannot agree, temporary where the gateway does not answer;
    /// [`Kind::Cancelled`].
    pub async fn join(config: &Ipsec, tell: &dyn Fn(String), cancel: &CancellationToken) -> Result<Vcn> {
        Self::join_with(config, Settings::default(), tell, cancel).await
    }

    /// The same with another IKE daemon, or in another folder.
    ///
    /// # Errors
    /// As of [`Vcn::join`].
    pub async fn join_with(
        config: &Ipsec,
        settings: Settings,
        tell: &dyn Fn(String),
        cancel: &CancellationToken,
    ) -> Result<Vcn> {
        config.check().map_err(Error::usage)?;
        let credentials = Credentials::read(&config.auth)?;
        let deadline = Instant::now() + Duration::from_secs(config.wait);
        let joining = Self::bring_up(config, settings, &credentials, deadline, tell);
        let cancelled = || Error::cancelled("joining the VCN");
        cancel.run_until_cancelled(joining).await.unwrap_or_else(|| Err(cancelled()))
    }

    async fn bring_up(
        config: &Ipsec,
        mut settings: Settings,
        credentials: &Credentials,
        deadline: Instant,
        tell: &dyn Fn(String),
    ) -> Result<Vcn> {
        settings.segment = segment(config, deadline).await?;
        let daemon = Daemon::start(settings).await?;
        match establish(&daemon, config, credentials, deadline, tell).await {
            Ok(status) => {
                let local_addresses = local_addresses(config, &status);
                let tunnels = (0..config.tunnels.len()).map(child).collect();
                Ok(Vcn { daemon, status, local_addresses, tunnels })
            }
            Err(error) => {
                daemon.stop().await;
                Err(error)
            }
        }
    }

    /// This machine's addresses inside, to make connections from: each has a tunnel, and a security association, of its own.
    pub fn local_addresses(&self) -> &[IpAddr] {
        &self.local_addresses
    }

    /// Who tells when a tunnel goes down and comes back, and sees to it that it does.
    pub fn watch(&self) -> Watch {
        Watch::new(self.daemon.settings().socket(), self.tunnels.clone(), self.status.gateway.clone())
    }

    /// Takes leave of the gateway, ends the IKE daemon, and has the kernel forget all security associations. Everything stays blocked.
    ///
    /// # Errors
    /// [`Kind::Source`] when the kernel does not forget them; all the rest is done then.
    pub async fn leave(self) -> Result<()> {
        if let Ok(mut vici) = self.daemon.talk().await {
            let milliseconds = LEAVING.as_millis().to_string();
            let farewell = Message::new().with("ike", NAME).with("timeout", milliseconds).with("loglevel", "-1");
            // A gateway that does not answer finds out by itself.
            let _ = vici.command_within(LEAVING * 2, "terminate", &farewell, |_, _| ()).await;
        }
        self.daemon.stop().await;
        Tool::new("ip").args(["xfrm", "state", "flush"]).kind(Kind::Source).run().await.map(drop)
    }
}

/// The size of TCP segments that fit into every tunnel.
async fn segment(config: &Ipsec, deadline: Instant) -> Result<u32> {
    let gateway = address_of(&config.gateway, deadline).await?;
    let inside = mtu::inside(mtu::of_link_to(gateway).await?, gateway.is_ipv4());
    Ok(mtu::segment(inside, config.tunnels.iter().all(crate::medium::config::Tunnel::is_ipv4)))
}

/// The gateway's address. Name servers may take a moment to be reachable.
async fn address_of(gateway: &str, deadline: Instant) -> Result<IpAddr> {
    if let Ok(address) = gateway.parse() {
        return Ok(address);
    }
    let unknown = |why: &dyn fmt::Display| {
        Error::source_failed(format!("the VCN's gateway {gateway} cannot be looked up: {why}"))
            .with_hint("look at the name, at the name servers, and whether the way to them is open (`ipsec.clear`)")
    };
    loop {
        let looking = tokio::net::lookup_host((gateway, 500));
        let why = match timeout_at(deadline, looking).await.map(|found| found.map(|mut found| found.next())) {
            Ok(Ok(Some(found))) => return Ok(SocketAddr::ip(&found)),
            Ok(Ok(None)) => unknown(&"it has no address"),
            Ok(Err(error)) => unknown(&error),
            Err(_) => return Err(unknown(&"no name server answers")),
        };
        if Instant::now() + Duration::from_secs(1) > deadline {
            return Err(why);
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Has the tunnels established, one after the other: the first proves who is who, the others go through the same connection.
async fn establish(
    daemon: &Daemon,
    config: &Ipsec,
    credentials: &Credentials,
    deadline: Instant,
    tell: &dyn Fn(String),
) -> Result<Status> {
    let mut vici = daemon.talk().await?;
    daemon.load(&mut vici, config, credentials).await?;
    vici.register("control-log").await?;
    for number in 0..config.tunnels.len() {
        initiate(&mut vici, config, number, deadline, tell).await?;
    }
    let status = Status::of(&mut vici).await?;
    status.check()?;
    complete(&status, config, tell)?;
    Ok(status)
}

async fn initiate(
    vici: &mut Vici,
    config: &Ipsec,
    number: usize,
    deadline: Instant,
    tell: &dyn Fn(String),
) -> Result<()> {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let order =
        Message::new().with("child", child(number)).with("ike", NAME).with("timeout", left.as_millis().to_string());
    let mut log = Vec::new();
    let hear = |_: &str, event: Message| {
        let said = event.text("msg").unwrap_or_default();
        if said.starts_with("retransmit ") || said.starts_with("peer not responding") {
            tell(format!("{} does not answer yet: {said}", config.gateway));
        }
        log.push(said);
    };
    // The daemon keeps the time; it is given a little more to say so.
    let answer = vici.command_within(left + Duration::from_secs(5), "initiate", &order, hear).await;
    answer.map(drop).map_err(|error| explain::failed(&log, config, OffsetDateTime::now_utc(), error))
}

/// That the gateway has agreed to all of what is to go through, and has given the addresses it was asked for.
fn complete(status: &Status, config: &Ipsec, tell: &dyn Fn(String)) -> Result<()> {
    for (number, tunnel) in config.tunnels.iter().enumerate() {
        let Some(up) = status.tunnels.iter().find(|up| up.name == child(number)) else {
            return Err(Error::source_failed(format!("{} was up and is gone again", child(number)))
                .with_hint("look at the gateway's log for why it has ended it"));
        };
        let granted = || up.remote.iter().filter_map(|granted| granted.parse::<Net<IpAddr>>().ok());
        let is_granted =
            |net: &&Net<IpAddr>| granted().any(|granted| granted.prefix <= net.prefix && granted.contains(net.address));
        let lacking = tunnel.remote.iter().filter(|net| !is_granted(net)).map(ToString::to_string).collect::<Vec<_>>();
        if !lacking.is_empty() {
            let (lacking, granted) = (lacking.join(", "), up.remote.join(", "));
            tell(format!(
                "tunnel {}: the gateway grants {granted} instead of {lacking}: the rest stays blocked",
                number + 1
            ));
        }
    }
    Ok(())
}

/// Those that were configured, in their order, then those that the gateway has given.
fn local_addresses(config: &Ipsec, status: &Status) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    let given = status.given.iter().copied();
    for address in config.tunnels.iter().filter_map(|tunnel| tunnel.local).chain(given) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}
