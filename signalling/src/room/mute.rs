//! Changes of a published track: muted, resized, described anew.

use livekit_protocol as proto;
use proto::request_response::{Reason, Request};

use super::Room;
use super::cx::{Cx, Message};
use super::publish::{clean_layers, version_at};
use super::track::Track;
use super::update::Urgency;
use crate::media::{MediaCommand, ParticipantId, TrackId};

/// Features of one track that are kept.
const MAX_FEATURES: usize = 16;

impl Room {
    pub(super) fn handle_mute(&mut self, cx: &mut Cx<'_>, id: ParticipantId, request: proto::MuteTrackRequest) {
        let muted = request.muted;
        if let Some(track) = self.own_track(id, &request.sid) {
            if self.set_muted(cx, track, muted) {
                self.changed_by_itself(cx, id);
            }
            return;
        }
        let Some(participant) = self.participants.get_mut(&id) else { return };
        match participant.pending.iter_mut().find(|pending| pending.info.sid == request.sid) {
            Some(pending) => pending.info.muted = muted,
            None => self.respond(cx, id, 0, Reason::NotFound, "no such track", Some(Request::Mute(request))),
        }
    }

    /// Mutes or unmutes for everybody. False if it was so already.
    pub(super) fn set_muted(&mut self, cx: &mut Cx<'_>, track: TrackId, muted: bool) -> bool {
        let Some(entry) = self.tracks.get_mut(&track) else { return false };
        if entry.info.muted == muted {
            return false;
        }
        entry.info.muted = muted;
        entry.info.version = Some(version_at(cx));
        entry.params.muted = muted;
        cx.media(MediaCommand::SetMuted { track, muted });
        true
    }

    /// The server API mutes: the client mutes itself, so that its user sees it.
    pub(super) fn mute_remotely(&mut self, cx: &mut Cx<'_>, id: ParticipantId, track: TrackId, muted: bool) {
        let Some(sid) = self.tracks.get(&track).map(|track| track.sid().to_owned()) else { return };
        // First the order, then the news: a client that hears of it first would contradict.
        cx.send(self.connection_of(id), Message::Mute(proto::MuteTrackRequest { sid, muted }));
        if self.set_muted(cx, track, muted) {
            self.changed(cx, id, Urgency::Soon);
        }
    }

    pub(super) fn handle_layers(&mut self, cx: &mut Cx<'_>, id: ParticipantId, request: proto::UpdateVideoLayers) {
        let Some(track) = self.own_track(id, &request.track_sid) else { return };
        self.describe(cx, id, track, |track| {
            let layers = clean_layers(&request.layers);
            if let Some(top) = layers.last() {
                (track.info.width, track.info.height) = (top.width, top.height);
            }
            #[allow(deprecated, reason = "old clients read it")]
            {
                track.info.layers = layers;
            }
        });
    }

    pub(super) fn handle_audio_track(
        &mut self,
        cx: &mut Cx<'_>,
        id: ParticipantId,
        request: proto::UpdateLocalAudioTrack,
    ) {
        let Some(track) = self.own_track(id, &request.track_sid) else {
            self.respond(cx, id, 0, Reason::NotFound, "no such track", Some(Request::UpdateAudioTrack(request)));
            return;
        };
        self.describe(cx, id, track, |track| {
            let mut features: Vec<_> = request.features.iter().copied().take(MAX_FEATURES).collect();
            features.sort_unstable();
            features.dedup();
            track.info.audio_features = features;
        });
    }

    pub(super) fn handle_video_track(
        &mut self,
        cx: &mut Cx<'_>,
        id: ParticipantId,
        request: proto::UpdateLocalVideoTrack,
    ) {
        let Some(track) = self.own_track(id, &request.track_sid) else {
            self.respond(cx, id, 0, Reason::NotFound, "no such track", Some(Request::UpdateVideoTrack(request)));
            return;
        };
        self.describe(cx, id, track, |track| {
            (track.info.width, track.info.height) = (request.width, request.height);
        });
    }

    /// Changes what is said about a track, and tells everybody.
    fn describe(&mut self, cx: &mut Cx<'_>, id: ParticipantId, track: TrackId, change: impl FnOnce(&mut Track)) {
        let Some(entry) = self.tracks.get_mut(&track) else { return };
        let before = entry.info.clone();
        change(entry);
        if entry.info != before {
            entry.info.version = Some(version_at(cx));
            self.changed(cx, id, Urgency::Soon);
            self.layers_changed(cx, track);
        }
    }

    /// A published track by sid, if it is this participant's.
    pub(super) fn own_track(&self, id: ParticipantId, sid: &str) -> Option<TrackId> {
        let track = self.track_sids.get(sid)?;
        self.tracks.get(track).filter(|track| track.publisher == id).map(|track| track.id)
    }
}
