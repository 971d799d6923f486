//! What an agent does that has a machine to itself, because it was booted from the medium: it joins the network, and says what becomes
//! of the machine afterwards.

use std::time::Duration;

use imgstream::error::{Error, Kind, Result};
use imgstream::source::{Dial, SourceOptions};
use protocol::event::{Body, Phase, Step};
use protocol::spec::{HandOver, IpsecDemand, Place, RunSpec};
use tokio_util::sync::CancellationToken;

use crate::ipsec::demand::Demand;
use crate::ipsec::{Vcn, policy};
use crate::medium::Config;
use crate::medium::ended::Ended;
use crate::network;
use crate::report::{Last, Voice, failure};
use crate::tool::Tool;

/// The machine.
pub struct Machine {
    config: Config,
    /// What is demanded of its ways through the network.
    demand: IpsecDemand,
    voice: Voice,
    network: Option<network::Up>,
    vcn: Option<Vcn>,
    /// What it has joined, in words, once it has.
    joined: Option<String>,
    /// Ends what watches the tunnels.
    watching: CancellationToken,
    /// What the firmware was told to start, in words.
    ipl: Option<String>,
}

impl Machine {
    /// With nothing set up yet.
    pub fn new(config: Config, demand: IpsecDemand, voice: Voice) -> Self {
        let watching = CancellationToken::new();
        Self { config, demand, voice, network: None, vcn: None, joined: None, watching, ipl: None }
    }

    /// Joins what is configured, unless it has, and says what that is. Unless packets may go in the clear, everything is blocked first,
    /// and stays blocked until the machine starts anew.
    ///
    /// # Errors
    /// `Source`, naming the interface or the gateway, and what to do.
    pub async fn join(&mut self, cancel: &CancellationToken) -> Result<String> {
        if let Some(joined) = &self.joined {
            return Ok(joined.clone());
        }
        let joined = self.join_networks(cancel).await?;
        self.joined = Some(joined.clone());
        Ok(joined)
    }

    /// Joins, and meanwhile sees to it that the target of this run is there.
    ///
    /// # Errors
    /// Those of [`Machine::join`]; `Device` when udev does not come to rest.
    pub async fn join_for(&mut self, spec: &RunSpec, cancel: &CancellationToken) -> Result<String> {
        // A LUN is waited for where it is needed; any other device is there when udev has looked at all of them.
        let is_device = matches!(spec.target.place(), Some(Place::Device(_)));
        let settling = async {
            let settle = Tool::new("udevadm").args(["settle", "--timeout=30"]).kind(Kind::Device);
            if is_device { settle.end().await.map(drop) } else { Ok(()) }
        };
        let (joined, settled) = tokio::join!(self.join(cancel), settling);
        settled.and(joined)
    }

    async fn join_networks(&mut self, cancel: &CancellationToken) -> Result<String> {
        let step = |step| self.voice.tell(Body::StepStarted { phase: Phase::Network, step });
        let tell = |message| self.voice.warn(message);
        let Config { network, ipsec, .. } = &self.config;
        step(Step::Interfaces);
        let clear = ipsec.as_ref().map_or(&[][..], |ipsec| &ipsec.clear);
        if ipsec.is_some() || self.demand == IpsecDemand::Required {
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
            let voice = self.voice.clone();
            tokio::spawn(vcn.watch().run(move |message| voice.warn(message), self.watching.clone()));
            self.vcn = Some(vcn);
        }
        Ok(joined)
    }

    /// Takes note of what the firmware was told to start.
    pub fn starts(&mut self, from: String) {
        self.ipl = Some(from);
    }

    /// Tells `report` the last event, where one is configured. A machine that never got onto the network has nobody to tell it to.
    ///
    /// # Errors
    /// Those of [`Last::deliver`].
    pub async fn report(&self, last: &Last, cancel: &CancellationToken) -> Result<()> {
        let Some(report) = self.config.report.as_ref().filter(|_| self.joined.is_some()) else { return Ok(()) };
        let options = SourceOptions {
            vet: Demand::new(self.demand).vet(),
            local_addresses: self.config.local_addresses(),
            ..SourceOptions::default()
        };
        let (within, say) = (Duration::from_secs(report.within), |text: &str| self.voice.say(text));
        last.deliver(&report.url, within, Dial::new(&options), &say, cancel).await
    }

    /// After the last event of a run, and after whom it concerns was told it, or not: leaves the network, and says what becomes of the
    /// machine.
    pub async fn end(mut self, last: &Body, told: Result<()>, hand_over: HandOver) -> Ended {
        self.leave().await;
        match (last, told) {
            (Body::RunFinished(_), Ok(())) => self.becomes(hand_over),
            (Body::RunFinished(_), Err(error)) => {
                Ended::NotStarted { message: error.to_string(), hint: error.hint().unwrap_or_default().to_owned() }
            }
            (Body::RunFailed(failure), told) => {
                if let Err(error) = told {
                    self.voice.say(&format!("warning: {error}"));
                }
                failed(failure.message.clone(), failure.hint.as_deref())
            }
            _ => failed("the run has no end".into(), None),
        }
    }

