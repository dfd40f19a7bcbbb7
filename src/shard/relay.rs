//! Between shards of a node: packets of tracks that are taken elsewhere, and what the shards tell each other of them.
//!
//! What goes to one shard in a turn forms one [`Batch`] of the outbox, which the media thread carries over; the other
//! shard takes it by [`Shard::handle_relayed`]. Packets cross decrypted and untouched, with the facts read from them
//! once. Whatever is told is told again by the clock, so a batch that is lost costs time and nothing else.

use crate::base::{DropReason, Instant, RoomId, ShardId, Ssrc, TrackId};
use crate::room::packet::Packet;
use crate::room::relay::{Encodings, TrackState};
use crate::room::{MAX_SPATIAL, TrackKey};
use crate::rtp::packet::Extensions;
use crate::shard::Shard;
use crate::shard::bind::new_stream;
use crate::shard::outbox::Outbox;
use crate::shard::parts::{Publication, RoomKey, Source, StreamKey};
use crate::transport::history::Entry;
use crate::transport::params::TrackParams;
use crate::transport::rx::{PublisherClock, SenderClock};

/// Most packets, bytes of packets and other words in one batch: a tenth of a second of a busy shard. What does not fit
/// is dropped.
const MAX_FRAMES: usize = 4_096;
const MAX_BYTES: usize = 4 << 20;
const MAX_NOTICES: usize = 8_192;

/// What one shard has for another.
#[derive(Debug, Default)]
pub struct Batch {
    notices: Vec<Notice>,
    frames: Vec<Frame>,
    bytes: Vec<u8>,
}

/// What shards tell each other of a track.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::large_enum_variant, reason = "most of them are the large one, and a box is an allocation")]
enum Notice {
    /// To its publisher's shard: send these encodings, or nothing any more.
    Wish { track: TrackId, wish: Option<Encodings> },
    /// To its publisher's shard: somebody needs a key frame.
    Keyframe { track: TrackId, encoding: u8 },
    /// From its publisher's shard: how it is.
    State { track: TrackId, state: TrackState, clock: PublisherClock },
}

/// One packet. Extensions and payload lie in the bytes of the batch, one after the other.
#[derive(Clone, Copy, Debug)]
struct Frame {
    track: TrackId,
    packet: Packet,
    profile: u16,
    extensions: u16,
    payload: u16,
}

impl Batch {
    /// Nothing in it.
    pub const fn is_empty(&self) -> bool {
        self.notices.is_empty() && self.frames.is_empty()
    }

    /// Packets in it.
    pub const fn packets(&self) -> usize {
        self.frames.len()
    }

    /// Forget everything, keep the memory.
    pub fn clear(&mut self) {
        self.notices.clear();
        self.frames.clear();
        self.bytes.clear();
    }

    fn notice(&mut self, notice: Notice) {
        if self.notices.len() < MAX_NOTICES {
            self.notices.push(notice);
        }
    }

    fn frame(&mut self, track: TrackId, packet: &Packet, entry: &Entry<'_>) -> Result<(), DropReason> {
        let (block, payload) = (entry.extensions.block(), entry.payload);
        if self.frames.len() >= MAX_FRAMES || self.bytes.len() + block.len() + payload.len() > MAX_BYTES {
            return Err(DropReason::RingFull);
        }
        self.frames.push(Frame {
            track,
            packet: *packet,
            profile: entry.extensions.profile(),
            extensions: u16::try_from(block.len()).map_err(|_| DropReason::TooLarge)?,
            payload: u16::try_from(payload.len()).map_err(|_| DropReason::TooLarge)?,
        });
        self.bytes.extend_from_slice(block);
        self.bytes.extend_from_slice(payload);
        Ok(())
    }
}

/// The part of an outbox that goes to other shards. What is not taken stays for the next turn.
#[derive(Debug, Default)]
pub struct Crossings {
    batches: Vec<(ShardId, Box<Batch>)>,
}

impl Crossings {
    /// What is for one shard.
    fn to(&mut self, shard: ShardId) -> &mut Batch {
        let at = match self.batches.iter().position(|(to, _)| *to == shard) {
            Some(at) => at,
            None => {
                self.batches.push((shard, Box::default()));
                self.batches.len() - 1
            }
        };
        &mut self.batches[at].1
    }

