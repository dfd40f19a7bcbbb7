//! A picture of a shard for people who look for a fault. Plain structs: control serialises and redacts.

use crate::base::{Bitrate, DowntrackId, ParticipantId, RoomId, TrackId, TransportId};
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
    /// Packets lost for good so far.
    pub lost: u64,
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
