//! The one task that owns everything weir knows of Matrix: views of rooms, calls, callers, leaves. It decides, and never
//! waits: requests to homeservers run beside it and come back as inputs.
//!
//! From a push to an ejection: [`Service::on_push`] -> [`Rooms::push`] -> [`Service::recheck`] -> [`Service::eject`] ->
//! [`Order::Remove`], which the room machine obeys. The same way from a read of room state and from a moderation list.

mod asking;
mod ghosts;
mod leaves;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use signalling::matrix::event::{Event, Fact};
use signalling::matrix::identity::Caller;
use signalling::matrix::policy::Policies;
use signalling::matrix::power::Dialect;
use signalling::matrix::request::DelayedLeave;
use signalling::matrix::view::Rights;
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::asking::Asking;
use self::ghosts::Ghosts;
use self::leaves::Leaves;
use super::admission::{self, Question, Refused, Rules};
use super::calls::{Calls, HomeId, Known};
use super::decisions::Decisions;
use super::homeserver::{AskError, Homeserver};
use super::resolve::Federation;
use super::rooms::{RoomKey, Rooms};
use super::store::{Loaded, Store};
use crate::config::{Feed, MatrixConfig};
use crate::media::clock::unix_now;

/// What the service is told and asked.
#[derive(Debug)]
pub(super) enum Input {
    /// Somebody proven asks for a token.
    Token { request: Box<TokenQuestion>, answer: oneshot::Sender<Result<Admitted, Refused>> },
    /// Somebody shows a token.
    Join { room: String, identity: String, issued_at: i64, answer: oneshot::Sender<Result<Rights, Refused>> },
    /// A homeserver pushes.
    Push { home: HomeId, events: Vec<Event> },
    /// A room task reports.
    Presence(Presence),
    /// A room was read.
    Read { key: RoomKey, result: Result<Vec<Event>, AskError> },
    /// A homeserver was pinged.
    Pinged { home: HomeId, result: Result<(), AskError> },
    /// A homeserver answered about a delayed leave.
    Delayed { key: leaves::LeaveKey, answer: signalling::matrix::delayed::Answer },
    /// A ghost was cleared, or not.
    Cleared { user: String, result: Result<(), AskError> },
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

/// A token may be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Admitted {
    pub(super) rights: Rights,
    /// Unix seconds the token has to be signed at, at least.
    pub(super) not_before: i64,
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
}

/// How often views with somebody in the call are read again, ms: finds what a crashed homeserver never pushed.
const RECONCILE: i64 = 60_000;
/// The same where nothing is pushed.
const POLL: i64 = 5_000;
/// How often old things are forgotten, ms.
const PRUNE: i64 = 60_000;
/// How long a view nobody needs is kept, ms.
const IDLE: i64 = 15 * 60_000;
/// Requests for room state at once.
const MAX_READS: usize = 8;
/// Pause between pings of a homeserver that is down, ms.
const PING: i64 = 2_000;
/// Rules of moderation lists honoured per homeserver.
const MAX_RULES: usize = 100_000;

/// A homeserver with what is known of its health.
#[derive(Debug)]
struct Home {
    server: Homeserver,
    policies: Policies,
    down_since: Option<i64>,
    ping_due: Option<i64>,
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
    decisions: Decisions,
    store: Store,
    federation: Arc<Federation>,
    orders: mpsc::Sender<Order>,
    /// For results of requests. Weak: the service ends when nobody else asks.
    results: mpsc::WeakSender<Input>,
    reads: Arc<Semaphore>,
    prune_at: i64,
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
}

/// Unix milliseconds.
pub(super) fn now() -> i64 {
    i64::try_from(unix_now().as_millis()).unwrap_or(i64::MAX)
}

impl Service {
    pub(super) fn new(parts: Parts, now: i64) -> Self {
        let home = |server| Home { server, policies: Policies::new(MAX_RULES), down_since: None, ping_due: None };
        let mut service = Self {
            config: parts.config,
            homes: parts.homes.into_iter().map(home).collect(),
            rooms: Rooms::default(),
            calls: Calls::default(),
            waiting: Vec::new(),
            leaves: Leaves::default(),
            ghosts: Ghosts::default(),
            decisions: Decisions::default(),
            store: parts.store,
            federation: parts.federation,
            orders: parts.orders,
            results: parts.results,
            reads: Arc::new(Semaphore::new(MAX_READS)),
            prune_at: now + PRUNE,
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
            Input::Join { room, identity, issued_at, answer } => self.on_join(now, room, identity, issued_at, answer),
            Input::Push { home, events } => self.on_push(now, home, events),
            Input::Presence(presence) => self.on_presence(now, &presence),
            Input::Read { key, result } => self.on_read(now, &key, result),
            Input::Pinged { home, result } => self.on_pinged(now, home, result),
            Input::Delayed { key, answer } => self.on_delayed(now, &key, answer),
            Input::Cleared { user, result } => {
                let words = match result {
                    Ok(()) => "had a stale call membership cleared",
                    Err(_) => "has a stale call membership that could not be cleared",
                };
                self.decisions.note(now, &user, words);
            }
            Input::Why { user, answer } => {
                let _ = answer.send(self.decisions.about(&user));
            }
        }
    }

