//! Nodes and the people of a room in virtual time: whatever comes first, and whatever the directory does, they meet.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail by panicking")]
#![allow(clippy::disallowed_types, reason = "one thread, held for a few instructions")]

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::config::RegionConfig;

struct Node {
    nodes: Nodes,
    keeper: Keeper,
    facts: mpsc::Receiver<Fact>,
    /// Facts on their way, by when they arrive.
    late: Vec<(u64, Fact)>,
    next_beat: u64,
}

struct World {
    now: Arc<AtomicU64>,
    board: Board,
    nodes: BTreeMap<String, Node>,
    /// Who is on which node.
    people: BTreeMap<String, String>,
    rng: StdRng,
}

/// Milliseconds of a step.
const STEP: u64 = 50;
/// The longest a fact is on its way, milliseconds; they overtake each other.
const LATE: u64 = 200;

impl World {
    fn new(seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Self { now: Arc::default(), board: Board::new(), nodes: BTreeMap::new(), people: BTreeMap::new(), rng }
    }

    fn start(&mut self, name: &str, region: &str) {
        let (node, address) = (name.to_owned(), format!("http://{name}"));
        let me = NodeRow { v: 1, node, boot: 1, region: region.to_owned(), address, ..NodeRow::default() };
        let facts = self.board.read();
        let directory = Directory::Memory(self.board.clone());
        let clock = Clock::Set(self.now.clone());
        let nodes = Nodes::with(me, Regions::default(), "secret", directory, clock).unwrap();
        let keeper = Keeper::new(nodes.clone());
        let next_beat = self.now.load(Ordering::Relaxed);
        self.nodes.insert(name.to_owned(), Node { nodes, keeper, facts, late: Vec::new(), next_beat });
    }

    async fn step(&mut self) {
        let now = self.now.fetch_add(STEP, Ordering::Relaxed) + STEP;
        for node in self.nodes.values_mut() {
            if node.next_beat <= now {
                node.next_beat += 1_000;
                node.keeper.beat().await;
            }
            node.keeper.settle().await;
        }
        for node in self.nodes.values_mut() {
            while let Ok(fact) = node.facts.try_recv() {
                node.late.push((now + self.rng.random_range(0..=LATE), fact));
            }
            let (due, late) = std::mem::take(&mut node.late).into_iter().partition(|(at, _)| *at <= now);
            node.late = late;
            let due: Vec<(u64, Fact)> = due;
            due.into_iter().for_each(|(_, fact)| node.keeper.hear(fact));
        }
        self.obey().await;
    }

    /// Somebody comes in by a door and ends on some node.
    async fn join(&mut self, who: &str, door: &str, wanted: &Wanted) -> Option<String> {
        let node = match self.nodes[door].nodes.locate("room", wanted).await {
            Where::Here => door.to_owned(),
            Where::There(peer) => peer.name,
            Where::Nowhere => return None,
        };
        let there = &self.nodes[&node].nodes;
        let has = there.state().own.contains_key("room");
        if !has {
            there.room_started("room");
        }
        self.people.insert(who.to_owned(), node.clone());
        Some(node)
    }

    /// Rooms that go on elsewhere: their people come back by a random door.
    async fn obey(&mut self) {
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        for name in &names {
            for room in self.nodes[name].nodes.misplaced() {
                assert_eq!(room, "room");
                self.nodes[name].nodes.room_ended(&room);
                let gone: Vec<String> =
                    self.people.iter().filter(|(_, at)| *at == name).map(|(who, _)| who.clone()).collect();
                for who in gone {
                    let door = names[self.rng.random_range(0..names.len())].clone();
                    self.join(&who, &door, &Wanted::default()).await;
                }
            }
        }
    }

    async fn pass(&mut self, time: Duration) {
        for _ in 0..u64::try_from(time.as_millis()).unwrap().div_ceil(STEP) {
            self.step().await;
        }
    }

    fn assert_together(&self, what: &str) {
        let mut at: Vec<&String> = self.people.values().collect();
        at.sort();
        at.dedup();
        assert_eq!(at.len(), 1, "{what}: {:?}", self.people);
    }
}

