//! A participant's name, metadata and attributes, changed by itself or by the server API.

use std::collections::BTreeMap;

use livekit_protocol as proto;
use proto::request_response::{Reason, Request};

use super::Room;
use super::cx::Cx;
use super::participant::attribute_bytes;
use super::update::Urgency;
use crate::media::ParticipantId;

/// Why a change was refused.
#[derive(Clone, Copy, Debug)]
pub(super) enum TooLarge {
    Name,
    Metadata,
    Attributes,
}

impl TooLarge {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Name => "name is too long",
            Self::Metadata => "metadata is too large",
            Self::Attributes => "attributes are too large",
        }
    }
}

impl Room {
    pub(super) fn handle_metadata(
        &mut self,
        cx: &mut Cx<'_>,
        id: ParticipantId,
        request: proto::UpdateParticipantMetadata,
    ) {
        let request_id = request.request_id;
        let allowed = self.participants.get(&id).is_some_and(|participant| participant.grants.can_update_own_metadata);
        let result = if allowed {
            let attributes = request.attributes.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
            self.update_profile(cx, id, &request.name, &request.metadata, attributes)
                .map_err(|too_large| (Reason::LimitExceeded, too_large.text()))
        } else {
            Err((Reason::NotAllowed, "not allowed to change its own metadata"))
        };
        let (reason, message) = result.err().unwrap_or((Reason::Ok, ""));
        let request = (reason != Reason::Ok).then_some(Request::UpdateMetadata(request));
        self.respond(cx, id, request_id, reason, message, request);
    }

    /// Empty name or metadata mean "as before"; an attribute with an empty value is deleted.
    pub(super) fn update_profile(
        &mut self,
        cx: &mut Cx<'_>,
        id: ParticipantId,
        name: &str,
        metadata: &str,
        attributes: BTreeMap<String, String>,
    ) -> Result<(), TooLarge> {
        let limits = &self.config.limits;
        let Some(participant) = self.participants.get_mut(&id) else { return Ok(()) };
        if name.len() > limits.name {
            return Err(TooLarge::Name);
        }
        if metadata.len() > limits.metadata {
            return Err(TooLarge::Metadata);
        }
        let mut merged = participant.grants.attributes.clone();
        merged.extend(attributes);
        merged.retain(|_, value| !value.is_empty());
        if attribute_bytes(&merged) > limits.attributes {
            return Err(TooLarge::Attributes);
        }
        let grants = &mut participant.grants;
        let before = (grants.name.clone(), grants.metadata.clone(), std::mem::replace(&mut grants.attributes, merged));
        if !name.is_empty() {
            name.clone_into(&mut grants.name);
        }
        if !metadata.is_empty() {
            metadata.clone_into(&mut grants.metadata);
        }
        if before != (grants.name.clone(), grants.metadata.clone(), grants.attributes.clone()) {
            self.changed(cx, id, Urgency::Soon);
            // What a resume or a full reconnect brings along must not be older than this.
            self.refresh_token(cx, id);
        }
        Ok(())
    }
}
