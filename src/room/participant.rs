//! A participant of a room: what it publishes, what it receives, and what its link can carry.

use crate::base::{Bitrate, ParticipantId};
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
        self.estimate.is_some() || self.cap.is_some()
    }
}
