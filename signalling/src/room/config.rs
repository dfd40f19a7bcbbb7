//! What an operator can set about rooms, with defaults that work. Every limit of the protocol is here, so that the
//! bound of each queue, map and string in a room can be read in one place.

use std::time::Duration;

use livekit_protocol as proto;

use crate::relay::RelayAccess;
use crate::sdp::Bandwidth;

/// Settings shared by all rooms of a node.
#[derive(Clone, Debug)]
pub struct Config {
    /// Told to clients as `server_info.version`. Clients compare it (data streams need 1.8.0 or later) and refuse to
    /// work when it is empty.
    pub server_version: String,
    /// Told to clients as `server_info.region`; may be empty.
    pub region: String,
    /// Told to clients as `server_info.node_id`.
    pub node_id: String,
    /// STUN and TURN servers told to clients in `join` and `reconnect`.
    pub ice_servers: Vec<proto::IceServer>,
    /// The node's own TURN service, told before the others with credentials of the participant.
    pub relay: Option<RelayAccess>,
    /// Mime types that may be published, lower case (`video/vp8`), in the order told to clients.
    pub enabled_codecs: Vec<String>,
    /// How often clients ping. Above zero: a client makes a timer of it. Whole seconds.
    pub ping_interval: Duration,
    /// After how long without any message a client gives its connection up and resumes. Whole seconds.
    pub ping_timeout: Duration,
    /// How long a room lives to which nobody ever came.
    pub empty_timeout: Duration,
    /// How long a room lives after the last participant left. Longer than a full reconnect takes.
    pub departure_timeout: Duration,
    /// How often tokens are refreshed.
    pub refresh_interval: Duration,
    /// How long a participant may take to connect its media.
    pub join_timeout: Duration,
    /// How long a session whose signalling ended before its media ever connected is kept for a resume.
    pub signal_grace: Duration,
    /// How long a session is kept after its media died or after it was told to reconnect.
    pub reconnect_grace: Duration,
    /// How long an offer of ours may stay without an answer.
    pub answer_timeout: Duration,
    /// How long a wish for an unknown track is kept before `SE_TRACK_NOTFOUND`.
    pub subscribe_timeout: Duration,
    /// How long a publisher keeps sending a quality nobody wants any more.
    pub dynacast_pause_delay: Duration,
    /// Whether the server API may unmute.
    pub enable_remote_unmute: bool,
    /// Whether data tracks may be published.
    pub enable_data_tracks: bool,
    /// Whether clients may ask for simulated failures (`SimulateScenario`). They only ever hurt the asker.
    pub allow_simulation: bool,
    /// Whether tracks of one source go out in one media stream, so that clients play them lip-synced. Only for clients
    /// that can (protocol 10 and later, not Firefox).
    pub sync_streams: bool,
    /// How subscribers tell what bandwidth there is.
    pub bandwidth: Bandwidth,
    /// Bounds.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        let codecs = ["audio/opus", "video/vp8", "video/h264", "video/vp9", "video/av1", "video/rtx"]
            .map(str::to_owned)
            .to_vec();
        Self {
            server_version: format!("1.13.5-weir.{}", env!("CARGO_PKG_VERSION")),
            region: String::new(),
            node_id: "ND_weir".to_owned(),
            ice_servers: Vec::new(),
            relay: None,
            enabled_codecs: codecs,
            ping_interval: Duration::from_secs(2),
            ping_timeout: Duration::from_secs(5),
            empty_timeout: Duration::from_secs(300),
            departure_timeout: Duration::from_secs(20),
            refresh_interval: Duration::from_secs(300),
            join_timeout: Duration::from_secs(60),
            signal_grace: Duration::from_secs(2),
            reconnect_grace: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(15),
            subscribe_timeout: Duration::from_secs(60),
            dynacast_pause_delay: Duration::from_secs(5),
            enable_remote_unmute: false,
            enable_data_tracks: true,
            allow_simulation: true,
            sync_streams: true,
            bandwidth: Bandwidth::TransportCc,
            limits: Limits::default(),
        }
    }
}

/// How much of everything one room, one participant or one message may hold.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Participants in a room whose own maximum is not set.
    pub participants: usize,
    /// Published media tracks of a participant.
    pub tracks: usize,
    /// Tracks added but not yet negotiated, of a participant.
    pub pending_tracks: usize,
    /// Subscribed audio tracks of a participant; 0: no bound of its own.
    pub audio_subscriptions: usize,
    /// Subscribed video tracks of a participant; 0: no bound of its own.
    pub video_subscriptions: usize,
    /// Subscribed tracks of a participant, audio and video.
    pub subscriptions: usize,
    /// Wishes for tracks that are not there (yet), of a participant.
    pub wishes: usize,
    /// Entries of one list in a request (track sids, permissions, layers, destinations).
    pub list_entries: usize,
    /// Media sections in one description.
    pub sections: usize,
    /// Bytes of one description.
    pub sdp: usize,
    /// Published data tracks of a participant.
    pub data_tracks: usize,
    /// Subscribed data tracks of a participant.
    pub data_subscriptions: usize,
    /// Bytes of an identity.
    pub identity: usize,
    /// Bytes of a display name, track name, stream name or client track id.
    pub name: usize,
    /// Bytes of metadata.
    pub metadata: usize,
    /// Bytes of all attributes together.
    pub attributes: usize,
    /// Bytes of one data packet.
    pub data_packet: usize,
    /// Signal requests per second of a participant, in the long run.
    pub signal_rate: u32,
    /// Signal requests a participant may send at once.
    pub signal_burst: u32,
    /// Bytes of data packets per second of a participant, times the number of receivers, in the long run.
    pub data_rate: u64,
    /// Bytes of data packets times receivers that a participant may send at once.
    pub data_burst: u64,
    /// Bytes of reliable packets kept for replay.
    pub replay_bytes: usize,
    /// How long reliable packets are kept for replay.
    pub replay_age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            participants: 1000,
            tracks: 32,
            pending_tracks: 20,
            audio_subscriptions: 0,
            video_subscriptions: 0,
            subscriptions: 1000,
            wishes: 200,
            list_entries: 2000,
            sections: 2100,
            sdp: 1 << 20,
            data_tracks: 64,
            data_subscriptions: 1000,
            identity: 256,
            name: 256,
            metadata: 512 << 10,
            attributes: 64 << 10,
            data_packet: 64 << 10,
            signal_rate: 100,
            signal_burst: 2000,
            data_rate: 64 << 20,
            data_burst: 256 << 20,
            replay_bytes: 100_000,
            replay_age: Duration::from_secs(2),
        }
    }
}
