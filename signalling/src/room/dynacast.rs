//! Telling publishers which of their encodings anybody wants (`subscribed_quality_update`), so that they can rest the
//! others. More is told at once, less only when it has lasted.

use std::time::Duration;

use livekit_protocol as proto;
use proto::VideoQuality as Quality;

use super::cx::{Cx, Message};
use super::settings::layers_of;
use super::track::Track;
use super::{Room, Timer};
use crate::media::{Demand, MediaKind, TrackId};

/// A publisher that has not been told anything by then is.
const FIRST_UPDATE: Duration = Duration::from_secs(10);

/// What the publisher of a track encodes, as far as it was told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dynacast {
    /// Highest quality wanted; `Off`: none. A new track encodes everything.
    told: Quality,
    /// It was told at least once.
    said: bool,
    kind: MediaKind,
}

impl Dynacast {
    pub(super) const fn new(kind: MediaKind) -> Self {
        Self { told: Quality::High, said: false, kind }
    }
}

/// How many downtracks want a track up to which spatial layer: kept, because one of a thousand subscribers must not have
/// the others looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wants([u32; 4]);

impl Wants {
    fn place(&mut self, demand: Demand) -> Option<&mut u32> {
        let top = self.0.len() - 1;
        let index = usize::from(demand.max_spatial).min(top);
        self.0.get_mut(index).filter(|_| demand.enabled)
    }

    pub(super) fn add(&mut self, demand: Demand) {
        if let Some(count) = self.place(demand) {
            *count += 1;
        }
    }

    pub(super) fn remove(&mut self, demand: Demand) {
        if let Some(count) = self.place(demand) {
            *count = count.saturating_sub(1);
        }
    }

    /// The highest layer anybody wants; `None`: nobody wants anything.
    fn top(&self) -> Option<usize> {
        self.0.iter().rposition(|count| *count > 0)
    }
}

/// Order of qualities with `Off` at the bottom.
const fn rank(quality: Quality) -> u8 {
    match quality {
        Quality::Off => 0,
        Quality::Low => 1,
        Quality::Medium => 2,
        Quality::High => 3,
    }
}

impl Room {
    /// A track was published: its publisher hears about it within ten seconds.
    pub(super) fn watch_dynacast(&mut self, cx: &Cx<'_>, track: TrackId) {
        if self.tracks.get(&track).is_some_and(|track| track.kind == MediaKind::Video) {
            self.timers.set(Timer::Dynacast(track), cx.after(FIRST_UPDATE));
        }
    }

    /// Somebody began or ceased to want something of a track.
    pub(super) fn demand_changed(&mut self, cx: &mut Cx<'_>, track: TrackId) {
        let Some(entry) = self.tracks.get(&track) else { return };
        if entry.dynacast.kind != MediaKind::Video {
            return;
        }
        let (wanted, told, said) = (rank(wanted_quality(entry)), rank(entry.dynacast.told), entry.dynacast.said);
        let timer = Timer::Dynacast(track);
        if wanted > told {
            self.send_dynacast(cx, track);
        } else if wanted < told {
            // Before the first update only that one is awaited: subscribers are still arriving.
            self.timers.set_if_idle(timer, cx.after(self.config.dynacast_pause_delay));
        } else if said {
            self.timers.cancel(timer);
        }
    }

    pub(super) fn send_dynacast(&mut self, cx: &mut Cx<'_>, track: TrackId) {
        self.timers.cancel(Timer::Dynacast(track));
        let Some(wanted) = self.tracks.get(&track).map(wanted_quality) else { return };
        let Some(entry) = self.tracks.get_mut(&track) else { return };
        if entry.dynacast.said && entry.dynacast.told == wanted {
            return;
        }
        let Some(publisher) = self.participants.get(&entry.publisher) else { return };
        // While it is away nothing is said; it is told when it comes back.
        let Some(connection) = publisher.connection else { return };
        entry.dynacast.told = wanted;
        entry.dynacast.said = true;
        cx.send(Some(connection), Message::SubscribedQualityUpdate(quality_update(entry, wanted)));
    }

    /// After a resume: what was told may have been lost.
    pub(super) fn repeat_dynacast(&mut self, cx: &mut Cx<'_>, id: crate::media::ParticipantId) {
        let tracks = self.participants.get(&id).map(|participant| participant.tracks.clone()).unwrap_or_default();
        for track in tracks {
            if let Some(entry) = self.tracks.get_mut(&track).filter(|entry| entry.kind == MediaKind::Video) {
                let said = std::mem::take(&mut entry.dynacast.said);
                if said {
                    self.send_dynacast(cx, track);
                } else {
                    self.timers.set_if_idle(Timer::Dynacast(track), cx.after(FIRST_UPDATE));
                }
            }
        }
    }
}

fn wanted_quality(track: &Track) -> Quality {
    let Some(spatial) = track.wants.top() else { return Quality::Off };
    // The top layer is always "high": clients number the only layer of a track as they like.
    if spatial + 1 >= track.spatial_layers() {
        return Quality::High;
    }
    let quality =
        layers_of(track).get(spatial).map_or_else(|| i32::try_from(spatial).unwrap_or(2), |layer| layer.quality);
    Quality::try_from(quality).unwrap_or(Quality::High)
}

fn quality_update(track: &Track, wanted: Quality) -> proto::SubscribedQualityUpdate {
    let qualities = |wanted: Quality| -> Vec<proto::SubscribedQuality> {
        let all = [Quality::Low, Quality::Medium, Quality::High];
        let entry = |quality: Quality| proto::SubscribedQuality {
            quality: quality.into(),
            enabled: rank(quality) <= rank(wanted),
        };
        all.into_iter().map(entry).collect()
    };
    let short = |mime: &str| mime.rsplit('/').next().unwrap_or(mime).to_ascii_lowercase();
    let primary = short(&track.info.mime_type);
    let mut codecs = vec![proto::SubscribedCodec { codec: primary.clone(), qualities: qualities(wanted) }];
    // Backup codecs are never wanted: one codec per track reaches everybody here or is refused.
    let backups = track.info.codecs.iter().skip(1).map(|codec| short(&codec.mime_type));
    codecs.extend(
        backups
            .filter(|codec| *codec != primary)
            .map(|codec| proto::SubscribedCodec { codec, qualities: qualities(Quality::Off) }),
    );
    let mut update = proto::SubscribedQualityUpdate { track_sid: track.sid().to_owned(), ..Default::default() };
    update.subscribed_codecs = codecs;
    #[allow(deprecated, reason = "old clients read it")]
    {
        update.subscribed_qualities = qualities(wanted);
    }
    update
}
