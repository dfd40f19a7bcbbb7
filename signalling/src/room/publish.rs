//! Publishing: what a client announces (`add_track`), what becomes of it once it is negotiated, and its end.

use std::time::Duration;

use livekit_protocol as proto;
use proto::request_response::{Reason, Request};

use super::Room;
use super::api::Notice;
use super::cx::{Cx, Message};
use super::dynacast::{Dynacast, Wants};
use super::leg::Content;
use super::participant::{Participant, PendingTrack};
use super::track::{Track, sid_infix};
use super::update::Urgency;
use crate::media::{Codec, MediaCommand, MediaKind, ParticipantId, TrackId, TrackParams, TransportId};
use crate::sdp::{self, NegotiatedSection};

/// Clients give up publishing after this long without an answer or a negotiation.
const ANNOUNCEMENT_LIFE: Duration = Duration::from_secs(10);
/// Requests that may wait for an older track with the same client id to end.
const MAX_QUEUED: usize = 3;
/// Layers, codecs and features of one track that are kept.
const MAX_LAYERS: usize = 3;
const MAX_CODECS: usize = 4;
const MAX_FEATURES: usize = 16;

/// How an `add_track` was refused.
type Refused = (Reason, &'static str);

impl Room {
    pub(super) fn handle_add_track(&mut self, cx: &mut Cx<'_>, id: ParticipantId, request: proto::AddTrackRequest) {
        match self.add_track(cx, id, &request) {
            Ok(()) => {}
            Err((reason, message)) => {
                self.respond(cx, id, 0, reason, message, Some(Request::AddTrack(request)));
            }
        }
    }

    fn add_track(
        &mut self,
        cx: &mut Cx<'_>,
        id: ParticipantId,
        request: &proto::AddTrackRequest,
    ) -> Result<(), Refused> {
        let kind = self.check_add_track(id, request)?;
        let info = self.new_track_info(cx, kind, request);
        let Some(participant) = self.participants.get_mut(&id) else { return Ok(()) };
        let cid = client_id(request).to_owned();
        let now = cx.mono();
        // Announced again after the client's own patience ended: the older one will never be negotiated.
        participant.pending.retain(|one| one.cid != cid || now.saturating_sub(one.since) < ANNOUNCEMENT_LIFE);
        let published = participant.tracks.iter().filter_map(|track| self.tracks.get(track));
        let mut taken = published.map(|track| track.cid.as_str());
        let same: Vec<_> = participant.pending.iter().filter(|pending| pending.cid == cid).collect();
        let queued = !same.is_empty() || taken.any(|taken| taken == cid);
        if queued && same.iter().filter(|pending| pending.queued).count() >= MAX_QUEUED {
            return Err((Reason::LimitExceeded, "too many tracks with this id"));
        }
        let answer = (!queued).then(|| info.clone());
        participant.pending.push(PendingTrack { cid: cid.clone(), kind, info, queued, since: now });
        let Some(track) = answer else {
            return Err((Reason::Queued, "waits for the track with this id to end"));
        };
        let response = proto::TrackPublishedResponse { cid, track: Some(track) };
        self.answer_add_track(cx, id, response);
        // The client may have negotiated the section before it announced the track.
        self.adopt_unannounced(cx, id);
        Ok(())
    }

    fn check_add_track(&self, id: ParticipantId, request: &proto::AddTrackRequest) -> Result<MediaKind, Refused> {
        let limits = &self.config.limits;
        let Some(participant) = self.participants.get(&id) else { return Err((Reason::NotFound, "not in the room")) };
        if !participant.may_publish(request.source) {
            return Err((Reason::NotAllowed, "not allowed to publish"));
        }
        let kind = match proto::TrackType::try_from(request.r#type) {
            Ok(proto::TrackType::Audio) => MediaKind::Audio,
            Ok(proto::TrackType::Video) => MediaKind::Video,
            _ => return Err((Reason::UnsupportedType, "not audio or video")),
        };
        if !request.sid.is_empty() {
            let known = self.track_sids.get(&request.sid).and_then(|track| self.tracks.get(track));
            return Err(match known.filter(|track| track.publisher == id) {
                // Second codecs of a track are never asked for, so nobody should offer one.
                Some(_) => (Reason::UnsupportedType, "a track has one codec here"),
                None => (Reason::NotFound, "no such track"),
            });
        }
        let texts = [client_id(request), &request.name, &request.stream];
        if texts.iter().any(|text| text.len() > limits.name) || client_id(request).is_empty() {
            return Err((Reason::LimitExceeded, "an id or a name is empty or too long"));
        }
        if participant.pending.len() >= limits.pending_tracks
            || participant.pending.len() + participant.tracks.len() >= limits.tracks
        {
            return Err((Reason::LimitExceeded, "too many tracks"));
        }
        Ok(kind)
    }

    fn new_track_info(&mut self, cx: &Cx<'_>, kind: MediaKind, request: &proto::AddTrackRequest) -> proto::TrackInfo {
        let primary = request.simulcast_codecs.first();
        let layers =
            if request.layers.is_empty() { primary.map_or(&[][..], |codec| &codec.layers) } else { &request.layers };
        let layers = if kind == MediaKind::Video { clean_layers(layers) } else { Vec::new() };
        let mime_type = self.mime_for(kind, primary.map_or("", |codec| codec.codec.as_str()));
        let mode = layer_mode(primary.map_or(0, |codec| codec.video_layer_mode), &mime_type);
        let svc = mode == i32::from(proto::video_layer::Mode::MultipleSpatialLayersPerStream);
        let mut codecs: Vec<_> = request.simulcast_codecs.iter().take(MAX_CODECS).map(codec_info).collect();
        if let Some(first) = codecs.first_mut() {
            first.mime_type.clone_from(&mime_type);
            first.layers.clone_from(&layers);
            first.video_layer_mode = mode;
        }
        let top = layers.last();
        let mut features: Vec<_> = request.audio_features.iter().copied().take(MAX_FEATURES).collect();
        let (legacy_stereo, legacy_no_dtx) = legacy_features(request);
        features.extend(legacy_stereo.then_some(i32::from(proto::AudioTrackFeature::TfStereo)));
        features.extend(legacy_no_dtx.then_some(i32::from(proto::AudioTrackFeature::TfNoDtx)));
        features.sort_unstable();
        features.dedup();
        let mut info = proto::TrackInfo {
            sid: self.ids.sid("TR", sid_infix(kind, request.source)),
            r#type: request.r#type,
            name: request.name.clone(),
            muted: request.muted,
            width: top.map_or(request.width, |layer| layer.width),
            height: top.map_or(request.height, |layer| layer.height),
            source: request.source,
            mime_type,
            codecs,
            disable_red: request.disable_red,
            encryption: request.encryption,
            stream: request.stream.clone(),
            version: Some(version_at(cx)),
            audio_features: features,
            backup_codec_policy: request.backup_codec_policy,
            packet_trailer_features: request.packet_trailer_features.iter().copied().take(MAX_FEATURES).collect(),
            ..Default::default()
        };
        #[allow(deprecated, reason = "old clients read them")]
        {
            info.simulcast = layers.len() > 1 && !svc;
            info.stereo = legacy_stereo;
            info.disable_dtx = legacy_no_dtx;
            info.layers = layers;
        }
        info
    }

    /// The mime type asked for, or the first one that is switched on here.
    fn mime_for(&self, kind: MediaKind, short: &str) -> String {
        if kind == MediaKind::Audio {
            return if short.is_empty() { "audio/opus".to_owned() } else { format!("audio/{}", bounded(short)) };
        }
        if short.is_empty() {
            return String::new();
        }
        let wanted = format!("video/{}", bounded(short).to_ascii_lowercase());
        let enabled = &self.config.enabled_codecs;
        let known = |mime: &&String| mime.starts_with("video/") && !mime.ends_with("/rtx");
        let mime = enabled.iter().filter(known).find(|mime| mime.eq_ignore_ascii_case(&wanted));
        let mime = mime.or_else(|| enabled.iter().find(known)).cloned().unwrap_or(wanted);
        match sdp::mime_of(sdp::codec_from_mime(&mime)) {
            "" => mime,
            written => written.to_owned(),
        }
    }

    /// Mime types that are switched off.
    pub(super) fn disabled_codecs(&self) -> Vec<String> {
        let all = ["audio/opus", "audio/red", "audio/PCMU", "audio/PCMA", "audio/G722"];
        let video = ["video/VP8", "video/VP9", "video/AV1", "video/H264", "video/H265"];
        let enabled = |mime: &str| self.config.enabled_codecs.iter().any(|on| on.eq_ignore_ascii_case(mime));
        all.into_iter().chain(video).filter(|mime| !enabled(mime)).map(str::to_owned).collect()
    }

    /// A negotiated section has become a track: tell the media plane, everybody, and subscribe who wants it.
    pub(super) fn publish(
        &mut self,
        cx: &mut Cx<'_>,
        id: ParticipantId,
        pending: PendingTrack,
        section: &NegotiatedSection,
    ) -> TrackId {
        let track = self.ids.track();
        let PendingTrack { cid, kind, mut info, .. } = pending;
        let preferred = section.codecs.first();
        if info.mime_type.is_empty()
            && let Some(codec) = preferred
        {
            let mime = sdp::mime_of(sdp::codec_of(section.kind, &codec.name));
            info.mime_type = if mime.is_empty() { format!("video/{}", codec.name) } else { mime.to_owned() };
        }
        info.mid.clone_from(&section.mid);
        if info.codecs.is_empty() {
            info.codecs.push(proto::SimulcastCodecInfo { cid: cid.clone(), ..Default::default() });
        }
        if let Some(first) = info.codecs.first_mut() {
            first.mime_type.clone_from(&info.mime_type);
            first.mid.clone_from(&section.mid);
        }
        let params = track_params(&info, kind, section);
        self.track_sids.insert(info.sid.clone(), track);
        let entry = Track {
            id: track,
            publisher: id,
            kind,
            cid,
            info,
            params: params.clone(),
            codecs: section.codecs.clone(),
            downtracks: std::collections::BTreeSet::new(),
            told: false,
            told_subscribed: false,
            wants: Wants::default(),
            dynacast: Dynacast::new(kind),
            level: 0.0,
        };
        self.tracks.insert(track, entry);
        if let Some(participant) = self.participants.get_mut(&id) {
            participant.tracks.insert(track);
            let transport = participant.publisher.leg.transport;
            cx.media(MediaCommand::Publish { transport, track, params });
        }
        track
    }

    /// After the answer went out: the others learn of new tracks, first by message, then by description.
    pub(super) fn announce_tracks(&mut self, cx: &mut Cx<'_>, id: ParticipantId, tracks: &[TrackId]) {
        if tracks.is_empty() {
            return;
        }
        for track in tracks {
            self.watch_dynacast(cx, *track);
            self.offer_when_told(*track);
        }
        self.changed(cx, id, Urgency::Soon);
        self.counts_changed(cx);
        for track in tracks {
            self.notice_track(cx, id, *track, false);
        }
    }

    fn notice_track(&self, cx: &mut Cx<'_>, id: ParticipantId, track: TrackId, ended: bool) {
        let (Some(info), Some(track)) = (self.info(id), self.tracks.get(&track)) else { return };
        let (room, info) = (Box::new(self.room_message()), Box::new(info));
        let track = Box::new(track.info.clone());
        cx.notice(if ended {
            Notice::TrackUnpublished(room, info, track)
        } else {
            Notice::TrackPublished(room, info, track)
        });
    }

    /// A section was negotiated anew: the media plane has to know if it means something else now.
    pub(super) fn refresh_track(
        &mut self,
        cx: &mut Cx<'_>,
        transport: TransportId,
        track: TrackId,
        section: &NegotiatedSection,
    ) {
        let Some(entry) = self.tracks.get_mut(&track) else { return };
        let params = TrackParams { muted: entry.info.muted, ..track_params(&entry.info, entry.kind, section) };
        if params != entry.params {
            entry.params = params.clone();
            entry.codecs.clone_from(&section.codecs);
            cx.media(MediaCommand::Publish { transport, track, params });
        }
    }

    /// A track ends; others are told. The client is told too when it was not its own doing.
    pub(super) fn unpublish(&mut self, cx: &mut Cx<'_>, id: ParticipantId, track: TrackId, tell_publisher: bool) {
        let Some(entry) = self.tracks.get(&track) else { return };
        let (sid, cid) = (entry.sid().to_owned(), entry.cid.clone());
        if let Some(participant) = self.participants.get_mut(&id) {
            for slot in &mut participant.publisher.slots {
                if slot.content == Content::Track(track) {
                    slot.content = Content::Free;
                }
            }
            if tell_publisher && participant.protocol() >= 7 {
                let message = Message::TrackUnpublished(proto::TrackUnpublishedResponse { track_sid: sid });
                cx.send(participant.connection, message);
            }
        }
        cx.media(MediaCommand::Unpublish { track });
        self.drop_track(cx, id, track);
        self.changed(cx, id, Urgency::Soon);
        self.counts_changed(cx);
        self.release_queued(cx, id, &cid);
    }

    /// Forgets a track and its downtracks.
    pub(super) fn drop_track(&mut self, cx: &mut Cx<'_>, id: ParticipantId, track: TrackId) {
        self.drop_downtracks_of(cx, track);
        self.notice_track(cx, id, track, true);
        self.timers.cancel(super::Timer::Dynacast(track));
        let Some(entry) = self.tracks.remove(&track) else { return };
        self.track_sids.remove(entry.sid());
        if let Some(participant) = self.participants.get_mut(&id) {
            participant.tracks.remove(&track);
        }
        for participant in self.participants.values_mut() {
            participant.denied.remove(&track);
            participant.unsupported.remove(&track);
            participant.wishes.remove(entry.sid());
        }
    }

    /// A track with this client id ended: the next one with it may go ahead.
    fn release_queued(&mut self, cx: &mut Cx<'_>, id: ParticipantId, cid: &str) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        if participant.pending.iter().any(|pending| pending.cid == cid && !pending.queued) {
            return;
        }
        let Some(next) = participant.pending.iter_mut().find(|pending| pending.cid == cid) else { return };
        next.queued = false;
        let response = proto::TrackPublishedResponse { cid: next.cid.clone(), track: Some(next.info.clone()) };
        cx.send(participant.connection, Message::TrackPublished(response));
    }

    /// Sections the client sends on without having said what: a new announcement may be about one of them.
    fn adopt_unannounced(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let mut adopted = Vec::new();
        for index in 0..participant.publisher.slots.len() {
            let Some(slot) = participant.publisher.slots.get(index) else { continue };
            let (Content::Unannounced, Some(kind)) = (slot.content, slot.kind) else { continue };
            let (client_track, section) = (slot.client_track.clone(), slot.negotiated.clone());
            let Some(section) = section else { continue };
            if let Some(pending) = take_pending(participant, kind, client_track.as_deref(), true) {
                adopted.push((index, pending, section));
            }
        }
        let mut tracks = Vec::new();
        for (index, pending, section) in adopted {
            let track = self.publish(cx, id, pending, &section);
            tracks.push(track);
            let slot = self.participants.get_mut(&id).and_then(|one| one.publisher.slots.get_mut(index));
            if let Some(slot) = slot {
                slot.content = Content::Track(track);
            }
        }
        self.announce_tracks(cx, id, &tracks);
    }
}

