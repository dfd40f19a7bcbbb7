//! The room machine: one value per room that owns everything signalling knows about it. Inputs in, outputs out; driven
//! by one task per room in the server, by plain calls in tests. See [`Room`].
//!
//! Why one machine per room and not one per participant: nearly every request touches others (a mute, a subscription, a
//! leave), and one owner needs no lock, no message order between tasks and no shared table.
//!
//! Each file under `room/` is one topic and holds its part of `impl Room`.

pub mod api;
pub mod config;

mod admin;
mod admin_update;
mod answer;
mod audience;
mod bucket;
mod comeback;
mod cx;
mod data;
mod data_track;
mod dynacast;
mod ids;
mod join;
mod leave;
mod leg;
mod lifetime;
mod media;
mod metadata;
mod mute;
mod offer;
mod participant;
mod publish;
mod quality;
mod resume;
mod rpc;
mod said;
mod settings;
mod signal;
mod simulate;
mod speakers;
mod subscribe;
mod tally;
mod timers;
mod track;
mod update;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::{ConnectionId, Input, MediaPlace, Now, Output, RoomParams};
use comeback::Gathering;
pub use config::{Config, Limits};
use cx::Cx;
use data::Replay;
use data_track::Handles;
use ids::Ids;
use lifetime::Lifetime;
use participant::{Nonces, Participant};
use tally::Tally;
use timers::Timers;
use track::{Downtrack, Track};
use update::Updates;

use crate::media::{DowntrackId, ParticipantId, TrackId, TransportId};

/// One room: participants, tracks, subscriptions and the conversations with their clients.
///
/// Pure and deterministic: the same parameters (seed included), times and inputs give the same outputs.
#[derive(Debug)]
pub struct Room {
    /// Where the media of whoever comes next is.
    place: Arc<MediaPlace>,
    params: RoomParams,
    config: Arc<Config>,
    ids: Ids,
    sid: String,
    /// Told to every client; random, so that nobody outside can fake server frames.
    sif_trailer: Vec<u8>,
    created_ms: i64,
    lifetime: Lifetime,
    timers: Timers<Timer>,
    participants: BTreeMap<ParticipantId, Participant>,
    identities: BTreeMap<String, ParticipantId>,
    sids: BTreeMap<String, ParticipantId>,
    connections: BTreeMap<ConnectionId, ParticipantId>,
    transports: BTreeMap<TransportId, ParticipantId>,
    tracks: BTreeMap<TrackId, Track>,
    track_sids: BTreeMap<String, TrackId>,
    downtracks: BTreeMap<DowntrackId, Downtrack>,
    updates: Updates,
    tally: Tally,
    replay: Replay,
    handles: Handles,
    nonces: Nonces,
    /// Calls of the server API that wait for participants.
    calls: rpc::Calls,
    /// Those who are coming back, in livekit-client's way.
    returning: BTreeSet<ParticipantId>,
    gathering: Option<Gathering>,
}

/// What the room waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Nobody came, or nobody came back.
    Lifetime,
    /// Participant counts are told to clients.
    Counts,
    /// Collected participant updates are due.
    Updates,
    /// Connection quality is told to clients.
    Quality,
    /// Somebody who is coming back may have waited long enough.
    Comebacks,
    /// A downgrade of what is wanted of a track has lasted.
    Dynacast(TrackId),
    /// An answer to a call of the server API is late.
    Calls,
    /// Something of one participant.
    Of(ParticipantId, Task),
}

/// What a participant waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    /// It should have connected its media by now.
    Join,
    /// Its token is refreshed.
    Refresh,
    /// It did not come back.
    Remove,
    /// Its far end closed the media in an orderly way; a leave may be on its way.
    ClosedByPeer,
    /// A negotiation of ours is due.
    Negotiate,
    /// Our offer stayed without an answer.
    Answer,
    /// Collected track settings are due.
    Settings,
    /// A wish for an unknown track is too old.
    Wishes,
    /// It may send data again.
    DataCredit,
    /// A connection told to reconnect is closed if the client did not.
    Close,
}

