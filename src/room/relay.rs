//! A track that crosses to other shards: who takes it there, and what is wanted of it here.
//!
//! At the shard of its publisher a [`Relay`] is one more taker of the track. At the others the track is mirrored: it has
//! an [`Origin`] and no publisher, what flows of it is told, and what its downtracks want is told back. A mirrored track
//! has no relays, so nothing can go round in circles. Packets cross as they came; numbers are made where the subscribers
//! are.

use core::time::Duration;

use slotmap::SlotMap;

use crate::base::{Instant, ShardId, TrackId};
use crate::room::downtrack::Downtrack;
use crate::room::layer::Layer;
use crate::room::packet::Packet;
use crate::room::track::Track;
use crate::room::{DowntrackKey, MAX_SPATIAL, Room, TrackKey};
use crate::transport::rx::SenderClock;

/// An encoding nobody wants any more crosses this much longer: who comes back to it need not wait for a key frame.
/// Higher costs packets nobody looks at.
const LINGER: Duration = Duration::from_secs(2);
/// A relay ends when its taker has not said for so long that it is there. It does on every tick of its room.
const LIFE: Duration = Duration::from_secs(5);

/// Encodings of a track, a bit each.
pub type Encodings = u8;

/// A shard that takes a track.
#[derive(Clone, Copy, Debug)]
pub struct Relay {
    to: ShardId,
    wanted: Encodings,
    /// Nothing has crossed of these since they are wanted.
    fresh: Encodings,
    /// Somebody there waits for a key frame of these.
    waiting: Encodings,
    heard: Instant,
}

/// Where a mirrored track is published.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The shard of its publisher.
    pub shard: ShardId,
    /// What it was asked for last; `None`: nothing, nobody here takes the track.
    asked: Option<Encodings>,
    /// When each encoding was wanted last.
    wanted_at: [Instant; MAX_SPATIAL],
    /// What is wanted may have changed.
    stale: bool,
    /// It is to be said again even if it has not.
    again: bool,
}

/// What the shard of the publisher tells of a track.
#[derive(Clone, Copy, Debug)]
pub struct TrackState {
    /// Its layers, as measured where they arrive.
    pub layers: [Layer; MAX_SPATIAL],
    /// Last sender report of each encoding.
    pub clocks: [Option<SenderClock>; MAX_SPATIAL],
    /// It has spatial layers inside its only encoding.
    pub svc: bool,
    /// Round trip time of its publisher.
    pub rtt: Duration,
    /// Loss on the way from the publisher, in 1/256.
    pub fraction_lost: u8,
}

/// What is to be asked of the shard of a publisher: these encodings of the track, or nothing any more.
pub type Wish = (ShardId, TrackId, Option<Encodings>);

/// What a room has to tell other shards; drained by the shard after every call.
#[derive(Debug, Default)]
pub struct Crossing {
    /// To the shards of publishers.
    pub wishes: Vec<Wish>,
    /// Tracks published here of which the takers are to be told how they are.
    pub news: Vec<TrackKey>,
    /// Mirrored tracks of which something else may be wanted.
    stale: Vec<TrackKey>,
}

const fn bit(encoding: u8) -> Encodings {
    if encoding < 8 { 1 << encoding } else { 0 }
}

impl Relay {
    /// Whether a packet crosses; `Some(true)` when it is the first one since its encoding is wanted, so that what is
    /// missing before it will never come.
    const fn take(&mut self, packet: &Packet) -> Option<bool> {
        let bit = bit(packet.spatial);
        if self.wanted & bit == 0 {
            return None;
        }
        let fresh = self.fresh & bit != 0;
        if fresh && !packet.newest {
            return None;
        }
        self.fresh &= !bit;
        if packet.frame.keyframe {
            self.waiting &= !bit;
        }
        Some(fresh)
    }

    /// Whether somebody there waits for a key frame.
    pub(super) const fn waits_for(&self, encoding: u8) -> bool {
        self.waiting & bit(encoding) != 0
    }

    /// Whether packets of an encoding cross.
    pub(super) const fn takes(&self, encoding: u8) -> bool {
        self.wanted & bit(encoding) != 0
    }
}

