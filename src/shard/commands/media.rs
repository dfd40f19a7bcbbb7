//! Commands about tracks and downtracks.
//!
//! A track known already, or a downtrack, sent again changes its parameters; its numbering goes on.

use crate::base::{DowntrackId, Instant, MediaKind, Ssrc, TrackId, TransportId};
use crate::room::downtrack::NewDowntrack;
use crate::room::{DowntrackKey, MAX_SPATIAL, SenderKey, TrackKey};
use crate::shard::Shard;
use crate::shard::bandwidth::Bandwidth;
use crate::shard::outbox::Outbox;
use crate::shard::parts::{Publication, RoomKey, Sender, Source};
use crate::shard::timers::Owner;
use crate::transport::params::{DowntrackParams, ExtensionIds, TrackParams};
use crate::transport::rx::PublisherClock;
use crate::transport::tx::{self, TxStream};

impl Shard {
    pub(in crate::shard) fn publish(
        &mut self,
        now: Instant,
        transport: TransportId,
        id: TrackId,
        params: TrackParams,
        out: &mut Outbox,
    ) {
        let Some(line_key) = self.ids.transports.get(&transport).copied() else { return };
        let Some(line) = self.lines.get_mut(line_key) else { return };
        if params.encodings.is_empty() || params.encodings.len() > MAX_SPATIAL {
            return;
        }
        let room_key = line.room;
        let Some((room, _)) = self.rooms.get_mut(room_key) else { return };
        let key = if let Some(publication) = self.publications.get_mut(&id) {
            if publication.source != Source::Line(line_key) {
                return;
            }
            publication.params = params.clone();
            publication.track
        } else {
            let published = room.participants.get(line.participant).map_or(0, |p| p.tracks.len());
            if published >= self.config.limits.tracks_per_participant {
                return;
            }
            let key = room.add_track(id, line.participant, params.kind);
            let streams = [None; MAX_SPATIAL];
            let publication = Publication {
                source: Source::Line(line_key),
                room: room_key,
                track: key,
                params: params.clone(),
                streams,
                clock: PublisherClock::new(),
            };
            self.publications.insert(id, publication);
            line.publications.push(id);
            key
        };
        merge(&mut line.extensions, &params.extensions);
        self.renegotiated(room_key, key, id, &params);
        self.with_room(now, room_key, out, |now, room| room.set_muted(now, key, params.muted));
    }

    /// What was negotiated with a publisher goes to its track and to what arrives of it.
    pub(in crate::shard) fn renegotiated(&mut self, room: RoomKey, key: TrackKey, id: TrackId, params: &TrackParams) {
        if let Some(track) = self.rooms.get_mut(room).and_then(|(room, _)| room.tracks.get_mut(key)) {
            track.screen_share = params.screen_share;
            track.always_heard = params.always_heard;
            track.encodings = params.encodings.len();
            track.clock_rate = params.codecs.first().map_or(90_000, |codec| codec.clock_rate);
        }
        let streams = self.publications.get(&id).map(|publication| publication.streams).unwrap_or_default();
        for stream in streams.into_iter().flatten() {
            if let Some(stream) = self.streams.get_mut(stream) {
                stream.codecs.clone_from(&params.codecs);
                stream.extensions = params.extensions;
            }
        }
    }

    pub(in crate::shard) fn unpublish(&mut self, now: Instant, id: TrackId, out: &mut Outbox) {
        let Some(publication) = self.publications.get(&id) else { return };
        let (room_key, key) = (publication.room, publication.track);
        let senders: Vec<SenderKey> =
            match self.rooms.get(room_key).and_then(|(room, _)| room.tracks.get(key).map(|track| (room, track))) {
                Some((room, track)) => {
                    track.downtracks.iter().filter_map(|key| room.downtracks.get(*key)).map(|d| d.sender).collect()
                }
                None => Vec::new(),
            };
        let downtracks: Vec<DowntrackId> =
            senders.iter().filter_map(|key| self.senders.get(*key)).map(|s| s.id).collect();
        for downtrack in downtracks {
            self.unsubscribe(now, downtrack, out);
        }
        let Some(publication) = self.publications.remove(&id) else { return };
        self.unbind_streams(&publication);
        match publication.source {
            Source::Line(line) => {
                if let Some(line) = self.lines.get_mut(line) {
                    line.publications.retain(|track| *track != id);
                }
            }
            Source::Shard(_) => self.stats.mirrored_tracks -= 1,
        }
        self.with_room(now, room_key, out, |_, room| room.remove_track(key));
    }

    pub(in crate::shard) fn set_muted(&mut self, now: Instant, id: TrackId, muted: bool, out: &mut Outbox) {
        let Some(publication) = self.publications.get_mut(&id) else { return };
        publication.params.muted = muted;
        let (room, key) = (publication.room, publication.track);
        self.with_room(now, room, out, |now, room| room.set_muted(now, key, muted));
    }

