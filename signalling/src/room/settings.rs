//! What a subscriber says about a track it gets (size, quality, frame rate, hidden), turned into a demand.

use std::time::Duration;

use livekit_protocol as proto;

use super::cx::Cx;
use super::track::Track;
use super::{Room, Task, Timer};
use crate::media::{Demand, DowntrackId, MediaCommand, MediaKind, ParticipantId};

/// Settings are collected this long: a window being resized says a lot. Becoming visible waits for nothing.
const COLLECT: Duration = Duration::from_millis(100);
/// Heights of layers nobody described, lowest first; the top one is the track's own.
const USUAL_HEIGHTS: [u32; 2] = [180, 360];
/// Served first when bandwidth is short: what is on a screen is read, not watched.
const SCREEN_PRIORITY: u8 = 255;

/// The last `UpdateTrackSettings` about a track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) disabled: bool,
    pub(super) quality: i32,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) fps: u32,
    pub(super) priority: u32,
}

impl Room {
    pub(super) fn handle_settings(&mut self, cx: &mut Cx<'_>, id: ParticipantId, request: &proto::UpdateTrackSettings) {
        let settings = Settings {
            disabled: request.disabled,
            quality: request.quality,
            width: request.width,
            height: request.height,
            fps: request.fps,
            priority: request.priority,
        };
        for sid in request.track_sids.iter().take(self.config.limits.list_entries) {
            let Some(track) = self.track_sids.get(sid).copied() else { continue };
            let Some(participant) = self.participants.get_mut(&id) else { return };
            let Some(downtrack) = participant.downtracks.get(&track).copied() else { continue };
            let Some(entry) = self.downtracks.get_mut(&downtrack) else { continue };
            let hidden_before = !entry.demand.enabled;
            entry.settings = Some(settings);
            if hidden_before && !settings.is_off() {
                participant.unapplied.remove(&downtrack);
                self.apply_demand(cx, downtrack);
            } else {
                participant.unapplied.insert(downtrack);
                self.timers.set_if_idle(Timer::Of(id, Task::Settings), cx.after(COLLECT));
            }
        }
    }

    pub(super) fn apply_settings(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        let participant = self.participants.get_mut(&id);
        let unapplied = participant.map(|participant| std::mem::take(&mut participant.unapplied)).unwrap_or_default();
        for downtrack in unapplied {
            self.apply_demand(cx, downtrack);
        }
    }

    /// Works the demand out anew, from the settings and from what the track has.
    pub(super) fn apply_demand(&mut self, cx: &mut Cx<'_>, downtrack: DowntrackId) {
        let Some(entry) = self.downtracks.get_mut(&downtrack) else { return };
        let Some(track) = self.tracks.get(&entry.track) else { return };
        let adaptive = self.participants.get(&entry.subscriber).is_some_and(|one| one.options.adaptive_stream);
        let demand =
            entry.settings.map_or_else(|| initial_demand(track, adaptive), |settings| demand(track, &settings));
        let limit = self.participants.get(&track.publisher).and_then(|publisher| publisher.video_limit);
        let demand = limited(demand, track, limit);
        if entry.demand == demand {
            return;
        }
        let before = std::mem::replace(&mut entry.demand, demand);
        let track = entry.track;
        if let Some(track) = self.tracks.get_mut(&track) {
            track.wants.remove(before);
            track.wants.add(demand);
        }
        if let Some(params) = &mut entry.params {
            params.demand = demand;
            cx.media(MediaCommand::SetDemand { downtrack, demand });
        }
        self.demand_changed(cx, track);
    }

    /// What somebody publishes is sent up to this layer from now on. Its publisher is told at once: it is about what
    /// comes in as well.
    pub(super) fn limit_video(&mut self, cx: &mut Cx<'_>, id: ParticipantId, max_spatial: Option<u8>) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        participant.video_limit = max_spatial;
        for track in participant.tracks.clone() {
            if self.tracks.get(&track).is_some_and(|track| track.kind == MediaKind::Video) {
                self.layers_changed(cx, track);
                self.send_dynacast(cx, track);
            }
        }
    }

