//! What goes into the room machine and what comes out: the contract between it and the server around it.

use std::collections::BTreeMap;
use std::time::Duration;

use livekit_protocol as proto;

pub use super::said::Said;
use crate::media::{MediaCommand, MediaEvent, ParticipantId};
use crate::token::CallClaim;

/// The time, twice: monotonic for timers, wall clock for what clients are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Since an arbitrary start; never goes back.
    pub mono: Duration,
    /// Milliseconds since 1970 UTC; may jump.
    pub unix_ms: i64,
}

/// One WebSocket from its first request to its end. Chosen by the server, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Identifies a request of the server API, so that its answer finds the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdminId(pub u64);

/// What the room machine is told.
#[derive(Debug)]
pub enum Input {
    /// A verified client wants in, or back in. Answered by [`Output::Send`] with `join`, `reconnect` or `leave` as the
    /// first message, or by [`Output::Refuse`].
    Join {
        /// Its WebSocket, upgraded only after the first answer.
        connection: ConnectionId,
        /// What it asks, from either generation.
        request: Box<JoinRequest>,
    },
    /// A decoded message of a joined connection.
    Signal {
        /// From where.
        connection: ConnectionId,
        /// What.
        request: Box<proto::SignalRequest>,
    },
    /// The WebSocket is gone (after everything received before). Media may live on.
    ConnectionClosed {
        /// Which.
        connection: ConnectionId,
    },
    /// The media plane reports.
    Media(MediaEvent),
    /// The media thread died: everybody has to come back with a new transport.
    MediaLost,
    /// One of several media threads of the room died: these have to come back with a new transport.
    MediaLostOf {
        /// Those whose transports were on it.
        participants: Vec<ParticipantId>,
    },
    /// The server API or Matrix asks.
    Admin {
        /// Where the answer goes.
        id: AdminId,
        /// What.
        request: Box<AdminRequest>,
    },
    /// The node stops: no new joins, everybody is told to reconnect.
    Drain,
    /// `Room::next_timeout` has come.
    Timeout,
}

/// Which generation of the protocol a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// `/rtc`: two peer connections, the server offers the subscriber's.
    V0,
    /// `/rtc/v1`: one peer connection, the client always offers.
    V1,
}

/// What a verified token allows, tri-states resolved (unset `canPublish` is true, and so on).
#[derive(Clone, Debug, PartialEq)]
pub struct Grants {
    /// Participant identity (`sub`).
    pub identity: String,
    /// Display name.
    pub name: String,
    /// Metadata from the token.
    pub metadata: String,
    /// Attributes from the token.
    pub attributes: BTreeMap<String, String>,
    /// Kind, as the protocol's enum (`STANDARD` unless the token says otherwise).
    pub kind: i32,
    /// Room name.
    pub room: String,
    /// May join a room at all.
    pub room_join: bool,
    /// May make a room by joining it, whatever `auto_create` says.
    pub room_create: bool,
    /// The token is one we refreshed: its bearer was in the room before, and may make it again (after a restart of this
    /// node, or on another one) although `auto_create` is off.
    pub joined: bool,
    /// Who was in the room when the bearer was told to come back to it; nobody: not said.
    pub company: Company,
    /// Whom the token was made for, where it is one for a call of a Matrix room.
    pub call: Option<Box<CallClaim>>,
    /// May publish.
    pub can_publish: bool,
    /// Narrows `can_publish` when not empty; protocol enum values of `TrackSource`.
    pub can_publish_sources: Vec<i32>,
    /// May subscribe.
    pub can_subscribe: bool,
    /// May send data.
    pub can_publish_data: bool,
    /// May change its own name, metadata and attributes.
    pub can_update_own_metadata: bool,
    /// Seen by nobody.
    pub hidden: bool,
    /// Is a recorder.
    pub recorder: bool,
    /// Is an agent.
    pub agent: bool,
    /// May subscribe to metrics.
    pub can_subscribe_metrics: bool,
    /// Unix seconds at which the token ends.
    pub expires_at: i64,
}

/// How many were told to come back to a room together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Company {
    /// Participants, the one who says it included.
    pub people: u32,
    /// What they published.
    pub tracks: u32,
}

