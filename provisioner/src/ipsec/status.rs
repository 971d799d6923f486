//! What the IKE daemon says of the connection: who the gateway has proven to be, and which tunnels are up.

use std::net::IpAddr;

use imgstream::error::{Error, Kind, Result};

use super::strongswan::NAME;
use super::vici::{Message, Vici};

/// The connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// The gateway's address.
    pub gateway: String,
    /// Who it has proven to be.
    pub identity: String,
    /// The addresses it has given to this machine.
    pub given: Vec<IpAddr>,
    /// What is up.
    pub tunnels: Vec<Up>,
    /// Whether the daemon is at work on it: what is not up yet may come.
    pub busy: bool,
}

/// A tunnel that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Up {
    /// Its name.
    pub name: String,
    /// What it is for, on the side of this machine.
    pub local: Vec<String>,
    /// What it is for, on the side of the gateway.
    pub remote: Vec<String>,
    /// Its encryption, in strongSwan's words.
    pub cipher: String,
}

impl Up {
    /// Whether it is what was asked for.
    pub fn is_aes_256_gcm(&self) -> bool {
        self.cipher == "AES_GCM_16-256"
    }
}

impl Status {
    /// Asks for it.
    ///
    /// # Errors
    /// [`Kind::Source`] when the daemon is gone.
    pub async fn of(vici: &mut Vici) -> Result<Self> {
        // Not with `noblock`: that leaves out what the daemon is at work on, although it is up.
        let found = vici.stream("list-sas", "list-sa", &Message::new().with("ike", NAME)).await?;
        let connections = found.iter().flat_map(Message::sections).filter(|(name, _)| *name == NAME);
        Ok(connections.fold(Status::default(), |status, (_, connection)| status.with(connection)))
    }

    /// While keys are exchanged for new ones there are two connections: what either has counts.
    fn with(mut self, connection: &Message) -> Self {
        let text = |name| connection.text(name).unwrap_or_default();
        let is_up = text("state") == "ESTABLISHED";
        self.busy |=
            !is_up || !connection.texts("tasks-active").is_empty() || !connection.texts("tasks-queued").is_empty();
        if is_up {
            (self.gateway, self.identity) = (text("remote-host"), text("remote-id"));
            self.given.extend(connection.texts("local-vips").iter().filter_map(|given| given.parse::<IpAddr>().ok()));
        }
        let children = connection.sections().filter(|(name, _)| *name == "child-sas");
        self.tunnels.extend(children.flat_map(|(_, children)| children.sections()).filter_map(|(_, child)| up(child)));
        self
    }

    /// Whether a tunnel of this name is up.
    pub fn has(&self, name: &str) -> bool {
        self.tunnels.iter().any(|tunnel| tunnel.name == name)
    }

    /// That nothing has been agreed on but what was asked for.
    ///
    /// # Errors
    /// [`Kind::Source`], naming what was.
    pub fn check(&self) -> Result<()> {
        match self.tunnels.iter().find(|tunnel| !tunnel.is_aes_256_gcm()) {
            None => Ok(()),
            Some(Up { name, cipher, .. }) => {
                Err(Error::new(Kind::Source, format!("{name} encrypts with {cipher}, which is not AES-256-GCM")))
            }
        }
    }
}

fn up(child: &Message) -> Option<Up> {
    let text = |name| child.text(name).unwrap_or_default();
    let is_up = text("state") == "INSTALLED" && text("mode") == "TUNNEL" && text("protocol") == "ESP";
    is_up.then(|| Up {
        name: text("name"),
        local: child.texts("local-ts"),
        remote: child.texts("remote-ts"),
        cipher: format!("{}-{}", text("encr-alg"), text("encr-keysize")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(name: &str, state: &str) -> Message {
        Message::new()
            .with("name", name)
            .with("state", state)
            .with("mode", "TUNNEL")
            .with("protocol", "ESP")
            .with("encr-alg", "AES_GCM_16")
            .with("encr-keysize", "256")
            .list("local-ts", ["10.10.1.1/32"])
            .list("remote-ts", ["10.20.0.0/16"])
    }

    #[test]
    fn what_is_up_is_told_from_what_is_on_its_way() {
        let children = Message::new()
            .section("tunnel-1-1", child("tunnel-1", "INSTALLED"))
            .section("tunnel-2-2", child("tunnel-2", "CREATED"));
        let connection = Message::new()
            .with("state", "ESTABLISHED")
            .with("remote-host", "10.9.0.1")
            .with("remote-id", "C=DE, CN=gw")
            .list("local-vips", ["10.10.1.7"])
            .list("tasks-active", ["CHILD_CREATE"])
            .section("child-sas", children);
        let status = Status::default().with(&connection);
        assert_eq!((status.gateway.as_str(), status.identity.as_str()), ("10.9.0.1", "C=DE, CN=gw"));
        assert_eq!(status.given, ["10.10.1.7".parse::<IpAddr>().unwrap()]);
        assert!(status.has("tunnel-1") && !status.has("tunnel-2") && status.busy);
        assert!(status.check().is_ok());
        let connecting = Status::default().with(&Message::new().with("state", "CONNECTING"));
        assert!(connecting.busy && connecting.gateway.is_empty());
    }

    #[test]
    fn anything_but_aes_256_gcm_is_refused() {
        let tunnel = Up { cipher: "AES_GCM_16-128".into(), ..up(&child("tunnel-1", "INSTALLED")).unwrap() };
        let status = Status { tunnels: vec![tunnel], ..Status::default() };
        assert!(status.check().unwrap_err().to_string().contains("AES_GCM_16-128"));
    }
}
