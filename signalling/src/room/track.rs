//! A published track and its downtracks.

use std::collections::BTreeSet;

use livekit_protocol as proto;

use super::dynacast::{Dynacast, Wants};
use super::settings::{Settings, layers_of};
use crate::media::{Demand, DowntrackId, DowntrackParams, MediaKind, ParticipantId, TrackId, TrackParams};
use crate::sdp::SectionCodec;

/// One published audio or video source.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) id: TrackId,
    pub(super) publisher: ParticipantId,
    pub(super) kind: MediaKind,
    /// The client's own id for it.
    pub(super) cid: String,
    /// How clients see it. `info.encryption` is the publisher's word, never ours.
    pub(super) info: proto::TrackInfo,
    pub(super) params: TrackParams,
    /// What the publisher may send, preferred one first.
    pub(super) codecs: Vec<SectionCodec>,
    pub(super) downtracks: BTreeSet<DowntrackId>,
    /// Those who were there when it was published have been told of it.
    pub(super) told: bool,
    /// The publisher has been told that somebody subscribes.
    pub(super) told_subscribed: bool,
    /// What its downtracks want, taken together.
    pub(super) wants: Wants,
    pub(super) dynacast: Dynacast,
    /// Audio level as last reported, 0.0 when silent.
    pub(super) level: f32,
}

/// One track as sent to one subscriber, from the moment it is wanted.
#[derive(Debug)]
pub(super) struct Downtrack {
    pub(super) subscriber: ParticipantId,
    pub(super) track: TrackId,
    pub(super) kind: MediaKind,
    pub(super) ssrc: u32,
    pub(super) rtx_ssrc: Option<u32>,
    /// It has a media section.
    pub(super) bound: bool,
    /// What the media plane was told, once it flows.
    pub(super) params: Option<DowntrackParams>,
    pub(super) settings: Option<Settings>,
    pub(super) demand: Demand,
    /// Paused for lack of bandwidth.
    pub(super) paused: bool,
}

impl Track {
    pub(super) fn sid(&self) -> &str {
        &self.info.sid
    }

    pub(super) fn is_screen(&self) -> bool {
        self.info.source == proto::TrackSource::ScreenShare as i32
    }

    /// Spatial layers it may have, at least one.
    pub(super) fn spatial_layers(&self) -> usize {
        if self.kind == MediaKind::Audio {
            return 1;
        }
        let encodings = self.params.encodings.len();
        let layers = layers_of(self).len();
        if encodings > 1 { encodings.min(3) } else { self.svc_layers().unwrap_or(1).min(layers.clamp(1, 3)) }
    }

    /// Layers inside one encoding.
    fn svc_layers(&self) -> Option<usize> {
        let mode = self.info.codecs.first()?.video_layer_mode;
        (mode == i32::from(proto::video_layer::Mode::MultipleSpatialLayersPerStream)).then(|| layers_of(self).len())
    }
}

/// Letters after `TR_` that tell kind and source.
pub(super) fn sid_infix(kind: MediaKind, source: i32) -> &'static str {
    use proto::TrackSource as Source;
    let source = Source::try_from(source).unwrap_or(Source::Unknown);
    match (kind, source) {
        (MediaKind::Audio, Source::Microphone) => "AM",
        (MediaKind::Audio, Source::ScreenShareAudio) => "As",
        (MediaKind::Audio, _) => "A",
        (MediaKind::Video, Source::Camera) => "VC",
        (MediaKind::Video, Source::ScreenShare) => "VS",
        (MediaKind::Video, _) => "V",
    }
}
