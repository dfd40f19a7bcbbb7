//! What a shard wants done: datagrams to send and events to report. Lent by the caller, cleared and reused each turn.

use core::ops::Range;

use crate::shard::event::Event;
use crate::shard::relay::Crossings;
use crate::transport::route::{Route, TcpConnection};

/// Reused output buffers. Nothing here is allocated in steady forwarding.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Bytes of all transmits, one after the other.
    arena: Vec<u8>,
    /// Runs of datagrams in sending order.
    transmits: Vec<Transmit>,
    /// Things to report.
    pub events: Vec<Event>,
    /// ICE-TCP connections to close once the transmits are out.
    pub close_tcp: Vec<TcpConnection>,
    /// What goes to other shards of the node. Stays until it is taken.
    pub crossings: Crossings,
}

/// One or more datagrams to one destination, contiguous in the arena. All but the last are `segment` bytes long, the
/// last is at most that: what generic segmentation offload takes in one system call.
#[derive(Clone, Debug)]
pub struct Transmit {
    /// Where to.
    pub route: Route,
    /// Which bytes of the arena.
    pub range: Range<usize>,
    /// Size of each datagram but the last.
    pub segment: usize,
}

/// Linux takes at most 64 segments and 64 kB in one GSO send; 60 kB leaves room for headers.
const MAX_SEGMENTS: usize = 64;
const MAX_RUN_BYTES: usize = 60_000;

impl Outbox {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forget everything but what other shards have not taken yet, keep the memory.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.transmits.clear();
        self.events.clear();
        self.close_tcp.clear();
    }

    /// Its transmits have been sent: forget them, keep the events.
    pub fn sent(&mut self) {
        self.arena.clear();
        self.transmits.clear();
        self.close_tcp.clear();
    }

    /// Append one datagram, written by `write` at the end of the arena. When `write` gives `None`, nothing is appended.
    /// A datagram that fits the run of the one before it (same route, size no larger, all before of equal size) joins it.
    pub fn datagram<R>(&mut self, route: Route, write: impl FnOnce(&mut Vec<u8>) -> Option<R>) -> Option<R> {
        let start = self.arena.len();
        let Some(result) = write(&mut self.arena) else {
            self.arena.truncate(start);
            return None;
        };
        let end = self.arena.len();
        let length = end - start;
        if length == 0 {
            return Some(result);
        }
        if let Some(last) = self.transmits.last_mut()
            && last.route == route
            && last.range.end == start
            && last.range.len() % last.segment == 0
            && length <= last.segment
            && last.range.len() / last.segment < MAX_SEGMENTS
            && last.range.len() + length <= MAX_RUN_BYTES
        {
            last.range.end = end;
        } else {
            self.transmits.push(Transmit { route, range: start..end, segment: length });
        }
        Some(result)
    }

    /// Runs in sending order, each with its bytes.
    pub fn transmits(&self) -> impl Iterator<Item = (&Transmit, &[u8])> {
        self.transmits.iter().filter_map(|t| self.arena.get(t.range.clone()).map(|bytes| (t, bytes)))
    }

    /// Datagrams in sending order, runs taken apart.
    pub fn datagrams(&self) -> impl Iterator<Item = (Route, &[u8])> {
        self.transmits().flat_map(|(t, bytes)| bytes.chunks(t.segment.max(1)).map(|d| (t.route, d)))
    }

    /// Whether there is nothing to send.
    pub const fn is_quiet(&self) -> bool {
        self.transmits.is_empty()
    }
}
