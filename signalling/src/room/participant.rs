//! What the room knows of one participant, and how it is shown to others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use livekit_protocol as proto;
use proto::participant_info::State;

use super::api::{ConnectionId, Generation, Grants, MediaPlace};
use super::bucket::Bucket;
use super::comeback::Comeback;
use super::data::Inbox;
use super::leg::{Publisher, Subscriber};
use super::said::Piece;
use super::tally::Tally;
use crate::media::{DowntrackId, MediaKind, ParticipantId, TrackId};

/// One device in the room, from its join to its final removal; survives resumes.
#[derive(Debug)]
pub(super) struct Participant {
    pub(super) id: ParticipantId,
    pub(super) sid: String,
    /// Where its media is.
    pub(super) place: Arc<MediaPlace>,
    pub(super) grants: Grants,
    pub(super) client: proto::ClientInfo,
    pub(super) generation: Generation,
    pub(super) options: Options,
    pub(super) state: State,
    /// One up with each change others can see.
    pub(super) version: u32,
    /// How others see it, encoded, and the version of that.
    pub(super) piece: Option<(u32, Piece)>,
    /// As what it is counted in the room.
    pub(super) counted: Tally,
    pub(super) joined_ms: i64,
    /// Its WebSocket; `None` while it is away.
    pub(super) connection: Option<ConnectionId>,
    /// Set once it has been told to come back with a new join.
    pub(super) moving: Option<Moving>,
    /// Set for a while after it came back with a new join.
    pub(super) comeback: Option<Comeback>,
    /// Media connected at least once.
    pub(super) was_active: bool,
    /// Where the client's offers are answered: the only transport of v1, the publisher's of v0.
    pub(super) publisher: Publisher,
    /// v0: where we offer.
    pub(super) subscriber: Option<Subscriber>,
    pub(super) pending: Vec<PendingTrack>,
    pub(super) tracks: BTreeSet<TrackId>,
    pub(super) downtracks: BTreeMap<TrackId, DowntrackId>,
    /// Explicit subscriptions, by track sid.
    pub(super) wishes: BTreeMap<String, Wish>,
    /// Tracks it wants and may not have; it has been told.
    pub(super) denied: BTreeSet<TrackId>,
    /// Tracks it cannot decode; it has been told.
    pub(super) unsupported: BTreeSet<TrackId>,
    /// Whom it lets subscribe; `None`: everybody.
    pub(super) audience: Option<Vec<proto::TrackPermission>>,
    /// Downtracks whose settings wait to be applied.
    pub(super) unapplied: BTreeSet<DowntrackId>,
    pub(super) signals: Bucket,
    /// Requests dropped since the bucket last had room.
    pub(super) refused_signals: u32,
    pub(super) inbox: Inbox,
    pub(super) data_tracks: BTreeMap<u16, DataTrack>,
    /// Explicit data subscriptions, by data track sid.
    pub(super) data_wishes: BTreeMap<String, bool>,
    /// Data tracks it is sent, by sid.
    pub(super) data_subscriptions: BTreeSet<String>,
    /// 0 to 100, from the media plane.
    pub(super) quality: Option<u8>,
    /// Highest spatial layer of its video that is sent to anybody; `None`: all.
    pub(super) video_limit: Option<u8>,
    /// What it was last told about connection quality, by participant.
    pub(super) told_quality: BTreeMap<ParticipantId, proto::ConnectionQuality>,
    pub(super) simulate: Simulate,
}

/// What it asked for when joining.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) auto_subscribe: bool,
    pub(super) auto_subscribe_data: bool,
    pub(super) adaptive_stream: bool,
}

/// It was told to come back with a new join.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moving {
    pub(super) since: Duration,
    pub(super) reason: proto::DisconnectReason,
}

/// Failures a client asked us to play.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Simulate {
    /// Close the next resumed connection after the first message.
    pub(super) drop_resumed: bool,
    /// Close the next resumed connection before the first message.
    pub(super) drop_silently: bool,
}

/// A track that was announced and not negotiated yet.
#[derive(Clone, Debug)]
pub(super) struct PendingTrack {
    pub(super) cid: String,
    pub(super) kind: MediaKind,
    pub(super) info: proto::TrackInfo,
    /// Waits for an older track with the same client id to end; the client has not been answered.
    pub(super) queued: bool,
    /// When it was announced.
    pub(super) since: Duration,
}

/// An explicit subscription.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) subscribe: bool,
    /// When it was made; a track that stays unknown is reported a while later.
    pub(super) since: Duration,
}

/// A published data track.
#[derive(Clone, Debug)]
pub(super) struct DataTrack {
    pub(super) info: proto::DataTrackInfo,
    /// Its handle towards every subscriber.
    pub(super) handle: u16,
}

impl Participant {
    pub(super) fn protocol(&self) -> i32 {
        self.client.protocol
    }

    pub(super) fn identity(&self) -> &str {
        &self.grants.identity
    }

    pub(super) fn is_hidden(&self) -> bool {
        self.grants.hidden
    }

    pub(super) fn is_publisher(&self) -> bool {
        !self.tracks.is_empty() || !self.data_tracks.is_empty()
    }

