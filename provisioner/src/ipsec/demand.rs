//! What a run demands of the way from its sources, and who sees to it: each connection is looked at before it is made, and before its
//! first byte.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use imgstream::error::{Error, Kind, Result, Retry};
use imgstream::source::{Boxed, Vet};
use protocol::spec::IpsecDemand;
use tokio::net::TcpSocket;
use tokio::time::Instant;

use super::flow::{self, Exposed, Flow, Protection, Why};
use super::host::{Host, ThisHost};

/// How long one connection waits for a security association that is not there yet. Fetching tries again, and waits longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait between two looks at the kernel.
const PAUSE: Duration = Duration::from_millis(250);

/// What is demanded of the way from the sources.
#[derive(Debug, Clone)]
pub enum Demand {
    /// IPsec that this agent sees in the kernel.
    Required(Arc<Required>),
    /// Protection that the platform has promised.
    Platform,
    /// Nothing.
    NotRequired,
}

impl Demand {
    /// What a spec demands.
    pub fn new(demand: IpsecDemand) -> Self {
        match demand {
            IpsecDemand::Required => Demand::Required(Arc::new(Required::on(ThisHost))),
            IpsecDemand::Platform => Demand::Platform,
            IpsecDemand::NotRequired => Demand::NotRequired,
        }
    }

    /// Who is to be asked before each connection.
    pub fn vet(&self) -> Option<Arc<dyn Vet>> {
        match self {
            Demand::Required(required) => Some(Arc::clone(required) as Arc<dyn Vet>),
            Demand::Platform | Demand::NotRequired => None,
        }
    }
}

/// What has protected the way, for the summary.
impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Demand::Required(required) => write!(f, "required: {}", required.found()),
            Demand::Platform => f.write_str("platform: not seen from here"),
            Demand::NotRequired => f.write_str("not required"),
        }
    }
}

/// Lets pass what IPsec protects.
#[derive(Debug)]
pub struct Required {
    host: Box<dyn Host>,
    protections: Mutex<BTreeSet<Protection>>,
}

impl Required {
    pub(super) fn on(host: impl Host + 'static) -> Self {
        Required { host: Box::new(host), protections: Mutex::default() }
    }

    /// Looks until the flow is protected, or waiting cannot help any more.
    async fn protected(&self, flow: Flow) -> Result<()> {
        let peer = flow.peer.ip().to_canonical();
        // What stays on this machine goes through no network.
        if peer.is_loopback() || self.host.addresses()?.contains(&peer) {
            return Ok(());
        }
        self.switched_on(peer)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let exposed = match flow::check(&flow, &self.host.databases()?) {
                Ok(protection) => {
                    self.protections.lock().unwrap_or_else(PoisonError::into_inner).insert(protection);
                    return Ok(());
                }
                Err(exposed) => exposed,
            };
            let next = Instant::now() + PAUSE;
            if !exposed.why.may_pass() || next > deadline {
                return Err(exposed.into());
            }
            tracing::debug!("waiting for IPsec: {}", exposed.message);
            call_for(&flow, &exposed, next).await;
            tokio::time::sleep_until(next).await;
        }
    }

    /// An interface can be set to ignore all policies for what goes out by IPv4.
    fn switched_on(&self, peer: IpAddr) -> Result<()> {
        let off = if peer.is_ipv4() { self.host.switched_off() } else { Vec::new() };
        if off.is_empty() {
            return Ok(());
        }
        let (settings, off) = (off.iter().map(|name| format!("net.ipv4.conf.{name}.disable_xfrm=0")), off.join(", "));
        Err(Error::new(Kind::Source, format!("IPsec does not protect what leaves by {off}: disable_xfrm is set there"))
            .with_retry(Retry::Permanent)
            .with_hint(format!("sysctl {}", settings.collect::<Vec<_>>().join(" "))))
    }

    fn found(&self) -> String {
        let protections = self.protections.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ways = BTreeMap::<String, BTreeSet<u32>>::new();
        for protection in protections.iter() {
            ways.entry(protection.to_string()).or_default().insert(protection.reqid);
        }
        if ways.is_empty() {
            return "no source was on another machine".into();
        }
        let ways = ways.iter().map(|(way, pairs)| match pairs.len() {
            1 => format!("{way}, a pair of security associations"),
            several => format!("{way}, {several} pairs of security associations"),
        });
        ways.collect::<Vec<_>>().join("; ")
    }
}

