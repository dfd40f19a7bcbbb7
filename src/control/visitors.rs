//! How much one address may ask: connections at once, joins and token requests per second. So that a single machine cannot take all
//! places or all time of a node.
//!
//! IPv6 hosts own a /64 and are counted by it. Behind a reverse proxy every client has the proxy's address: the limits
//! are then the proxy's, which is why their defaults are wide.

use std::collections::BTreeMap;
use std::net::IpAddr;
#[expect(clippy::disallowed_types, reason = "held for a few instructions, by tasks that accept and answer joins")]
use std::sync::Mutex;
use std::sync::{Arc, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::media::household;

/// What one address may.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct VisitorLimits {
    /// Connections at once; 0: no bound of its own.
    pub(super) connections: u32,
    /// Joins per second in the long run, ten times as many at once; 0: no bound.
    pub(super) joins: u32,
    /// Requests for Matrix tokens, as above.
    pub(super) tokens: u32,
}

impl VisitorLimits {
    /// Joins and token requests an address may make at once.
    fn bursts(self) -> [f64; 2] {
        [self.joins, self.tokens].map(|rate| f64::from(rate) * BURST)
    }
}

/// Connections beyond the limit that still get an answer, so that a browser learns why.
const ANSWERED_BEYOND: u32 = 32;
/// Seconds of its rate an address may use at once.
const BURST: f64 = 10.0;
/// Addresses kept before the table is looked through for those that may be forgotten.
const FIRST_SWEEP: usize = 1_024;

/// All addresses that are connected or have joined in the last seconds.
#[derive(Debug)]
#[expect(clippy::disallowed_types, reason = "see the import")]
pub(super) struct Visitors {
    limits: VisitorLimits,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    visitors: BTreeMap<IpAddr, Visitor>,
    sweep_at: usize,
}

#[derive(Debug)]
struct Visitor {
    connections: u32,
    /// Joins it may ask for now.
    joins: f64,
    /// Tokens it may ask for now.
    tokens: f64,
    at: Instant,
}

impl Visitors {
    /// Nobody yet.
    #[expect(clippy::disallowed_types, reason = "see the import")]
    pub(super) fn new(limits: VisitorLimits) -> Arc<Self> {
        let table = Table { visitors: BTreeMap::new(), sweep_at: FIRST_SWEEP };
        Arc::new(Self { limits, table: Mutex::new(table) })
    }