impl Nodes {
    /// One of two, of which the other has this room.
    pub(in crate::control) fn with_a_room_elsewhere(room: &str) -> Self {
        let node = |name: &str| NodeRow { node: name.to_owned(), boot: 1, seq: 1, ..NodeRow::default() };
        let (directory, clock) = (Directory::Memory(Board::new()), Clock::Set(Arc::default()));
        let nodes = Self::with(node("a"), Regions::default(), "secret", directory, clock).unwrap();
        nodes.hear(Fact::Node(node("b")));
        let row = RoomRow { v: 1, boot: 1, seq: 1, since: 1, ended: false };
        nodes.hear(Fact::Room { key: nodes.key(room), node: "b".to_owned(), row });
        assert!(nodes.is_elsewhere(room) && !nodes.is_elsewhere("another"));
        nodes
    }
}

fn region(name: &str) -> Wanted {
    Wanted { region: name.to_owned(), only: false }
}

#[tokio::test]
async fn two_of_two_regions_meet_in_every_order_and_at_the_same_instant() {
    for seed in 0..40 {
        let mut world = World::new(seed);
        let gaps: [u64; 4] = std::array::from_fn(|_| [0, 1, 20, 150, 1_500][world.rng.random_range(0..5)]);
        let pause = |at: usize| Duration::from_millis(gaps[at]);
        world.start("a", "eu");
        world.pass(pause(0)).await;
        world.start("b", "us");
        world.pass(pause(1)).await;
        let (first, second) = if seed % 2 == 0 { (("a", "eu"), ("b", "us")) } else { (("b", "us"), ("a", "eu")) };
        world.join("alice", first.0, &region(first.1)).await;
        world.pass(pause(2)).await;
        world.join("bob", second.0, &region(second.1)).await;
        world.assert_together(&format!("seed {seed}: from the first moment, with the directory"));
        world.pass(Duration::from_secs(20)).await;
        world.assert_together(&format!("seed {seed}"));
    }
}

#[tokio::test]
async fn two_that_start_in_one_instant_while_the_directory_is_silent_meet_all_the_same() {
    let mut apart = 0;
    for seed in 0..40 {
        let mut world = World::new(seed);
        world.start("a", "eu");
        // Half of them have heard of each other before the silence begins.
        if seed % 2 == 0 {
            world.start("b", "us");
            world.pass(Duration::from_secs(3)).await;
        }
        world.board.set_silent(true);
        if !world.nodes.contains_key("b") {
            world.start("b", "us");
        }
        let calm = Duration::from_millis(world.rng.random_range(0..8_000));
        world.pass(calm).await;
        world.join("alice", "a", &Wanted::default()).await;
        world.join("bob", "b", &Wanted::default()).await;
        let together = world.people["alice"] == world.people["bob"];
        apart += u32::from(!together);
        world.pass(Duration::from_secs(600)).await;
        world.board.set_silent(false);
        world.pass(Duration::from_secs(20)).await;
        world.assert_together(&format!("seed {seed}"));
    }
    assert!(apart > 0, "no seed had two calls to bring together");
}

#[tokio::test]
async fn ten_minutes_without_the_directory_end_nothing_and_joins_go_on() {
    let mut world = World::new(1);
    for (name, region) in [("a", "eu"), ("b", "us"), ("c", "us")] {
        world.start(name, region);
    }
    world.pass(Duration::from_secs(3)).await;
    let home = world.join("alice", "a", &region("us")).await.unwrap();
    assert!(home == "b" || home == "c");
    world.pass(Duration::from_secs(1)).await;
    world.board.set_silent(true);
    for minute in 0..10 {
        world.pass(Duration::from_secs(60)).await;
        for door in ["a", "b", "c"] {
            let who = format!("{door} {minute}");
            assert_eq!(world.join(&who, door, &Wanted::default()).await.as_deref(), Some(home.as_str()));
            // A room nobody has: all doors choose the same without asking anybody.
            let other = format!("other {minute}");
            let mut places = Vec::new();
            for (door, own) in [("a", "eu"), ("b", "us"), ("c", "us")] {
                let place = match world.nodes[door].nodes.locate(&other, &region(own)).await {
                    Where::Here => door.to_owned(),
                    Where::There(peer) => peer.name,
                    Where::Nowhere => panic!("no place"),
                };
                places.push(place);
            }
            assert!(places.iter().all(|place| *place == places[0]), "{places:?}");
        }
        assert!(world.nodes["a"].nodes.silence().is_some());
    }
    world.board.set_silent(false);
    world.pass(Duration::from_secs(30)).await;
    assert!(world.people.values().all(|at| *at == home), "nobody was moved");
    assert!(world.nodes["a"].nodes.silence().is_none());
    world.join("late", "a", &Wanted::default()).await;
    world.assert_together("after the silence");
}

