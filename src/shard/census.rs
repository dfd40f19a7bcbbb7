//! What a shard holds at one moment, counted by kind: for numbers that are looked at once a second. Counting walks over
//! everything, so nobody does it per packet.

use crate::base::{Bitrate, Instant, MediaKind, ParticipantId};
use crate::room::MAX_SPATIAL;
use crate::room::allocator::Target;
use crate::room::downtrack::Downtrack;
use crate::shard::Shard;

/// How many of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Published tracks with sound.
    pub audio_tracks: u32,
    /// Of those, microphones that are not worth hearing now.
    pub inaudible_tracks: u32,
    /// Published tracks with a picture.
    pub video_tracks: u32,
    /// Downtracks with sound.
    pub audio_downtracks: u32,
    /// Downtracks with a picture by what flows.
    pub video_downtracks: VideoDowntracks,
    /// Transports media can flow on.
    pub connected_transports: u32,
    /// Transports an estimate is known of.
    pub estimated_transports: u32,
    /// Sum of those estimates.
    pub estimate: Bitrate,
    /// What is sent to those transports now.
    pub allocated: Bitrate,
}

/// Downtracks with a picture, by what flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VideoDowntracks {
    /// By spatial layer, from the lowest up.
    pub layers: [u32; MAX_SPATIAL],
    /// Turned off by the subscriber.
    pub disabled: u32,
    /// Paused for want of bandwidth.
    pub paused: u32,
    /// Nothing flows (yet): muted, or waiting for a key frame.
    pub idle: u32,
}

impl VideoDowntracks {
    /// All of them.
    pub fn total(&self) -> u32 {
        self.layers.iter().sum::<u32>() + self.disabled + self.paused + self.idle
    }

    fn count(&mut self, downtrack: &Downtrack) {
        let slot = if !downtrack.demand.enabled {
            &mut self.disabled
        } else if downtrack.target() == Target::Paused {
            &mut self.paused
        } else {
            let layer = downtrack.current().and_then(|layer| self.layers.get_mut(usize::from(layer)));
            layer.unwrap_or(&mut self.idle)
        };
        *slot += 1;
    }
}

impl Shard {
    /// What each participant publishes now, sound and pictures, as far as it was measured; nobody who publishes nothing.
    pub fn published(&self) -> Vec<(ParticipantId, Bitrate)> {
        let mut published = Vec::new();
        for (room, _) in self.rooms.values() {
            for participant in room.participants.values().filter(|participant| !participant.tracks.is_empty()) {
                let tracks = participant.tracks.iter().filter_map(|key| room.tracks.get(*key));
                let flowing = tracks.flat_map(|track| &track.layers).filter(|layer| layer.is_flowing());
                let sum = flowing.filter_map(|layer| layer.bitrate()).fold(Bitrate::ZERO, Bitrate::saturating_add);
                if sum > Bitrate::ZERO {
                    published.push((participant.id, sum));
                }
            }
        }
        published
    }

    /// Count everything there is.
    pub fn census(&self, now: Instant) -> Census {
        let mut census = Census::default();
        for (room, _) in self.rooms.values() {
            for track in room.tracks.values().filter(|track| track.origin.is_none()) {
                match track.kind {
                    MediaKind::Audio => {
                        census.audio_tracks += 1;
                        census.inaudible_tracks += u32::from(track.inaudible);
                    }
                    MediaKind::Video => census.video_tracks += 1,
                }
            }
            for downtrack in room.downtracks.values() {
                match downtrack.kind {
                    MediaKind::Audio => census.audio_downtracks += 1,
                    MediaKind::Video => census.video_downtracks.count(downtrack),
                }
            }
        }
        for line in self.lines.values().filter(|line| line.connected) {
            census.connected_transports += 1;
            let participant = self.rooms.get(line.room).and_then(|(room, _)| room.participants.get(line.participant));
            // One estimate per participant: that of the transport it receives by.
            let Some(estimate) = participant.and_then(|participant| participant.estimate) else { continue };
            if !line.sent.is_empty() {
                census.estimated_transports += 1;
                census.estimate = census.estimate.saturating_add(estimate);
                census.allocated = census.allocated.saturating_add(line.rate.measured(now));
            }
        }
        census
    }
}
