//! Tickets: what an attempt may do, signed with a key that agents trust (DSSE, Ed25519).

use std::time::Duration;

use envelope::{MAX_PEM, Role, SecretKey, sign};
use protocol::control::NewRun;
use protocol::spec::Place;
use protocol::{Digest, RunId, Ticket, Token, ticket};

use super::Folder;
use super::tokens::sha256;
use crate::error::{Error, Result};
use crate::model::Moment;

const KEY: &str = "ticket.key";
/// File of the public half, which agents trust.
pub const TICKET_PUBLIC: &str = "ticket.pub";

/// How long a ticket is good: an agent looks once, when it has enrolled.
const VALIDITY: Duration = Duration::from_secs(24 * 3600);
/// How far an agent's clock may be behind this one's.
const CLOCKS_DIFFER: Duration = Duration::from_secs(60);

/// The key that signs tickets.
#[derive(Debug)]
pub struct TicketKey {
    key: SecretKey,
    validity: Duration,
}

/// What a ticket is about.
#[derive(Debug, Clone, Copy)]
pub struct Grant<'a> {
    /// The run.
    pub run: &'a RunId,
    /// The attempt, which is the fencing epoch.
    pub attempt: u32,
    /// What was asked for: server, image and target.
    pub order: &'a NewRun,
    /// The run spec: exactly this text goes to the agent.
    pub spec: &'a str,
    /// The nonce of the process that enrolled.
    pub nonce: &'a Token,
    /// SHA-256 of the agent's client key, where it has one.
    pub client_key: Option<&'a Digest>,
}

impl TicketKey {
    /// The data folder's key, made at the first start, with its public half beside it for those who make agents trust it.
    ///
    /// # Errors
    /// The files cannot be read or made, others may read the key, or it is none.
    pub fn open(folder: &Folder) -> Result<Self> {
        let key = match folder.read_secret(KEY, MAX_PEM)? {
            Some(pem) => SecretKey::from_pem(&pem).map_err(|error| {
                Error::refused(format!("{}: {error}", folder.file(KEY).display())).with_hint(
                    "restore it from a backup, or remove it: a new one is made, and agents must be told to trust that one",
                )
            })?,
            None => {
                let key = SecretKey::generate().map_err(|error| Error::system(error.to_string()).with_source(error))?;
                folder.write_secret(KEY, key.to_pem().as_bytes())?;
                key
            }
        };
        let public = key.public().to_pem();
        if folder.read(TICKET_PUBLIC, MAX_PEM)?.is_none_or(|known| *known != public.as_bytes()) {
            folder.write(TICKET_PUBLIC, public.as_bytes())?;
        }
        Ok(TicketKey { key, validity: VALIDITY })
    }

    /// With tickets that are good for this long.
    #[must_use]
    pub fn with_validity(mut self, validity: Duration) -> Self {
        self.validity = validity;
        self
    }

    /// The public half.
    pub fn public(&self) -> envelope::PublicKey {
        self.key.public()
    }

    /// A ticket, as the text of its envelope.
    ///
    /// # Errors
    /// None that can happen: a ticket is far smaller than an envelope may be.
    pub fn issue(&self, grant: &Grant<'_>, now: Moment) -> Result<String> {
        let failed =
            |error: &dyn std::fmt::Display| Error::system(format!("making a ticket for {}: {error}", grant.run));
        let payload = serde_json::to_vec(&self.ticket(grant, now)).map_err(|error| failed(&error))?;
        let envelope = sign(Role::Ticket, &payload, &self.key);
        String::from_utf8(envelope).map_err(|error| failed(&error))
    }

