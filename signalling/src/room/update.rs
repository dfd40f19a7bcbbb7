//! Who is told what about participants, and when.
//!
//! Changes of publishers go out at once: a client drops a track whose participant it does not know. Changes that only
//! concern subscribers are collected, the longer the larger the room is, so that a thousand joins are not a million
//! messages.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use livekit_protocol as proto;
use prost::Message as _;
use proto::participant_info::State;

use super::api::ConnectionId;
use super::cx::{Cx, Message};
use super::{Room, Timer};
use crate::media::ParticipantId;

/// Bytes of participants in one update message: what fits into a WebSocket frame without hurting anybody.
const CHUNK: usize = 128 << 10;
/// Collected changes wait at most this long.
const MAX_DELAY: Duration = Duration::from_secs(3);
/// Departures are remembered this long: a client tries to resume for less than a minute.
const DEPARTED_AGE: Duration = Duration::from_secs(120);
/// Departures remembered at most.
const DEPARTED: usize = 1000;
/// Below this many participants changes are hardly collected at all.
const SMALL: usize = 50;

/// Changes that wait to be told.
#[derive(Debug, Default)]
pub(super) struct Updates {
    changed: BTreeMap<ParticipantId, ()>,
    /// Participants that are gone, by identity, so that a quick return replaces the farewell.
    gone: BTreeMap<String, proto::ParticipantInfo>,
    /// Participants that left lately, for those who were away meanwhile.
    departed: VecDeque<(Duration, proto::ParticipantInfo)>,
}

/// How urgent a change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    Now,
    /// At once if it publishes, else collected.
    ByRole,
}

impl Room {
    /// Every connection.
    pub(super) fn everyone(&self) -> Vec<ConnectionId> {
        self.participants.values().filter_map(|participant| participant.connection).collect()
    }

    fn everyone_but(&self, out: ParticipantId) -> Vec<ConnectionId> {
        let others = self.participants.values().filter(|participant| participant.id != out);
        others.filter_map(|participant| participant.connection).collect()
    }

    /// A participant with its tracks.
    pub(super) fn info(&self, id: ParticipantId) -> Option<proto::ParticipantInfo> {
        let participant = self.participants.get(&id)?;
        let tracks = participant.tracks.iter().filter_map(|track| self.tracks.get(track));
        Some(participant.info(tracks.map(|track| track.info.clone()).collect()))
    }

    /// Everybody `viewer` may see.
    pub(super) fn visible_to(&self, viewer: ParticipantId) -> Vec<proto::ParticipantInfo> {
        let visible = self.participants.values().filter(|other| other.id == viewer || !other.is_hidden());
        visible.filter_map(|other| self.info(other.id)).collect()
    }

    /// Notes a change of a participant and tells it, itself included, with the urgency asked for.
    pub(super) fn changed(&mut self, cx: &mut Cx<'_>, id: ParticipantId, urgency: Urgency) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        participant.version = participant.version.saturating_add(1);
        let now = urgency == Urgency::Now || participant.is_publisher();
        if now {
            self.tell_now(cx, id);
        } else {
            self.updates.changed.insert(id, ());
            let delay = self.collect_delay();
            self.timers.set_if_idle(Timer::Updates, cx.after(delay));
        }
    }

    /// A change everybody else has to know at once and the participant itself made.
    pub(super) fn changed_by_itself(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        participant.version = participant.version.saturating_add(1);
        if !participant.is_hidden()
            && let Some(info) = self.info(id)
        {
            self.updates.changed.remove(&id);
            self.tell(cx, self.everyone_but(id), vec![info]);
        }
    }

    fn tell_now(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        self.updates.changed.remove(&id);
        let Some(info) = self.info(id) else { return };
        self.updates.gone.remove(&info.identity);
        let hidden = self.participants.get(&id).filter(|participant| participant.is_hidden());
        let to = match hidden {
            Some(participant) => participant.connection.into_iter().collect(),
            None => self.everyone(),
        };
        self.tell(cx, to, vec![info]);
    }