    fn on_push(&mut self, now: i64, home: HomeId, events: Vec<Event>) {
        // It pushes: it lives.
        self.is_up(now, home);
        let mut touched: Vec<RoomKey> = Vec::new();
        let mut lists_changed = false;
        for event in events {
            if let Fact::PolicyRule { kind, key, rule } = &event.fact {
                lists_changed |= self.on_rule(home, &event.room, *kind, key, rule.clone());
                continue;
            }
            let key = (home, event.room.clone());
            let changes = self.rooms.push(now, &key, event);
            if (!changes.left.is_empty() || changes.rights) && !touched.contains(&key) {
                touched.push(key);
            }
        }
        if lists_changed {
            self.recheck_all(now, home);
        }
        touched.iter().for_each(|key| self.recheck(now, key));
    }

    fn on_rule(
        &mut self,
        home: HomeId,
        room: &str,
        kind: signalling::matrix::policy::RuleKind,
        key: &str,
        rule: Option<signalling::matrix::policy::Rule>,
    ) -> bool {
        let Some(home) = self.homes.get_mut(home.0) else { return false };
        let honoured = home.server.config.policy_rooms.iter().any(|list| list.room == room);
        honoured && home.policies.apply(room, kind, key, rule)
    }

    fn on_read(&mut self, now: i64, key: &RoomKey, result: Result<Vec<Event>, AskError>) {
        match &result {
            Err(AskError::Down) => self.is_down(now, key.0),
            _ => self.is_up(now, key.0),
        }
        if let (Ok(events), Some(home)) = (&result, self.homes.get_mut(key.0.0))
            && home.server.config.policy_rooms.iter().any(|list| list.room == key.1)
        {
            home.policies.clear(&key.1);
            for event in events {
                if let Fact::PolicyRule { kind, key: place, rule } = &event.fact {
                    home.policies.apply(&key.1, *kind, place, rule.clone());
                }
            }
            self.recheck_all(now, key.0);
        }
        let learnt = result != Err(AskError::Down);
        self.rooms.read(now, key, result);
        if learnt {
            self.recheck(now, key);
            self.reconsider(now, key);
        }
    }

    /// Whoever may no longer be in a call goes; whoever may do more or less is told.
    fn recheck(&mut self, now: i64, key: &RoomKey) {
        for (room, identity) in self.calls.of_matrix_room(key.0, &key.1) {
            self.recheck_one(now, &room, &identity);
        }
    }

    fn recheck_all(&mut self, now: i64, home: HomeId) {
        self.rooms.of_home(home).iter().for_each(|key| self.recheck(now, key));
    }

    fn recheck_one(&mut self, now: i64, room: &str, identity: &str) {
        let Some((call, known)) = self.calls.known(room, identity) else { return };
        let Some(home) = known.home else { return };
        let key = (home, call.matrix_room.clone());
        let result = self.admit(&key, &known.caller.user, &call.slot, known.dialect, true);
        let (before, cap) = (known.rights, known.cap);
        match result {
            None => {}
            Some(Err(refused)) => self.eject(now, room, identity, refused),
            Some(Ok(rights)) => {
                let rights = rights.and(cap);
                if rights != before {
                    self.permit(now, room, identity, rights);
                }
            }
        }
    }

    /// What the view of a room says about a user; `None` when nothing is known of the room.
    fn admit(
        &self,
        key: &RoomKey,
        user: &str,
        slot: &str,
        dialect: Dialect,
        is_inside: bool,
    ) -> Option<Result<Rights, Refused>> {
        let (watched, home) = (self.rooms.known(key)?, self.homes.get(key.0.0)?);
        let question = Question { user, slot, matrix_room: &key.1, dialect, is_inside };
        let rules = Rules { policies: &home.policies, feed: home.server.config.feed };
        Some(admission::admit(&watched.view, &question, &rules))
    }

    /// Out, and no way back with any token given so far.
    fn eject(&mut self, now: i64, room: &str, identity: &str, why: Refused) {
        let matrix_room = self.calls.known(room, identity).map(|(call, _)| call.matrix_room.clone());
        let Some(known) = self.calls.revoke(now, room, identity) else { return };
        self.store.revoke(room, identity, now);
        self.order(Order::Remove { room: room.to_owned(), identity: identity.to_owned() });
        if known.live.is_empty() {
            return;
        }
        self.decisions.note(now, &known.caller.user, &format!("was removed from a call: {}", why.words()));
        if let Some(matrix_room) = matrix_room {
            self.ghosts.gone(now, room, &matrix_room, &known, 0);
        }
    }

    fn permit(&mut self, now: i64, room: &str, identity: &str, rights: Rights) {
        let Some(known) = self.calls.known_mut(room, identity) else { return };
        known.rights = rights;
        let user = known.caller.user.clone();
        self.order(Order::Permit { room: room.to_owned(), identity: identity.to_owned(), rights });
        self.decisions.note(now, &user, &format!("may now publish {}", described(rights)));
    }