/// Where a policy waits for packets before it has a security association negotiated, a connection's first packet is one. It does not
/// leave before there is one.
async fn call_for(flow: &Flow, exposed: &Exposed, until: Instant) {
    if exposed.why == Why::NoAssociation {
        let calling = async {
            let socket = if flow.peer.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.bind((flow.local, 0).into())?;
            socket.connect(flow.peer).await
        };
        // Whether it gets through is of no matter: the kernel has heard.
        let _ = tokio::time::timeout_at(until, calling).await;
    }
}

impl Vet for Required {
    fn may_connect(&self, local: IpAddr, peer: SocketAddr) -> Boxed<'_, Result<()>> {
        Box::pin(self.protected(Flow { local, local_port: None, peer }))
    }

    fn may_send(&self, local: SocketAddr, peer: SocketAddr) -> Boxed<'_, Result<()>> {
        Box::pin(self.protected(Flow { local: local.ip(), local_port: Some(local.port()), peer }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipsec::flow::tests as flows;
    use crate::ipsec::kernel::Databases;

    /// A host whose tunnel is up from the look with this number on.
    #[derive(Debug)]
    struct Slow {
        looks: Mutex<usize>,
        up_at: usize,
        off: Vec<String>,
    }

    impl Host for Slow {
        fn databases(&self) -> Result<Databases> {
            let mut looks = self.looks.lock().unwrap();
            *looks += 1;
            let mut found = flows::up();
            if *looks < self.up_at {
                found.associations.clear();
            }
            Ok(found)
        }

        fn addresses(&self) -> Result<Vec<IpAddr>> {
            Ok(vec!["10.10.1.1".parse().unwrap()])
        }

        fn switched_off(&self) -> Vec<String> {
            self.off.clone()
        }
    }

    fn required(up_at: usize) -> Required {
        Required::on(Slow { looks: Mutex::new(0), up_at, off: Vec::new() })
    }

    fn flow(peer: &str) -> Flow {
        Flow { peer: peer.parse().unwrap(), ..flows::flow() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_that_comes_back_soon_is_waited_for() {
        let required = Arc::new(required(4));
        required.protected(flow("10.10.2.1:80")).await.unwrap();
        assert_eq!(
            Demand::Required(required).to_string(),
            "required: ESP tunnel 10.9.0.2 → 10.9.0.1, AES-256-GCM, a pair of security associations"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_come_back_is_a_temporary_error_of_the_source() {
        let began = Instant::now();
        let error = required(usize::MAX).protected(flow("10.10.2.1:80")).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (Kind::Source, Retry::Temporary));
        assert!(began.elapsed() <= PATIENCE, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_policy_protects_is_refused_at_once() {
        let began = Instant::now();
        let error = required(0).protected(flow("192.0.2.1:80")).await.unwrap_err();
        assert_eq!((error.kind(), error.retry(), began.elapsed()), (Kind::Source, Retry::Permanent, Duration::ZERO));
        assert!(error.hint().unwrap().contains("not-required"));
    }

    #[tokio::test]
    async fn what_stays_on_this_machine_is_asked_nothing() {
        let required = Arc::new(required(usize::MAX));
        for peer in ["127.0.0.1:80", "[::1]:80", "[::ffff:127.0.0.2]:80", "10.10.1.1:80"] {
            required.protected(flow(peer)).await.unwrap();
        }
        assert_eq!(Demand::Required(required).to_string(), "required: no source was on another machine");
    }

    #[tokio::test]
    async fn an_interface_that_ignores_policies_protects_nothing() {
        let off = vec!["eth0".to_owned(), "eth1".to_owned()];
        let required = Required::on(Slow { looks: Mutex::new(0), up_at: 0, off });
        let error = required.protected(flow("10.10.2.1:80")).await.unwrap_err();
        assert!(error.to_string().contains("eth0, eth1"), "{error}");
        let hint = "sysctl net.ipv4.conf.eth0.disable_xfrm=0 net.ipv4.conf.eth1.disable_xfrm=0";
        assert_eq!((error.hint(), error.retry()), (Some(hint), Retry::Permanent));
    }

    #[test]
    fn other_demands_ask_nobody() {
        for (demand, said) in
            [(IpsecDemand::Platform, "platform: not seen from here"), (IpsecDemand::NotRequired, "not required")]
        {
            let demand = Demand::new(demand);
            assert!(demand.vet().is_none());
            assert_eq!(demand.to_string(), said);
        }
        assert!(Demand::new(IpsecDemand::default()).vet().is_some());
    }
}
