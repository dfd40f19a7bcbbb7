//! Settings of rooms.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConfigError, Seconds};

pub(super) const fn yes() -> bool {
    true
}

/// Rooms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RoomConfig {
    /// Whether joining makes a room that is not there. False: only tokens with the `roomCreate` grant and the server
    /// API make rooms; everybody else is told that the room does not exist, except who was in it before weir restarted:
    /// the tokens weir refreshes say so.
    pub auto_create: bool,
    /// How long a room lives to which nobody came, seconds.
    pub empty_timeout: Seconds,
    /// How long a room lives after the last participant left, seconds. Keep it above 15: a client that reconnects
    /// fully is away for some seconds.
    pub departure_timeout: Seconds,
    /// Participants of a room, 1 to 500; 0: as many as the limit allows.
    pub max_participants: u32,
    /// Participants of a room on one media thread before further ones go to another, 0 to 500. What is published on one
    /// thread then crosses to the others, once each, where somebody takes it. A room also spreads when its thread works
    /// for more than 70 % of the time and more than 40 % of its connections are this room's. 0: rooms never spread.
    pub participants_per_thread: u32,
    /// Codecs that may be published, in order of preference. Empty: all that weir knows.
    pub enabled_codecs: Vec<CodecConfig>,
    /// Whether the server API may unmute a participant's track.
    pub enable_remote_unmute: bool,
}

/// One codec that may be published.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CodecConfig {
    /// Its mime type, such as `video/vp8`.
    pub mime: String,
    /// Accepted for compatibility and without effect: clients choose their format parameters.
    #[serde(default)]
    pub fmtp_line: String,
}

impl Default for RoomConfig {
    fn default() -> Self {
        Self {
            auto_create: true,
            empty_timeout: Seconds(300),
            departure_timeout: Seconds(20),
            max_participants: 0,
            participants_per_thread: 100,
            enabled_codecs: Vec::new(),
            enable_remote_unmute: false,
        }
    }
}

impl RoomConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for codec in &self.enabled_codecs {
            let (kind, name) = codec.mime.split_once('/').unwrap_or_default();
            if !matches!(kind.to_ascii_lowercase().as_str(), "audio" | "video") || name.is_empty() {
                return Err(ConfigError::new(format!(
                    "`room.enabled_codecs`: `{}` is no mime type: write one such as video/vp8",
                    codec.mime
                )));
            }
        }
        Ok(())
    }
}
