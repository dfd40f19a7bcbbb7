//! The one task that owns everything weir knows of Matrix: views of rooms, calls, callers, leaves. It decides, and never
//! waits: requests to homeservers run beside it and come back as inputs.
//!
//! From a push to an ejection: [`Service::on_push`] -> [`Rooms::push`] -> [`Service::recheck`] -> [`Service::eject`] ->
//! [`Order::Remove`], which the room machine obeys. The same way from a read of room state and from a moderation list.

mod asking;
mod enforce;
mod ghosts;
mod leaves;
mod quotas;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use signalling::matrix::event::Event;
use signalling::matrix::identity::Caller;
use signalling::matrix::policy::Policies;
use signalling::matrix::power::Dialect;
use signalling::matrix::request::DelayedLeave;
use signalling::matrix::view::Rights;
use signalling::token::CallClaim;
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::asking::Asking;
use self::ghosts::Ghosts;
use self::leaves::Leaves;
use super::admission::Refused;
use super::calls::{Calls, HomeId, Known};
use super::ceilings::Ceilings;
use super::decisions::Decisions;
use super::homeserver::{AskError, Homeserver, Reach};
use super::resolve::Federation;
use super::rooms::{RoomKey, Rooms};
use super::store::{Loaded, Store};
use crate::config::{Feed, MatrixConfig};
use crate::control::audit::Audit;
use crate::control::metrics::Metrics;
use crate::control::nodes::Nodes;
use crate::media::clock::unix_now;

/// What the service is told and asked.
#[derive(Debug)]
pub(super) enum Input {
    /// Somebody proven asks for a token.
    Token { request: Box<TokenQuestion>, answer: oneshot::Sender<Result<Admitted, Refused>> },
    /// Somebody shows a token.
    Join { shown: Box<Shown>, answer: oneshot::Sender<Looked> },
    /// A homeserver pushes.
    Push { home: HomeId, events: Vec<Event> },
    /// A room task reports.
    Presence(Presence),
    /// A room was read.
    Read { key: RoomKey, result: Result<Vec<Event>, AskError> },
    /// A homeserver was pinged.
    Pinged { home: HomeId, result: Result<Reach, AskError> },
    /// A homeserver answered about a delayed leave.
    Delayed { key: leaves::LeaveKey, answer: signalling::matrix::delayed::Answer },
    /// A ghost was cleared, or not.
    Cleared { clearing: Box<ghosts::Clearing>, result: Result<(), AskError> },
    /// What participants of a call publish, bit/s.
    Rates { room: String, rates: Vec<(String, u64)> },
    /// What was decided about a person lately?
    Why { user: String, answer: oneshot::Sender<Vec<String>> },
}

/// A token request whose user is proven.
#[derive(Debug)]
pub(super) struct TokenQuestion {
    pub(super) matrix_room: String,
    pub(super) slot: String,
    pub(super) caller: Caller,
    pub(super) identity: String,
    pub(super) dialect: Dialect,
    pub(super) leave: Option<DelayedLeave>,
}

/// What was said about a token that somebody shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Looked {
    /// Whose it is, where that is known.
    pub(super) user: Option<String>,
    /// By what it was decided.
    pub(super) rule: &'static str,
    pub(super) result: Result<Rights, Refused>,
}

impl Looked {
    /// A refusal of nobody knows whom.
    pub(super) const fn nobody(refused: Refused) -> Self {
        Self { user: None, rule: refused.label(), result: Err(refused) }
    }

    /// About a token of another node.
    fn at(user: String, rule: &'static str, result: Result<Admitted, Refused>) -> Self {
        let rule = result.as_ref().err().map_or(rule, |refused| refused.label());
        Self { user: Some(user), rule, result: result.map(|admitted| admitted.rights) }
    }
}

/// What lets somebody in whose room is known, in audit records.
const ROOM_STATE: &str = "room_state";
/// The same where the policy decides because nothing is known of the room.
const WITHOUT_FEED: &str = "without_feed";

/// A token as it is shown.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) room: String,
    pub(super) identity: String,
    /// Unix seconds.
    pub(super) issued_at: i64,
    /// Whom it was made for, by this node or by another.
    pub(super) call: Option<Box<CallClaim>>,
    /// Its bearer was in the call.
    pub(super) joined: bool,
}

/// A token may be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Admitted {
    pub(super) rights: Rights,
    /// Unix seconds the token has to be signed at, at least.
    pub(super) not_before: i64,
    /// Who knew the user to be in the room.
    pub(super) home: Option<HomeId>,
}

