//! One track as sent to one subscriber: asked for each packet of the track, answers with a header or a reason.
//!
//! It joins a [`Selector`] (which packets) and a [`Rewriter`] (which numbers) with the wishes of subscriber, allocator and
//! publisher. It touches no payload and no transport; the shard sends what it decides.

use crate::base::{DowntrackId, DropReason, Instant, MediaKind, PayloadType};
use crate::room::allocator::Target;
use crate::room::packet::Packet;
use crate::room::rewriter::{Numbering, Rewriter};
use crate::room::selector::{ALL_SPATIAL, ALL_TEMPORAL, Choice, Selector};
use crate::room::share::Steadiness;
use crate::room::track::Track;
use crate::room::{ParticipantKey, SenderKey, TrackKey};
use crate::transport::params::{Demand, PayloadMap};

/// What a packet becomes for one subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Sent with this header.
    Send(Header),
    /// Not sent.
    Drop(DropReason),
}

/// What differs in the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The subscriber's payload type.
    pub payload_type: PayloadType,
    /// Sequence number, timestamp, descriptor numbers.
    pub numbering: Numbering,
    /// Marker bit: the picture ends here, for this subscriber.
    pub marker: bool,
}

/// One track to one subscriber.
#[derive(Debug)]
pub struct Downtrack {
    /// Its name towards control.
    pub id: DowntrackId,
    /// What is sent.
    pub track: TrackKey,
    /// To whom.
    pub subscriber: ParticipantKey,
    /// The outgoing RTP stream in the shard.
    pub sender: SenderKey,
    /// Audio or video.
    pub kind: MediaKind,
    /// The subscriber's transport can take media.
    pub connected: bool,
    /// What the subscriber wants.
    pub demand: Demand,
    /// Loss on the way to the subscriber, in 1/256, as it last reported.
    pub fraction_lost: u8,
    payload_types: Vec<PayloadMap>,
    target: Target,
    steadiness: Steadiness,
    selector: Selector,
    rewriter: Rewriter,
}

/// What a downtrack is made of.
#[derive(Clone, Debug)]
pub struct NewDowntrack {
    /// Its name towards control.
    pub id: DowntrackId,
    /// What is sent.
    pub track: TrackKey,
    /// To whom.
    pub subscriber: ParticipantKey,
    /// The outgoing RTP stream in the shard.
    pub sender: SenderKey,
    /// Payload types the subscriber takes.
    pub payload_types: Vec<PayloadMap>,
    /// What it wants.
    pub demand: Demand,
    /// First sequence number.
    pub first_seq: u16,
    /// The subscriber's transport can take media.
    pub connected: bool,
}

impl Downtrack {
    /// A downtrack of `track` that nothing was sent on yet.
    pub fn new(new: NewDowntrack, track: &Track) -> Self {
        let mut downtrack = Self {
            id: new.id,
            track: new.track,
            subscriber: new.subscriber,
            sender: new.sender,
            kind: track.kind,
            connected: new.connected,
            demand: new.demand,
            fraction_lost: 0,
            payload_types: new.payload_types,
            target: Target::Layer { spatial: new.demand.max_spatial, starved: false },
            steadiness: Steadiness::default(),
            selector: Selector::new(),
            rewriter: Rewriter::new(new.first_seq, track.clock_rate),
        };
        downtrack.retarget(track);
        downtrack
    }

