//! Answering a client's offers: on the only transport of v1, on the publisher's of v0.
//!
//! An offer may end tracks, start announced ones, and (v1) bring sections for tracks to the client. The newest offer is
//! always answered, with its own number; the answer goes out before anything it makes possible.

use livekit_protocol as proto;
use proto::DisconnectReason as Reason;

use super::Room;
use super::api::Generation;
use super::cx::{Cx, Message};
use super::leg::{Content, Slot, lane};
use super::participant::PendingTrack;
use super::publish::take_pending;
use crate::livekit::CandidateInit;
use crate::media::{DowntrackId, MediaCommand, MediaKind, ParticipantId, TrackId, TransportParams};
use crate::sdp::{self, Answer, AnswerSection, Description, Direction, ReceivePlan, Section, SectionKind};

impl Room {
    pub(super) fn handle_offer(&mut self, cx: &mut Cx<'_>, id: ParticipantId, offer: proto::SessionDescription) {
        let limits = &self.config.limits;
        let sdp_limits = sdp::Limits { bytes: limits.sdp, sections: limits.sections, ..Default::default() };
        let Ok(mut description) = Description::parse(&offer.sdp, &sdp_limits) else {
            self.move_on(cx, id, Reason::StateMismatch);
            return;
        };
        let Some(participant) = self.participants.get(&id) else { return };
        description.keep_role(participant.publisher.leg.remote.as_ref());
        let fits = description.sections.len() >= participant.publisher.slots.len();
        if !offer.r#type.eq_ignore_ascii_case("offer") || !fits || participant.is_media_dead() {
            self.move_on(cx, id, Reason::StateMismatch);
            return;
        }
        self.release_sections(cx, id, &description);
        let pending = self.match_sections(id, &description);
        let plan = self.plan_answer(id, &description, &pending);
        let restarted = self.take_remote(cx, id, &description);
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let leg = &mut participant.publisher.leg;
        leg.local.session_version += 1;
        let Ok(answer) = sdp::write_answer(&description, &leg.local, &plan) else {
            self.move_on(cx, id, Reason::StateMismatch);
            return;
        };
        let new_tracks = self.apply_tracks(cx, id, &answer, pending);
        self.send_answer(cx, id, offer.id, &answer);
        self.apply_downtracks(cx, id, &answer);
        if restarted {
            self.trickle_publisher(cx, id);
        }
        self.require_sections(cx, id, false);
        self.announce_tracks(cx, id, &new_tracks);
    }

    /// Ends what the client took out of its sections, and makes places for new ones.
    fn release_sections(&mut self, cx: &mut Cx<'_>, id: ParticipantId, offer: &Description) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let mut ended = Vec::new();
        let mut unbound = Vec::new();
        for (slot, section) in participant.publisher.slots.iter_mut().zip(&offer.sections) {
            let gone = section.rejected || slot.mid != section.mid || slot.kind != kind_of(section);
            let client_track = section.msid.as_ref().map(|(_, track)| track.clone());
            match slot.content {
                Content::Track(track) => {
                    let announced_anew = client_track != slot.client_track
                        && participant.pending.iter().any(|pending| client_track.as_ref() == Some(&pending.cid));
                    if gone || !client_sends(section) || announced_anew {
                        ended.push(track);
                        slot.content = Content::Free;
                    }
                }
                Content::Downtrack(downtrack) if gone || !client_receives(section) => {
                    unbound.push(downtrack);
                    slot.content = Content::Free;
                }
                Content::Unannounced | Content::Other => slot.content = Content::Free,
                Content::Downtrack(_) | Content::Draining | Content::Free => {}
            }
            slot.mid.clone_from(&section.mid);
            slot.kind = kind_of(section);
            slot.receives = takes_tracks(section);
            slot.client_track = client_track;
        }
        let known = participant.publisher.slots.len();
        participant.publisher.slots.extend(offer.sections.iter().skip(known).map(|section| Slot {
            mid: section.mid.clone(),
            kind: kind_of(section),
            receives: takes_tracks(section),
            content: Content::Free,
            negotiated: None,
            client_track: section.msid.as_ref().map(|(_, track)| track.clone()),
        }));
        for track in ended {
            self.unpublish(cx, id, track, false);
        }
        for downtrack in unbound {
            self.unbind(cx, downtrack);
        }
    }

    /// Finds out what each section is for. Announced tracks go by their id first, then by kind.
    fn match_sections(&mut self, id: ParticipantId, offer: &Description) -> Vec<Option<PendingTrack>> {
        let mut matched: Vec<Option<PendingTrack>> = offer.sections.iter().map(|_| None).collect();
        let max_tracks = self.config.limits.tracks;
        let Some(participant) = self.participants.get_mut(&id) else { return matched };
        for by_kind in [false, true] {
            for ((index, section), found) in offer.sections.iter().enumerate().zip(&mut matched) {
                let content = participant.publisher.slots.get(index).map(|slot| slot.content);
                let free = matches!(content, Some(Content::Free | Content::Draining));
                let (true, Some(kind), None) = (free, kind_of(section), &found) else { continue };
                if client_sends(section) && !section.rejected && participant.tracks.len() < max_tracks {
                    let client_track = section.msid.as_ref().map(|(_, track)| track.as_str());
                    *found = take_pending(participant, kind, client_track, by_kind);
                }
            }
        }
        self.fill_sections(id);
        matched
    }

    /// v1: waiting downtracks get the sections the client offers to receive on.
    fn fill_sections(&mut self, id: ParticipantId) {
        let mut waiting = self.waiting(id);
        let Some(participant) = self.participants.get_mut(&id) else { return };
        if participant.generation != Generation::V1 {
            return;
        }
        for slot in &mut participant.publisher.slots {
            let usable = slot.content == Content::Free && slot.receives;
            let (true, Some(kind)) = (usable, slot.kind) else { continue };
            let queue = waiting.get_mut(lane(kind));
            let Some(downtrack) = queue.and_then(std::collections::VecDeque::pop_front) else { continue };
            slot.content = Content::Downtrack(downtrack);
            if let Some(entry) = self.downtracks.get_mut(&downtrack) {
                entry.bound = true;
            }
        }
    }

    fn plan_answer(
        &mut self,
        id: ParticipantId,
        offer: &Description,
        pending: &[Option<PendingTrack>],
    ) -> Vec<AnswerSection> {
        let disabled = self.disabled_codecs();
        let Some(participant) = self.participants.get(&id) else { return Vec::new() };
        let only_preferred = participant.is_firefox_on_linux_or_android();
        let mut plan = Vec::with_capacity(offer.sections.len());
        for ((slot, section), pending) in participant.publisher.slots.iter().zip(&offer.sections).zip(pending) {
            let info = match slot.content {
                Content::Track(track) => self.tracks.get(&track).map(|track| &track.info),
                _ => pending.as_ref().map(|pending| &pending.info),
            };
            plan.push(match (slot.content, info) {
                _ if section.kind == SectionKind::Application => AnswerSection::Application,
                (Content::Downtrack(downtrack), _) => {
                    self.send_plan(id, downtrack).map_or(AnswerSection::Inactive, AnswerSection::Send)
                }
                (_, Some(info)) => AnswerSection::Receive(receive_plan(info, only_preferred, &disabled)),
                // Taken as it comes: the announcement may still be on its way.
                (Content::Free, None) if client_sends(section) && participant.grants.can_publish => {
                    AnswerSection::Receive(ReceivePlan { disabled: disabled.clone(), ..Default::default() })
                }
                _ => AnswerSection::Inactive,
            });
        }
        plan
    }

    /// The client's half of the transport. True if its candidates have to be sent (again).
    fn take_remote(&mut self, cx: &mut Cx<'_>, id: ParticipantId, offer: &Description) -> bool {
        let Some(participant) = self.participants.get_mut(&id) else { return false };
        let leg = &mut participant.publisher.leg;
        let (transport, remote) = (leg.transport, offer.remote.clone());
        let before = leg.remote.replace(remote.clone());
        if !leg.open {
            leg.open = true;
            let local = leg.local.credentials.clone();
            let params = TransportParams { local, remote: Some(remote), open_channels: false };
            cx.media(MediaCommand::AddTransport { participant: id, transport, params });
            return true;
        }
        let Some(before) = before else { return true };
        if before.ufrag != remote.ufrag {
            let local = self.ids.credentials(&participant.place.ufrag_prefix);
            leg.local.credentials = local.clone();
            cx.media(MediaCommand::RestartIce { transport, local, remote: Some(remote) });
            return true;
        }
        if before != remote {
            cx.media(MediaCommand::SetRemote { transport, remote });
        }
        false
    }

    /// Sections the client sends on: new tracks start, old ones may have changed.
    fn apply_tracks(
        &mut self,
        cx: &mut Cx<'_>,
        id: ParticipantId,
        answer: &Answer,
        pending: Vec<Option<PendingTrack>>,
    ) -> Vec<TrackId> {
        let mut started = Vec::new();
        for (index, (section, pending)) in answer.sections.iter().zip(pending).enumerate() {
            let Some(participant) = self.participants.get(&id) else { break };
            let transport = participant.publisher.leg.transport;
            let Some(slot) = participant.publisher.slots.get(index) else { break };
            let receives = section.direction == Direction::RecvOnly && !section.rejected;
            let content = match (slot.content, pending) {
                (Content::Track(track), _) if receives => {
                    self.refresh_track(cx, transport, track, section);
                    Content::Track(track)
                }
                (Content::Track(track), _) => {
                    self.unpublish(cx, id, track, true);
                    Content::Free
                }
                (_, Some(pending)) if receives => {
                    let track = self.publish(cx, id, pending, section);
                    started.push(track);
                    Content::Track(track)
                }
                (Content::Free, None) if receives => Content::Unannounced,
                // It has just been answered inactive.
                (Content::Draining, _) => Content::Free,
                (_, _) if slot.kind.is_none() => Content::Other,
                (content, _) => content,
            };
            let slot = self.participants.get_mut(&id).and_then(|one| one.publisher.slots.get_mut(index));
            if let Some(slot) = slot {
                slot.content = content;
                slot.negotiated = (content == Content::Unannounced).then(|| section.clone());
            }
        }
        started
    }

    fn send_answer(&mut self, cx: &mut Cx<'_>, id: ParticipantId, offer_id: u32, answer: &Answer) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let downtrack = |slot: &Slot| match slot.content {
            Content::Downtrack(downtrack) => self.downtracks.get(&downtrack),
            _ => None,
        };
        let slots = participant.publisher.slots.iter();
        let mids = slots.filter_map(|slot| Some((slot.mid.clone(), self.tracks.get(&downtrack(slot)?.track)?)));
        let mid_to_track_id = mids.map(|(mid, track)| (mid, track.sid().to_owned())).collect();
        let message = proto::SessionDescription {
            r#type: "answer".to_owned(),
            sdp: answer.sdp.clone(),
            id: offer_id,
            mid_to_track_id,
        };
        cx.send(participant.connection, Message::Answer(message));
    }

    /// Sections we send on: the media plane may begin.
    fn apply_downtracks(&mut self, cx: &mut Cx<'_>, id: ParticipantId, answer: &Answer) {
        let Some(participant) = self.participants.get(&id) else { return };
        let transport = participant.publisher.leg.transport;
        let bound: Vec<(usize, DowntrackId)> = participant
            .publisher
            .slots
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| match slot.content {
                Content::Downtrack(downtrack) => Some((index, downtrack)),
                _ => None,
            })
            .collect();
        for (index, downtrack) in bound {
            if let Some(section) = answer.sections.get(index) {
                self.start_downtrack(cx, transport, downtrack, section);
            }
        }
    }

    /// Candidates by message too, for clients that only look there. Never an empty one.
    fn trickle_publisher(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let mid = participant.publisher.slots.first().map(|slot| slot.mid.clone());
        let leg = &participant.publisher.leg;
        for message in trickle(&leg.local, mid, proto::SignalTarget::Publisher) {
            cx.send(participant.connection, message);
        }
    }

    /// v1: tells the client how many sections are missing, and (`even_none`) that a new offer is wanted anyway.
    pub(super) fn require_sections(&mut self, cx: &mut Cx<'_>, id: ParticipantId, even_none: bool) {
        let waiting = self.waiting(id);
        let Some(participant) = self.participants.get_mut(&id) else { return };
        if participant.generation != Generation::V1 || participant.connection.is_none() {
            return;
        }
        let publisher = &mut participant.publisher;
        if !even_none {
            // Called right after an answer: whatever was asked for before has been answered by the client.
            publisher.requested = [0; 2];
        }
        let mut free = [0_u32; 2];
        // A draining section is free one round later than a new one would be there, so it does not count.
        for slot in publisher.slots.iter().filter(|slot| slot.content == Content::Free && slot.receives) {
            if let Some(kind) = slot.kind
                && let Some(count) = free.get_mut(lane(kind))
            {
                *count += 1;
            }
        }
        let mut missing = [0_u32; 2];
        let mut any_waiting = false;
        for (index, missing) in missing.iter_mut().enumerate() {
            let count = waiting.get(index).map_or(0, std::collections::VecDeque::len);
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            any_waiting |= count > 0;
            let provided = free
                .get(index)
                .copied()
                .unwrap_or(0)
                .saturating_add(publisher.requested.get(index).copied().unwrap_or(0));
            *missing = count.saturating_sub(provided);
        }
        if !even_none && !any_waiting {
            return;
        }
        let [num_audios, num_videos] = missing;
        publisher.requested =
            [publisher.requested[0].saturating_add(num_audios), publisher.requested[1].saturating_add(num_videos)];
        publisher.debounce.done(cx.mono());
        let message = proto::MediaSectionsRequirement { num_audios, num_videos };
        cx.send(participant.connection, Message::MediaSectionsRequirement(message));
    }
}

