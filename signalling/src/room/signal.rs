//! Requests of clients, handed to their topic after the rate check.

use livekit_protocol as proto;
use proto::request_response::{Reason, Request};
use proto::signal_request::Message as Ask;

use super::Room;
use super::api::ConnectionId;
use super::cx::{Cx, Message};
use crate::media::ParticipantId;

/// Requests over the rate, in a row, after which a client is taken for broken or hostile.
const PATIENCE: u32 = 1000;
/// Descriptions are that much more work than other requests.
const DESCRIPTION_COST: u64 = 5;

impl Room {
    pub(super) fn handle_signal(&mut self, cx: &mut Cx<'_>, connection: ConnectionId, request: proto::SignalRequest) {
        let Some(id) = self.connections.get(&connection).copied() else { return };
        let Some(message) = request.message else { return };
        if !self.within_rate(cx, id, &message) {
            return;
        }
        let is_moving = self.participants.get(&id).is_some_and(|participant| participant.moving.is_some());
        match message {
            Ask::Leave(_) => self.handle_leave(cx, id),
            Ask::Ping(_) => self.pong(cx, id),
            Ask::PingReq(ping) => self.pong_response(cx, id, &ping),
            // Whoever was told to come back with a new join is done with this one.
            _ if is_moving => {}
            other => self.handle_request(cx, id, other),
        }
    }

    #[allow(deprecated, reason = "old clients send `update_layers`")]
    fn handle_request(&mut self, cx: &mut Cx<'_>, id: ParticipantId, message: Ask) {
        match message {
            Ask::Offer(offer) => self.handle_offer(cx, id, offer),
            Ask::Answer(answer) => self.handle_answer(cx, id, &answer),
            Ask::AddTrack(request) => self.handle_add_track(cx, id, request),
            Ask::Mute(request) => self.handle_mute(cx, id, request),
            Ask::Subscription(request) => self.handle_subscription(cx, id, &request),
            Ask::TrackSetting(request) => self.handle_settings(cx, id, &request),
            Ask::UpdateLayers(request) => self.handle_layers(cx, id, request),
            Ask::SubscriptionPermission(request) => self.handle_audience(cx, id, request),
            Ask::SyncState(state) => self.handle_sync_state(cx, id, state),
            Ask::Simulate(request) => self.handle_simulate(cx, id, &request),
            Ask::UpdateMetadata(request) => self.handle_metadata(cx, id, request),
            Ask::UpdateAudioTrack(request) => self.handle_audio_track(cx, id, request),
            Ask::UpdateVideoTrack(request) => self.handle_video_track(cx, id, request),
            Ask::PublishDataTrackRequest(request) => self.handle_publish_data_track(cx, id, request),
            Ask::UnpublishDataTrackRequest(request) => self.handle_unpublish_data_track(cx, id, request),
            Ask::UpdateDataSubscription(request) => self.handle_data_subscription(cx, id, &request),
            // We are ICE-lite and learn addresses from checks. Blobs are a feature we do not announce.
            Ask::Trickle(_) | Ask::StoreDataBlobRequest(_) | Ask::GetDataBlobRequest(_) => {}
            Ask::Leave(_) | Ask::Ping(_) | Ask::PingReq(_) => {}
        }
    }

    fn within_rate(&mut self, cx: &mut Cx<'_>, id: ParticipantId, message: &Ask) -> bool {
        let cost = if matches!(message, Ask::Offer(_) | Ask::Answer(_)) { DESCRIPTION_COST } else { 1 };
        let Some(participant) = self.participants.get_mut(&id) else { return false };
        if participant.signals.take(cx.mono(), cost) {
            participant.refused_signals = 0;
            return true;
        }
        participant.refused_signals += 1;
        if matches!(message, Ask::Leave(_)) {
            return true;
        }
        if participant.refused_signals >= PATIENCE {
            self.dismiss(cx, id, proto::DisconnectReason::ParticipantRemoved);
        } else if participant.refused_signals == 1 {
            self.respond(cx, id, 0, Reason::LimitExceeded, "too many requests", None);
        }
        false
    }

    /// Tells a client what became of its request. Clients before protocol 10 cannot read it.
    pub(super) fn respond(
        &self,
        cx: &mut Cx<'_>,
        id: ParticipantId,
        request_id: u32,
        reason: Reason,
        message: &str,
        request: Option<Request>,
    ) {
        let Some(participant) = self.participants.get(&id) else { return };
        // Success is only told to clients that do not take every answer for an error.
        let readable = if reason == Reason::Ok { participant.protocol() >= 15 } else { participant.protocol() >= 10 };
        if readable {
            let response =
                proto::RequestResponse { request_id, reason: reason.into(), message: message.to_owned(), request };
            cx.send(participant.connection, Message::RequestResponse(response));
        }
    }

    /// Milliseconds: nanoseconds are more than a client's numbers hold.
    fn pong(&self, cx: &mut Cx<'_>, id: ParticipantId) {
        let now = cx.now.unix_ms;
        cx.send(self.connection_of(id), Message::Pong(now));
    }

    fn pong_response(&self, cx: &mut Cx<'_>, id: ParticipantId, ping: &proto::Ping) {
        let pong = proto::Pong { last_ping_timestamp: ping.timestamp, timestamp: cx.now.unix_ms };
        cx.send(self.connection_of(id), Message::PongResp(pong));
    }

    pub(super) fn connection_of(&self, id: ParticipantId) -> Option<ConnectionId> {
        self.participants.get(&id)?.connection
    }
}
