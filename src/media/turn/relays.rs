//! The relayed ports of legacy calls: a UDP socket for each allocation, and a few more that wait for the next ones.
//!
//! Small sockets with the system's own buffers, read one by one: there may be thousands, and their total rate is bounded.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use crate::base::Rng;
use crate::turn::{PeerRules, TurnServer};

/// Token of the first one, far above what connections are numbered with.
pub(super) const FIRST: usize = usize::MAX >> 1;
/// Ports tried for one relay: those of a range that is nearly full, or taken by other programs, are not searched whole.
const TRIES: usize = 64;
/// Sockets that may hand on datagrams per turn.
const SOCKETS_PER_TURN: usize = 64;
/// Datagrams one of them may hand on per turn.
const DATAGRAMS_PER_SOCKET: usize = 16;
/// Longest datagram there is.
const LONGEST: usize = 65_535;

/// All of them.
#[derive(Debug)]
pub(super) struct Relays {
    rules: PeerRules,
    rng: Rng,
    sockets: BTreeMap<usize, Relay>,
    ready: VecDeque<usize>,
    buffer: Box<[u8]>,
}

#[derive(Debug)]
struct Relay {
    io: UdpSocket,
    relayed: SocketAddr,
    is_ready: bool,
}

impl Relays {
    pub(super) fn new(rules: &PeerRules, seed: u64) -> Self {
        let buffer = vec![0; LONGEST].into_boxed_slice();
        Self { rules: rules.clone(), rng: Rng::new(seed), sockets: BTreeMap::new(), ready: VecDeque::new(), buffer }
    }

    /// The poll reported one.
    pub(super) fn set_ready(&mut self, number: usize) {
        let Some(relay) = self.sockets.get_mut(&number) else { return };
        if !std::mem::replace(&mut relay.is_ready, true) {
            self.ready.push_back(number);
        }
    }

    /// Whether something may have arrived.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Hand on what has arrived at some of them: relayed address, whom from, and the datagram.
    pub(super) fn receive(&mut self, mut take: impl FnMut(SocketAddr, SocketAddr, &[u8])) {
        for _ in 0..self.ready.len().min(SOCKETS_PER_TURN) {
            let Some(number) = self.ready.pop_front() else { return };
            let Some(relay) = self.sockets.get_mut(&number) else { continue };
            for _ in 0..DATAGRAMS_PER_SOCKET {
                match relay.io.recv_from(&mut self.buffer) {
                    Ok((length, peer)) => take(relay.relayed, peer, self.buffer.get(..length).unwrap_or_default()),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        relay.is_ready = false;
                        break;
                    }
                    // Of an earlier datagram (ICMP), or an interruption: there may be more.
                    Err(_) => {}
                }
            }
            if relay.is_ready {
                self.ready.push_back(number);
            }
        }
    }

    /// Send from a relayed address. What the system does not take is lost, as on any path.
    pub(super) fn send(&self, relayed: SocketAddr, peer: SocketAddr, datagram: &[u8]) {
        if let Some(relay) = self.sockets.get(&number(relayed)) {
            let _ = relay.io.send_to(datagram, peer);
        }
    }

    /// Close what is over and open what the server wants to have ready.
    pub(super) fn settle(&mut self, server: &mut TurnServer, registry: &Registry) {
        while let Some(relayed) = server.next_ended_relay() {
            if let Some(mut relay) = self.sockets.remove(&number(relayed)) {
                let _ = registry.deregister(&mut relay.io);
            }
        }
        for ip in self.rules.relayed.clone() {
            for _ in 0..server.relays_wanted(ip.is_ipv6()) {
                // No port, no descriptor: newcomers are refused until there is one.
                let Some(relayed) = self.open(ip, registry) else { break };
                server.offer_relay(relayed);
            }
        }
    }

    /// Bind a port of the range, one nobody can guess.
    fn open(&mut self, ip: IpAddr, registry: &Registry) -> Option<SocketAddr> {
        let (first, last) = (*self.rules.ports.start(), *self.rules.ports.end());
        let ports = u64::from(last.saturating_sub(first)) + 1;
        for _ in 0..TRIES {
            let port = first.saturating_add(u16::try_from(self.rng.below(ports)).unwrap_or(0));
            let relayed = SocketAddr::new(ip, port);
            if self.sockets.contains_key(&number(relayed)) {
                continue;
            }
            match bind(relayed) {
                Ok(mut io) => {
                    let token = Token(FIRST.saturating_add(number(relayed)));
                    registry.register(&mut io, token, Interest::READABLE).ok()?;
                    self.sockets.insert(number(relayed), Relay { io, relayed, is_ready: false });
                    return Some(relayed);
                }
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                Err(_) => return None,
            }
        }
        None
    }
}

/// One of its own for each port and family.
fn number(relayed: SocketAddr) -> usize {
    usize::from(relayed.port()) | usize::from(relayed.is_ipv6()) << 16
}

/// On the relayed address where this machine has it, else, behind a NAT, on all.
fn bind(relayed: SocketAddr) -> io::Result<UdpSocket> {
    let all = if relayed.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    match bind_to(relayed) {
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => bind_to(SocketAddr::new(all, relayed.port())),
        other => other,
    }
}

fn bind_to(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(UdpSocket::from_std(socket.into()))
}
