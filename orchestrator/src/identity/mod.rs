//! Who the service is and whom it believes: its folder, its certificate and the authority behind that, its keys, its tokens.

mod authority;
mod certificate;
mod clients;
mod expiry;
mod folder;
mod issuing;
mod keys;
mod people;
mod revoked;
mod tickets;
pub mod tokens;

use std::sync::Arc;
use std::time::Duration;

pub use authority::Authority;
pub use certificate::{Certificates, Source};
pub use clients::{Clients, Shown};
pub use folder::Folder;
pub(crate) use folder::{LET_GO, bounded};
pub use issuing::PersonCertificate;
pub use keys::Keys;
pub use people::{BROWSER_SESSION, Certified, Known, People, Role, Who};
pub use tickets::{Grant, TICKET_PUBLIC, TicketKey};
pub use tokens::SessionKey;

use crate::config::Config;
use crate::error::Result;
use crate::model::Moment;

/// File of the authority's certificate, which clients and agents trust.
pub const CA: &str = "ca.pem";
/// File of the fingerprints of people's certificates that count no more.
pub const REVOKED: &str = "revoked";
/// File of the operator's token.
pub const OPERATOR_TOKEN: &str = "operator.token";
/// File of the viewer's token.
pub const VIEWER_TOKEN: &str = "viewer.token";

/// All that a service is, read from its data folder; what is missing there is made.
#[derive(Debug)]
pub struct Identity {
    /// The data folder, locked.
    pub folder: Arc<Folder>,
    /// The certificate that it shows.
    pub certificates: Arc<Certificates>,
    /// Whose certificates it believes.
    pub clients: Arc<Clients>,
    /// The people that it knows.
    pub people: Arc<People>,
    /// What session tokens are computed and tickets signed with.
    pub keys: Arc<Keys>,
}

impl Identity {
    /// Locks the data folder, and reads or makes what belongs there.
    ///
    /// # Errors
    /// The folder is not safe or in use; something in it, or a file that the configuration names, cannot be used.
    pub fn open(config: &Config, now: Moment) -> Result<Self> {
        let folder = Arc::new(Folder::open(&config.data()?)?);
        let source = match &config.tls {
            Some(given) => Source::Given { certificate: given.certificate.clone(), key: given.key.clone() },
            None => Source::Own { folder: Arc::clone(&folder), names: config.all_names()? },
        };
        let (sessions, authority) = (SessionKey::open(&folder)?, Authority::open(&folder, now)?);
        let clients = Clients::open(&authority, config.clients.authority.as_deref())?;
        let certified = Certified::new(&clients, &config.clients, folder.file(REVOKED));
        let people = People::open(&folder, sessions.clone())?.with_certificates(certified);
        let validity = Duration::from_secs(config.lease.certificate);
        Ok(Identity {
            certificates: Arc::new(Certificates::open(source, now)?),
            clients: Arc::new(clients),
            people: Arc::new(people),
            keys: Arc::new(Keys { sessions, authority, tickets: TicketKey::open(&folder)?, validity }),
            folder,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Credentials;

    #[test]
    fn a_service_is_the_same_after_a_restart() {
        let temporary = tempfile::tempdir().unwrap();
        let config = Config { data: Some(temporary.path().join("data")), ..Config::default() };
        let (now, run) = (Moment::of_wall_clock(), "r-1".to_owned().try_into().unwrap());
        let open = || Identity::open(&config, now).unwrap();
        let known = |identity: &Identity| {
            let keys = &identity.keys;
            let session = keys.session(&run, 1, &keys.digest_of("nonce"));
            (
                std::fs::read(identity.folder.file(OPERATOR_TOKEN)).unwrap(),
                std::fs::read(identity.folder.file(VIEWER_TOKEN)).unwrap(),
                session,
                keys.tickets.public(),
                std::fs::read(identity.folder.file(CA)).unwrap(),
            )
        };
        let first = open();
        let before = known(&first);
        Identity::open(&config, now).unwrap_err();
        drop(first);
        let again = open();
        assert!(known(&again) == before);
        let shown = format!("{again:?}");
        for name in ["operator.token", "viewer.token", "ca.key", "server.key", "ticket.key"] {
            let text = std::fs::read_to_string(again.folder.file(name)).unwrap();
            assert!(text.lines().all(|line| !shown.contains(line)), "{name} shows itself");
        }
        assert!(!shown.contains(before.2.reveal()));
    }
}
