//! Coming in: the checks, the transports, and the first messages in the order clients rely on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use livekit_protocol as proto;
use proto::participant_info::State;

use super::api::{ConnectionId, Generation, JoinRequest, Now, Output, Refusal};
use super::bucket::Bucket;
use super::cx::Cx;
use super::data::Inbox;
use super::leg::{Debounce, Leg, Publisher, Subscriber};
use super::participant::{Options, Participant, attribute_bytes};
use super::said::Said;
use super::tally::Tally;
use super::update::Urgency;
use super::{Room, Task, Timer};
use crate::media::{MediaCommand, ParticipantId, TransportParams};
use crate::sdp::LocalTransport;

/// Capabilities of a client that are shown to others.
const MAX_CAPABILITIES: usize = 32;

/// The protocol version this server speaks.
pub(super) const PROTOCOL: i32 = 17;

impl Room {
    pub(super) fn handle_join(&mut self, cx: &mut Cx<'_>, connection: ConnectionId, mut request: JoinRequest) {
        if let Err(refusal) = self.check_join(&request) {
            cx.push(Output::Refuse { connection, refusal });
            return;
        }
        if request.reconnect {
            self.handle_resume(cx, connection, request);
            return;
        }
        let replaced = self.identities.get(&request.grants.identity).copied();
        let others = self.participants.len() - usize::from(replaced.is_some());
        if others >= self.lifetime.max_participants {
            cx.push(Output::Refuse { connection, refusal: Refusal::Unavailable("the room is full") });
            return;
        }
        self.gather(cx, &mut request.grants, others == 0 && replaced.is_none());
        let replaced_publisher = replaced.is_some_and(|older| self.replace(cx, older));
        self.admit(cx, connection, request, replaced_publisher);
    }

    fn check_join(&self, request: &JoinRequest) -> Result<(), Refusal> {
        let limits = &self.config.limits;
        let grants = &request.grants;
        // A resume is sent round instead: a refused one would be tried again and again as a resume.
        if self.lifetime.draining && !request.reconnect {
            return Err(Refusal::Unavailable("the server is stopping"));
        }
        if !grants.room_join {
            return Err(Refusal::Unauthorized("the token does not allow to join a room"));
        }
        if grants.identity.is_empty() {
            return Err(Refusal::BadRequest("identity cannot be empty"));
        }
        if grants.identity.len() > limits.identity {
            return Err(Refusal::BadRequest("identity is too long"));
        }
        let own_data = !request.metadata.is_empty() || !request.attributes.is_empty();
        if own_data && !grants.can_update_own_metadata {
            return Err(Refusal::Unauthorized("the token does not allow metadata or attributes in a join"));
        }
        let metadata = request.metadata.len().max(grants.metadata.len());
        if grants.name.len() > limits.name || metadata > limits.metadata {
            return Err(Refusal::BadRequest("name or metadata is too long"));
        }
        if attribute_bytes(grants.attributes.iter().chain(&request.attributes)) > limits.attributes {
            return Err(Refusal::BadRequest("attributes are too large"));
        }
        Ok(())
    }

    fn admit(&mut self, cx: &mut Cx<'_>, connection: ConnectionId, mut request: JoinRequest, urgent: bool) {
        request.client.capabilities.truncate(MAX_CAPABILITIES);
        let add_tracks = std::mem::take(&mut request.add_tracks);
        let offer = request.publisher_offer.take();
        let may_pause = request.subscriber_allow_pause;
        let participant = self.make_participant(cx, connection, request);
        let id = participant.id;
        self.forget_farewell(cx, participant.identity());
        cx.media(MediaCommand::AddParticipant { participant: id });
        if let Some(allowed) = may_pause {
            cx.media(MediaCommand::SetPausing { participant: id, allowed });
        }
        self.open_subscriber(cx, &participant);
        self.identities.insert(participant.identity().to_owned(), id);
        self.sids.insert(participant.sid.clone(), id);
        self.connections.insert(connection, id);
        self.participants.insert(id, participant);
        self.recount(id);

        self.send_join(cx, id);
        self.begin_comeback(cx, id);
        self.refresh_token(cx, id);
        self.timers.set(Timer::Of(id, Task::Join), cx.after(self.config.join_timeout));
        self.timers.set_if_idle(Timer::Quality, cx.after(super::quality::INTERVAL));
        self.watch_emptiness(cx);
        self.counts_changed(cx);
        self.changed(cx, id, if urgent { Urgency::Soon } else { Urgency::ByRole });

        // What is there already rides in the first description, which saves a round trip.
        self.reconcile_subscriber(cx, id);
        self.reconcile_data(cx, id);
        for request in add_tracks.into_iter().take(self.config.limits.pending_tracks) {
            self.handle_add_track(cx, id, request);
        }
        if let Some(offer) = offer {
            self.handle_offer(cx, id, offer);
        }
        self.negotiate_first(cx, id);
    }

