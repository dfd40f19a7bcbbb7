//! Whom a publisher lets subscribe to its tracks (`subscription_permission`).

use livekit_protocol as proto;

use super::Room;
use super::cx::Cx;
use crate::media::ParticipantId;

impl Room {
    pub(super) fn handle_audience(
        &mut self,
        cx: &mut Cx<'_>,
        id: ParticipantId,
        request: proto::SubscriptionPermission,
    ) {
        let entries = self.config.limits.list_entries;
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let mut allowed = request.track_permissions;
        allowed.truncate(entries);
        for entry in &mut allowed {
            entry.track_sids.truncate(entries);
        }
        participant.audience = (!request.all_participants).then_some(allowed);
        for track in participant.tracks.clone() {
            self.reconcile_track(cx, track);
        }
    }
}