    fn collect_delay(&self) -> Duration {
        let count = self.participants.len();
        let base = Duration::from_millis(50);
        if count <= SMALL { base } else { (base * u32::try_from(count / SMALL).unwrap_or(u32::MAX)).min(MAX_DELAY) }
    }

    /// Others learn that a participant is gone. `info` is its last state.
    pub(super) fn tell_gone(&mut self, cx: &mut Cx<'_>, mut info: proto::ParticipantInfo, hidden: bool) {
        if hidden {
            return;
        }
        info.version = info.version.saturating_add(1);
        info.state = State::Disconnected.into();
        let urgent = info.is_publisher || self.participants.len() <= SMALL;
        info.tracks.clear();
        info.data_tracks.clear();
        if self.updates.departed.len() >= DEPARTED {
            self.updates.departed.pop_front();
        }
        self.updates.departed.push_back((cx.mono(), info.clone()));
        if urgent {
            self.tell(cx, self.everyone(), vec![info]);
        } else {
            self.updates.gone.insert(info.identity.clone(), info);
            let delay = self.collect_delay();
            self.timers.set_if_idle(Timer::Updates, cx.after(delay));
        }
    }

    /// Clients that go by sid have to be told that the older of two sessions with one identity is gone; newer ones see
    /// the new sid.
    pub(super) fn tell_replaced(&mut self, cx: &mut Cx<'_>, mut info: proto::ParticipantInfo, hidden: bool) {
        if hidden {
            return;
        }
        info.version = info.version.saturating_add(1);
        info.state = State::Disconnected.into();
        info.tracks.clear();
        info.data_tracks.clear();
        let old = self.participants.values().filter(|participant| participant.protocol() < 12);
        let to: Vec<_> = old.filter_map(|participant| participant.connection).collect();
        self.tell(cx, to, vec![info]);
    }

    /// A participant became hidden: for the others it is as if it had left.
    pub(super) fn tell_hidden(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        let Some(info) = self.info(id) else { return };
        let to = self.everyone_but(id);
        let info = proto::ParticipantInfo { state: State::Disconnected.into(), tracks: Vec::new(), ..info };
        self.tell(cx, to, vec![info]);
    }

    /// Who left in the last two minutes and is not back: what one who was away may have missed.
    pub(super) fn departed(&mut self, cx: &Cx<'_>) -> Vec<proto::ParticipantInfo> {
        let now = cx.mono();
        self.updates.departed.retain(|(at, _)| now.saturating_sub(*at) <= DEPARTED_AGE);
        let departed = self.updates.departed.iter().map(|(_, info)| info);
        departed.filter(|info| !self.identities.contains_key(&info.identity)).cloned().collect()
    }

    /// Sends what was collected.
    pub(super) fn flush_updates(&mut self, cx: &mut Cx<'_>) {
        self.timers.cancel(Timer::Updates);
        let (changed, gone) = (std::mem::take(&mut self.updates.changed), std::mem::take(&mut self.updates.gone));
        let mut infos: Vec<_> = gone.into_values().collect();
        for id in changed.into_keys() {
            let Some(participant) = self.participants.get(&id) else { continue };
            let (hidden, connection) = (participant.is_hidden(), participant.connection);
            let Some(info) = self.info(id) else { continue };
            if hidden {
                cx.send(connection, Message::Update(proto::ParticipantUpdate { participants: vec![info] }));
            } else {
                infos.push(info);
            }
        }
        let to = self.everyone();
        for participants in chunks(infos) {
            self.tell(cx, to.clone(), participants);
        }
    }
}

/// Splits a long list so that no message grows without bound.
pub(super) fn chunks(infos: Vec<proto::ParticipantInfo>) -> Vec<Vec<proto::ParticipantInfo>> {
    let mut result: Vec<Vec<proto::ParticipantInfo>> = Vec::new();
    let mut room = 0_usize;
    for info in infos {
        let size = info.encoded_len();
        match result.last_mut() {
            Some(last) if size <= room => {
                room -= size;
                last.push(info);
            }
            _ => {
                room = CHUNK.saturating_sub(size);
                result.push(vec![info]);
            }
        }
    }
    result
}
