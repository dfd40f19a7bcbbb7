//! A picture of a shard for people who look for a fault. Plain structs: control serialises and redacts.

use core::time::Duration;
use std::collections::BTreeMap;

use crate::base::{Bitrate, DowntrackId, Instant, ParticipantId, RoomId, TrackId, TransportId};
use crate::cc::estimator::Estimator;
use crate::room::allocator::Target;
use crate::room::downtrack::Downtrack;
use crate::room::participant::Participant;
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

impl ShardState {
    /// Put in what another shard has: a room that is on both is one.
    pub fn merge(&mut self, other: Self) {
        for room in other.rooms {
            match self.rooms.iter_mut().find(|it| it.id == room.id) {
                Some(known) => known.participants.extend(room.participants),
                None => self.rooms.push(room),
            }
        }
    }
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
    /// What all it wants would take.
    pub needed: Bitrate,
    /// What the layers allotted to it take, sound included.
    pub allotted: Bitrate,
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
    /// What its feedback says of the way there; `None` where it gives none.
    pub path: Option<PathState>,
}

/// What transport-wide feedback says of a path.
#[derive(Clone, Copy, Debug)]
pub struct PathState {
    /// Round trip time.
    pub rtt: Duration,
    /// How long packets wait on it.
    pub queue: Duration,
    /// Lost of a thousand packets, lately.
    pub loss_per_mille: u32,
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
    /// Round trip time by receiver reports, if there were any.
    pub rtt: Option<Duration>,
    /// Why this layer and not another.
    pub reason: Reason,
}

/// Why a downtrack gets the layer it gets. The first that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its subscriber turned it off, or hides it.
    Disabled,
    /// Its publisher muted it.
    Muted,
    /// Its subscriber cannot be reached (yet).
    NotConnected,
    /// Not even the lowest layer fits what can be sent to its subscriber.
    Paused,
    /// The lowest layer does not fit either, but is sent.
    Starved,
    /// A higher layer does not fit, or did not a moment ago.
    Bandwidth,
    /// Its publisher does not send what is wanted.
    NotSent,
    /// Another layer is to come, with its next key frame.
    AwaitingKeyframe,
    /// It gets what its subscriber asks for.
    Wanted,
}

impl Reason {
    /// Its name, for people.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Muted => "muted",
            Self::NotConnected => "not_connected",
            Self::Paused => "paused",
            Self::Starved => "starved",
            Self::Bandwidth => "bandwidth",
            Self::NotSent => "not_sent",
            Self::AwaitingKeyframe => "awaiting_keyframe",
            Self::Wanted => "wanted",
        }
    }

    fn of(downtrack: &Downtrack, track: &Track) -> Self {
        let wanted = downtrack.demand.max_spatial.min(track.top());
        match downtrack.target() {
            _ if !downtrack.demand.enabled => Self::Disabled,
            _ if track.muted => Self::Muted,
            _ if !downtrack.connected => Self::NotConnected,
            Target::Paused => Self::Paused,
            Target::Layer { starved: true, .. } => Self::Starved,
            Target::Layer { spatial, .. } if spatial < track.best_encoding(wanted) => Self::Bandwidth,
            Target::Layer { spatial, .. } => match downtrack.current() {
                Some(current) if current == wanted => Self::Wanted,
                Some(current) if current == track.best_encoding(spatial) => Self::NotSent,
                None if !track.started => Self::NotSent,
                _ => Self::AwaitingKeyframe,
            },
        }
    }
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
                    path: line.bandwidth.as_deref().map(|bandwidth| &bandwidth.estimator).and_then(path_state),
                })
                .collect(),
            tracks: participant.tracks.iter().filter_map(|key| self.track_state(room.tracks.get(*key)?)).collect(),
            downtracks: participant
                .downtracks
                .iter()
                .filter_map(|key| self.downtrack_state(room, room.downtracks.get(*key)?))
                .collect(),
            quality: participant.quality,
            needed: participant.needed,
            allotted: allotted(room, participant),
        });
        RoomState { id: room.id, participants: participants.collect() }
    }

    fn track_state(&self, track: &Track) -> Option<TrackState> {
        let publication = self.publications.get(&track.id)?;
        // Layers inside the only encoding share its stream.
        let stream_of = |at: usize| publication.streams.get(if track.svc { 0 } else { at }).copied().flatten();
        let count = track.encodings.max(usize::from(track.top()) + 1);
        let encodings = track.layers.iter().take(count).enumerate();
        Some(TrackState {
            id: track.id,
            muted: track.muted,
            encodings: encodings
                .map(|(at, layer)| EncodingState {
                    ssrc: stream_of(at).and_then(|key| self.streams.get(key)).map(|stream| stream.rx.ssrc().0),
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
            rtt: sender.tx.far_end().rtt,
            reason: Reason::of(downtrack, track),
        })
    }
}

/// Nothing before the first feedback.
fn path_state(estimator: &Estimator) -> Option<PathState> {
    estimator.estimate()?;
    let (rtt, queue, loss_per_mille) = (estimator.rtt(), estimator.queue(), estimator.loss_per_mille());
    Some(PathState { rtt, queue, loss_per_mille })
}

/// What the layers given to the downtracks of a participant take.
fn allotted(room: &Room, participant: &Participant) -> Bitrate {
    let downtracks = participant.downtracks.iter().filter_map(|key| room.downtracks.get(*key));
    let costs = downtracks.filter(|downtrack| downtrack.demand.enabled).filter_map(|downtrack| {
        let track = room.tracks.get(downtrack.track).filter(|track| !track.muted)?;
        let Target::Layer { spatial, .. } = downtrack.target() else { return None };
        track.costs().get(usize::from(track.best_encoding(spatial))).copied().flatten()
    });
    costs.fold(Bitrate::ZERO, Bitrate::saturating_add)
}
