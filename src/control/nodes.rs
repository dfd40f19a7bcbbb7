//! Several nodes behind one name: which of them has a room, and who goes there.
//!
//! [`view`] holds what is known and the rules all nodes share; [`directory`] is where nodes write and read it; [`pass`]
//! takes a client that reached the wrong node to the right one. A room is placed, never a user: whoever comes first
//! decides where it is, and everybody follows. Nothing here is asked by running calls, nor by liveness: without a
//! directory calls go on and joins go by what was known last.

mod directory;
mod nats;
pub(super) mod pass;
mod region;
mod view;

use std::collections::BTreeMap;
#[expect(clippy::disallowed_types, reason = "held for a few instructions, never across an await")]
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use self::directory::{Board, Claim, Directory, FACTS, Fact};
use self::nats::Nats;
pub(super) use self::region::{Regions, Wanted};
pub(super) use self::view::State;
use self::view::{NodeRow, PlaceRow, RoomKey, RoomRow, View};
use crate::config::{Config, NodesConfig};
use crate::media::clock::unix_now;

/// How often a node says what it is.
const BEAT: Duration = Duration::from_secs(1);
/// How often rows of rooms are said again without need, in beats: before the directory forgets them.
const AGAIN: u64 = 1_800;
/// Attempts to place a room: each fails only because somebody else did something in between.
const ATTEMPTS: usize = 4;
/// Rooms that wait to be sent elsewhere.
const MISPLACED: usize = 1_024;

/// Where a room is, or is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Where {
    /// On this node.
    Here,
    /// On another.
    There(Peer),
    /// In a region that has no node for it now, and it may be in no other.
    Nowhere,
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) name: String,
    /// Where its HTTP is.
    pub(super) address: String,
}

/// Asks and tells what nodes know of each other. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Nodes(Arc<Inner>);

#[derive(Debug)]
#[expect(clippy::disallowed_types, reason = "see the import")]
struct Inner {
    /// What this node is, but for what changes.
    me: NodeRow,
    regions: Regions,
    /// Keys the names of rooms.
    secret: hmac::Key,
    directory: Directory,
    /// To other nodes.
    client: reqwest::Client,
    clock: Clock,
    sequence: AtomicU64,
    state: Mutex<Knowledge>,
    /// Something of this node's own has changed.
    changed: Notify,
}

#[derive(Debug)]
struct Knowledge {
    view: View,
    own: BTreeMap<String, (RoomKey, RoomRow)>,
    /// Rows the directory has not been given yet.
    unsaid: BTreeMap<RoomKey, RoomRow>,
    now: (State, u32),
    /// This node has something to say about itself.
    is_changed: bool,
}

/// Time since this node began.
#[derive(Clone, Debug)]
enum Clock {
    Real(Instant),
    /// Milliseconds, set by whoever tests.
    #[cfg(test)]
    Set(Arc<AtomicU64>),
}

impl Clock {
    fn now(&self) -> Duration {
        match self {
            Self::Real(started) => started.elapsed(),
            #[cfg(test)]
            Self::Set(now) => Duration::from_millis(now.load(Ordering::Relaxed)),
        }
    }
}

/// Rooms of this node that go on elsewhere: their people are to be sent there.
pub(super) type Misplaced = mpsc::Receiver<String>;

impl Nodes {
    /// As configured.
    ///
    /// # Errors
    /// In words, when the directory cannot be used at all; one that does not answer is no error.
    pub(super) fn start(config: &Config) -> Result<(Self, Misplaced), String> {
        let url = if config.nodes.url.is_empty() { config.matrix.url.clone() } else { config.nodes.url.clone() };
        let me = NodeRow {
            v: 1,
            node: config.nodes.node_name(),
            boot: u64::try_from(unix_now().as_nanos()).unwrap_or(u64::MAX),
            region: config.region.clone(),
            address: config.nodes.address.trim_end_matches('/').to_owned(),
            url,
            ..NodeRow::default()
        };
        let secret = config.keys.first().map_or("", |(_, secret)| secret.expose());
        let (directory, facts) = connect(&config.nodes, &me)?;
        let nodes = Self::with(me, Regions::new(config), secret, directory, Clock::Real(Instant::now()))?;
        let (orders, misplaced) = mpsc::channel(MISPLACED);
        tokio::spawn(Keeper::new(nodes.clone()).run(facts, orders));
        Ok((nodes, misplaced))
    }

