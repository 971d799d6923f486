//! TCP connections: from which address, and whether they may be made.

use std::fmt::Debug;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::fault::fault;
use super::{Boxed, SourceOptions};
use crate::error::{Error, Result, Retry};

/// Who is asked before each connection to a source, new ones in place of lost ones included. An error keeps it from being made, or from
/// being used; it is told as the source's, with its own kind and whether waiting may help.
pub trait Vet: Send + Sync + Debug {
    /// Whether a connection may be made, from an address that would be chosen for it. Nothing has been sent.
    fn may_connect(&self, local: IpAddr, peer: SocketAddr) -> Boxed<'_, Result<()>>;

    /// Whether bytes may be sent on a connection that has been made. None has been.
    fn may_send(&self, local: SocketAddr, peer: SocketAddr) -> Boxed<'_, Result<()>>;
}

/// Makes connections, as these options say.
#[derive(Debug)]
pub struct Dial {
    vet: Option<Arc<dyn Vet>>,
    local: Vec<IpAddr>,
    /// Whose turn it is among `local`, those of IPv4 and those of IPv6.
    turns: [AtomicUsize; 2],
}

impl Dial {
    /// With the vet and the local addresses of these options.
    pub fn new(options: &SourceOptions) -> Self {
        Dial { vet: options.vet.clone(), local: options.local_addresses.clone(), turns: Default::default() }
    }

    /// A connection to the first of a host's addresses that gives one. `what` names it in errors.
    ///
    /// # Errors
    /// The vet's, or what the last address had against it.
    pub async fn connect(&self, what: &str, addresses: &[SocketAddr]) -> Result<TcpStream> {
        let mut failed: Option<Error> = None;
        for peer in addresses {
            match self.connect_to(what, *peer).await {
                Ok(tcp) => return Ok(tcp),
                // What may pass counts for more than what will not, and the latest for more than the others.
                Err(error)
                    if failed.as_ref().is_none_or(|failed| error.retry() == failed.retry() || may_pass(&error)) =>
                {
                    failed = Some(error);
                }
                Err(_) => {}
            }
        }
        Err(failed.unwrap_or_else(|| Error::source_failed(format!("{what}: its name has no address"))))
    }

    async fn connect_to(&self, what: &str, peer: SocketAddr) -> Result<TcpStream> {
        let from = self.from(what, peer)?;
        if let Some(vet) = &self.vet {
            let local = match chosen(from, peer).await {
                Ok(local) => local,
                // Where policies let nothing out, no address is chosen either. The vet says it better.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    vet.may_connect(from.unwrap_or(any(peer)), peer).await?;
                    return Err(fault(what, error));
                }
                Err(error) => return Err(fault(what, error)),
            };
            vet.may_connect(local, peer).await?;
        }
        let tcp = connect(from, peer).await.map_err(|error| fault(what, error))?;
        if let Some(vet) = &self.vet {
            let local = tcp.local_addr().map_err(|error| fault(what, error))?;
            vet.may_send(local, peer).await?;
        }
        Ok(tcp)
    }

    /// The address to connect from, where that is ours to choose: the next of those with the peer's family.
    fn from(&self, what: &str, peer: SocketAddr) -> Result<Option<IpAddr>> {
        // From an address of the network nobody reaches this machine itself.
        if self.local.is_empty() || peer.ip().to_canonical().is_loopback() {
            return Ok(None);
        }
        let fitting = || self.local.iter().filter(|local| local.is_ipv4() == peer.is_ipv4());
        let turn = self.turns[usize::from(peer.is_ipv6())].fetch_add(1, Relaxed).checked_rem(fitting().count());
        let next = turn.and_then(|turn| fitting().nth(turn));
        next.copied().map(Some).ok_or_else(|| {
            let family = if peer.is_ipv4() { "IPv4" } else { "IPv6" };
            Error::source_failed(format!("{what}: no address of {family} is given to connect to {peer} from"))
                .with_retry(Retry::Permanent)
        })
    }
}

fn may_pass(error: &Error) -> bool {
    error.retry() == Retry::Temporary
}

