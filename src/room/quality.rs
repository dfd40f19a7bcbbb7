//! How well a participant is connected, as one number from 0 to 100.
//!
//! The least of its tracks decides: those it publishes by the loss on the way to us, those it receives by the loss it
//! reports and by how far the layer it gets is below the one it wants. Muted and disabled tracks do not count.

use crate::base::MediaKind;
use crate::room::downtrack::Downtrack;
use crate::room::layer::Layer;
use crate::room::participant::Participant;
use crate::room::track::Track;
use crate::room::{DowntrackKey, TrackKey};
use slotmap::SlotMap;

/// Points lost for 1 % of loss.
const AUDIO_LOSS: u32 = 8;
const VIDEO_LOSS: u32 = 10;
/// Points lost for each layer below the wanted one.
const LAYER_MISS: u32 = 35;
/// Least score while packets flow.
const LEAST: u32 = 30;

/// Score of a stream that lost `fraction` (in 1/256) and runs `missed` layers below what is wanted.
pub fn score(kind: MediaKind, fraction: u8, missed: u8) -> u8 {
    let weight = if kind == MediaKind::Audio { AUDIO_LOSS } else { VIDEO_LOSS };
    let loss = u32::from(fraction) * 100 * weight / 256;
    let points = 100u32.saturating_sub(loss).saturating_sub(u32::from(missed) * LAYER_MISS);
    u8::try_from(points.max(LEAST)).unwrap_or(100)
}

/// The next value shown: bad news quickly, good news slowly.
pub fn smooth(before: Option<u8>, score: u8) -> u8 {
    let Some(before) = before else { return score };
    let (old, new) = (u32::from(before), u32::from(score));
    let tenths = if new < old { 8 } else { 4 };
    let mean = (old * (10 - tenths) + new * tenths).div_ceil(10);
    u8::try_from(mean).unwrap_or(100)
}

/// The score of a participant now; `None` when nothing flows from or to it.
pub(super) fn judge(
    participant: &Participant,
    tracks: &SlotMap<TrackKey, Track>,
    downtracks: &SlotMap<DowntrackKey, Downtrack>,
) -> Option<u8> {
    let up = participant.tracks.iter().filter_map(|key| tracks.get(*key)).filter_map(judge_track);
    let down = participant.downtracks.iter().filter_map(|key| {
        let downtrack = downtracks.get(*key)?;
        judge_downtrack(downtrack, tracks.get(downtrack.track)?)
    });
    up.chain(down).min()
}

fn judge_track(track: &Track) -> Option<u8> {
    let flows = track.layers.iter().any(Layer::is_flowing);
    (flows && !track.muted).then(|| score(track.kind, track.fraction_lost, 0))
}

fn judge_downtrack(downtrack: &Downtrack, track: &Track) -> Option<u8> {
    if !downtrack.demand.enabled || track.muted || !downtrack.connected {
        return None;
    }
    let missed = match downtrack.current() {
        Some(current) => downtrack.demand.max_spatial.min(track.best_encoding(track.top())).saturating_sub(current),
        None => return None,
    };
    Some(score(track.kind, downtrack.fraction_lost, missed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_costs_points_and_speech_more_than_half_of_them_at_five_percent() {
        assert_eq!(score(MediaKind::Audio, 0, 0), 100);
        assert_eq!(score(MediaKind::Audio, 13, 0), 60, "5 %");
        assert_eq!(score(MediaKind::Video, 13, 0), 50);
        assert_eq!(score(MediaKind::Video, 255, 2), 30, "what flows is never lost altogether");
        assert_eq!(score(MediaKind::Video, 0, 1), 65);
    }

    #[test]
    fn bad_news_travels_faster() {
        assert_eq!(smooth(None, 50), 50);
        assert_eq!(smooth(Some(100), 50), 60);
        assert_eq!(smooth(Some(50), 100), 70);
        assert_eq!(smooth(Some(99), 100), 100, "gets to the top in the end");
    }
}
