//! Rules that hold in every conversation, whatever the clients do.

use std::collections::{BTreeMap, BTreeSet};

use livekit_protocol as proto;
use proto::signal_response::Message;
use signalling::media::{DowntrackId, MediaCommand, ParticipantId, TrackId, TransportId};
use signalling::room::api::{ConnectionId, Input, Output};

#[derive(Default)]
pub(crate) struct Oracle {
    greeted: BTreeSet<ConnectionId>,
    closed: BTreeSet<ConnectionId>,
    versions: BTreeMap<(ConnectionId, String), u32>,
    participants: BTreeSet<ParticipantId>,
    transports: BTreeMap<TransportId, ParticipantId>,
    tracks: BTreeMap<TrackId, TransportId>,
    downtracks: BTreeMap<DowntrackId, (TransportId, TrackId)>,
    ssrcs: BTreeMap<u32, DowntrackId>,
}

impl Oracle {
    pub(crate) fn before(&mut self, input: &Input) {
        if let Input::ConnectionClosed { connection } = input {
            self.closed.insert(*connection);
        }
    }

    pub(crate) fn check(&mut self, output: &Output) {
        match output {
            Output::Send { to, message } => {
                let message = &message.message().message.expect("a message");
                let distinct: BTreeSet<_> = to.iter().collect();
                assert_eq!(distinct.len(), to.len(), "one copy for everybody");
                for connection in to {
                    self.check_message(*connection, message);
                }
            }
            Output::Close { connection } => {
                self.closed.insert(*connection);
            }
            Output::RefreshToken { connection, .. } => {
                assert!(self.greeted.contains(connection), "a token before join");
            }
            Output::Media(command) => self.check_command(command),
            _ => {}
        }
    }

    fn check_message(&mut self, connection: ConnectionId, message: &Message) {
        assert!(!self.closed.contains(&connection), "a message after the end of its connection");
        let greets = matches!(message, Message::Join(_) | Message::Reconnect(_) | Message::Leave(_));
        assert!(self.greeted.contains(&connection) || greets, "the first message is {message:?}");
        self.greeted.insert(connection);
        let infos = match message {
            Message::Join(join) => {
                assert!(join.room.is_some() && join.participant.is_some() && join.ping_interval > 0);
                &join.other_participants
            }
            Message::Update(update) => &update.participants,
            Message::TrackPublished(published) => return assert!(published.track.is_some()),
            Message::RoomUpdate(update) => return assert!(update.room.is_some()),
            Message::Trickle(trickle) => return assert!(trickle.candidate_init.contains("candidate:")),
            _ => return,
        };
        for info in infos {
            let seen = self.versions.entry((connection, info.sid.clone())).or_default();
            assert!(info.version >= *seen, "version of {} went from {seen} to {}", info.identity, info.version);
            *seen = info.version;
        }
    }

    fn check_command(&mut self, command: &MediaCommand) {
        match command {
            MediaCommand::AddParticipant { participant } => assert!(self.participants.insert(*participant)),
            MediaCommand::RemoveParticipant { participant } => {
                assert!(self.participants.remove(participant));
                let gone: Vec<_> =
                    self.transports.iter().filter(|(_, owner)| *owner == participant).map(|(id, _)| *id).collect();
                self.transports.retain(|_, owner| owner != participant);
                self.tracks.retain(|_, transport| !gone.contains(transport));
                self.drop_dangling();
            }
            MediaCommand::SetPausing { participant, .. } => assert!(self.participants.contains(participant)),
            MediaCommand::AddTransport { participant, transport, .. } => {
                assert!(self.participants.contains(participant));
                assert!(self.transports.insert(*transport, *participant).is_none());
            }
            MediaCommand::SetRemote { transport, .. }
            | MediaCommand::RestartIce { transport, .. }
            | MediaCommand::DataTaken { transport, .. }
            | MediaCommand::CapBitrate { transport, .. } => assert!(self.transports.contains_key(transport)),
            MediaCommand::RemoveTransport { transport } => assert!(self.transports.remove(transport).is_some()),
            MediaCommand::Publish { transport, track, .. } => {
                assert!(self.transports.contains_key(transport));
                self.tracks.insert(*track, *transport);
            }
            MediaCommand::Unpublish { track } => {
                assert!(self.tracks.remove(track).is_some());
                self.drop_dangling();
            }
            MediaCommand::SetMuted { track, .. } => assert!(self.tracks.contains_key(track)),
            MediaCommand::Subscribe { transport, track, downtrack, params } => {
                assert!(self.transports.contains_key(transport) && self.tracks.contains_key(track));
                assert_ne!(self.transports.get(transport), self.transports.get(&self.tracks[track]), "own track");
                assert!(!params.payload_types.is_empty());
                self.downtracks.insert(*downtrack, (*transport, *track));
                for ssrc in [Some(params.ssrc), params.rtx_ssrc].into_iter().flatten() {
                    assert!(ssrc != 0);
                    assert_eq!(*self.ssrcs.entry(ssrc).or_insert(*downtrack), *downtrack, "an ssrc twice");
                }
            }
            MediaCommand::Unsubscribe { downtrack } => {
                assert!(self.downtracks.remove(downtrack).is_some());
                self.ssrcs.retain(|_, owner| owner != downtrack);
            }
            MediaCommand::SetDemand { downtrack, .. } => assert!(self.downtracks.contains_key(downtrack)),
            MediaCommand::SendData { transports, .. } => {
                assert!(transports.iter().all(|transport| self.transports.contains_key(transport)));
            }
        }
    }

    fn drop_dangling(&mut self) {
        let (transports, tracks) = (&self.transports, &self.tracks);
        self.downtracks
            .retain(|_, (transport, track)| transports.contains_key(transport) && tracks.contains_key(track));
        let downtracks = &self.downtracks;
        self.ssrcs.retain(|_, owner| downtracks.contains_key(owner));
    }
}
