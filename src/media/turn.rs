//! The TURN thread: the sockets of [`crate::turn::TurnServer`], over UDP, TCP and TLS, and the queues that join it to the
//! media threads. One for the node: it wraps and unwraps, the media threads do the rest. The relayed ports of legacy
//! calls are its own too, so that one turn sees a datagram in and out; what they may cost is bounded by their total rate.

mod connection;
mod relays;
mod streams;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token, Waker};
use rustls::ServerConfig;
use tokio::sync::mpsc;

use self::relays::Relays;
use self::streams::{Door, Streams};
use super::clock::{Clock, unix_now};
use super::udp::UdpPort;
use super::{StartError, acceptor};
use crate::base::Instant;
use crate::mailbox::{Mailbox, RelayBox, RelayInbox, RelayedBatch, Report, ThreadLink, ThreadStats, TurnLink};
use crate::transport::route::Route;
use crate::turn::{self, CallsConfig, Output, TurnServer};

const WAKE: Token = Token(0);
/// Token of the first UDP socket; listeners and connections follow.
const FIRST: usize = 1;
/// Runs of shards taken per turn.
const RUNS_PER_TURN: usize = 256;
/// Datagrams per batch for a media thread: a part of its turn, not all of it.
const BATCH: usize = 64;
/// How often slow things are looked after.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// The TURN service of a node.
#[derive(Clone, Debug)]
pub struct TurnConfig {
    /// Where to listen for UDP, for TCP and for TLS on TCP.
    pub udp: Vec<SocketAddr>,
    /// Plain TCP.
    pub tcp: Vec<SocketAddr>,
    /// TLS. Without rules for it, a proxy in front has taken TLS off.
    pub tls: Vec<SocketAddr>,
    /// How connections agree on TLS. They hold a certificate that may be renewed.
    pub rules: Option<Arc<ServerConfig>>,
    /// The addresses clients are told for media; with the media threads' ports they are all peers there are.
    pub advertised: Vec<IpAddr>,
    /// What credentials are made with.
    pub key: Vec<u8>,
    /// Allocations at once, in all.
    pub max_allocations: usize,
    /// Allocations at once with one participant's credentials.
    pub max_per_user: u32,
    /// Allocations at once from one address.
    pub max_per_address: u32,
    /// Legacy calls of a homeserver's users, if they are served.
    pub calls: Option<CallsConfig>,
}

/// The thread, before it runs.
#[derive(Debug)]
pub(super) struct TurnThread {
    poll: Poll,
    clock: Clock,
    inbox: RelayInbox,
    mailboxes: Vec<Mailbox>,
    server: TurnServer,
    udp: Vec<UdpPort>,
    streams: Streams,
    relays: Option<Relays>,
    reports: mpsc::Sender<(usize, Report)>,
    rules: Option<Arc<ServerConfig>>,
    out: Output,
    batches: Vec<RelayedBatch>,
    stats: ThreadStats,
}

/// The media addresses as clients are told them, each with its thread.
fn peers(advertised: &[IpAddr], threads: &[ThreadLink]) -> std::collections::BTreeMap<SocketAddr, usize> {
    let mut peers = std::collections::BTreeMap::new();
    for (number, thread) in threads.iter().enumerate() {
        for ip in advertised {
            if let Some(bound) = thread.udp.iter().find(|bound| bound.is_ipv4() == ip.is_ipv4()) {
                peers.insert(SocketAddr::new(*ip, bound.port()), number);
            }
        }
    }
    peers
}

impl TurnThread {
    /// Bind everything.
    pub(super) fn new(
        config: &TurnConfig,
        threads: &[ThreadLink],
        clock: Clock,
        reports: mpsc::Sender<(usize, Report)>,
    ) -> Result<(Self, RelayBox, TurnLink), StartError> {
        let system = |source| StartError::System { what: "the TURN thread".to_owned(), source };
        let poll = Poll::new().map_err(system)?;
        let waker = Waker::new(poll.registry(), WAKE).map_err(system)?;
        let (sender, inbox) = RelayBox::new(waker);
        let mut link = TurnLink::default();
        let mut udp = Vec::new();
        for address in &config.udp {
            let failed = |source| StartError::Listen { protocol: "UDP", address: *address, source };
            let port = UdpPort::bind(*address).map_err(failed)?;
            port.register(poll.registry(), Token(FIRST + udp.len())).map_err(system)?;
            link.udp.push(port.local());
            udp.push(port);
        }
        let mut doors = Vec::new();
        let plain = config.tcp.iter().map(|address| (address, false));
        for (address, is_tls_port) in plain.chain(config.tls.iter().map(|address| (address, true))) {
            let failed = |source| StartError::Listen { protocol: "TCP", address: *address, source };
            let mut listener = acceptor::listen(*address).map_err(failed)?;
            let token = Token(FIRST + udp.len() + doors.len());
            poll.registry().register(&mut listener, token, Interest::READABLE).map_err(system)?;
            let local = listener.local_addr().map_err(system)?;
            if is_tls_port {
                link.tls.push(local)
            } else {
                link.tcp.push(local)
            }
            doors.push(Door { listener, tls: is_tls_port && config.rules.is_some() });
        }
        let first_stream = FIRST + udp.len() + doors.len();
        let server = turn::Config {
            peers: peers(&config.advertised, threads),
            key: config.key.clone(),
            max_allocations: config.max_allocations,
            max_per_user: config.max_per_user,
            max_per_address: config.max_per_address,
            calls: config.calls.clone(),
        };
        let connections = config.max_allocations + config.calls.as_ref().map_or(0, |calls| calls.max_allocations);
        let seed = super::thread::seed();
        let thread = Self {
            poll,
            clock,
            inbox,
            mailboxes: threads.iter().map(|thread| thread.mailbox.clone()).collect(),
            server: TurnServer::new(server, seed),
            udp,
            streams: Streams::new(doors, first_stream, connections, config.max_per_address),
            relays: config.calls.as_ref().map(|calls| Relays::new(&calls.rules, seed)),
            reports,
            rules: config.rules.clone(),
            out: Output::default(),
            batches: threads.iter().map(|_| RelayedBatch::default()).collect(),
            stats: ThreadStats::default(),
        };
        Ok((thread, sender, link))
    }

