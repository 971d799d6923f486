//! What an agent does that has a machine to itself, because it was booted from the medium: it joins the network, and says what becomes
//! of the machine afterwards.

use std::sync::Arc;
use std::time::Duration;

use imgstream::error::{Kind, Result};
use imgstream::source::{Dial, SourceOptions};
use protocol::event::{Body, Phase, Step};
use protocol::spec::{HandOver, IpsecDemand, Place};
use tokio_util::sync::CancellationToken;

use crate::ipsec::demand::Demand;
use crate::ipsec::{Vcn, policy};
use crate::medium::Config;
use crate::medium::ended::Ended;
use crate::network;
use crate::report::{Last, Reporter};
use crate::tool::Tool;

/// The machine.
pub struct Machine {
    config: Config,
    reporter: Arc<Reporter>,
    network: Option<network::Up>,
    vcn: Option<Vcn>,
    /// Ends what watches the tunnels.
    watching: CancellationToken,
    /// What the firmware was told to start, in words.
    ipl: Option<String>,
}

impl Machine {
    /// With nothing set up yet.
    pub fn new(config: Config, reporter: Arc<Reporter>) -> Self {
        Self { config, reporter, network: None, vcn: None, watching: CancellationToken::new(), ipl: None }
    }

    /// Joins what is configured. Unless the run lets packets go in the clear, everything is blocked first, and stays blocked until the
    /// machine starts anew.
    ///
    /// # Errors
    /// `Source`, naming the interface or the gateway, and what to do.
    pub async fn join(&mut self, cancel: &CancellationToken) -> Result<String> {
        // A LUN is waited for where it is needed; any other device is there when udev has looked at all of them.
        let is_device = matches!(self.config.run.target.place(), Some(Place::Device(_)));
        let settling = async {
            let settle = Tool::new("udevadm").args(["settle", "--timeout=30"]).kind(Kind::Device);
            if is_device { settle.end().await.map(drop) } else { Ok(()) }
        };
        let (joined, settled) = tokio::join!(self.join_networks(cancel), settling);
        settled.and(joined)
    }

    async fn join_networks(&mut self, cancel: &CancellationToken) -> Result<String> {
        let step = |step| self.reporter.emit(Body::StepStarted { phase: Phase::Network, step });
        let tell = |message| self.reporter.emit(Body::Warning { message });
        let Config { network, ipsec, run, .. } = &self.config;
        step(Step::Interfaces);
        let clear = ipsec.as_ref().map_or(&[][..], |ipsec| &ipsec.clear);
        if ipsec.is_some() || run.ipsec == IpsecDemand::Required {
            policy::block_all().await?;
            policy::allow_clear(clear, &network.dns).await?;
        }
        let up = network::bring_up(network, &tell, cancel).await?;
        let mut joined = up.to_string();
        self.network = Some(up);
        if let Some(ipsec) = ipsec {
            step(Step::Ipsec);
            let vcn = Vcn::join(ipsec, &tell, cancel).await?;
            joined = format!("{joined}; {vcn}");
            let reporter = Arc::clone(&self.reporter);
            let hear = move |message| reporter.emit(Body::Warning { message });
            tokio::spawn(vcn.watch().run(hear, self.watching.clone()));
            self.vcn = Some(vcn);
        }
        Ok(joined)
    }

    /// Takes note of what the firmware was told to start.
    pub fn starts(&mut self, from: String) {
        self.ipl = Some(from);
    }

    /// After the last event: tells whom it concerns, leaves the network, and says what becomes of the machine. `say` hears what a person
    /// should know.
    pub async fn end(mut self, last: &Last, say: &dyn Fn(&str), cancel: &CancellationToken) -> Ended {
        let told = self.report(last, say, cancel).await;
        for left in self.leave().await {
            say(&format!("left as it is: {left}"));
        }
        match (last.body(), told) {
            (Some(Body::RunFinished(_)), Ok(())) => self.becomes(),
            (Some(Body::RunFinished(_)), Err(error)) => {
                Ended::NotStarted { message: error.to_string(), hint: error.hint().unwrap_or_default().to_owned() }
            }
            (Some(Body::RunFailed(failure)), told) => {
                if let Err(error) = told {
                    say(&format!("warning: {error}"));
                }
                failed(failure.message.clone(), failure.hint.as_deref())
            }
            _ => failed("the run has no end".into(), None),
        }
    }

    /// What the run asked for.
    fn becomes(self) -> Ended {
        match (self.config.run.hand_over, self.ipl) {
            (HandOver::None, _) => Ended::Stay,
            (HandOver::Halt, _) => Ended::Halt,
            (HandOver::ReIpl, Some(from)) => Ended::ReIpl { from },
            (HandOver::ReIpl, None) => {
                failed("the firmware was not told what to start".into(), Some("IPL the disk by hand"))
            }
        }
    }

    /// A machine that never got onto the network has nobody to tell it to.
    async fn report(&self, last: &Last, say: &dyn Fn(&str), cancel: &CancellationToken) -> Result<()> {
        let has_joined = self.network.is_some() && (self.vcn.is_some() || self.config.ipsec.is_none());
        let Some(report) = self.config.report.as_ref().filter(|_| has_joined) else { return Ok(()) };
        let options = SourceOptions {
            vet: Demand::new(self.config.run.ipsec).vet(),
            local_addresses: self.config.local_addresses(),
            ..SourceOptions::default()
        };
        last.deliver(&report.url, Duration::from_secs(report.within), Dial::new(&options), say, cancel).await
    }

    /// Says what could not be taken down.
    async fn leave(&mut self) -> Vec<String> {
        self.watching.cancel();
        let left_vcn = match self.vcn.take() {
            Some(vcn) => vcn.leave().await,
            None => Ok(()),
        };
        let mut left: Vec<String> = left_vcn.err().iter().map(ToString::to_string).collect();
        if let Some(network) = self.network.take() {
            left.extend(network.down().await);
        }
        left
    }
}

fn failed(message: String, hint: Option<&str>) -> Ended {
    Ended::Failed { message, hint: hint.unwrap_or("docs/operating.md explains each error").to_owned() }
}
