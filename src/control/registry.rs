//! Which rooms there are, and on which media thread each begins. Names only: what happens in a room is its task's.
//!
//! One task owns the table; others ask it through [`Registry`]. A room that ends between an answer and its use shows as
//! a closed channel: whoever finds it so asks again and gets a new room.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signalling::room::api::{AdminAnswer, AdminError, AdminRequest, Input, Now, Refusal, RoomParams};
use signalling::room::{self as machine, Room};
use tokio::sync::{mpsc, oneshot};

use super::auth::Auth;
use super::bridge;
use super::matrix::Notices;
use super::metrics::Metrics;
use super::nodes::Nodes;
use super::places::Places;
use super::reports::RouteChange;
use super::room_task::{self, RoomInput, RoomTask};
use super::seats::Seats;
use super::webhook::Webhooks;
use crate::mailbox::Mailbox;
use crate::media::clock::{Clock, unix_now};

/// Questions that wait for the registry. Full: the asker waits, which slows joins down and nothing else.
const QUESTIONS: usize = 1_024;
/// Inputs a room may have waiting beside one place for each connection's end.
const INPUT_SLACK: usize = 1_024;
/// Media events that may wait for a room.
pub(super) const MEDIA_EVENTS: usize = 8_192;

/// Where a room takes inputs.
#[derive(Clone, Debug)]
pub(super) struct RoomHandle {
    /// Its number: ids of what is in it start with it.
    pub(super) number: u64,
    /// Inputs; closed when the room has ended.
    pub(super) inputs: mpsc::Sender<RoomInput>,
}

/// A media thread as rooms need it.
#[derive(Clone, Debug)]
pub(super) struct ThreadInfo {
    /// Commands go here.
    pub(super) mailbox: Mailbox,
    /// What its ufrags start with.
    pub(super) ufrag_prefix: String,
    /// Its candidate lines.
    pub(super) candidates: Vec<String>,
    /// Connections of all its rooms now.
    pub(super) load: Arc<AtomicUsize>,
}

/// What rooms share.
#[derive(Clone, Debug)]
pub(super) struct RoomContext {
    pub(super) config: Arc<machine::Config>,
    pub(super) clock: Clock,
    pub(super) auth: Arc<Auth>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) fingerprint: [u8; 32],
    pub(super) max_rooms: usize,
    pub(super) max_pending_joins: usize,
    pub(super) auto_create: bool,
    /// Participants of a room on one media thread before others are used; 0: all stay on one.
    pub(super) per_thread: usize,
    /// Where Matrix learns who is in a call.
    pub(super) notices: Option<Notices>,
    /// Who is told what happens in rooms; `None`: nobody.
    pub(super) webhooks: Option<Webhooks>,
    pub(super) places: Arc<Places>,
    /// Who else is told which rooms there are.
    pub(super) nodes: Option<Nodes>,
}

/// What a room is made with where whoever makes it may choose.
#[derive(Debug, Default)]
pub(super) struct RoomSettings {
    /// Seconds; `None`: as configured.
    pub(super) empty_timeout: Option<u32>,
    /// Seconds; `None`: as configured.
    pub(super) departure_timeout: Option<u32>,
    /// 0: as configured.
    pub(super) max_participants: u32,
    pub(super) metadata: String,
}

#[derive(Debug)]
enum Question {
    Enter {
        room: String,
        may_create: bool,
        settings: RoomSettings,
        answer: oneshot::Sender<Result<RoomHandle, Refusal>>,
    },
    Check {
        room: String,
        may_create: bool,
        answer: oneshot::Sender<Result<(), Refusal>>,
    },
    Find {
        room: String,
        answer: oneshot::Sender<Option<RoomHandle>>,
    },
    All {
        answer: oneshot::Sender<Vec<RoomHandle>>,
    },
    Ended {
        room: String,
        number: u64,
    },
    Close,
}

/// Asks the registry. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Registry(mpsc::Sender<Question>);

/// What is said when there is no place for a further room: too many, or no head-room for what happens in it.
pub(super) const FULL: Refusal = Refusal::Unavailable("server is full");
/// What is said when the registry itself is gone: the process is ending.
const STOPPING: Refusal = Refusal::Unavailable("server is stopping");

impl Registry {
    /// Start its task. `routes` is told of each room before the room can ask anything of a media thread.
    pub(super) fn start(context: RoomContext, threads: Arc<[ThreadInfo]>, routes: mpsc::Sender<RouteChange>) -> Self {
        let (sender, questions) = mpsc::channel(QUESTIONS);
        let registry = Self(sender);
        let table = Table {
            context: Arc::new(context),
            threads,
            routes,
            registry: registry.0.downgrade(),
            rooms: BTreeMap::new(),
            next_number: 1,
            closed: false,
        };
        tokio::spawn(table.run(questions));
        registry
    }

