//! One task per room: drives its room machine. Inputs come from WebSocket tasks, media reports and the timer; outputs go
//! to WebSocket tasks and the media thread. Never waits for either.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use signalling::media::{DataChannel, MediaCommand, ParticipantId};
use signalling::room::Room;
use signalling::room::api::{
    AdminAnswer, AdminError, AdminId, AdminRequest, ConnectionId, Grants, Input, JoinRequest, Notice, Output, Refusal,
    Said,
};
use tokio::sync::{mpsc, oneshot};

use super::bridge;
use super::connection::{Link, Outgoing, SendError};
use super::metrics::SizeClass;
use super::places::Crowd;
use super::redact::Redacted;
use super::registry::{RoomContext, now};
use super::reports::MediaInput;
use super::seats::{Routed, Seats};
use crate::mailbox::{COMMANDS, MailboxFull};
use crate::shard::command::Command;

/// What comes to a room from the rest of control.
#[derive(Debug)]
pub(super) enum RoomInput {
    /// A client wants in; its link answers.
    Join { connection: ConnectionId, request: Box<JoinRequest>, link: Link },
    /// The server API asks.
    Admin { request: Box<AdminRequest>, answer: oneshot::Sender<Result<AdminAnswer, AdminError>> },
    /// Anything the machine takes as it is.
    Plain(Input),
}

/// How often a command that found the mailbox full is tried again. The media thread obeys 32 commands a turn.
const RETRY: Duration = Duration::from_millis(2);
/// Commands that may wait for the mailbox. Beyond, the room gives its media up.
const MAX_BACKLOG: usize = 16_384;
/// A timer of the machine is never served faster than this, whatever it asks for.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// A room without a timer is looked at this often; nothing depends on it.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// A room with what it is connected to.
pub(super) struct RoomTask {
    number: u64,
    room: Room,
    context: Arc<RoomContext>,
    seats: Seats,
    /// It is counted as being on several media threads.
    counted: bool,
    inputs: mpsc::Receiver<RoomInput>,
    media: Option<mpsc::Receiver<MediaInput>>,
    links: BTreeMap<ConnectionId, (Link, LoadShare)>,
    crowd: Crowd,
    size: SizeClass,
    questions: BTreeMap<AdminId, oneshot::Sender<Result<AdminAnswer, AdminError>>>,
    next_question: u64,
    /// Commands a mailbox had no place for, and those after them, in order, each with its thread.
    backlog: VecDeque<(usize, Command)>,
    outputs: Vec<Output>,
    ended: bool,
}

/// Run the room to its end. A panic in it ends this room and no other.
pub(super) async fn run(task: RoomTask) {
    let threads = task.seats.threads().clone();
    let context = task.context.clone();
    let number = task.number;
    if AssertUnwindSafe(task.run()).catch_unwind().await.is_err() {
        context.metrics.room_panics.inc();
        tracing::error!("a room ended by a fault of weir; its participants come back to a new one");
    }
    // Removals have a queue with a place for everything that exists; full means the thread has been gone for long.
    for thread in threads.iter() {
        let _ = thread.mailbox.send(Command::RemoveRoom { room: bridge::room_id(number) });
    }
}

impl RoomTask {
    pub(super) fn new(
        number: u64,
        room: Room,
        context: Arc<RoomContext>,
        seats: Seats,
        inputs: mpsc::Receiver<RoomInput>,
        media: mpsc::Receiver<MediaInput>,
    ) -> Self {
        let crowd = Crowd::new(context.places.clone());
        let size = SizeClass::new(context.metrics.room_sizes.clone());
        Self {
            number,
            crowd,
            size,
            room,
            context,
            seats,
            counted: false,
            inputs,
            media: Some(media),
            links: BTreeMap::new(),
            questions: BTreeMap::new(),
            next_question: 0,
            backlog: VecDeque::new(),
            outputs: Vec::new(),
            ended: false,
        }
    }

    async fn run(mut self) {
        let begin = self.seats.begin();
        self.queue(begin);
        while !self.ended {
            let backlogged = !self.backlog.is_empty();
            let sleep = self.until_timeout();
            let timer = tokio::time::sleep(sleep.unwrap_or(LONGEST_SLEEP));
            tokio::select! {
                // Clients wait while the media thread is behind: nothing new is asked of it.
                input = self.inputs.recv(), if !backlogged => match input {
                    Some(input) => self.on_input(input),
                    None => self.ended = true,
                },
                input = next_media(&mut self.media) => self.on_media(input),
                () = timer => self.handle(Input::Timeout),
                () = tokio::time::sleep(RETRY), if backlogged => self.retry(),
            }
            self.dispatch();
        }
        // Joins that were on their way find their link dropped unanswered, and ask the registry again.
        self.inputs.close();
    }

    fn until_timeout(&self) -> Option<Duration> {
        let at = self.room.next_timeout()?;
        Some(at.saturating_sub(now(self.context.clock).mono).max(SHORTEST_SLEEP))
    }