    /// The layers of a track were described anew.
    pub(super) fn layers_changed(&mut self, cx: &mut Cx<'_>, track: crate::media::TrackId) {
        let downtracks = self.tracks.get(&track).map(|track| track.downtracks.clone()).unwrap_or_default();
        for downtrack in downtracks {
            self.apply_demand(cx, downtrack);
        }
    }
}

impl Settings {
    const fn is_off(&self) -> bool {
        self.disabled || self.quality == proto::VideoQuality::Off as i32
    }
}

/// What is wanted before the subscriber said anything: clients that will say get the least.
pub(super) fn initial_demand(track: &Track, adaptive: bool) -> Demand {
    let top = track.spatial_layers().saturating_sub(1);
    let spatial = if adaptive { 0 } else { top };
    Demand { enabled: true, max_spatial: small(spatial), max_temporal: u8::MAX, priority: usual_priority(track) }
}

/// No more than what may be sent of this publisher.
pub(super) fn limited(demand: Demand, track: &Track, limit: Option<u8>) -> Demand {
    match limit {
        Some(most) if track.kind == MediaKind::Video => Demand { max_spatial: demand.max_spatial.min(most), ..demand },
        _ => demand,
    }
}

fn demand(track: &Track, settings: &Settings) -> Demand {
    let priority = u8::try_from(settings.priority.min(255)).unwrap_or(u8::MAX);
    Demand {
        enabled: !settings.is_off(),
        max_spatial: small(wanted_spatial(track, settings)),
        max_temporal: wanted_temporal(settings.fps),
        priority: if priority == 0 { usual_priority(track) } else { priority },
    }
}

fn usual_priority(track: &Track) -> u8 {
    if track.kind == MediaKind::Audio || track.is_screen() { SCREEN_PRIORITY } else { 1 }
}

/// A size beats a quality. The first layer that is at least nine tenths as high as the window will do.
fn wanted_spatial(track: &Track, settings: &Settings) -> usize {
    let count = track.spatial_layers();
    let top = count.saturating_sub(1);
    if track.kind == MediaKind::Audio {
        return 0;
    }
    if settings.width > 0 && settings.height > 0 {
        let enough = |have: u32, want: u32| u64::from(have) * 10 >= u64::from(want) * 9;
        return (0..count)
            .find(|index| {
                let (have, want) = extent(track, *index, count, settings);
                enough(have, want)
            })
            .unwrap_or(top);
    }
    // Without a size: the best layer of at most the quality asked for.
    let layers = layers_of(track);
    if settings.quality >= i32::from(proto::VideoQuality::High) {
        return top;
    }
    match layers.iter().take(count).rposition(|layer| layer.quality <= settings.quality) {
        Some(index) if layers.len() >= count => index.min(top),
        _ => usize::try_from(settings.quality).unwrap_or(0).min(top),
    }
}

/// What a layer has and what is wanted, in the same dimension: heights, or widths of a portrait of unknown layers.
fn extent(track: &Track, index: usize, count: usize, settings: &Settings) -> (u32, u32) {
    match layers_of(track).get(index) {
        Some(layer) if layer.height > 0 => (layer.height, settings.height),
        _ => {
            let portrait = track.info.height > track.info.width;
            let (own, want) =
                if portrait { (track.info.width, settings.width) } else { (track.info.height, settings.height) };
            let have = if index + 1 == count { own } else { USUAL_HEIGHTS.get(index).copied().unwrap_or(own) };
            (have, want)
        }
    }
}

pub(super) fn layers_of(track: &Track) -> &[proto::VideoLayer] {
    #[allow(deprecated, reason = "old clients write it, and the server keeps it filled")]
    &track.info.layers
}

/// Clients encode about 30 frames in three temporal layers, each half of the next.
const fn wanted_temporal(fps: u32) -> u8 {
    match fps {
        1..=8 => 0,
        9..=16 => 1,
        _ => u8::MAX,
    }
}

fn small(index: usize) -> u8 {
    u8::try_from(index).unwrap_or(u8::MAX)
}