impl Room {
    /// A room with nobody in it, which ends by itself when nobody comes within the empty timeout.
    #[must_use]
    pub fn new(params: RoomParams, config: Arc<Config>, now: Now) -> Self {
        let mut ids = Ids::new(params.first_id, params.seed);
        let place = MediaPlace { ufrag_prefix: params.ufrag_prefix.clone(), candidates: params.candidates.clone() };
        let mut room = Self {
            sid: ids.sid("RM", ""),
            sif_trailer: ids.secret(),
            created_ms: now.unix_ms,
            lifetime: Lifetime::new(&params, &config),
            timers: Timers::new(),
            ids,
            participants: BTreeMap::new(),
            identities: BTreeMap::new(),
            sids: BTreeMap::new(),
            connections: BTreeMap::new(),
            transports: BTreeMap::new(),
            tracks: BTreeMap::new(),
            track_sids: BTreeMap::new(),
            downtracks: BTreeMap::new(),
            updates: Updates::default(),
            tally: Tally::default(),
            replay: Replay::default(),
            handles: Handles::default(),
            nonces: Nonces::default(),
            calls: rpc::Calls::default(),
            returning: BTreeSet::new(),
            gathering: None,
            place: Arc::new(place),
            params,
            config,
        };
        room.timers.set(Timer::Lifetime, now.mono.saturating_add(room.lifetime.empty_timeout));
        room
    }

    /// Takes one input and appends what has to be done, in order. Never panics, whatever a client sends.
    ///
    /// After [`Output::Ended`] the room ignores everything but joins, which it refuses.
    pub fn handle(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        let cx = &mut Cx::new(now, out);
        if self.lifetime.ended {
            self.handle_after_end(cx, input);
            return;
        }
        self.lifetime.announce_start(cx, &self.sid, &self.params, self.created_ms);
        match input {
            Input::Join { connection, request } => self.handle_join(cx, connection, *request),
            Input::Signal { connection, request } => self.handle_signal(cx, connection, *request),
            Input::ConnectionClosed { connection } => self.handle_connection_closed(cx, connection),
            Input::Media(event) => self.handle_media(cx, event),
            Input::MediaLost => self.handle_media_lost(cx),
            Input::MediaLostOf { participants } => self.lose(cx, participants),
            Input::Admin { id, request } => self.handle_admin(cx, id, *request),
            Input::Drain => self.handle_drain(cx),
            Input::Timeout => {}
        }
        self.run_timers(cx);
    }

    /// When [`Input::Timeout`] is due, on the clock of [`Now::mono`]; `None` once the room has ended.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        self.timers.next()
    }

    /// The room's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.params.name
    }

    /// The room's sid, `RM_…`, the same for its whole life.
    #[must_use]
    pub fn sid(&self) -> &str {
        &self.sid
    }

    /// How many participants there are, those without a WebSocket included.
    #[must_use]
    pub fn participants(&self) -> usize {
        self.participants.len()
    }

    /// The identity of a participant.
    #[must_use]
    pub fn identity(&self, participant: ParticipantId) -> Option<&str> {
        self.participants.get(&participant).map(|participant| participant.grants.identity.as_str())
    }

    /// Whoever comes in from now on has its media there. Who is in stays where it is.
    pub fn set_place(&mut self, place: Arc<MediaPlace>) {
        self.place = place;
    }

    /// The participant of this identity, if it is in the room.
    #[must_use]
    pub fn participant(&self, identity: &str) -> Option<ParticipantId> {
        self.identities.get(identity).copied()
    }

    /// Whether a participant of this identity is in the room.
    #[must_use]
    pub fn has_participant(&self, identity: &str) -> bool {
        self.identities.contains_key(identity)
    }

    fn run_timers(&mut self, cx: &mut Cx<'_>) {
        // Each timer that fires sets itself again later than now or not at all, so this ends.
        while let Some(timer) = self.timers.pop(cx.mono()) {
            match timer {
                Timer::Lifetime => self.end(cx, livekit_protocol::DisconnectReason::RoomClosed),
                Timer::Counts => self.send_room_update(cx),
                Timer::Updates => self.flush_updates(cx),
                Timer::Quality => self.send_quality(cx),
                Timer::Comebacks => self.look_at_comebacks(cx),
                Timer::Dynacast(track) => self.send_dynacast(cx, track),
                Timer::Calls => self.expire_calls(cx),
                Timer::Of(participant, task) => self.run_task(cx, participant, task),
            }
            if self.lifetime.ended {
                return;
            }
        }
    }

    fn run_task(&mut self, cx: &mut Cx<'_>, participant: ParticipantId, task: Task) {
        match task {
            Task::Join => self.join_timed_out(cx, participant),
            Task::Refresh => self.refresh_token(cx, participant),
            Task::Remove => self.remove_absent(cx, participant),
            Task::ClosedByPeer => self.move_on(cx, participant, livekit_protocol::DisconnectReason::ConnectionTimeout),
            Task::Negotiate => self.negotiate(cx, participant),
            Task::Answer => self.move_on(cx, participant, livekit_protocol::DisconnectReason::StateMismatch),
            Task::Settings => self.apply_settings(cx, participant),
            Task::Wishes => self.expire_wishes(cx, participant),
            Task::DataCredit => self.pay_data_credit(cx, participant),
            Task::Close => self.close_moved(cx, participant),
        }
    }
}
