//! Active speakers: the media plane says how loud tracks are, clients are told about those they hear, and themselves.

use std::collections::{BTreeMap, BTreeSet};

use livekit_protocol as proto;

use super::Room;
use super::api::ConnectionId;
use super::cx::{Cx, Message};
use crate::media::{MediaKind, ParticipantId, TrackId};

/// Levels are told in eighths: a meter needs no more, and fewer steps are fewer messages.
const STEPS: f32 = 8.0;

impl Room {
    pub(super) fn speakers_changed(&mut self, cx: &mut Cx<'_>, levels: &[(TrackId, f32)]) {
        let mut changed = BTreeSet::new();
        for (track, level) in levels {
            let Some(entry) = self.tracks.get_mut(track) else { continue };
            let level = if level.is_finite() { (level.clamp(0.0, 1.0) * STEPS).ceil() / STEPS } else { 0.0 };
            if (entry.level - level).abs() > f32::EPSILON {
                entry.level = level;
                changed.insert(entry.publisher);
            }
        }
        if !changed.is_empty() {
            self.tell_speakers(cx, &changed);
        }
    }

    /// One message for all who hear the same ones.
    fn tell_speakers(&self, cx: &mut Cx<'_>, changed: &BTreeSet<ParticipantId>) {
        let mut groups: BTreeMap<Vec<ParticipantId>, Vec<ConnectionId>> = BTreeMap::new();
        let speakers: Vec<_> = changed.iter().map(|speaker| (*speaker, self.audio_of(*speaker))).collect();
        for participant in self.participants.values() {
            let Some(connection) = participant.connection else { continue };
            let hears = |(speaker, audio): &(ParticipantId, Vec<TrackId>)| {
                *speaker == participant.id || audio.iter().any(|track| participant.downtracks.contains_key(track))
            };
            let heard: Vec<_> = speakers.iter().filter(|one| hears(one)).map(|(speaker, _)| *speaker).collect();
            if !heard.is_empty() {
                groups.entry(heard).or_default().push(connection);
            }
        }
        for (speakers, to) in groups {
            let speakers = speakers.into_iter().filter_map(|speaker| self.speaker(speaker)).collect();
            cx.send_many(to, Message::SpeakersChanged(proto::SpeakersChanged { speakers }));
        }
    }

    fn hears(&self, listener: ParticipantId, speaker: ParticipantId) -> bool {
        if listener == speaker {
            return true;
        }
        let listener = self.participants.get(&listener);
        listener.is_some_and(|one| self.audio_of(speaker).iter().any(|track| one.downtracks.contains_key(track)))
    }

    fn audio_of(&self, speaker: ParticipantId) -> Vec<TrackId> {
        let tracks = self.participants.get(&speaker).into_iter().flat_map(|speaker| &speaker.tracks);
        let is_audio = |track: &TrackId| self.tracks.get(track).is_some_and(|track| track.kind == MediaKind::Audio);
        tracks.copied().filter(is_audio).collect()
    }

    /// A participant is as loud as its loudest track.
    fn speaker(&self, id: ParticipantId) -> Option<proto::SpeakerInfo> {
        let participant = self.participants.get(&id)?;
        let tracks = participant.tracks.iter().filter_map(|track| self.tracks.get(track));
        let level = tracks.map(|track| track.level).fold(0.0, f32::max);
        Some(proto::SpeakerInfo { sid: participant.sid.clone(), level, active: level > 0.0 })
    }

    /// Whoever no longer gets a speaking track must not see it speak for ever.
    pub(super) fn silence(&self, cx: &mut Cx<'_>, listener: ParticipantId, track: TrackId) {
        let Some(track) = self.tracks.get(&track).filter(|track| track.level > 0.0) else { return };
        let (Some(listener), Some(speaker)) =
            (self.participants.get(&listener), self.participants.get(&track.publisher))
        else {
            return;
        };
        let speakers = vec![proto::SpeakerInfo { sid: speaker.sid.clone(), level: 0.0, active: false }];
        cx.send(listener.connection, Message::SpeakersChanged(proto::SpeakersChanged { speakers }));
    }

    /// Whoever starts to get a speaking track sees it speak from the start.
    pub(super) fn introduce_speaker(&self, cx: &mut Cx<'_>, listener: ParticipantId, track: TrackId) {
        let Some(track) = self.tracks.get(&track).filter(|track| track.level > 0.0) else { return };
        if let Some(speaker) = self.speaker(track.publisher) {
            let changed = proto::SpeakersChanged { speakers: vec![speaker] };
            cx.send(self.connection_of(listener), Message::SpeakersChanged(changed));
        }
    }

    /// Everybody it hears, for a resume.
    pub(super) fn repeat_speakers(&self, cx: &mut Cx<'_>, listener: ParticipantId) {
        let Some(participant) = self.participants.get(&listener) else { return };
        let heard = self.participants.keys().filter(|speaker| self.hears(listener, **speaker));
        let speakers: Vec<_> = heard.filter_map(|speaker| self.speaker(*speaker)).collect();
        if !speakers.is_empty() {
            cx.send(participant.connection, Message::SpeakersChanged(proto::SpeakersChanged { speakers }));
        }
    }
}