    #[expect(clippy::disallowed_types, reason = "see the import")]
    fn with(me: NodeRow, regions: Regions, secret: &str, directory: Directory, clock: Clock) -> Result<Self, String> {
        let state = Knowledge {
            view: View::new(me.clone(), clock.now()),
            own: BTreeMap::new(),
            unsaid: BTreeMap::new(),
            now: (State::Ready, 0),
            is_changed: false,
        };
        let inner = Inner {
            me,
            regions,
            secret: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()),
            directory,
            client: pass::client()?,
            clock,
            sequence: AtomicU64::new(1),
            state: Mutex::new(state),
            changed: Notify::new(),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Where the room of this name is; placed now if it is nowhere yet.
    pub(super) async fn locate(&self, room: &str, wanted: &Wanted) -> Where {
        let key = self.key(room);
        let only = wanted.only;
        let region = if wanted.region.is_empty() { self.0.me.region.as_str() } else { wanted.region.as_str() };
        let mut instead_of = None;
        let mut by_hash = false;
        for _ in 0..ATTEMPTS {
            let place = {
                let state = self.state();
                let now = self.now();
                if let Some(node) = state.view.serving(now, &key).or_else(|| state.view.placed(now, &key)) {
                    if only && node.region != region {
                        return Where::Nowhere;
                    }
                    return self.at(node);
                }
                match state.view.choose(now, &key, region, only, by_hash) {
                    Some(node) => PlaceRow::on(node),
                    None if only && self.0.me.region != region => return Where::Nowhere,
                    // Nobody takes it: this node says why.
                    None => return Where::Here,
                }
            };
            let claimed = if by_hash {
                Claim::Unknown
            } else {
                self.0.directory.claim(self.now(), &key, &place, instead_of).await
            };
            let place = match claimed {
                // The directory does not say: what all doors choose alike.
                Claim::Unknown if !by_hash => {
                    by_hash = true;
                    continue;
                }
                Claim::Mine | Claim::Unknown => place,
                Claim::Theirs { place, revision } => {
                    let mut state = self.state();
                    state.view.learn(self.now(), &place);
                    if state.view.takes(self.now(), &place).is_none() {
                        // Its node is gone.
                        instead_of = Some(revision);
                        continue;
                    }
                    place
                }
            };
            self.state().view.place(self.now(), key.clone(), place);
        }
        Where::Here
    }

    fn at(&self, node: &NodeRow) -> Where {
        if node.node == self.0.me.node {
            return Where::Here;
        }
        Where::There(Peer { name: node.node.clone(), address: node.address.clone() })
    }

    /// The region a joiner is to be in, by what is known of it.
    pub(super) fn regions(&self) -> &Regions {
        &self.0.regions
    }

    /// What clients of rooms on this node are told to connect to; empty: nothing is configured.
    pub(super) fn own_url(&self) -> &str {
        &self.0.me.url
    }

    /// Whether there are others now.
    pub(super) fn is_alone(&self) -> bool {
        self.state().view.others(self.now()).next().is_none()
    }

    /// The other node that has this room, or is to have it; `None`: it is here, or nowhere.
    pub(super) fn find(&self, room: &str) -> Option<Peer> {
        let key = self.key(room);
        let (state, now) = (self.state(), self.now());
        match self.at(state.view.serving(now, &key).or_else(|| state.view.placed(now, &key))?) {
            Where::There(peer) => Some(peer),
            Where::Here | Where::Nowhere => None,
        }
    }

    /// Whether the room of this name runs on another node.
    pub(super) fn is_elsewhere(&self, room: &str) -> bool {
        let key = self.key(room);
        let state = self.state();
        state.view.serving(self.now(), &key).is_some_and(|node| node.node != self.0.me.node)
    }

    /// All others that live.
    pub(super) fn others(&self) -> Vec<Peer> {
        let peer = |row: &NodeRow| Peer { name: row.node.clone(), address: row.address.clone() };
        self.state().view.others(self.now()).map(peer).collect()
    }

    /// For how long the directory has been silent, once that matters; `None`: it is heard.
    pub(super) fn silence(&self) -> Option<Duration> {
        let state = self.state();
        state.view.is_silent(self.now()).then(|| state.view.silence(self.now()))
    }

    /// A node did not answer: whatever it had is elsewhere from now on.
    pub(super) fn unreachable(&self, node: &str) {
        tracing::warn!(node, "a node does not answer; its rooms are made anew elsewhere");
        self.state().view.unreachable(self.now(), node);
    }

    /// What this node takes, and its load in thousandths.
    pub(super) fn set_state(&self, state: State, load: u32) {
        let changed = {
            let mut knowledge = self.state();
            let changed = knowledge.now.0 != state;
            knowledge.now = (state, load);
            knowledge.is_changed |= changed;
            changed
        };
        if changed {
            let row = self.row();
            self.state().view.set_own(self.now(), row);
            self.0.changed.notify_one();
        }
    }

    /// A room began on this node.
    pub(super) fn room_started(&self, room: &str) {
        let key = self.key(room);
        let since = i64::try_from(unix_now().as_millis()).unwrap_or(i64::MAX);
        let row = RoomRow { v: 1, boot: self.0.me.boot, seq: self.next(), since, ended: false };
        let mut state = self.state();
        state.own.insert(room.to_owned(), (key.clone(), row.clone()));
        self.say(&mut state, key, row);
    }

    /// A room ended on this node, or goes on elsewhere.
    pub(super) fn room_ended(&self, room: &str) {
        let mut state = self.state();
        let Some((key, row)) = state.own.remove(room) else { return };
        let row = RoomRow { seq: self.next(), ended: true, ..row };
        self.say(&mut state, key, row);
    }

    fn say(&self, state: &mut Knowledge, key: RoomKey, row: RoomRow) {
        state.view.set_own_room(key.clone(), row.clone());
        state.unsaid.insert(key, row);
        self.0.changed.notify_one();
    }

    /// Rooms of this node that another goes on with, by the rule. They are no longer said to be here.
    fn misplaced(&self) -> Vec<String> {
        let now = self.now();
        let state = self.state();
        let elsewhere = |key: &RoomKey| {
            let node = state.view.serving(now, key);
            node.is_some_and(|node| node.node != self.0.me.node)
        };
        state.own.iter().filter(|(_, (key, _))| elsewhere(key)).map(|(room, _)| room.clone()).collect()
    }

    fn key(&self, room: &str) -> RoomKey {
        let tag = hmac::sign(&self.0.secret, format!("room {room}").as_bytes());
        RoomKey(tag.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }

    fn row(&self) -> NodeRow {
        let (state, load) = self.state().now;
        NodeRow { seq: self.next(), state, load, ..self.0.me.clone() }
    }

    fn next(&self) -> u64 {
        self.0.sequence.fetch_add(1, Ordering::Relaxed)
    }

    fn now(&self) -> Duration {
        self.0.clock.now()
    }

    fn state(&self) -> MutexGuard<'_, Knowledge> {
        // Whole after every step: a panic elsewhere tears nothing.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn connect(config: &NodesConfig, me: &NodeRow) -> Result<(Directory, mpsc::Receiver<Fact>), String> {
    if !config.is_on() {
        let board = Board::new();
        let facts = board.read();
        return Ok((Directory::Memory(board), facts));
    }
    let (sender, facts) = mpsc::channel(FACTS);
    Ok((Directory::Nats(Box::new(Nats::start(config, &me.node, sender)?)), facts))
}

/// Reads the directory, and says what changed.
struct Keeper {
    nodes: Nodes,
    was_silent: bool,
    /// It was said that the directory is silent.
    said: bool,
    beats: u64,
    /// It was said that another node has this one's name.
    warned: bool,
}

impl Keeper {
    const fn new(nodes: Nodes) -> Self {
        Self { nodes, was_silent: true, said: false, beats: 0, warned: false }
    }

    /// Ends with whoever gives the facts, or when nobody takes orders any more.
    async fn run(mut self, mut facts: mpsc::Receiver<Fact>, orders: mpsc::Sender<String>) {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                fact = facts.recv() => match fact {
                    Some(fact) => self.hear(fact),
                    None => return,
                },
                _ = beat.tick() => self.beat().await,
                () = self.nodes.0.changed.notified() => {}
            }
            self.settle().await;
            for room in self.nodes.misplaced() {
                // Full: the next fact tries again.
                if orders.try_send(room.clone()).is_ok() {
                    self.nodes.room_ended(&room);
                } else if orders.is_closed() {
                    return;
                }
            }
        }
    }