/// What became of a participant.
#[derive(Clone, Debug)]
pub(super) struct Presence {
    pub(super) room: String,
    pub(super) identity: String,
    pub(super) sid: String,
    pub(super) what: Came,
}

/// Joined or left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    Joined,
    /// `intended`: it said so itself.
    Left {
        intended: bool,
    },
}

/// What the SFU is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Remove for good.
    Remove { room: String, identity: String },
    /// Change what may be published.
    Permit { room: String, identity: String, rights: Rights },
    /// Send no layers of its video above this one; `None`: all.
    Lower { room: String, identity: String, max_spatial: Option<u8> },
}

/// How often old things are forgotten, ms.
const PRUNE: i64 = 60_000;
/// How long a view nobody needs is kept, ms.
const IDLE: i64 = 15 * 60_000;
/// Requests for room state at once.
const MAX_READS: usize = 8;
/// Rules of moderation lists honoured per homeserver.
const MAX_RULES: usize = 100_000;

/// A homeserver with what is known of its health.
#[derive(Debug)]
struct Home {
    server: Homeserver,
    policies: Policies,
    down_since: Option<i64>,
    /// It can reach weir, as far as is known.
    pushes: bool,
    ping_due: Option<i64>,
    /// When its moderation lists were read.
    lists_read: BTreeMap<String, i64>,
}

/// See the module.
pub(super) struct Service {
    config: Arc<MatrixConfig>,
    homes: Vec<Home>,
    rooms: Rooms,
    calls: Calls,
    waiting: Vec<Asking>,
    leaves: Leaves,
    ghosts: Ghosts,
    ceilings: Ceilings,
    review_at: i64,
    decisions: Decisions,
    store: Store,
    federation: Arc<Federation>,
    orders: mpsc::Sender<Order>,
    /// For results of requests. Weak: the service ends when nobody else asks.
    results: mpsc::WeakSender<Input>,
    metrics: Arc<Metrics>,
    audit: Audit,
    reads: Arc<Semaphore>,
    prune_at: i64,
    nodes: Option<Nodes>,
}

/// What the service stands on.
pub(super) struct Parts {
    pub(super) config: Arc<MatrixConfig>,
    pub(super) homes: Vec<Homeserver>,
    pub(super) federation: Arc<Federation>,
    pub(super) store: Store,
    pub(super) loaded: Loaded,
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) results: mpsc::WeakSender<Input>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) audit: Audit,
    /// Others that may have a call; `None`: there are none.
    pub(super) nodes: Option<Nodes>,
}

/// Unix milliseconds.
pub(super) fn now() -> i64 {
    i64::try_from(unix_now().as_millis()).unwrap_or(i64::MAX)
}

impl Service {
    pub(super) fn new(parts: Parts, now: i64) -> Self {
        let policies = || Policies::new(MAX_RULES);
        let home = |server| Home {
            server,
            policies: policies(),
            down_since: None,
            pushes: true,
            ping_due: None,
            lists_read: BTreeMap::new(),
        };
        let mut service = Self {
            config: parts.config,
            homes: parts.homes.into_iter().map(home).collect(),
            rooms: Rooms::default(),
            calls: Calls::default(),
            waiting: Vec::new(),
            leaves: Leaves::default(),
            ghosts: Ghosts::default(),
            ceilings: Ceilings::default(),
            review_at: now,
            decisions: Decisions::default(),
            store: parts.store,
            federation: parts.federation,
            orders: parts.orders,
            results: parts.results,
            metrics: parts.metrics,
            audit: parts.audit,
            reads: Arc::new(Semaphore::new(MAX_READS)),
            prune_at: now + PRUNE,
            nodes: parts.nodes,
        };
        service.restore(now, parts.loaded);
        service
    }