impl Origin {
    /// Of a track nothing was asked of yet.
    pub const fn new(shard: ShardId) -> Self {
        Self { shard, asked: None, wanted_at: [Instant::ZERO; MAX_SPATIAL], stale: false, again: false }
    }
}

impl Track {
    /// Which shards a packet crosses to.
    pub(super) fn relay(&mut self, packet: &Packet, into: &mut Vec<(ShardId, bool)>) {
        for relay in &mut self.relays {
            if let Some(fresh) = relay.take(packet) {
                into.push((relay.to, fresh));
            }
        }
    }

    /// A packet crosses nowhere, on purpose: what is missing before the next one will never come.
    pub(super) fn skip_relays(&mut self, encoding: u8) {
        for relay in &mut self.relays {
            relay.fresh |= bit(encoding) & relay.wanted;
        }
    }

    /// What those who take the track elsewhere must know of it.
    pub fn state(&self) -> TrackState {
        let Self { layers, clocks, svc, rtt, fraction_lost, .. } = *self;
        TrackState { layers, clocks, svc, rtt, fraction_lost }
    }

    /// Shards that take it.
    pub fn takers(&self) -> impl Iterator<Item = ShardId> {
        self.relays.iter().map(|relay| relay.to)
    }

    /// What its downtracks want now; `None` when there are none.
    fn wanted(&self, downtracks: &SlotMap<DowntrackKey, Downtrack>) -> Option<Encodings> {
        if self.downtracks.is_empty() {
            return None;
        }
        let takes = |key: &DowntrackKey| downtracks.get(*key).map_or(0, |downtrack| downtrack.takes(self));
        Some(self.downtracks.iter().map(takes).fold(0, |all, one| all | one))
    }
}

impl Downtrack {
    /// Encodings it is sent from, or should be, whether its track is muted or not; and the better ones that do not flow:
    /// they cost nothing, and when they begin, their first key frame crosses.
    fn takes(&self, track: &Track) -> Encodings {
        if !self.is_open() {
            return 0;
        }
        let of = |encoding: Option<u8>| encoding.map_or(0, bit);
        let takes = of(self.wanted()) | of(self.encoding());
        if track.svc {
            return takes;
        }
        let best = self.most_spatial().min(track.top());
        let flows = |encoding: u8| track.layers.get(usize::from(encoding)).is_some_and(Layer::is_flowing);
        (0..=best).rev().take_while(|encoding| !flows(*encoding)).fold(takes, |all, encoding| all | bit(encoding))
    }
}

impl Room {
    /// Another shard says what it wants of a track published here; `None`: nothing any more.
    pub fn on_wish(&mut self, now: Instant, key: TrackKey, from: ShardId, wish: Option<Encodings>) {
        let Some(track) = self.tracks.get_mut(key).filter(|track| track.origin.is_none()) else { return };
        let Some(wanted) = wish else {
            track.relays.retain(|relay| relay.to != from);
            self.waits_changed(now, key);
            return;
        };
        match track.relays.iter_mut().find(|relay| relay.to == from) {
            Some(relay) => {
                relay.fresh = (relay.fresh | !relay.wanted) & wanted;
                relay.waiting &= wanted;
                relay.wanted = wanted;
                relay.heard = now;
            }
            None => {
                track.relays.push(Relay { to: from, wanted, fresh: wanted, waiting: 0, heard: now });
                self.crossing.news.push(key);
            }
        }
    }

    /// Somebody on another shard needs a key frame of an encoding.
    pub fn on_relayed_keyframe_request(&mut self, now: Instant, key: TrackKey, from: ShardId, encoding: u8) {
        let Some(track) = self.tracks.get_mut(key) else { return };
        let Some(relay) = track.relays.iter_mut().find(|relay| relay.to == from) else { return };
        relay.waiting |= bit(encoding) & relay.wanted;
        self.waits_changed(now, key);
    }

    /// A packet did not get across: what comes after it begins anew there.
    pub fn on_crossing_failed(&mut self, key: TrackKey, to: ShardId, encoding: u8) {
        let relays = self.tracks.get_mut(key).map(|track| track.relays.iter_mut());
        if let Some(relay) = relays.into_iter().flatten().find(|relay| relay.to == to) {
            relay.fresh |= bit(encoding) & relay.wanted;
        }
    }