/// A join of either generation, decoded and checked for size.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// Which endpoint it came by.
    pub generation: Generation,
    /// From the token.
    pub grants: Grants,
    /// SDK, version, protocol number, capabilities.
    pub client: proto::ClientInfo,
    /// Subscribe to everything by itself.
    pub auto_subscribe: bool,
    /// The same for data tracks.
    pub auto_subscribe_data_track: bool,
    /// The client says what sizes it shows.
    pub adaptive_stream: bool,
    /// Whether its downtracks may be paused; `None`: the server's default.
    pub subscriber_allow_pause: Option<bool>,
    /// It was here before and wants to keep its transports.
    pub reconnect: bool,
    /// Why, as the protocol's enum.
    pub reconnect_reason: i32,
    /// The participant sid it had.
    pub participant_sid: String,
    /// v1: metadata of the join request (needs the grant).
    pub metadata: String,
    /// v1 and v0: attributes of the join request (need the grant).
    pub attributes: BTreeMap<String, String>,
    /// v1: tracks to add at once.
    pub add_tracks: Vec<proto::AddTrackRequest>,
    /// v1: the first offer.
    pub publisher_offer: Option<proto::SessionDescription>,
    /// v1: state of a resuming client.
    pub sync_state: Option<proto::SyncState>,
}

/// What the room machine wants done, in order.
#[derive(Debug)]
pub enum Output {
    /// Send a message to these connections.
    Send {
        /// To whom.
        to: Vec<ConnectionId>,
        /// What.
        message: Said,
    },
    /// Close a WebSocket after what was sent before.
    Close {
        /// Which.
        connection: ConnectionId,
    },
    /// Answer a join with an HTTP status instead of an upgrade.
    Refuse {
        /// Which join.
        connection: ConnectionId,
        /// Why.
        refusal: Refusal,
    },
    /// Ask the media plane.
    Media(MediaCommand),
    /// Sign a fresh token with these grants (good for at least ten minutes, or for what remained) and send it to the
    /// connection as `refresh_token`.
    RefreshToken {
        /// To whom.
        connection: ConnectionId,
        /// With what in it.
        grants: Box<Grants>,
    },
    /// Something webhooks, metrics or Matrix care about.
    Notice(Notice),
    /// Answer of the server API.
    Admin {
        /// To which request.
        id: AdminId,
        /// What.
        answer: Result<AdminAnswer, AdminError>,
    },
    /// The room has ended: forget it. Nothing follows.
    Ended,
}

