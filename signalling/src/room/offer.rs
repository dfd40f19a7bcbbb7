//! v0: our offers on the subscriber's transport, one at a time, and the client's answers.

use livekit_protocol as proto;
use proto::DisconnectReason as Reason;

use super::answer::trickle;
use super::api::Generation;
use super::cx::{Cx, Message};
use super::leg::{OfferSlot, OfferUse, Outstanding, lane};
use super::{Room, Task, Timer};
use crate::media::{DowntrackId, MediaCommand, ParticipantId};
use crate::sdp::{self, Description, OfferContent, OfferSection, SendPlan};

/// Media section identifier of the data channels in our offers; tracks count from one.
const CHANNELS_MID: &str = "0";

/// With fewer sections than this a new track gets one of its own. A section that carries one track after the other
/// forces its later ones out of the stream they share with the publisher's other tracks, and so out of lip sync.
const FRESH_SECTIONS: usize = 32;

impl Room {
    /// Something about the tracks to a participant changed: negotiate soon.
    pub(super) fn schedule_negotiation(&mut self, cx: &Cx<'_>, id: ParticipantId) {
        let Some(participant) = self.participants.get(&id) else { return };
        if participant.connection.is_none() || participant.moving.is_some() {
            return;
        }
        let debounce = match &participant.subscriber {
            Some(subscriber) => subscriber.debounce,
            // The client's first offer will take care of it.
            None if !participant.publisher.leg.open => return,
            None => participant.publisher.debounce,
        };
        self.timers.set_if_idle(Timer::Of(id, Task::Negotiate), debounce.due(cx.mono()));
    }

    /// The first negotiation of a join waits for nothing.
    pub(super) fn negotiate_first(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        if self.participants.get(&id).is_some_and(|participant| participant.generation == Generation::V0) {
            self.negotiate(cx, id);
        }
    }

    pub(super) fn negotiate(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        self.timers.cancel(Timer::Of(id, Task::Negotiate));
        let Some(participant) = self.participants.get_mut(&id) else { return };
        if participant.connection.is_none() || participant.moving.is_some() {
            return;
        }
        match &mut participant.subscriber {
            None => self.require_sections(cx, id, true),
            Some(subscriber) if subscriber.outstanding.is_some() => subscriber.again = true,
            Some(_) => self.send_offer(cx, id),
        }
    }

    /// v0, at a resume: new credentials of ours, and an offer that carries them.
    pub(super) fn restart_subscriber(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let Some(subscriber) = &mut participant.subscriber else { return };
        let local = self.ids.credentials(&participant.place.ufrag_prefix);
        subscriber.leg.local.credentials = local.clone();
        subscriber.outstanding = None;
        subscriber.trickled = false;
        cx.media(MediaCommand::RestartIce { transport: subscriber.leg.transport, local, remote: None });
        self.send_offer(cx, id);
    }

    fn send_offer(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        self.place_downtracks(id);
        let Some(participant) = self.participants.get(&id) else { return };
        let Some(subscriber) = &participant.subscriber else { return };
        let mut sections = vec![OfferSection { mid: CHANNELS_MID.to_owned(), content: OfferContent::Application }];
        let mut downtracks = vec![None];
        let mut mids = Vec::new();
        for (index, slot) in subscriber.slots.iter().enumerate() {
            let mid = (index + 1).to_string();
            let placed = match slot.content {
                OfferUse::Downtrack(downtrack) => self.offer_plan(id, downtrack, slot).map(|plan| (downtrack, plan)),
                OfferUse::Free | OfferUse::Draining => None,
            };
            downtracks.push(placed.as_ref().map(|(downtrack, _)| *downtrack));
            let content = match placed {
                Some((_, plan)) => {
                    mids.push((mid.clone(), plan.track_id.clone()));
                    OfferContent::Send(slot.kind, plan)
                }
                None => OfferContent::Inactive(slot.kind),
            };
            sections.push(OfferSection { mid, content });
        }
        self.send_sections(cx, id, sections, downtracks, mids);
    }

    /// The plan of a downtrack in this section. Browsers keep the track id of a section's first track for ever, so that
    /// clients find the id of a later one only in the stream's.
    fn offer_plan(&self, id: ParticipantId, downtrack: DowntrackId, slot: &OfferSlot) -> Option<SendPlan> {
        let mut plan = self.send_plan(id, downtrack)?;
        let track = self.downtracks.get(&downtrack)?.track;
        if track != slot.first {
            let publisher = self.tracks.get(&track)?.publisher;
            plan.stream_id = format!("{}|{}", self.participants.get(&publisher)?.sid, plan.track_id);
        }
        Some(plan)
    }

