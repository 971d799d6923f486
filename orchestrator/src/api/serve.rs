//! Connections are accepted, counted, and let go when the service ends.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::connection::{self, Builders};
use super::limits::{Limits, peer};
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
    let places = Places::new(limits.connections, limits.connections_per_peer);
    let builders = Builders::new(&limits);
    let server = Arc::new(Server { app, tls, limits, drain, metrics, builders, places });
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
                tracing::warn!(%error, "no connection can be accepted; trying again in a moment");
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
    match server.places.take(from.ip()) {
        Ok(place) => {
            let (server, connected) = (server.clone(), server.metrics.connected());
            connections.spawn(async move {
                connection::run(stream, from, &server).await;
                drop((place, connected));
            });
        }
        // Dropping it tells the other end at once; in a queue it would wait for nothing.
        Err(full) => {
            server.metrics.refused();
            tracing::warn!(%from, "a connection was refused: {full}");
        }
    }
}

fn is_of_one_connection(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused)
}

/// How many connections there are, in all and of each peer.
#[derive(Clone)]
struct Places(Arc<Counted>);

struct Counted {
    most: usize,
    most_per_peer: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_peer: HashMap<IpAddr, usize>,
}

/// One connection's. It is free again when this is dropped.
struct Place {
    of: Places,
    peer: IpAddr,
}

impl Places {
    fn new(most: usize, most_per_peer: usize) -> Self {
        Places(Arc::new(Counted { most, most_per_peer, taken: Mutex::default() }))
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, address: IpAddr) -> Result<Place, &'static str> {
        let peer = peer(address);
        let mut taken = self.taken();
        if taken.all >= self.0.most {
            return Err("there are as many as there may be");
        }
        let of_peer = taken.by_peer.entry(peer).or_default();
        if *of_peer >= self.0.most_per_peer {
            return Err("its peer has as many as one peer may have");
        }
        *of_peer += 1;
        taken.all += 1;
        drop(taken);
        Ok(Place { of: self.clone(), peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.of.taken();
        taken.all -= 1;
        if let Some(of_peer) = taken.by_peer.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                taken.by_peer.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_all_and_by_peer_and_given_back() {
        let places = Places::new(3, 2);
        let of = |last| IpAddr::from([10, 0, 0, last]);
        let held = [places.take(of(1)).ok(), places.take(of(1)).ok()];
        assert!(places.take(of(1)).is_err(), "a third one of one peer");
        let third = places.take(of(2)).ok();
        assert!(places.take(of(3)).is_err(), "a fourth one in all");
        drop(third);
        assert!(places.take(of(3)).is_ok());
        drop(held);
        assert!(places.taken().by_peer.is_empty());
        assert_eq!(places.taken().all, 0);
    }
}
