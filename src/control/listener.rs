//! Accepts HTTP connections. An own loop, because it is here that slow clients are told from fast ones: a request head
//! has to come within a time and a size, connections are counted, and a lack of descriptors is waited out.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tower::Service;

use super::http::normalise;
use super::metrics::Metrics;
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
    /// Its address.
    pub(super) visit: Visit,
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
        let Some((stream, held)) = accepted else { return };
        tokio::spawn(connection(stream, held, router.clone(), rules.clone()));
    }
}

async fn accept(listener: &TcpListener, rules: &Rules) -> Option<(TcpStream, Arc<Held>)> {
    // A place first: without one, connections wait in the kernel instead of here.
    let place = rules.connections.clone().acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let Some(visit) = rules.visitors.connect(from.ip(), Instant::now()) else { continue };
                // Signal messages are small and answered: waiting to fill a segment only delays them.
                let _ = stream.set_nodelay(true);
                return Some((stream, Arc::new(Held { _place: place, visit })));
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

async fn connection(stream: TcpStream, held: Arc<Held>, router: Router, mut rules: Rules) {
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