    fn send_sections(
        &mut self,
        cx: &mut Cx<'_>,
        id: ParticipantId,
        sections: Vec<OfferSection>,
        downtracks: Vec<Option<DowntrackId>>,
        mids: Vec<(String, String)>,
    ) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let Some(subscriber) = &mut participant.subscriber else { return };
        subscriber.leg.local.session_version += 1;
        let sdp = sdp::write_offer(&subscriber.leg.local, &sections);
        let offer_id = subscriber.next_offer;
        // Zero means "not numbered".
        subscriber.next_offer = offer_id.checked_add(1).unwrap_or(1);
        subscriber.outstanding = Some(Outstanding { id: offer_id, sections, downtracks });
        subscriber.again = false;
        subscriber.debounce.done(cx.mono());
        let offer = proto::SessionDescription {
            r#type: "offer".to_owned(),
            sdp,
            id: offer_id,
            mid_to_track_id: mids.into_iter().collect(),
        };
        cx.send(participant.connection, Message::Offer(offer));
        if !std::mem::replace(&mut subscriber.trickled, true) {
            let mid = Some(CHANNELS_MID.to_owned());
            for message in trickle(&subscriber.leg.local, mid, proto::SignalTarget::Subscriber) {
                cx.send(participant.connection, message);
            }
        }
        self.timers.set(Timer::Of(id, Task::Answer), cx.after(self.config.answer_timeout));
    }

    /// Gives every waiting downtrack a section: the one its track had before, a new one, or a free one, as far as the
    /// client copes with that.
    fn place_downtracks(&mut self, id: ParticipantId) {
        let waiting = self.waiting(id);
        let max_sections = self.config.limits.sections;
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let reuse = participant.reuses_sections();
        let shares_streams = self.config.sync_streams && participant.shares_streams();
        let Some(subscriber) = &mut participant.subscriber else { return };
        for downtrack in waiting.into_iter().flatten() {
            let Some(entry) = self.downtracks.get_mut(&downtrack) else { continue };
            let (kind, first) = (entry.kind, entry.track);
            let count = subscriber.slots.len();
            let free = |slot: &OfferSlot| reuse && slot.content == OfferUse::Free && lane(slot.kind) == lane(kind);
            let had = subscriber.slots.iter().position(|slot| free(slot) && slot.first == first);
            let any = subscriber.slots.iter().position(free);
            let fresh = count < max_sections && ((shares_streams && count < FRESH_SECTIONS) || any.is_none());
            let content = OfferUse::Downtrack(downtrack);
            match had.or_else(|| any.filter(|_| !fresh)).and_then(|index| subscriber.slots.get_mut(index)) {
                Some(slot) => slot.content = content,
                None if fresh => subscriber.slots.push(OfferSlot { kind, content, first }),
                None => continue,
            }
            entry.bound = true;
        }
    }

    pub(super) fn handle_answer(&mut self, cx: &mut Cx<'_>, id: ParticipantId, answer: &proto::SessionDescription) {
        let limits = &self.config.limits;
        let sdp_limits = sdp::Limits { bytes: limits.sdp, sections: limits.sections + 1, ..Default::default() };
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let Some(subscriber) = &mut participant.subscriber else { return };
        let expected = |outstanding: &mut Outstanding| answer.id == 0 || answer.id == outstanding.id;
        let Some(outstanding) = subscriber.outstanding.take_if(expected) else { return };
        self.timers.cancel(Timer::Of(id, Task::Answer));
        let parsed = Description::parse(&answer.sdp, &sdp_limits);
        let checked = parsed.and_then(|description| {
            let sections = sdp::check_answer(&subscriber.leg.local, &outstanding.sections, &description)?;
            Ok((description, sections))
        });
        let Ok((mut description, sections)) = checked else {
            self.move_on(cx, id, Reason::StateMismatch);
            return;
        };
        let transport = subscriber.leg.transport;
        description.keep_role(subscriber.leg.remote.as_ref());
        if subscriber.leg.remote.as_ref() != Some(&description.remote) {
            subscriber.leg.remote = Some(description.remote.clone());
            cx.media(MediaCommand::SetRemote { transport, remote: description.remote });
        }
        let offered = outstanding.sections.iter().skip(1);
        for (slot, offered) in subscriber.slots.iter_mut().zip(offered) {
            if slot.content == OfferUse::Draining && matches!(offered.content, OfferContent::Inactive(_)) {
                slot.content = OfferUse::Free;
            }
        }
        let again = std::mem::take(&mut subscriber.again);
        for (downtrack, section) in outstanding.downtracks.into_iter().zip(&sections) {
            if let Some(downtrack) = downtrack {
                self.start_downtrack(cx, transport, downtrack, section);
            }
        }
        if again {
            self.schedule_negotiation(cx, id);
        }
    }
}
