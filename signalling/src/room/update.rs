//! Who is told what about participants, and when.
//!
//! Changes of publishers go out at once: a client drops a track whose participant it does not know. In a large room they
//! do so as long as they are few; in a storm they are collected for a moment, and the tracks that wait to be told are
//! offered to nobody before. Changes that only concern subscribers are always collected, the longer the larger the room
//! is, so that a thousand joins are not a million messages. Whatever waits is told in one message to all, each participant
//! as it is by then; farewells come first, because clients go by identity.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use livekit_protocol as proto;
use proto::participant_info::State;

use super::api::ConnectionId;
use super::cx::Cx;
use super::said::{Piece, Said};
use super::{Room, Timer};
use crate::media::{ParticipantId, TrackId};

/// Bytes of participants in one update message: what fits into a WebSocket frame without hurting anybody.
const CHUNK: usize = 128 << 10;
/// Collected changes of subscribers wait at least and at most this long.
const MIN_DELAY: Duration = Duration::from_millis(50);
const MAX_DELAY: Duration = Duration::from_secs(3);
/// Collected changes of publishers wait at most this long.
const MAX_SPACING: Duration = Duration::from_millis(500);
/// Departures are remembered this long: a client tries to resume for less than a minute.
const DEPARTED_AGE: Duration = Duration::from_secs(120);
/// Departures remembered at most.
const DEPARTED: usize = 1000;
/// Up to this many participants changes of publishers are never collected.
const SMALL: usize = 50;
/// Changes of subscribers make at most this many messages a second in a room, one for each participant and time.
const LAZY_MESSAGES: u32 = 2000;
/// Changes of publishers make at most this many more.
const PROMPT_MESSAGES: u32 = 4000;

/// Changes that wait to be told.
#[derive(Debug, Default)]
pub(super) struct Updates {
    changed: BTreeSet<ParticipantId>,
    /// Participants that are gone, by identity, so that a quick return replaces the farewell.
    gone: BTreeMap<String, Farewell>,
    /// Tracks that are offered when they have been told.
    tracks: Vec<TrackId>,
    /// Until then changes of publishers are collected.
    calm_at: Duration,
    /// Participants that left lately, for those who were away meanwhile.
    departed: VecDeque<(Duration, Piece)>,
}

/// The last that is told of a participant.
#[derive(Debug)]
struct Farewell {
    info: proto::ParticipantInfo,
    piece: Piece,
}

/// How urgent a change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Before anything that follows.
    Now,
    /// At once, but not one by one in a storm.
    Soon,
    /// Soon if it publishes, else with the next ones.
    ByRole,
}

impl Room {
    /// Every connection.
    pub(super) fn everyone(&self) -> Vec<ConnectionId> {
        self.connections.keys().copied().collect()
    }

    fn everyone_but(&self, out: ParticipantId) -> Vec<ConnectionId> {
        self.connections.iter().filter(|(_, id)| **id != out).map(|(connection, _)| *connection).collect()
    }

    /// A participant with its tracks.
    pub(super) fn info(&self, id: ParticipantId) -> Option<proto::ParticipantInfo> {
        let participant = self.participants.get(&id)?;
        let tracks = participant.tracks.iter().filter_map(|track| self.tracks.get(track));
        Some(participant.info(tracks.map(|track| track.info.clone()).collect()))
    }

    /// The same, encoded; once for each version.
    pub(super) fn piece(&mut self, id: ParticipantId) -> Option<Piece> {
        let participant = self.participants.get(&id)?;
        if let Some((version, piece)) = &participant.piece
            && *version == participant.version
        {
            return Some(piece.clone());
        }
        let (version, piece) = (participant.version, Piece::new(&self.info(id)?));
        self.participants.get_mut(&id)?.piece = Some((version, piece.clone()));
        Some(piece)
    }

    /// Everybody a participant may see, itself not among them.
    pub(super) fn others(&mut self, viewer: ParticipantId) -> Vec<Piece> {
        let visible = self.participants.values().filter(|other| other.id != viewer && !other.is_hidden());
        let visible: Vec<_> = visible.map(|other| other.id).collect();
        visible.into_iter().filter_map(|id| self.piece(id)).collect()
    }

    /// Notes a change of a participant and tells it, itself included, with the urgency asked for.
    pub(super) fn changed(&mut self, cx: &mut Cx<'_>, id: ParticipantId, urgency: Urgency) {
        self.recount(id);
        let Some(participant) = self.participants.get_mut(&id) else { return };
        participant.version = participant.version.saturating_add(1);
        let is_publisher = participant.is_publisher();
        self.updates.changed.insert(id);
        match urgency {
            Urgency::Now => self.flush_updates(cx),
            Urgency::ByRole if !is_publisher => self.flush_later(cx),
            Urgency::Soon | Urgency::ByRole => self.flush_soon(cx),
        }
    }

    /// A change everybody else has to know soon and the participant itself made.
    pub(super) fn changed_by_itself(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        participant.version = participant.version.saturating_add(1);
        if participant.is_hidden() {
            return;
        }
        if cx.mono() < self.updates.calm_at {
            // In a storm it hears of itself too, which does no harm: it is what it said last.
            self.updates.changed.insert(id);
            self.flush_soon(cx);
            return;
        }
        self.updates.changed.remove(&id);
        self.flush_updates(cx);
        let pieces: Vec<_> = self.piece(id).into_iter().collect();
        self.tell(cx, self.everyone_but(id), &pieces);
    }

    /// A track was published: it is offered to those who are there when they have been told of it.
    pub(super) fn offer_when_told(&mut self, track: TrackId) {
        self.updates.tracks.push(track);
    }