    fn make_participant(&mut self, cx: &Cx<'_>, connection: ConnectionId, request: JoinRequest) -> Participant {
        let id = self.ids.participant();
        let limits = &self.config.limits;
        let signals = Bucket::new(limits.signal_rate.into(), limits.signal_burst.into(), cx.mono());
        let inbox = Inbox::new(limits, cx.mono());
        let mut grants = request.grants;
        if !request.metadata.is_empty() {
            grants.metadata = request.metadata;
        }
        grants.attributes.extend(request.attributes.into_iter().filter(|(_, value)| !value.is_empty()));
        let subscriber = (request.generation == Generation::V0).then(|| Subscriber {
            leg: Leg { open: true, ..self.make_leg() },
            slots: Vec::new(),
            next_offer: self.ids.first_offer_id(),
            outstanding: None,
            again: false,
            debounce: Debounce::default(),
            trickled: false,
        });
        Participant {
            id,
            sid: self.ids.sid("PA", ""),
            place: self.place.clone(),
            grants,
            client: request.client,
            generation: request.generation,
            options: Options {
                auto_subscribe: request.auto_subscribe,
                auto_subscribe_data: request.auto_subscribe_data_track,
                adaptive_stream: request.adaptive_stream,
            },
            state: State::Joined,
            version: 1,
            piece: None,
            counted: Tally::default(),
            joined_ms: cx.now.unix_ms,
            connection: Some(connection),
            moving: None,
            comeback: None,
            was_active: false,
            publisher: Publisher {
                leg: self.make_leg(),
                slots: Vec::new(),
                requested: [0; 2],
                debounce: Debounce::default(),
            },
            subscriber,
            pending: Vec::new(),
            tracks: BTreeSet::new(),
            downtracks: BTreeMap::new(),
            wishes: BTreeMap::new(),
            denied: BTreeSet::new(),
            unsupported: BTreeSet::new(),
            audience: None,
            unapplied: BTreeSet::new(),
            signals,
            refused_signals: 0,
            inbox,
            data_tracks: BTreeMap::new(),
            data_wishes: BTreeMap::new(),
            data_subscriptions: BTreeSet::new(),
            quality: None,
            video_limit: None,
            told_quality: BTreeMap::new(),
            simulate: super::participant::Simulate::default(),
        }
    }

    fn make_leg(&mut self) -> Leg {
        let transport = self.ids.transport();
        let local = LocalTransport {
            session_id: self.ids.session_id(),
            session_version: 0,
            credentials: self.ids.credentials(&self.place.ufrag_prefix),
            fingerprint: self.params.fingerprint,
            candidates: self.place.candidates.clone(),
            max_message_size: u32::try_from(self.config.limits.data_packet).unwrap_or(u32::MAX),
            bandwidth: self.config.bandwidth,
        };
        Leg { transport, local, remote: None, connected: false, channels: false, dead: false, open: false }
    }

    /// v0: we offer first, so the transport has to be there before the client's half is known.
    fn open_subscriber(&mut self, cx: &mut Cx<'_>, participant: &Participant) {
        self.transports.insert(participant.publisher.leg.transport, participant.id);
        if let Some(subscriber) = &participant.subscriber {
            let leg = &subscriber.leg;
            self.transports.insert(leg.transport, participant.id);
            let params = TransportParams { local: leg.local.credentials.clone(), remote: None, open_channels: true };
            cx.media(MediaCommand::AddTransport { participant: participant.id, transport: leg.transport, params });
        }
    }

