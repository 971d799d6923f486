//! What the types of a configuration do not say of it as a whole: what is out of its bounds, what contradicts another key, and which of
//! its two kinds it is.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use protocol::ServerName;
use protocol::spec::{IpsecDemand, KeySource, RunSpec};

use super::config::{Clear, Config, Ipsec, Ipv4, Ipv6, Orchestrator, Report};
use crate::control::Address;
use crate::report::last;

/// Days that a configuration may be good for.
const MAX_AGE_DAYS: RangeInclusive<u32> = 1..=3650;
/// Seconds that the end may take to be accepted.
const TELLING: RangeInclusive<u64> = 1..=3600;
/// Seconds that enrolling may take.
const ENROLLING: RangeInclusive<u64> = 1..=86_400;

/// What a machine is to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Task<'a> {
    /// This run.
    Run(&'a RunSpec),
    /// The run that this service has for it.
    Enrol(&'a Orchestrator),
}

impl Task<'_> {
    /// What is demanded of its ways through the network.
    pub fn ipsec(self) -> IpsecDemand {
        match self {
            Task::Run(run) => run.ipsec,
            Task::Enrol(service) => service.ipsec,
        }
    }
}

fn holds(rule: bool, broken: &str) -> Result<(), String> {
    if rule { Ok(()) } else { Err(broken.to_owned()) }
}

impl Config {
    /// Checks what the types alone do not say.
    ///
    /// # Errors
    /// The first key whose value is out of its bounds, or contradicts another.
    pub fn check(&self) -> Result<(), String> {
        holds(!self.server.is_empty(), "`server` is empty")?;
        holds(MAX_AGE_DAYS.contains(&self.max_age_days), "`max_age_days` must be 1 to 3650")?;
        holds(!self.trust.images.is_empty(), "`trust.images` is empty: no image could be trusted")?;
        self.report.as_ref().map_or(Ok(()), Report::check)?;
        self.network.check()?;
        self.ipsec.as_ref().map_or(Ok(()), Ipsec::check)?;
        match self.task()? {
            Task::Run(run) => self.check_run(run)?,
            Task::Enrol(service) => self.check_orchestrator(service)?,
        }
        self.ipsec.as_ref().map_or(Ok(()), |ipsec| self.check_inside(ipsec))
    }

    /// What the machine is to do.
    ///
    /// # Errors
    /// When nothing says so, or two keys do.
    pub fn task(&self) -> Result<Task<'_>, String> {
        match (&self.run, &self.orchestrator) {
            (Some(run), None) => Ok(Task::Run(run)),
            (None, Some(service)) => Ok(Task::Enrol(service)),
            (None, None) => Err("neither `run` nor `orchestrator` says what is to be done: give one of them".into()),
            (Some(_), Some(_)) => {
                Err("`run` and `orchestrator` both say what is to be done: leave one of them out".into())
            }
        }
    }

    fn check_run(&self, run: &RunSpec) -> Result<(), String> {
        let stranger = run.image.trust.iter().find(|key| !self.trust.images.contains(key));
        if let Some(stranger) = stranger {
            return Err(format!("`run.image.trust` names {}, which `trust.images` does not", stranger.display()));
        }
        run.check().map_err(|error| format!("`run`: {error}"))?;
        let encrypts = run.target.layout.encrypts();
        holds(
            run.key == KeySource::Agent,
            "`run.key` is `service`, and no service has the run: give `orchestrator` instead of `run`, or leave `run.key` out",
        )?;
        holds(encrypts || self.luks_key.is_none(), "`luks_key` is given, but `run.target.layout` is `plain`")?;
        holds(!encrypts || self.luks_key.is_some(), "`run.target.layout` encrypts, and there is no `luks_key`")?;
        self.check_protected("run.ipsec", run.ipsec)
    }

    /// Which layout there will be, and so whether `luks_key` fits, is known when the service has said it.
    fn check_orchestrator(&self, service: &Orchestrator) -> Result<(), String> {
        let url = Address::of_service(&service.url).map_err(|error| format!("`orchestrator.url`: {error}"))?;
        holds(url.is_https(), "`orchestrator.url` must begin with https://: the service is somewhere else")?;
        holds(
            !self.trust.tickets.is_empty(),
            "`trust.tickets` is empty: give the key with which the service of `orchestrator` signs tickets (its `ticket.pub`)",
        )?;
        holds(
            self.trust.orchestrator_ca.is_some(),
            "`trust.orchestrator_ca` is missing: give the authority that vouches for the service of `orchestrator` (its `ca.pem`)",
        )?;
        holds(
            self.report.is_none(),
            "`report` is given, but the service of `orchestrator` is told of the end: leave `report` out",
        )?;
        self.server_name()?;
        holds(ENROLLING.contains(&service.enrol_within), "`orchestrator.enrol_within` must be 1 to 86400 seconds")?;
        holds(TELLING.contains(&service.report_within), "`orchestrator.report_within` must be 1 to 3600 seconds")?;
        self.check_protected("orchestrator.ipsec", service.ipsec)
    }

    /// The server, as an orchestrating service knows it.
    ///
    /// # Errors
    /// When that could not be its name.
    pub fn server_name(&self) -> Result<ServerName, String> {
        ServerName::try_from(self.server.clone())
            .map_err(|error| format!("`server`: {error}; the service must know it by this name"))
    }

    fn check_protected(&self, key: &str, demand: IpsecDemand) -> Result<(), String> {
        if self.ipsec.is_some() || demand != IpsecDemand::Required {
            return Ok(());
        }
        Err(format!("`{key}` is `required`, as it is unless it says otherwise, and there is no `ipsec`"))
    }

    /// What tunnels need of the network.
    fn check_inside(&self, ipsec: &Ipsec) -> Result<(), String> {
        let interfaces = &self.network.interfaces;
        if interfaces.iter().any(|of| of.ipv6 != Ipv6::Off) && !ipsec.clear.contains(&Clear::NeighbourDiscovery) {
            return Err("`ipsec.clear` must name `neighbour-discovery` where an interface has IPv6: no neighbour would be found".into());
        }
        if interfaces.iter().any(|of| of.ipv4 == Ipv4::Dhcp) {
            // Which addresses there will be is not known.
            return if ipsec.clear.contains(&Clear::Dhcp) {
                Ok(())
            } else {
                Err("`ipsec.clear` must name `dhcp` where an interface has it: the lease could not be renewed".into())
            };
        }
        let has = |address: IpAddr| {
            interfaces.iter().any(|of| {
                let four = matches!(&of.ipv4, Ipv4::Static { addresses, .. } if addresses.iter().any(|net| net.address == address));
                let six = matches!(&of.ipv6, Ipv6::Static { addresses, .. } if addresses.iter().any(|net| net.address == address));
                four || six || (of.ipv6 == Ipv6::Auto && address.is_ipv6())
            })
        };
        let stranger = ipsec
            .tunnels
            .iter()
            .enumerate()
            .find_map(|(number, tunnel)| Some((number, tunnel.local.filter(|local| !has(*local))?)));
        match stranger {
            Some((number, local)) => Err(format!("`ipsec.tunnels[{number}].local` is {local}, which no interface has")),
            None => Ok(()),
        }
    }
}

impl Report {
    fn check(&self) -> Result<(), String> {
        holds(TELLING.contains(&self.within), "`report.within` must be 1 to 3600 seconds")?;
        last::parts(&self.url).map(drop).map_err(|error| format!("`report.url`: {error}"))
    }
}