    /// Firefox rewrites client track ids and has its own ideas about codec order.
    pub(super) fn is_firefox(&self) -> bool {
        self.client.browser.eq_ignore_ascii_case("firefox")
    }

    pub(super) fn is_safari(&self) -> bool {
        self.client.browser.eq_ignore_ascii_case("safari")
    }

    /// Whether a section of the subscriber's peer connection may carry one track after the other. Native SDKs name a track
    /// by the ids of the section's first one, Safari does not revive a stopped section.
    pub(super) fn reuses_sections(&self) -> bool {
        self.client.sdk() == proto::client_info::Sdk::Js && !self.is_safari()
    }

    /// Whether tracks may come in one stream with the publisher's other tracks, which browsers then keep in sync.
    pub(super) fn shares_streams(&self) -> bool {
        self.protocol() >= 10 && !self.is_firefox()
    }

    pub(super) fn is_firefox_on_linux_or_android(&self) -> bool {
        let os = self.client.os.as_str();
        self.is_firefox() && ["linux", "android"].iter().any(|known| known.eq_ignore_ascii_case(os))
    }

    /// Both of its transports, the one of v1 alone.
    pub(super) fn legs(&self) -> impl Iterator<Item = &super::leg::Leg> {
        std::iter::once(&self.publisher.leg).chain(self.subscriber.as_ref().map(|subscriber| &subscriber.leg))
    }

    /// The transport that carries tracks and data to it.
    pub(super) fn down_leg(&self) -> &super::leg::Leg {
        self.subscriber.as_ref().map_or(&self.publisher.leg, |subscriber| &subscriber.leg)
    }

    pub(super) fn is_media_dead(&self) -> bool {
        self.legs().any(|leg| leg.dead)
    }

    /// Whether `source` may be published with its permission.
    pub(super) fn may_publish(&self, source: i32) -> bool {
        let sources = &self.grants.can_publish_sources;
        self.grants.can_publish && (sources.is_empty() || sources.contains(&source))
    }

    pub(super) fn permission(&self) -> proto::ParticipantPermission {
        permission_of(&self.grants)
    }

    /// Whether `other` may subscribe to the track, as far as this publisher is asked.
    pub(super) fn allows(&self, other: &Self, track_sid: &str) -> bool {
        let Some(audience) = &self.audience else { return true };
        audience.iter().any(|entry| {
            let matches = (!entry.participant_sid.is_empty() && entry.participant_sid == other.sid)
                || (!entry.participant_identity.is_empty() && entry.participant_identity == other.grants.identity);
            matches && (entry.all_tracks || entry.track_sids.iter().any(|sid| sid == track_sid))
        })
    }

    /// How others see it, tracks left to the caller.
    pub(super) fn info(&self, tracks: Vec<proto::TrackInfo>) -> proto::ParticipantInfo {
        proto::ParticipantInfo {
            sid: self.sid.clone(),
            identity: self.grants.identity.clone(),
            state: self.state.into(),
            tracks,
            metadata: self.grants.metadata.clone(),
            joined_at: self.joined_ms / 1000,
            joined_at_ms: self.joined_ms,
            name: self.grants.name.clone(),
            version: self.version,
            permission: Some(self.permission()),
            is_publisher: self.is_publisher(),
            kind: self.grants.kind,
            attributes: self.grants.attributes.clone().into_iter().collect(),
            data_tracks: self.data_tracks.values().map(|track| track.info.clone()).collect(),
            client_protocol: self.client.client_protocol,
            capabilities: self.client.capabilities.clone(),
            ..Default::default()
        }
    }
}

/// Grants in the words of the protocol.
#[allow(deprecated, reason = "old clients read the deprecated fields")]
pub(super) fn permission_of(grants: &Grants) -> proto::ParticipantPermission {
    proto::ParticipantPermission {
        can_subscribe: grants.can_subscribe,
        can_publish: grants.can_publish,
        can_publish_data: grants.can_publish_data,
        can_publish_sources: grants.can_publish_sources.clone(),
        hidden: grants.hidden,
        recorder: grants.recorder,
        can_update_metadata: grants.can_update_own_metadata,
        agent: grants.agent,
        can_subscribe_metrics: grants.can_subscribe_metrics,
        ..Default::default()
    }
}

/// Bytes of all attributes together.
pub(super) fn attribute_bytes<'a>(attributes: impl IntoIterator<Item = (&'a String, &'a String)>) -> usize {
    attributes.into_iter().map(|(key, value)| key.len() + value.len()).sum()
}

/// Nonces of user packets seen lately, so that a retried one is delivered once.
#[derive(Debug, Default)]
pub(super) struct Nonces(VecDeque<Vec<u8>>);

impl Nonces {
    const KEPT: usize = 128;

    /// False if it was seen before. Empty and odd nonces are always new.
    pub(super) fn is_new(&mut self, nonce: &[u8]) -> bool {
        if nonce.len() != 16 {
            return true;
        }
        if self.0.iter().any(|seen| seen == nonce) {
            return false;
        }
        if self.0.len() >= Self::KEPT {
            self.0.pop_front();
        }
        self.0.push_back(nonce.to_vec());
        true
    }
}