    /// Until nobody can ask any more.
    pub(super) async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        loop {
            let pause = (self.next_due() - now()).clamp(5, 1_000);
            let pause = Duration::from_millis(u64::try_from(pause).unwrap_or(1_000));
            match tokio::time::timeout(pause, inputs.recv()).await {
                Ok(Some(input)) => self.handle(now(), input),
                Ok(None) => return,
                Err(_) => {}
            }
            self.tick(now());
        }
    }

    /// What outlived a restart: callers are let in again with the tokens they have; those that were in a call and do not
    /// come back soon are gone.
    fn restore(&mut self, now: i64, loaded: Loaded) {
        for (room, identity, at) in loaded.revoked {
            self.calls.restore_revocation(room, identity, at);
        }
        for caller in loaded.callers {
            let named = |home: &Home| Some(home.server.config.server_name.as_str()) == caller.home.as_deref();
            let home = self.homes.iter().position(named).map(HomeId);
            if home.is_none() && caller.home.is_some() {
                continue;
            }
            let known = Known { home, ..caller.known };
            if caller.was_live {
                self.ghosts.restored(now, &caller.room, &caller.matrix_room, &known);
            }
            if let Some(home) = home {
                self.rooms.want(now, &(home, caller.matrix_room.clone()));
            }
            self.calls.grant(&caller.room, &caller.matrix_room, &caller.slot, &caller.identity, known);
        }
        self.leaves.restore(now, loaded.leaves);
        for index in 0..self.homes.len() {
            let home = HomeId(index);
            let Some(it) = self.homes.get_mut(index) else { continue };
            let feed = it.server.config.feed;
            it.ping_due = (feed == Feed::Full).then_some(now + 500);
            let lists: Vec<String> = it.server.config.policy_rooms.iter().map(|list| list.room.clone()).collect();
            lists.into_iter().for_each(|room| self.rooms.want(now, &(home, room)));
        }
    }

    fn handle(&mut self, now: i64, input: Input) {
        match input {
            Input::Token { request, answer } => self.on_token(now, *request, answer),
            Input::Join { shown, answer } => self.on_join(now, *shown, answer),
            Input::Push { home, events } => self.on_push(now, home, events),
            Input::Presence(presence) => self.on_presence(now, &presence),
            Input::Read { key, result } => self.on_read(now, &key, result),
            Input::Pinged { home, result } => self.on_pinged(now, home, result),
            Input::Delayed { key, answer } => self.on_delayed(now, &key, answer),
            Input::Cleared { clearing, result } => self.on_cleared(now, *clearing, result),
            Input::Rates { room, rates } => self.on_rates(now, &room, rates),
            Input::Why { user, answer } => {
                let _ = answer.send(self.decisions.about(&user));
            }
        }
    }

    fn next_due(&self) -> i64 {
        let pings = self.homes.iter().filter_map(|home| home.ping_due);
        let waiting = self.waiting.iter().map(Asking::until);
        let rest = [self.rooms.next_due(), self.leaves.next_due(), self.ghosts.next_due(), Some(self.prune_at)];
        pings.chain(waiting).chain(rest.into_iter().flatten()).min().unwrap_or(i64::MAX)
    }

    fn tick(&mut self, now: i64) {
        self.metrics.matrix.leaves.set(i64::try_from(self.leaves.count()).unwrap_or(i64::MAX));
        self.ping_due(now);
        self.read_due(now);
        self.expire_waiting(now);
        self.leaves_due(now);
        self.ghosts_due(now);
        self.review_ceilings(now);
        if now >= self.prune_at {
            self.prune(now);
        }
    }

    fn prune(&mut self, now: i64) {
        self.prune_at = now + PRUNE;
        let lifetime = i64::try_from(self.config.token_lifetime.0.as_millis()).unwrap_or(i64::MAX);
        for (room, identity) in self.calls.prune(now, lifetime) {
            self.store.forget(&room, &identity);
        }
        self.store.prune(now);
        self.ghosts.prune(now);
        let (calls, homes) = (&self.calls, &self.homes);
        self.rooms.prune(now, IDLE, |key| {
            let is_list = |home: &Home| home.server.config.policy_rooms.iter().any(|list| list.room == key.1);
            homes.get(key.0.0).is_some_and(is_list) || !calls.of_matrix_room(key.0, &key.1).is_empty()
        });
    }
}

/// Run a request beside the service; its result comes back as an input.
fn spawn(results: &mpsc::WeakSender<Input>, request: impl Future<Output = Input> + Send + 'static) {
    let results = results.clone();
    tokio::spawn(async move {
        let input = request.await;
        if let Some(results) = results.upgrade() {
            // Fails when the service is gone: the process ends.
            let _ = results.send(input).await;
        }
    });
}

/// Rights in words.
fn described(rights: Rights) -> String {
    let names = [(rights.microphone, "sound"), (rights.camera, "video"), (rights.screen_share, "a screen")];
    let names: Vec<&str> = names.into_iter().filter(|(may, _)| *may).map(|(_, name)| name).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests;
