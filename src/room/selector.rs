//! Which packets of a track belong to what a subscriber gets now, and when that may change.
//!
//! An encoding is entered at a key frame only; until it comes the one before goes on. Temporal layers are left at any
//! frame and entered at a frame that says it needs none of its layer before it. Spatial layers inside an encoding (SVC)
//! are left at any picture and entered at a key picture: with L3T3_KEY and its like nothing else begins a layer. Pure:
//! asked by the downtrack for each packet, told the wish of allocator and availability.

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
/// All spatial layers inside an encoding.
pub const ALL_SPATIAL: u8 = u8::MAX;

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
    /// Highest spatial layer wanted inside the encoding, and the highest that flows.
    depth_wanted: u8,
    depth_flowing: u8,
    /// Highest spatial layer inside the encoding let through now, and before `depth_since`.
    depth: u8,
    depth_before: u8,
    depth_since: u64,
    /// Timestamp of the picture the depth was looked at last.
    picture: Option<u32>,
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
            depth_wanted: ALL_SPATIAL,
            depth_flowing: 0,
            depth: ALL_SPATIAL,
            depth_before: ALL_SPATIAL,
            depth_since: 0,
            picture: None,
        }
    }

    /// The encoding that should flow (the best one that can) and the highest temporal layer.
    pub const fn set_wanted(&mut self, wanted: Option<u8>, temporal: u8) {
        self.wanted = wanted;
        self.temporal_wanted = temporal;
    }

    /// The highest spatial layer inside the encoding that should flow, and the highest that its publisher sends.
    pub const fn set_depth(&mut self, wanted: u8, flowing: u8) {
        self.depth_wanted = wanted;
        self.depth_flowing = flowing;
    }

    /// The encoding that should flow.
    pub const fn wanted(&self) -> Option<u8> {
        self.wanted
    }

    /// The encoding that flows.
    pub const fn current(&self) -> Option<u8> {
        self.current
    }

    /// The spatial layer that flows: the encoding, or the layer inside the only one.
    pub fn layer(&self) -> Option<u8> {
        self.current.map(|encoding| encoding.max(self.depth.min(self.depth_flowing)))
    }

    /// Whether a key frame of the encoding `spatial` would be of use.
    pub fn waits_for(&self, spatial: u8) -> bool {
        self.wanted == Some(spatial)
            && (self.current != Some(spatial) || self.depth < self.depth_wanted.min(self.depth_flowing))
    }

    /// Whether a packet that is forwarded is the last one of its picture for this downtrack: layers above are left out.
    pub const fn ends_picture(&self, packet: &Packet) -> bool {
        packet.frame.end_of_frame && packet.frame.spatial == self.depth_at(packet)
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
            if packet.frame.spatial > self.depth_at(packet) {
                return Choice::Ignore(DropReason::SpatialLayer);
            }
            return if packet.temporal() <= limit {
                Choice::Forward
            } else {
                Choice::Ignore(DropReason::TemporalLayer)
            };
        }
        if packet.frame.start_of_frame {
            self.move_limit(packet);
            self.move_depth(packet);
        }
        if packet.frame.spatial > self.depth {
            return Choice::Skip(DropReason::SpatialLayer);
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
            self.depth = self.depth_wanted;
            self.depth_before = self.depth;
            self.depth_since = packet.seq;
            self.picture = Some(packet.timestamp);
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

    /// The spatial depth changes between pictures only, and grows at key pictures.
    fn move_depth(&mut self, packet: &Packet) {
        // Where its lowest layer begins: further up, what went out already would lack the mark of its end.
        if packet.frame.spatial > 0 || self.picture.replace(packet.timestamp) == Some(packet.timestamp) {
            return;
        }
        if self.depth_wanted < self.depth || (packet.frame.keyframe && self.depth_wanted != self.depth) {
            self.depth_before = self.depth;
            self.depth = self.depth_wanted;
            self.depth_since = packet.seq;
        }
    }

    const fn depth_at(&self, packet: &Packet) -> u8 {
        if packet.seq < self.depth_since { self.depth_before } else { self.depth }
    }

    /// While a lower encoding is wanted, only the base layer of the higher one goes on: that relieves the link at once.
    fn effective_limit(&self) -> u8 {
        if self.current > self.wanted { 0 } else { self.temporal_wanted }
    }
}
