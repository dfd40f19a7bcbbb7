//! Coming back with a new join to a room one was in, as livekit-client does it: after a move to another node, after a
//! crash, or when its media had died.
//!
//! Such a client keeps what happens in the room to itself until it takes itself for connected, which is when its own
//! tracks are published, and tells its page then. From there until two seconds after the `join` it keeps things to
//! itself again, and tells its page never: tracks that come in this time stay unseen, and undecrypted. Two things
//! follow. The answers that complete its publishing wait until those who are expected back are there, with their tracks
//! negotiated: what is there before counts. And what happens after that waits until the two seconds are over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use livekit_protocol as proto;

use super::api::{Company, ConnectionId, Generation, Grants, Output};
use super::cx::{Cx, Message};
use super::said::{Piece, Said};
use super::update::chunks;
use super::{Room, Timer};
use crate::media::ParticipantId;

/// Events are told again from here on after the `join`: two seconds of the client, and some for its timers.
const DEAF: Duration = Duration::from_millis(2200);
/// How long those who come back wait for each other when nothing says who is expected: clients told to reconnect wait up
/// to half a second, and those who lost their node try a resume before.
const GATHER: Duration = Duration::from_millis(1200);
/// How often it is looked whether somebody need wait no longer.
const LOOK: Duration = Duration::from_millis(40);
/// From the answer that brings tracks until a client (v1) has surely applied it; it does not say so.
const APPLIED: Duration = Duration::from_millis(200);
/// Clients that negotiate a track beside announcing it do so within this time. Others wait for the answer first.
const NEGOTIATED: Duration = Duration::from_millis(300);

/// A participant that is coming back.
#[derive(Debug)]
pub(super) struct Comeback {
    since: Duration,
    /// Answers to its announcements, with their times.
    held: Vec<(Duration, proto::TrackPublishedResponse)>,
    /// From when on everything it gets has been negotiated.
    calm: Option<Duration>,
    /// It keeps events to itself and never tells them.
    pub(super) is_deaf: bool,
    /// Whom it is to be told of when that is over, by identity.
    missed: BTreeMap<Arc<str>, Piece>,
}

/// People are coming back to a room that nobody is in.
#[derive(Debug)]
pub(super) struct Gathering {
    until: Duration,
    expected: Company,
}

impl Room {
    /// Somebody is about to come in. `is_first`: nobody is there, and nobody is being replaced.
    pub(super) fn gather(&mut self, cx: &Cx<'_>, grants: &mut Grants, is_first: bool) {
        let company = std::mem::take(&mut grants.company);
        if !grants.joined {
            return;
        }
        if is_first {
            self.gathering = Some(Gathering { until: cx.after(GATHER), expected: Company::default() });
        }
        if let Some(gathering) = &mut self.gathering {
            let expected = &mut gathering.expected;
            expected.people = expected.people.max(company.people);
            expected.tracks = expected.tracks.max(company.tracks);
        }
    }