    /// A connection from this address; `None`: close it without a word.
    pub(super) fn connect(self: &Arc<Self>, address: IpAddr, now: Instant) -> Option<Visit> {
        let address = household(address);
        let limits = self.limits;
        let mut table = self.table();
        if table.visitors.len() >= table.sweep_at {
            table.visitors.retain(|_, visitor| visitor.connections > 0 || !visitor.earn(limits, now));
            table.sweep_at = FIRST_SWEEP.max(table.visitors.len() * 2);
        }
        let [joins, tokens] = limits.bursts();
        let fresh = || Visitor { connections: 0, joins, tokens, at: now };
        let visitor = table.visitors.entry(address).or_insert_with(fresh);
        let limit = if limits.connections == 0 { u32::MAX } else { limits.connections };
        if visitor.connections >= limit.saturating_add(ANSWERED_BEYOND) {
            return None;
        }
        visitor.connections += 1;
        let crowded = visitor.connections > limit;
        drop(table);
        Some(Visit { visitors: self.clone(), address, crowded })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Whole after every step: a panic elsewhere tears nothing.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Visitor {
    /// Add what time has earned. Gives whether that is all it can have.
    fn earn(&mut self, limits: VisitorLimits, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        let [joins, tokens] = limits.bursts();
        self.joins = (self.joins + seconds * f64::from(limits.joins)).min(joins);
        self.tokens = (self.tokens + seconds * f64::from(limits.tokens)).min(tokens);
        self.joins >= joins && self.tokens >= tokens
    }
}

/// One connection of an address, until dropped.
#[derive(Debug)]
pub(super) struct Visit {
    visitors: Arc<Visitors>,
    address: IpAddr,
    crowded: bool,
}

impl Visit {
    /// Whether the address had more connections than it may when this one came.
    pub(super) const fn is_crowded(&self) -> bool {
        self.crowded
    }

    /// Whether the address may join once more now; `take` counts it.
    pub(super) fn may_join(&self, now: Instant, take: bool) -> bool {
        let limits = self.visitors.limits;
        if limits.joins == 0 {
            return true;
        }
        let mut table = self.visitors.table();
        // There as long as `self` is.
        let Some(visitor) = table.visitors.get_mut(&self.address) else { return true };
        visitor.earn(limits, now);
        let may = visitor.joins >= 1.0;
        if may && take {
            visitor.joins -= 1.0;
        }
        may
    }

    /// Whether the address may ask for one more Matrix token now; counts it.
    pub(super) fn may_ask(&self, now: Instant) -> bool {
        let limits = self.visitors.limits;
        if limits.tokens == 0 {
            return true;
        }
        let mut table = self.visitors.table();
        let Some(visitor) = table.visitors.get_mut(&self.address) else { return true };
        visitor.earn(limits, now);
        let may = visitor.tokens >= 1.0;
        if may {
            visitor.tokens -= 1.0;
        }
        may
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut table = self.visitors.table();
        if let Some(visitor) = table.visitors.get_mut(&self.address) {
            visitor.connections = visitor.connections.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]

    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn one_address_has_its_share_of_connections_and_another_its_own() {
        let visitors = Visitors::new(VisitorLimits { connections: 2, ..VisitorLimits::default() });
        let now = Instant::now();
        let mut open: Vec<Visit> = (0..2).map(|_| visitors.connect(ONE, now).unwrap()).collect();
        assert!(open.iter().all(|visit| !visit.is_crowded() && visit.may_join(now, true)));
        let told: Vec<Visit> = (0..ANSWERED_BEYOND).map(|_| visitors.connect(ONE, now).unwrap()).collect();
        assert!(told.iter().all(Visit::is_crowded), "answered, with a refusal");
        assert!(visitors.connect(ONE, now).is_none(), "closed without a word");
        assert!(!visitors.connect(OTHER, now).unwrap().is_crowded());
        drop(told);
        drop(open.pop());
        assert!(!visitors.connect(ONE, now).unwrap().is_crowded(), "a place is free again");
    }

    #[test]
    fn joins_come_in_a_burst_and_then_at_the_rate_whatever_the_connection() {
        let visitors = Visitors::new(VisitorLimits { joins: 2, tokens: 1, ..VisitorLimits::default() });
        let now = Instant::now();
        let joins =
            |at: Instant| (0..1_000).take_while(|_| visitors.connect(ONE, at).unwrap().may_join(at, true)).count();
        assert_eq!(joins(now), 20);
        let asked = (0..1_000).take_while(|_| visitors.connect(ONE, now).unwrap().may_ask(now)).count();
        assert_eq!(asked, 10, "tokens are counted beside them");
        assert!(visitors.connect(OTHER, now).unwrap().may_join(now, false));
        assert_eq!(joins(now + Duration::from_secs(3)), 6);
        assert_eq!(joins(now + Duration::from_secs(3600)), 20, "never more than the burst");
    }

    #[test]
    fn hosts_of_one_ipv6_network_are_one_and_the_table_forgets() {
        let visitors = Visitors::new(VisitorLimits { connections: 1, joins: 1, tokens: 1 });
        let now = Instant::now();
        let host = |n: u128| IpAddr::V6(((0x2001_0db8 << 96) + n).into());
        let _first = visitors.connect(host(1), now).unwrap();
        assert!(visitors.connect(host(2), now).unwrap().is_crowded());
        for network in 1..100_000 {
            let later = now + Duration::from_millis(u64::try_from(network).unwrap());
            assert!(visitors.connect(host(network << 64), later).unwrap().may_join(later, true));
        }
        let kept = visitors.table().visitors.len();
        assert!(kept < 25_000, "{kept} addresses: those of the last ten seconds and the time between two sweeps");
    }
}
