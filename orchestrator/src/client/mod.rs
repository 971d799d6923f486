//! The client: what people and platforms ask the service, over TLS, with a token or a client certificate. It trusts one authority and no
//! other, follows nothing, and waits for nothing without a bound.

mod backoff;
mod connect;
mod events;
mod exchange;
mod proof;
pub mod sse;

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use protocol::control::key::ShownKey;
use protocol::control::run::{EnrolmentToken, MAX_IDEMPOTENCY_KEY, Revoke, RunPage};
use protocol::control::{NewRun, Run};
use protocol::{RunId, Token};
use serde::Serialize;
use tokio::time::Instant;
use url::Url;

use crate::dial::Server;
use crate::error::{Error, Result};
use backoff::Backoff;
use exchange::Request;

pub use events::{Events, News};
pub use proof::Proof;

/// Where the service is when nobody says otherwise.
pub const DEFAULT_URL: &str = "https://127.0.0.1:7443";
/// How long the creation of a run is tried again when the service does not answer, or answers that it cannot now.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Largest answer about one run, in bytes.
const MAX_RUN: usize = 4 << 20;
/// Largest page of a list, in bytes.
const MAX_LIST: usize = 64 << 20;

/// A client of one service. Clones share what they know.
#[derive(Clone)]
pub struct Client {
    base: Arc<Url>,
    server: Arc<Server>,
    /// Where it is not a certificate that proves who asks.
    token: Option<Token>,
    times: Times,
}

/// How long the client waits.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For a whole answer.
    pub answer: Duration,
    /// For the next sign of life in a stream of events.
    pub silence: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        // The service says something in a stream every 15 s.
        Times { connect: seconds(10), answer: seconds(20), silence: seconds(50) }
    }
}

/// Which runs a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// In any of these states.
    pub states: Vec<String>,
    /// Of this server.
    pub server: Option<String>,
    /// So many at once; as many as the service likes where it is 0.
    pub limit: u32,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.base)
    }
}

impl Client {
    /// A client of the service at `url` (`https://host[:port][/path]`), which shows a certificate of the authority in `ca` (PEM).
    ///
    /// # Errors
    /// The URL is none of a service, there is no certificate, or the client's own and its key do not belong together.
    pub fn new(url: &str, ca: &[u8], proof: impl Into<Proof>) -> Result<Self> {
        let base = connect::base(url)?;
        let (tls, token) = match proof.into() {
            Proof::Token(token) => (connect::tls(ca, None)?, Some(token)),
            Proof::Certificate(chain, key) => (connect::tls(ca, Some((chain, key)))?, None),
        };
        let server = Server::at(&base, Some(tls));
        let server =
            server.ok_or_else(|| connect::no_url(url, "no certificate could be for the host that it names"))?;
        Ok(Client { base: Arc::new(base), server: Arc::new(server), token, times: Times::default() })
    }

    /// With other patience.
    #[must_use]
    pub fn with_times(mut self, times: Times) -> Self {
        self.times = times;
        self
    }

