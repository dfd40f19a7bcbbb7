//! How much of everything there may be.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConfigError, Seconds};

/// Bounds. A client that goes beyond one is refused or let go; nobody else notices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitConfig {
    /// HTTP and WebSocket connections at once, a participant's WebSocket for as long as it is open. Further ones wait
    /// in the kernel's queue.
    pub max_connections: u32,
    /// HTTP and WebSocket connections at once from one address (one /64 of IPv6); 0: no bound of its own. Behind a
    /// reverse proxy all clients have the proxy's address, so this then bounds them all together: make it as large as
    /// `max_connections`, and let the proxy limit single clients.
    pub max_connections_per_address: u32,
    /// Joins per second from one address in the long run, ten times as many at once; 0: no bound. Further ones are
    /// refused with 429, and come again. Behind a reverse proxy it bounds all clients together.
    pub join_rate_per_address: u32,
    /// Requests for Matrix tokens per second from one address in the long run, ten times as many at once; 0: no bound.
    /// Further ones are refused with 429. Each may make weir ask a homeserver, and joining takes a client up to four.
    /// Behind a reverse proxy it bounds all clients together.
    pub token_rate_per_address: u32,
    /// Joins that are being answered at once. Further ones are refused with 503.
    pub max_pending_joins: u32,
    /// Rooms at once. Further ones are refused with 503.
    pub max_rooms: u32,
    /// Participants at once on this node, those included that have lost their WebSocket and may come back. Further ones
    /// are refused with 503.
    pub max_participants: u32,
    /// Load of the media threads, percent, from which new rooms are refused; also the share of `num_tracks` and
    /// `bytes_per_sec`. 0: new rooms are never refused for it. Rooms that are there are not touched, and take joins.
    pub max_load: u32,
    /// Tracks on this node, published ones and copies to subscribers together; 0: no bound. A measure of load: see
    /// `max_load`.
    pub num_tracks: u32,
    /// Bytes per second this node's line takes, both directions together; 0: not known. A measure of load: see
    /// `max_load`.
    pub bytes_per_sec: u32,
    /// Bytes of the request line and headers of a request, at least 16384: a join request is part of the line.
    pub max_request_head: u32,
    /// How long a client may take to send its request head, seconds.
    pub request_head_timeout: Seconds,
    /// Bytes of one signal message, as received and after decompression, at least 65536.
    pub signal_message_size_limit: u32,
    /// Signal messages that may wait for a client. A client that reads too slowly is cut off, and comes back.
    pub signal_queue_messages: u32,
    /// Bytes of signal messages that may wait for a client.
    pub signal_queue_bytes: u32,
    /// Bytes of a room name.
    pub max_room_name_length: u32,
    /// Bytes of a participant identity.
    pub max_participant_identity_length: u32,
    /// Bytes of a participant name.
    pub max_participant_name_length: u32,
    /// Bytes of the metadata of a room or participant.
    pub max_metadata_size: u32,
    /// Bytes of all attributes of a participant together.
    pub max_attributes_size: u32,
    /// Tracks a participant may publish, 1 to 255.
    pub tracks_per_participant: u32,
    /// Video tracks a participant may receive; 0: no bound of its own.
    pub subscription_limit_video: u32,
    /// Audio tracks a participant may receive; 0: no bound of its own.
    pub subscription_limit_audio: u32,
    /// Signal messages per second a participant may send in the long run. Further ones wait.
    pub signal_rate: u32,
    /// Open files weir asks the system for at its start; 0: as many as it gives.
    pub open_files: u32,
}

impl Default for LimitConfig {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
            max_connections_per_address: 10_000,
            join_rate_per_address: 200,
            token_rate_per_address: 200,
            max_pending_joins: 1_000,
            max_rooms: 5_000,
            max_participants: 10_000,
            max_load: 95,
            num_tracks: 0,
            bytes_per_sec: 0,
            max_request_head: 32_768,
            request_head_timeout: Seconds(10),
            signal_message_size_limit: 2 << 20,
            signal_queue_messages: 1_024,
            signal_queue_bytes: 8 << 20,
            max_room_name_length: 256,
            max_participant_identity_length: 256,
            max_participant_name_length: 256,
            max_metadata_size: 512 << 10,
            max_attributes_size: 64 << 10,
            tracks_per_participant: 32,
            subscription_limit_video: 0,
            subscription_limit_audio: 0,
            signal_rate: 100,
            open_files: 0,
        }
    }
}

impl LimitConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let least: &[(&str, u32, u32)] = &[
            ("max_connections", self.max_connections, 1),
            ("max_pending_joins", self.max_pending_joins, 1),
            ("max_rooms", self.max_rooms, 1),
            ("max_participants", self.max_participants, 1),
            ("max_request_head", self.max_request_head, 16 << 10),
            ("request_head_timeout", self.request_head_timeout.0, 1),
            ("signal_message_size_limit", self.signal_message_size_limit, 64 << 10),
            ("signal_queue_messages", self.signal_queue_messages, 16),
            ("signal_queue_bytes", self.signal_queue_bytes, 64 << 10),
            ("max_room_name_length", self.max_room_name_length, 1),
            ("max_participant_identity_length", self.max_participant_identity_length, 1),
            ("tracks_per_participant", self.tracks_per_participant, 1),
            ("signal_rate", self.signal_rate, 1),
        ];
        if let Some((name, value, least)) = least.iter().find(|(_, value, least)| value < least) {
            return Err(ConfigError::new(format!("`limit.{name}` is {value}: set it to {least} or more")));
        }
        let most: &[(&str, u32, u32)] = &[
            ("max_request_head", self.max_request_head, 1 << 20),
            ("signal_message_size_limit", self.signal_message_size_limit, 64 << 20),
            ("signal_queue_messages", self.signal_queue_messages, 1 << 16),
            ("max_load", self.max_load, 100),
            ("max_connections", self.max_connections, 1_000_000),
            ("tracks_per_participant", self.tracks_per_participant, 255),
        ];
        if let Some((name, value, most)) = most.iter().find(|(_, value, most)| value > most) {
            return Err(ConfigError::new(format!("`limit.{name}` is {value}: set it to {most} or less")));
        }
        Ok(())
    }
}