    fn on_input(&mut self, input: RoomInput) {
        match input {
            RoomInput::Join { connection, request, mut link } => {
                #[cfg(test)]
                assert!(request.grants.identity != super::tests::POISON, "a poisoned join");
                let Some(thread) = self.seat(&request) else {
                    link.refuse(Refusal::Unavailable("server is overloaded"));
                    return;
                };
                // A resume brings nobody new, nor does a join that replaces a participant.
                let is_new = !request.reconnect && !self.room.has_participant(&request.grants.identity);
                if is_new && !self.crowd.try_one_more() {
                    link.refuse(Refusal::Unavailable("server is full"));
                    return;
                }
                self.links.insert(connection, (link, LoadShare::of(&thread)));
                self.handle(Input::Join { connection, request });
            }
            RoomInput::Admin { request, answer } => {
                self.next_question += 1;
                let id = AdminId(self.next_question);
                self.questions.insert(id, answer);
                self.handle(Input::Admin { id, request });
            }
            RoomInput::Plain(input) => {
                if let Input::ConnectionClosed { connection } = &input {
                    self.links.remove(connection);
                }
                self.handle(input);
            }
        }
    }

    fn on_media(&mut self, input: Option<MediaInput>) {
        match input {
            Some(MediaInput::Event(event)) => self.handle(Input::Media(event)),
            Some(MediaInput::Lost(thread)) => self.thread_lost(thread),
            Some(MediaInput::Rates(rates)) => self.rates(rates),
            None => {
                self.media = None;
                self.media_lost();
            }
        }
    }

    /// What participants publish: Matrix has ceilings for some of them.
    fn rates(&self, rates: Vec<(ParticipantId, u64)>) {
        let Some(matrix) = &self.context.notices else { return };
        let named = |(id, bps)| Some((self.room.identity(id)?.to_owned(), bps));
        matrix.tell_rates(self.room.name(), rates.into_iter().filter_map(named).collect());
    }

    /// Where a client that comes now has its media; `None` when that thread is behind. Who resumes stays where it is.
    fn seat(&mut self, request: &JoinRequest) -> Option<Arc<AtomicUsize>> {
        let index = if request.reconnect {
            let participant = self.room.participant(&request.grants.identity);
            self.seats.thread_of(participant.map(|id| crate::base::ParticipantId(id.0)))
        } else {
            let chosen = self.seats.choose(&self.context.metrics.load.figure().threads);
            if let Some(place) = self.seats.place() {
                self.room.set_place(place);
            }
            chosen
        };
        let thread = self.seats.thread(index)?;
        (thread.mailbox.depth() <= COMMANDS / 4 * 3).then(|| thread.load.clone())
    }

    /// What was asked of a media thread is void. The room stays, for the machine to decide; its place on the shard is
    /// made anew, for those who come back. Those on other threads go on.
    fn thread_lost(&mut self, thread: usize) {
        if !self.seats.is_on(thread) {
            return;
        }
        self.backlog.retain(|(to, _)| *to != thread);
        let (commands, participants) = self.seats.lost(thread);
        self.queue(commands);
        if self.seats.is_spread() {
            let participants = participants.into_iter().map(|id| ParticipantId(id.0)).collect();
            self.handle(Input::MediaLostOf { participants });
        } else {
            self.handle(Input::MediaLost);
        }
    }

    /// No reports reach this room any more: everybody goes, and comes back to a new room.
    fn media_lost(&mut self) {
        self.backlog.clear();
        self.handle(Input::MediaLost);
        self.dispatch();
        self.ended = true;
    }

    fn handle(&mut self, input: Input) {
        self.room.handle(now(self.context.clock), input, &mut self.outputs);
    }

