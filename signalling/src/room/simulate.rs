//! Failures a client asks us to play, so that SDKs can test how they come back.

use livekit_protocol as proto;
use proto::DisconnectReason as Reason;
use proto::leave_request::Action;
use proto::simulate_scenario::Scenario;

use super::Room;
use super::cx::{Cx, Message};
use super::leave::leave_message;
use crate::media::{MediaCommand, ParticipantId};

impl Room {
    pub(super) fn handle_simulate(&mut self, cx: &mut Cx<'_>, id: ParticipantId, request: &proto::SimulateScenario) {
        let Some(participant) = self.participants.get_mut(&id).filter(|_| self.config.allow_simulation) else { return };
        let Some(scenario) = &request.scenario else { return };
        let (connection, protocol) = (participant.connection, participant.protocol());
        match scenario {
            Scenario::SpeakerUpdate(_) => {
                let speakers = vec![proto::SpeakerInfo { sid: participant.sid.clone(), level: 1.0, active: true }];
                cx.send(connection, Message::SpeakersChanged(proto::SpeakersChanged { speakers }));
            }
            Scenario::NodeFailure(_) => {
                self.remove(cx, id, Reason::StateMismatch);
                if let Some(connection) = connection {
                    cx.close(connection);
                }
            }
            Scenario::Migration(_) => {
                if let Some(connection) = connection {
                    cx.close(connection);
                    self.handle_connection_closed(cx, connection);
                }
            }
            Scenario::ServerLeave(_) => self.dismiss(cx, id, Reason::ServerShutdown),
            Scenario::SwitchCandidateProtocol(_) => {
                cx.send(connection, leave_message(protocol, Reason::UnknownReason, Action::Resume));
            }
            Scenario::SubscriberBandwidth(bps) => {
                let bps = u64::try_from(*bps).ok().filter(|bps| *bps > 0);
                let leg = participant.down_leg();
                if leg.open {
                    cx.media(MediaCommand::CapBitrate { transport: leg.transport, bps });
                }
            }
            Scenario::DisconnectSignalOnResume(on) => participant.simulate.drop_resumed = *on,
            Scenario::DisconnectSignalOnResumeNoMessages(on) => participant.simulate.drop_silently = *on,
            Scenario::LeaveRequestFullReconnect(_) => self.move_on(cx, id, Reason::UnknownReason),
        }
    }
}
