//! OSA and HiperSockets (qeth): from three device numbers to a network interface.
//!
//! A qeth device is a group of three subchannels (read, write, data). Steps, each of which can stand still and then has a
//! sentence of its own: the kernel knows the devices, the driver has them, they are a group, it is set to layer 2, it is
//! online, it has an interface.
//!
//! No emulator has qeth. This follows the kernel's source (drivers/s390/net/qeth_core_sys.c, qeth_core_main.c,
//! drivers/s390/cio/ccwgroup.c), Documentation/arch/s390/qeth.rst and chzdev of s390-tools (zdev/src/qeth.c), and is tested
//! on trees laid out like theirs; what a real machine does differently, that cannot show.

mod explain;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use imgstream::error::{Error, Result};

use self::explain::Stop;
use super::wait::Patience;
use crate::cio::{device_dir, is_ignored};
use crate::medium::check::is_name;
use crate::sysfs::{self, Roots};

/// The type of network devices' control units; the model differs (qeth_core_main.c, `qeth_ids`).
const NETWORK: &str = "1731/";
/// How long until a device that was busy is ordered again.
const BUSY: Duration = Duration::from_secs(1);
/// How long setting it offline may take.
const OFFLINE: Duration = Duration::from_secs(20);

/// A qeth device.
#[derive(Clone)]
pub struct Card {
    roots: Roots,
    channels: [String; 3],
    port: u8,
}

impl Card {
    /// The one with these read, write and data device numbers, on this port of the adapter.
    pub fn new(roots: &Roots, channels: &[String; 3], port: u8) -> Self {
        Card { roots: roots.clone(), channels: channels.clone(), port }
    }

    /// Its name: that of the read device.
    pub fn name(&self) -> &str {
        &self.channels[0]
    }

    /// Sets it online, on layer 2, for at most `wait`. Returns the name of its interface.
    ///
    /// # Errors
    /// `Source`, with where it stands still and what to check; temporary where waiting longer can help.
    pub async fn set_online(&self, wait: Duration, tell: &dyn Fn(String)) -> Result<String> {
        let patience = Patience::new(wait, tell);
        self.bring_up(&patience).await.map_err(|stop| self.error(&stop, &patience))
    }

    /// Sets it offline, if it is there and online.
    ///
    /// # Errors
    /// Why it is still online, in a sentence.
    pub async fn set_offline(&self) -> Result<(), String> {
        let (patience, online) = (Patience::new(OFFLINE, &|_| {}), self.group().join("online"));
        if !sysfs::is_set(&online) {
            return Ok(());
        }
        let set = self.order(&patience, "setting it offline", &online, "0").await;
        set.map_err(|stop| format!("still online: {}", self.error(&stop, &patience)))
    }

    async fn bring_up(&self, patience: &Patience<'_>) -> Result<String, Stop> {
        if !self.roots.sys("bus/ccw").is_dir() {
            return Err(Stop::NoChannels);
        }
        self.find(patience).await?;
        self.wait_for_driver(patience).await?;
        self.make_group(patience).await?;
        self.configure(patience).await?;
        let online = self.group().join("online");
        if !sysfs::is_set(&online) {
            self.order(patience, "setting it online", &online, "1").await.map_err(|stop| match stop {
                Stop::Refused(_, error) => Stop::NotOnline(error),
                stop => stop,
            })?;
        }
        let named = patience.until(&format!("the interface of {}", self.name()), || self.interface()).await;
        named.ok_or_else(|| Stop::NoInterface(self.about()))
    }

    /// Lets the kernel look at the three devices, if it was told not to.
    async fn find(&self, patience: &Patience<'_>) -> Result<(), Stop> {
        for channel in self.missing().filter(|channel| is_ignored(&self.roots, channel)) {
            let list = self.roots.proc("cio_ignore");
            self.order(patience, "freeing it (cio_ignore)", &list, &format!("free {channel}")).await?;
        }
        if self.missing().next().is_some() {
            // It answers when all that is known of the channels has been dealt with: what is not there then is not there.
            self.order(patience, "looking for it", &self.roots.proc("cio_settle"), "1").await?;
        }
        match self.missing().next() {
            Some(channel) if is_ignored(&self.roots, channel) => Err(Stop::Ignored(channel.clone())),
            Some(channel) => Err(Stop::Unknown(channel.clone())),
            None => Ok(()),
        }
    }

    fn missing(&self) -> impl Iterator<Item = &String> {
        self.channels.iter().filter(|channel| !device_dir(&self.roots, channel).is_dir())
    }

