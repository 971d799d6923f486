//! A session with the service: from enrolment to the last event that it accepts.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use envelope::{PublicKey, Trust};
use imgstream::error::{Error, Result, Retry};
use imgstream::source::{Dial, SourceOptions};
use protocol::control::{Enrol, Enrolled};
use protocol::event::Body;
use protocol::{RunId, RunSpec, ServerName, Token};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::address::Address;
use super::client::Client;
use super::client_key::Key;
use super::enrol::Applicant;
use super::key::KeyDesk;
use super::lease::Lease;
use super::named::Named;
use super::orders::Obedience;
use super::outbox::Outbox;
use super::pause::told;
use super::random;
use super::renew::Renewal;
use super::sender::{Delivered, Sender};
use super::ticket::{self, Known};
use crate::machine::Machine;
use crate::phase::spec::{Files, read_file, read_key};
use crate::report::{Output, Reporter};
use crate::run;

/// Largest token file, in bytes.
const MAX_TOKEN: usize = 256;
/// Largest file of certificates, in bytes.
const MAX_CA: usize = 1 << 20;
/// How this agent calls itself.
const AGENT: &str = concat!("z-provisioner ", env!("CARGO_PKG_VERSION"));

/// Which service, and how this process proves to it who it is, and it to this process.
#[derive(Debug, Clone)]
pub struct Options {
    /// The service's URL.
    pub url: String,
    /// The certificates (PEM) that count for it, and no others. `https://` needs them.
    pub ca: Option<PathBuf>,
    /// The enrolment token.
    pub token: PathBuf,
    /// The keys (PEM) that may sign tickets.
    pub ticket_keys: Vec<PathBuf>,
    /// The run, where this process was started for one.
    pub run: Option<RunId>,
    /// The server, where this process was told which it is on.
    pub server: Option<ServerName>,
    /// How long enrolling may take.
    pub enrol_within: Duration,
    /// How connections are made: who is asked before each, and from which addresses.
    pub source: SourceOptions,
    /// How errors call all that.
    pub named: Named,
}

/// An attempt that this process has enrolled for, and whose ticket has been checked.
pub struct Session {
    spec: RunSpec,
    session: Token,
    client: Client,
    /// What its certificates are over.
    key: Arc<Key>,
    renew_after: u64,
    /// How long a try to renew the lease may take: several fit into one lease.
    renew_within: Duration,
    lease: Arc<Lease>,
    outbox: Outbox,
}

/// What a service gives to the run of an attempt.
#[derive(Debug)]
pub struct Mandate {
    /// How long it may write.
    pub lease: Arc<Lease>,
    /// Where it gets its key, where the service has that.
    pub key: KeyDesk,
}

/// How a run ended, and whether the service knows.
#[derive(Debug)]
pub struct Ended {
    /// The last event.
    pub last: Body,
    /// Why the service does not have it, where it does not.
    pub told: Result<()>,
}

impl Session {
    /// Enrols, and checks the ticket before anything else is believed. `say` hears what is waited for.
    ///
    /// # Errors
    /// `Usage` for a URL, a token or a key that makes no sense. `Source` when the service refuses (permanent), or was not to be had in
    /// time (temporary). Those of [`ticket::verify`]. `Cancelled`.
    pub async fn begin(options: &Options, say: &dyn Fn(&str), cancel: &CancellationToken) -> Result<Self> {
        let address = Address::of_service(&options.url)?;
        let named = options.named;
        let certificates = format!("the certificates of {}", named.ca);
        let ca = options.ca.as_deref().map(|path| read_file(path, MAX_CA, &certificates));
        let client = Client::new(address, ca.transpose()?.as_ref().map(|pem| &pem[..]), Dial::new(&options.source))?;
        let trust = trust(&options.ticket_keys, named.ticket_keys)?;
        let token = read_token(&options.token, named.token)?;
        let (run, server, key) = (options.run.clone(), options.server.clone(), Key::new()?);
        let enrol = Enrol { run, nonce: random::token()?, client_key: key.public()?, agent: AGENT.into(), server };
        let applicant =
            Applicant { client: &client, token: &token, enrol: &enrol, within: options.enrol_within, named };
        let (enrolled, asked) = applicant.enrol(say, cancel).await?;
        let (run, server, now) = (enrol.run.as_ref(), enrol.server.as_ref(), seconds_since_1970()?);
        let client_key = key.digest();
        let known = Known { trust: &trust, nonce: &enrol.nonce, client_key: &client_key, run, server, now, named };
        let spec = ticket::verify(&enrolled, known)?;
        client.show(&enrolled.certificate, &key)?;
        Ok(Self::new(spec, enrolled, asked, client, key))
    }

    fn new(spec: RunSpec, enrolled: Enrolled, asked: Duration, client: Client, key: Key) -> Self {
        let Enrolled { run, attempt, session, lease: terms, .. } = enrolled;
        let lease = Lease::new(format!("attempt {attempt} of run {run}"), terms, asked);
        let renew_within = (lease.heard().1 / 4).max(Duration::from_secs(1));
        let (key, lease, outbox) = (Arc::new(key), Arc::new(lease), Outbox::default());
        Session { spec, session, client, key, renew_after: terms.renew_after, renew_within, lease, outbox }
    }

    /// What is to be done, as the ticket permits it.
    pub fn spec(&self) -> &RunSpec {
        &self.spec
    }

    /// Who keeps events for the service: one of the reporter's outputs.
    pub fn output(&self) -> Box<dyn Output> {
        Box::new(self.outbox.clone())
    }

    /// How long this process may write.
    pub fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    /// What the run gets besides its spec.
    pub fn mandate(&self) -> Mandate {
        let client = self.client.another(super::client::TRY);
        Mandate { lease: Arc::clone(&self.lease), key: KeyDesk::new(client, self.path("key"), self.session.clone()) }
    }