    fn order(&self, order: Order) {
        if let Err(mpsc::error::TrySendError::Full(order)) = self.orders.try_send(order) {
            // More orders than places: none may be lost, so this one waits on its own.
            let orders = self.orders.clone();
            tokio::spawn(async move { orders.send(order).await });
        }
    }

    fn on_presence(&mut self, now: i64, presence: &Presence) {
        let Presence { room, identity, sid, what } = presence;
        match what {
            Came::Joined => {
                if !self.calls.joined(room, identity, sid) {
                    // Let in by nobody, or removed while it was on its way.
                    self.order(Order::Remove { room: room.clone(), identity: identity.clone() });
                    return;
                }
                self.store.live(room, identity, true);
                self.leave_connected(now, room, identity);
                self.recheck_one(now, room, identity);
            }
            Came::Left { intended } => {
                if self.calls.left(room, identity, sid) {
                    self.store.live(room, identity, false);
                    self.departed(now, room, identity, *intended);
                }
            }
        }
    }

    fn is_up(&mut self, now: i64, home: HomeId) {
        let Some(it) = self.homes.get_mut(home.0) else { return };
        if it.down_since.take().is_some() {
            tracing::info!(homeserver = %it.server.config.server_name, "the homeserver answers again");
            // What was missed is read; what is held back is asked for.
            it.ping_due = (it.server.config.feed == Feed::Full).then_some(now);
            for key in self.rooms.of_home(home) {
                self.rooms.doubt(now, &key);
            }
        }
    }

    fn is_down(&mut self, now: i64, home: HomeId) {
        let Some(it) = self.homes.get_mut(home.0) else { return };
        if it.down_since.is_none() {
            let name = &it.server.config.server_name;
            tracing::warn!(homeserver = %name, "the homeserver does not answer as it should: calls go on, joins wait");
            it.down_since = Some(now);
        }
        it.ping_due.get_or_insert(now + PING);
    }

    fn on_pinged(&mut self, now: i64, home: HomeId, result: Result<(), AskError>) {
        match result {
            Ok(()) => self.is_up(now, home),
            Err(_) => self.is_down(now, home),
        }
    }

    fn next_due(&self) -> i64 {
        let pings = self.homes.iter().filter_map(|home| home.ping_due);
        let waiting = self.waiting.iter().map(Asking::until);
        let rest = [self.rooms.next_due(), self.leaves.next_due(), self.ghosts.next_due(), Some(self.prune_at)];
        pings.chain(waiting).chain(rest.into_iter().flatten()).min().unwrap_or(i64::MAX)
    }

    fn tick(&mut self, now: i64) {
        self.ping_due(now);
        self.read_due(now);
        self.expire_waiting(now);
        self.leaves_due(now);
        self.ghosts_due(now);
        if now >= self.prune_at {
            self.prune(now);
        }
    }

    fn ping_due(&mut self, now: i64) {
        for (index, home) in self.homes.iter_mut().enumerate() {
            if home.ping_due.is_some_and(|due| due <= now) {
                home.ping_due = None;
                let server = home.server.clone();
                spawn(&self.results, async move { Input::Pinged { home: HomeId(index), result: server.ping().await } });
            }
        }
    }

    fn read_due(&mut self, now: i64) {
        self.reconcile(now);
        for key in self.rooms.take_due(now, self.reads.available_permits()) {
            let Some(home) = self.homes.get(key.0.0) else { continue };
            let server = home.server.clone();
            let hint = self.hint(&key);
            let reads = self.reads.clone();
            spawn(&self.results, async move {
                let _place = reads.acquire().await;
                let result = server.room(&key.1, hint.as_deref()).await;
                Input::Read { key, result }
            });
        }
    }

    /// A local user who is probably in the room, through whom it is read.
    fn hint(&self, key: &RoomKey) -> Option<String> {
        let home = self.homes.get(key.0.0)?;
        let list = home.server.config.policy_rooms.iter().find(|list| list.room == key.1);
        let waiting = self.waiting.iter().filter_map(|asking| asking.user_for(key)).map(str::to_owned);
        let joined = self.rooms.known(key).into_iter().flat_map(|w| w.view.joined()).map(str::to_owned);
        let candidates = list.map(|list| list.as_user.clone()).into_iter().chain(waiting).chain(joined);
        candidates.into_iter().find(|user| home.server.is_local(user))
    }

    /// Views that matter to somebody in a call are read now and then, whatever was pushed.
    fn reconcile(&mut self, now: i64) {
        let mut old: BTreeMap<RoomKey, ()> = BTreeMap::new();
        for (_, call) in self.calls.all() {
            for known in call.participants.values().filter(|known| !known.live.is_empty()) {
                let Some(home) = known.home else { continue };
                let key = (home, call.matrix_room.clone());
                let pushed = self.homes.get(home.0).is_some_and(|it| it.server.config.feed == Feed::Full);
                let every = if pushed { RECONCILE } else { POLL };
                if self.rooms.get(&key).is_none_or(|watched| now.saturating_sub(watched.read_at) >= every) {
                    old.insert(key, ());
                }
            }
        }
        old.keys().for_each(|key| self.rooms.want(now, key));
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
