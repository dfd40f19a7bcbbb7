//! A TURN server (RFC 8656, with the long-term credentials of RFC 8489, 9.2) of two uses that share nothing but ports.
//!
//! For participants, the only peers are this node's own media addresses. It relays without sockets: what a client sends
//! to one of them is handed to the shard behind it as a datagram on [`Route::Turn`], and what the shard sends there comes
//! back here to be wrapped. For users of a homeserver, if that is configured, peers are outside and reached from ports of
//! their own ([`CallsConfig`]). Which it is, the key says that proves the user. Everything else is refused.
//!
//! Pure, like a shard: datagrams and time go in, datagrams come out. One thread of `media` owns it with its sockets. A
//! far end is named by the [`Route`] it is reached by, UDP or an accepted connection (plain or TLS).

mod allocation;
mod calls;
mod credentials;
pub mod frame;
mod message;
mod meter;
mod peers;
mod refusal;
mod requests;
mod stats;

use core::net::{IpAddr, SocketAddr};
use core::ops::Range;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use crate::base::{Instant, Rng};
use crate::shard::outbox::Outbox;
use crate::transport::route::{Allocation, Route};
use allocation::{Reach, State};
use calls::Calls;
pub use calls::{CallsConfig, MAX_SECRETS, Outward};
use credentials::Secrets;
use message::{Kind, Message, Method, Writer};
pub use peers::{Block, PeerRules, is_public};
pub use refusal::{Lost, Refusal};
pub use stats::{Stats, Traffic, UseStats};

/// What a TURN server may do and how much.
#[derive(Clone, Debug)]
pub struct Config {
    /// The media addresses of this node, exactly as clients are told them, each with the number of its media thread.
    pub peers: BTreeMap<SocketAddr, usize>,
    /// What credentials are made with.
    pub key: Vec<u8>,
    /// Allocations at once.
    pub max_allocations: usize,
    /// Allocations at once with one participant's credentials.
    pub max_per_user: u32,
    /// Allocations at once from one address (one /64 of IPv6).
    pub max_per_address: u32,
    /// The second use, if there is to be one.
    pub calls: Option<CallsConfig>,
}

/// A datagram for a shard.
#[derive(Clone, Debug)]
pub struct Inward {
    /// Number of its media thread.
    pub thread: usize,
    /// How answers find back.
    pub route: Route,
    /// Which bytes of [`Output::inward_bytes`].
    pub range: Range<usize>,
}

/// What the server wants done. Lent by the caller, cleared and reused.
#[derive(Debug, Default)]
pub struct Output {
    /// Datagrams to clients, by the routes they came by. On connections they are already framed (RFC 8656, 3.1).
    pub outbox: Outbox,
    /// Datagrams to shards, in order.
    pub inward: Vec<Inward>,
    /// Their bytes.
    pub inward_bytes: Vec<u8>,
    /// Datagrams to peers outside, in order.
    pub outward: Vec<Outward>,
    /// Their bytes.
    pub outward_bytes: Vec<u8>,
}

impl Output {
    /// Forget everything, keep the memory.
    pub fn clear(&mut self) {
        self.outbox.clear();
        self.inward.clear();
        self.inward_bytes.clear();
        self.outward.clear();
        self.outward_bytes.clear();
    }
}

/// The server.
#[derive(Debug)]
pub struct TurnServer {
    config: Config,
    secrets: Secrets,
    rng: Rng,
    next: u32,
    allocations: BTreeMap<Route, State>,
    links: BTreeMap<Allocation, Route>,
    deadlines: BTreeSet<(Instant, Route)>,
    relayed: BTreeSet<SocketAddr>,
    per_user: BTreeMap<String, u32>,
    per_address: BTreeMap<IpAddr, u32>,
    calls: Option<Calls>,
    indications: u64,
    stats: Stats,
}