#[tokio::test]
async fn the_rooms_of_a_node_that_dies_or_leaves_go_to_one_other() {
    for leaves in [false, true] {
        let mut world = World::new(7);
        for name in ["a", "b", "c"] {
            world.start(name, "eu");
        }
        world.pass(Duration::from_secs(3)).await;
        let home = world.join("alice", "a", &Wanted::default()).await.unwrap();
        world.join("bob", "b", &Wanted::default()).await;
        world.assert_together("before");
        world.pass(Duration::from_secs(1)).await;
        let doors: Vec<String> = world.nodes.keys().filter(|name| **name != home).cloned().collect();
        if leaves {
            world.nodes[&home].nodes.set_state(State::Leaving, 0);
            world.pass(Duration::from_millis(300)).await;
        } else {
            // Whoever finds it gone says so, and need not wait until it has been silent for long.
            doors.iter().for_each(|door| world.nodes[door].nodes.unreachable(&home));
        }
        world.people.clear();
        world.join("alice", &doors[0], &Wanted::default()).await;
        world.join("bob", &doors[1], &Wanted::default()).await;
        world.assert_together("after");
        assert_ne!(world.people["alice"], home);
    }
}

#[tokio::test]
async fn a_full_node_takes_no_new_rooms_but_joins_into_its_own() {
    let mut world = World::new(3);
    world.start("a", "eu");
    world.start("b", "eu");
    world.pass(Duration::from_secs(3)).await;
    let home = world.join("alice", "a", &Wanted::default()).await.unwrap();
    world.nodes[&home].nodes.set_state(State::Full, 990);
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(world.join("bob", "a", &Wanted::default()).await.unwrap(), home);
    for room in 0..10 {
        for door in ["a", "b"] {
            let place = match world.nodes[door].nodes.locate(&room.to_string(), &Wanted::default()).await {
                Where::Here => door.to_owned(),
                Where::There(peer) => peer.name,
                Where::Nowhere => panic!("no place"),
            };
            assert_ne!(place, home);
        }
    }
}

#[tokio::test]
async fn what_is_pinned_to_a_region_is_refused_rather_than_held_elsewhere() {
    let mut config = Config::new();
    config.nodes.regions =
        vec![RegionConfig { name: "eu".to_owned(), pinned: vec!["gov.example".to_owned()], ..Default::default() }];
    let pinned = Regions::new(&config).of_user("gov.example", region("us"));
    let mut world = World::new(4);
    world.start("a", "us");
    world.pass(Duration::from_secs(2)).await;
    assert_eq!(world.join("minister", "a", &pinned).await, None, "there is no node in the region");
    world.start("b", "eu");
    world.pass(Duration::from_secs(2)).await;
    assert_eq!(world.join("minister", "a", &pinned).await.as_deref(), Some("b"));
    world.join("guest", "a", &region("us")).await;
    world.assert_together("everybody follows");
    // A call that others hold elsewhere is none for those who may not be there.
    assert_ne!(world.nodes["a"].nodes.locate("other", &region("us")).await, Where::Nowhere);
    assert_eq!(world.nodes["a"].nodes.locate("other", &pinned).await, Where::Nowhere);
}

#[tokio::test]
async fn proofs_of_passing_on_are_good_between_nodes_and_from_nobody_else() {
    let board = Board::new();
    let node = |secret: &str| {
        let me = NodeRow { node: "a".to_owned(), ..NodeRow::default() };
        Nodes::with(me, Regions::default(), secret, Directory::Memory(board.clone()), Clock::Real(Instant::now()))
            .unwrap()
    };
    let headers = |proof: String| [(pass::PROOF, proof.parse().unwrap())].into_iter().collect();
    let (one, other, stranger) = (node("secret"), node("secret"), node("guess"));
    let proof = one.proof(Some("@alice:example.org"));
    assert_eq!(other.passed(&headers(proof.clone())).unwrap().user.as_deref(), Some("@alice:example.org"));
    assert_eq!(stranger.passed(&headers(proof.clone())), None);
    let (text, tag) = proof.split_once('.').unwrap();
    let forged = one.proof(Some("@mallory:example.org"));
    let (theirs, _) = forged.split_once('.').unwrap();
    assert_eq!(other.passed(&headers(format!("{theirs}.{tag}"))), None);
    assert_eq!(other.passed(&headers(text.to_owned())), None);
}
