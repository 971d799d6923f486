//! Connections are accepted, counted, and let go when the service ends.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::connection::{self, Builders};
use super::limits::{Limits, peer};
use super::places::Places;
use super::seldom::Seldom;
use crate::identity::Clients;
use crate::metrics::Metrics;

/// How long nothing is accepted when the machine has no more of what a connection needs.
const BREATH: Duration = Duration::from_millis(100);

/// How TLS is spoken.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The service's side. Its ALPN is set by [`serve`].
    pub config: Arc<rustls::ServerConfig>,
    /// Who can read what clients show.
    pub clients: Arc<Clients>,
}

/// The same, as connections are accepted with it.
pub(super) struct Accepting {
    pub(super) acceptor: TlsAcceptor,
    pub(super) clients: Arc<Clients>,
}

/// What all connections share.
pub(super) struct Server {
    pub(super) app: Router,
    pub(super) tls: Option<Accepting>,
    pub(super) limits: Limits,
    pub(super) drain: CancellationToken,
    pub(super) metrics: Metrics,
    pub(super) builders: Builders,
    places: Places,
    refusals: Seldom,
    failures: Seldom,
}

impl Server {
    /// A connection was refused, or let go for another one. Strangers decide how often that happens.
    pub(super) fn refused(&self, from: SocketAddr, full: &str) {
        self.metrics.refused();
        if let Some(times) = self.refusals.happened() {
            tracing::warn!(%from, times, "connections are refused, or let go for those that come; the last time because {full}");
        }
    }
}

/// Serves `app` on these listeners, with TLS where that is given, until `drain` is cancelled. Returns when
/// the last connection has ended, at the latest [`Limits::drain`] later.
pub async fn serve(
    listeners: Vec<TcpListener>,
    tls: Option<Tls>,
    app: Router,
    limits: Limits,
    drain: CancellationToken,
    metrics: Metrics,
) {
    let tls = tls.map(|Tls { config, clients }| {
        let mut config = rustls::ServerConfig::clone(&config);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Accepting { acceptor: TlsAcceptor::from(Arc::new(config)), clients }
    });
    let places = Places::new(&limits, tls.is_some());
    let builders = Builders::new(&limits);
    let server = Arc::new(Server {
        app,
        tls,
        limits,
        drain,
        metrics,
        builders,
        places,
        refusals: Seldom::new(),
        failures: Seldom::new(),
    });
    let loops = listeners.into_iter().map(|listener| accept(listener, server.clone()));
    futures_util::future::join_all(loops).await;
}

async fn accept(listener: TcpListener, server: Arc<Server>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = server.drain.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, from)) => begin(stream, from, &server, &mut connections),
            // That connection has gone before it was accepted; the next may be there already.
            Err(error) if is_of_one_connection(error.kind()) => {}
            Err(error) => {
                if let Some(times) = server.failures.happened() {
                    tracing::warn!(%error, times, "no connection can be accepted; trying again in a moment");
                }
                tokio::select! {
                    () = server.drain.cancelled() => break,
                    () = tokio::time::sleep(BREATH) => {}
                }
            }
        }
    }
    // Nobody is let in any more, while those who are in end.
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(server.limits.drain, all).await.is_err() {
        tracing::warn!("{} connections were cut: they did not end in time", connections.len());
        connections.shutdown().await;
    }
}

fn begin(stream: TcpStream, from: SocketAddr, server: &Arc<Server>, connections: &mut JoinSet<()>) {
    match server.places.take(peer(from.ip())) {
        Ok(mut place) => {
            if let Some(full) = place.took_anothers() {
                server.refused(from, full);
            }
            let (server, connected) = (server.clone(), server.metrics.connected());
            connections.spawn(async move {
                connection::run(stream, from, &mut place, &server).await;
                drop((place, connected));
            });
        }
        // Dropping it tells the other end at once; in a queue it would wait for nothing.
        Err(full) => server.refused(from, full),
    }
}

fn is_of_one_connection(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused)
}
