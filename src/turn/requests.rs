//! Requests: who asks, whether it may, and the answer. Without a proof of who asks, an answer over UDP is never larger
//! than the request, with one exception: the challenge may be half as large again.

use core::net::SocketAddr;
use core::time::Duration;

use super::allocation::{Owner, Reach, State};
use super::calls::Calls;
use super::message::{DONT_FRAGMENT, Message, Method, Writer};
use super::refusal::Refusal;
use super::{DEFAULT_LIFETIME, MAX_LIFETIME, Output, TurnServer, credentials, household, is_stream};
use crate::base::Instant;
use crate::transport::route::{Allocation, Route};

/// IANA's number of UDP, the only transport between a server and its peers here.
const UDP: u8 = 17;
/// Ports of relayed addresses: nothing listens there, clients only compare them.
const RELAYED_PORTS: core::ops::Range<u16> = 49_152..65_535;

/// How long what was made in time may be refreshed after its credentials have ended: nobody's call is longer, and who is
/// no user any more does not stay one here.
const LONGEST_CALL: Duration = Duration::from_secs(86_400);

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
            Err(reason) => return self.refuse(now, link, packet, (method, reason), message, out),
        };
        let key = owner.key.clone();
        let result = self.serve(now, &link, method, owner, message);
        if let Err(reason) = result {
            self.stats.refuse(reason);
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
    fn authenticate(&self, now: Instant, link: &Route, message: &Message<'_>) -> Result<Owner, Refusal> {
        if !message.is_signed() {
            return Err(Refusal::Credentials);
        }
        let (Some(username), Some(realm), Some(nonce)) = (message.username, message.realm, message.nonce) else {
            return Err(Refusal::Malformed);
        };
        // The two forms of a challenge, see `refuse`.
        let (name, fresh) = if nonce.is_empty() { (credentials::REALM, realm) } else { (realm, nonce) };
        if name != credentials::REALM || !self.secrets.is_fresh(now, link, fresh) {
            return Err(Refusal::StaleNonce);
        }
        let user = credentials::read(username).ok_or(Refusal::Credentials)?;
        let reach = self.secrets.reach(user);
        // The key is remembered with the allocation; a newcomer's, or one in another realm, is made.
        let known = self.allocations.get(link).filter(|state| state.username == username);
        let key = match known.filter(|state| state.realm == realm) {
            Some(state) => message.is_authentic(&state.key).then(|| state.key.clone()),
            None => self.secrets.keys(reach, username, realm).find(|key| message.is_authentic(key)),
        };
        let key = key.ok_or(Refusal::Credentials)?;
        // Time-limited is the making; what was made in time lives as long as it is refreshed, but not for ever.
        let now = match (&self.calls, reach) {
            (Some(calls), Reach::Outside) => calls.date,
            _ => now.as_millis() / 1_000,
        };
        let grace = if known.is_some() { LONGEST_CALL.as_secs() } else { 0 };
        if user.expires.saturating_add(grace) < now {
            return Err(Refusal::Expired);
        }
        let (username, subject) = (username.to_owned(), user.subject.to_owned());
        Ok(Owner { reach, username, subject, realm: realm.to_owned(), key })
    }

    /// Refuse somebody who is not proved to be anybody.
    fn refuse(
        &mut self,
        now: Instant,
        link: Route,
        packet: &[u8],
        (method, reason): (Method, Refusal),
        message: &Message<'_>,
        out: &mut Output,
    ) {
        let challenge = matches!(reason, Refusal::Credentials | Refusal::Expired | Refusal::StaleNonce);
        if !challenge || message.is_signed() {
            self.stats.refuse(reason);
        }
        let limit = match reason {
            _ if is_stream(&link) => usize::MAX,
            Refusal::Credentials if !message.is_signed() => packet.len() + packet.len() / 2,
            _ => packet.len(),
        };
        let nonce = self.secrets.nonce(now, &link);
        // A browser's first request is so short that there is no room for both a realm and a nonce, and an empty realm is
        // none to it. Then the nonce is the realm: it comes back just the same, and is part of the key besides.
        for (realm, nonce) in [(credentials::REALM, &nonce[..]), (&nonce[..], b"")] {
            let sent = out.outbox.datagram(link, |arena| {
                let start = arena.len();
                let writer = Writer::error(arena, method, message.transaction, reason.code());
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
    ) -> Result<Granted, Refusal> {
        if message.unknown.is_some() || owner.reach == Reach::Outside && message.dont_fragment {
            return Err(Refusal::Unknown);
        }
        if message.is_malformed() {
            return Err(Refusal::Malformed);
        }
        if method == Method::Allocate {
            return self.allocate(now, link, owner, message);
        }
        let state = self.allocations.get_mut(link).ok_or(Refusal::Mismatch)?;
        if state.username != owner.username {
            return Err(Refusal::OtherUser);
        }
        match method {
            Method::Refresh => {
                if message.wants_ipv6.is_some_and(|ipv6| ipv6 != state.relayed.is_ipv6()) {
                    return Err(Refusal::OtherFamily);
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
                    return Err(Refusal::Malformed);
                }
                // All or nothing (RFC 8656, 10.2).
                for peer in peers() {
                    check_peer(&self.config, self.calls.as_ref(), state, peer)?;
                }
                for peer in peers() {
                    state.permit(now, peer.ip()).ok_or(Refusal::Capacity)?;
                }
                Ok(Granted::Done)
            }
            Method::ChannelBind => {
                let (Some(channel), Some(peer)) = (message.channel, message.peer()) else {
                    return Err(Refusal::Malformed);
                };
                check_peer(&self.config, self.calls.as_ref(), state, peer)?;
                if peer.port() == 0 {
                    return Err(Refusal::Peer);
                }
                state.bind(now, channel, peer).ok_or(Refusal::Malformed)?;
                Ok(Granted::Done)
            }
            Method::Binding | Method::Allocate => Err(Refusal::Malformed),
        }
    }

    fn allocate(
        &mut self,
        now: Instant,
        link: &Route,
        owner: Owner,
        message: &Message<'_>,
    ) -> Result<Granted, Refusal> {
        if let Some(state) = self.allocations.get(link) {
            // The same request once more: its answer was lost (RFC 8656, 7.2).
            if state.transaction == message.transaction && state.username == owner.username {
                return Ok(Granted::Allocation { relayed: state.relayed, lifetime: state.expires.since(now) });
            }
            return Err(Refusal::Mismatch);
        }
        match message.transport {
            Some(UDP) => {}
            Some(_) => return Err(Refusal::Transport),
            None => return Err(Refusal::Malformed),
        }
        // Ports of participants' relayed addresses are only numbers.
        if message.wants_ports || owner.reach == Reach::Media && message.wants_even {
            return Err(Refusal::Capacity);
        }
        let address = household(link.reflexive().ip());
        let count = |count: Option<&u32>| count.copied().unwrap_or(0);
        let (by_user, by_address) = (count(self.per_user.get(&owner.subject)), count(self.per_address.get(&address)));
        let (there, max, max_per_user) = match (&self.calls, owner.reach) {
            (Some(Calls { config, .. }), Reach::Outside) => {
                (self.stats.calls.allocations, config.max_allocations, config.max_per_user)
            }
            _ => (self.stats.media.allocations, self.config.max_allocations, self.config.max_per_user),
        };
        if by_user >= max_per_user {
            return Err(Refusal::UserQuota);
        }
        if by_address >= self.config.max_per_address {
            return Err(Refusal::AddressQuota);
        }
        if there >= max {
            return Err(Refusal::Capacity);
        }
        let relayed = match owner.reach {
            Reach::Media => self.choose_relayed(message.wants_ipv6)?,
            Reach::Outside => {
                let calls = self.calls.as_mut().ok_or(Refusal::Capacity)?;
                calls.take(now, *link, &owner.subject, (message.wants_ipv6, message.wants_even))?
            }
        };
        let lifetime = granted(message.lifetime);
        let id = Allocation(self.next);
        self.next = self.next.wrapping_add(1);
        self.per_user.insert(owner.subject.clone(), by_user + 1);
        self.per_address.insert(address, by_address + 1);
        let counters = match owner.reach {
            Reach::Media => {
                self.relayed.insert(relayed);
                self.links.insert(id, *link);
                &mut self.stats.media
            }
            Reach::Outside => &mut self.stats.calls,
        };
        counters.allocated += 1;
        counters.allocations += 1;
        self.deadlines.insert((now + lifetime, *link));
        self.allocations.insert(*link, State::new(id, relayed, owner, message.transaction, now + lifetime));
        Ok(Granted::Allocation { relayed, lifetime })
    }

    /// An address of ours that no other allocation has. Without a wish, IPv4 where this node has it (RFC 8656, 7.2).
    fn choose_relayed(&mut self, wants_ipv6: Option<bool>) -> Result<SocketAddr, Refusal> {
        let has = |ipv6: bool| self.config.peers.keys().any(|peer| peer.is_ipv6() == ipv6);
        let ipv6 = wants_ipv6.unwrap_or_else(|| !has(false));
        // The last of a family in order is no loopback address where there is another.
        let mut family = self.config.peers.keys().filter(|peer| peer.is_ipv6() == ipv6).map(SocketAddr::ip);
        let first = family.clone().find(|ip| !ip.is_loopback());
        let ip = first.or_else(|| family.next()).ok_or(Refusal::NoFamily)?;
        let ports = u64::from(RELAYED_PORTS.end - RELAYED_PORTS.start);
        let from = self.rng.below(ports);
        (0..ports)
            .filter_map(|step| u16::try_from((from + step) % ports).ok())
            .map(|offset| SocketAddr::new(ip, RELAYED_PORTS.start + offset))
            .find(|address| !self.relayed.contains(address) && !self.config.peers.contains_key(address))
            .ok_or(Refusal::Capacity)
    }
}

/// Of participants, only the media addresses of this node are peers; of others, what the rules of legacy calls say. A
/// permission is for an address with any port (RFC 8656, 9), but where a client names a port it has to be one of those.
fn check_peer(config: &super::Config, calls: Option<&Calls>, state: &State, peer: SocketAddr) -> Result<(), Refusal> {
    if peer.is_ipv6() != state.relayed.is_ipv6() {
        return Err(Refusal::OtherFamily);
    }
    let is_ours = |peer: SocketAddr| {
        config.peers.contains_key(&peer) || peer.port() == 0 && config.peers.keys().any(|ours| ours.ip() == peer.ip())
    };
    let is_peer = match state.reach {
        Reach::Media => is_ours(peer),
        Reach::Outside => calls.is_some_and(|calls| calls.config.rules.allows(peer)),
    };
    if is_peer { Ok(()) } else { Err(Refusal::Peer) }
}

fn granted(wish: Option<Duration>) -> Duration {
    wish.unwrap_or(DEFAULT_LIFETIME).clamp(DEFAULT_LIFETIME, MAX_LIFETIME)
}

fn answer<'b>(
    arena: &'b mut Vec<u8>,
    method: Method,
    message: &Message<'_>,
    link: Route,
    result: Result<Granted, Refusal>,
) -> Writer<'b> {
    let transaction = message.transaction;
    match result {
        Err(Refusal::Unknown) => Writer::error(arena, method, transaction, Refusal::Unknown.code())
            .unknown(message.unknown.unwrap_or(DONT_FRAGMENT)),
        Err(reason) => Writer::error(arena, method, transaction, reason.code()),
        Ok(Granted::Allocation { relayed, lifetime }) => {
            let writer = Writer::success(arena, method, transaction).relayed(relayed);
            writer.lifetime(lifetime).mapped(link.reflexive())
        }
        Ok(Granted::Lifetime(lifetime)) => Writer::success(arena, method, transaction).lifetime(lifetime),
        Ok(Granted::Done) => Writer::success(arena, method, transaction),
    }
}