    fn ticket(&self, grant: &Grant<'_>, now: Moment) -> Ticket {
        let now = u64::try_from(now.0 / 1000).unwrap_or(0);
        let wwid = match grant.order.target.place() {
            Some(Place::Lun(lun)) => Some(lun.wwid.clone()),
            Some(Place::Device(_)) | None => None,
        };
        Ticket {
            version: ticket::VERSION,
            run: grant.run.clone(),
            epoch: grant.attempt,
            server: grant.order.server.clone(),
            spec: sha256(grant.spec.as_bytes()),
            image: grant.order.image.digest.clone(),
            wwids: wwid.into_iter().collect(),
            not_before: now.saturating_sub(CLOCKS_DIFFER.as_secs()),
            expires: now.saturating_add(self.validity.as_secs()),
            nonce: grant.nonce.clone(),
            client_key: grant.client_key.cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use envelope::{Trust, open};

    use super::*;
    use crate::identity::tokens;

    const LUN: &str = r#"{"server":"lpar-7","image":{"name":"debian-13","sources":["http://a/"],
        "trust":["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"],
        "digest":"sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"},
        "target":{"lun":{"wwid":"36005076"}}}"#;

    fn opened(text: &str, key: &TicketKey) -> Ticket {
        let trust = Trust::new(vec![key.public()], 1).unwrap();
        serde_json::from_slice(open(text.as_bytes(), Role::Ticket, &trust).unwrap().payload()).unwrap()
    }

    #[test]
    fn a_ticket_names_all_that_an_attempt_may_do() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::open(&temporary.path().join("data")).unwrap();
        let key = TicketKey::open(&folder).unwrap();
        let (order, nonce) = (NewRun::parse(LUN.as_bytes()).unwrap(), tokens::random().unwrap());
        let run: RunId = "r-1".to_owned().try_into().unwrap();
        let grant =
            Grant { run: &run, attempt: 3, order: &order, spec: "{\"run\": 1}", nonce: &nonce, client_key: None };
        let ticket = opened(&key.issue(&grant, Moment(1_000_000_999)).unwrap(), &key);
        assert_eq!((ticket.version, ticket.epoch, ticket.server.as_str()), (1, 3, "lpar-7"));
        assert_eq!((ticket.not_before, ticket.expires), (1_000_000 - 60, 1_000_000 + 86_400));
        assert_eq!(ticket.spec, sha256(b"{\"run\": 1}"));
        assert_eq!((ticket.run, ticket.nonce), (run.clone(), nonce.clone()));
        assert_eq!(ticket.wwids.iter().map(|wwid| wwid.as_str()).collect::<Vec<_>>(), ["36005076"]);
        assert_eq!((ticket.image, ticket.client_key), (order.image.digest.clone(), None));

        let device = LUN.replace(r#""lun":{"wwid":"36005076"}"#, r#""device":"/dev/vdb""#);
        let order = NewRun::parse(device.as_bytes()).unwrap();
        let short = TicketKey::open(&folder).unwrap().with_validity(Duration::from_secs(10));
        let ticket = opened(&short.issue(&Grant { order: &order, ..grant }, Moment(5_000)).unwrap(), &key);
        assert_eq!((ticket.wwids.len(), ticket.not_before, ticket.expires), (0, 0, 15));
    }

    #[test]
    fn the_key_outlives_a_restart_and_its_public_half_is_kept_right() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::open(&temporary.path().join("data")).unwrap();
        let first = TicketKey::open(&folder).unwrap().public();
        folder.write("ticket.pub", b"of another").unwrap();
        assert_eq!(TicketKey::open(&folder).unwrap().public(), first);
        assert_eq!(std::fs::read_to_string(folder.file("ticket.pub")).unwrap(), first.to_pem());
        let pem = std::fs::read_to_string(folder.file("ticket.key")).unwrap();
        let shown = format!("{:?}", TicketKey::open(&folder).unwrap());
        assert!(pem.lines().all(|line| !shown.contains(line)), "{shown}");
        folder.write_secret("ticket.key", b"no key").unwrap();
        assert!(TicketKey::open(&folder).unwrap_err().hint().is_some());
    }
}