    fn dispatch(&mut self) {
        // Before anybody is answered: who is told to be in has a place.
        self.crowd.set(self.room.participants());
        self.size.set(self.room.participants());
        let mut outputs = std::mem::take(&mut self.outputs);
        for output in outputs.drain(..) {
            self.output(output);
        }
        self.outputs = outputs;
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Send { to, message } => self.send(&to, message),
            Output::Close { connection } => {
                if let Some((link, _)) = self.links.get_mut(&connection) {
                    link.close();
                }
            }
            Output::Refuse { connection, refusal } => {
                if let Some((mut link, _)) = self.links.remove(&connection) {
                    link.refuse(refusal);
                }
            }
            Output::Media(command) => self.media_command(command),
            Output::RefreshToken { connection, grants } => self.refresh(connection, &grants),
            Output::Notice(notice) => self.notice(notice),
            Output::Admin { id, answer } => {
                if let Some(question) = self.questions.remove(&id) {
                    let _ = question.send(answer);
                }
            }
            Output::Ended => self.ended = true,
        }
    }

    fn send(&mut self, to: &[ConnectionId], message: Said) {
        let outgoing = Outgoing::new(message);
        for connection in to {
            let Some((link, _)) = self.links.get_mut(connection) else { continue };
            // The WebSocket task cuts the connection and reports its end on its own way.
            if link.send(outgoing.clone()) == Err(SendError::Overrun) {
                self.context.metrics.slow_readers.inc();
            }
        }
    }

    fn refresh(&mut self, connection: ConnectionId, grants: &Grants) {
        match self.context.auth.refreshed(grants) {
            Ok(message) => self.send(&[connection], Said::from(&message)),
            Err(error) => tracing::warn!(%error, "a token could not be refreshed"),
        }
    }

    fn media_command(&mut self, command: MediaCommand) {
        if let MediaCommand::SendData { channel: DataChannel::Lossy | DataChannel::DataTrack, .. } = &command
            && !self.backlog.is_empty()
        {
            self.context.metrics.data_dropped.inc();
            return;
        }
        let routed = self.seats.route(bridge::command(self.number, command));
        self.queue(routed);
        if self.counted != self.seats.is_spread() {
            self.counted = self.seats.is_spread();
            self.context.metrics.spread_rooms.add(if self.counted { 1 } else { -1 });
        }
    }

    fn queue(&mut self, commands: Routed) {
        for (thread, command) in commands {
            self.command(thread, command);
        }
    }

    fn command(&mut self, thread: usize, command: Command) {
        let Some(mailbox) = self.seats.thread(thread).map(|thread| &thread.mailbox) else { return };
        if self.backlog.is_empty() {
            if let Err(MailboxFull(command)) = mailbox.send(command) {
                self.context.metrics.mailbox_full.inc();
                self.backlog.push_back((thread, *command));
            }
            return;
        }
        if is_removal(&command) {
            // At once, because it is about who may hear whom; and again at its place, because what waits before it
            // must not bring back what it removed.
            let _ = mailbox.send(command.clone());
        }
        self.backlog.push_back((thread, command));
        if self.backlog.len() > MAX_BACKLOG {
            tracing::error!("a media thread has not obeyed for too long; a room gives up its media");
            self.backlog.clear();
            self.media = None;
            self.room.handle(now(self.context.clock), Input::MediaLost, &mut self.outputs);
            self.ended = true;
        }
    }

    fn retry(&mut self) {
        while let Some((thread, command)) = self.backlog.pop_front() {
            let Some(mailbox) = self.seats.thread(thread).map(|thread| &thread.mailbox) else { continue };
            if let Err(MailboxFull(command)) = mailbox.send(command) {
                self.backlog.push_front((thread, *command));
                return;
            }
        }
    }

    fn notice(&self, notice: Notice) {
        if let Some(matrix) = &self.context.notices {
            matrix.tell(self.room.name(), &notice);
        }
        let metrics = &self.context.metrics;
        let room = Redacted(self.room.name());
        match &notice {
            Notice::RoomStarted(_) => tracing::info!(%room, "room started"),
            Notice::RoomFinished(it) => {
                let seconds = now(self.context.clock).unix_ms / 1_000 - it.creation_time;
                metrics.room_seconds.observe(f64::from(i32::try_from(seconds.max(0)).unwrap_or(i32::MAX)));
                tracing::info!(%room, "room finished");
            }
            Notice::ParticipantJoined(_, who) => {
                metrics.connected(now(self.context.clock).unix_ms - who.joined_at_ms);
                tracing::info!(%room, participant = %who.sid, "participant joined");
            }
            Notice::ParticipantLeft(_, who) => {
                let reason = who.disconnect_reason().as_str_name();
                metrics.participants_left.with_label_values(&[reason]).inc();
                tracing::info!(%room, participant = %who.sid, reason, "participant left");
            }
            Notice::ParticipantAborted(_, who) => {
                let reason = who.disconnect_reason().as_str_name();
                metrics.participants_aborted.with_label_values(&[reason]).inc();
                tracing::info!(%room, participant = %who.sid, reason, "participant never connected");
            }
            Notice::TrackPublished(_, who, track) => {
                tracing::debug!(%room, participant = %who.sid, track = %track.sid, "track published");
            }
            Notice::TrackUnpublished(_, who, track) => {
                tracing::debug!(%room, participant = %who.sid, track = %track.sid, "track unpublished");
            }
        }
        if let Some(webhooks) = &self.context.webhooks {
            webhooks.tell(notice);
        }
    }
}

impl Drop for RoomTask {
    fn drop(&mut self) {
        if self.counted {
            self.context.metrics.spread_rooms.dec();
        }
    }
}

async fn next_media(media: &mut Option<mpsc::Receiver<MediaInput>>) -> Option<MediaInput> {
    match media {
        Some(media) => media.recv().await,
        None => std::future::pending().await,
    }
}

const fn is_removal(command: &Command) -> bool {
    matches!(
        command,
        Command::RemoveRoom { .. }
            | Command::RemoveParticipant { .. }
            | Command::RemoveTransport { .. }
            | Command::Unpublish { .. }
            | Command::Unsubscribe { .. }
    )
}

/// One connection's part of a number of connections, such as a media thread's load; given back when dropped.
#[derive(Debug)]
pub(super) struct LoadShare(Arc<AtomicUsize>);

impl LoadShare {
    /// One more.
    pub(super) fn of(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(load.clone())
    }
}

impl Drop for LoadShare {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
