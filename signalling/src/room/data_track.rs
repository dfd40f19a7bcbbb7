//! Data tracks: named streams of small packets a participant publishes on the `_data_track` channel. The server looks
//! at the handle only, and writes the subscribers' handle over it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use livekit_protocol as proto;
use proto::request_response::{Reason, Request};

use super::Room;
use super::cx::{Cx, Message};
use super::participant::DataTrack;
use super::update::Urgency;
use crate::media::{DataChannel, MediaCommand, ParticipantId};

/// Bytes of the fixed header of a data track packet.
const HEADER: usize = 12;

/// Handles towards subscribers, one per data track in the room, the same for all of them: so a packet is rewritten once.
#[derive(Debug, Default)]
pub(super) struct Handles {
    /// Handle to publisher and its own handle.
    tracks: BTreeMap<u16, (ParticipantId, u16)>,
    sids: BTreeMap<String, u16>,
    last: u16,
}

impl Handles {
    fn take(&mut self, publisher: ParticipantId, pub_handle: u16, sid: &str) -> Option<u16> {
        for _ in 0..u16::MAX {
            self.last = self.last.checked_add(1).unwrap_or(1);
            if !self.tracks.contains_key(&self.last) {
                self.tracks.insert(self.last, (publisher, pub_handle));
                self.sids.insert(sid.to_owned(), self.last);
                return Some(self.last);
            }
        }
        None
    }

    fn release(&mut self, handle: u16, sid: &str) {
        self.tracks.remove(&handle);
        self.sids.remove(sid);
    }
}

impl Room {
    pub(super) fn handle_publish_data_track(
        &mut self,
        cx: &mut Cx<'_>,
        id: ParticipantId,
        request: proto::PublishDataTrackRequest,
    ) {
        if let Err((reason, message)) = self.publish_data_track(cx, id, &request) {
            self.respond(cx, id, 0, reason, message, Some(Request::PublishDataTrack(request)));
        }
    }

    fn publish_data_track(
        &mut self,
        cx: &mut Cx<'_>,
        id: ParticipantId,
        request: &proto::PublishDataTrackRequest,
    ) -> Result<(), (Reason, &'static str)> {
        let limits = &self.config.limits;
        let Some(participant) = self.participants.get_mut(&id) else { return Ok(()) };
        if !participant.grants.can_publish_data || !self.config.enable_data_tracks {
            return Err((Reason::NotAllowed, "not allowed to publish data"));
        }
        let pub_handle = u16::try_from(request.pub_handle).ok().filter(|handle| *handle > 0);
        let pub_handle = pub_handle.ok_or((Reason::InvalidHandle, "handle is not 1 to 65535"))?;
        if request.name.is_empty() || request.name.len() > 256 {
            return Err((Reason::InvalidName, "name is not 1 to 256 bytes"));
        }
        if participant.data_tracks.contains_key(&pub_handle) {
            return Err((Reason::DuplicateHandle, "handle is in use"));
        }
        if participant.data_tracks.values().any(|track| track.info.name == request.name) {
            return Err((Reason::DuplicateName, "name is in use"));
        }
        if participant.data_tracks.len() >= limits.data_tracks {
            return Err((Reason::LimitExceeded, "too many data tracks"));
        }
        let sid = self.ids.sid("DTR", "");
        let handle = self.handles.take(id, pub_handle, &sid).ok_or((Reason::LimitExceeded, "too many data tracks"))?;
        let info = proto::DataTrackInfo {
            pub_handle: request.pub_handle,
            sid,
            name: request.name.clone(),
            encryption: request.encryption,
            frame_encoding: request.frame_encoding.clone(),
            schema: request.schema.clone(),
        };
        participant.data_tracks.insert(pub_handle, DataTrack { info: info.clone(), handle });
        let response = proto::PublishDataTrackResponse { info: Some(info) };
        cx.send(participant.connection, Message::PublishDataTrackResponse(response));
        self.changed(cx, id, Urgency::Now);
        self.reconcile_all_data(cx);
        Ok(())
    }

    pub(super) fn handle_unpublish_data_track(
        &mut self,
        cx: &mut Cx<'_>,
        id: ParticipantId,
        request: proto::UnpublishDataTrackRequest,
    ) {
        let participant = self.participants.get_mut(&id);
        let handle = u16::try_from(request.pub_handle).unwrap_or(0);
        let Some(track) = participant.and_then(|participant| participant.data_tracks.remove(&handle)) else {
            let request = Some(Request::UnpublishDataTrack(request));
            self.respond(cx, id, 0, Reason::InvalidHandle, "no such data track", request);
            return;
        };
        self.handles.release(track.handle, &track.info.sid);
        let response = proto::UnpublishDataTrackResponse { info: Some(track.info) };
        cx.send(self.connection_of(id), Message::UnpublishDataTrackResponse(response));
        self.changed(cx, id, Urgency::Now);
        self.reconcile_all_data(cx);
    }

    /// A participant goes: so do its data tracks.
    pub(super) fn drop_data_tracks(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        let participant = self.participants.get_mut(&id);
        let tracks = participant.map(|participant| std::mem::take(&mut participant.data_tracks)).unwrap_or_default();
        if tracks.is_empty() {
            return;
        }
        for track in tracks.into_values() {
            self.handles.release(track.handle, &track.info.sid);
        }
        self.reconcile_all_data(cx);
    }

