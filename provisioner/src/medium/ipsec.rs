//! What the types of the VCN's configuration do not say: values out of bounds, and ones that contradict each other.

use std::net::IpAddr;

use super::config::{Auth, Clear, Ipsec, Tunnel};
use super::net::Net;

/// Most tunnels of a machine.
pub const MAX_TUNNELS: usize = 16;
/// Most networks behind one tunnel.
const MAX_NETS: usize = 64;
/// Fewest and most seconds until a silent gateway is asked whether it is there.
const DEAD_PEER: std::ops::RangeInclusive<u64> = 2..=3600;
/// Fewest and most seconds until the tunnels must be up.
const WAIT: std::ops::RangeInclusive<u64> = 1..=3600;
/// Longest identity and name.
const MAX_NAME: usize = 255;

impl Ipsec {
    /// Checks it.
    ///
    /// # Errors
    /// The first value out of bounds, or the first two that contradict each other, by their key.
    pub fn check(&self) -> Result<(), String> {
        let (tunnels, dns) = (self.tunnels.len(), self.clear.contains(&Clear::Dns));
        let by_name = self.gateway.parse::<IpAddr>().is_err();
        holds(is_host(&self.gateway), || "`ipsec.gateway` is no address of one machine, and no name".into())?;
        holds(!by_name || dns, || {
            "`ipsec.gateway` is a name, which nobody can look up: give its address, or add `dns` to `ipsec.clear`"
                .into()
        })?;
        identity("gateway_id", &self.gateway_id)?;
        self.local_id.as_deref().map_or(Ok(()), |id| identity("local_id", id))?;
        match &self.auth {
            Auth::Psk(_) => holds(self.local_id.is_some(), || {
                "`ipsec.local_id` must be given where `ipsec.auth` is a `psk`: there is no certificate to take it from"
                    .into()
            })?,
            Auth::Certificate { ca, .. } => {
                holds(!ca.is_empty(), || "`ipsec.auth.certificate.ca` is empty: nobody would be trusted".into())?;
            }
        }
        holds((1..=MAX_TUNNELS).contains(&tunnels), || {
            format!("`ipsec.tunnels` has {tunnels} tunnels; give 1 to {MAX_TUNNELS}")
        })?;
        for (at, tunnel) in self.tunnels.iter().enumerate() {
            tunnel.check(at)?;
            if let Some(other) = self.tunnels[..at].iter().position(|other| other.overlaps(tunnel)) {
                return Err(format!(
                    "`ipsec.tunnels[{other}]` and `ipsec.tunnels[{at}]` are for the same packets: give each a `local` of its own"
                ));
            }
        }
        holds(DEAD_PEER.contains(&self.dead_peer), || {
            format!("`ipsec.dead_peer` must be {} to {} seconds", DEAD_PEER.start(), DEAD_PEER.end())
        })?;
        holds(WAIT.contains(&self.wait), || format!("`ipsec.wait` must be {} to {} seconds", WAIT.start(), WAIT.end()))
    }
}

impl Tunnel {
    /// Whether what goes through is IPv4; else it is IPv6.
    pub fn is_ipv4(&self) -> bool {
        self.remote.first().is_some_and(|net| net.address.is_ipv4())
    }

    fn check(&self, at: usize) -> Result<(), String> {
        let nets = self.remote.len();
        holds((1..=MAX_NETS).contains(&nets), || {
            format!("`ipsec.tunnels[{at}].remote` has {nets} networks; give 1 to {MAX_NETS}")
        })?;
        let family = |address: IpAddr| address.is_ipv4() == self.is_ipv4();
        let alike = self.remote.iter().all(|net| family(net.address)) && self.local.is_none_or(family);
        holds(alike, || format!("`ipsec.tunnels[{at}]` mixes IPv4 and IPv6: make it two"))?;
        let usable =
            self.local.is_none_or(|local| !local.is_unspecified() && !local.is_loopback() && !local.is_multicast());
        holds(usable, || format!("`ipsec.tunnels[{at}].local` is no address of one machine"))
    }

    fn overlaps(&self, other: &Tunnel) -> bool {
        let meet = |one: &Net<IpAddr>, two: &Net<IpAddr>| one.contains(two.address) || two.contains(one.address);
        self.local == other.local && self.remote.iter().any(|one| other.remote.iter().any(|two| meet(one, two)))
    }
}

/// An address of one machine, or a name such as DNS has.
fn is_host(text: &str) -> bool {
    match text.parse::<IpAddr>() {
        Ok(address) => !address.is_unspecified() && !address.is_multicast(),
        Err(_) => {
            let label =
                |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            // A number at the end is a mistyped address, not a name.
            let numeric = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
            text.len() <= MAX_NAME && !numeric && text.split('.').all(label)
        }
    }
}

