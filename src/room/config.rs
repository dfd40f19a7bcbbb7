//! What a room may decide by itself: bandwidth rules, active speakers, key frame rates.
//!
//! Filled by control from the operator's file; every shard gets a copy. The defaults are those of the protocol.

use core::time::Duration;

use crate::base::Bitrate;
use crate::room::audible::AudibleConfig;

/// Rules of a room.
#[derive(Clone, Copy, Debug)]
pub struct RoomConfig {
    /// May a downtrack be paused when even its lowest layer does not fit. False: the lowest layer is sent regardless.
    pub allow_pause: bool,
    /// What may be sent to a transport of which no estimate is known.
    pub default_estimate: Bitrate,
    /// What a publisher is told it may send (REMB) when it has negotiated no transport-wide feedback.
    pub publisher_remb: Bitrate,
    /// Active speaker detection.
    pub speaker: SpeakerConfig,
    /// Which microphones are forwarded when many are open.
    pub audible: AudibleConfig,
    /// Least time between two key frame requests to the publisher for its lowest encoding.
    pub keyframe_spacing_low: Duration,
    /// The same for the other encodings.
    pub keyframe_spacing_high: Duration,
    /// How often the connection quality is judged.
    pub quality_interval: Duration,
}

impl Default for RoomConfig {
    fn default() -> Self {
        Self {
            allow_pause: true,
            default_estimate: Bitrate::from_kbps(100_000),
            publisher_remb: Bitrate::from_kbps(5_000),
            speaker: SpeakerConfig::default(),
            audible: AudibleConfig::default(),
            keyframe_spacing_low: Duration::from_millis(500),
            keyframe_spacing_high: Duration::from_secs(1),
            quality_interval: Duration::from_secs(5),
        }
    }
}

/// Active speaker detection from the audio level extension (RFC 6464).
#[derive(Clone, Copy, Debug)]
pub struct SpeakerConfig {
    /// A sample counts as speech when its level is at most this, in -dBov (0 loudest, 127 silent).
    pub active_level: u8,
    /// Share of the interval, in percent, that must be speech.
    pub min_percentile: u8,
    /// Length of an interval.
    pub interval: Duration,
    /// Number of intervals the level is smoothed over.
    pub smooth_intervals: u32,
}

impl Default for SpeakerConfig {
    fn default() -> Self {
        Self { active_level: 35, min_percentile: 40, interval: Duration::from_millis(400), smooth_intervals: 2 }
    }
}