/// No address in particular, of the peer's family.
fn any(peer: SocketAddr) -> IpAddr {
    if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// The address the kernel would connect from. A connected UDP socket tells without sending anything.
async fn chosen(from: Option<IpAddr>, peer: SocketAddr) -> std::io::Result<IpAddr> {
    let socket = UdpSocket::bind((from.unwrap_or(any(peer)), 0)).await?;
    socket.connect(peer).await?;
    Ok(socket.local_addr()?.ip())
}

async fn connect(from: Option<IpAddr>, peer: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if peer.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(from) = from {
        socket.bind((from, 0).into())?;
    }
    socket.connect(peer).await
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::error::Kind;
    use crate::manifest::layout::Choice;
    use crate::source::{Locator, Source};

    /// Refuses what it is told to, and remembers what it was asked.
    #[derive(Debug, Default)]
    struct Stern {
        connecting: bool,
        sending: bool,
        asked: Mutex<Vec<String>>,
    }

    impl Stern {
        fn answer(&self, asked: String, refused: bool) -> Boxed<'_, Result<()>> {
            self.asked.lock().unwrap().push(asked);
            let refusal = Error::source_failed("not protected").with_retry(Retry::Permanent);
            Box::pin(std::future::ready(if refused { Err(refusal) } else { Ok(()) }))
        }
    }

    impl Vet for Stern {
        fn may_connect(&self, local: IpAddr, peer: SocketAddr) -> Boxed<'_, Result<()>> {
            self.answer(format!("connect {local} {}", peer.ip()), self.connecting)
        }

        fn may_send(&self, local: SocketAddr, peer: SocketAddr) -> Boxed<'_, Result<()>> {
            assert_ne!(local.port(), 0);
            self.answer(format!("send {} {}", local.ip(), peer.ip()), self.sending)
        }
    }

    fn source(at: SocketAddr, options: &SourceOptions) -> Arc<dyn Source> {
        let locator: Locator = format!("http://{at}/").parse().unwrap();
        crate::source::connect(&locator, options).unwrap()
    }

    async fn refused_by(vet: Arc<Stern>) -> (Error, Option<Vec<u8>>) {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = SourceOptions { vet: Some(vet), ..SourceOptions::default() };
        let source = source(server.local_addr().unwrap(), &options);
        let error = source.manifest(&Choice::default()).await.unwrap_err();
        let accepted = tokio::time::timeout(Duration::from_millis(100), server.accept()).await.ok();
        let mut heard = Vec::new();
        let Some(Ok((mut tcp, _))) = accepted else { return (error, None) };
        tcp.read_to_end(&mut heard).await.unwrap();
        (error, Some(heard))
    }

    #[tokio::test]
    async fn a_connection_that_is_refused_is_not_made() {
        let vet = Arc::new(Stern { connecting: true, ..Stern::default() });
        let (error, heard) = refused_by(Arc::clone(&vet)).await;
        assert_eq!((error.kind(), error.retry(), heard), (Kind::Source, Retry::Permanent, None));
        assert_eq!(error.to_string(), "not protected");
        assert_eq!(*vet.asked.lock().unwrap(), ["connect 127.0.0.1 127.0.0.1"]);
    }

    #[tokio::test]
    async fn on_a_connection_that_is_refused_nothing_is_sent() {
        let vet = Arc::new(Stern { sending: true, ..Stern::default() });
        let (error, heard) = refused_by(Arc::clone(&vet)).await;
        assert_eq!((error.kind(), heard), (Kind::Source, Some(Vec::new())));
        assert_eq!(*vet.asked.lock().unwrap(), ["connect 127.0.0.1 127.0.0.1", "send 127.0.0.1 127.0.0.1"]);
    }

    #[tokio::test]
    async fn connections_come_from_each_address_in_turn() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = server.local_addr().unwrap();
        let local_addresses = ["::1", "127.0.0.2", "127.0.0.3"].map(|text| text.parse().unwrap()).to_vec();
        let vet = Arc::new(Stern::default());
        let dial = Dial::new(&SourceOptions {
            local_addresses: local_addresses.clone(),
            vet: Some(vet),
            ..SourceOptions::default()
        });
        // The peer's address counts as one of the network: what is asked of it here is only where it sees us.
        let mut seen = Vec::new();
        for _ in 0..4 {
            let from = dial.from("x", "192.0.2.1:80".parse().unwrap()).unwrap();
            assert_eq!(Some(chosen(from, at).await.unwrap()), from);
            let _tcp = connect(from, at).await.unwrap();
            seen.push(server.accept().await.unwrap().1.ip().to_string());
        }
        assert_eq!(seen, ["127.0.0.2", "127.0.0.3", "127.0.0.2", "127.0.0.3"]);
        assert_eq!(dial.from("x", "[2001:db8::1]:80".parse().unwrap()).unwrap(), Some("::1".parse().unwrap()));
        assert_eq!(dial.from("x", at).unwrap(), None);
        let four = SourceOptions { local_addresses: local_addresses[1..].to_vec(), ..SourceOptions::default() };
        let error = Dial::new(&four).from("x", "[2001:db8::1]:80".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("no address of IPv6") && error.retry() == Retry::Permanent);
    }

    #[tokio::test]
    async fn each_address_of_a_host_is_tried_and_what_may_pass_is_told() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (good, closed) = (server.local_addr().unwrap(), "127.0.0.1:1".parse().unwrap());
        let dial = Dial::new(&SourceOptions::default());
        assert!(dial.connect("x", &[closed, good]).await.is_ok());
        let stern = Stern { connecting: true, ..Stern::default() };
        let dial = Dial { vet: Some(Arc::new(stern)), ..Dial::new(&SourceOptions::default()) };
        assert_eq!(dial.connect("x", &[closed, good]).await.unwrap_err().to_string(), "not protected");
        assert!(dial.connect("x", &[]).await.unwrap_err().to_string().contains("no address"));
    }
}
