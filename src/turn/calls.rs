//! The second use of the service: users of a homeserver relay their one-to-one calls (`m.call.*`) over it, to peers
//! outside. Off unless configured; nothing of it touches a shard.
//!
//! Each allocation has a relayed port of its own. Whoever owns this value keeps some open and ready, so that a request is
//! answered in the turn it came in: [`TurnServer::relays_wanted`], [`TurnServer::offer_relay`],
//! [`TurnServer::next_ended_relay`].

use core::net::SocketAddr;
use core::ops::Range;
use std::collections::BTreeMap;

use super::meter::Meter;
use super::peers::PeerRules;
use super::refusal::{Lost, Refusal};
use super::{Output, TurnServer};
use crate::base::{Bitrate, Instant};
use crate::transport::route::Route;

/// Relayed ports of a family kept ready: allocations one turn may make.
const SPARE: usize = 16;
/// Homeservers' secrets at once.
pub const MAX_SECRETS: usize = 8;

/// What legacy calls may use.
#[derive(Clone, Debug)]
pub struct CallsConfig {
    /// What homeservers make credentials with, [`MAX_SECRETS`] at most.
    pub secrets: Vec<Vec<u8>>,
    /// Who may be a peer.
    pub rules: PeerRules,
    /// Allocations at once.
    pub max_allocations: usize,
    /// Allocations at once of one user.
    pub max_per_user: u32,
    /// What one user may relay, both directions together.
    pub user_rate: Bitrate,
    /// What all may relay, both directions together.
    pub total_rate: Bitrate,
}

/// A datagram for a peer outside.
#[derive(Clone, Debug)]
pub struct Outward {
    /// The relayed address it comes from, as it was offered.
    pub relayed: SocketAddr,
    /// Whom it is for.
    pub peer: SocketAddr,
    /// Which bytes of [`Output::outward_bytes`].
    pub range: Range<usize>,
}

/// The state of it.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) config: CallsConfig,
    /// Unix time, seconds.
    pub(super) date: u64,
    /// Open relayed ports that are nobody's.
    spare: Vec<SocketAddr>,
    /// Those that are somebody's.
    taken: BTreeMap<SocketAddr, Route>,
    /// Those that are over, to be closed.
    ended: Vec<SocketAddr>,
    users: BTreeMap<String, Meter>,
    all: Meter,
}

impl Calls {
    pub(super) fn new(config: CallsConfig) -> Self {
        let all = Meter::new(config.total_rate, Instant::ZERO);
        let (spare, taken, ended, users) = (Vec::new(), BTreeMap::new(), Vec::new(), BTreeMap::new());
        Self { config, date: 0, spare, taken, ended, users, all }
    }

    /// A relayed address for a newcomer. Without a wish, IPv4 where this node has it (RFC 8656, 7.2).
    pub(super) fn take(
        &mut self,
        now: Instant,
        link: Route,
        subject: &str,
        (wants_ipv6, wants_even): (Option<bool>, bool),
    ) -> Result<SocketAddr, Refusal> {
        let has = |ipv6: bool| self.config.rules.relayed.iter().any(|ip| ip.is_ipv6() == ipv6);
        let ipv6 = wants_ipv6.unwrap_or_else(|| !has(false));
        if !has(ipv6) {
            return Err(Refusal::NoFamily);
        }
        let fits = |it: &SocketAddr| it.is_ipv6() == ipv6 && (!wants_even || it.port().is_multiple_of(2));
        let at = self.spare.iter().position(fits).ok_or(Refusal::Capacity)?;
        let relayed = self.spare.swap_remove(at);
        self.taken.insert(relayed, link);
        if !self.users.contains_key(subject) {
            self.users.insert(subject.to_owned(), Meter::new(self.config.user_rate, now));
        }
        Ok(relayed)
    }

    /// An allocation is over; whether it was the last of its user.
    pub(super) fn give_back(&mut self, relayed: SocketAddr, subject: &str, is_last: bool) {
        self.taken.remove(&relayed);
        self.ended.push(relayed);
        if is_last {
            self.users.remove(subject);
        }
    }

    /// Whether something of this user may be relayed now.
    fn check_rate(&self, now: Instant, subject: &str) -> Result<(), Lost> {
        if !self.users.get(subject).is_some_and(|meter| meter.is_open(now)) {
            return Err(Lost::UserRate);
        }
        if self.all.is_open(now) { Ok(()) } else { Err(Lost::TotalRate) }
    }

