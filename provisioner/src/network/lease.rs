//! What a DHCP server gives: noted by udhcpc's script, which is this program under another name, and checked by the agent.
//!
//! Whoever answers first on the network is the server: each value is checked, and none reaches a command line but as the
//! number or address it was read as.

use std::env;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Map, Value};

use super::address::default_route;
use crate::medium::check::{MTU, is_host, is_name};
use crate::medium::config::Route;
use crate::medium::net::Net;

/// Where leases are noted.
pub(super) const LEASES: &str = "/run/z-provisioner";
/// Names another place, for the script.
pub(super) const LEASES_VARIABLE: &str = "Z_PROVISIONER_LEASES";
/// What of udhcpc's environment is noted.
const NOTED: [&str; 8] = ["ip", "subnet", "router", "dns", "mtu", "staticroutes", "lease", "serverid"];
/// Characters of a value that are noted, and bytes of a note that are read.
const MAX_VALUE: usize = 4096;
const MAX_NOTE: u64 = 64 << 10;
/// Most name servers and routes that are taken.
const MAX_DNS: usize = 3;
const MAX_ROUTES: usize = 64;
/// How udhcpc writes a lease that does not end.
const FOR_EVER: u32 = u32::MAX;

/// What is done when `z-provisioner` is called as udhcpc's script: by the name `lease`, with what has happened as its argument
/// and all values in its environment. It notes them for the agent, and does nothing else.
pub fn lease_script() -> ExitCode {
    let event = env::args().nth(1).unwrap_or_default();
    // `leasefail` and `nak` change nothing: before a lease is lost, udhcpc says `deconfig`.
    if !matches!(event.as_str(), "deconfig" | "bound" | "renew") {
        return ExitCode::SUCCESS;
    }
    let dir = env::var_os(LEASES_VARIABLE).map_or_else(|| PathBuf::from(LEASES), PathBuf::from);
    match note(&dir, &event, |name| env::var_os(name).map(|value| value.to_string_lossy().into_owned())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lease: noting {event} in {}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}

fn note(dir: &Path, event: &str, value: impl Fn(&str) -> Option<String>) -> io::Result<()> {
    let interface = value("interface").filter(|name| is_name(name));
    let interface = interface.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "`interface` is not set"))?;
    let mut noted = Map::new();
    noted.insert("event".into(), event.into());
    for name in NOTED {
        if let Some(value) = value(name) {
            noted.insert(name.into(), value.chars().take(MAX_VALUE).collect::<String>().into());
        }
    }
    let path = file(dir, &interface);
    let new = path.with_extension("new");
    fs::write(&new, Value::Object(noted).to_string())?;
    fs::rename(&new, &path)
}

/// Where what happened last to an interface's lease is noted.
pub(super) fn file(dir: &Path, interface: &str) -> PathBuf {
    dir.join(format!("lease-{interface}.json"))
}

/// What has happened to a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// There is one, or it was renewed.
    Lease(Lease),
    /// There is none, or no longer.
    Lost,
}

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lease {
    /// This machine's address.
    pub(super) address: Net<IpAddr>,
    /// Routes, the default one among them.
    pub(super) routes: Vec<Route>,
    /// Name servers.
    pub(super) dns: Vec<IpAddr>,
    /// The network's MTU.
    pub(super) mtu: Option<u32>,
    /// For how long; `None` for ever.
    pub(super) lasts: Option<Duration>,
}

/// Takes what was noted last, if there is something new.
///
/// # Errors
/// What makes no sense.
pub(super) fn take(file: &Path) -> Result<Option<News>, String> {
    // Moved away first: what comes while it is read is new.
    let taken = file.with_extension("taken");
    match fs::rename(file, &taken) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        moved => moved.map_err(|error| format!("{}: {error}", file.display()))?,
    }
    let mut text = String::new();
    let read = File::open(&taken).and_then(|file| file.take(MAX_NOTE).read_to_string(&mut text));
    read.map_err(|error| format!("{}: {error}", taken.display()))?;
    news(&text).map(Some)
}

