//! The SFU itself: who gets which packet.
//!
//! A [`Room`] owns its participants, tracks and downtracks and decides for every packet of a track who takes it and with
//! which numbers. It knows transports and RTP streams only as keys: [`crate::shard`] carries packets in and decisions out.

pub mod allocator;
pub mod audible;
pub mod config;
pub mod downtrack;
pub mod keyframe;
pub mod layer;
pub mod packet;
pub mod participant;
pub mod quality;
pub mod relay;
pub mod rewriter;
pub mod selector;
pub mod speaker;
pub mod track;

mod schedule;
mod share;

pub use config::RoomConfig;

use slotmap::{SlotMap, new_key_type};

use crate::base::{Bitrate, DropReason, Instant, MediaKind, ParticipantId, RoomId, ShardId, TrackId};
use crate::room::allocator::{Request, Target};
use crate::room::audible::Audible;
use crate::room::downtrack::{Downtrack, Header, NewDowntrack, Verdict};
use crate::room::packet::Packet;
use crate::room::participant::Participant;
use crate::room::relay::{Crossing, Origin};
use crate::room::track::Track;
use crate::shard::event::{DropCounts, Event};
use crate::transport::params::Demand;

/// Most spatial layers (simulcast encodings or SVC layers) of a track.
pub const MAX_SPATIAL: usize = 3;

new_key_type! {
    /// A participant within its room.
    pub struct ParticipantKey;
    /// A track within its room.
    pub struct TrackKey;
    /// A downtrack within its room.
    pub struct DowntrackKey;
    /// The outgoing RTP stream of a downtrack, within its shard.
    pub struct SenderKey;
}

/// What was decided about packets, to be sent by the shard. Reused; nothing is allocated once it has grown.
#[derive(Debug, Default)]
pub struct Fanout {
    /// Copies to send, in order.
    pub sends: Vec<(SenderKey, Header)>,
    /// Copies wanted.
    pub offered: u64,
    /// Copies that go no further.
    pub dropped: DropCounts,
    /// Shards the packet crosses to; true: what is missing before it there will never come.
    pub relays: Vec<(ShardId, bool)>,
}

/// A request for a key frame of one encoding of a track, to be carried to its publisher.
pub type KeyframeRequest = (TrackKey, u8);

/// One room.
#[derive(Debug)]
pub struct Room {
    /// Its name towards control.
    pub id: RoomId,
    config: RoomConfig,
    /// Who is in it.
    pub participants: SlotMap<ParticipantKey, Participant>,
    /// What is published in it.
    pub tracks: SlotMap<TrackKey, Track>,
    /// What is sent in it.
    pub downtracks: SlotMap<DowntrackKey, Downtrack>,
    audible: Audible,
    schedule: schedule::Schedule,
    /// Key frame requests to be carried out; drained by the shard after every call.
    pub keyframe_requests: Vec<KeyframeRequest>,
    /// What is to be told to other shards; drained by the shard after every call.
    pub crossing: Crossing,
    requests: Vec<Request>,
    targets: Vec<Target>,
}

