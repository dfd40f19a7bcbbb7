//! Finds the transport a datagram is for: by the route it came on, else (STUN) by the ICE ufrag it names.
//!
//! Only routes that an authentic check came by get into it, so what is spoofed finds nothing but the ufrag lookup. The
//! shard keeps the transports themselves under the same [`TransportKey`]. The table obeys what [`super::Transport`]
//! decides ([`Checked`]); it decides only about its own caps.

mod route_map;

use std::collections::BTreeMap;

use slotmap::SecondaryMap;

use crate::base::DropReason;
use crate::transport::route::Route;
use crate::transport::{Checked, Config, stun};
use route_map::RouteMap;

slotmap::new_key_type! {
    /// A transport within its shard. Never used twice.
    pub struct TransportKey;
}

/// A transport may have its current ufrag and, during ICE restarts, the next; more are never valid at once.
const UFRAGS: usize = 3;

/// Route and ufrag to transport.
#[derive(Debug)]
pub struct TransportTable {
    routes: RouteMap,
    ufrags: BTreeMap<String, TransportKey>,
    entries: SecondaryMap<TransportKey, Entry>,
    pending: usize,
    max_pending: usize,
    max_routes: usize,
}

/// What is known of one transport, to remove it whole.
#[derive(Debug, Default)]
struct Entry {
    ufrags: Vec<String>,
    routes: Vec<Route>,
    passed: bool,
}

impl TransportTable {
    /// An empty one. `seed` spreads routes over the table; any number will do.
    pub fn new(config: &Config, seed: u64) -> Self {
        Self {
            routes: RouteMap::new(seed),
            ufrags: BTreeMap::new(),
            entries: SecondaryMap::new(),
            pending: 0,
            max_pending: config.max_pending,
            max_routes: config.max_routes.max(1),
        }
    }

    /// A new transport waits for checks that name `ufrag`.
    ///
    /// # Errors
    /// `Full` when [`Config::max_pending`] transports wait already, `Duplicate` when another has this ufrag.
    pub fn insert(&mut self, key: TransportKey, ufrag: &str) -> Result<(), DropReason> {
        if self.entries.contains_key(key) || self.ufrags.contains_key(ufrag) {
            return Err(DropReason::Duplicate);
        }
        if self.pending >= self.max_pending {
            return Err(DropReason::Full);
        }
        self.ufrags.insert(ufrag.to_owned(), key);
        self.entries.insert(key, Entry { ufrags: vec![ufrag.to_owned()], ..Entry::default() });
        self.pending += 1;
        Ok(())
    }

    /// A known transport also answers to `ufrag` (ICE restart).
    ///
    /// # Errors
    /// `Duplicate` when the ufrag is taken, `Full` when the transport has too many, `UnknownRoute` when there is no such
    /// transport.
    pub fn add_ufrag(&mut self, key: TransportKey, ufrag: &str) -> Result<(), DropReason> {
        if self.ufrags.contains_key(ufrag) {
            return Err(DropReason::Duplicate);
        }
        let entry = self.entries.get_mut(key).ok_or(DropReason::UnknownRoute)?;
        if entry.ufrags.len() >= UFRAGS {
            return Err(DropReason::Full);
        }
        entry.ufrags.push(ufrag.to_owned());
        self.ufrags.insert(ufrag.to_owned(), key);
        Ok(())
    }

    /// A ufrag is no longer valid. Of another transport or unknown: nothing happens.
    pub fn remove_ufrag(&mut self, key: TransportKey, ufrag: &str) {
        if let Some(entry) = self.entries.get_mut(key)
            && let Some(at) = entry.ufrags.iter().position(|u| u == ufrag)
        {
            entry.ufrags.swap_remove(at);
            self.ufrags.remove(ufrag);
        }
    }

    /// The transport of a datagram that came by `route`. Two cache lines in the usual case.
    pub fn find(&self, route: &Route) -> Option<TransportKey> {
        self.routes.find(route)
    }

    /// The transport a STUN message names in its USERNAME. Nothing of it is verified here.
    ///
    /// # Errors
    /// `MalformedStun` for what does not parse, `StunRefused` for what is no request with a USERNAME, `UnknownRoute` for
    /// a ufrag nobody has.
    pub fn find_stun(&self, packet: &[u8]) -> Result<TransportKey, DropReason> {
        let request = stun::parse(packet)?;
        let (local, _) = request.ice_username().ok_or(DropReason::StunRefused)?;
        self.ufrags.get(local).copied().ok_or(DropReason::UnknownRoute)
    }

    /// Take over what an authentic check changed. Gives the transport that owned the route until now, if it was another:
    /// tell it with [`super::Transport::forget_route`].
    pub fn apply(&mut self, key: TransportKey, checked: &Checked) -> Option<TransportKey> {
        if let Some(evicted) = &checked.evicted {
            self.unbind(key, evicted);
        }
        if let Some(retired) = &checked.retired {
            self.remove_ufrag(key, retired);
        }
        checked.bound.and_then(|route| self.bind(route, key))
    }

    /// Datagrams from `route` are `key`'s from now on. Gives the transport that owned the route until now, if it was
    /// another.
    pub fn bind(&mut self, route: Route, key: TransportKey) -> Option<TransportKey> {
        let previous = self.routes.find(&route).filter(|previous| *previous != key);
        if let Some(previous) = previous {
            self.unbind(previous, &route);
        }
        let max_routes = self.max_routes;
        let entry = self.entries.entry(key)?.or_default();
        if !entry.passed {
            entry.passed = true;
            // A transport the table was not told of by `insert` (a plain one) was never pending.
            if !entry.ufrags.is_empty() {
                self.pending = self.pending.saturating_sub(1);
            }
        }
        if !entry.routes.contains(&route) {
            // The transport evicts before this is reached; the table holds the line by itself all the same.
            if entry.routes.len() >= max_routes {
                let oldest = entry.routes.remove(0);
                self.routes.remove(&oldest);
            }
            entry.routes.push(route);
            self.routes.insert(route, key);
        }
        previous
    }

    /// A route is gone (its TCP connection ended). Gives the transport that had it.
    pub fn remove_route(&mut self, route: &Route) -> Option<TransportKey> {
        let key = self.routes.find(route)?;
        self.unbind(key, route);
        Some(key)
    }

    /// A transport is gone, with its ufrags and routes.
    pub fn remove(&mut self, key: TransportKey) {
        let Some(entry) = self.entries.remove(key) else { return };
        for ufrag in &entry.ufrags {
            self.ufrags.remove(ufrag);
        }
        for route in &entry.routes {
            self.routes.remove(route);
        }
        if !entry.passed {
            self.pending = self.pending.saturating_sub(1);
        }
    }

    /// Transports that have not passed an ICE check yet.
    pub const fn pending(&self) -> usize {
        self.pending
    }

    fn unbind(&mut self, key: TransportKey, route: &Route) {
        if let Some(entry) = self.entries.get_mut(key)
            && let Some(at) = entry.routes.iter().position(|r| r == route)
        {
            entry.routes.remove(at);
            self.routes.remove(route);
        }
    }
}

#[cfg(test)]
mod tests;