    /// The room of this name, made if it is not there and may be.
    pub(super) async fn enter(&self, room: &str, may_create: bool) -> Result<RoomHandle, Refusal> {
        let room = room.to_owned();
        let settings = RoomSettings::default();
        self.ask(|answer| Question::Enter { room, may_create, settings, answer }).await.unwrap_or(Err(STOPPING))
    }

    /// The room of this name as it is, or a new one with these settings.
    pub(super) async fn create(&self, room: String, settings: RoomSettings) -> Result<RoomHandle, Refusal> {
        let question = |answer| Question::Enter { room, may_create: true, settings, answer };
        self.ask(question).await.unwrap_or(Err(STOPPING))
    }

    /// Whether [`Self::enter`] would give a room.
    pub(super) async fn check(&self, room: &str, may_create: bool) -> Result<(), Refusal> {
        let room = room.to_owned();
        self.ask(|answer| Question::Check { room, may_create, answer }).await.unwrap_or(Err(STOPPING))
    }

    /// The room of this name, if it is there.
    pub(super) async fn find(&self, room: &str) -> Option<RoomHandle> {
        let room = room.to_owned();
        self.ask(|answer| Question::Find { room, answer }).await.flatten()
    }

    /// All rooms.
    pub(super) async fn all(&self) -> Vec<RoomHandle> {
        self.ask(|answer| Question::All { answer }).await.unwrap_or_default()
    }

    /// No new rooms from now on. Those that are there take joins until they are sent away.
    pub(super) async fn close(&self) {
        // Fails when the registry is gone already.
        let _ = self.0.send(Question::Close).await;
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Option<T> {
        let (sender, answer) = oneshot::channel();
        self.0.send(question(sender)).await.ok()?;
        answer.await.ok()
    }
}

impl RoomHandle {
    /// Everybody in it is told to reconnect; nobody is let in any more. Never waits.
    pub(super) fn send_away(&self) {
        let inputs = self.inputs.clone();
        // A room whose queue is full is told when there is a place.
        tokio::spawn(async move {
            let _ = inputs.send(RoomInput::Plain(Input::Drain)).await;
        });
    }

    /// Have the room do something, whatever comes of it. Orders are obeyed one after the other. Never waits.
    pub(super) fn order(&self, request: AdminRequest) {
        let (answer, _) = oneshot::channel();
        let input = RoomInput::Admin { request: Box::new(request), answer };
        if let Err(mpsc::error::TrySendError::Full(input)) = self.inputs.try_send(input) {
            // A room whose queue is full is told when there is a place.
            let inputs = self.inputs.clone();
            tokio::spawn(async move { inputs.send(input).await });
        }
    }

    /// Ask the room something; `None` when it has ended meanwhile.
    pub(super) async fn admin(&self, request: AdminRequest) -> Option<Result<AdminAnswer, AdminError>> {
        let (sender, answer) = oneshot::channel();
        self.inputs.send(RoomInput::Admin { request: Box::new(request), answer: sender }).await.ok()?;
        answer.await.ok()
    }
}

struct Table {
    context: Arc<RoomContext>,
    threads: Arc<[ThreadInfo]>,
    routes: mpsc::Sender<RouteChange>,
    /// For room tasks to report their end; weak, so that the table's own task ends when nobody else asks.
    registry: mpsc::WeakSender<Question>,
    rooms: BTreeMap<String, RoomHandle>,
    next_number: u64,
    closed: bool,
}

impl Table {
    async fn run(mut self, mut questions: mpsc::Receiver<Question>) {
        while let Some(question) = questions.recv().await {
            match question {
                Question::Enter { room, may_create, settings, answer } => {
                    let result = match self.check(&room, may_create) {
                        Ok(Some(handle)) => Ok(handle),
                        Ok(None) => self.create(&room, settings).await,
                        Err(refusal) => {
                            if refusal == FULL
                                && let Some(limit) = self.exhausted()
                            {
                                self.context.metrics.full.with_label_values(&[limit]).inc();
                            }
                            Err(refusal)
                        }
                    };
                    let _ = answer.send(result);
                }
                Question::Find { room, answer } => {
                    let _ = answer.send(self.find(&room).cloned());
                }
                Question::Check { room, may_create, answer } => {
                    let _ = answer.send(self.check(&room, may_create).map(|_| ()));
                }
                Question::All { answer } => {
                    let _ = answer.send(self.rooms.values().cloned().collect());
                }
                Question::Ended { room, number } => self.forget(&room, number).await,
                Question::Close => self.closed = true,
            }
        }
    }