    /// Where the service is.
    pub fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Creates a run; `false` when this key has made it before. Asked once.
    ///
    /// # Errors
    /// The service was not reached or refused it.
    pub async fn create(&self, new: &NewRun, key: &str) -> Result<(Run, bool)> {
        if key.is_empty() || key.len() > MAX_IDEMPOTENCY_KEY || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::usage(format!("{key:?} is no idempotency key"))
                .with_hint(format!("give 1 to {MAX_IDEMPOTENCY_KEY} ASCII characters without blanks")));
        }
        let request = Request::new(Method::POST, "v1/runs").json(new)?.idempotency_key(key);
        let answer = self.exchange(request, MAX_RUN).await?;
        Ok((answer.parse()?, answer.status == 201))
    }

    /// Creates a run, and asks again with the same key while that may help, for up to `patience`. `tell` hears of each failure that is
    /// not the last.
    ///
    /// # Errors
    /// The service was not reached in all that time, or refused it. Whether the run was made is then not known, except where it was
    /// refused: ask again with the same key.
    pub async fn create_surely(
        &self,
        new: &NewRun,
        key: &str,
        patience: Duration,
        mut tell: impl FnMut(&Error, Duration),
    ) -> Result<(Run, bool)> {
        let until = Instant::now() + patience;
        let mut backoff = Backoff::new();
        loop {
            let error = match self.create(new, key).await {
                Ok(created) => return Ok(created),
                Err(error) => error,
            };
            let Some(retry) = error.retry() else { return Err(error) };
            let wait = backoff.next_wait().max(retry.after.unwrap_or_default());
            if Instant::now() + wait >= until {
                return Err(error);
            }
            tell(&error, wait);
            tokio::time::sleep(wait).await;
        }
    }

    /// A page of runs, the latest first.
    ///
    /// # Errors
    /// The service was not reached or refused it.
    pub async fn list(&self, filter: &Filter, page: Option<&str>) -> Result<RunPage> {
        let mut request = Request::new(Method::GET, "v1/runs");
        if filter.limit > 0 {
            request = request.query("limit", &filter.limit.to_string());
        }
        if !filter.states.is_empty() {
            request = request.query("state", &filter.states.join(","));
        }
        if let Some(server) = &filter.server {
            request = request.query("server", server);
        }
        if let Some(page) = page {
            request = request.query("page", page);
        }
        self.exchange(request, MAX_LIST).await?.parse()
    }

    /// A run.
    ///
    /// # Errors
    /// The service was not reached or does not know it.
    pub async fn run(&self, run: &RunId) -> Result<Run> {
        self.exchange(Request::new(Method::GET, &format!("v1/runs/{run}")), MAX_RUN).await?.parse()
    }

    /// Calls a run off.
    ///
    /// # Errors
    /// The service was not reached or refused it.
    pub async fn cancel(&self, run: &RunId, reason: Option<&str>) -> Result<Run> {
        #[derive(Serialize)]
        struct Body<'a> {
            reason: &'a str,
        }
        match reason {
            Some(reason) => self.post(run, "cancel", &Body { reason }).await,
            None => self.post(run, "cancel", &Empty {}).await,
        }
    }

    /// Queues a run again that has failed or was cancelled.
    ///
    /// # Errors
    /// The service was not reached or refused it.
    pub async fn retry(&self, run: &RunId) -> Result<Run> {
        self.post(run, "retry", &Empty {}).await
    }

    /// Vouches that the agent of an attempt is dead or cut off from the storage.
    ///
    /// # Errors
    /// The service was not reached or refused it.
    pub async fn confirm_death(&self, run: &RunId, attempt: u32) -> Result<Run> {
        #[derive(Serialize)]
        struct Body {
            attempt: u32,
        }
        self.post(run, "confirm-death", &Body { attempt }).await
    }

    /// Revokes an attempt.
    ///
    /// # Errors
    /// The service was not reached or refused it.
    pub async fn revoke(&self, run: &RunId, attempt: u32, reason: Option<&str>) -> Result<Run> {
        let revoke = Revoke { attempt, reason: reason.map(ToOwned::to_owned) };
        self.post(run, "revoke", &revoke).await
    }

    /// A new enrolment token. Those before it are void.
    ///
    /// # Errors
    /// The service was not reached or refused it.
    pub async fn token(&self, run: &RunId) -> Result<EnrolmentToken> {
        self.post(run, "token", &Empty {}).await
    }

    /// The key that unlocks a run's disk. It is shown once: asked once.
    ///
    /// # Errors
    /// The service was not reached or refused it.
    pub async fn key(&self, run: &RunId) -> Result<ShownKey> {
        self.post(run, "key", &Empty {}).await
    }

    /// Makes the service forget the key of a run's disk.
    ///
    /// # Errors
    /// The service was not reached or refused it.
    pub async fn destroy_key(&self, run: &RunId) -> Result<Run> {
        self.exchange(Request::new(Method::DELETE, &format!("v1/runs/{run}/key")), MAX_RUN).await?.parse()
    }

    /// What happens to a run, from its beginning on; or to all runs, from now on. Nothing is asked before the first [`Events::next`].
    pub fn events(&self, run: Option<RunId>) -> Events {
        Events::new(self.clone(), run)
    }

    async fn post<T: serde::de::DeserializeOwned>(&self, run: &RunId, what: &str, body: &impl Serialize) -> Result<T> {
        let request = Request::new(Method::POST, &format!("v1/runs/{run}/{what}")).json(body)?;
        self.exchange(request, MAX_RUN).await?.parse()
    }
}

#[derive(Serialize)]
struct Empty {}
