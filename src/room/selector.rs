//! Which packets of a track belong to what a subscriber gets now, and when that may change.
//!
//! An encoding is entered at a key frame only; until it comes the one before goes on. Temporal layers are left at any
//! frame and entered at a frame that says it needs none of its layer before it. Pure: asked by the downtrack for each
//! packet, told the wish of allocator and availability.

use crate::base::DropReason;
use crate::room::packet::Packet;

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It belongs to what flows.
    Forward,
    /// It begins another encoding, or the first.
    Switch,
    /// It belongs to what flows but is left out: numbering closes over it.
    Skip(DropReason),
    /// It does not belong to what flows.
    Ignore(DropReason),
}

/// All temporal layers.
pub const ALL_TEMPORAL: u8 = u8::MAX;

/// Chooses packets for one downtrack.
#[derive(Debug, Default)]
pub struct Selector {
    wanted: Option<u8>,
    temporal_wanted: u8,
    current: Option<u8>,
    /// Highest temporal layer let through now, and before `limit_since`.
    limit: u8,
    limit_before: u8,
    limit_since: u64,
}

impl Selector {
    /// Wants nothing.
    pub const fn new() -> Self {
        Self {
            wanted: None,
            temporal_wanted: ALL_TEMPORAL,
            current: None,
            limit: ALL_TEMPORAL,
            limit_before: ALL_TEMPORAL,
            limit_since: 0,
        }
    }

    /// The encoding that should flow (the best one that can) and the highest temporal layer.
    pub const fn set_wanted(&mut self, wanted: Option<u8>, temporal: u8) {
        self.wanted = wanted;
        self.temporal_wanted = temporal;
    }

    /// The encoding that should flow.
    pub const fn wanted(&self) -> Option<u8> {
        self.wanted
    }

    /// The encoding that flows.
    pub const fn current(&self) -> Option<u8> {
        self.current
    }

    /// Whether a key frame of `spatial` would be of use.
    pub fn waits_for(&self, spatial: u8) -> bool {
        self.wanted == Some(spatial) && self.current != Some(spatial)
    }

    /// Nothing flows any more; the next begins with a key frame.
    pub const fn interrupt(&mut self) {
        self.current = None;
    }

    /// Judge a packet.
    pub fn choose(&mut self, packet: &Packet) -> Choice {
        if self.current != Some(packet.spatial) {
            return self.choose_other(packet);
        }
        if packet.padding_only {
            return Choice::Skip(DropReason::Padding);
        }
        if !packet.newest {
            let limit = if packet.seq < self.limit_since { self.limit_before } else { self.limit };
            return if packet.temporal() <= limit {
                Choice::Forward
            } else {
                Choice::Ignore(DropReason::TemporalLayer)
            };
        }
        if packet.frame.start_of_frame {
            self.move_limit(packet);
        }
        if packet.temporal() <= self.limit { Choice::Forward } else { Choice::Skip(DropReason::TemporalLayer) }
    }

    fn choose_other(&mut self, packet: &Packet) -> Choice {
        let Some(wanted) = self.wanted else { return Choice::Ignore(DropReason::Paused) };
        if packet.padding_only {
            return Choice::Ignore(DropReason::Padding);
        }
        let begins = packet.frame.keyframe && packet.newest;
        // A first picture is worth having even when a better one has been asked for.
        let welcome = packet.spatial == wanted || (self.current.is_none() && packet.spatial < wanted);
        if begins && welcome {
            self.current = Some(packet.spatial);
            self.limit = self.effective_limit();
            self.limit_before = self.limit;
            self.limit_since = packet.seq;
            return Choice::Switch;
        }
        if self.current.is_none() && packet.spatial == wanted {
            return Choice::Ignore(DropReason::AwaitingKeyframe);
        }
        Choice::Ignore(DropReason::OtherLayer)
    }

    /// The temporal limit changes between frames only.
    fn move_limit(&mut self, packet: &Packet) {
        let goal = self.effective_limit();
        let next = if goal < self.limit || packet.frame.keyframe {
            goal
        } else if packet.temporal() > self.limit && packet.temporal() <= goal && packet.frame.temporal_switch {
            packet.temporal()
        } else {
            return;
        };
        if next != self.limit {
            self.limit_before = self.limit;
            self.limit = next;
            self.limit_since = packet.seq;
        }
    }

    /// While a lower encoding is wanted, only the base layer of the higher one goes on: that relieves the link at once.
    fn effective_limit(&self) -> u8 {
        if self.current > self.wanted { 0 } else { self.temporal_wanted }
    }
}
