//! One connection: TLS, HTTP/1.1 or HTTP/2, and how it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use super::activity::{Activity, Over};
use super::answer::counted;
use super::caller::{Certificate, Peer};
use super::limits::Limits;
use super::places::Place;
use super::serve::{Accepting, Server};
use super::stall::Stall;
use crate::model::Moment;

/// How long a connection that should end may take to do so by itself.
const LAST: Duration = Duration::from_secs(1);
/// The same of one whose place another has: enough for an answer that is being made, as to an enrolment.
const BRIEFLY: Duration = Duration::from_millis(100);

/// The other end of a connection: where it is, and what it has shown.
struct End<'a> {
    from: SocketAddr,
    certificate: Option<Certificate>,
    place: &'a Place,
}

/// How connections are served, by what they speak.
pub(super) struct Builders {
    any: auto::Builder<TokioExecutor>,
    http1: auto::Builder<TokioExecutor>,
    http2: auto::Builder<TokioExecutor>,
}

impl Builders {
    pub(super) fn new(limits: &Limits) -> Self {
        let (http1, http2) = (builder(limits).http1_only(), builder(limits).http2_only());
        Builders { any: builder(limits), http1, http2 }
    }
}

/// Serves one connection until it ends. Its parts are boxed, each for as long as it is needed: most connections are idle most of the
/// time, and there may be ten thousand of them.
pub(super) async fn run(stream: TcpStream, from: SocketAddr, place: &mut Place, server: &Server) {
    // Events are small, and late when they are held back. Where that cannot be set, nothing else is lost.
    let _ = stream.set_nodelay(true);
    let stream = Stall::new(stream, server.limits.stall);
    match &server.tls {
        Some(tls) => {
            let serving = Box::pin(shake(stream, from, place, tls, server)).await;
            if let Some(serving) = serving {
                serving.await;
            }
        }
        None => serve(stream, &server.builders.any, End { from, certificate: None, place }, server).await,
    }
}

/// The TLS handshake, and what follows it.
async fn shake<'a>(
    stream: Stall<TcpStream>,
    from: SocketAddr,
    place: &'a mut Place,
    tls: &Accepting,
    server: &'a Server,
) -> Option<BoxFuture<'a, ()>> {
    let shaken = tokio::select! {
        () = server.drain.cancelled() => return None,
        () = place.is_wanted() => return None,
        shaken = timeout(server.limits.handshake, tls.acceptor.accept(stream)) => shaken,
    };
    match shaken {
        Ok(Ok(stream)) => {
            let (is_http2, shown) = {
                let connection = stream.get_ref().1;
                let leaf = connection.peer_certificates().and_then(|chain| chain.first());
                let shown = leaf.and_then(|leaf| tls.clients.shown(leaf, Moment::of_wall_clock()));
                (connection.alpn_protocol() == Some(b"h2"), shown)
            };
            // One that has shown nothing may have to go here; it hears of that by its end.
            if let Err(full) = place.settle(shown.as_ref().filter(|shown| shown.is_ours).map(|shown| &shown.key)) {
                server.refused(from, full);
                return None;
            }
            let who = End { from, certificate: shown.map(|shown| Certificate(Arc::new(shown))), place };
            let builder = if is_http2 { &server.builders.http2 } else { &server.builders.http1 };
            return Some(Box::pin(serve(stream, builder, who, server)));
        }
        Ok(Err(error)) => {
            server.metrics.handshake_failed();
            tracing::debug!(%from, %error, "the TLS handshake failed");
        }
        Err(_) => {
            server.metrics.handshake_failed();
            tracing::debug!(%from, "the TLS handshake took too long");
        }
    }
    None
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let head_bytes = usize::try_from(limits.head_bytes).unwrap_or(usize::MAX);
    builder
        .http1()
        .timer(TokioTimer::new())
        // `Activity` bounds that, for both versions, and also what comes before a version is known.
        .header_read_timeout(None)
        .max_headers(limits.headers)
        .max_buf_size(head_bytes.max(8 << 10));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.head_bytes)
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(limits.ping)
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(1 << 20)
        .max_send_buf_size(64 << 10);
    builder
}

fn serve<'a, S>(
    stream: S,
    builder: &'a auto::Builder<TokioExecutor>,
    end: End<'a>,
    server: &'a Server,
) -> impl Future<Output = ()> + Send + 'a
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (activity, End { from, certificate, place }) = (Activity::new(&server.limits), end);
    let (doing, proof) = (activity.clone(), place.proof());
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        let under_way = doing.begin();
        request.extensions_mut().insert(Peer(from));
        if let Some(certificate) = &certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        if let Some(proof) = &proof {
            request.extensions_mut().insert(proof.clone());
        }
        let request: Request = request.map(Body::new);
        let answer = server.app.clone().oneshot(request);
        async move { answer.await.map(|response| counted(response, under_way)) }
    });
    let mut connection = Box::pin(builder.serve_connection(TokioIo::new(stream), service));
    async move {
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = server.drain.cancelled() => {
                connection.as_mut().graceful_shutdown();
                // Bounded by whoever accepted it.
                connection.await
            }
            (why, within) = must_end(&activity, place, server) => {
                tracing::debug!(%from, why, "the connection must end");
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    () = sleep(within) => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%from, error, "a connection ended badly");
        }
    }
}

/// Waits until a connection must end, and says why, and how long that may take.
async fn must_end(activity: &Activity, place: &Place, server: &Server) -> (&'static str, Duration) {
    tokio::select! {
        over = activity.over(&server.limits) => match over {
            Over::Idle => ("nobody asks anything", LAST),
            Over::NotTaken => ("an answer is not taken", LAST),
        },
        // Its place is another's already, and it is an open file for as long as it lasts.
        () = place.is_wanted() => ("others need its place, and it has proven nothing", BRIEFLY),
    }
}