    /// When it did not come to a run: says so, leaves the network, and says what becomes of the machine.
    pub async fn give_up(mut self, error: &Error) -> Ended {
        let failure = failure::before_the_run(error);
        self.voice.say_failed(&failure);
        self.leave().await;
        failed(failure.message, failure.hint.as_deref())
    }

    /// What the run asked for.
    fn becomes(self, hand_over: HandOver) -> Ended {
        match (hand_over, self.ipl) {
            (HandOver::None, _) => Ended::Stay,
            (HandOver::Halt, _) => Ended::Halt,
            (HandOver::ReIpl, Some(from)) => Ended::ReIpl { from },
            (HandOver::ReIpl, None) => {
                failed("the firmware was not told what to start".into(), Some("IPL the disk by hand"))
            }
        }
    }

    /// Leaves the network, and says what could not be taken down.
    async fn leave(&mut self) {
        self.watching.cancel();
        let left_vcn = match self.vcn.take() {
            Some(vcn) => vcn.leave().await,
            None => Ok(()),
        };
        let mut left: Vec<String> = left_vcn.err().iter().map(ToString::to_string).collect();
        if let Some(network) = self.network.take() {
            left.extend(network.down().await);
        }
        left.iter().for_each(|left| self.voice.say(&format!("left as it is: {left}")));
    }
}

fn failed(message: String, hint: Option<&str>) -> Ended {
    Ended::Failed { message, hint: hint.unwrap_or("docs/operating.md explains each error").to_owned() }
}

#[cfg(test)]
mod tests {
    use imgstream::error::Retry;
    use serde_json::json;

    use super::*;
    use crate::report::Screen;

    /// One that has joined nothing.
    fn machine() -> Machine {
        let config = json!({
            "made": "2026-07-14T08:00:00Z", "server": "s", "trust": {"images": ["k"]}, "network": {"interfaces": []},
            "orchestrator": {"url": "https://o", "token": "t"},
        });
        let config = serde_json::from_value(config).unwrap();
        Machine::new(config, IpsecDemand::Required, Voice::new(Screen::new(false)))
    }

    fn finished() -> Body {
        let digest = format!("sha256:{}", "0".repeat(64));
        let image = json!({"name": "i", "version": 1, "architecture": "s390x", "digest": digest, "signers": []});
        let event = json!({
            "kind": "run-finished", "image": image, "target": {"device": "d", "size": 1}, "raw_bytes": 1, "data_bytes": 1,
            "zero_bytes": 0, "fetched_bytes": 1, "proof": {"read-back": {"bytes": 1}}, "engine": "e", "retries": 0,
            "phases": [], "write_seconds": 0.0, "read_back_seconds": 0.0, "total_seconds": 0.0,
        });
        serde_json::from_value(event).unwrap()
    }

    #[tokio::test]
    async fn nothing_is_started_of_which_nobody_knows() {
        let mut ready = machine();
        ready.starts("device 0.0.1000".into());
        let told = Err(Error::source_failed("not accepted").with_hint("look"));
        let ended = ready.end(&finished(), told, HandOver::ReIpl).await;
        assert_eq!(ended, Ended::NotStarted { message: "not accepted".into(), hint: "look".into() });

        let mut ready = machine();
        ready.starts("device 0.0.1000".into());
        let ended = ready.end(&finished(), Ok(()), HandOver::ReIpl).await;
        assert_eq!(ended, Ended::ReIpl { from: "device 0.0.1000".into() });
        let unready = machine().end(&finished(), Ok(()), HandOver::ReIpl).await;
        assert!(
            matches!(unready, Ended::Failed { message, .. } if message == "the firmware was not told what to start")
        );
        assert_eq!(machine().end(&finished(), Ok(()), HandOver::Halt).await, Ended::Halt);
        assert_eq!(machine().end(&finished(), Ok(()), HandOver::None).await, Ended::Stay);
    }

    #[tokio::test]
    async fn what_has_failed_stays_failed_whoever_was_told() {
        let error = Error::target("too small").with_retry(Retry::Permanent).with_hint("another disk");
        let last = Body::RunFailed(Box::new(failure::before_the_run(&error)));
        let failed = Ended::Failed { message: "too small".into(), hint: "another disk".into() };
        for told in [Ok(()), Err(Error::source_failed("not accepted"))] {
            assert_eq!(machine().end(&last, told, HandOver::ReIpl).await, failed);
        }
        assert_eq!(machine().give_up(&error).await, failed);
        let Ended::Failed { hint, .. } = machine().give_up(&Error::cancelled("enrolling")).await else { panic!() };
        assert!(!hint.is_empty(), "there is always something to do");
    }
}