    /// All batches with something in them, to be exchanged for empty ones or cleared.
    pub fn full(&mut self) -> impl Iterator<Item = (ShardId, &mut Box<Batch>)> {
        self.batches.iter_mut().filter(|(_, batch)| !batch.is_empty()).map(|(to, batch)| (*to, batch))
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.batches.iter().all(|(_, batch)| batch.is_empty())
    }

    /// Forget everything that waits.
    pub fn clear(&mut self) {
        self.batches.iter_mut().for_each(|(_, batch)| batch.clear());
    }
}

impl Shard {
    /// Take what another shard of the node has for this one.
    pub fn handle_relayed(&mut self, now: Instant, from: ShardId, batch: &Batch, out: &mut Outbox) {
        for notice in &batch.notices {
            self.on_notice(now, from, notice, out);
        }
        let mut rest = batch.bytes.as_slice();
        for frame in &batch.frames {
            let Some((block, after)) = rest.split_at_checked(usize::from(frame.extensions)) else { return };
            let Some((payload, after)) = after.split_at_checked(usize::from(frame.payload)) else { return };
            rest = after;
            self.stats.relayed_received = self.stats.relayed_received.wrapping_add(1);
            let packet = Packet { arrival: now, ..frame.packet };
            let entry = Entry {
                seq: packet.seq,
                arrival: now,
                timestamp: packet.timestamp,
                marker: packet.marker,
                payload_type: packet.payload_type,
                info: packet.frame,
                extensions: Extensions::new(frame.profile, block),
                payload,
            };
            if let Err(reason) = self.take_relayed(now, (from, frame.track), packet, &entry, out) {
                self.stats.dropped.add(reason);
            }
        }
    }

    fn take_relayed(
        &mut self,
        now: Instant,
        (from, track): (ShardId, TrackId),
        mut packet: Packet,
        entry: &Entry<'_>,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        // What has ended here may still be on its way from there.
        let publication = self.publications.get_mut(&track).ok_or(DropReason::Removed)?;
        if publication.source != Source::Shard(from) {
            return Err(DropReason::Removed);
        }
        let encoding = usize::from(packet.spatial);
        let key = match publication.streams.get(encoding).copied().ok_or(DropReason::Bug)? {
            Some(key) => key,
            None => {
                let key = self.streams.insert(new_stream(publication, Ssrc(0), encoding, &self.config.limits)?);
                if let Some(slot) = publication.streams.get_mut(encoding) {
                    *slot = Some(key);
                }
                key
            }
        };
        let stream = self.streams.get_mut(key).ok_or(DropReason::Bug)?;
        packet.restarted |= core::mem::take(&mut stream.fresh);
        self.keep(now, key, usize::from(packet.size), entry, out)?;
        self.decide(now, key, &packet, entry, out)
    }

    fn on_notice(&mut self, now: Instant, from: ShardId, notice: &Notice, out: &mut Outbox) {
        let (Notice::Wish { track, .. } | Notice::Keyframe { track, .. } | Notice::State { track, .. }) = notice;
        let Some(publication) = self.publications.get_mut(track) else { return };
        let (room_key, key) = (publication.room, publication.track);
        let Some((room, _)) = self.rooms.get_mut(room_key) else { return };
        match (notice, publication.source) {
            (Notice::Wish { wish, .. }, Source::Line(_)) => room.on_wish(now, key, from, *wish),
            (Notice::Keyframe { encoding, .. }, Source::Line(_)) => {
                self.stats.keyframe_requests_relayed = self.stats.keyframe_requests_relayed.wrapping_add(1);
                room.on_relayed_keyframe_request(now, key, from, *encoding);
            }
            (Notice::State { state, clock, .. }, Source::Shard(origin)) if origin == from => {
                publication.clock = *clock;
                room.on_track_state(now, key, state);
            }
            _ => return,
        }
        self.after_room(now, room_key, out);
    }

    /// Let a packet cross to those who take it. None that does not get there is waited for.
    pub(super) fn relay(&mut self, stream: StreamKey, packet: &Packet, entry: &Entry<'_>, out: &mut Outbox) {
        let mut relays = core::mem::take(&mut self.fanout.relays);
        for (to, fresh) in relays.drain(..) {
            let Some(stream) = self.streams.get(stream) else { continue };
            let Some((room, _)) = self.rooms.get_mut(stream.room) else { continue };
            let Some(track) = room.tracks.get(stream.track) else { continue };
            let packet = Packet { restarted: packet.restarted || fresh, ..*packet };
            match out.crossings.to(to).frame(track.id, &packet, entry) {
                Ok(()) => self.stats.relayed_sent = self.stats.relayed_sent.wrapping_add(1),
                Err(reason) => {
                    self.stats.relayed_dropped.add(reason);
                    room.on_crossing_failed(stream.track, to, packet.spatial);
                }
            }
        }
        self.fanout.relays = relays;
    }