    pub(super) fn handle_data_subscription(
        &mut self,
        cx: &mut Cx<'_>,
        id: ParticipantId,
        request: &proto::UpdateDataSubscription,
    ) {
        let limit = self.config.limits.data_subscriptions;
        let Some(participant) = self.participants.get_mut(&id) else { return };
        for update in request.updates.iter().take(limit) {
            // Wishes about tracks that are gone make room for new ones.
            if participant.data_wishes.len() >= limit {
                let sids = &self.handles.sids;
                participant.data_wishes.retain(|sid, _| sids.contains_key(sid));
            }
            if participant.data_wishes.len() < limit && update.track_sid.len() <= 64 {
                participant.data_wishes.insert(update.track_sid.clone(), update.subscribe);
            }
        }
        self.reconcile_data(cx, id);
    }

    fn reconcile_all_data(&mut self, cx: &mut Cx<'_>) {
        let everybody: Vec<_> = self.participants.keys().copied().collect();
        for id in everybody {
            self.reconcile_data(cx, id);
        }
    }

    /// Works out which data tracks a participant gets, and tells it when that changed.
    pub(super) fn reconcile_data(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        let Some(participant) = self.participants.get(&id) else { return };
        let wanted =
            |sid: &String| participant.data_wishes.get(sid).copied().unwrap_or(participant.options.auto_subscribe_data);
        let others = self.handles.sids.iter().filter(|(sid, handle)| {
            let publisher = self.handles.tracks.get(handle).and_then(|(publisher, _)| self.participants.get(publisher));
            publisher.is_some_and(|publisher| publisher.id != id && !publisher.is_hidden()) && wanted(sid)
        });
        let limit = self.config.limits.data_subscriptions;
        let sids: BTreeSet<String> = if participant.grants.can_subscribe {
            others.map(|(sid, _)| sid.clone()).take(limit).collect()
        } else {
            BTreeSet::new()
        };
        if sids == participant.data_subscriptions {
            return;
        }
        if let Some(participant) = self.participants.get_mut(&id) {
            participant.data_subscriptions = sids;
        }
        self.send_data_handles(cx, id);
    }

    fn send_data_handles(&self, cx: &mut Cx<'_>, id: ParticipantId) {
        let Some(participant) = self.participants.get(&id) else { return };
        let sub_handles = participant.data_subscriptions.iter().filter_map(|sid| {
            let handle = self.handles.sids.get(sid)?;
            let (publisher, _) = self.handles.tracks.get(handle)?;
            let publisher = self.participants.get(publisher)?;
            let track = proto::data_track_subscriber_handles::PublishedDataTrack {
                publisher_identity: publisher.identity().to_owned(),
                publisher_sid: publisher.sid.clone(),
                track_sid: sid.clone(),
            };
            Some((u32::from(*handle), track))
        });
        let handles = proto::DataTrackSubscriberHandles { sub_handles: sub_handles.collect() };
        cx.send(participant.connection, Message::DataTrackSubscriberHandles(handles));
    }

    /// After a resume.
    pub(super) fn repeat_data_handles(&self, cx: &mut Cx<'_>, id: ParticipantId) {
        let any = self.participants.get(&id).is_some_and(|participant| !participant.data_subscriptions.is_empty());
        if any {
            self.send_data_handles(cx, id);
        }
    }

    /// Forwards a packet of a data track and says how often.
    pub(super) fn forward_data_track(&mut self, cx: &mut Cx<'_>, id: ParticipantId, payload: &Bytes) -> usize {
        if payload.len() > self.config.limits.data_packet || self.is_over_data_rate(cx, id) {
            return 0;
        }
        let Some(pub_handle) = handle_of(payload) else { return 0 };
        let Some(participant) = self.participants.get(&id) else { return 0 };
        let Some(track) = participant.data_tracks.get(&pub_handle) else { return 0 };
        if !participant.grants.can_publish_data || participant.moving.is_some() {
            return 0;
        }
        let subscribers = self.participants.values().filter(|other| {
            let leg = other.down_leg();
            other.data_subscriptions.contains(&track.info.sid) && leg.channels && !leg.dead
        });
        let transports: Vec<_> = subscribers.map(|other| other.down_leg().transport).collect();
        let copies = transports.len();
        if copies > 0 {
            let payload = with_handle(payload, track.handle);
            cx.media(MediaCommand::SendData { transports, channel: DataChannel::DataTrack, payload });
        }
        copies
    }
}

/// Handle of a packet of version 0.
fn handle_of(packet: &[u8]) -> Option<u16> {
    let header = packet.get(..HEADER)?;
    let (first, high, low) = (header.first()?, header.get(2)?, header.get(3)?);
    (first >> 5 == 0).then_some(u16::from_be_bytes([*high, *low])).filter(|handle| *handle > 0)
}

fn with_handle(packet: &[u8], handle: u16) -> Bytes {
    let mut copy = BytesMut::from(packet);
    if let Some(place) = copy.get_mut(2..4) {
        place.copy_from_slice(&handle.to_be_bytes());
    }
    copy.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewrites_the_handle_and_nothing_else() {
        let packet: Vec<u8> = [0b0001_1000, 0, 0x12, 0x34].into_iter().chain(4..40).collect();
        assert_eq!(handle_of(&packet), Some(0x1234));
        let copy = with_handle(&packet, 7);
        assert_eq!(handle_of(&copy), Some(7));
        assert_eq!((&copy[..2], &copy[4..]), (&packet[..2], &packet[4..]));
        assert_eq!((handle_of(&packet[..11]), handle_of(&[0xff; 20])), (None, None));
    }
}
