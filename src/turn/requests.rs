//! Requests: who asks, whether it may, and the answer. Without a proof of who asks, an answer over UDP is never larger
//! than the request, with one exception: the challenge may be half as large again.

use core::net::SocketAddr;
use core::time::Duration;

use super::allocation::{Owner, State};
use super::message::{Message, Method, Writer};
use super::{DEFAULT_LIFETIME, MAX_LIFETIME, Output, TurnServer, credentials, household, is_stream};
use crate::base::Instant;
use crate::transport::route::{Allocation, Route};

/// IANA's number of UDP, the only transport between a server and its peers here.
const UDP: u8 = 17;
/// Ports of relayed addresses: nothing listens there, clients only compare them.
const RELAYED_PORTS: core::ops::Range<u16> = 49_152..65_535;

// Error codes (RFC 8489, 14.8; RFC 8656, 19).
const BAD_REQUEST: u16 = 400;
const UNAUTHENTICATED: u16 = 401;
const FORBIDDEN: u16 = 403;
const UNKNOWN_ATTRIBUTE: u16 = 420;
const ALLOCATION_MISMATCH: u16 = 437;
const STALE_NONCE: u16 = 438;
const FAMILY_NOT_SUPPORTED: u16 = 440;
const WRONG_CREDENTIALS: u16 = 441;
const TRANSPORT_NOT_SUPPORTED: u16 = 442;
const FAMILY_MISMATCH: u16 = 443;
const QUOTA_REACHED: u16 = 486;
const INSUFFICIENT_CAPACITY: u16 = 508;

/// What a granted request is answered with.
enum Granted {
    Allocation { relayed: SocketAddr, lifetime: Duration },
    Lifetime(Duration),
    Done,
}

impl TurnServer {
    pub(super) fn request(
        &mut self,
        now: Instant,
        link: Route,
        packet: &[u8],
        method: Method,
        message: &Message<'_>,
        out: &mut Output,
    ) {
        let owner = match self.authenticate(now, &link, message) {
            Ok(owner) => owner,
            Err(code) => return self.refuse(now, link, packet, (method, code), message, out),
        };
        let key = owner.key.clone();
        let result = self.serve(now, &link, method, owner, message);
        if result.is_err() {
            self.stats.refused += 1;
        }
        let deleted = matches!(result, Ok(Granted::Lifetime(Duration::ZERO)));
        out.outbox.datagram(link, |arena| {
            answer(arena, method, message, link, result).sign(&key);
            Some(())
        });
        if deleted {
            self.end(&link);
        }
    }

    /// Who asks, or the code to refuse with (RFC 8489, 9.2.4).
    fn authenticate(&self, now: Instant, link: &Route, message: &Message<'_>) -> Result<Owner, u16> {
        if !message.is_signed() {
            return Err(UNAUTHENTICATED);
        }
        let (Some(username), Some(realm), Some(nonce)) = (message.username, message.realm, message.nonce) else {
            return Err(BAD_REQUEST);
        };
        // The two forms of a challenge, see `refuse`.
        let (name, fresh) = if nonce.is_empty() { (credentials::REALM, realm) } else { (realm, nonce) };
        if name != credentials::REALM || !self.secrets.is_fresh(now, link, fresh) {
            return Err(STALE_NONCE);
        }
        let user = credentials::read(username).ok_or(UNAUTHENTICATED)?;
        // The key is remembered with the allocation; a newcomer's, or one in another realm, is made.
        let known = self.allocations.get(link).filter(|state| state.username == username);
        let remembered = known.filter(|state| state.realm == realm).map(|state| state.key.clone());
        let key = remembered.unwrap_or_else(|| self.secrets.key(username, realm));
        if !message.is_authentic(&key) {
            return Err(UNAUTHENTICATED);
        }
        // Time-limited is the making; what was made in time lives as long as it is refreshed.
        if known.is_none() && user.expires < now.as_millis() / 1_000 {
            return Err(UNAUTHENTICATED);
        }
        let (username, subject) = (username.to_owned(), user.subject.to_owned());
        Ok(Owner { username, subject, realm: realm.to_owned(), key })
    }