    /// Tell other shards what a room has left for them.
    pub(super) fn cross(&mut self, now: Instant, key: RoomKey, out: &mut Outbox) {
        let Some((room, _)) = self.rooms.get_mut(key) else { return };
        room.settle_wishes(now);
        for (origin, track, wish) in room.crossing.wishes.drain(..) {
            out.crossings.to(origin).notice(Notice::Wish { track, wish });
        }
        while let Some(key) = room.crossing.news.pop() {
            let Some(track) = room.tracks.get(key) else { continue };
            let Some(publication) = self.publications.get(&track.id) else { continue };
            let Source::Line(line) = publication.source else { continue };
            let clock = self.lines.get(line).map(|line| line.clock).unwrap_or_default();
            for to in track.takers() {
                let notice = Notice::State { track: track.id, state: track.state(), clock };
                out.crossings.to(to).notice(notice);
            }
        }
    }

    /// Ask the shard of a publisher for a key frame.
    pub(super) fn relay_keyframe_request(to: ShardId, track: TrackId, encoding: u8, out: &mut Outbox) {
        out.crossings.to(to).notice(Notice::Keyframe { track, encoding });
    }

    /// A track of another shard can be taken here; with a known id, its parameters change.
    pub(super) fn mirror(
        &mut self,
        now: Instant,
        (room, id): (RoomId, TrackId),
        origin: ShardId,
        params: TrackParams,
        out: &mut Outbox,
    ) {
        let Some(room_key) = self.ids.rooms.get(&room).copied() else { return };
        let Some((room, _)) = self.rooms.get_mut(room_key) else { return };
        let limits = &self.config.limits;
        let most = limits.participants.saturating_mul(limits.tracks_per_participant);
        if params.encodings.is_empty() || params.encodings.len() > MAX_SPATIAL {
            return;
        }
        let is_full = self.publications.len() >= most;
        let key = match self.publications.get_mut(&id) {
            Some(publication) if publication.source == Source::Shard(origin) && publication.room == room_key => {
                publication.params = params.clone();
                publication.track
            }
            Some(_) => return,
            None if is_full => return,
            None => {
                let track = room.add_mirrored_track(id, params.kind, origin);
                let publication = Publication {
                    source: Source::Shard(origin),
                    room: room_key,
                    track,
                    params: params.clone(),
                    streams: [None; MAX_SPATIAL],
                    clock: PublisherClock::new(),
                };
                self.publications.insert(id, publication);
                self.stats.mirrored_tracks += 1;
                track
            }
        };
        self.renegotiated(room_key, key, id, &params);
        self.with_room(now, room_key, out, |now, room| {
            room.ask_again(key);
            room.set_muted(now, key, params.muted);
        });
    }

    /// The clocks of what a downtrack sends: its publisher's, and that of the encoding.
    pub(super) fn publisher_clock(
        &self,
        publication: &Publication,
        encoding: u8,
    ) -> Option<(PublisherClock, SenderClock)> {
        let encoding = usize::from(encoding);
        match publication.source {
            Source::Line(line) => {
                let stream = self.streams.get(publication.streams.get(encoding).copied().flatten()?)?;
                Some((self.lines.get(line)?.clock, stream.rx.sender_clock()?))
            }
            Source::Shard(_) => {
                let (room, _) = self.rooms.get(publication.room)?;
                let clocks = &room.tracks.get(publication.track)?.clocks;
                Some((publication.clock, clocks.get(encoding).copied().flatten()?))
            }
        }
    }

    /// How a published track is has changed beyond what its packets say.
    pub(super) fn tell_takers(&mut self, room: RoomKey, track: TrackKey) {
        if let Some((room, _)) = self.rooms.get_mut(room)
            && room.tracks.get(track).is_some_and(|track| track.takers().next().is_some())
        {
            room.crossing.news.push(track);
        }
    }
}
