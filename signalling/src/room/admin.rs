//! Requests of the server API and of Matrix.

use livekit_protocol as proto;
use proto::DisconnectReason as Reason;

use super::Room;
use super::api::{AdminAnswer, AdminError, AdminId, AdminRequest, Output};
use super::cx::Cx;
use crate::media::ParticipantId;

pub(super) const NO_PARTICIPANT: AdminError = AdminError::NotFound("participant does not exist");

impl Room {
    pub(super) fn handle_admin(&mut self, cx: &mut Cx<'_>, id: AdminId, request: AdminRequest) {
        if matches!(request, AdminRequest::DeleteRoom) {
            // The answer first: nothing follows the end.
            cx.push(Output::Admin { id, answer: Ok(AdminAnswer::Done) });
            self.end(cx, Reason::RoomDeleted);
            return;
        }
        if let AdminRequest::PerformRpc(request) = request {
            self.call(cx, id, *request);
            return;
        }
        let answer = self.answer_admin(cx, request);
        cx.push(Output::Admin { id, answer });
    }

    fn answer_admin(&mut self, cx: &mut Cx<'_>, request: AdminRequest) -> Result<AdminAnswer, AdminError> {
        match request {
            AdminRequest::GetRoom => Ok(AdminAnswer::Room(Box::new(self.room_message()))),
            AdminRequest::ListParticipants => {
                let all = self.participants.keys().filter_map(|id| self.info(*id)).collect();
                Ok(AdminAnswer::Participants(all))
            }
            AdminRequest::GetParticipant(identity) => {
                let info = self.info(self.find(&identity)?).ok_or(NO_PARTICIPANT)?;
                Ok(AdminAnswer::Participant(Box::new(info)))
            }
            AdminRequest::RemoveParticipant { identity, reason } => {
                let id = self.find(&identity)?;
                self.dismiss(cx, id, reason);
                Ok(AdminAnswer::Done)
            }
            AdminRequest::MuteTrack { identity, track_sid, muted } => self.admin_mute(cx, &identity, &track_sid, muted),
            AdminRequest::LimitVideo { identity, max_spatial } => {
                let id = self.find(&identity)?;
                self.limit_video(cx, id, max_spatial);
                Ok(AdminAnswer::Done)
            }
            AdminRequest::UpdateParticipant(request) => self.admin_update(cx, *request),
            AdminRequest::UpdateSubscriptions(request) => {
                let id = self.find(&request.identity)?;
                let sids = super::subscribe::listed(request.track_sids.iter(), &request.participant_tracks);
                self.wish(cx, id, sids, request.subscribe);
                Ok(AdminAnswer::Done)
            }
            AdminRequest::SendData(request) => self.admin_data(cx, *request),
            AdminRequest::UpdateRoomMetadata(metadata) => {
                if metadata.len() > self.config.limits.metadata {
                    return Err(AdminError::Invalid("metadata is too large"));
                }
                self.params.metadata = metadata;
                self.send_room_update(cx);
                Ok(AdminAnswer::Room(Box::new(self.room_message())))
            }
            AdminRequest::Debug => Ok(AdminAnswer::Debug(self.debug())),
            // Answered above.
            AdminRequest::DeleteRoom | AdminRequest::PerformRpc(_) => Ok(AdminAnswer::Done),
        }
    }

    pub(super) fn find(&self, identity: &str) -> Result<ParticipantId, AdminError> {
        self.identities.get(identity).copied().ok_or(NO_PARTICIPANT)
    }

    fn admin_mute(
        &mut self,
        cx: &mut Cx<'_>,
        identity: &str,
        track_sid: &str,
        muted: bool,
    ) -> Result<AdminAnswer, AdminError> {
        let id = self.find(identity)?;
        let track = self.own_track(id, track_sid).ok_or(AdminError::NotFound("track does not exist"))?;
        if !muted && !self.config.enable_remote_unmute {
            return Err(AdminError::Precondition("remote unmute not enabled"));
        }
        self.mute_remotely(cx, id, track, muted);
        let info = self.tracks.get(&track).map(|track| track.info.clone()).unwrap_or_default();
        Ok(AdminAnswer::Track(Box::new(info)))
    }

    fn admin_data(&mut self, cx: &mut Cx<'_>, request: proto::SendDataRequest) -> Result<AdminAnswer, AdminError> {
        if request.data.len() > self.config.limits.data_packet {
            return Err(AdminError::Invalid("data is too large"));
        }
        if !matches!(request.nonce.len(), 0 | 16) {
            return Err(AdminError::Invalid("nonce is not 16 bytes"));
        }
        self.send_server_data(cx, request);
        Ok(AdminAnswer::Done)
    }

    /// State for operators. Identities and names stay out of it.
    fn debug(&self) -> serde_json::Value {
        let participants = self.participants.values().map(|participant| {
            serde_json::json!({
                "id": participant.id.0,
                "sid": participant.sid,
                "state": participant.state.as_str_name(),
                "version": participant.version,
                "generation": format!("{:?}", participant.generation),
                "client": format!("{} {} protocol {}", participant.client.browser, participant.client.version, participant.protocol()),
                "connected": participant.connection.is_some(),
                "moving": participant.moving.is_some(),
                "hidden": participant.is_hidden(),
                "transports": participant.legs().map(|leg| leg.transport.0).collect::<Vec<_>>(),
                "media_dead": participant.is_media_dead(),
                "channels": participant.down_leg().channels,
                "sections": participant.publisher.slots.len(),
                "pending": participant.pending.len(),
                "tracks": participant.tracks.len(),
                "downtracks": participant.downtracks.len(),
                "wishes": participant.wishes.len(),
                "quality": participant.quality,
            })
        });
        let tracks = self.tracks.iter().map(|(id, track)| {
            serde_json::json!({
                "id": id.0,
                "sid": track.sid(),
                "publisher": track.publisher.0,
                "mime": track.info.mime_type,
                "muted": track.info.muted,
                "encodings": track.params.encodings.len(),
                "downtracks": track.downtracks.len(),
            })
        });
        serde_json::json!({
            "sid": self.sid,
            "participants": participants.collect::<Vec<_>>(),
            "tracks": tracks.collect::<Vec<_>>(),
            "downtracks": self.downtracks.len(),
            "next_timeout_ms": self.timers.next().map(|at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX)),
        })
    }
}