    /// Judge a packet of `track`.
    pub fn forward(&mut self, packet: &Packet, track: &Track) -> Verdict {
        if let Some(reason) = self.closed(track) {
            self.interrupt();
            return Verdict::Drop(reason);
        }
        if packet.restarted && self.selector.current() == Some(packet.spatial) {
            self.interrupt();
        }
        let Some(payload_type) = self.payload_type(packet.payload_type) else {
            if packet.newest && self.selector.current() == Some(packet.spatial) {
                self.rewriter.skip(packet);
            }
            return Verdict::Drop(DropReason::UnknownPayloadType);
        };
        let mut begins = false;
        let numbering = match self.selector.choose(packet) {
            Choice::Switch => {
                begins = true;
                Ok(self.begin(packet, track))
            }
            Choice::Forward if self.rewriter.begins(packet.spatial) => Ok(self.begin(packet, track)),
            Choice::Forward => self.rewriter.forward(packet),
            Choice::Skip(reason) => {
                self.rewriter.skip(packet);
                Err(reason)
            }
            // The tail of what flowed before may still fill a hole.
            Choice::Ignore(DropReason::OtherLayer) if !packet.newest => {
                self.rewriter.late(packet).map_err(|_| DropReason::OtherLayer)
            }
            Choice::Ignore(reason) => Err(reason),
        };
        match numbering {
            Ok(numbering) => {
                // Of sound it means that something begins after silence (RFC 3551, 4.1), and so it does for this subscriber.
                let begins = begins && self.kind == MediaKind::Audio;
                let marker = packet.marker || begins || (track.svc && self.selector.ends_picture(packet));
                Verdict::Send(Header { payload_type, numbering, marker })
            }
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// The subscriber wants something else.
    pub fn set_demand(&mut self, demand: Demand, track: &Track) {
        self.demand = demand;
        self.retarget(track);
    }

    /// The subscriber takes other payload types.
    pub fn set_payload_types(&mut self, payload_types: Vec<PayloadMap>) {
        self.payload_types = payload_types;
    }

    /// The allocator has decided.
    pub fn set_target(&mut self, target: Target, track: &Track) {
        self.target = target;
        self.retarget(track);
    }

    /// The same, remembering whether there was too little room.
    pub fn share(&mut self, now: Instant, target: Target, track: &Track) {
        if let (Target::Layer { spatial, .. }, Some(current)) = (target, self.current()) {
            let wanted = current.min(self.demand.max_spatial).min(track.top());
            if spatial != wanted {
                self.steadiness.on_change(now, spatial > wanted);
            }
        }
        self.set_target(target, track);
    }

    /// The highest spatial layer it may have for now, when it was lowered a moment ago.
    pub fn held_down(&self, now: Instant) -> Option<u8> {
        match self.target {
            Target::Layer { spatial, .. } if self.steadiness.holds(now) => Some(spatial),
            _ => None,
        }
    }

    /// Target or the encodings that flow have changed: choose what to want.
    pub fn retarget(&mut self, track: &Track) {
        let (wanted, temporal) = match self.target {
            Target::Layer { spatial, starved } => {
                let spatial = spatial.min(self.demand.max_spatial);
                let encoding = if track.svc { 0 } else { track.best_encoding(spatial) };
                self.selector.set_depth(if track.svc { spatial } else { ALL_SPATIAL }, track.depth_flowing());
                (Some(encoding), if starved { 0 } else { self.demand.max_temporal })
            }
            Target::Paused => (None, ALL_TEMPORAL),
        };
        self.selector.set_wanted(wanted, temporal);
    }

    /// Nothing is sent from here on until something fits again.
    pub fn interrupt(&mut self) {
        self.selector.interrupt();
        self.rewriter.interrupt();
    }

    /// Whether a key frame of `spatial` would bring the picture that is wanted.
    pub fn waits_for(&self, spatial: u8, track: &Track) -> bool {
        self.kind == MediaKind::Video && self.closed(track).is_none() && self.selector.waits_for(spatial)
    }

    /// What the allocator gave.
    pub const fn target(&self) -> Target {
        self.target
    }

    /// The spatial layer that flows: its encoding, or the layer inside the only one.
    pub fn current(&self) -> Option<u8> {
        self.selector.layer()
    }

    /// The encoding that flows.
    pub const fn encoding(&self) -> Option<u8> {
        self.selector.current()
    }

    /// The encoding that should flow.
    pub const fn wanted(&self) -> Option<u8> {
        self.selector.wanted()
    }

    /// Encoding and what is added to its timestamps, for sender reports.
    pub fn timestamp_shift(&self) -> Option<(u8, u32)> {
        self.rewriter.timestamp_shift()
    }

    /// Something is sent whenever its publisher sends.
    pub(super) fn is_open(&self) -> bool {
        self.connected && self.demand.enabled && self.target != Target::Paused
    }

    /// The highest spatial layer it is to have.
    pub(super) fn most_spatial(&self) -> u8 {
        match self.target {
            Target::Layer { spatial, .. } => spatial.min(self.demand.max_spatial),
            Target::Paused => 0,
        }
    }

    /// Why nothing may be sent at all.
    fn closed(&self, track: &Track) -> Option<DropReason> {
        if !self.connected {
            Some(DropReason::NotConnected)
        } else if track.muted {
            Some(DropReason::Muted)
        } else if !self.demand.enabled {
            Some(DropReason::Disabled)
        } else if self.target == Target::Paused {
            Some(DropReason::Paused)
        } else {
            None
        }
    }

    fn begin(&mut self, packet: &Packet, track: &Track) -> Numbering {
        let aligned = self.rewriter.timestamp_shift().and_then(|(from, shift)| {
            let same_clock = track.align(packet.timestamp, packet.spatial, from)?;
            Some(same_clock.wrapping_add(shift))
        });
        self.rewriter.begin(packet, aligned)
    }

    fn payload_type(&self, from: PayloadType) -> Option<PayloadType> {
        self.payload_types.iter().find(|map| map.from == from).map(|map| map.to)
    }
}