/// Why a join was refused before the upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 401: the token does not allow it.
    Unauthorized(&'static str),
    /// 400: the request breaks a limit or lacks something.
    BadRequest(&'static str),
    /// 404 with the text clients know: there is no such room and it may not be made.
    NoSuchRoom,
    /// 503: full, or the node stops.
    Unavailable(&'static str),
}

/// Facts for webhooks, metrics and Matrix.
#[derive(Clone, Debug)]
pub enum Notice {
    /// The room began.
    RoomStarted(Box<proto::Room>),
    /// The room ended.
    RoomFinished(Box<proto::Room>),
    /// A participant became active (media connected).
    ParticipantJoined(Box<proto::Room>, Box<proto::ParticipantInfo>),
    /// A participant that had been active left; `disconnect_reason` is set.
    ParticipantLeft(Box<proto::Room>, Box<proto::ParticipantInfo>),
    /// A participant left that never became active.
    ParticipantAborted(Box<proto::Room>, Box<proto::ParticipantInfo>),
    /// A track was published.
    TrackPublished(Box<proto::Room>, Box<proto::ParticipantInfo>, Box<proto::TrackInfo>),
    /// A track ended.
    TrackUnpublished(Box<proto::Room>, Box<proto::ParticipantInfo>, Box<proto::TrackInfo>),
}

/// Requests of the server API and of Matrix.
#[derive(Clone, Debug)]
pub enum AdminRequest {
    /// The room as LiveKit shows it.
    GetRoom,
    /// End the room for all: `leave` with ROOM_DELETED.
    DeleteRoom,
    /// Everybody.
    ListParticipants,
    /// One.
    GetParticipant(String),
    /// Remove for good: `leave` with DISCONNECT and this reason.
    RemoveParticipant {
        /// Whom.
        identity: String,
        /// Why.
        reason: proto::DisconnectReason,
    },
    /// Mute or unmute a published track.
    MuteTrack {
        /// Whose.
        identity: String,
        /// Which.
        track_sid: String,
        /// To what.
        muted: bool,
    },
    /// Send nobody layers of the video somebody publishes above this one, and tell the publisher to rest them; sound is
    /// not touched. Holds until it is said anew or the participant is gone.
    LimitVideo {
        /// Whose.
        identity: String,
        /// Highest spatial layer, from 0; `None`: all.
        max_spatial: Option<u8>,
    },
    /// Change metadata, name, attributes or permission.
    UpdateParticipant(Box<proto::UpdateParticipantRequest>),
    /// Change what somebody is subscribed to.
    UpdateSubscriptions(Box<proto::UpdateSubscriptionsRequest>),
    /// Send a data packet to the room.
    SendData(Box<proto::SendDataRequest>),
    /// Call a method of a participant. Answered when the participant has, or when that takes too long.
    PerformRpc(Box<proto::PerformRpcRequest>),
    /// Change room metadata.
    UpdateRoomMetadata(String),
    /// Full state for `/debug`, as JSON, without secrets or addresses.
    Debug,
}

/// What the server API answers.
#[derive(Clone, Debug)]
pub enum AdminAnswer {
    /// Done, nothing to tell.
    Done,
    /// A room.
    Room(Box<proto::Room>),
    /// Participants.
    Participants(Vec<proto::ParticipantInfo>),
    /// One participant.
    Participant(Box<proto::ParticipantInfo>),
    /// A track.
    Track(Box<proto::TrackInfo>),
    /// What a participant answered to a call.
    Rpc(String),
    /// A participant answered a call with an error.
    RpcFailed(Box<proto::RpcError>),
    /// JSON.
    Debug(serde_json::Value),
}

/// Why the server API could not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// Twirp `not_found`.
    #[error("{0}")]
    NotFound(&'static str),
    /// Twirp `invalid_argument`.
    #[error("{0}")]
    Invalid(&'static str),
    /// Twirp `failed_precondition`: the operator does not permit it.
    #[error("{0}")]
    Precondition(&'static str),
    /// Twirp `permission_denied`.
    #[error("{0}")]
    Denied(&'static str),
    /// Twirp `unavailable`: not now.
    #[error("{0}")]
    Unavailable(&'static str),
    /// Twirp `deadline_exceeded`.
    #[error("{0}")]
    TimedOut(&'static str),
}

/// A media thread, as the descriptions of those on it name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MediaPlace {
    /// Prefix of every ufrag: names the thread (base 36), one to three characters.
    pub ufrag_prefix: String,
    /// ICE candidate lines (`candidate:…`) of the thread.
    pub candidates: Vec<String>,
}

/// What a room is made with.
#[derive(Clone, Debug)]
pub struct RoomParams {
    /// Its name.
    pub name: String,
    /// Ids of participants, transports, tracks and downtracks start here and go up by one; the server leaves 2^32 of
    /// space before the next room's.
    pub first_id: u64,
    /// Seed of this room's randomness, from the operating system. Credentials come from it.
    pub seed: [u8; 32],
    /// Prefix of every ufrag: names the media thread (base 36), one to three characters. For those who come before
    /// [`super::Room::set_place`] says otherwise.
    pub ufrag_prefix: String,
    /// ICE candidate lines (`candidate:…`) of that media thread.
    pub candidates: Vec<String>,
    /// SHA-256 of the node's certificate.
    pub fingerprint: [u8; 32],
    /// Seconds to live with nobody in it; `None`: the configured default.
    pub empty_timeout: Option<u32>,
    /// Seconds to live after the last one left; `None`: the configured default.
    pub departure_timeout: Option<u32>,
    /// Most participants; 0: the configured default.
    pub max_participants: u32,
    /// Room metadata.
    pub metadata: String,
}
