//! A participant of a room: what it publishes, what it receives, and what its link can carry.

use crate::base::{Bitrate, Instant, ParticipantId};
use crate::room::{DowntrackKey, TrackKey};

/// One participant.
#[derive(Debug)]
pub struct Participant {
    /// Its name towards control.
    pub id: ParticipantId,
    /// What it publishes.
    pub tracks: Vec<TrackKey>,
    /// What it receives.
    pub downtracks: Vec<DowntrackKey>,
    /// What its link can carry towards it, as far as known.
    pub estimate: Option<Bitrate>,
    /// A low estimate may be a guess.
    pub uncertain: bool,
    /// What was shared out last.
    pub shared: Option<Bitrate>,
    /// All that would be sent if there were room: the wanted layers and the sound.
    pub needed: Bitrate,
    /// Whether its downtracks may be paused; `None`: as the operator says.
    pub may_pause: Option<bool>,
    /// Something of it is kept from being raised for a while.
    pub held_down: bool,
    /// Since when not even the lowest layers fit.
    pub short_since: Option<Instant>,
    /// Never send more, whatever the estimate says.
    pub cap: Option<Bitrate>,
    /// Something changed that decides who gets what.
    pub needs_allocation: bool,
    /// Last connection quality, 0 to 100, and what was reported.
    pub quality: Option<u8>,
}

impl Participant {
    /// Somebody without tracks.
    pub const fn new(id: ParticipantId) -> Self {
        Self {
            id,
            tracks: Vec::new(),
            downtracks: Vec::new(),
            estimate: None,
            uncertain: false,
            shared: None,
            needed: Bitrate::ZERO,
            may_pause: None,
            held_down: false,
            short_since: None,
            cap: None,
            needs_allocation: false,
            quality: None,
        }
    }

    /// What may be sent to it.
    pub fn budget(&self, default: Bitrate) -> Bitrate {
        let estimate = self.estimate.unwrap_or(default).min(default);
        self.cap.map_or(estimate, |cap| cap.min(estimate))
    }

    /// Whether something is known to limit what it gets.
    pub const fn is_limited(&self) -> bool {
        self.estimate.is_some() || self.cap.is_some() || self.held_down
    }
}
