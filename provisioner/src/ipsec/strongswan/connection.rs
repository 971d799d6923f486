//! The connection, as `load-conn` takes it: the names are those of `swanctl.conf(5)`.

use crate::ipsec::credentials::Credentials;
use crate::ipsec::vici::Message;
use crate::medium::config::{Ipsec, Tunnel};

/// The connection's name.
pub const NAME: &str = "vcn";

/// AES-256-GCM with its full tag, SHA-384, the NIST curve with 384 bits: nothing else is offered or accepted.
const IKE: &str = "aes256gcm16-prfsha384-ecp384";
/// The same for ESP; keys of each new security association have their own exchange.
const ESP: &str = "aes256gcm16-ecp384";

/// ESP counts packets with 32 bits, and fast links send as many within the hour after which keys are exchanged for new ones anyway.
const REKEY_PACKETS: &str = "2000000000";
const LIFE_PACKETS: &str = "4000000000";

/// The name of a tunnel, by its number.
pub fn child(number: usize) -> String {
    format!("tunnel-{}", number + 1)
}

/// The whole of it.
pub fn connection(config: &Ipsec, credentials: &Credentials, encapsulate: bool) -> Message {
    let mut connection = Message::new()
        .with("version", "2")
        .list("remote_addrs", [&config.gateway])
        .list("proposals", [IKE])
        .with("mobike", "no")
        .with("keyingtries", "0")
        .with("dpd_delay", format!("{}s", config.dead_peer))
        .with("encap", if encapsulate { "yes" } else { "no" });
    let given = virtual_addresses(&config.tunnels);
    if !given.is_empty() {
        connection = connection.list("vips", given);
    }
    let (local, remote) = ends(config, credentials);
    let children = config.tunnels.iter().enumerate();
    let children = children.fold(Message::new(), |all, (number, tunnel)| all.section(&child(number), one(tunnel)));
    let connection = connection.section("local", local).section("remote", remote).section("children", children);
    Message::new().section(NAME, connection)
}

/// What is asked of the gateway where a tunnel has no address of its own: one of each family.
fn virtual_addresses(tunnels: &[Tunnel]) -> Vec<&'static str> {
    let wanted = |ipv4| tunnels.iter().any(|tunnel| tunnel.local.is_none() && tunnel.is_ipv4() == ipv4);
    let families = [(true, "0.0.0.0"), (false, "::")];
    families.into_iter().filter(|(ipv4, _)| wanted(*ipv4)).map(|(_, any)| any).collect()
}

fn ends(config: &Ipsec, credentials: &Credentials) -> (Message, Message) {
    let mut local = Message::new();
    let mut remote = Message::new().with("id", &config.gateway_id);
    if let Some(id) = &config.local_id {
        local = local.with("id", id);
    }
    match credentials {
        Credentials::Psk(_) => (local.with("auth", "psk"), remote.with("auth", "psk")),
        Credentials::Certificate { chain, ca, crl, .. } => {
            if !crl.is_empty() {
                remote = remote.with("revocation", "strict");
            }
            let own = chain.first();
            (local.with("auth", "pubkey").list("certs", own), remote.with("auth", "pubkey").list("cacerts", ca))
        }
    }
}

/// One tunnel. With an address of its own it has policies from the start, which hold packets back while there is no security
/// association; one that waits for an address has them with that.
fn one(tunnel: &Tunnel) -> Message {
    let local = tunnel
        .local
        .map_or_else(|| "dynamic".to_owned(), |local| format!("{local}/{}", if local.is_ipv4() { 32 } else { 128 }));
    Message::new()
        .with("mode", "tunnel")
        .list("local_ts", [local])
        .list("remote_ts", tunnel.remote.iter().map(ToString::to_string))
        .list("esp_proposals", [ESP])
        .with("start_action", if tunnel.local.is_some() { "trap" } else { "none" })
        .with("dpd_action", "restart")
        .with("close_action", "start")
        .with("rekey_packets", REKEY_PACKETS)
        .with("life_packets", LIFE_PACKETS)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use zeroize::Zeroizing;

    use super::*;
    use crate::medium::ipsec::tests::with;

    fn parts(message: &Message) -> (Message, Message, Message, Message) {
        let (name, connection) = message.sections().next().unwrap();
        assert_eq!(name, "vcn");
        let section = |wanted: &str| connection.sections().find(|(name, _)| *name == wanted).unwrap().1.clone();
        (connection.clone(), section("local"), section("remote"), section("children"))
    }

    #[test]
    fn a_tunnel_with_its_own_address_holds_packets_back() {
        let key = Credentials::Psk(Zeroizing::new(vec![0; 16]));
        let (connection, local, remote, children) = parts(&connection(&with("", json!(null)), &key, false));
        assert_eq!(connection.texts("proposals"), [IKE]);
        assert_eq!((connection.text("dpd_delay").unwrap(), connection.texts("vips")), ("10s".into(), Vec::new()));
        assert_eq!((local.text("id").unwrap(), local.text("auth").unwrap()), ("lpar-7".into(), "psk".into()));
        assert_eq!(remote.text("id").unwrap(), "C=DE, O=Example, CN=gateway");
        let children: Vec<_> = children.sections().collect();
        assert_eq!(children.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["tunnel-1", "tunnel-2"]);
        assert_eq!(children[1].1.texts("local_ts"), ["10.10.1.2/32"]);
        assert_eq!(children[1].1.texts("remote_ts"), ["10.20.0.0/16", "10.30.0.0/16"]);
        assert_eq!(children[0].1.text("start_action").unwrap(), "trap");
    }

    #[test]
    fn an_address_is_asked_for_where_there_is_none() {
        let config = with("/tunnels/1", json!({"remote": ["fd00::/16"]}));
        let key = Credentials::Psk(Zeroizing::new(vec![0; 16]));
        let (connection, _, _, children) = parts(&connection(&config, &key, false));
        assert_eq!(connection.texts("vips"), ["::"]);
        let (_, second) = children.sections().nth(1).unwrap();
        assert_eq!(
            (second.texts("local_ts"), second.text("start_action")),
            (vec!["dynamic".into()], Some("none".into()))
        );
    }

    #[test]
    fn only_the_given_authorities_count_and_their_revocations() {
        let certificate = |crl| Credentials::Certificate {
            chain: vec![b"own".to_vec(), b"between".to_vec()],
            key: Zeroizing::default(),
            ca: vec![b"ca".to_vec()],
            crl,
        };
        let (_, local, remote, _) = parts(&connection(&with("", json!(null)), &certificate(Vec::new()), false));
        assert_eq!((local.texts("certs"), remote.texts("cacerts")), (vec!["own".into()], vec!["ca".into()]));
        assert_eq!(remote.text("revocation"), None);
        let (_, _, remote, _) =
            parts(&connection(&with("", json!(null)), &certificate(vec![Zeroizing::default()]), false));
        assert_eq!(remote.text("revocation").as_deref(), Some("strict"));
    }
}