    /// What was crossing to a shard that is gone does so no more.
    pub fn forget_shard(&mut self, shard: ShardId) {
        for track in self.tracks.values_mut() {
            track.relays.retain(|relay| relay.to != shard);
        }
    }

    /// The shard of its publisher says how a mirrored track is.
    pub fn on_track_state(&mut self, now: Instant, key: TrackKey, state: &TrackState) {
        let Some(track) = self.tracks.get_mut(key).filter(|track| track.origin.is_some()) else { return };
        let shape = |layer: &Layer| (layer.is_flowing(), layer.packets > 0);
        let same = track.layers.iter().map(shape).eq(state.layers.iter().map(shape)) && track.svc == state.svc;
        track.layers = state.layers;
        track.clocks = state.clocks;
        track.svc = state.svc;
        track.rtt = state.rtt;
        track.fraction_lost = state.fraction_lost;
        if !same {
            Self::retarget(track, &mut self.downtracks);
            Self::update_waits(track, &self.downtracks);
            self.wish_changed(key);
            // Not at once: the key frame an encoding began with is right behind.
            self.schedule.keyframes_at(now);
        }
    }

    /// What is wanted of a mirrored track may have changed.
    pub(super) fn wish_changed(&mut self, key: TrackKey) {
        if let Some(origin) = self.tracks.get_mut(key).and_then(|track| track.origin.as_mut())
            && !origin.stale
        {
            origin.stale = true;
            self.crossing.stale.push(key);
        }
    }

    /// A mirrored track was named anew: its publisher's shard may know nothing of what is wanted of it.
    pub fn ask_again(&mut self, key: TrackKey) {
        if let Some(origin) = self.tracks.get_mut(key).and_then(|track| track.origin.as_mut()) {
            origin.again = true;
        }
        self.wish_changed(key);
    }

    /// The same of all of them.
    pub(super) fn wishes_changed(&mut self) {
        for (key, track) in &mut self.tracks {
            if let Some(origin) = track.origin.as_mut().filter(|origin| !origin.stale) {
                origin.stale = true;
                self.crossing.stale.push(key);
            }
        }
    }

    /// By the clock: wishes and news are said again, as what was said before may be lost; who is silent is forgotten.
    pub(super) fn tick_crossing(&mut self, now: Instant) {
        for (key, track) in &mut self.tracks {
            if let Some(origin) = track.origin.as_mut() {
                origin.again = true;
            }
            if !track.relays.is_empty() {
                track.relays.retain(|relay| now.since(relay.heard) < LIFE);
                self.crossing.news.push(key);
            }
        }
        self.wishes_changed();
    }

    /// Put into [`Crossing::wishes`] what has changed. More is wanted at once, less after a while.
    pub fn settle_wishes(&mut self, now: Instant) {
        while let Some(key) = self.crossing.stale.pop() {
            let Some(track) = self.tracks.get(key) else { continue };
            let wanted = track.wanted(&self.downtracks);
            let id = track.id;
            let Some(origin) = self.tracks.get_mut(key).and_then(|track| track.origin.as_mut()) else { continue };
            origin.stale = false;
            let wish = wanted.map(|wanted| origin.linger(now, wanted));
            let again = core::mem::take(&mut origin.again) && wish.is_some();
            if wish != origin.asked || again {
                origin.asked = wish;
                self.crossing.wishes.push((origin.shard, id, wish));
            }
        }
    }
}

impl Origin {
    /// What is wanted, with what was until a moment ago.
    fn linger(&mut self, now: Instant, wanted: Encodings) -> Encodings {
        let mut wish = wanted;
        for (at, encoding) in self.wanted_at.iter_mut().zip(0u8..) {
            if wanted & bit(encoding) != 0 {
                *at = now;
            } else if self.asked.is_some_and(|asked| asked & bit(encoding) != 0) && now.since(*at) < LINGER {
                wish |= bit(encoding);
            }
        }
        wish
    }
}