fn news(text: &str) -> Result<News, String> {
    let noted: Map<String, Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let value = |name: &str| noted.get(name).and_then(Value::as_str).map(str::trim).filter(|value| !value.is_empty());
    if value("event") == Some("deconfig") {
        return Ok(News::Lost);
    }
    let address = host("address", value("ip").ok_or("it names no address")?)?;
    let prefix = prefix(value("subnet").ok_or("it names no subnet mask")?)?;
    let address = Net { address: IpAddr::V4(address), prefix };
    if address.is_edge() {
        return Err(format!("{address} is no address that a host can have"));
    }
    let mtu = value("mtu").map(|mtu| mtu.parse().ok().filter(|mtu| MTU.contains(mtu)).ok_or_else(|| odd("MTU", mtu)));
    let seconds = value("lease").map(|text| text.parse::<u32>().map_err(|_| odd("lease time", text)));
    let seconds = seconds.transpose()?.filter(|seconds| *seconds != FOR_EVER);
    let dns = value("dns").unwrap_or_default().split_whitespace().take(MAX_DNS);
    Ok(News::Lease(Lease {
        address,
        routes: routes(value("staticroutes"), value("router"))?,
        dns: dns.map(|server| host("name server", server).map(IpAddr::V4)).collect::<Result<_, _>>()?,
        mtu: mtu.transpose()?,
        lasts: seconds.map(|seconds| Duration::from_secs(seconds.max(1).into())),
    }))
}

/// Where classless routes are given, the router option does not count (RFC 3442).
fn routes(classless: Option<&str>, router: Option<&str>) -> Result<Vec<Route>, String> {
    let Some(classless) = classless else {
        let first = router.and_then(|routers| routers.split_whitespace().next());
        return first.map(|router| Ok(default_route(IpAddr::V4(host("router", router)?)))).into_iter().collect();
    };
    let words: Vec<_> = classless.split_whitespace().collect();
    if words.len() % 2 != 0 || words.len() > 2 * MAX_ROUTES {
        return Err(odd("routes", classless));
    }
    let route = |pair: &[&str]| {
        let to: Net<Ipv4Addr> = pair[0].parse().map_err(|_| odd("route", pair[0]))?;
        let to = Net { address: IpAddr::V4(to.address), prefix: to.prefix };
        // Bits behind the prefix are to be ignored, and 0.0.0.0 is the link itself (RFC 3442).
        let to = Net { address: to.network(), ..to };
        let via = if pair[1] == "0.0.0.0" { None } else { Some(IpAddr::V4(host("router", pair[1])?)) };
        Ok(Route { to, via })
    };
    words.chunks_exact(2).map(route).collect()
}

fn host(what: &str, text: &str) -> Result<Ipv4Addr, String> {
    text.parse().ok().filter(|address| is_host(IpAddr::V4(*address))).ok_or_else(|| odd(what, text))
}

fn prefix(mask: &str) -> Result<u8, String> {
    let bits = mask.parse::<Ipv4Addr>().map_err(|_| odd("subnet mask", mask))?.to_bits();
    let prefix = bits.leading_ones();
    let is_mask = prefix > 0 && prefix == bits.count_ones();
    u8::try_from(prefix).ok().filter(|_| is_mask).ok_or_else(|| odd("subnet mask", mask))
}