    /// What is told soon goes out now, or when the last time is long enough ago for a room of this size.
    fn flush_soon(&mut self, cx: &mut Cx<'_>) {
        if cx.mono() >= self.updates.calm_at {
            self.flush_updates(cx);
        } else {
            self.timers.set_no_later(Timer::Updates, self.updates.calm_at);
        }
    }

    fn flush_later(&mut self, cx: &Cx<'_>) {
        let delay = self.time_of(LAZY_MESSAGES).clamp(MIN_DELAY, MAX_DELAY);
        self.timers.set_if_idle(Timer::Updates, cx.after(delay));
    }

    /// How long one message to everybody takes at so many a second.
    fn time_of(&self, per_second: u32) -> Duration {
        Duration::from_secs(1) * u32::try_from(self.participants.len()).unwrap_or(u32::MAX) / per_second
    }

    /// Others learn that a participant is gone. `info` is its last state.
    pub(super) fn tell_gone(&mut self, cx: &mut Cx<'_>, mut info: proto::ParticipantInfo, hidden: bool) {
        if hidden {
            return;
        }
        let urgent = info.is_publisher || self.participants.len() <= SMALL;
        say_farewell(&mut info);
        if self.updates.departed.len() >= DEPARTED {
            self.updates.departed.pop_front();
        }
        let piece = Piece::new(&info);
        self.updates.departed.push_back((cx.mono(), piece.clone()));
        self.updates.gone.insert(info.identity.clone(), Farewell { info, piece });
        match urgent {
            _ if self.updates.gone.len() >= DEPARTED => self.flush_updates(cx),
            true => self.flush_soon(cx),
            false => self.flush_later(cx),
        }
    }

    /// Clients that go by sid have to be told that the older of two sessions with one identity is gone; newer ones see
    /// the new sid.
    pub(super) fn tell_replaced(&mut self, cx: &mut Cx<'_>, mut info: proto::ParticipantInfo, hidden: bool) {
        if hidden {
            return;
        }
        say_farewell(&mut info);
        let old = self.participants.values().filter(|participant| participant.protocol() < 12);
        let to: Vec<_> = old.filter_map(|participant| participant.connection).collect();
        self.tell(cx, to, &[Piece::new(&info)]);
    }

    /// It is back before anybody was told that it had left. For clients that go by identity the farewell would be about
    /// the newcomer.
    pub(super) fn forget_farewell(&mut self, cx: &mut Cx<'_>, identity: &str) {
        if let Some(farewell) = self.updates.gone.remove(identity) {
            self.tell_replaced(cx, farewell.info, false);
        }
    }

    /// A participant became hidden: for the others it is as if it had left.
    pub(super) fn tell_hidden(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        let Some(info) = self.info(id) else { return };
        let to = self.everyone_but(id);
        let info = proto::ParticipantInfo { state: State::Disconnected.into(), tracks: Vec::new(), ..info };
        self.tell(cx, to, &[Piece::new(&info)]);
    }

    /// Who left in the last two minutes and is not back: what one who was away may have missed.
    pub(super) fn departed(&mut self, cx: &Cx<'_>) -> Vec<Piece> {
        let now = cx.mono();
        self.updates.departed.retain(|(at, _)| now.saturating_sub(*at) <= DEPARTED_AGE);
        let departed = self.updates.departed.iter().map(|(_, piece)| piece);
        departed.filter(|piece| !self.identities.contains_key(&*piece.identity)).cloned().collect()
    }

    /// Sends what was collected, and offers the tracks that were told with it.
    pub(super) fn flush_updates(&mut self, cx: &mut Cx<'_>) {
        self.timers.cancel(Timer::Updates);
        let (changed, gone) = (std::mem::take(&mut self.updates.changed), std::mem::take(&mut self.updates.gone));
        let tracks = std::mem::take(&mut self.updates.tracks);
        let mut pieces: Vec<_> = gone.into_values().map(|farewell| farewell.piece).collect();
        for id in changed {
            let Some(participant) = self.participants.get(&id) else { continue };
            let (hidden, connection) = (participant.is_hidden(), participant.connection);
            let Some(piece) = self.piece(id) else { continue };
            if hidden {
                cx.say(connection.into_iter().collect(), Said::update(&[piece]));
            } else {
                pieces.push(piece);
            }
        }
        if !pieces.is_empty() {
            let spacing = self.time_of(PROMPT_MESSAGES).min(MAX_SPACING);
            let is_small = self.participants.len() <= SMALL;
            self.updates.calm_at = if is_small { cx.mono() } else { cx.after(spacing) };
            let to = self.everyone();
            for pieces in chunks(&pieces) {
                self.tell(cx, to.clone(), pieces);
            }
        }
        for track in tracks {
            if let Some(entry) = self.tracks.get_mut(&track) {
                entry.told = true;
                self.reconcile_track(cx, track);
            }
        }
    }
}

fn say_farewell(info: &mut proto::ParticipantInfo) {
    info.version = info.version.saturating_add(1);
    info.state = State::Disconnected.into();
    info.tracks.clear();
    info.data_tracks.clear();
}

/// Splits a long list so that no message grows without bound.
pub(super) fn chunks(pieces: &[Piece]) -> impl Iterator<Item = &[Piece]> {
    let mut rest = pieces;
    std::iter::from_fn(move || {
        let mut size = 0_usize;
        let fits = rest.iter().take_while(|piece| {
            size += piece.len();
            size <= CHUNK
        });
        let (chunk, after) = rest.split_at_checked(fits.count().max(1))?;
        rest = after;
        Some(chunk)
    })
}