    /// One that has ended but has not said so yet counts as gone.
    fn find(&self, room: &str) -> Option<&RoomHandle> {
        self.rooms.get(room).filter(|handle| !handle.inputs.is_closed())
    }

    /// The room, or `None` where one may be made.
    fn check(&self, room: &str, may_create: bool) -> Result<Option<RoomHandle>, Refusal> {
        if let Some(handle) = self.find(room) {
            return Ok(Some(handle.clone()));
        }
        if self.closed {
            return Err(STOPPING);
        }
        if !may_create && !self.context.auto_create {
            return Err(Refusal::NoSuchRoom);
        }
        if self.exhausted().is_some() { Err(FULL) } else { Ok(None) }
    }

    /// What a further room would exceed. Those that are there take joins as long as there are places.
    fn exhausted(&self) -> Option<&'static str> {
        if self.context.places.is_full() {
            return Some("participants");
        }
        if self.rooms.len() >= self.context.max_rooms {
            return Some("rooms");
        }
        self.context.metrics.load.exhausted()
    }

    async fn create(&mut self, name: &str, settings: RoomSettings) -> Result<RoomHandle, Refusal> {
        let full = Refusal::Unavailable("no media thread");
        let load = |thread: &ThreadInfo| thread.load.load(Ordering::Relaxed);
        let index = (0..self.threads.len()).min_by_key(|i| self.threads.get(*i).map(load)).ok_or(full)?;
        let thread = self.threads.get(index).ok_or(full)?;
        let number = self.next_number;
        self.next_number += 1;
        let params = RoomParams {
            name: name.to_owned(),
            first_id: bridge::first_id(number) + 1,
            seed: seed()?,
            ufrag_prefix: thread.ufrag_prefix.clone(),
            candidates: thread.candidates.clone(),
            fingerprint: self.context.fingerprint,
            empty_timeout: settings.empty_timeout,
            departure_timeout: settings.departure_timeout,
            max_participants: settings.max_participants,
            metadata: settings.metadata,
        };
        let now = now(self.context.clock);
        let room = Room::new(params, self.context.config.clone(), now);
        let places = self.context.config.limits.participants + self.context.max_pending_joins;
        let (inputs, input_receiver) = mpsc::channel(places + INPUT_SLACK);
        let (media, media_receiver) = mpsc::channel(MEDIA_EVENTS);
        let route = RouteChange::Add { number, to: media };
        self.routes.send(route).await.map_err(|_| STOPPING)?;
        let seats = Seats::new(number, self.threads.clone(), index, self.context.per_thread);
        let task = RoomTask::new(number, room, self.context.clone(), seats, input_receiver, media_receiver);
        let (registry, name_for_end) = (self.registry.clone(), name.to_owned());
        tokio::spawn(async move {
            room_task::run(task).await;
            if let Some(registry) = registry.upgrade() {
                // Fails when the registry is gone: the process ends.
                let _ = registry.send(Question::Ended { room: name_for_end, number }).await;
            }
        });
        let handle = RoomHandle { number, inputs };
        self.rooms.insert(name.to_owned(), handle.clone());
        if let Some(nodes) = &self.context.nodes {
            nodes.room_started(name);
        }
        self.context.metrics.set_rooms(self.rooms.len());
        Ok(handle)
    }

    /// A room task has ended. A newer room of the same name stays.
    async fn forget(&mut self, name: &str, number: u64) {
        if self.rooms.get(name).is_some_and(|handle| handle.number == number) {
            self.rooms.remove(name);
            if let Some(nodes) = &self.context.nodes {
                nodes.room_ended(name);
            }
        }
        self.context.metrics.set_rooms(self.rooms.len());
        let _ = self.routes.send(RouteChange::Remove { number }).await;
    }
}

/// Both clocks as the room machine wants them.
pub(super) fn now(clock: Clock) -> Now {
    let unix_ms = i64::try_from(unix_now().as_millis()).unwrap_or(i64::MAX);
    Now { mono: std::time::Duration::from_nanos(clock.now().as_nanos()), unix_ms }
}

fn seed() -> Result<[u8; 32], Refusal> {
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).map_err(|_| Refusal::Unavailable("the system gives no randomness"))?;
    Ok(seed)
}
