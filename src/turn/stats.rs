//! What the server has done so far, in plain integers.

use super::refusal::{Lost, Refusal};

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Of participants, for weir's own media.
    pub media: UseStats,
    /// Of users of a homeserver, for its one-to-one calls.
    pub calls: UseStats,
    refused: [u64; Refusal::ALL.len()],
    lost: [u64; Lost::ALL.len()],
}

/// Counters of one use of the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UseStats {
    /// Allocations now.
    pub allocations: usize,
    /// Allocations ever made.
    pub allocated: u64,
    /// What clients sent to peers.
    pub to_peers: Traffic,
    /// What peers sent to clients.
    pub to_clients: Traffic,
}

/// Relayed datagrams, without what TURN adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// How many.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Traffic {
    pub(super) const fn add(&mut self, bytes: usize) {
        self.datagrams += 1;
        self.bytes += bytes as u64;
    }
}

impl Stats {
    /// Allocations now, of both uses.
    pub const fn allocations(&self) -> usize {
        self.media.allocations + self.calls.allocations
    }

    /// Requests refused for a reason. Challenges do not count.
    pub fn refused(&self, reason: Refusal) -> u64 {
        let at = Refusal::ALL.iter().position(|it| *it == reason);
        at.and_then(|at| self.refused.get(at)).copied().unwrap_or_default()
    }

    /// Datagrams lost for a reason.
    pub fn lost(&self, reason: Lost) -> u64 {
        let at = Lost::ALL.iter().position(|it| *it == reason);
        at.and_then(|at| self.lost.get(at)).copied().unwrap_or_default()
    }

    pub(super) fn refuse(&mut self, reason: Refusal) {
        let at = Refusal::ALL.iter().position(|it| *it == reason);
        if let Some(count) = at.and_then(|at| self.refused.get_mut(at)) {
            *count += 1;
        }
    }

    pub(super) fn lose(&mut self, reason: Lost) {
        let at = Lost::ALL.iter().position(|it| *it == reason);
        if let Some(count) = at.and_then(|at| self.lost.get_mut(at)) {
            *count += 1;
        }
    }
}
