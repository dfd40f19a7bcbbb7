//! Settings of sound and pictures that every room shares.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConfigError, Span};

/// Active speakers, from the audio levels clients send with each packet (RFC 6464).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AudioConfig {
    /// A packet counts as speech when its level is at most this, in -dBov: 0 (loudest) to 127 (silence).
    pub active_level: u8,
    /// Share of an interval that must be speech, percent, 1 to 100.
    pub min_percentile: u8,
    /// Length of an interval, milliseconds, 100 to 10000. Clients learn of speakers at most this often.
    pub update_interval: u32,
    /// Number of intervals the level is smoothed over, 0 (off) to 20.
    pub smooth_intervals: u32,
    /// Microphones of one room that are forwarded at a time, once more than `max_speakers_above` are open: the loudest,
    /// and whoever begins to speak at once. 0: always all. The sound of a screen and music are not counted, nor are
    /// microphones whose clients send no levels: they are always forwarded.
    pub max_speakers: u32,
    /// Open (unmuted) microphones up to which a room forwards all of them, at least `max_speakers`.
    pub max_speakers_above: u32,
}

impl Default for AudioConfig {
    fn default() -> Self {
        let room = crate::room::RoomConfig::default();
        let core = room.speaker;
        let number = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        Self {
            active_level: core.active_level,
            min_percentile: core.min_percentile,
            update_interval: u32::try_from(core.interval.as_millis()).unwrap_or(400),
            smooth_intervals: core.smooth_intervals,
            max_speakers: number(room.audible.max_speakers),
            max_speakers_above: number(room.audible.above),
        }
    }
}

impl AudioConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let wrong = |what: &str| Err(ConfigError::new(format!("`audio.{what}")));
        if self.active_level > 127 {
            return wrong("active_level` is above 127: set it from 0 to 127 (-dBov)");
        }
        if !(1..=100).contains(&self.min_percentile) {
            return wrong("min_percentile` is no share: set it from 1 to 100 (percent)");
        }
        if !(100..=10_000).contains(&self.update_interval) {
            return wrong("update_interval` is out of range: set it from 100 to 10000 (milliseconds)");
        }
        if self.smooth_intervals > 20 {
            return wrong("smooth_intervals` is above 20: set it from 0 to 20");
        }
        if self.max_speakers > 100 {
            return wrong("max_speakers` is above 100: set it from 0 (all) to 100");
        }
        Ok(())
    }
}

/// Video.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VideoConfig {
    /// How long a publisher goes on sending a quality nobody wants any more. Shorter saves its uplink, longer makes
    /// switching back faster.
    pub dynacast_pause_delay: Span,
}

impl Default for VideoConfig {
    fn default() -> Self {
        Self { dynacast_pause_delay: Span(Duration::from_secs(5)) }
    }
}