    /// Refuse somebody who is not proved to be anybody.
    fn refuse(
        &mut self,
        now: Instant,
        link: Route,
        packet: &[u8],
        (method, code): (Method, u16),
        message: &Message<'_>,
        out: &mut Output,
    ) {
        let challenge = matches!(code, UNAUTHENTICATED | STALE_NONCE);
        if !challenge || message.is_signed() {
            self.stats.refused += 1;
        }
        let limit = match code {
            _ if is_stream(&link) => usize::MAX,
            UNAUTHENTICATED if !message.is_signed() => packet.len() + packet.len() / 2,
            _ => packet.len(),
        };
        let nonce = self.secrets.nonce(now, &link);
        // A browser's first request is so short that there is no room for both a realm and a nonce, and an empty realm is
        // none to it. Then the nonce is the realm: it comes back just the same, and is part of the key besides.
        for (realm, nonce) in [(credentials::REALM, &nonce[..]), (&nonce[..], b"")] {
            let sent = out.outbox.datagram(link, |arena| {
                let start = arena.len();
                let writer = Writer::error(arena, method, message.transaction, code);
                let writer = if challenge { writer.challenge(realm, nonce) } else { writer };
                writer.finish();
                (arena.len() - start <= limit).then_some(())
            });
            if sent.is_some() {
                return;
            }
        }
    }

    fn serve(
        &mut self,
        now: Instant,
        link: &Route,
        method: Method,
        owner: Owner,
        message: &Message<'_>,
    ) -> Result<Granted, u16> {
        if message.unknown.is_some() {
            return Err(UNKNOWN_ATTRIBUTE);
        }
        if message.is_malformed() {
            return Err(BAD_REQUEST);
        }
        if method == Method::Allocate {
            return self.allocate(now, link, owner, message);
        }
        let state = self.allocations.get_mut(link).ok_or(ALLOCATION_MISMATCH)?;
        if state.username != owner.username {
            return Err(WRONG_CREDENTIALS);
        }
        match method {
            Method::Refresh => {
                if message.wants_ipv6.is_some_and(|ipv6| ipv6 != state.relayed.is_ipv6()) {
                    return Err(FAMILY_MISMATCH);
                }
                let lifetime = match message.lifetime {
                    Some(Duration::ZERO) => Duration::ZERO,
                    wish => granted(wish),
                };
                self.deadlines.remove(&(state.expires, *link));
                state.expires = now + lifetime;
                self.deadlines.insert((state.expires, *link));
                Ok(Granted::Lifetime(lifetime))
            }
            Method::CreatePermission => {
                let peers = || message.peers();
                if peers().next().is_none() {
                    return Err(BAD_REQUEST);
                }
                // All or nothing (RFC 8656, 10.2).
                for peer in peers() {
                    check_peer(&self.config, state, peer)?;
                }
                for peer in peers() {
                    state.permit(now, peer.ip()).ok_or(INSUFFICIENT_CAPACITY)?;
                }
                Ok(Granted::Done)
            }
            Method::ChannelBind => {
                let (Some(channel), Some(peer)) = (message.channel, message.peer()) else { return Err(BAD_REQUEST) };
                check_peer(&self.config, state, peer)?;
                if peer.port() == 0 {
                    return Err(FORBIDDEN);
                }
                state.bind(now, channel, peer).ok_or(BAD_REQUEST)?;
                Ok(Granted::Done)
            }
            Method::Binding | Method::Allocate => Err(BAD_REQUEST),
        }
    }

