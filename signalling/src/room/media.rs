//! What the media plane reports, handed to its topic.

use livekit_protocol as proto;
use proto::participant_info::State;

use super::Room;
use super::api::Notice;
use super::cx::{Cx, Message};
use super::leg::Leg;
use super::update::Urgency;
use super::{Task, Timer};
use crate::media::{DowntrackId, MediaEvent, TransportId};

impl Room {
    pub(super) fn handle_media(&mut self, cx: &mut Cx<'_>, event: MediaEvent) {
        match event {
            MediaEvent::TransportConnected { transport } => self.transport_connected(cx, transport),
            MediaEvent::TransportFailed { transport, closed_by_peer, .. } => {
                let Some(leg) = self.leg_mut(transport) else { return };
                leg.dead = true;
                leg.channels = false;
                if let Some(id) = self.transports.get(&transport).copied() {
                    self.media_failed(cx, id, closed_by_peer);
                }
            }
            MediaEvent::ChannelsOpen { transport } => self.channels_open(cx, transport),
            MediaEvent::Data { transport, channel, payload } => self.handle_data(cx, transport, channel, payload),
            MediaEvent::TrackStarted { .. } => {}
            MediaEvent::StreamState { downtrack, paused } => self.stream_state(cx, downtrack, paused),
            MediaEvent::Speakers { levels } => self.speakers_changed(cx, &levels),
            MediaEvent::Quality { participant, score } => {
                if let Some(participant) = self.participants.get_mut(&participant) {
                    participant.quality = Some(score.min(100));
                }
            }
        }
    }

    /// A transport the media plane knows.
    pub(super) fn leg_mut(&mut self, transport: TransportId) -> Option<&mut Leg> {
        let id = self.transports.get(&transport)?;
        let participant = self.participants.get_mut(id)?;
        let subscriber = participant.subscriber.as_mut().map(|subscriber| &mut subscriber.leg);
        let mut legs = std::iter::once(&mut participant.publisher.leg).chain(subscriber);
        legs.find(|leg| leg.transport == transport && leg.open)
    }

    fn transport_connected(&mut self, cx: &mut Cx<'_>, transport: TransportId) {
        let Some(leg) = self.leg_mut(transport) else { return };
        leg.connected = true;
        let Some(id) = self.transports.get(&transport).copied() else { return };
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let subscriber_primary = Self::subscriber_is_primary(participant);
        let is_primary = subscriber_primary == (participant.publisher.leg.transport != transport);
        if participant.was_active || !is_primary || participant.moving.is_some() {
            return;
        }
        participant.was_active = true;
        participant.state = State::Active;
        self.timers.cancel(Timer::Of(id, Task::Join));
        // Whoever lost its WebSocket meanwhile has media to come back to.
        self.timers.cancel(Timer::Of(id, Task::Remove));
        self.changed(cx, id, Urgency::ByRole);
        if let Some(info) = self.info(id) {
            cx.notice(Notice::ParticipantJoined(Box::new(self.room_message()), Box::new(info)));
        }
    }

    fn channels_open(&mut self, cx: &mut Cx<'_>, transport: TransportId) {
        let Some(leg) = self.leg_mut(transport) else { return };
        let first = !std::mem::replace(&mut leg.channels, true);
        let Some(id) = self.transports.get(&transport).copied() else { return };
        let is_down = self.participants.get(&id).is_some_and(|one| one.down_leg().transport == transport);
        if first && is_down {
            self.replay_to_newcomer(cx, id);
        }
    }

    fn stream_state(&mut self, cx: &mut Cx<'_>, downtrack: DowntrackId, paused: bool) {
        let Some(entry) = self.downtracks.get_mut(&downtrack) else { return };
        entry.paused = paused;
        let (subscriber, track) = (entry.subscriber, entry.track);
        let Some(state) = self.stream_state_info(track, paused) else { return };
        let Some(participant) = self.participants.get(&subscriber) else { return };
        let update = proto::StreamStateUpdate { stream_states: vec![state] };
        cx.send(participant.connection, Message::StreamStateUpdate(update));
    }

    pub(super) fn stream_state_info(
        &self,
        track: crate::media::TrackId,
        paused: bool,
    ) -> Option<proto::StreamStateInfo> {
        let track = self.tracks.get(&track)?;
        let publisher = self.participants.get(&track.publisher)?;
        let state = if paused { proto::StreamState::Paused } else { proto::StreamState::Active };
        Some(proto::StreamStateInfo {
            participant_sid: publisher.sid.clone(),
            track_sid: track.sid().to_owned(),
            state: state.into(),
        })
    }
}
