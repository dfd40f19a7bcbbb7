//! A published track: its encodings, whether they flow, its clock, who takes it, and what to ask its publisher for.
//!
//! Knows nothing of transports and RTP streams: the shard tells it which encoding a packet belongs to.

use core::time::Duration;

use crate::base::{Bitrate, Instant, MediaKind, TrackId};
use crate::room::allocator::AUDIO_COST;
use crate::room::audible::Voice;
use crate::room::config::RoomConfig;
use crate::room::keyframe::KeyframeRequester;
use crate::room::layer::{Layer, default_cost};
use crate::room::packet::Packet;
use crate::room::relay::{Origin, Relay};
use crate::room::speaker::Meter;
use crate::room::{DowntrackKey, MAX_SPATIAL, ParticipantKey};
use crate::transport::rx::SenderClock;

/// Encodings whose last packets lie no further apart than this fell silent together.
const SAME_TIME: Duration = Duration::from_secs(2);

/// A published track.
#[derive(Debug)]
pub struct Track {
    /// Its name towards control.
    pub id: TrackId,
    /// Who publishes it.
    pub publisher: ParticipantKey,
    /// Audio or video.
    pub kind: MediaKind,
    /// A screen.
    pub screen_share: bool,
    /// Muted by its publisher.
    pub muted: bool,
    /// Ticks of its RTP clock per second.
    pub clock_rate: u32,
    /// Round trip time of its publisher.
    pub rtt: Duration,
    /// How many encodings were negotiated, 1 to [`MAX_SPATIAL`].
    pub encodings: usize,
    /// Its only encoding has been seen to have spatial layers inside (SVC).
    pub svc: bool,
    /// Its spatial layers from the lowest up: its encodings, or those inside the only one, each without those below.
    pub layers: [Layer; MAX_SPATIAL],
    /// Last sender report of each encoding.
    pub clocks: [Option<SenderClock>; MAX_SPATIAL],
    /// Key frame requests of each encoding.
    pub keyframes: [KeyframeRequester; MAX_SPATIAL],
    /// Who takes it, in sending order.
    pub downtracks: Vec<DowntrackKey>,
    /// Other shards that take it.
    pub relays: Vec<Relay>,
    /// It is published on another shard.
    pub origin: Option<Origin>,
    /// Audio level.
    pub meter: Meter,
    /// The same for who is worth hearing.
    pub voice: Voice,
    /// Sound that is meant to be heard whatever its level: that of a screen, music.
    pub always_heard: bool,
    /// Its packets go nowhere: it is not worth hearing now.
    pub inaudible: bool,
    /// Loss on the way from the publisher, in 1/256, as last reported to it.
    pub fraction_lost: u8,
    /// A packet has arrived.
    pub started: bool,
}

/// What a packet changed about its track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// It is the first of the track.
    pub first: bool,
    /// Its encoding began to flow.
    pub began: bool,
}

impl Track {
    /// A track nothing has arrived of yet.
    pub fn new(id: TrackId, publisher: ParticipantKey, kind: MediaKind, config: &RoomConfig) -> Self {
        let low = KeyframeRequester::new(config.keyframe_spacing_low);
        let high = KeyframeRequester::new(config.keyframe_spacing_high);
        Self {
            id,
            publisher,
            kind,
            screen_share: false,
            muted: false,
            clock_rate: 90_000,
            rtt: Duration::from_millis(70),
            encodings: 1,
            svc: false,
            layers: [Layer::default(); MAX_SPATIAL],
            clocks: [None; MAX_SPATIAL],
            keyframes: [low, high, high],
            downtracks: Vec::new(),
            relays: Vec::new(),
            origin: None,
            meter: Meter::default(),
            voice: Voice::default(),
            always_heard: false,
            inaudible: false,
            fraction_lost: 0,
            started: false,
        }
    }

