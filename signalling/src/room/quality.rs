//! Connection quality: what the media plane measures, told to participants every five seconds as far as it changed.

use std::time::Duration;

use livekit_protocol as proto;
use proto::ConnectionQuality as Quality;

use super::cx::{Cx, Message};
use super::{Room, Timer};
use crate::media::ParticipantId;

/// How often quality is told.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);

impl Room {
    pub(super) fn send_quality(&mut self, cx: &mut Cx<'_>) {
        if self.participants.is_empty() {
            return;
        }
        self.timers.set(Timer::Quality, cx.after(INTERVAL));
        let everybody: Vec<_> = self.participants.keys().copied().collect();
        for id in everybody {
            self.tell_quality(cx, id);
        }
    }

    fn tell_quality(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        let Some(participant) = self.participants.get(&id) else { return };
        let Some(connection) = participant.connection.filter(|_| participant.was_active) else { return };
        let reads_lost = participant.protocol() > 10;
        let mut about: Vec<ParticipantId> =
            participant.downtracks.keys().filter_map(|track| Some(self.tracks.get(track)?.publisher)).collect();
        about.push(id);
        about.sort_unstable();
        about.dedup();
        let mut updates = Vec::new();
        let mut told = Vec::new();
        for other in about.iter().copied() {
            let Some((sid, score)) = self.participants.get(&other).and_then(|other| Some((&other.sid, other.quality?)))
            else {
                continue;
            };
            let quality = match quality_of(score) {
                Quality::Lost if !reads_lost => Quality::Poor,
                quality => quality,
            };
            if participant.told_quality.get(&other) != Some(&quality) {
                told.push((other, quality));
                updates.push(proto::ConnectionQualityInfo {
                    participant_sid: sid.clone(),
                    quality: quality.into(),
                    score: opinion_of(score),
                });
            }
        }
        if let Some(participant) = self.participants.get_mut(&id) {
            participant.told_quality.retain(|other, _| about.binary_search(other).is_ok());
            participant.told_quality.extend(told);
        }
        if !updates.is_empty() {
            cx.send(Some(connection), Message::ConnectionQuality(proto::ConnectionQualityUpdate { updates }));
        }
    }
}

const fn quality_of(score: u8) -> Quality {
    match score {
        81.. => Quality::Excellent,
        41..=80 => Quality::Good,
        21..=40 => Quality::Poor,
        _ => Quality::Lost,
    }
}

/// On the wire the score is a mean opinion score, 1.0 to 4.5.
fn opinion_of(score: u8) -> f32 {
    1.0 + 3.5 * f32::from(score.min(100)) / 100.0
}
