//! Watching the tunnels: when one goes down, and when it is back. strongSwan brings them back by itself; where it has given up, it is told
//! to try again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use imgstream::error::Result;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::status::Status;
use super::strongswan::NAME;
use super::vici::{Message, Vici};

/// How often it is looked whether what should be up is.
const LOOK: Duration = Duration::from_secs(5);

/// Watches the tunnels of a VCN.
#[derive(Debug)]
pub struct Watch {
    socket: PathBuf,
    tunnels: Vec<String>,
    gateway: String,
    /// Those that are down, and since when.
    down: BTreeMap<String, Instant>,
}

impl Watch {
    pub(super) fn new(socket: PathBuf, tunnels: Vec<String>, gateway: String) -> Self {
        Watch { socket, tunnels, gateway, down: BTreeMap::new() }
    }

    /// Watches until it is cancelled, or the IKE daemon is gone. `tell` is told of each change, in a sentence.
    pub async fn run(mut self, mut tell: impl FnMut(String), cancel: CancellationToken) {
        if let Some(Err(error)) = cancel.run_until_cancelled(self.watch(&mut tell)).await {
            tell(format!("nobody sees to the tunnels to {} any more: {error}", self.gateway));
        }
    }

    async fn watch(&mut self, tell: &mut impl FnMut(String)) -> Result<()> {
        // Events come whenever they want: commands have a connection of their own.
        let mut events = self.connect().await?;
        events.register("child-updown").await?;
        let mut vici = self.connect().await?;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // What has been heard is only a reason to look.
                event = events.event() => drop(event?),
                _ = look.tick() => {}
            }
            let status = Status::of(&mut vici).await?;
            self.note(&status, tell);
            if !self.down.is_empty() && !status.busy {
                self.bring_back(&mut vici).await;
            }
        }
    }

    async fn connect(&self) -> Result<Vici> {
        Vici::connect(&self.socket).await.map_err(|error| {
            imgstream::error::Error::source_failed(format!("strongSwan's IKE daemon is gone: {error}"))
                .with_source(error)
        })
    }

    fn note(&mut self, status: &Status, tell: &mut impl FnMut(String)) {
        let gateway = &self.gateway;
        for name in &self.tunnels {
            match (status.has(name), self.down.contains_key(name)) {
                (false, false) => {
                    self.down.insert(name.clone(), Instant::now());
                    tell(format!("{name} to {gateway} is down: nothing leaves by it until it is back"));
                }
                (true, true) => {
                    let since = self.down.remove(name).map_or(0.0, |since| since.elapsed().as_secs_f32());
                    tell(format!("{name} to {gateway} is back after {since:.0} s"));
                }
                _ => {}
            }
        }
    }

    /// The daemon is not at work on any of them: it is told to be. It does not answer with what comes of it, which is seen later.
    async fn bring_back(&self, vici: &mut Vici) {
        for name in self.down.keys() {
            let order = Message::new().with("child", name).with("ike", NAME).with("timeout", "-1");
            if let Err(error) = vici.command("initiate", &order).await {
                tracing::debug!(%error, "{name} is not negotiated");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipsec::status::Up;

    #[test]
    fn what_goes_down_and_comes_back_is_told_once() {
        let mut watch = Watch::new("/none".into(), vec!["tunnel-1".into(), "tunnel-2".into()], "10.9.0.1".into());
        let up = |name: &str| Up { name: name.into(), local: vec![], remote: vec![], cipher: String::new() };
        let all = Status { tunnels: vec![up("tunnel-1"), up("tunnel-2")], ..Status::default() };
        let one = Status { tunnels: vec![up("tunnel-1")], ..Status::default() };
        let mut told = Vec::new();
        for status in [&all, &one, &one, &all, &all] {
            watch.note(status, &mut |said| told.push(said));
        }
        assert_eq!(
            told,
            [
                "tunnel-2 to 10.9.0.1 is down: nothing leaves by it until it is back",
                "tunnel-2 to 10.9.0.1 is back after 0 s"
            ]
        );
    }

    #[tokio::test]
    async fn a_daemon_that_is_gone_is_told() {
        let watch = Watch::new("/none".into(), vec!["tunnel-1".into()], "10.9.0.1".into());
        let mut told = Vec::new();
        watch.run(|said| told.push(said), CancellationToken::new()).await;
        assert!(told.len() == 1 && told[0].contains("nobody sees to the tunnels to 10.9.0.1"), "{told:?}");
    }
}
