//! Subscriptions: who wants which track, who may have it, and the downtracks that come of it.

use std::collections::VecDeque;

use livekit_protocol as proto;

use super::Room;
use super::api::Generation;
use super::cx::{Cx, Message};
use super::leg::{Content, OfferUse, lane};
use super::participant::{Participant, Wish};
use super::settings;
use super::track::{Downtrack, Track};
use super::{Task, Timer};
use crate::media::{DowntrackId, DowntrackParams, MediaCommand, MediaKind, ParticipantId, TrackId, TransportId};
use crate::sdp::{self, Direction, NegotiatedSection, SendPlan};

/// What keeps a wanted track from its subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Yes,
    NotWanted,
    /// The publisher does not let it.
    Denied,
    /// Something that may pass without anybody being told.
    No,
}

impl Room {
    pub(super) fn handle_subscription(
        &mut self,
        cx: &mut Cx<'_>,
        id: ParticipantId,
        request: &proto::UpdateSubscription,
    ) {
        let sids = listed(request.track_sids.iter(), &request.participant_tracks);
        self.wish(cx, id, sids, request.subscribe);
    }

    /// Notes explicit wishes of a participant and acts on them.
    pub(super) fn wish<'s>(
        &mut self,
        cx: &mut Cx<'_>,
        id: ParticipantId,
        sids: impl Iterator<Item = &'s String>,
        subscribe: bool,
    ) {
        let limits = self.config.limits.clone();
        let since = cx.mono();
        let mut known = Vec::new();
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let mut unknown = participant.wishes.keys().filter(|sid| !self.track_sids.contains_key(*sid)).count();
        for sid in sids.take(limits.list_entries) {
            match self.track_sids.get(sid) {
                Some(track) => {
                    participant.unsupported.remove(track);
                    known.push(*track);
                }
                None if sid.len() > limits.name || unknown >= limits.wishes => continue,
                None => unknown += usize::from(!participant.wishes.contains_key(sid)),
            }
            participant.wishes.insert(sid.clone(), Wish { subscribe, since });
        }
        if unknown > 0 {
            self.timers.set_if_idle(Timer::Of(id, Task::Wishes), cx.after(self.config.subscribe_timeout));
        }
        for track in known {
            self.reconcile(cx, id, track);
        }
    }

    /// Wishes for tracks that never came are reported and dropped.
    pub(super) fn expire_wishes(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        let (now, timeout) = (cx.mono(), self.config.subscribe_timeout);
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let mut next = None;
        let (mut expired, track_sids) = (Vec::new(), &self.track_sids);
        participant.wishes.retain(|sid, wish| {
            let due = wish.since.saturating_add(timeout);
            if track_sids.contains_key(sid) {
                return true;
            }
            if due <= now {
                expired.extend(wish.subscribe.then(|| sid.clone()));
                return false;
            }
            next = next.map_or(Some(due), |next: std::time::Duration| Some(next.min(due)));
            true
        });
        let connection = participant.connection;
        for track_sid in expired {
            let response =
                proto::SubscriptionResponse { track_sid, err: proto::SubscriptionError::SeTrackNotfound.into() };
            cx.send(connection, Message::SubscriptionResponse(response));
        }
        if let Some(next) = next {
            self.timers.set(Timer::Of(id, Task::Wishes), next);
        }
    }

    /// Looks at every track there is for one participant.
    pub(super) fn reconcile_subscriber(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        let tracks: Vec<_> = self.tracks.keys().copied().collect();
        for track in tracks {
            self.reconcile(cx, id, track);
        }
    }

    /// Looks at everybody for one track.
    pub(super) fn reconcile_track(&mut self, cx: &mut Cx<'_>, track: TrackId) {
        let everybody: Vec<_> = self.participants.keys().copied().collect();
        for id in everybody {
            self.reconcile(cx, id, track);
        }
    }

    /// Makes the downtrack be there exactly if it is wanted and allowed.
    fn reconcile(&mut self, cx: &mut Cx<'_>, id: ParticipantId, track: TrackId) {
        let Some(verdict) = self.judge(id, track) else { return };
        let existing = self.participants.get(&id).and_then(|participant| participant.downtracks.get(&track)).copied();
        match (verdict, existing) {
            (Verdict::Yes, None) => self.make_downtrack(cx, id, track),
            (Verdict::Yes, Some(_)) => {}
            (_, Some(downtrack)) => self.drop_downtrack(cx, downtrack, true),
            (_, None) => {}
        }
        self.tell_allowed(cx, id, track, verdict != Verdict::Denied);
    }

    fn judge(&self, id: ParticipantId, track: TrackId) -> Option<Verdict> {
        let (participant, track) = (self.participants.get(&id)?, self.tracks.get(&track)?);
        let publisher = self.participants.get(&track.publisher)?;
        let wanted =
            participant.wishes.get(track.sid()).map_or(participant.options.auto_subscribe, |wish| wish.subscribe);
        if !wanted || publisher.id == id {
            return Some(Verdict::NotWanted);
        }
        if !participant.grants.can_subscribe || publisher.is_hidden() || participant.unsupported.contains(&track.id) {
            return Some(Verdict::No);
        }
        // Later ones are told of it as they join. Ids go up.
        if !track.told && participant.id.0 < track.id.0 {
            return Some(Verdict::No);
        }
        if !publisher.allows(participant, track.sid()) {
            return Some(Verdict::Denied);
        }
        let has = participant.downtracks.contains_key(&track.id);
        if !has && participant.comeback.as_ref().is_some_and(|comeback| comeback.is_deaf) {
            return Some(Verdict::No);
        }
        Some(if has || self.has_room_for(participant, track.kind) { Verdict::Yes } else { Verdict::No })
    }

    fn has_room_for(&self, participant: &Participant, kind: MediaKind) -> bool {
        let limits = &self.config.limits;
        let of_kind = match kind {
            MediaKind::Audio => limits.audio_subscriptions,
            MediaKind::Video => limits.video_subscriptions,
        };
        if participant.downtracks.len() >= limits.subscriptions {
            return false;
        }
        let downtracks = participant.downtracks.values().filter_map(|downtrack| self.downtracks.get(downtrack));
        of_kind == 0 || downtracks.filter(|downtrack| downtrack.kind == kind).count() < of_kind
    }

    /// Tells a subscriber when its publisher's permission for a track it wants changes.
    fn tell_allowed(&mut self, cx: &mut Cx<'_>, id: ParticipantId, track: TrackId, allowed: bool) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let changed = if allowed { participant.denied.remove(&track) } else { participant.denied.insert(track) };
        let connection = participant.connection;
        if let (true, Some(track)) = (changed, self.tracks.get(&track))
            && let Some(publisher) = self.participants.get(&track.publisher)
        {
            let (participant_sid, track_sid) = (publisher.sid.clone(), track.sid().to_owned());
            let update = proto::SubscriptionPermissionUpdate { participant_sid, track_sid, allowed };
            cx.send(connection, Message::SubscriptionPermissionUpdate(update));
        }
    }

    fn make_downtrack(&mut self, cx: &mut Cx<'_>, id: ParticipantId, track: TrackId) {
        let publisher = self.tracks.get(&track).and_then(|entry| self.participants.get(&entry.publisher));
        let limit = publisher.and_then(|publisher| publisher.video_limit);
        let (Some(participant), Some(entry)) = (self.participants.get_mut(&id), self.tracks.get_mut(&track)) else {
            return;
        };
        let downtrack = self.ids.downtrack();
        let kind = entry.kind;
        participant.downtracks.insert(track, downtrack);
        entry.downtracks.insert(downtrack);
        let demand = settings::initial_demand(entry, participant.options.adaptive_stream);
        let demand = settings::limited(demand, entry, limit);
        entry.wants.add(demand);
        let rtx_ssrc = (kind == MediaKind::Video).then(|| self.ids.ssrc());
        let made = Downtrack {
            subscriber: id,
            track,
            kind,
            ssrc: self.ids.ssrc(),
            rtx_ssrc,
            bound: false,
            params: None,
            settings: None,
            demand,
            paused: false,
        };
        let hidden = participant.is_hidden();
        self.downtracks.insert(downtrack, made);
        if !hidden {
            self.tell_subscribed(cx, track);
        }
        self.introduce_speaker(cx, id, track);
        self.schedule_negotiation(cx, id);
    }

    /// The publisher learns that somebody listens, once per track.
    fn tell_subscribed(&mut self, cx: &mut Cx<'_>, track: TrackId) {
        let Some(entry) = self.tracks.get_mut(&track) else { return };
        if std::mem::replace(&mut entry.told_subscribed, true) {
            return;
        }
        let Some(publisher) = self.participants.get(&entry.publisher) else { return };
        if publisher.protocol() >= 10 {
            let message = proto::TrackSubscribed { track_sid: entry.sid().to_owned() };
            cx.send(publisher.connection, Message::TrackSubscribed(message));
        }
    }

    /// Downtracks without a section, oldest first: audio, video.
    pub(super) fn waiting(&self, id: ParticipantId) -> [VecDeque<DowntrackId>; 2] {
        let mut waiting = [VecDeque::new(), VecDeque::new()];
        let Some(participant) = self.participants.get(&id) else { return waiting };
        let mut downtracks: Vec<_> = participant.downtracks.values().copied().collect();
        downtracks.sort_unstable();
        for downtrack in downtracks {
            let Some(entry) = self.downtracks.get(&downtrack).filter(|entry| !entry.bound) else { continue };
            if let Some(queue) = waiting.get_mut(lane(entry.kind)) {
                queue.push_back(downtrack);
            }
        }
        waiting
    }

    /// How a downtrack is written into a description.
    pub(super) fn send_plan(&self, id: ParticipantId, downtrack: DowntrackId) -> Option<SendPlan> {
        let entry = self.downtracks.get(&downtrack)?;
        let track = self.tracks.get(&entry.track)?;
        let publisher = self.participants.get(&track.publisher)?;
        let subscriber = self.participants.get(&id)?;
        let stereo = i32::from(proto::AudioTrackFeature::TfStereo);
        Some(SendPlan {
            stream_id: self.stream_id(subscriber, publisher, track),
            track_id: track.sid().to_owned(),
            ssrc: entry.ssrc,
            rtx_ssrc: entry.rtx_ssrc,
            cname: publisher.sid.clone(),
            codecs: track.codecs.clone(),
            stereo: track.info.audio_features.contains(&stereo),
        })
    }

    /// Stream id of a track: clients find the participant and the track in it. Tracks of one source share it where the
    /// client can, because browsers synchronise the tracks of one stream.
    fn stream_id(&self, subscriber: &Participant, publisher: &Participant, track: &Track) -> String {
        let can_sync = self.config.sync_streams && subscriber.shares_streams();
        let source = proto::TrackSource::try_from(track.info.source).unwrap_or(proto::TrackSource::Unknown);
        let named = track.info.stream.as_str();
        let plain = |text: &str| text.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
        let stream = match source {
            _ if !can_sync => track.sid(),
            // A name that looks like a track sid would be taken for one.
            _ if !named.is_empty() && plain(named) && !named.starts_with("TR") => named,
            proto::TrackSource::Camera | proto::TrackSource::Microphone => "camera",
            proto::TrackSource::ScreenShare | proto::TrackSource::ScreenShareAudio => "screen",
            proto::TrackSource::Unknown => track.sid(),
        };
        format!("{}|{stream}", publisher.sid)
    }

    /// A downtrack was negotiated: the media plane begins, or learns what changed.
    pub(super) fn start_downtrack(
        &mut self,
        cx: &mut Cx<'_>,
        transport: TransportId,
        downtrack: DowntrackId,
        section: &NegotiatedSection,
    ) {
        let Some(entry) = self.downtracks.get_mut(&downtrack) else { return };
        let Some(track) = self.tracks.get(&entry.track) else { return };
        let payload_types = sdp::payload_maps(&track.codecs, &section.codecs);
        let primary = track.codecs.first().map(|codec| codec.payload_type);
        let decodable = payload_types.iter().any(|map| Some(map.from) == primary);
        if section.direction != Direction::SendOnly || section.rejected || !decodable {
            self.give_up_downtrack(cx, downtrack);
            return;
        }
        let publisher = self.participants.get(&track.publisher);
        let has_rtx = payload_types.iter().any(|map| map.rtx.is_some());
        let params = DowntrackParams {
            ssrc: entry.ssrc,
            rtx_ssrc: entry.rtx_ssrc.filter(|_| has_rtx),
            payload_types,
            extensions: section.extensions,
            mid: if section.extensions.mid.is_some() { section.mid.clone() } else { String::new() },
            cname: publisher.map(|publisher| publisher.sid.clone()).unwrap_or_default(),
            nack: section.nack,
            demand: entry.demand,
        };
        if entry.params.as_ref().is_none_or(|before| *before != params) {
            entry.params = Some(params.clone());
            cx.media(MediaCommand::Subscribe { transport, track: entry.track, downtrack, params });
            let track = entry.track;
            self.demand_changed(cx, track);
        }
    }

    /// The client cannot decode it.
    fn give_up_downtrack(&mut self, cx: &mut Cx<'_>, downtrack: DowntrackId) {
        let Some(entry) = self.downtracks.get(&downtrack) else { return };
        let (id, track) = (entry.subscriber, entry.track);
        if let (Some(participant), Some(track)) = (self.participants.get_mut(&id), self.tracks.get(&track)) {
            participant.unsupported.insert(track.id);
            let err = proto::SubscriptionError::SeCodecUnsupported.into();
            let response = proto::SubscriptionResponse { track_sid: track.sid().to_owned(), err };
            cx.send(participant.connection, Message::SubscriptionResponse(response));
        }
        self.drop_downtrack(cx, downtrack, true);
    }

    /// The client closed the section of a downtrack: it waits for another one.
    pub(super) fn unbind(&mut self, cx: &mut Cx<'_>, downtrack: DowntrackId) {
        if let Some(entry) = self.downtracks.get_mut(&downtrack) {
            entry.bound = false;
            if entry.params.take().is_some() {
                cx.media(MediaCommand::Unsubscribe { downtrack });
            }
        }
    }

    /// Ends a downtrack. `tell_media` is false where the media plane drops it by itself.
    pub(super) fn drop_downtrack(&mut self, cx: &mut Cx<'_>, downtrack: DowntrackId, tell_media: bool) {
        let Some(entry) = self.downtracks.remove(&downtrack) else { return };
        self.ids.release_ssrc(entry.ssrc);
        if let Some(ssrc) = entry.rtx_ssrc {
            self.ids.release_ssrc(ssrc);
        }
        if tell_media && entry.params.is_some() {
            cx.media(MediaCommand::Unsubscribe { downtrack });
        }
        if let Some(track) = self.tracks.get_mut(&entry.track) {
            track.downtracks.remove(&downtrack);
            track.wants.remove(entry.demand);
        }
        if let Some(participant) = self.participants.get_mut(&entry.subscriber) {
            participant.downtracks.remove(&entry.track);
            participant.unapplied.remove(&downtrack);
            vacate(participant, downtrack);
        }
        self.silence(cx, entry.subscriber, entry.track);
        self.demand_changed(cx, entry.track);
        if entry.bound {
            self.schedule_negotiation(cx, entry.subscriber);
        }
    }

    /// A track ends: nobody gets it any more. The media plane drops its downtracks with it.
    pub(super) fn drop_downtracks_of(&mut self, cx: &mut Cx<'_>, track: TrackId) {
        let downtracks = self.tracks.get(&track).map(|track| track.downtracks.clone()).unwrap_or_default();
        for downtrack in downtracks {
            self.drop_downtrack(cx, downtrack, false);
        }
    }

    /// A participant goes: it gets nothing any more. The media plane drops its downtracks with it.
    pub(super) fn drop_downtracks_to(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        let participant = self.participants.get_mut(&id);
        let downtracks = participant.map(|participant| participant.downtracks.clone()).unwrap_or_default();
        for downtrack in downtracks.into_values() {
            self.drop_downtrack(cx, downtrack, false);
        }
    }
}

/// The section of a downtrack that is gone.
fn vacate(participant: &mut Participant, downtrack: DowntrackId) {
    if participant.generation == Generation::V1 {
        let slots = &mut participant.publisher.slots;
        if let Some(slot) = slots.iter_mut().find(|slot| slot.content == Content::Downtrack(downtrack)) {
            slot.content = Content::Draining;
        }
    } else if let Some(subscriber) = &mut participant.subscriber {
        let slots = &mut subscriber.slots;
        if let Some(slot) = slots.iter_mut().find(|slot| slot.content == OfferUse::Downtrack(downtrack)) {
            slot.content = OfferUse::Draining;
        }
    }
}

/// Track sids of both forms a request can have.
pub(super) fn listed<'r>(
    sids: impl Iterator<Item = &'r String>,
    participants: &'r [proto::ParticipantTracks],
) -> impl Iterator<Item = &'r String> {
    sids.chain(participants.iter().flat_map(|tracks| &tracks.track_sids))
}
