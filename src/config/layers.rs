//! From the operator's words to the settings of each layer.

use std::time::Duration;

use livekit_protocol as proto;
use signalling::room as signal;

use super::{Config, IceServerConfig};

/// How long a lost participant of a Matrix call is kept after its media went silent for ten seconds.
const GHOST_WATCH: Duration = Duration::from_secs(1);

impl Config {
    /// Settings of the room machine.
    pub fn signal_room(&self, node_id: &str) -> signal::Config {
        let defaults = signal::Config::default();
        let limit = &self.limit;
        let mut limits = defaults.limits.clone();
        limits.participants = match self.room.max_participants {
            0 => limits.participants.min(size(limit.max_participants)),
            most => size(most),
        };
        limits.tracks = size(limit.tracks_per_participant);
        limits.audio_subscriptions = size(limit.subscription_limit_audio);
        limits.video_subscriptions = size(limit.subscription_limit_video);
        limits.identity = size(limit.max_participant_identity_length);
        limits.name = size(limit.max_participant_name_length);
        limits.metadata = size(limit.max_metadata_size);
        limits.attributes = size(limit.max_attributes_size);
        limits.signal_rate = limit.signal_rate;
        let enabled: Vec<String> = self.room.enabled_codecs.iter().map(|c| c.mime.to_ascii_lowercase()).collect();
        signal::Config {
            region: self.region.clone(),
            node_id: node_id.to_owned(),
            ice_servers: self.ice_servers(),
            enabled_codecs: if enabled.is_empty() { defaults.enabled_codecs.clone() } else { with_rtx(enabled) },
            empty_timeout: self.room.empty_timeout.into(),
            departure_timeout: self.room.departure_timeout.into(),
            dynacast_pause_delay: self.video.dynacast_pause_delay.0,
            enable_remote_unmute: self.room.enable_remote_unmute,
            enable_data_tracks: self.enable_data_tracks,
            // A session whose media is dead cannot be resumed; in Matrix its membership is a ghost from then on.
            reconnect_grace: if self.matrix.is_on() { GHOST_WATCH } else { defaults.reconnect_grace },
            limits,
            ..defaults
        }
    }

    /// Rules of rooms in the core.
    pub fn core_room(&self) -> crate::room::RoomConfig {
        let mut room = crate::room::RoomConfig { allow_pause: self.rtc.allow_pause, ..Default::default() };
        room.speaker.active_level = self.audio.active_level;
        room.speaker.min_percentile = self.audio.min_percentile;
        room.speaker.interval = Duration::from_millis(u64::from(self.audio.update_interval));
        room.speaker.smooth_intervals = self.audio.smooth_intervals;
        room.audible.max_speakers = size(self.audio.max_speakers);
        room.audible.above = size(self.audio.max_speakers_above);
        room
    }

    /// Sizes of a shard: each may take the whole node's load, placement only spreads it.
    pub fn shard_limits(&self) -> crate::shard::Limits {
        let participants = size(self.limit.max_participants);
        let transports = participants.saturating_mul(2);
        let defaults = crate::shard::Limits::default();
        crate::shard::Limits {
            rooms: size(self.limit.max_rooms),
            participants_per_room: self.signal_room("").limits.participants,
            participants,
            transports,
            unconnected_transports: transports.min(defaults.unconnected_transports),
            tracks_per_participant: size(self.limit.tracks_per_participant),
            ..defaults
        }
    }

    fn ice_servers(&self) -> Vec<proto::IceServer> {
        let stun: Vec<String> = self.rtc.stun_servers.iter().map(|server| format!("stun:{server}")).collect();
        let mut servers = Vec::new();
        if !stun.is_empty() {
            servers.push(proto::IceServer { urls: stun, ..Default::default() });
        }
        servers.extend(self.rtc.turn_servers.iter().map(turn_server));
        servers
    }
}

fn turn_server(server: &IceServerConfig) -> proto::IceServer {
    let (scheme, transport) = match server.protocol.as_str() {
        "tls" => ("turns", "tcp"),
        "tcp" => ("turn", "tcp"),
        _ => ("turn", "udp"),
    };
    proto::IceServer {
        urls: vec![format!("{scheme}:{}:{}?transport={transport}", server.host, server.port)],
        username: server.username.clone(),
        credential: server.credential.clone(),
    }
}

/// Retransmission is no codec to choose but has to be in the list clients get.
fn with_rtx(mut codecs: Vec<String>) -> Vec<String> {
    if !codecs.iter().any(|codec| codec == "video/rtx") {
        codecs.push("video/rtx".to_owned());
    }
    codecs
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