    fn hear(&mut self, fact: Fact) {
        if self.nodes.hear(fact) && !self.warned {
            self.warned = true;
            tracing::error!(name = self.nodes.0.me.node, "another node has this one's name: change `nodes.name`");
        }
    }

    /// What is done each second.
    async fn beat(&mut self) {
        let nodes = &self.nodes;
        self.beats += 1;
        let row = nodes.row();
        nodes.0.directory.announce(&row).await;
        nodes.state().view.set_own(nodes.now(), row);
        let silent = nodes.silence().is_some();
        if silent && !self.said {
            tracing::warn!("the directory of nodes is silent; calls go on, what was known last is kept");
        }
        self.said = silent;
        let is_back = self.was_silent && !silent && nodes.0.directory.recall().await;
        if is_back || self.beats.is_multiple_of(AGAIN) {
            nodes.say_all_again();
        }
        self.was_silent = silent || (self.was_silent && !is_back);
        nodes.state().view.prune(nodes.now());
    }

    async fn settle(&self) {
        let is_changed = std::mem::take(&mut self.nodes.state().is_changed);
        if is_changed {
            self.nodes.0.directory.announce(&self.nodes.row()).await;
        }
        self.nodes.say_what_changed().await;
    }
}

impl Nodes {
    /// True: it is of another node with this one's name.
    fn hear(&self, fact: Fact) -> bool {
        let now = self.now();
        let mut state = self.state();
        match fact {
            Fact::Node(row) => !state.view.hear_node(now, row),
            Fact::Room { key, node, row } => {
                state.view.hear_room(now, key, node, row);
                false
            }
        }
    }

    fn say_all_again(&self) {
        let mut state = self.state();
        let own: Vec<_> = state.own.values().cloned().collect();
        state.unsaid.extend(own);
    }

    async fn say_what_changed(&self) {
        loop {
            let Some((key, row)) = self.state().unsaid.pop_first() else { return };
            self.0.directory.set_room(&key, &self.0.me.node, &row).await;
        }
    }
}

#[cfg(test)]
mod tests;