/// One message per candidate; the last one says so.
pub(super) fn trickle(local: &sdp::LocalTransport, mid: Option<String>, target: proto::SignalTarget) -> Vec<Message> {
    let count = local.candidates.len();
    let mut messages = Vec::with_capacity(count);
    for (index, candidate) in local.candidates.iter().enumerate() {
        let candidate = CandidateInit {
            candidate: candidate.clone(),
            sdp_mid: mid.clone(),
            sdp_m_line_index: Some(0),
            username_fragment: Some(local.credentials.ufrag.clone()),
        };
        if let Ok(candidate_init) = candidate.encode() {
            let request = proto::TrickleRequest { candidate_init, target: target.into(), r#final: index + 1 == count };
            messages.push(Message::Trickle(request));
        }
    }
    messages
}

fn receive_plan(info: &proto::TrackInfo, only_preferred: bool, disabled: &[String]) -> ReceivePlan {
    let has = |feature: proto::AudioTrackFeature| info.audio_features.contains(&i32::from(feature));
    let video = info.r#type == i32::from(proto::TrackType::Video);
    ReceivePlan {
        prefer: (!info.mime_type.is_empty()).then(|| info.mime_type.clone()),
        only_preferred: only_preferred && video,
        stereo: has(proto::AudioTrackFeature::TfStereo),
        no_dtx: has(proto::AudioTrackFeature::TfNoDtx),
        disabled: disabled.to_vec(),
    }
}

const fn kind_of(section: &Section) -> Option<MediaKind> {
    match section.kind {
        SectionKind::Media(kind) => Some(kind),
        SectionKind::Application | SectionKind::Other => None,
    }
}

const fn client_sends(section: &Section) -> bool {
    matches!(section.direction, Direction::SendOnly | Direction::SendRecv)
}

/// Only receives, so a track of ours can go there.
const fn takes_tracks(section: &Section) -> bool {
    matches!(section.direction, Direction::RecvOnly) && !section.rejected
}

const fn client_receives(section: &Section) -> bool {
    matches!(section.direction, Direction::RecvOnly | Direction::SendRecv)
}
