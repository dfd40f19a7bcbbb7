//! An open-addressing map from route to transport: one hash, linear probing, at most three quarters full.
//!
//! A route lookup happens for every datagram, so it must not chase pointers; and a run must be repeatable, so it cannot
//! be seeded by chance. Only routes of authenticated far ends get in, a few each, so crafted collisions stay short.

use core::net::{IpAddr, SocketAddr};

use super::TransportKey;
use crate::transport::route::Route;

/// Slots of the smallest table; a power of two.
const SMALLEST: usize = 64;

/// Route to transport.
#[derive(Debug)]
pub(super) struct RouteMap {
    slots: Vec<Option<(Route, TransportKey)>>,
    len: usize,
    seed: u64,
}

impl RouteMap {
    /// An empty one.
    pub(super) fn new(seed: u64) -> Self {
        Self { slots: vec![None; SMALLEST], len: 0, seed }
    }

    /// The transport of `route`.
    pub(super) fn find(&self, route: &Route) -> Option<TransportKey> {
        self.slot_of(route).and_then(|at| self.slots.get(at)?.as_ref().map(|(_, key)| *key))
    }

    /// Set the transport of `route`, new or known.
    pub(super) fn insert(&mut self, route: Route, key: TransportKey) {
        if let Some(at) = self.slot_of(&route) {
            self.put(at, Some((route, key)));
            return;
        }
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            let old = core::mem::take(&mut self.slots);
            self.slots = vec![None; old.len() * 2];
            for (route, key) in old.into_iter().flatten() {
                self.place(route, key);
            }
        }
        self.place(route, key);
        self.len += 1;
    }

    /// Forget `route`. Entries behind it in the probe chain move up, so that no tombstones pile up.
    pub(super) fn remove(&mut self, route: &Route) {
        let Some(mut hole) = self.slot_of(route) else { return };
        self.put(hole, None);
        self.len -= 1;
        let mut at = self.next(hole);
        while let Some(Some((route, key))) = self.slots.get(at).copied() {
            let home = self.home(&route);
            // Move it when its home is not within (hole, at], going round.
            if self.distance(home, at) >= self.distance(hole, at) {
                self.put(hole, Some((route, key)));
                self.put(at, None);
                hole = at;
            }
            at = self.next(at);
        }
    }

    /// How many routes there are.
    #[cfg(test)]
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    fn slot_of(&self, route: &Route) -> Option<usize> {
        let mut at = self.home(route);
        while let Some(Some((found, _))) = self.slots.get(at) {
            if found == route {
                return Some(at);
            }
            at = self.next(at);
        }
        None
    }

    fn place(&mut self, route: Route, key: TransportKey) {
        let mut at = self.home(&route);
        while let Some(Some(_)) = self.slots.get(at) {
            at = self.next(at);
        }
        self.put(at, Some((route, key)));
    }

    fn put(&mut self, at: usize, value: Option<(Route, TransportKey)>) {
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = value;
        }
    }

    fn home(&self, route: &Route) -> usize {
        usize::try_from(hash(route, self.seed) >> 32).unwrap_or_default() & self.mask()
    }

    fn next(&self, at: usize) -> usize {
        (at + 1) & self.mask()
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & self.mask()
    }

    fn mask(&self) -> usize {
        self.slots.len().saturating_sub(1)
    }
}

/// A mix good enough to spread addresses and ports of far ends.
fn hash(route: &Route, seed: u64) -> u64 {
    match route {
        Route::Udp { local, remote } => mix(address(remote, mix(seed)) ^ address(local, 1)),
        Route::Tcp { connection, .. } => mix(connection.0 ^ mix(seed ^ 2)),
        Route::Turn { allocation, peer, .. } => mix(u64::from(allocation.0) ^ address(peer, mix(seed ^ 3))),
    }
}

fn address(address: &SocketAddr, seed: u64) -> u64 {
    let ip = match address.ip() {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            let low = u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default();
            let high = u64::try_from(bits >> 64).unwrap_or_default();
            low ^ mix(high)
        }
    };
    mix(seed ^ ip).wrapping_add(u64::from(address.port()).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