/// Takes the pending track a section is about: by client id, else (`by_kind`) the first one of its kind.
pub(super) fn take_pending(
    participant: &mut Participant,
    kind: MediaKind,
    client_track: Option<&str>,
    by_kind: bool,
) -> Option<PendingTrack> {
    let ready = |pending: &PendingTrack| pending.kind == kind && !pending.queued;
    let pending = &mut participant.pending;
    let named = pending.iter().position(|one| ready(one) && client_track == Some(one.cid.as_str()));
    let index = named.or_else(|| by_kind.then(|| pending.iter().position(ready)).flatten())?;
    Some(pending.remove(index))
}

/// The id by which the section of a track will be known.
fn client_id(request: &proto::AddTrackRequest) -> &str {
    match request.simulcast_codecs.first() {
        Some(codec) if request.cid.is_empty() => &codec.cid,
        _ => &request.cid,
    }
}

fn bounded(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).take(32).collect()
}

fn codec_info(codec: &proto::SimulcastCodec) -> proto::SimulcastCodecInfo {
    let short = bounded(&codec.codec);
    let mime = sdp::mime_of(sdp::codec_from_mime(&short));
    proto::SimulcastCodecInfo {
        mime_type: if mime.is_empty() { short } else { mime.to_owned() },
        cid: codec.cid.chars().take(256).collect(),
        layers: clean_layers(&codec.layers),
        video_layer_mode: codec.video_layer_mode,
        ..Default::default()
    }
}