    /// A packet of the track arrived.
    pub fn observe(&mut self, packet: &Packet, config: &RoomConfig) -> Observed {
        let at = usize::from(packet.spatial);
        let inside = usize::from(packet.frame.spatial).min(MAX_SPATIAL - 1);
        let layer = if self.encodings == 1 { inside } else { at };
        self.svc |= self.encodings == 1 && inside > 0;
        // Of a mirrored track the shard of its publisher tells what flows: here only what is wanted arrives.
        let here = self.origin.is_none();
        let began =
            here && self.layers.get_mut(layer).is_some_and(|layer| layer.on_packet(packet.arrival, packet.size));
        if packet.frame.keyframe
            && self.kind == MediaKind::Video
            && let Some(requester) = self.keyframes.get_mut(at)
        {
            requester.on_keyframe(packet.arrival);
        }
        if let Some(level) = packet.audio_level
            && packet.newest
        {
            self.meter.observe(packet.arrival, level, &config.speaker);
        }
        Observed { first: !core::mem::replace(&mut self.started, true) && here, began }
    }

    /// The encoding that serves `target` best: the highest flowing one up to it, else the lowest flowing one above it.
    /// Where nothing flows (a screen stands still) those count that were the last to; before any packet the target.
    pub fn best_encoding(&self, target: u8) -> u8 {
        let top = self.top();
        let target = target.min(top);
        let pick = |of: &dyn Fn(&Layer) -> bool| {
            let fits = |s: &u8| self.layers.get(usize::from(*s)).is_some_and(of);
            (0..=target).rev().find(fits).or_else(|| (target..=top).find(fits))
        };
        let latest = self.layers.iter().filter_map(Layer::last_packet).max();
        pick(&Layer::is_flowing)
            .or_else(|| {
                let recent = latest?.before(SAME_TIME);
                pick(&|layer| layer.last_packet().is_some_and(|at| at >= recent))
            })
            .unwrap_or(target)
    }

    /// The highest spatial layer negotiated, or seen inside the only encoding.
    pub fn top(&self) -> u8 {
        if self.svc {
            return (0u8..).zip(&self.layers).filter(|(_, layer)| layer.packets > 0).last().map_or(0, |(s, _)| s);
        }
        u8::try_from(self.encodings.clamp(1, MAX_SPATIAL) - 1).unwrap_or_default()
    }

    /// The highest spatial layer that flows inside the only encoding; 0 where there are none inside.
    pub fn depth_flowing(&self) -> u8 {
        if !self.svc {
            return 0;
        }
        (0u8..).zip(&self.layers).filter(|(_, layer)| layer.is_flowing()).last().map_or(0, |(spatial, _)| spatial)
    }

    /// What each flowing layer costs; inside an encoding, with those below it, which it needs.
    pub fn costs(&self) -> [Option<Bitrate>; MAX_SPATIAL] {
        let mut costs = [None; MAX_SPATIAL];
        let mut below = Some(Bitrate::ZERO);
        for ((cost, layer), spatial) in costs.iter_mut().zip(&self.layers).zip(0u8..) {
            let default = if self.kind == MediaKind::Audio { AUDIO_COST } else { default_cost(spatial) };
            let own = layer.bitrate();
            let whole = if self.svc { own.and_then(|own| Some(below?.saturating_add(own))) } else { own };
            *cost = layer.is_flowing().then(|| whole.unwrap_or(default));
            if layer.is_flowing() {
                below = whole;
            }
        }
        costs
    }

    /// A timestamp of one encoding in terms of another, where sender reports of both are known.
    pub fn align(&self, timestamp: u32, from: u8, to: u8) -> Option<u32> {
        let from = self.clocks.get(usize::from(from)).copied().flatten()?;
        let to = self.clocks.get(usize::from(to)).copied().flatten()?;
        Some(to.rtp_at(from.ntp_at(timestamp)))
    }

    /// When the next key frame request is due.
    pub fn keyframe_due(&self) -> Option<Instant> {
        if self.muted || self.kind == MediaKind::Audio {
            return None;
        }
        let seen = self.keyframes.iter().zip(&self.layers).filter(|(_, layer)| layer.packets > 0);
        seen.filter_map(|(requester, _)| requester.due(self.rtt)).min()
    }
}