impl TurnServer {
    /// Without allocations. `seed` chooses relayed ports; it need not be secret.
    pub fn new(mut config: Config, seed: u64) -> Self {
        let calls = config.calls.take();
        Self {
            secrets: Secrets::new(&config.key, calls.iter().flat_map(|calls| &calls.secrets)),
            calls: calls.map(Calls::new),
            config,
            rng: Rng::new(seed),
            next: 0,
            allocations: BTreeMap::new(),
            links: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            relayed: BTreeSet::new(),
            per_user: BTreeMap::new(),
            per_address: BTreeMap::new(),
            indications: 0,
            stats: Stats::default(),
        }
    }

    /// Take what a client sent: one datagram, or one message of a connection ([`frame`]).
    pub fn handle(&mut self, now: Instant, link: Route, packet: &[u8], out: &mut Output) {
        let result = match packet.first() {
            Some(0x40..=0x4f) => self.channel_data(now, &link, packet, out),
            Some(0..=3) => match Message::parse(packet) {
                Some(message) => match message.kind {
                    Kind::Send => self.send_indication(now, &link, &message, out),
                    Kind::Request(Method::Binding) => {
                        binding(link, packet, &message, out);
                        Ok(())
                    }
                    Kind::Request(method) => {
                        self.request(now, link, packet, method, &message, out);
                        Ok(())
                    }
                },
                None => Err(Lost::Unreadable),
            },
            _ => Err(Lost::Unreadable),
        };
        if let Err(reason) = result {
            self.stats.lose(reason);
        }
    }

    /// Take what a shard sends to a client over an allocation, from the address of ours the client knows it by.
    pub fn handle_media(&mut self, now: Instant, to: Allocation, from: SocketAddr, datagram: &[u8], out: &mut Output) {
        let link = self.links.get(&to).copied().ok_or(Lost::NotPermitted);
        match link.and_then(|link| self.wrap(now, link, from, datagram, out)) {
            Ok(()) => self.stats.media.to_clients.add(datagram.len()),
            Err(reason) => self.stats.lose(reason),
        }
    }

    /// A connection has ended, and its allocation with it (RFC 8656, 3.1).
    pub fn link_closed(&mut self, link: &Route) {
        self.end(link);
    }

    /// Whether a client has an allocation.
    pub fn is_allocated(&self, link: &Route) -> bool {
        self.allocations.contains_key(link)
    }

