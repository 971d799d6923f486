//! What an agent does that has a machine to itself, because it was booted from the medium: it joins the network, and says what becomes
//! of the machine afterwards.

use imgstream::error::Result;
use protocol::event::{Body, Failure, Phase, Step};
use protocol::spec::HandOver;
use tokio_util::sync::CancellationToken;

use crate::medium::Config;
use crate::medium::ended::Ended;
use crate::network;
use crate::report::Reporter;

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
        let joined = up.to_string();
        self.network = Some(up);
        Ok(joined)
    }

    /// Takes note of what the firmware was told to start.
    pub fn starts(&mut self, from: String) {
        self.ipl = Some(from);
    }

    /// After the run's last event: tells whom it may concern, leaves the network, and says what becomes of the machine.
    pub async fn end(self, last: &Body) -> Ended {
        match last {
            Body::RunFailed(failure) => failed(failure),
            _ => match (self.config.run.hand_over, self.ipl) {
                (HandOver::None, _) => Ended::Stay,
                (HandOver::Halt, _) => Ended::Halt,
                (HandOver::ReIpl, Some(from)) => Ended::ReIpl { from },
                (HandOver::ReIpl, None) => Ended::Failed {
                    message: "the firmware was not told what to start".into(),
                    hint: "IPL the disk by hand".into(),
                },
            },
        }
    }
}

fn failed(failure: &Failure) -> Ended {
    Ended::Failed {
        message: failure.message.clone(),
        hint: failure.hint.clone().unwrap_or_else(|| "docs/operating.md explains each exit code".into()),
    }
}