    pub(in crate::shard) fn subscribe(
        &mut self,
        now: Instant,
        transport: TransportId,
        track: TrackId,
        id: DowntrackId,
        params: DowntrackParams,
        out: &mut Outbox,
    ) {
        if let Some((room, key)) = self.ids.downtracks.get(&id).copied() {
            self.resubscribe(now, room, key, &params, out);
            return;
        }
        let Some(line_key) = self.ids.transports.get(&transport).copied() else { return };
        let Some(line) = self.lines.get_mut(line_key) else { return };
        let Some(publication) = self.publications.get(&track).filter(|p| p.room == line.room) else { return };
        let room_key = line.room;
        let Some((room, _)) = self.rooms.get_mut(room_key) else { return };
        let Some(participant) = room.participants.get(line.participant) else { return };
        let taken = |ssrc: &Ssrc| line.sent.iter().any(|(sent, _)| sent == ssrc);
        if participant.downtracks.len() >= self.config.limits.downtracks_per_participant || taken(&params.ssrc) {
            return;
        }
        let Some(clock_rate) = room.tracks.get(publication.track).map(|track| track.clock_rate) else { return };
        let audio = publication.params.kind == MediaKind::Audio;
        if params.extensions.transport_cc.is_some() && line.bandwidth.is_none() {
            line.bandwidth = Some(Box::new(Bandwidth::new(now, self.rng.next_u16())));
            self.timers.schedule(Owner::Transport(line_key), &mut line.scheduled, Some(now));
        }
        let (room_track, answerable) = (publication.track, self.config.limits.answerable);
        let config = tx::Config {
            ssrc: params.ssrc,
            clock_rate,
            answerable: if params.nack && params.rtx_ssrc.is_some() { answerable } else { 0 },
            first_rtx: self.rng.next_u16() >> 1,
        };
        let sender = self.senders.insert(Sender {
            id,
            room: room_key,
            downtrack: DowntrackKey::default(),
            track,
            line: line_key,
            tx: TxStream::new(config),
            rtx_ssrc: params.rtx_ssrc,
            payload_types: params.payload_types.clone(),
            extensions: params.extensions,
            mid: params.mid,
            cname: params.cname,
            nack: params.nack,
            reported: false,
            born: now,
            audio,
        });
        let new = NewDowntrack {
            id,
            track: room_track,
            subscriber: line.participant,
            sender,
            payload_types: params.payload_types,
            demand: params.demand,
            // The upper half is left free, so that the far end cannot mistake the first wrap (RFC 3711, 3.3.1).
            first_seq: self.rng.next_u16() >> 1,
            connected: line.connected,
        };
        let at = line.sent.partition_point(|(ssrc, _)| *ssrc < params.ssrc);
        line.sent.insert(at, (params.ssrc, sender));
        if let Some(Some(key)) = self.with_room(now, room_key, out, |now, room| room.add_downtrack(now, new)) {
            if let Some(sender) = self.senders.get_mut(sender) {
                sender.downtrack = key;
            }
            self.ids.downtracks.insert(id, (room_key, key));
        }
    }

    fn resubscribe(
        &mut self,
        now: Instant,
        room_key: RoomKey,
        key: DowntrackKey,
        params: &DowntrackParams,
        out: &mut Outbox,
    ) {
        let sender = self.rooms.get(room_key).and_then(|(room, _)| room.downtracks.get(key)).map(|d| d.sender);
        if let Some(sender) = sender.and_then(|sender| self.senders.get_mut(sender)) {
            sender.payload_types.clone_from(&params.payload_types);
            sender.extensions = params.extensions;
            sender.mid.clone_from(&params.mid);
            sender.cname.clone_from(&params.cname);
        }
        let payload_types = params.payload_types.clone();
        let demand = params.demand;
        self.with_room(now, room_key, out, |now, room| {
            if let Some(downtrack) = room.downtracks.get_mut(key) {
                downtrack.set_payload_types(payload_types);
            }
            room.set_demand(now, key, demand);
        });
    }

    pub(in crate::shard) fn unsubscribe(&mut self, now: Instant, id: DowntrackId, out: &mut Outbox) {
        let Some((room_key, key)) = self.ids.downtracks.remove(&id) else { return };
        let sender = self.with_room(now, room_key, out, |now, room| room.remove_downtrack(now, key)).flatten();
        if let Some(sender_key) = sender
            && let Some(sender) = self.senders.remove(sender_key)
            && let Some(line) = self.lines.get_mut(sender.line)
        {
            line.sent.retain(|(_, key)| *key != sender_key);
        }
    }
}

/// Extension ids of one transport are the same in all its sections (RFC 8843, 9.1).
fn merge(into: &mut ExtensionIds, from: &ExtensionIds) {
    into.mid = from.mid.or(into.mid);
    into.rid = from.rid.or(into.rid);
    into.repaired_rid = from.repaired_rid.or(into.repaired_rid);
    into.audio_level = from.audio_level.or(into.audio_level);
    into.transport_cc = from.transport_cc.or(into.transport_cc);
    into.abs_send_time = from.abs_send_time.or(into.abs_send_time);
}
