//! Going: of one's own will, by being removed, by being told to come back, by vanishing.
//!
//! `leave` with DISCONNECT is for final removals only. Everything that should come back gets RECONNECT, because clients
//! do not come back from a DISCONNECT, whatever its reason.

use std::time::Duration;

use livekit_protocol as proto;
use proto::DisconnectReason as Reason;
use proto::leave_request::Action;
use proto::participant_info::State;

use super::api::{ConnectionId, Notice};
use super::cx::{Cx, Message};
use super::participant::Moving;
use super::{Room, Task, Timer};
use crate::media::{MediaCommand, ParticipantId};

/// A client told to reconnect says `leave` on its old connection; within this time that is no hang-up.
const MOVE_WINDOW: Duration = Duration::from_secs(2);
/// An orderly end of the media often runs ahead of the `leave` it belongs to.
const LEAVE_LAG: Duration = Duration::from_millis(700);

pub(super) fn leave_message(protocol: i32, reason: Reason, action: Action) -> Message {
    // Clients before protocol 13 know no action, only whether to come back.
    let can_reconnect = protocol < 13 && action != Action::Disconnect;
    Message::Leave(proto::LeaveRequest { can_reconnect, reason: reason.into(), action: action.into(), regions: None })
}

impl Room {
    /// The client says goodbye.
    pub(super) fn handle_leave(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        let Some(participant) = self.participants.get(&id) else { return };
        let now = cx.mono();
        let is_moving = participant.moving.is_some_and(|moving| now.saturating_sub(moving.since) <= MOVE_WINDOW);
        if is_moving {
            // It comes back in a moment and replaces itself; until then it is kept as it is.
            self.close_moved(cx, id);
            return;
        }
        let connection = participant.connection;
        self.remove(cx, id, Reason::ClientInitiated);
        if let Some(connection) = connection {
            cx.close(connection);
        }
    }

    /// Tells it to come back with a new join, and forgets it if it does not.
    pub(super) fn move_on(&mut self, cx: &mut Cx<'_>, id: ParticipantId, reason: Reason) {
        let grace = self.config.reconnect_grace;
        let Some(participant) = self.participants.get_mut(&id) else { return };
        if participant.moving.is_some() {
            return;
        }
        participant.moving = Some(Moving { since: cx.mono(), reason });
        let protocol = participant.protocol();
        cx.send(participant.connection, leave_message(protocol, reason, Action::Reconnect));
        for task in [Task::Negotiate, Task::Answer, Task::Join, Task::Refresh, Task::ClosedByPeer] {
            self.timers.cancel(Timer::Of(id, task));
        }
        self.timers.set(Timer::Of(id, Task::Remove), cx.after(grace));
        self.timers.set(Timer::Of(id, Task::Close), cx.after(MOVE_WINDOW));
    }

    /// Closes the connection of one that was told to reconnect; the participant itself stays for a while.
    pub(super) fn close_moved(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        if let Some(connection) = self.participants.get_mut(&id).and_then(|participant| participant.connection.take()) {
            self.connections.remove(&connection);
            cx.close(connection);
        }
        if self.lifetime.draining {
            // It comes back to another node or another run; nobody waits for it here.
            self.remove(cx, id, Reason::ServerShutdown);
        }
    }

    /// Removes it for good and tells it so.
    pub(super) fn dismiss(&mut self, cx: &mut Cx<'_>, id: ParticipantId, reason: Reason) {
        let Some(participant) = self.participants.get(&id) else { return };
        let (connection, protocol) = (participant.connection, participant.protocol());
        cx.send(connection, leave_message(protocol, reason, Action::Disconnect));
        self.remove(cx, id, reason);
        if let Some(connection) = connection {
            cx.close(connection);
        }
    }

    /// Somebody with the same identity joins: the older one goes. Says whether it published.
    pub(super) fn replace(&mut self, cx: &mut Cx<'_>, id: ParticipantId) -> bool {
        let Some(participant) = self.participants.get(&id) else { return false };
        let (connection, protocol) = (participant.connection, participant.protocol());
        let (moving, published) = (participant.moving, participant.is_publisher());
        // One that is moving is the same client on its way: nothing to tell it.
        let reason = moving.map_or(Reason::DuplicateIdentity, |moving| moving.reason);
        if moving.is_none() {
            cx.send(connection, leave_message(protocol, reason, Action::Disconnect));
        }
        self.take_out(cx, id, reason, true);
        if let Some(connection) = connection {
            cx.close(connection);
        }
        published
    }

    /// Removes it and everything of it. Its connection is forgotten, not closed.
    pub(super) fn remove(&mut self, cx: &mut Cx<'_>, id: ParticipantId, reason: Reason) {
        self.take_out(cx, id, reason, false);
        self.counts_changed(cx);
        if self.participants.is_empty() && self.lifetime.draining {
            self.timers.set(Timer::Lifetime, cx.mono());
        } else {
            self.watch_emptiness(cx);
        }
    }