    fn count(&mut self, now: Instant, subject: &str, bytes: usize) {
        if let Some(meter) = self.users.get_mut(subject) {
            meter.take(now, bytes);
        }
        self.all.take(now, bytes);
    }
}

impl TurnServer {
    /// The date, seconds of Unix time: homeservers' credentials end by it. To be told about once a second.
    pub const fn set_date(&mut self, unix_seconds: u64) {
        if let Some(calls) = &mut self.calls {
            calls.date = unix_seconds;
        }
    }

    /// How many relayed ports of a family are to be offered.
    pub fn relays_wanted(&self, ipv6: bool) -> usize {
        let Some(calls) = &self.calls else { return 0 };
        if !calls.config.rules.relayed.iter().any(|ip| ip.is_ipv6() == ipv6) {
            return 0;
        }
        let may_come = calls.config.max_allocations.saturating_sub(calls.taken.len());
        SPARE.min(may_come).saturating_sub(calls.spare.iter().filter(|it| it.is_ipv6() == ipv6).count())
    }

    /// Here is a relayed address whose datagrams come to [`Self::handle_peer`].
    pub fn offer_relay(&mut self, relayed: SocketAddr) {
        if let Some(calls) = &mut self.calls {
            calls.spare.push(relayed);
        }
    }

    /// The next relayed address that was given up.
    pub fn next_ended_relay(&mut self) -> Option<SocketAddr> {
        self.calls.as_mut()?.ended.pop()
    }

    /// Take what a peer outside sent to a relayed address.
    pub fn handle_peer(
        &mut self,
        now: Instant,
        relayed: SocketAddr,
        peer: SocketAddr,
        datagram: &[u8],
        out: &mut Output,
    ) {
        let is_own = |calls: &Calls| calls.config.rules.own.contains(&peer.ip());
        // Allocations of this node reach each other without a socket: from one of its addresses comes somebody else.
        let result = match &self.calls {
            Some(calls) if is_own(calls) || calls.config.rules.is_relayed(peer.ip()) => Err(Lost::NotPermitted),
            _ => self.deliver(now, relayed, peer, datagram, out),
        };
        if let Err(reason) = result {
            self.stats.lose(reason);
        }
    }

    /// To the client behind a relayed address.
    fn deliver(
        &mut self,
        now: Instant,
        relayed: SocketAddr,
        peer: SocketAddr,
        data: &[u8],
        out: &mut Output,
    ) -> Result<(), Lost> {
        let calls = self.calls.as_ref().ok_or(Lost::NotPermitted)?;
        let link = *calls.taken.get(&relayed).ok_or(Lost::NotPermitted)?;
        let state = self.allocations.get(&link).ok_or(Lost::NotPermitted)?;
        if !state.permits(now, peer.ip()) {
            return Err(Lost::NotPermitted);
        }
        calls.check_rate(now, &state.subject)?;
        self.wrap(now, link, peer, data, out)?;
        if let (Some(calls), Some(state)) = (&mut self.calls, self.allocations.get(&link)) {
            calls.count(now, &state.subject, data.len());
        }
        self.stats.calls.to_clients.add(data.len());
        Ok(())
    }

    /// What a client sends to a peer it has a permission for.
    pub(super) fn send_outside(
        &mut self,
        now: Instant,
        link: &Route,
        peer: SocketAddr,
        data: &[u8],
        out: &mut Output,
    ) -> Result<(), Lost> {
        let (Some(calls), Some(state)) = (&mut self.calls, self.allocations.get(link)) else {
            return Err(Lost::NotPermitted);
        };
        let relayed = state.relayed;
        calls.check_rate(now, &state.subject)?;
        if calls.config.rules.is_relayed(peer.ip()) {
            // A permission is for all ports of an address: here only those of allocations are peers.
            if !calls.taken.contains_key(&peer) {
                return Err(Lost::NotPermitted);
            }
            calls.count(now, &state.subject, data.len());
            self.stats.calls.to_peers.add(data.len());
            return self.deliver(now, peer, relayed, data, out);
        }
        if peer.port() == 0 {
            return Err(Lost::NotPermitted);
        }
        calls.count(now, &state.subject, data.len());
        self.stats.calls.to_peers.add(data.len());
        let start = out.outward_bytes.len();
        out.outward_bytes.extend_from_slice(data);
        out.outward.push(Outward { relayed, peer, range: start..out.outward_bytes.len() });
        Ok(())
    }
}