    /// Serve until stopped.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(1_024);
        let mut housekeeping = self.clock.now();
        // Before the first request: credentials end by the date.
        self.server.set_date(unix_now().as_secs());
        while !self.inbox.is_stopped() {
            self.sleep(housekeeping, &mut events);
            let now = self.clock.now();
            self.sort(&events);
            self.receive(now);
            self.server.handle_timeout(now);
            self.send(now);
            if let Some(relays) = &mut self.relays {
                relays.settle(&mut self.server, self.poll.registry());
            }
            if housekeeping <= now {
                housekeeping = now + HOUSEKEEPING;
                self.server.set_date(unix_now().as_secs());
                // Full: the next report says more.
                let _ = self.reports.try_send((0, Report::Turn(Box::new(self.server.stats()))));
                for port in &mut self.udp {
                    port.set_ready();
                }
                let server = &self.server;
                self.streams.sweep(now, |link| server.is_allocated(link));
                self.end_closed();
            }
        }
    }

    fn sleep(&mut self, housekeeping: Instant, events: &mut Events) {
        let now = self.clock.now();
        let next = self.server.next_timeout().map_or(housekeeping, |at| at.min(housekeeping));
        let busy = self.udp.iter().any(UdpPort::is_ready)
            || self.streams.is_ready()
            || self.relays.as_ref().is_some_and(Relays::is_ready)
            || !self.inbox.may_sleep();
        let timeout = if busy { Duration::ZERO } else { next.since(now) };
        // An interrupted poll is a short sleep.
        let _ = self.poll.poll(events, Some(timeout));
        self.inbox.awake();
    }

    fn sort(&mut self, events: &Events) {
        for event in events {
            let Token(token) = event.token();
            if token < FIRST {
                continue;
            }
            if let (Some(relay), Some(relays)) = (token.checked_sub(relays::FIRST), &mut self.relays) {
                relays.set_ready(relay);
                continue;
            }
            match self.udp.get_mut(token - FIRST) {
                Some(port) => port.set_ready(),
                None => self.streams.set_ready(token, event.is_readable(), event.is_writable()),
            }
        }
    }

    fn receive(&mut self, now: Instant) {
        let Self { server, out, .. } = self;
        for _ in 0..RUNS_PER_TURN {
            let Some(run) = self.inbox.take() else { break };
            for datagram in run.bytes.chunks(run.segment.max(1)) {
                server.handle_media(now, run.allocation, run.from, datagram, out);
            }
        }
        for port in &mut self.udp {
            port.receive(&mut self.stats, |route, datagram| server.handle(now, route, datagram, out));
        }
        if let Some(relays) = &mut self.relays {
            relays.receive(|relayed, peer, datagram| server.handle_peer(now, relayed, peer, datagram, out));
        }
        self.streams.accept(now, self.poll.registry(), self.rules.as_ref());
        self.streams.receive(now, |route, message| server.handle(now, route, message, out));
        self.end_closed();
    }

    fn end_closed(&mut self) {
        while let Some(route) = self.streams.next_closed() {
            self.server.link_closed(&route);
        }
    }

    fn send(&mut self, now: Instant) {
        for inward in self.out.inward.drain(..) {
            let (Some(batch), Some(mailbox)) = (self.batches.get_mut(inward.thread), self.mailboxes.get(inward.thread))
            else {
                continue;
            };
            let Some(bytes) = self.out.inward_bytes.get(inward.range) else { continue };
            let start = batch.bytes.len();
            batch.bytes.extend_from_slice(bytes);
            batch.datagrams.push((inward.route, start..batch.bytes.len()));
            if batch.datagrams.len() >= BATCH {
                // Full: lost, as on any path.
                let _ = mailbox.relay(std::mem::take(batch));
            }
        }
        for (batch, mailbox) in self.batches.iter_mut().zip(&self.mailboxes) {
            if !batch.datagrams.is_empty() {
                let _ = mailbox.relay(std::mem::take(batch));
            }
        }
        for (transmit, run) in self.out.outbox.transmits() {
            match transmit.route {
                Route::Udp { local, remote } => {
                    if let Some(port) = self.udp.iter().find(|port| port.serves(local)) {
                        port.send(local, remote, run, transmit.segment, &mut self.stats);
                    }
                }
                Route::Tcp { connection, .. } => self.streams.send(now, connection, run, transmit.segment),
                Route::Turn { .. } => {}
            }
        }
        for outward in self.out.outward.drain(..) {
            if let (Some(relays), Some(datagram)) = (&self.relays, self.out.outward_bytes.get(outward.range)) {
                relays.send(outward.relayed, outward.peer, datagram);
            }
        }
        self.out.clear();
        self.streams.flush(now);
        self.end_closed();
    }
}
