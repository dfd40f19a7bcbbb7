//! A picture of a shard for people who look for a fault. Plain structs: control serialises and redacts.

use std::collections::BTreeMap;

use crate::base::{Bitrate, DowntrackId, Instant, ParticipantId, RoomId, TrackId, TransportId};
use crate::room::allocator::Target;
use crate::room::downtrack::Downtrack;
use crate::room::track::Track;
use crate::room::{ParticipantKey, Room};
use crate::shard::Shard;
use crate::shard::parts::{Line, RoomKey};
use crate::transport::route::Route;

/// Everything on a shard at one moment.
#[derive(Clone, Debug, Default)]
pub struct ShardState {
    /// Rooms by id.
    pub rooms: Vec<RoomState>,
}

/// One room.
#[derive(Clone, Debug)]
pub struct RoomState {
    /// Its id.
    pub id: RoomId,
    /// Who is in it.
    pub participants: Vec<ParticipantState>,
}

/// One participant.
#[derive(Clone, Debug)]
pub struct ParticipantState {
    /// Its id.
    pub id: ParticipantId,
    /// Its transports.
    pub transports: Vec<TransportState>,
    /// What it publishes.
    pub tracks: Vec<TrackState>,
    /// What it receives.
    pub downtracks: Vec<DowntrackState>,
    /// Last connection quality, 0 to 100, if judged.
    pub quality: Option<u8>,
}

/// One transport.
#[derive(Clone, Debug)]
pub struct TransportState {
    /// Its id.
    pub id: TransportId,
    /// Media can flow.
    pub connected: bool,
    /// Path in use.
    pub route: Option<Route>,
    /// What may be sent to it.
    pub estimate: Bitrate,
    /// What is sent to it.
    pub sending: Bitrate,
}

/// One published track.
#[derive(Clone, Debug)]
pub struct TrackState {
    /// Its id.
    pub id: TrackId,
    /// Muted by its publisher.
    pub muted: bool,
    /// Its encodings from the lowest to the highest.
    pub encodings: Vec<EncodingState>,
    /// How many take it.
    pub downtracks: usize,
}

/// One encoding of a track.
#[derive(Clone, Debug)]
pub struct EncodingState {
    /// SSRC once known.
    pub ssrc: Option<u32>,
    /// Packets arrive.
    pub active: bool,
    /// Measured.
    pub bitrate: Bitrate,
    /// Packets received.
    pub received: u64,
    /// Share lost on the way from the publisher according to the last report, in 1/256.
    pub fraction_lost: u8,
}

/// One downtrack.
#[derive(Clone, Debug)]
pub struct DowntrackState {
    /// Its id.
    pub id: DowntrackId,
    /// The track it takes.
    pub track: TrackId,
    /// Wanted by the subscriber: spatial layer, `None` when disabled.
    pub demand: Option<u8>,
    /// Allocated spatial layer.
    pub target: Option<u8>,
    /// Spatial layer flowing now.
    pub current: Option<u8>,
    /// Packets sent.
    pub sent: u64,
    /// Share of them lost according to the last receiver report, in 1/256.
    pub fraction_lost: u8,
}

/// Transports by room and participant.
type Lines<'a> = BTreeMap<(RoomKey, ParticipantKey), Vec<&'a Line>>;

impl Shard {
    /// A picture of everything, for people.
    pub fn state(&self, now: Instant) -> ShardState {
        // Looked through once, not once for each participant: people look at shards that are full.
        let mut lines: Lines<'_> = BTreeMap::new();
        for line in self.lines.values() {
            lines.entry((line.room, line.participant)).or_default().push(line);
        }
        let rooms = self.rooms.iter().map(|(key, (room, _))| self.room_state(now, key, room, &lines));
        ShardState { rooms: rooms.collect() }
    }

    fn room_state(&self, now: Instant, room_key: RoomKey, room: &Room, lines: &Lines<'_>) -> RoomState {
        let participants = room.participants.iter().map(|(key, participant)| ParticipantState {
            id: participant.id,
            transports: lines
                .get(&(room_key, key))
                .into_iter()
                .flatten()
                .map(|line| TransportState {
                    id: line.id,
                    connected: line.connected,
                    route: line.transport.route(),
                    estimate: participant.estimate.unwrap_or(Bitrate::MAX),
                    sending: line.rate.measured(now),
                })
                .collect(),
            tracks: participant.tracks.iter().filter_map(|key| self.track_state(room.tracks.get(*key)?)).collect(),
            downtracks: participant
                .downtracks
                .iter()
                .filter_map(|key| self.downtrack_state(room, room.downtracks.get(*key)?))
                .collect(),
            quality: participant.quality,
        });
        RoomState { id: room.id, participants: participants.collect() }
    }

    fn track_state(&self, track: &Track) -> Option<TrackState> {
        let publication = self.publications.get(&track.id)?;
        let encodings = publication.streams.iter().zip(&track.layers).take(track.encodings);
        Some(TrackState {
            id: track.id,
            muted: track.muted,
            encodings: encodings
                .map(|(stream, layer)| EncodingState {
                    ssrc: stream.and_then(|key| self.streams.get(key)).map(|stream| stream.rx.ssrc().0),
                    active: layer.is_flowing(),
                    bitrate: layer.bitrate().unwrap_or_default(),
                    received: layer.packets,
                    fraction_lost: track.fraction_lost,
                })
                .collect(),
            downtracks: track.downtracks.len(),
        })
    }

    fn downtrack_state(&self, room: &Room, downtrack: &Downtrack) -> Option<DowntrackState> {
        let track = room.tracks.get(downtrack.track)?;
        let sender = self.senders.get(downtrack.sender)?;
        Some(DowntrackState {
            id: downtrack.id,
            track: track.id,
            demand: downtrack.demand.enabled.then_some(downtrack.demand.max_spatial),
            target: match downtrack.target() {
                Target::Layer { spatial, .. } => Some(spatial),
                Target::Paused => None,
            },
            current: downtrack.current(),
            sent: u64::from(sender.tx.sent().0),
            fraction_lost: downtrack.fraction_lost,
        })
    }
}