    fn take_out(&mut self, cx: &mut Cx<'_>, id: ParticipantId, reason: Reason, replaced: bool) {
        let Some(mut info) = self.info(id) else { return };
        info.state = State::Disconnected.into();
        info.disconnect_reason = reason.into();
        self.drop_downtracks_to(cx, id);
        let tracks: Vec<_> = self.participants.get(&id).into_iter().flat_map(|one| one.tracks.clone()).collect();
        for track in tracks {
            self.drop_track(cx, id, track);
        }
        self.drop_data_tracks(cx, id);
        self.drop_calls(cx, id);
        let Some(participant) = self.participants.remove(&id) else { return };
        self.uncount(&participant);
        cx.media(MediaCommand::RemoveParticipant { participant: id });
        self.forget(&participant);
        if replaced {
            self.tell_replaced(cx, info.clone(), participant.is_hidden());
        } else {
            self.tell_gone(cx, info.clone(), participant.is_hidden());
        }
        let room = Box::new(self.room_message());
        cx.notice(if participant.was_active {
            Notice::ParticipantLeft(room, Box::new(info))
        } else {
            Notice::ParticipantAborted(room, Box::new(info))
        });
    }

    fn forget(&mut self, participant: &super::participant::Participant) {
        let id = participant.id;
        if self.identities.get(participant.identity()) == Some(&id) {
            self.identities.remove(participant.identity());
        }
        self.sids.remove(&participant.sid);
        self.returning.remove(&id);
        if let Some(connection) = participant.connection {
            self.connections.remove(&connection);
        }
        for leg in participant.legs() {
            self.transports.remove(&leg.transport);
        }
        for task in Task::ALL {
            self.timers.cancel(Timer::Of(id, task));
        }
    }

    /// The WebSocket is gone. The session lives on as long as its media does.
    pub(super) fn handle_connection_closed(&mut self, cx: &mut Cx<'_>, connection: ConnectionId) {
        let Some(id) = self.connections.remove(&connection) else { return };
        let (signal_grace, reconnect_grace) = (self.config.signal_grace, self.config.reconnect_grace);
        let Some(participant) = self.participants.get_mut(&id) else { return };
        participant.connection = None;
        if let Some(subscriber) = &mut participant.subscriber {
            subscriber.outstanding = None;
        }
        for task in [Task::Negotiate, Task::Answer] {
            self.timers.cancel(Timer::Of(id, task));
        }
        if participant.moving.is_some() {
            if self.lifetime.draining {
                self.remove(cx, id, Reason::ServerShutdown);
            }
            return;
        }
        let closing = self.timers.is_set(Timer::Of(id, Task::ClosedByPeer));
        self.timers.cancel(Timer::Of(id, Task::ClosedByPeer));
        if closing || !participant.was_active {
            self.timers.set(Timer::Of(id, Task::Remove), cx.after(signal_grace));
        } else if participant.is_media_dead() {
            self.timers.set(Timer::Of(id, Task::Remove), cx.after(reconnect_grace));
        }
    }

    /// The time to come back is over.
    pub(super) fn remove_absent(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        let Some(participant) = self.participants.get(&id) else { return };
        let reason = match participant.moving {
            Some(moving) => moving.reason,
            None if participant.connection.is_some() => return,
            None if participant.was_active => Reason::ConnectionTimeout,
            None => Reason::SignalClose,
        };
        let connection = participant.connection;
        self.remove(cx, id, reason);
        if let Some(connection) = connection {
            cx.close(connection);
        }
    }

    /// A transport of it is dead.
    pub(super) fn media_failed(&mut self, cx: &mut Cx<'_>, id: ParticipantId, closed_by_peer: bool) {
        let (signal_grace, reconnect_grace) = (self.config.signal_grace, self.config.reconnect_grace);
        let Some(participant) = self.participants.get(&id) else { return };
        if participant.moving.is_some() {
            return;
        }
        match (participant.connection, closed_by_peer) {
            (Some(_), true) => self.timers.set(Timer::Of(id, Task::ClosedByPeer), cx.after(LEAVE_LAG)),
            (Some(_), false) => self.move_on(cx, id, Reason::ConnectionTimeout),
            (None, true) => self.timers.set_if_idle(Timer::Of(id, Task::Remove), cx.after(signal_grace)),
            (None, false) => self.timers.set_if_idle(Timer::Of(id, Task::Remove), cx.after(reconnect_grace)),
        }
    }

    /// The media thread died: nothing can be resumed.
    pub(super) fn handle_media_lost(&mut self, cx: &mut Cx<'_>) {
        self.name_company(cx);
        let everybody: Vec<_> = self.participants.keys().copied().collect();
        self.lose(cx, everybody);
    }

    /// The media of these is gone.
    pub(super) fn lose(&mut self, cx: &mut Cx<'_>, who: Vec<ParticipantId>) {
        for id in &who {
            self.move_on(cx, *id, Reason::MediaFailure);
        }
        // Silently towards them: they have just been told to come back, and will see who is there then.
        for id in &who {
            if let Some(participant) = self.participants.get_mut(id)
                && let Some(connection) = participant.connection.take()
            {
                self.connections.remove(&connection);
                cx.close(connection);
            }
        }
        for id in who {
            self.remove(cx, id, Reason::MediaFailure);
        }
    }

    /// The node stops.
    pub(super) fn handle_drain(&mut self, cx: &mut Cx<'_>) {
        self.lifetime.draining = true;
        self.name_company(cx);
        let everybody: Vec<_> = self.participants.keys().copied().collect();
        for id in everybody {
            self.move_on(cx, id, Reason::ServerShutdown);
        }
        if self.participants.is_empty() {
            self.timers.set(Timer::Lifetime, cx.mono());
        }
    }
}

impl Task {
    const ALL: [Self; 10] = [
        Self::Join,
        Self::Refresh,
        Self::Remove,
        Self::ClosedByPeer,
        Self::Negotiate,
        Self::Answer,
        Self::Settings,
        Self::Wishes,
        Self::DataCredit,
        Self::Close,
    ];
}