    fn path(&self, what: &str) -> String {
        format!("/v1/agent/runs/{}/attempts/{}/{what}", self.spec.run, self.spec.epoch)
    }

    /// Begins to renew the lease and to report what `reporter` tells. When the lease is over, or the service wants that, `cancel` is
    /// cancelled. Must be called inside the runtime.
    pub fn start(&self, reporter: &Arc<Reporter>, cancel: &CancellationToken) -> Underway {
        let obedience = Arc::new(Obedience::new(Arc::clone(reporter), self.outbox.clone(), cancel.clone()));
        // A renewal never waits for a report, nor for what that waits for: while one is on its way, it makes a connection of its own.
        let renewal = Renewal {
            lease: Arc::clone(&self.lease),
            client: self.client.beside(self.renew_within),
            path: self.path("lease"),
            session: self.session.clone(),
            key: Arc::clone(&self.key),
            obedience: Arc::clone(&obedience),
        };
        let sender = Sender {
            outbox: self.outbox.clone(),
            client: self.client.beside(super::client::TRY),
            path: self.path("events"),
            session: self.session.clone(),
            obedience,
            lease: Arc::clone(&self.lease),
        };
        Underway {
            renewing: tokio::spawn(renewal.keep(self.renew_after, cancel.clone())),
            sending: tokio::spawn(sender.send()),
            outbox: self.outbox.clone(),
            lease: Arc::clone(&self.lease),
            service: self.client.address().to_string(),
        }
    }

    /// Does the run, and reports until its end has been accepted, for `within` at most after it has ended.
    pub async fn run_to_end(
        &self,
        files: &Files,
        machine: Option<&mut Machine>,
        reporter: &Arc<Reporter>,
        within: Duration,
        say: &dyn Fn(&str),
        cancel: &CancellationToken,
    ) -> Ended {
        let underway = self.start(reporter, cancel);
        let last = run::attempt(&self.spec, files, machine, Some(self.mandate()), reporter, cancel).await;
        Ended { last, told: underway.finish(within, say, cancel).await }
    }
}

/// Which attempt it is, for people.
impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attempt {} of run {}", self.spec.epoch, self.spec.run)
    }
}

/// What goes on beside a run. It ends with this.
pub struct Underway {
    renewing: JoinHandle<()>,
    sending: JoinHandle<Delivered>,
    outbox: Outbox,
    lease: Arc<Lease>,
    service: String,
}

impl Underway {
    /// After the last event: waits until the service has it. `say` hears what is waited for; a signal that comes now ends the wait.
    ///
    /// # Errors
    /// `Source` when the service has not accepted it `within` that time, does not take it, or does not want it; `Cancelled`.
    pub async fn finish(mut self, within: Duration, say: &dyn Fn(&str), cancel: &CancellationToken) -> Result<()> {
        let (outbox, service) = (self.outbox.clone(), self.service.clone());
        let sending = tokio::time::timeout(within, &mut self.sending);
        let sending = told(sending, || {
            say(&format!("waiting until {service} has accepted the end of the run: {}", outbox.trouble()));
        });
        // Whoever has cancelled the run already wants its end to be told all the same.
        // The lease is kept meanwhile, so that the service does not take for lost who only waits for it; that it ends no longer matters.
        let lease = Arc::clone(&self.lease);
        let cancelled = async {
            let was_cancelled = cancel.is_cancelled();
            cancel.cancelled().await;
            if was_cancelled || lease.is_over() {
                std::future::pending::<()>().await;
            }
        };
        let delivered = tokio::select! {
            delivered = sending => delivered,
            () = cancelled => return Err(Error::cancelled("telling the service the end of the run").with_hint(HINT)),
        };
        let failed = |why: String| {
            Err(Error::source_failed(format!("{service} has not accepted the end of the run {why}")).with_hint(HINT))
        };
        match delivered {
            Ok(Ok(Delivered::Accepted)) => Ok(()),
            Ok(Ok(Delivered::NotWanted(why))) => failed(format!("and does not want it: {why}")).map_err(permanent),
            Ok(Ok(Delivered::Refused(why))) => failed(format!("and will not: {why}")).map_err(permanent),
            Ok(Err(error)) => failed(format!("since the task that reports died: {error}")),
            Err(_) => failed(format!("within {} s: {}", within.as_secs(), outbox.trouble())),
        }
    }
}

const HINT: &str =
    "how the run ended stands above, and holds; see what the service takes it for, and tell it where that differs";

fn permanent(error: Error) -> Error {
    error.with_retry(Retry::Permanent)
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.renewing.abort();
        self.sending.abort();
    }
}

fn trust(paths: &[PathBuf], named: &str) -> Result<Trust> {
    let keys = paths.iter().map(|path| read_key(path, named)).collect::<Result<Vec<PublicKey>>>()?;
    Trust::new(keys, 1).map_err(|error| Error::usage(format!("{named}: {error}")).with_source(error))
}

/// Reads the enrolment token, which `named` has named: one line.
///
/// # Errors
/// `Usage` when it cannot be read, or is no token.
pub(crate) fn read_token(path: &Path, named: &str) -> Result<Token> {
    let bytes = read_file(path, MAX_TOKEN, "the enrolment token")?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    Token::try_from(line.to_owned()).map_err(|error| {
        Error::usage(format!("{named} {}: {error}", path.display()))
            .with_hint("the service gives one for each attempt: put just that into the file")
    })
}

fn seconds_since_1970() -> Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map(|since| since.as_secs()).map_err(|_| {
        Error::target("this machine's clock stands before 1970, so no ticket is good").with_hint("set the clock")
    })
}

#[cfg(test)]
mod tests;