    /// Waits until the driver has all three, and sees whether they can be a group.
    async fn wait_for_driver(&self, patience: &Patience<'_>) -> Result<(), Stop> {
        let driver = |channel: &String| sysfs::link_name(&device_dir(&self.roots, channel).join("driver"));
        let kind = |channel: &String| sysfs::read(&device_dir(&self.roots, channel).join("cutype")).unwrap_or_default();
        // A device of another type never gets this driver.
        let is_decided = |channel: &String| driver(channel).is_some() || !kind(channel).starts_with(NETWORK);
        let are_decided = || self.channels.iter().all(is_decided).then_some(());
        let _ = patience.until(&format!("the driver of {}", self.name()), are_decided).await;
        for channel in &self.channels {
            let availability = sysfs::read(&device_dir(&self.roots, channel).join("availability")).unwrap_or_default();
            let name = channel.clone();
            match driver(channel).as_deref() {
                _ if !matches!(availability.as_str(), "" | "good") => return Err(Stop::NotGood(name, availability)),
                Some("qeth") => {}
                Some(other) => return Err(Stop::Foreign(name, other.to_owned())),
                None => return Err(Stop::NoDriver(name, kind(channel))),
            }
        }
        let mut paths = self.channels.iter().map(|channel| self.channel_paths(channel));
        let first = paths.next().flatten();
        match paths.flatten().find(|paths| first.as_ref().is_some_and(|first| paths != first)) {
            Some(other) => Err(Stop::OfTwoAdapters(first.unwrap_or_default(), other)),
            None => Ok(()),
        }
    }

    /// The channel paths of a device's subchannel, above it.
    fn channel_paths(&self, channel: &str) -> Option<String> {
        sysfs::read(&device_dir(&self.roots, channel).join("../chpids"))
    }

    /// Makes the three a group, if they are none yet.
    async fn make_group(&self, patience: &Patience<'_>) -> Result<(), Stop> {
        let group_of = |channel: &str| sysfs::link_name(&device_dir(&self.roots, channel).join("group_device"));
        for (number, channel) in self.channels.iter().enumerate() {
            let Some(group) = group_of(channel) else { continue };
            let place = sysfs::link_name(&self.group().join(format!("cdev{number}")));
            if group != self.name() || place.as_ref() != Some(channel) {
                return Err(Stop::Grouped(channel.clone(), group));
            }
        }
        if group_of(self.name()).is_none() {
            let attribute = self.roots.sys("bus/ccwgroup/drivers/qeth/group");
            let channels = self.channels.join(",");
            let grouped = self.order(patience, "grouping it", &attribute, &channels).await;
            grouped.map_err(|stop| match stop {
                Stop::Refused(_, error) => Stop::NotGrouped(error),
                stop => stop,
            })?;
        }
        let online = self.group().join("online");
        let there = patience.until(&format!("the group of {}", self.name()), || online.exists().then_some(())).await;
        there.ok_or(Stop::NoGroup)
    }

    /// Layer 2 and the port, which can be set only while it is offline.
    async fn configure(&self, patience: &Patience<'_>) -> Result<(), Stop> {
        let (layer, port) = (self.group().join("layer2"), self.group().join("portno"));
        let is_layer2 = sysfs::is_set(&layer);
        let is_port = sysfs::read(&port).is_none_or(|now| now == self.port.to_string());
        if is_layer2 && is_port {
            return Ok(());
        }
        let online = self.group().join("online");
        if sysfs::is_set(&online) {
            self.order(patience, "setting it offline", &online, "0").await?;
        }
        if !is_port {
            // It reads hexadecimal digits, and writes decimal ones.
            let set = self.order(patience, "setting its port", &port, &format!("{:x}", self.port)).await;
            set.map_err(|stop| match stop {
                Stop::Refused(_, error) => Stop::NoPort(self.port, error),
                stop => stop,
            })?;
        }
        if !is_layer2 {
            let set = self.order(patience, "setting it to layer 2", &layer, "1").await;
            set.map_err(|stop| match stop {
                Stop::Refused(_, error) => Stop::NotLayer2(error),
                stop => stop,
            })?;
        }
        Ok(())
    }

    /// The name of its interface, once that is registered: before, the kernel says `(unnamed net_device)`.
    fn interface(&self) -> Option<String> {
        let name = sysfs::read(&self.group().join("if_name")).filter(|name| is_name(name))?;
        self.roots.sys("class/net").join(&name).exists().then_some(name)
    }

    fn group(&self) -> PathBuf {
        self.roots.sys("bus/ccwgroup/devices").join(self.name())
    }

    /// What it is, and in which state.
    fn about(&self) -> String {
        let text = |name: &str| sysfs::read(&self.group().join(name)).unwrap_or_else(|| "unknown".into());
        format!("card_type `{}`, state `{}`", text("card_type"), text("state"))
    }

    fn error(&self, stop: &Stop, patience: &Patience<'_>) -> Error {
        explain::error(&self.channels, stop, &self.about(), patience.seconds())
    }

    /// Writes, again while the device is busy, until the kernel has answered.
    async fn order(&self, patience: &Patience<'_>, doing: &'static str, path: &Path, value: &str) -> Result<(), Stop> {
        let writing = async {
            loop {
                tracing::debug!(attribute = %path.display(), value, "writing");
                let answer = self.roots.write_aside(path, value).await.unwrap_or_else(|e| Err(io::Error::other(e)));
                match answer {
                    // Not EBUSY: that is an adapter that somebody else has.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(BUSY).await,
                    answer => return answer,
                }
            }
        };
        match patience.during(&format!("the kernel, {doing}: {}", self.name()), writing).await {
            Some(answer) => answer.map_err(|error| Stop::Refused(doing, error)),
            None => Err(Stop::Unanswered(doing)),
        }
    }
}
