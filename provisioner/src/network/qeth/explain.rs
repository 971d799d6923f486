//! Why a qeth device stands still, in words: what is known, what to check, and how.

use std::io;

use imgstream::error::{Error, Retry};
use nix::errno::Errno;

/// Where it stands still.
#[derive(Debug)]
pub(super) enum Stop {
    /// There are no channels at all.
    NoChannels,
    /// This device is ignored (`cio_ignore`), also after it was freed.
    Ignored(String),
    /// There is no such device.
    Unknown(String),
    /// Its availability.
    NotGood(String, String),
    /// Another driver has it.
    Foreign(String, String),
    /// No driver has it; type and model of its control unit.
    NoDriver(String, String),
    /// The channel paths of the first device, and of another.
    OfTwoAdapters(String, String),
    /// This device belongs to another group, or is another's place in its group.
    Grouped(String, String),
    /// The kernel refused to make the group.
    NotGrouped(io::Error),
    /// The group was made and does not appear.
    NoGroup,
    /// The kernel refused the port.
    NoPort(u8, io::Error),
    /// The kernel refused layer 2.
    NotLayer2(io::Error),
    /// The kernel could not set it online.
    NotOnline(io::Error),
    /// It is online and has no interface; what it is and in which state.
    NoInterface(String),
    /// The kernel refused something else.
    Refused(&'static str, io::Error),
    /// The kernel has not answered.
    Unanswered(&'static str),
}

/// What there is to say: how far it has come, what to check, and how.
type Words = (String, String, String);

/// That the device of these channels stands still, after `seconds` where waiting was tried; `about` says what it is.
pub(super) fn error(channels: &[String; 3], stop: &Stop, about: &str, seconds: u64) -> Error {
    let (state, check, hint) = match stop {
        Stop::NoChannels
        | Stop::Ignored(_)
        | Stop::Unknown(_)
        | Stop::NotGood(..)
        | Stop::Foreign(..)
        | Stop::NoDriver(..) => of_a_device(stop),
        Stop::OfTwoAdapters(..) | Stop::Grouped(..) | Stop::NotGrouped(_) => of_the_group(channels, stop),
        _ => of_the_card(&channels[0], stop, about),
    };
    let (whose, retry) = (whose(channels, stop), retry(stop));
    let waited = if is_waited_for(stop) { format!(" after {seconds} s") } else { String::new() };
    Error::source_failed(format!("{whose}: {state}{waited}: {check}")).with_hint(hint).with_retry(retry)
}

fn of_a_device(stop: &Stop) -> Words {
    let by_hand = "`lszdev --type qeth` lists the OSA and HiperSockets devices of this LPAR".to_owned();
    let (state, check) = match stop {
        Stop::Ignored(channel) => {
            let state = "ignored by the kernel (cio_ignore), also after it was freed".into();
            return (state, "look at the kernel log".into(), format!("`cio_ignore -r {channel}`"));
        }
        Stop::Unknown(_) => (
            "no such device".to_owned(),
            "look in the IOCDS, on the HMC, or in the z/VM directory, whether this system has it".to_owned(),
        ),
        Stop::NotGood(_, availability) => {
            (format!("it is `{availability}`"), "look at its channel path (CHPID) on the HMC".to_owned())
        }
        Stop::Foreign(_, driver) => (
            format!("the driver {driver} has it instead of qeth"),
            "correct `device.qeth.channels`, or the type of the device in the IOCDS".to_owned(),
        ),
        Stop::NoDriver(_, kind) if kind.starts_with(super::NETWORK) => {
            ("no driver has it".to_owned(), "load the module qeth".to_owned())
        }
        Stop::NoDriver(_, kind) => (
            format!("a device of type {kind}, which is neither OSA nor HiperSockets"),
            "correct `device.qeth.channels`".to_owned(),
        ),
        _ => ("this machine has no channels".to_owned(), "qeth is on IBM Z and LinuxONE alone".to_owned()),
    };
    (state, check, by_hand)
}

fn of_the_group(channels: &[String; 3], stop: &Stop) -> Words {
    let [read, write, data] = channels;
    let hint = "read, write and data device are usually three numbers in a row, of one adapter, the first one even: \
                `lszdev --type qeth` shows which belong together"
        .to_owned();
    match stop {
        Stop::OfTwoAdapters(first, other) => (
            format!("{read}, {write} and {data} are not of one adapter: channel paths {first} and {other}"),
            "correct `device.qeth.channels`".into(),
            hint,
        ),
        Stop::Grouped(channel, group) => (
            format!("{channel} belongs already to the group {group}, in another place than is configured"),
            "correct `device.qeth.channels`".into(),
            format!("undone with `echo 1 > /sys/bus/ccwgroup/devices/{group}/ungroup`, when it is offline"),
        ),
        Stop::NotGrouped(error) if error.kind() == io::ErrorKind::NotFound => (
            format!("the driver cannot be told to group it: {error}"),
            "load the module qeth".into(),
            "`modprobe -a qeth qeth_l2`".into(),
        ),
        Stop::NotGrouped(error) => (
            format!("the kernel does not take {read}, {write} and {data} as a group: {error}"),
            "look whether they are three devices of one adapter, and of one type".into(),
            hint,
        ),
        _ => (String::new(), String::new(), hint),
    }
}

fn of_the_card(name: &str, stop: &Stop, about: &str) -> Words {
    let log = "look at the kernel log".to_owned();
    let by_hand = format!("`lsqeth -p` and `lszdev qeth {name} --info` show the device ({about})");
    match stop {
        Stop::NoPort(port, error) => (
            format!("port {port} was refused: {error}"),
            "look how many ports the adapter has, and correct `device.qeth.port`".into(),
            by_hand,
        ),
        Stop::NotLayer2(error) => {
            let check = match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EOPNOTSUPP) => "it is fixed to layer 3: under z/VM define the LAN or VSWITCH as ETHERNET",
                Some(Errno::EPERM) => "it is not offline yet: try again",
                Some(Errno::EINVAL) => "load the module qeth_l2",
                _ => "look at the kernel log",
            };
            (format!("layer 2 was refused: {error}"), check.into(), by_hand)
        }
        Stop::NotOnline(error) => {
            let check = match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EBUSY) => "another system has the adapter for itself: let it go there, or take another one",
                Some(Errno::EPERM | Errno::EACCES) => {
                    "this system may not use it: under z/VM grant the guest access to the VSWITCH, else see the HMC"
                }
                Some(Errno::ENODEV) => "the adapter is gone or does not answer: look at its CHPID on the HMC",
                _ => "look at the kernel log, and at the adapter's CHPID on the HMC",
            };
            (format!("setting it online failed ({about}): {error}"), check.into(), by_hand)
        }
        Stop::NoInterface(about) => (format!("online, no interface ({about})"), log, by_hand),
        Stop::NoGroup => ("its group does not appear".into(), log, by_hand),
        Stop::Refused(doing, error) => {
            let check = match error.kind() {
                io::ErrorKind::PermissionDenied => "run as root".into(),
                io::ErrorKind::ReadOnlyFilesystem => "sysfs is read-only here".into(),
                _ => log,
            };
            (format!("{doing} failed: {error}"), check, by_hand)
        }
        Stop::Unanswered(doing) => (format!("the kernel has not finished {doing}"), log, by_hand),
        _ => (String::new(), log, by_hand),
    }
}

/// Which device a sentence is about.
fn whose<'a>(channels: &'a [String; 3], stop: &'a Stop) -> &'a str {
    match stop {
        Stop::Ignored(channel)
        | Stop::Unknown(channel)
        | Stop::NotGood(channel, _)
        | Stop::Foreign(channel, _)
        | Stop::NoDriver(channel, _) => channel,
        _ => &channels[0],
    }
}

fn is_waited_for(stop: &Stop) -> bool {
    matches!(stop, Stop::NoDriver(..) | Stop::NoGroup | Stop::NoInterface(_) | Stop::Unanswered(_))
}

fn retry(stop: &Stop) -> Retry {
    match stop {
        Stop::NoChannels
        | Stop::Unknown(_)
        | Stop::Foreign(..)
        | Stop::NoDriver(..)
        | Stop::OfTwoAdapters(..)
        | Stop::Grouped(..)
        | Stop::NotGrouped(_)
        | Stop::NoPort(..) => Retry::Permanent,
        Stop::NotLayer2(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => Retry::Permanent,
        _ => Retry::Temporary,
    }
}
