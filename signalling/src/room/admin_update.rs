//! `UpdateParticipant` of the server API: profile and permission, with everything a changed permission entails.

use livekit_protocol as proto;

use super::Room;
use super::admin::NO_PARTICIPANT;
use super::api::{AdminAnswer, AdminError};
use super::cx::Cx;
use super::participant::permission_of;
use super::update::Urgency;
use crate::media::ParticipantId;

impl Room {
    pub(super) fn admin_update(
        &mut self,
        cx: &mut Cx<'_>,
        request: proto::UpdateParticipantRequest,
    ) -> Result<AdminAnswer, AdminError> {
        let id = self.find(&request.identity)?;
        let attributes = request.attributes.into_iter().collect();
        self.update_profile(cx, id, &request.name, &request.metadata, attributes)
            .map_err(|too_large| AdminError::Invalid(too_large.text()))?;
        if let Some(permission) = request.permission {
            self.set_permission(cx, id, permission);
        }
        let info = self.info(id).ok_or(NO_PARTICIPANT)?;
        Ok(AdminAnswer::Participant(Box::new(info)))
    }

    fn set_permission(&mut self, cx: &mut Cx<'_>, id: ParticipantId, permission: proto::ParticipantPermission) {
        let entries = self.config.limits.list_entries;
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let grants = &mut participant.grants;
        let (before, was_hidden) = (permission_of(grants), grants.hidden);
        grants.can_subscribe = permission.can_subscribe;
        grants.can_publish = permission.can_publish;
        grants.can_publish_data = permission.can_publish_data;
        grants.can_publish_sources = permission.can_publish_sources;
        grants.can_publish_sources.truncate(entries);
        grants.hidden = permission.hidden;
        grants.can_update_own_metadata = permission.can_update_metadata;
        grants.can_subscribe_metrics = permission.can_subscribe_metrics;
        let now_hidden = grants.hidden;
        if permission_of(grants) == before {
            return;
        }
        if now_hidden && !was_hidden {
            self.tell_hidden(cx, id);
        }
        self.revoke_tracks(cx, id);
        self.changed(cx, id, Urgency::Now);
        self.refresh_token(cx, id);
        self.reconcile_subscriber(cx, id);
        self.reconcile_data(cx, id);
        if now_hidden != was_hidden {
            self.reconcile_publications(cx, id);
        }
        self.counts_changed(cx);
    }

    /// Ends what may no longer be published.
    fn revoke_tracks(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let grants = participant.grants.clone();
        let may = |source: i32| {
            let sources = &grants.can_publish_sources;
            grants.can_publish && (sources.is_empty() || sources.contains(&source))
        };
        participant.pending.retain(|pending| may(pending.info.source));
        let tracks = participant.tracks.iter().filter_map(|track| self.tracks.get(track));
        let revoked: Vec<_> = tracks.filter(|track| !may(track.info.source)).map(|track| track.id).collect();
        for track in revoked {
            self.unpublish(cx, id, track, true);
        }
        if !grants.can_publish_data {
            self.drop_data_tracks(cx, id);
        }
    }

    /// It became visible or hidden: others may have its tracks, or not.
    fn reconcile_publications(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        let tracks = self.participants.get(&id).map(|participant| participant.tracks.clone()).unwrap_or_default();
        for track in tracks {
            self.reconcile_track(cx, track);
        }
    }
}