fn odd(what: &str, text: &str) -> String {
    format!("its {what} is {:?}", text.chars().take(80).collect::<String>())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What udhcpc sets for a lease in order, and what of it is set otherwise.
    fn told(dir: &Path, event: &str, otherwise: &[(&str, &str)]) -> Result<Option<News>, String> {
        let usual = [
            ("interface", "eth0"),
            ("ip", "10.9.0.100"),
            ("subnet", "255.255.255.0"),
            ("router", "10.9.0.1 10.9.0.2"),
            ("dns", "10.9.0.1 10.9.0.53"),
            ("mtu", "1400"),
            ("lease", "3600"),
            ("serverid", "10.9.0.1"),
            ("domain", "$(reboot)"),
        ];
        let value = |name: &str| {
            let mut all = otherwise.iter().chain(&usual);
            all.find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        note(dir, event, value).map_err(|error| error.to_string())?;
        take(&file(dir, "eth0"))
    }

    fn lease(otherwise: &[(&str, &str)]) -> Result<Lease, String> {
        let dir = tempfile::tempdir().unwrap();
        match told(dir.path(), "bound", otherwise)? {
            Some(News::Lease(lease)) => Ok(lease),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn what_the_script_notes_the_agent_takes_once() {
        let dir = tempfile::tempdir().unwrap();
        let Ok(Some(News::Lease(lease))) = told(dir.path(), "renew", &[]) else { panic!("no lease") };
        assert_eq!(lease.address.to_string(), "10.9.0.100/24");
        assert_eq!(lease.routes, [default_route("10.9.0.1".parse().unwrap())]);
        assert_eq!(lease.dns.len(), 2);
        assert_eq!((lease.mtu, lease.lasts), (Some(1400), Some(Duration::from_secs(3600))));
        assert_eq!(take(&file(dir.path(), "eth0")), Ok(None));
        assert_eq!(told(dir.path(), "deconfig", &[]), Ok(Some(News::Lost)));
    }

    #[test]
    fn what_is_left_out_and_what_is_for_ever() {
        let short = lease(&[("router", ""), ("dns", ""), ("mtu", ""), ("lease", "4294967295")]).unwrap();
        assert_eq!((short.routes.len(), short.dns.len(), short.mtu, short.lasts), (0, 0, None, None));
        assert_eq!(lease(&[("dns", "10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4")]).unwrap().dns.len(), 3);
    }

    #[test]
    fn classless_routes_count_instead_of_the_router() {
        let classless = "10.0.0.0/8 10.9.0.7 0.0.0.0/0 10.9.0.1 10.11.1.1/16 0.0.0.0";
        let routes = lease(&[("staticroutes", classless)]).unwrap().routes;
        let routes: Vec<_> = routes.iter().map(|route| (route.to.to_string(), route.via)).collect();
        let via = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let expected = [("10.0.0.0/8", via("10.9.0.7")), ("0.0.0.0/0", via("10.9.0.1")), ("10.11.0.0/16", None)];
        assert_eq!(routes, expected.map(|(to, via)| (to.to_owned(), via)));
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for (name, value, says) in [
            ("ip", "", "it names no address"),
            ("ip", "10.9.0.100; reboot", "its address is"),
            ("ip", "127.0.0.1", "its address is"),
            ("ip", "224.0.0.1", "its address is"),
            ("ip", "10.9.0.255", "no address that a host can have"),
            ("subnet", "", "it names no subnet mask"),
            ("subnet", "255.0.255.0", "its subnet mask is"),
            ("subnet", "0.0.0.0", "its subnet mask is"),
            ("router", "0.0.0.0", "its router is"),
            ("router", "::1", "its router is"),
            ("dns", "evil.example", "its name server is"),
            ("dns", "10.0.0.1\noptions", "its name server is"),
            ("mtu", "68", "its MTU is"),
            ("mtu", "-1", "its MTU is"),
            ("lease", "soon", "its lease time is"),
            ("staticroutes", "10.0.0.0/8", "its routes is"),
            ("staticroutes", "10.0.0.0/40 10.9.0.1", "its route is"),
            ("staticroutes", "10.0.0.0/8 dev", "its router is"),
        ] {
            let error = lease(&[(name, value)]).unwrap_err();
            assert!(error.contains(says), "{name}={value}: {error}");
        }
    }

    #[test]
    fn an_interface_that_is_a_path_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(told(dir.path(), "bound", &[("interface", "../x")]).is_err());
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
    }

    proptest! {
        #[test]
        fn no_note_makes_it_panic(text in ".*", value in ".*") {
            let _ = news(&text);
            let _ = lease(&[("staticroutes", &value), ("subnet", &value)]);
        }
    }
}