impl Room {
    /// An empty room.
    pub fn new(id: RoomId, config: RoomConfig, now: Instant) -> Self {
        Self {
            id,
            config,
            participants: SlotMap::with_key(),
            tracks: SlotMap::with_key(),
            downtracks: SlotMap::with_key(),
            audible: Audible::new(config.audible, config.speaker.active_level),
            schedule: schedule::Schedule::new(now, &config),
            keyframe_requests: Vec::new(),
            crossing: Crossing::default(),
            requests: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// Decide about a packet of a track: for each downtrack, forward or drop.
    pub fn on_rtp(&mut self, key: TrackKey, packet: &Packet, fanout: &mut Fanout, events: &mut Vec<Event>) {
        let Some(track) = self.tracks.get_mut(key) else { return };
        let observed = track.observe(packet, &self.config);
        if observed.first {
            events.push(Event::TrackStarted { track: track.id });
        }
        if observed.began {
            Self::retarget(track, &mut self.downtracks);
            Self::update_waits(track, &self.downtracks);
        }
        let crosses = !track.relays.is_empty() && !track.muted;
        if crosses && observed.began {
            self.crossing.news.push(key);
        }
        let was_inaudible = track.inaudible;
        if !Self::is_heard(&mut self.audible, key, track, packet) {
            // No look at any of its subscribers: silence costs nothing.
            let copies = track.downtracks.len() as u64;
            fanout.offered += copies;
            fanout.dropped.add_many(DropReason::Inaudible, copies);
            track.skip_relays(packet.spatial);
            return;
        }
        if crosses {
            track.relay(packet, &mut fanout.relays);
        }
        let track = &*track;
        for downtrack in &track.downtracks {
            let Some(downtrack) = self.downtracks.get_mut(*downtrack) else { continue };
            fanout.offered += 1;
            if was_inaudible {
                downtrack.interrupt();
            }
            match downtrack.forward(packet, track) {
                Verdict::Send(header) => fanout.sends.push((downtrack.sender, header)),
                Verdict::Drop(reason) => fanout.dropped.add(reason),
            }
        }
        if observed.began || packet.restarted {
            self.schedule.keyframes_at(packet.arrival);
        }
    }

    /// Whether packets of microphones may go nowhere for now.
    pub const fn is_choosing_speakers(&self) -> bool {
        self.audible.is_choosing()
    }

    /// A subscriber asks for a key frame of what it gets.
    pub fn on_keyframe_request(&mut self, now: Instant, key: DowntrackKey) {
        let Some(downtrack) = self.downtracks.get(key) else { return };
        let Some(track) = self.tracks.get_mut(downtrack.track) else { return };
        let wanted = downtrack.encoding().or_else(|| downtrack.wanted());
        if let Some(requester) = wanted.and_then(|s| track.keyframes.get_mut(usize::from(s))) {
            requester.ask(now, track.rtt);
            self.ask_for_keyframes(now);
        }
    }

    /// Packets of an encoding are lost for good: those it flows to need a key frame.
    pub fn on_outage(&mut self, now: Instant, key: TrackKey, spatial: u8) {
        let Some(track) = self.tracks.get_mut(key).filter(|track| track.kind == MediaKind::Video) else { return };
        let shows = |key: &DowntrackKey| self.downtracks.get(*key).is_some_and(|d| d.encoding() == Some(spatial));
        if (track.downtracks.iter().any(shows) || track.relays.iter().any(|relay| relay.takes(spatial)))
            && let Some(requester) = track.keyframes.get_mut(usize::from(spatial))
        {
            requester.ask(now, track.rtt);
            self.ask_for_keyframes(now);
        }
    }

    /// What can be sent to a participant has changed; `None`: nothing is known any more. True when it has changed so far
    /// that it is to be shared out anew at once, with [`Self::reallocate`].
    pub fn on_estimate(&mut self, key: ParticipantKey, estimate: Option<Bitrate>) -> bool {
        let Some(participant) = self.participants.get_mut(key) else { return false };
        participant.estimate = estimate;
        let far = match (participant.shared, estimate) {
            (Some(shared), Some(estimate)) => {
                let (shared, estimate) = (shared.as_bps(), estimate.as_bps());
                estimate < shared - shared / 33 || estimate > shared + shared / 20
            }
            (shared, estimate) => shared != estimate,
        };
        participant.needs_allocation |= far;
        far
    }

    /// Whether a low estimate of a participant's link is certain to mean shortage: nothing is paused for less.
    pub fn set_certain(&mut self, key: ParticipantKey, certain: bool) {
        if let Some(participant) = self.participants.get_mut(key)
            && participant.uncertain == certain
        {
            participant.uncertain = !certain;
            participant.needs_allocation = true;
        }
    }

    /// Whether the downtracks of a participant may be paused; `None`: as the operator says.
    pub fn set_may_pause(&mut self, key: ParticipantKey, may_pause: Option<bool>) {
        if let Some(participant) = self.participants.get_mut(key) {
            participant.may_pause = may_pause;
            participant.needs_allocation = true;
        }
    }

    /// Control caps what is sent to a participant.
    pub fn set_cap(&mut self, key: ParticipantKey, cap: Option<Bitrate>) {
        if let Some(participant) = self.participants.get_mut(key) {
            participant.cap = cap;
            participant.needs_allocation = true;
        }
    }

    /// The transport a participant receives on can take media from now on, or cannot any more.
    pub fn set_connected(&mut self, now: Instant, key: DowntrackKey, connected: bool) {
        if let Some(downtrack) = self.downtracks.get_mut(key) {
            downtrack.connected = connected;
            let track = downtrack.track;
            self.waits_changed(now, track);
        }
    }

    /// Somebody comes.
    pub fn add_participant(&mut self, id: ParticipantId) -> ParticipantKey {
        self.participants.insert(Participant::new(id))
    }

    /// Somebody goes; its tracks and downtracks must be gone already.
    pub fn remove_participant(&mut self, key: ParticipantKey) {
        self.participants.remove(key);
    }

    /// A track is published.
    pub fn add_track(&mut self, id: TrackId, publisher: ParticipantKey, kind: MediaKind) -> TrackKey {
        let key = self.tracks.insert(Track::new(id, publisher, kind, &self.config));
        if let Some(participant) = self.participants.get_mut(publisher) {
            participant.tracks.push(key);
        }
        key
    }

    /// A track of another shard can be taken here from now on.
    pub fn add_mirrored_track(&mut self, id: TrackId, kind: MediaKind, origin: ShardId) -> TrackKey {
        let track = Track {
            origin: Some(Origin::new(origin)),
            ..Track::new(id, ParticipantKey::default(), kind, &self.config)
        };
        self.tracks.insert(track)
    }

    /// A track ends. Its downtracks must be gone already.
    pub fn remove_track(&mut self, key: TrackKey) {
        let Some(track) = self.tracks.remove(key) else { return };
        self.audible.leave(key);
        if let Some(publisher) = self.participants.get_mut(track.publisher) {
            publisher.tracks.retain(|k| *k != key);
        }
    }

    /// The publisher muted or unmuted a track.
    pub fn set_muted(&mut self, now: Instant, key: TrackKey, muted: bool) {
        if let Some(track) = self.tracks.get_mut(key) {
            track.muted = muted;
            if muted {
                self.audible.leave(key);
                for downtrack in &track.downtracks {
                    if let Some(downtrack) = self.downtracks.get_mut(*downtrack) {
                        downtrack.interrupt();
                    }
                }
            }
            self.waits_changed(now, key);
        }
    }

    /// A subscriber takes a track. `None` when there is no such track.
    pub fn add_downtrack(&mut self, now: Instant, new: NewDowntrack) -> Option<DowntrackKey> {
        let (track_key, subscriber) = (new.track, new.subscriber);
        let track = self.tracks.get_mut(track_key)?;
        let participant = self.participants.get_mut(subscriber)?;
        let key = self.downtracks.insert(Downtrack::new(new, track));
        track.downtracks.push(key);
        participant.downtracks.push(key);
        participant.needs_allocation = true;
        self.waits_changed(now, track_key);
        Some(key)
    }

    /// A subscriber takes a track no longer. Gives the outgoing stream, which ends too.
    pub fn remove_downtrack(&mut self, now: Instant, key: DowntrackKey) -> Option<SenderKey> {
        let downtrack = self.downtracks.remove(key)?;
        if let Some(track) = self.tracks.get_mut(downtrack.track) {
            track.downtracks.retain(|k| *k != key);
        }
        if let Some(participant) = self.participants.get_mut(downtrack.subscriber) {
            participant.downtracks.retain(|k| *k != key);
            participant.needs_allocation = true;
        }
        self.waits_changed(now, downtrack.track);
        Some(downtrack.sender)
    }

    /// A subscriber wants something else of a track.
    pub fn set_demand(&mut self, now: Instant, key: DowntrackKey, demand: Demand) {
        let Some(downtrack) = self.downtracks.get_mut(key) else { return };
        let Some(track) = self.tracks.get(downtrack.track) else { return };
        downtrack.set_demand(demand, track);
        if !demand.enabled {
            downtrack.interrupt();
        }
        let (track, subscriber) = (downtrack.track, downtrack.subscriber);
        if let Some(participant) = self.participants.get_mut(subscriber) {
            participant.needs_allocation = true;
        }
        self.waits_changed(now, track);
    }

    /// Whether a packet is worth hearing, or no sound of a microphone at all. A late one is what the newest was.
    fn is_heard(audible: &mut Audible, key: TrackKey, track: &mut Track, packet: &Packet) -> bool {
        if track.kind != MediaKind::Audio {
            return true;
        }
        if track.muted || track.always_heard {
            track.inaudible = false;
        } else if let Some(level) = packet.audio_level
            && packet.newest
        {
            track.inaudible = !audible.hear(packet.arrival, key, &mut track.voice, level);
        } else if !audible.is_choosing() {
            track.inaudible = false;
        }
        !track.inaudible
    }

    fn retarget(track: &Track, downtracks: &mut SlotMap<DowntrackKey, Downtrack>) {
        for downtrack in &track.downtracks {
            if let Some(downtrack) = downtracks.get_mut(*downtrack) {
                downtrack.retarget(track);
            }
        }
    }

    fn waits_changed(&mut self, now: Instant, key: TrackKey) {
        if let Some(track) = self.tracks.get_mut(key) {
            Self::update_waits(track, &self.downtracks);
        }
        self.wish_changed(key);
        self.ask_for_keyframes(now);
    }

    fn update_waits(track: &mut Track, downtracks: &SlotMap<DowntrackKey, Downtrack>) {
        if track.kind == MediaKind::Audio {
            return;
        }
        for spatial in 0..=track.top() {
            let waits = |key: &DowntrackKey| downtracks.get(*key).is_some_and(|d| d.waits_for(spatial, track));
            let waits = track.downtracks.iter().any(waits) || track.relays.iter().any(|r| r.waits_for(spatial));
            if let Some(requester) = track.keyframes.get_mut(usize::from(spatial)) {
                requester.set_waited_for(waits);
            }
        }
    }
}

#[cfg(test)]
mod tests;