/// An identity of exactly one: strongSwan takes some for patterns that many match, and then anybody with a certificate of the
/// authority, or with the key, would be the gateway.
fn identity(key: &str, id: &str) -> Result<(), String> {
    let unprintable = id.is_empty() || id.len() > MAX_NAME || id.chars().any(char::is_control);
    holds(!unprintable, || format!("`ipsec.{key}` must have 1 to {MAX_NAME} printable characters"))?;
    let plain = id
        .rsplit_once(':')
        .map_or(id, |(kind, rest)| if kind.bytes().all(|b| b.is_ascii_alphanumeric()) { rest } else { id });
    let unspecified = |text: &str| text.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
    let many = id.contains('*')
        || id.contains('%')
        || unspecified(id)
        || unspecified(plain)
        || [id, plain].into_iter().any(|text| is_range(text, '/') || is_range(text, '-'));
    holds(!many, || format!("`ipsec.{key}` is a pattern that many match: name exactly one"))
}

fn is_range(text: &str, separator: char) -> bool {
    text.split_once(separator).is_some_and(|(from, _)| from.parse::<IpAddr>().is_ok())
}

fn holds(rule: bool, broken: impl FnOnce() -> String) -> Result<(), String> {
    if rule { Ok(()) } else { Err(broken()) }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// One that is right, changed at a JSON pointer.
    pub(crate) fn with(pointer: &str, value: Value) -> Ipsec {
        let mut ipsec = json!({
            "gateway": "192.0.2.1",
            "local_id": "lpar-7",
            "gateway_id": "C=DE, O=Example, CN=gateway",
            "auth": {"psk": "/psk"},
            "tunnels": [
                {"local": "10.10.1.1", "remote": ["10.20.0.0/16"]},
                {"local": "10.10.1.2", "remote": ["10.20.0.0/16", "10.30.0.0/16"]}
            ],
            "clear": [],
            "dead_peer": 10,
            "wait": 60
        });
        if !pointer.is_empty() {
            *ipsec.pointer_mut(pointer).unwrap() = value;
        }
        serde_json::from_value(ipsec).unwrap()
    }

    #[test]
    fn one_that_is_right_passes() {
        assert_eq!(with("", json!(null)).check(), Ok(()));
        let right = [
            ("/gateway", json!("fd00::1")),
            ("/gateway_id", json!("gateway.example.com")),
            ("/gateway_id", json!("10.9.0.1")),
            ("/tunnels/0", json!({"remote": ["fd00::/8"]})),
            ("/tunnels/1", json!({"local": "10.10.1.1", "remote": ["10.21.0.0/16"]})),
        ];
        for (pointer, value) in right {
            assert_eq!(with(pointer, value.clone()).check(), Ok(()), "{pointer}: {value}");
        }
        let mut named = with("/gateway", json!("gw-1.example.com"));
        named.clear.push(Clear::Dns);
        assert_eq!(named.check(), Ok(()));
    }

    #[test]
    fn each_mistake_is_told_by_its_key() {
        let wrong = [
            ("/gateway", json!("%any"), "`ipsec.gateway`"),
            ("/gateway", json!("0.0.0.0"), "`ipsec.gateway`"),
            ("/gateway", json!("10.9.0.0/24"), "`ipsec.gateway`"),
            ("/gateway", json!("10.9.0.256"), "`ipsec.gateway`"),
            ("/gateway", json!("a,b"), "`ipsec.gateway`"),
            ("/gateway", json!("gw.example.com"), "`dns`"),
            ("/local_id", json!(null), "`ipsec.local_id`"),
            (
                "/auth",
                json!({"certificate": {"certificate": "/c", "key": "/k", "ca": []}}),
                "`ipsec.auth.certificate.ca`",
            ),
            ("/tunnels", json!([]), "`ipsec.tunnels`"),
            ("/tunnels/1/local", json!("10.10.1.1"), "`ipsec.tunnels[0]` and `ipsec.tunnels[1]`"),
            ("/tunnels/1/local", json!("fd00::1"), "mixes"),
            ("/tunnels/1/local", json!("0.0.0.0"), "`ipsec.tunnels[1].local`"),
            ("/tunnels/0/remote", json!([]), "`ipsec.tunnels[0].remote`"),
            ("/dead_peer", json!(1), "`ipsec.dead_peer`"),
            ("/wait", json!(0), "`ipsec.wait`"),
        ];
        for (pointer, value, expected) in wrong {
            let refusal = with(pointer, value.clone()).check().unwrap_err();
            assert!(refusal.contains(expected), "{value}: {refusal}");
        }
        for pattern in [
            "",
            "%any",
            "*",
            "*.example.com",
            "C=DE, O=Example, CN=*",
            "0.0.0.0",
            "::",
            "10.0.0.0/8",
            "10.0.0.1-10.0.0.9",
            "a\nb",
            "ipv4:0.0.0.0",
        ] {
            let refusal = with("/gateway_id", json!(pattern)).check().unwrap_err();
            assert!(refusal.contains("`ipsec.gateway_id`"), "{pattern}: {refusal}");
        }
    }
}
