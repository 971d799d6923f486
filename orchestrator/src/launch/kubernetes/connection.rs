//! The way to a cluster, which may not be there yet, or not any more for a while.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::TryFutureExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Error};

use super::server::Server;
use crate::launch::Says;

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(20);
/// First wait before asking again.
const FIRST: Duration = Duration::from_millis(250);
/// Longest one.
const MOST: Duration = Duration::from_secs(10);

/// A cluster that has answered.
#[derive(Clone)]
pub struct Connection {
    /// Asks it.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
    /// Which server it is.
    pub server: Server,
}

impl Connection {
    /// Asks a cluster once who it is.
    ///
    /// # Errors
    /// Nothing says where it is, it does not answer, or it does not know the namespace.
    pub async fn open(kubeconfig: Option<&PathBuf>, namespace: Option<&String>) -> Result<Self, String> {
        let mut config = match kubeconfig {
            Some(file) => {
                let read = Kubeconfig::read_from(file)
                    .map_err(|error| format!("reading the kubeconfig {}: {error}", file.display()))?;
                let built = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
                built.map_err(|error| format!("the kubeconfig {}: {error}", file.display()))?
            }
            None => Config::incluster().map_err(|error| {
                format!("{error}: outside a cluster, name a kubeconfig with `kubernetes.kubeconfig`")
            })?,
        };
        config.connect_timeout = Some(Duration::from_secs(5));
        // Above what a watch lasts. Without, a list that is never answered waits for ever.
        config.read_timeout = Some(Duration::from_secs(300));
        let namespace = namespace.cloned().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| error.to_string())?;
        let info = within(client.apiserver_version()).await.map_err(|error| said(&error))?;
        let found = within(Api::<Namespace>::all(client.clone()).get(&namespace)).await;
        let found = found.map_err(|error| format!("looking at the namespace {namespace}: {}", said(&error)))?;
        Ok(Connection { client, namespace, uid: found.metadata.uid.unwrap_or_default(), server: Server::new(&info) })
    }
}

/// An answer, or why there is none.
///
/// # Errors
/// As the server says, or that it said nothing in time.
pub async fn within<T>(asking: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let late = |_| Error::Service(format!("no answer within {} s", ANSWER.as_secs()).into());
    tokio::time::timeout(ANSWER, asking).map_err(late).await?
}

/// What a server has answered, or why nothing came.
pub fn said(error: &Error) -> String {
    match error {
        Error::Api(status) => status.message.clone(),
        error => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(inner) = source {
                let inner_text = inner.to_string();
                if !text.contains(&inner_text) {
                    text = format!("{text}: {inner_text}");
                }
                source = inner.source();
            }
            text
        }
    }
}

/// Whether an answer is one that asking again may change: none at all, that of a server in trouble, or that we ask too often.
pub fn may_pass(error: &Error) -> bool {
    match error {
        // Credentials of a service account are renewed, and a token may just have been. A quota has room again, a role can be mended, and a
        // server that has just started knows no roles yet.
        Error::Api(status) => status.code >= 500 || matches!(status.code, 401 | 403 | 408 | 429),
        _ => true,
    }
}

/// Whether an answer says that the object is there already.
pub fn is_there(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.reason == "AlreadyExists")
}

/// The status code of a refusal, 0 for none.
pub fn code(error: &Error) -> u16 {
    match error {
        Error::Api(status) => status.code,
        _ => 0,
    }
}

/// Waits between questions, longer each time.
pub struct Patience {
    next: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { next: FIRST }
    }
}

impl Patience {
    /// Says why, and waits.
    pub async fn wait(&mut self, says: &Says, why: String) {
        says(why);
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(MOST);
    }
}