    /// It came in.
    pub(super) fn begin_comeback(&mut self, cx: &Cx<'_>, id: ParticipantId) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        if !participant.grants.joined || participant.client.sdk() != proto::client_info::Sdk::Js {
            return;
        }
        let (since, held, missed) = (cx.mono(), Vec::new(), BTreeMap::new());
        participant.comeback = Some(Comeback { since, held, calm: None, is_deaf: false, missed });
        self.returning.insert(id);
        self.timers.set_if_idle(Timer::Comebacks, cx.after(LOOK));
    }

    /// The answer to an announcement of a track: now, or when those who are expected are there.
    pub(super) fn answer_add_track(
        &mut self,
        cx: &mut Cx<'_>,
        id: ParticipantId,
        response: proto::TrackPublishedResponse,
    ) {
        let most = self.config.limits.tracks;
        let Some(participant) = self.participants.get_mut(&id) else { return };
        match &mut participant.comeback {
            Some(comeback) if !comeback.is_deaf && comeback.held.len() < most => {
                comeback.held.push((cx.mono(), response));
            }
            _ => cx.send(participant.connection, Message::TrackPublished(response)),
        }
    }

    pub(super) fn look_at_comebacks(&mut self, cx: &mut Cx<'_>) {
        let now = cx.mono();
        let is_there = |expected: Company| {
            let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
            let (people, tracks) = (count(self.participants.len()), count(self.tracks.len()));
            expected.people > 0 && people >= expected.people && tracks >= expected.tracks
        };
        if self.gathering.as_ref().is_some_and(|it| it.until <= now || is_there(it.expected)) {
            self.gathering = None;
        }
        for id in self.returning.clone() {
            self.look_at_comeback(cx, id);
        }
        if !self.returning.is_empty() {
            self.timers.set(Timer::Comebacks, cx.after(LOOK));
        }
    }

    fn look_at_comeback(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        let now = cx.mono();
        let is_negotiated = self.has_all_negotiated(id);
        let is_gathered = self.gathering.is_none();
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let is_gone = participant.connection.is_none() || participant.moving.is_some();
        let Some(comeback) = &mut participant.comeback else { return };
        if is_gone || now.saturating_sub(comeback.since) >= DEAF {
            self.end_comeback(cx, id);
            return;
        }
        comeback.calm = if is_negotiated { comeback.calm.or(Some(now)) } else { None };
        // An answer of a client's own says that our offer was applied.
        let apply = if participant.generation == Generation::V1 { APPLIED } else { Duration::ZERO };
        let is_calm = is_gathered && comeback.calm.is_some_and(|calm| now.saturating_sub(calm) >= apply);
        let pending = &participant.pending;
        let is_ready = |(since, response): &mut (Duration, proto::TrackPublishedResponse)| {
            let waits = pending.iter().any(|one| one.cid == response.cid);
            if waits { now.saturating_sub(*since) >= NEGOTIATED } else { is_calm }
        };
        for (_, response) in comeback.held.extract_if(.., is_ready) {
            comeback.is_deaf = true;
            cx.send(participant.connection, Message::TrackPublished(response));
        }
    }

    /// Whether every track it is to get is in a description it has answered, or will apply in a moment.
    fn has_all_negotiated(&self, id: ParticipantId) -> bool {
        let Some(participant) = self.participants.get(&id) else { return true };
        let mut downtracks = participant.downtracks.values().filter_map(|downtrack| self.downtracks.get(downtrack));
        downtracks.all(|downtrack| downtrack.params.is_some())
    }

    /// It tells everything it hears from now on, or is not to be told.
    pub(super) fn end_comeback(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        self.returning.remove(&id);
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let Some(comeback) = participant.comeback.take() else { return };
        if participant.moving.is_some() {
            return;
        }
        let connection = participant.connection;
        for (_, response) in comeback.held {
            cx.send(connection, Message::TrackPublished(response));
        }
        let missed: Vec<_> = comeback.missed.into_values().collect();
        for pieces in chunks(&missed) {
            cx.say(connection.into_iter().collect(), Said::update(pieces));
        }
        if comeback.is_deaf {
            self.reconcile_subscriber(cx, id);
        }
    }

    /// Tells these connections about participants: at once, but for who would not tell its page.
    pub(super) fn tell(&mut self, cx: &mut Cx<'_>, mut to: Vec<ConnectionId>, pieces: &[Piece]) {
        if !self.returning.is_empty() {
            to.retain(|connection| !self.is_told_later(cx, *connection, pieces));
        }
        if !to.is_empty() && !pieces.is_empty() {
            cx.say(to, Said::update(pieces));
        }
    }

    fn is_told_later(&mut self, cx: &mut Cx<'_>, to: ConnectionId, pieces: &[Piece]) -> bool {
        let participant = self.connections.get(&to).and_then(|id| self.participants.get_mut(id));
        let Some(participant) = participant else { return false };
        let Some(comeback) = participant.comeback.as_mut().filter(|comeback| comeback.is_deaf) else { return false };
        let mut at_once = Vec::new();
        for piece in pieces {
            // Farewells are told whenever they come, and nobody tells of oneself.
            if piece.is_gone || *piece.identity == *participant.grants.identity {
                comeback.missed.remove(&piece.identity);
                at_once.push(piece.clone());
            } else {
                comeback.missed.insert(piece.identity.clone(), piece.clone());
            }
        }
        if !at_once.is_empty() {
            cx.say(vec![to], Said::update(&at_once));
        }
        true
    }

    /// Everybody is about to be told to come back: their next tokens say how many there are to wait for.
    pub(super) fn name_company(&self, cx: &mut Cx<'_>) {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let mut coming = Vec::new();
        let mut company = Company::default();
        for participant in self.participants.values().filter(|participant| participant.moving.is_none()) {
            if let Some(connection) = participant.connection {
                company.people = company.people.saturating_add(1);
                company.tracks = company.tracks.saturating_add(count(participant.tracks.len()));
                coming.push((connection, participant));
            }
        }
        for (connection, participant) in coming {
            let grants = Box::new(Grants { company, ..participant.grants.clone() });
            cx.push(Output::RefreshToken { connection, grants });
        }
    }
}