/// How the layers of a track travel. Publishers that send layers inside one encoding (SVC) seldom say so: of these codecs
/// it is meant unless they say otherwise.
fn layer_mode(said: i32, mime: &str) -> i32 {
    let svc = matches!(sdp::codec_from_mime(mime), Codec::Vp9 | Codec::Av1);
    if said == i32::from(proto::video_layer::Mode::Unused) && svc {
        return proto::video_layer::Mode::MultipleSpatialLayersPerStream.into();
    }
    said
}

/// Sorted by quality, one of each, with rid and spatial index filled in.
pub(super) fn clean_layers(layers: &[proto::VideoLayer]) -> Vec<proto::VideoLayer> {
    let known = |layer: &&proto::VideoLayer| (0..=2).contains(&layer.quality);
    let mut layers: Vec<_> = layers.iter().take(MAX_LAYERS * 2).filter(known).cloned().collect();
    layers.sort_by_key(|layer| layer.quality);
    layers.dedup_by_key(|layer| layer.quality);
    for (layer, (rid, spatial)) in layers.iter_mut().zip([("q", 0), ("h", 1), ("f", 2)]) {
        layer.rid = rid.to_owned();
        layer.spatial_layer = spatial;
    }
    layers
}

fn track_params(info: &proto::TrackInfo, kind: MediaKind, section: &NegotiatedSection) -> TrackParams {
    TrackParams {
        kind,
        screen_share: info.source == proto::TrackSource::ScreenShare as i32,
        always_heard: is_always_heard(info),
        mid: section.mid.clone(),
        codecs: section.codec_params(),
        encodings: section.encodings.clone(),
        extensions: section.extensions,
        nack: section.nack,
        muted: info.muted,
    }
}

/// Whether sound is meant to be heard whatever its level. Stereo alone does not make music of it: browsers say it of every
/// microphone that has two channels, but they take the echo out of speech.
fn is_always_heard(info: &proto::TrackInfo) -> bool {
    let has = |feature: proto::AudioTrackFeature| info.audio_features.contains(&i32::from(feature));
    info.source == proto::TrackSource::ScreenShareAudio as i32
        || (has(proto::AudioTrackFeature::TfStereo) && !has(proto::AudioTrackFeature::TfEchoCancellation))
}

/// Version of track information made now.
pub(super) fn version_at(cx: &Cx<'_>) -> proto::TimedVersion {
    proto::TimedVersion { unix_micro: cx.now.unix_ms.saturating_mul(1000), ticks: 0 }
}

/// Stereo and no DTX, as clients wrote it before there were features.
#[allow(deprecated, reason = "old clients write them")]
const fn legacy_features(request: &proto::AddTrackRequest) -> (bool, bool) {
    (request.stereo, request.disable_dtx)
}
