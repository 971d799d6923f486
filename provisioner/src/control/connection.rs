//! Connections to the service: how one is made, what it shows of us, and the one that waits for the next request.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use imgstream::error::{Error, Result, Retry};
use imgstream::source::{Dial, fault, trusting};
use rustls_pki_types::ServerName;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;

use super::address::Address;
use super::client_key::Key;

/// Largest head of an answer, in bytes.
const MAX_HEAD: usize = 64 << 10;
const CERTIFICATES: &str = "compare the authority that is trusted (--orchestrator-ca, or `trust.orchestrator_ca` of a medium) with the one that signed the service's certificate, and the name in that with the URL; look at this machine's clock";

/// Where a service is, and how it is reached.
#[derive(Debug)]
pub(super) struct Endpoint {
    address: Address,
    dial: Dial,
    /// Whom it must prove to be, and what we show. `None`: no TLS.
    tls: Mutex<Option<Arc<ClientConfig>>>,
}

/// A connection, and the task that moves its bytes, which ends with it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) sender: SendRequest<Full<Bytes>>,
    task: AbortHandle,
    /// What it was made with.
    tls: Option<Arc<ClientConfig>>,
}

/// The connection that waits for the next request, where there is one.
#[derive(Debug, Default)]
pub(super) struct Idle(Mutex<Option<Connection>>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Idle {
    /// Takes it, unless it shows what is not shown any more: then it is closed.
    pub(super) fn take(&self, endpoint: &Endpoint) -> Option<Connection> {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let tls = endpoint.tls();
        let is_of_now = match (&connection.tls, &tls) {
            (Some(then), Some(now)) => Arc::ptr_eq(then, now),
            (then, now) => then.is_none() && now.is_none(),
        };
        is_of_now.then_some(connection)
    }

    /// Keeps this one. One that waits already is closed: one is enough.
    pub(super) fn keep(&self, connection: Connection) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
    }
}

impl Endpoint {
    /// The service at `address`. With `https` it must show a certificate of `ca_pem`, and no other authority counts.
    ///
    /// # Errors
    /// `Usage` when there is no usable certificate in `ca_pem`, or none is given.
    pub(super) fn new(address: Address, ca_pem: Option<&[u8]>, dial: Dial) -> Result<Self> {
        let tls = match ca_pem {
            _ if !address.is_https() => None,
            Some(pem) => Some(trusting(pem)?),
            None => {
                return Err(Error::usage(format!(
                    "{address}: nothing says which authority's certificate it must have"
                ))
                .with_hint("give the authority's certificate (PEM) with --orchestrator-ca"));
            }
        };
        Ok(Endpoint { address, dial, tls: Mutex::new(tls) })
    }

    /// Where the service is.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Shows this certificate (PEM) over this key on each connection that is made from now on, where there is TLS.
    ///
    /// # Errors
    /// As of [`Key::shown`]; then nothing has changed.
    pub(super) fn show(&self, certificate: &str, key: &Key) -> Result<()> {
        let mut tls = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tls) = &mut *tls {
            *tls = Arc::new(key.shown(tls, certificate)?);
        }
        Ok(())
    }

    fn tls(&self) -> Option<Arc<ClientConfig>> {
        self.tls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a connection. `what` is asked of it.
    ///
    /// # Errors
    /// `Usage` for a host that has no name; those of [`Dial::connect`]; `Source` when there is no agreement on TLS.
    pub(super) async fn connect(&self, what: &str) -> Result<Connection> {
        let host = self.address.host().to_owned();
        let found = tokio::net::lookup_host((host.clone(), self.address.port())).await;
        let found = found.map_err(|error| {
            fault(&format!("{what}: looking up its name"), error)
                .with_hint("look at the host's name, and at /etc/resolv.conf")
        })?;
        let tcp = self.dial.connect(&format!("{what}: connecting"), &found.collect::<Vec<_>>()).await?;
        let _ = tcp.set_nodelay(true);
        let Some(tls) = self.tls() else { return handshake(what, TokioIo::new(tcp), None).await };
        let name = ServerName::try_from(host).map_err(|error| Error::usage(format!("{what}: its host: {error}")))?;
        let agreed = TlsConnector::from(Arc::clone(&tls)).connect(name, tcp).await.map_err(|error| {
            let error = fault(&format!("{what}: agreeing on TLS"), error);
            if error.retry() == Retry::OtherSource { error.with_hint(CERTIFICATES) } else { error }
        })?;
        handshake(what, TokioIo::new(agreed), Some(tls)).await
    }
}

async fn handshake<I>(what: &str, io: I, tls: Option<Arc<ClientConfig>>) -> Result<Connection>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let started = http1::Builder::new().max_header_size(MAX_HEAD).handshake(io).await;
    let (sender, connection) = started.map_err(|error| fault(&format!("{what}: starting HTTP"), error))?;
    let task = tokio::spawn(async move { drop(connection.await) }).abort_handle();
    Ok(Connection { sender, task, tls })
}