    fn allocate(&mut self, now: Instant, link: &Route, owner: Owner, message: &Message<'_>) -> Result<Granted, u16> {
        if let Some(state) = self.allocations.get(link) {
            // The same request once more: its answer was lost (RFC 8656, 7.2).
            if state.transaction == message.transaction && state.username == owner.username {
                return Ok(Granted::Allocation { relayed: state.relayed, lifetime: state.expires.since(now) });
            }
            return Err(ALLOCATION_MISMATCH);
        }
        match message.transport {
            Some(UDP) => {}
            Some(_) => return Err(TRANSPORT_NOT_SUPPORTED),
            None => return Err(BAD_REQUEST),
        }
        if message.wants_ports {
            return Err(INSUFFICIENT_CAPACITY);
        }
        let address = household(link.reflexive().ip());
        let count = |count: Option<&u32>| count.copied().unwrap_or(0);
        let (by_user, by_address) = (count(self.per_user.get(&owner.subject)), count(self.per_address.get(&address)));
        if by_user >= self.config.max_per_user || by_address >= self.config.max_per_address {
            return Err(QUOTA_REACHED);
        }
        if self.allocations.len() >= self.config.max_allocations {
            return Err(INSUFFICIENT_CAPACITY);
        }
        let relayed = self.choose_relayed(message.wants_ipv6)?;
        let lifetime = granted(message.lifetime);
        let id = Allocation(self.next);
        self.next = self.next.wrapping_add(1);
        self.per_user.insert(owner.subject.clone(), by_user + 1);
        self.per_address.insert(address, by_address + 1);
        self.relayed.insert(relayed);
        self.links.insert(id, *link);
        self.deadlines.insert((now + lifetime, *link));
        self.allocations.insert(*link, State::new(id, relayed, owner, message.transaction, now + lifetime));
        self.stats.allocated += 1;
        Ok(Granted::Allocation { relayed, lifetime })
    }

    /// An address of ours that no other allocation has. Without a wish, IPv4 where this node has it (RFC 8656, 7.2).
    fn choose_relayed(&mut self, wants_ipv6: Option<bool>) -> Result<SocketAddr, u16> {
        let has = |ipv6: bool| self.config.peers.keys().any(|peer| peer.is_ipv6() == ipv6);
        let ipv6 = wants_ipv6.unwrap_or_else(|| !has(false));
        // The last of a family in order is no loopback address where there is another.
        let mut family = self.config.peers.keys().filter(|peer| peer.is_ipv6() == ipv6).map(SocketAddr::ip);
        let first = family.clone().find(|ip| !ip.is_loopback());
        let ip = first.or_else(|| family.next()).ok_or(FAMILY_NOT_SUPPORTED)?;
        let ports = u64::from(RELAYED_PORTS.end - RELAYED_PORTS.start);
        let from = self.rng.below(ports);
        (0..ports)
            .filter_map(|step| u16::try_from((from + step) % ports).ok())
            .map(|offset| SocketAddr::new(ip, RELAYED_PORTS.start + offset))
            .find(|address| !self.relayed.contains(address) && !self.config.peers.contains_key(address))
            .ok_or(INSUFFICIENT_CAPACITY)
    }
}

/// Only the media addresses of this node are peers. A permission is for an address with any port (RFC 8656, 9), but
/// where a client names a port it has to be one of those.
fn check_peer(config: &super::Config, state: &State, peer: SocketAddr) -> Result<(), u16> {
    if peer.is_ipv6() != state.relayed.is_ipv6() {
        return Err(FAMILY_MISMATCH);
    }
    let is_ours =
        config.peers.contains_key(&peer) || peer.port() == 0 && config.peers.keys().any(|ours| ours.ip() == peer.ip());
    if is_ours { Ok(()) } else { Err(FORBIDDEN) }
}

fn granted(wish: Option<Duration>) -> Duration {
    wish.unwrap_or(DEFAULT_LIFETIME).clamp(DEFAULT_LIFETIME, MAX_LIFETIME)
}

fn answer<'b>(
    arena: &'b mut Vec<u8>,
    method: Method,
    message: &Message<'_>,
    link: Route,
    result: Result<Granted, u16>,
) -> Writer<'b> {
    let transaction = message.transaction;
    match result {
        Err(UNKNOWN_ATTRIBUTE) => {
            Writer::error(arena, method, transaction, UNKNOWN_ATTRIBUTE).unknown(message.unknown.unwrap_or_default())
        }
        Err(code) => Writer::error(arena, method, transaction, code),
        Ok(Granted::Allocation { relayed, lifetime }) => {
            let writer = Writer::success(arena, method, transaction).relayed(relayed);
            writer.lifetime(lifetime).mapped(link.reflexive())
        }
        Ok(Granted::Lifetime(lifetime)) => Writer::success(arena, method, transaction).lifetime(lifetime),
        Ok(Granted::Done) => Writer::success(arena, method, transaction),
    }
}
