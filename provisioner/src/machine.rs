//! What an agent does that has a machine to itself, because it was booted from the medium: it joins the network, and says what becomes
//! of the machine afterwards.

use std::time::Duration;

use imgstream::error::{Kind, Result};
use imgstream::source::{Dial, SourceOptions};
use protocol::event::{Body, Phase, Step};
use protocol::spec::HandOver;
use tokio_util::sync::CancellationToken;

use crate::ipsec::demand::Demand;
use crate::medium::Config;
use crate::medium::ended::Ended;
use crate::network;
use crate::report::{Last, Reporter};
use crate::tool::Tool;

/// The machine.
pub struct Machine {
    config: Config,
    network: Option<network::Up>,
    /// What the firmware was told to start, in words.
    ipl: Option<String>,
}

impl Machine {
    /// With nothing set up yet.
    pub fn new(config: Config) -> Self {
        Self { config, network: None, ipl: None }
    }

    /// Brings up what is configured.
    ///
    /// # Errors
    /// `Source`, naming the interface or the gateway, and what to do.
    pub async fn join(&mut self, reporter: &Reporter, cancel: &CancellationToken) -> Result<String> {
        let step = |step| reporter.emit(Body::StepStarted { phase: Phase::Network, step });
        let tell = |message| reporter.emit(Body::Warning { message });
        step(Step::Interfaces);
        let up = network::bring_up(&self.config.network, &tell, cancel).await?;
        // Disks have been looked at meanwhile. What is not there now is waited for where it is needed.
        Tool::new("udevadm").args(["settle", "--timeout=30"]).kind(Kind::Device).end().await?;
        let joined = up.to_string();
        self.network = Some(up);
        Ok(joined)
    }

    /// Takes note of what the firmware was told to start.
    pub fn starts(&mut self, from: String) {
        self.ipl = Some(from);
    }

    /// After the last event: tells whom it concerns, leaves the network, and says what becomes of the machine. `say` hears what a person
    /// should know.
    pub async fn end(mut self, last: &Last, say: &dyn Fn(&str)) -> Ended {
        let told = self.report(last).await;
        for left in self.leave().await {
            say(&format!("left as it is: {left}"));
        }
        match (last.body(), told) {
            (Some(Body::RunFinished(_)), Ok(())) => self.becomes(),
            (Some(Body::RunFinished(_)), Err(error)) => failed(error.to_string(), error.hint()),
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
    async fn report(&self, last: &Last) -> Result<()> {
        let (Some(report), Some(_)) = (&self.config.report, &self.network) else { return Ok(()) };
        let options = SourceOptions {
            vet: Demand::new(self.config.run.ipsec).vet(),
            local_addresses: self.config.local_addresses(),
            ..SourceOptions::default()
        };
        last.deliver(&report.url, Duration::from_secs(report.within), &Dial::new(&options)).await
    }

    /// Says what could not be taken down.
    async fn leave(&mut self) -> Vec<String> {
        match self.network.take() {
            Some(network) => network.down().await,
            None => Vec::new(),
        }
    }
}

fn failed(message: String, hint: Option<&str>) -> Ended {
    Ended::Failed { message, hint: hint.unwrap_or("docs/operating.md explains each error").to_owned() }
}
