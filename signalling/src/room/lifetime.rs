//! How long the room lives, and how it shows itself to clients and webhooks.

use std::time::Duration;

use livekit_protocol as proto;

use super::api::{Input, Notice, Output, Refusal, RoomParams};
use super::cx::{Cx, Message};
use super::{Config, Room, Timer};

/// Participant counts are told at most this often.
const COUNTS_INTERVAL: Duration = Duration::from_secs(5);

/// When the room ends by itself.
#[derive(Debug)]
pub(super) struct Lifetime {
    pub(super) empty_timeout: Duration,
    pub(super) departure_timeout: Duration,
    pub(super) max_participants: usize,
    /// Shown to operators; 0: none set.
    shown_max: u32,
    started: bool,
    pub(super) draining: bool,
    pub(super) ended: bool,
}

impl Lifetime {
    pub(super) fn new(params: &RoomParams, config: &Config) -> Self {
        let seconds = |set: Option<u32>, default| set.map_or(default, |seconds| Duration::from_secs(seconds.into()));
        let limit = config.limits.participants;
        let max_participants = match usize::try_from(params.max_participants) {
            Ok(0) | Err(_) => limit,
            Ok(max) => max.min(limit),
        };
        Self {
            empty_timeout: seconds(params.empty_timeout, config.empty_timeout),
            departure_timeout: seconds(params.departure_timeout, config.departure_timeout),
            max_participants,
            shown_max: params.max_participants,
            started: false,
            draining: false,
            ended: false,
        }
    }

    /// Once, with the first input: a room has no way to say anything when it is made.
    pub(super) fn announce_start(&mut self, cx: &mut Cx<'_>, sid: &str, params: &RoomParams, created_ms: i64) {
        if !self.started {
            self.started = true;
            let room = self.message(sid, params, created_ms);
            cx.notice(Notice::RoomStarted(Box::new(room)));
        }
    }

    fn message(&self, sid: &str, params: &RoomParams, created_ms: i64) -> proto::Room {
        let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        proto::Room {
            sid: sid.to_owned(),
            name: params.name.clone(),
            empty_timeout: seconds(self.empty_timeout),
            departure_timeout: seconds(self.departure_timeout),
            max_participants: self.shown_max,
            creation_time: created_ms / 1000,
            creation_time_ms: created_ms,
            metadata: params.metadata.clone(),
            ..Default::default()
        }
    }
}

impl Room {
    /// The room as clients and operators see it.
    pub(super) fn room_message(&self) -> proto::Room {
        let mut room = self.lifetime.message(&self.sid, &self.params, self.created_ms);
        room.num_participants = self.tally.visible;
        room.num_publishers = self.tally.publishers;
        room.active_recording = self.tally.recorders > 0;
        room.enabled_codecs = self.enabled_codecs();
        room
    }

    pub(super) fn enabled_codecs(&self) -> Vec<proto::Codec> {
        let codec = |mime: &String| proto::Codec { mime: mime.clone(), ..Default::default() };
        self.config.enabled_codecs.iter().map(codec).collect()
    }

    /// The same for publishers, to whom retransmission is no codec.
    pub(super) fn enabled_publish_codecs(&self) -> Vec<proto::Codec> {
        self.enabled_codecs().into_iter().filter(|codec| !codec.mime.ends_with("/rtx")).collect()
    }

    /// Somebody came or went, or started or stopped publishing.
    pub(super) fn counts_changed(&mut self, cx: &mut Cx<'_>) {
        self.timers.set_if_idle(Timer::Counts, cx.after(COUNTS_INTERVAL));
    }

    pub(super) fn send_room_update(&mut self, cx: &mut Cx<'_>) {
        self.timers.cancel(Timer::Counts);
        let room = Some(self.room_message());
        cx.send_many(self.everyone(), Message::RoomUpdate(proto::RoomUpdate { room }));
    }

    /// The last one left, or somebody came: keeps the clock of an empty room.
    pub(super) fn watch_emptiness(&mut self, cx: &mut Cx<'_>) {
        // Recorders and agents do not keep a room open: they would sit in it for ever.
        let kept_open = self.participants.values().any(|one| !one.grants.recorder && !one.grants.agent);
        if kept_open {
            self.timers.cancel(Timer::Lifetime);
        } else {
            self.timers.set_if_idle(Timer::Lifetime, cx.after(self.lifetime.departure_timeout));
        }
    }

    /// Ends the room for everybody.
    pub(super) fn end(&mut self, cx: &mut Cx<'_>, reason: proto::DisconnectReason) {
        let everybody: Vec<_> = self.participants.keys().copied().collect();
        for participant in everybody {
            self.dismiss(cx, participant, reason);
        }
        self.lifetime.ended = true;
        self.timers.clear();
        cx.notice(Notice::RoomFinished(Box::new(self.room_message())));
        cx.push(Output::Ended);
    }

    pub(super) fn handle_after_end(&self, cx: &mut Cx<'_>, input: Input) {
        match input {
            Input::Join { connection, request } if request.reconnect => {
                self.refuse_resume(cx, connection, &request);
            }
            Input::Join { connection, .. } => {
                cx.push(Output::Refuse { connection, refusal: Refusal::Unavailable("the room has just ended") });
            }
            Input::Admin { id, .. } => {
                let answer = Err(super::api::AdminError::NotFound("requested room does not exist"));
                cx.push(Output::Admin { id, answer });
            }
            _ => {}
        }
    }
}
