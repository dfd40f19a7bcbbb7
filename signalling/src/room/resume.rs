//! Coming back with the transports kept: a new WebSocket takes the place of the old one, and everything that may have
//! been lost on the way is said again.

use livekit_protocol as proto;
use proto::DisconnectReason as Reason;
use proto::leave_request::Action;

use super::Room;
use super::api::{ConnectionId, JoinRequest};
use super::cx::{Cx, Message};
use super::join::client_configuration;
use super::leave::leave_message;
use super::said::Said;
use super::update::chunks;
use super::{Task, Timer};
use crate::media::ParticipantId;

impl Room {
    pub(super) fn handle_resume(&mut self, cx: &mut Cx<'_>, connection: ConnectionId, request: JoinRequest) {
        let Some(id) = self.resumable(&request) else {
            self.refuse_resume(cx, connection, &request);
            return;
        };
        self.swap_connection(cx, id, connection);
        let Some(participant) = self.participants.get_mut(&id) else { return };
        participant.grants.expires_at = participant.grants.expires_at.max(request.grants.expires_at);
        let simulate = std::mem::take(&mut participant.simulate);
        if simulate.drop_silently {
            self.drop_resumed(cx, id, connection);
            return;
        }
        self.send_reconnect(cx, id);
        if simulate.drop_resumed {
            self.drop_resumed(cx, id, connection);
            return;
        }
        self.end_comeback(cx, id);
        // Farewells first, then the full picture, which stands for all that was missed.
        let (mut picture, others) = (self.departed(cx), self.others(id));
        picture.extend(self.piece(id));
        picture.extend(others);
        for pieces in chunks(&picture) {
            cx.say(vec![connection], Said::update(pieces));
        }
        let room = Some(self.room_message());
        cx.send(Some(connection), Message::RoomUpdate(proto::RoomUpdate { room }));
        self.refresh_token(cx, id);
        if let Some(state) = request.sync_state {
            self.handle_sync_state(cx, id, state);
        }
        self.restart_subscriber(cx, id);
        self.repeat_state(cx, id);
    }

    /// Sends it round, as the first message: whoever is told later has waited for nothing.
    pub(super) fn refuse_resume(&self, cx: &mut Cx<'_>, connection: ConnectionId, request: &JoinRequest) {
        let protocol = request.client.protocol;
        cx.send(Some(connection), leave_message(protocol, Reason::StateMismatch, Action::Reconnect));
        cx.close(connection);
    }

    /// A session can be resumed while it is known under this sid and its media lives.
    fn resumable(&self, request: &JoinRequest) -> Option<ParticipantId> {
        let id = self.identities.get(&request.grants.identity)?;
        let participant = self.participants.get(id)?;
        let same_sid = request.participant_sid.is_empty() || request.participant_sid == participant.sid;
        let alive = participant.moving.is_none() && !participant.is_media_dead() && !self.lifetime.draining;
        (same_sid && alive && participant.generation == request.generation).then_some(*id)
    }

    fn swap_connection(&mut self, cx: &mut Cx<'_>, id: ParticipantId, connection: ConnectionId) {
        for task in [Task::Remove, Task::ClosedByPeer, Task::Negotiate, Task::Answer] {
            self.timers.cancel(Timer::Of(id, task));
        }
        let Some(participant) = self.participants.get_mut(&id) else { return };
        participant.publisher.requested = [0; 2];
        participant.told_quality.clear();
        if let Some(old) = participant.connection.replace(connection) {
            self.connections.remove(&old);
            cx.close(old);
        }
        self.connections.insert(connection, id);
    }

    fn drop_resumed(&mut self, cx: &mut Cx<'_>, id: ParticipantId, connection: ConnectionId) {
        if let Some(participant) = self.participants.get_mut(&id) {
            participant.connection = None;
        }
        self.connections.remove(&connection);
        cx.close(connection);
    }

    fn send_reconnect(&self, cx: &mut Cx<'_>, id: ParticipantId) {
        let Some(participant) = self.participants.get(&id) else { return };
        let reconnect = proto::ReconnectResponse {
            ice_servers: self.ice_servers(cx.now, &participant.sid),
            client_configuration: client_configuration(participant),
            server_info: Some(self.server_info()),
            last_message_seq: participant.inbox.last_sequence(),
        };
        cx.send(participant.connection, Message::Reconnect(reconnect));
    }

    /// What was said while the connection was dying may never have arrived.
    fn repeat_state(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        let Some(participant) = self.participants.get(&id) else { return };
        let connection = participant.connection;
        for pending in participant.pending.iter().filter(|pending| !pending.queued) {
            let response =
                proto::TrackPublishedResponse { cid: pending.cid.clone(), track: Some(pending.info.clone()) };
            cx.send(connection, Message::TrackPublished(response));
        }
        let downtracks = participant.downtracks.values().filter_map(|downtrack| self.downtracks.get(downtrack));
        let paused = downtracks.filter(|downtrack| downtrack.paused);
        let stream_states: Vec<_> =
            paused.filter_map(|downtrack| self.stream_state_info(downtrack.track, true)).collect();
        if !stream_states.is_empty() {
            cx.send(connection, Message::StreamStateUpdate(proto::StreamStateUpdate { stream_states }));
        }
        self.repeat_speakers(cx, id);
        self.repeat_dynacast(cx, id);
        self.repeat_data_handles(cx, id);
    }

    /// What the client holds to be true. Where the server knows better, it has to come back anew.
    pub(super) fn handle_sync_state(&mut self, cx: &mut Cx<'_>, id: ParticipantId, state: proto::SyncState) {
        let entries = self.config.limits.list_entries;
        let mut published = state.publish_tracks.iter().take(entries).filter_map(|track| track.track.as_ref());
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let known = |sid: &str| {
            let pending = participant.pending.iter().any(|pending| pending.info.sid == sid);
            sid.is_empty() || pending || self.track_sids.contains_key(sid)
        };
        if !published.all(|track| known(&track.sid)) {
            self.move_on(cx, id, Reason::StateMismatch);
            return;
        }
        if let Some(subscription) = &state.subscription {
            // The list holds every deviation from the default, so what is not in it follows the default.
            participant.wishes.clear();
            self.handle_subscription(cx, id, subscription);
            self.reconcile_subscriber(cx, id);
        }
        if let Some(subscription) = &state.data_subscription {
            self.handle_data_subscription(cx, id, subscription);
        }
        self.sync_disabled(cx, id, &state.track_sids_disabled);
        self.replay_since(cx, id, &state.datachannel_receive_states);
    }

    fn sync_disabled(&mut self, cx: &mut Cx<'_>, id: ParticipantId, disabled: &[String]) {
        for sid in disabled.iter().take(self.config.limits.list_entries) {
            let track = self.track_sids.get(sid);
            let participant = self.participants.get(&id);
            let downtrack = track.and_then(|track| participant?.downtracks.get(track)).copied();
            let Some(downtrack) = downtrack else { continue };
            if let Some(entry) = self.downtracks.get_mut(&downtrack) {
                entry.settings.get_or_insert_default().disabled = true;
                self.apply_demand(cx, downtrack);
            }
        }
    }
}
