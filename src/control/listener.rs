//! Accepts HTTP connections. An own loop, because it is here that slow clients are told from fast ones: a request head
//! has to come within a time and a size, connections are counted, and a lack of descriptors is waited out.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderMap;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tower::Service;

use super::http::normalise;
use super::metrics::Metrics;
use super::proxies::Proxies;
use super::visitors::{Visit, Visitors};

/// How long the loop rests when the system has no descriptor or memory for a connection. Trying again at once would
/// burn a core; connections wait in the kernel meanwhile.
const REST: Duration = Duration::from_millis(100);
/// Connections that wait in the kernel.
const BACKLOG: i32 = 1_024;

/// Rules of a listener.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// Connections at once, upgraded ones included.
    pub(super) connections: Arc<Semaphore>,
    /// What one address may.
    pub(super) visitors: Arc<Visitors>,
    /// Who speaks for others.
    pub(super) proxies: Arc<Proxies>,
    /// `None`: plain HTTP.
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// Bytes of a request head.
    pub(super) max_head: usize,
    /// Time a client has for it.
    pub(super) head_timeout: Duration,
    /// Turns true when the server ends.
    pub(super) stopping: watch::Receiver<bool>,
    pub(super) metrics: Arc<Metrics>,
}

/// A connection's place, held from its acceptance to the end of what it was upgraded to. Requests carry it as an
/// extension.
#[derive(Debug)]
pub(super) struct Held {
    _place: OwnedSemaphorePermit,
    peer: IpAddr,
    proxies: Arc<Proxies>,
    visitors: Arc<Visitors>,
    /// Its address; `None` for a proxy's, which is that of many clients.
    visit: Option<Visit>,
}

/// Whoever asks over a connection: the far end itself, or somebody a proxy asks for.
#[derive(Debug)]
pub(super) struct Guest {
    held: Arc<Held>,
    /// The client behind the proxy.
    forwarded: Option<Visit>,
}

/// An address that is so far beyond its bounds that it gets no guest.
#[derive(Debug)]
pub(super) struct Crowded;

impl Held {
    /// Who asks with these headers.
    pub(super) fn guest(self: Arc<Self>, headers: &HeaderMap) -> Result<Guest, Crowded> {
        let forwarded = match self.proxies.forwarded(self.peer, headers) {
            Some(client) => Some(self.visitors.connect(client, Instant::now()).ok_or(Crowded)?),
            None => None,
        };
        Ok(Guest { held: self, forwarded })
    }
}

impl Held {
    /// Whose connection it is: a client's, or the last proxy's.
    pub(super) const fn peer(&self) -> IpAddr {
        self.peer
    }

    /// The client who asks with these headers.
    pub(super) fn client(&self, headers: &HeaderMap) -> IpAddr {
        self.proxies.forwarded(self.peer, headers).unwrap_or(self.peer)
    }

    /// These headers, if a proxy of ours set or let through what is in them.
    pub(super) fn trusted<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderMap> {
        self.proxies.trusts(self.peer).then_some(headers)
    }
}

impl Guest {
    /// What its address may; `None` where no address is known.
    pub(super) fn visit(&self) -> Option<&Visit> {
        self.forwarded.as_ref().or(self.held.visit.as_ref())
    }
}

/// Listen on an address. IPv6's wildcard takes IPv4 too; where there is no IPv6, IPv4's wildcard serves.
pub(super) fn bind(ip: IpAddr, port: u16) -> io::Result<TcpListener> {
    match listen(SocketAddr::new(ip, port)) {
        Err(error) if ip == IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED) && error.kind() != io::ErrorKind::AddrInUse => {
            listen(SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), port))
        }
        result => result,
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait until old connections have timed out in the kernel.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accept and serve until the server stops.
pub(super) async fn serve(listener: TcpListener, router: Router, rules: Rules) {
    let mut stopping = rules.stopping.clone();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &rules) => accepted,
            () = stopped(&mut stopping) => return,
        };
        let Some(arrived) = accepted else { return };
        tokio::spawn(connection(arrived, router.clone(), rules.clone()));
    }
}

/// A connection nothing has been read from.
struct Arrived {
    stream: TcpStream,
    peer: IpAddr,
    place: OwnedSemaphorePermit,
}

async fn accept(listener: &TcpListener, rules: &Rules) -> Option<Arrived> {
    // A place first: without one, connections wait in the kernel instead of here.
    let place = rules.connections.clone().acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                // Signal messages are small and answered: waiting to fill a segment only delays them.
                let _ = stream.set_nodelay(true);
                return Some(Arrived { stream, peer: from.ip(), place });
            }
            Err(error) => {
                rules.metrics.accept_errors.inc();
                // The far end gave up, that is all; anything else is a lack of something on this machine.
                let theirs = matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
                );
                if !theirs {
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }
}

/// Until the server stops, or is gone.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // The guard inside the result must not live across an await.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Find out whose connection it is, agree on TLS where it is on, and serve it.
async fn connection(arrived: Arrived, router: Router, rules: Rules) {
    let Arrived { mut stream, peer, place } = arrived;
    let origin = timeout(rules.head_timeout, rules.proxies.origin(&mut stream, peer)).await;
    // Errors are the far end's: it is cut.
    let Ok(Ok(peer)) = origin else { return };
    let visit = if rules.proxies.trusts(peer) {
        None
    } else {
        let Some(visit) = rules.visitors.connect(peer, Instant::now()) else { return };
        Some(visit)
    };
    let (proxies, visitors) = (rules.proxies.clone(), rules.visitors.clone());
    let held = Arc::new(Held { _place: place, peer, proxies, visitors, visit });
    match rules.tls.clone() {
        None => http(stream, held, router, rules).await,
        Some(tls) => {
            if let Ok(Ok(stream)) = timeout(rules.head_timeout, TlsAcceptor::from(tls).accept(stream)).await {
                http(stream, held, router, rules).await;
            }
        }
    }
}

async fn http<S>(stream: S, held: Arc<Held>, router: Router, mut rules: Rules)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = tower::service_fn(move |request: hyper::Request<Incoming>| {
        let mut request: Request = request.map(axum::body::Body::new);
        normalise(&mut request);
        request.extensions_mut().insert(held.clone());
        let mut router = router.clone();
        async move { Service::<Request>::call(&mut router, request).await }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(rules.head_timeout)
        .max_buf_size(rules.max_head)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .with_upgrades();
    let mut connection = pin!(connection);
    // Errors are the far end's: cut lines, nonsense instead of HTTP, heads too slow or too large.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stopped(&mut rules.stopping) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