    /// Whether the subscriber's transport is the one that counts as connected.
    pub(super) fn subscriber_is_primary(participant: &Participant) -> bool {
        participant.subscriber.is_some() && participant.grants.can_subscribe && participant.protocol() >= 3
    }

    /// What a participant is told of STUN and TURN servers, our own first.
    pub(super) fn ice_servers(&self, now: Now, sid: &str) -> Vec<proto::IceServer> {
        let own = self.config.relay.as_ref().map(|relay| relay.server(now.mono, sid));
        own.into_iter().chain(self.config.ice_servers.iter().cloned()).collect()
    }

    fn send_join(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        let others = self.others(id);
        let Some(participant) = self.participants.get(&id) else { return };
        let seconds = |duration: Duration| i32::try_from(duration.as_secs()).unwrap_or(i32::MAX).max(1);
        let join = proto::JoinResponse {
            room: Some(self.room_message()),
            participant: self.info(id),
            server_version: self.config.server_version.clone(),
            ice_servers: self.ice_servers(cx.now, &participant.sid),
            subscriber_primary: Self::subscriber_is_primary(participant),
            client_configuration: client_configuration(participant),
            server_region: self.config.region.clone(),
            ping_interval: seconds(self.config.ping_interval),
            ping_timeout: seconds(self.config.ping_timeout),
            server_info: Some(self.server_info()),
            sif_trailer: self.sif_trailer.clone(),
            enabled_publish_codecs: self.enabled_publish_codecs(),
            fast_publish: participant.grants.can_publish,
            ..Default::default()
        };
        cx.say(participant.connection.into_iter().collect(), Said::join(&join, &others));
    }

    pub(super) fn server_info(&self) -> proto::ServerInfo {
        proto::ServerInfo {
            edition: proto::server_info::Edition::Standard.into(),
            version: self.config.server_version.clone(),
            protocol: PROTOCOL,
            region: self.config.region.clone(),
            node_id: self.config.node_id.clone(),
            ..Default::default()
        }
    }

    /// Sends a fresh token, and the next one in time.
    pub(super) fn refresh_token(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        self.timers.set(Timer::Of(id, Task::Refresh), cx.after(self.config.refresh_interval));
        let Some(participant) = self.participants.get(&id) else { return };
        if participant.moving.is_none()
            && let Some(connection) = participant.connection
        {
            cx.push(Output::RefreshToken { connection, grants: Box::new(participant.grants.clone()) });
        }
    }

    pub(super) fn join_timed_out(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        if self.participants.get(&id).is_some_and(|participant| !participant.was_active) {
            self.dismiss(cx, id, proto::DisconnectReason::JoinFailure);
        }
    }
}

/// What is known not to work with some clients.
pub(super) fn client_configuration(participant: &Participant) -> Option<proto::ClientConfiguration> {
    let codec = |mime: &str| proto::Codec { mime: mime.to_owned(), ..Default::default() };
    let mut disabled = proto::DisabledCodecs::default();
    if participant.is_safari() {
        disabled.codecs.push(codec("video/AV1"));
        if newer_than(&participant.client.browser_version, (18, 3)) {
            disabled.publish.push(codec("video/VP9"));
        }
    }
    if participant.is_firefox_on_linux_or_android() {
        disabled.publish.push(codec("video/H264"));
    }
    let any = !disabled.codecs.is_empty() || !disabled.publish.is_empty();
    any.then(|| proto::ClientConfiguration { disabled_codecs: Some(disabled), ..Default::default() })
}

fn newer_than(version: &str, than: (u32, u32)) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) > than
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_browser_versions_by_number() {
        assert!(newer_than("18.4", (18, 3)) && newer_than("26.0", (18, 3)) && newer_than("18.10.1", (18, 3)));
        assert!(!newer_than("18.3", (18, 3)) && !newer_than("17.6", (18, 3)) && !newer_than("", (18, 3)));
    }
}