    /// End what is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, link)) = self.deadlines.first().copied() {
            if at > now {
                return;
            }
            self.end(&link);
        }
    }

    /// When [`Self::handle_timeout`] wants to be called at the latest.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Counters up to now.
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// Wrap what comes from a peer for the client of an allocation.
    fn wrap(
        &mut self,
        now: Instant,
        link: Route,
        from: SocketAddr,
        datagram: &[u8],
        out: &mut Output,
    ) -> Result<(), Lost> {
        let state = self.allocations.get(&link).ok_or(Lost::NotPermitted)?;
        if let Some(channel) = state.channel_of(now, from) {
            let length = u16::try_from(datagram.len()).map_err(|_| Lost::Unreadable)?;
            out.outbox.datagram(link, |arena| {
                arena.extend_from_slice(&channel.to_be_bytes());
                arena.extend_from_slice(&length.to_be_bytes());
                arena.extend_from_slice(datagram);
                if is_stream(&link) {
                    arena.resize(arena.len() + datagram.len().next_multiple_of(4) - datagram.len(), 0);
                }
                Some(())
            });
            return Ok(());
        }
        if !state.permits(now, from.ip()) {
            return Err(Lost::NotPermitted);
        }
        // Indications are not answered: any transaction number will do.
        let mut transaction = [0; 12];
        let (head, _) = transaction.split_at_mut(8);
        head.copy_from_slice(&self.indications.to_be_bytes());
        self.indications = self.indications.wrapping_add(1);
        out.outbox.datagram(link, |arena| {
            Writer::data(arena, transaction, from, datagram).finish();
            Some(())
        });
        Ok(())
    }

    fn channel_data(&mut self, now: Instant, link: &Route, packet: &[u8], out: &mut Output) -> Result<(), Lost> {
        let [c0, c1, l0, l1] = *packet.first_chunk().ok_or(Lost::Unreadable)?;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let data = packet.get(4..4 + length).ok_or(Lost::Unreadable)?;
        let state = self.allocations.get(link).ok_or(Lost::NotPermitted)?;
        let peer = state.peer_of(now, u16::from_be_bytes([c0, c1])).ok_or(Lost::NotPermitted)?;
        self.send(now, link, peer, data, out)
    }

    fn send_indication(
        &mut self,
        now: Instant,
        link: &Route,
        message: &Message<'_>,
        out: &mut Output,
    ) -> Result<(), Lost> {
        let state = self.allocations.get(link).ok_or(Lost::NotPermitted)?;
        let (peer, data) = message.peer().zip(message.data).ok_or(Lost::Unreadable)?;
        if message.unknown.is_some() || state.reach == Reach::Outside && message.dont_fragment {
            return Err(Lost::Unreadable);
        }
        if !state.permits(now, peer.ip()) {
            return Err(Lost::NotPermitted);
        }
        self.send(now, link, peer, data, out)
    }

    /// To a peer the client has a permission for.
    fn send(
        &mut self,
        now: Instant,
        link: &Route,
        peer: SocketAddr,
        data: &[u8],
        out: &mut Output,
    ) -> Result<(), Lost> {
        let state = self.allocations.get(link).ok_or(Lost::NotPermitted)?;
        match state.reach {
            Reach::Outside => self.send_outside(now, link, peer, data, out),
            Reach::Media => {
                let route = Route::Turn { allocation: state.id, relayed: state.relayed, peer };
                let thread = *self.config.peers.get(&peer).ok_or(Lost::NotPermitted)?;
                let start = out.inward_bytes.len();
                out.inward_bytes.extend_from_slice(data);
                out.inward.push(Inward { thread, route, range: start..out.inward_bytes.len() });
                self.stats.media.to_peers.add(data.len());
                Ok(())
            }
        }
    }

    /// Remove an allocation and give back what it counted for.
    fn end(&mut self, link: &Route) {
        let Some(state) = self.allocations.remove(link) else { return };
        self.links.remove(&state.id);
        self.deadlines.remove(&(state.expires, *link));
        let is_last = take_one(&mut self.per_user, &state.subject);
        match state.reach {
            Reach::Media => {
                self.relayed.remove(&state.relayed);
                self.stats.media.allocations -= 1;
            }
            Reach::Outside => {
                self.stats.calls.allocations -= 1;
                if let Some(calls) = &mut self.calls {
                    calls.give_back(state.relayed, &state.subject, is_last);
                }
            }
        }
        take_one(&mut self.per_address, &household(link.reflexive().ip()));
    }
}

/// STUN's own service, for clients that ask their TURN server for it. Over UDP only where the answer is no larger than
/// the question, so that nobody can be flooded by it.
fn binding(link: Route, packet: &[u8], message: &Message<'_>, out: &mut Output) {
    out.outbox.datagram(link, |arena| {
        let start = arena.len();
        Writer::success(arena, Method::Binding, message.transaction).mapped(link.reflexive()).finish();
        (is_stream(&link) || arena.len() - start <= packet.len()).then_some(())
    });
}

/// Whether nobody can pretend to be at the far end of it.
const fn is_stream(link: &Route) -> bool {
    matches!(link, Route::Tcp { .. })
}

/// The address quotas are counted under: IPv6 hosts own a /64.
fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << 64)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Whether it was the last.
fn take_one<K: Ord>(counts: &mut BTreeMap<K, u32>, key: &K) -> bool {
    let Some(count) = counts.get_mut(key) else { return true };
    *count = count.saturating_sub(1);
    let is_last = *count == 0;
    if is_last {
        counts.remove(key);
    }
    is_last
}

/// How long an allocation lives without a wish, and the least it gets (RFC 8656, 7.2).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(600);
/// The most it gets between two refreshes.
const MAX_LIFETIME: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests;
