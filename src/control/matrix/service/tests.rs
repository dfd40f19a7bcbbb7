//! The service in virtual time against a homeserver on loopback that does what the test says: whoever vanishes leaves no
//! ghost, in every mode, whatever is restarted meanwhile.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail by panicking")]
#![allow(clippy::disallowed_types, unreachable_pub, missing_docs, reason = "the homeserver is shared between tasks")]

#[path = "../../../../tests/matrix_http/homeserver.rs"]
mod homeserver;

use serde_json::{Value, json};
use signalling::matrix::event::CALL_MEMBER;
use signalling::matrix::identity::{IdentityForm, room_name};
use tokio::time::Instant;

use self::homeserver::{AS_TOKEN, HS_TOKEN, NAME};
use super::super::openid::trusted_client;
use super::super::resolve::SystemDns;
use super::super::store::{StoredCaller, StoredLeave};
use super::*;
use crate::config::{HomeserverConfig, LimitConfig, Secret};
use crate::control::audit::Audit;
use crate::control::load::Load;

const ROOM: &str = "!room:hs.test";
const SLOT: &str = "m.call#ROOM";
const ALICE: &str = "@alice:hs.test";
const BOB: &str = "@bob:hs.test";

struct World {
    service: Service,
    /// Weak ones of it are held by the service and by each request under way.
    sender: mpsc::Sender<Input>,
    results: mpsc::Receiver<Input>,
    orders: mpsc::Receiver<Order>,
    home: homeserver::Homeserver,
    now: i64,
    metrics: Arc<Metrics>,
    /// Memberships that were seen to end.
    ended: usize,
}

fn config() -> HomeserverConfig {
    HomeserverConfig {
        server_name: NAME.to_owned(),
        as_token: Secret::new(AS_TOKEN),
        hs_token: Secret::new(HS_TOKEN),
        ..HomeserverConfig::default()
    }
}

impl World {
    /// Alice and Bob in a room.
    async fn new() -> Self {
        let home = homeserver::Homeserver::start().await;
        home.member(ROOM, ALICE, "join");
        home.member(ROOM, BOB, "join");
        home.set(
            ROOM,
            "m.room.power_levels",
            "",
            ALICE,
            &json!({ "events": { CALL_MEMBER: 0 }, "users": { ALICE: 100 } }),
        );
        Self::of(home, 1_800_000_000_000, Loaded::default()).await
    }

    async fn of(home: homeserver::Homeserver, now: i64, loaded: Loaded) -> Self {
        let client = trusted_client(&[]).unwrap();
        let server = Homeserver::new(HomeserverConfig { client_api_url: home.url(), ..config() }, client).unwrap();
        let (sender, results) = mpsc::channel(1_000);
        let (orders, given) = mpsc::channel(1_000);
        let metrics = Arc::new(Metrics::new("ND_test", Load::new(LimitConfig::default(), 1, Instant::now())).unwrap());
        let federation = Federation::new(Arc::new(SystemDns::new().unwrap()), Vec::new(), Vec::new());
        let parts = Parts {
            config: Arc::new(MatrixConfig::default()),
            homes: vec![server],
            federation: Arc::new(federation),
            store: Store::default(),
            loaded,
            orders,
            results: sender.downgrade(),
            metrics: metrics.clone(),
            audit: Audit::default(),
            nodes: None,
        };
        let service = Service::new(parts, now);
        let mut world = Self { service, sender, results, orders: given, home, now, metrics, ended: 0 };
        world.ended = world.endings();
        world.settle().await;
        world
    }

    /// Until nothing more happens at this time: all requests are answered.
    async fn settle(&mut self) {
        loop {
            self.service.tick(self.now);
            if self.sender.weak_count() == 1 && self.results.is_empty() {
                return;
            }
            let patience = Duration::from_millis(if self.sender.weak_count() == 1 { 1 } else { 5_000 });
            if let Ok(Some(input)) = tokio::time::timeout(patience, self.results.recv()).await {
                self.service.handle(self.now, input);
            }
            tokio::task::yield_now().await;
        }
    }

    async fn input(&mut self, input: Input) {
        self.service.handle(self.now, input);
        self.settle().await;
    }

    async fn advance(&mut self, milliseconds: i64) {
        let end = self.now + milliseconds;
        while self.now < end {
            self.now = (self.now + 100).min(end);
            self.settle().await;
        }
    }

    async fn push(&mut self, event: &Value) {
        let events = vec![Event::from_json(event).unwrap()];
        self.input(Input::Push { home: HomeId(0), events }).await;
    }

    /// A token, the membership in the room where it is readable, and media.
    async fn enters(&mut self, user: &str, mode: Mode, delegates: bool) -> Presence {
        let joined = self.gets_token(user, mode, delegates).await;
        self.input(Input::Presence(joined.clone())).await;
        // What it may do is said again when it is in: the room may know less of it than we do.
        let confirmed = self.orders.try_recv();
        assert!(matches!(confirmed, Ok(Order::Permit { .. })), "{confirmed:?}");
        joined
    }

    /// All of that but the join, which is given.
    async fn gets_token(&mut self, user: &str, mode: Mode, delegates: bool) -> Presence {
        let caller = Caller {
            user: user.to_owned(),
            device: Some("DEV".to_owned()),
            member: (mode == Mode::Matrix2).then(|| "mem".to_owned()),
        };
        let form = if mode == Mode::State { IdentityForm::UserDevice } else { IdentityForm::UserDeviceMember };
        let identity = caller.identity(form).unwrap();
        let leave =
            delegates.then(|| DelayedLeave { delay_id: "syd_1".to_owned(), timeout_ms: 3_600_000, cs_api_url: None });
        let request = Box::new(TokenQuestion {
            matrix_room: ROOM.to_owned(),
            slot: SLOT.to_owned(),
            caller,
            identity: identity.clone(),
            dialect: mode.dialect(),
            leave,
        });
        let (answer, admitted) = oneshot::channel();
        self.input(Input::Token { request, answer }).await;
        admitted.await.unwrap().unwrap();
        if mode == Mode::State {
            let content = json!({ "application": "m.call", "call_id": "", "device_id": "DEV", "expires": 14_400_000 });
            let event = self.home.set(ROOM, CALL_MEMBER, &state_key(user), user, &content);
            self.push(&event).await;
        }
        Presence { room: room_name(ROOM, SLOT), identity, sid: "PA_1".to_owned(), what: Came::Joined }
    }

    async fn leaves(&mut self, joined: &Presence, intended: bool) {
        self.input(Input::Presence(Presence { what: Came::Left { intended }, ..joined.clone() })).await;
    }

    /// As if weir was killed and started again: what was stored is there.
    async fn restart(self, user: &str, mode: Mode, delegates: bool) -> Self {
        let room = room_name(ROOM, SLOT);
        let (_, known) = self.service.calls.all().next().unwrap().1.participants.first_key_value().unwrap();
        let caller = StoredCaller {
            room: room.clone(),
            identity: self.service.calls.all().next().unwrap().1.participants.keys().next().unwrap().clone(),
            matrix_room: ROOM.to_owned(),
            slot: SLOT.to_owned(),
            home: Some(NAME.to_owned()),
            known: Known { home: None, live: Default::default(), ..known.clone() },
            was_live: true,
        };
        assert_eq!((caller.known.caller.user.as_str(), caller.known.dialect), (user, mode.dialect()));
        let leave = StoredLeave {
            room,
            user: user.to_owned(),
            device: "DEV".to_owned(),
            delay_id: "syd_1".to_owned(),
            timeout_ms: 3_600_000,
        };
        let leaves = delegates.then_some(leave).into_iter().collect();
        let loaded = Loaded { callers: vec![caller], revoked: Vec::new(), leaves };
        Self::of(self.home, self.now, loaded).await
    }

    /// How often the homeserver was asked to end somebody's membership, in a way it knows.
    fn endings(&self) -> usize {
        let sends = |line: &str| line.ends_with("/delayed_events/syd_1/send") && !self.home.is_undelayed();
        let empties =
            |line: &str| line.starts_with("PUT") && (line.contains("call.member") || line.contains("rtc.member"));
        self.home.asked().iter().filter(|line| sends(line) || empties(line)).count()
    }

    /// How long until one more membership is over: its leave was sent, or it was emptied.
    async fn until_over(&mut self, limit: i64) -> i64 {
        let begin = self.now;
        while self.endings() == self.ended {
            assert!(self.now - begin <= limit, "still there after {limit} ms: {:#?}", self.home.asked());
            self.advance(100).await;
        }
        self.ended = self.endings();
        self.now - begin
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    State,
    Matrix2,
}

impl Mode {
    const fn dialect(self) -> Dialect {
        match self {
            Self::State => Dialect::State,
            Self::Matrix2 => Dialect::Sticky,
        }
    }
}

fn state_key(user: &str) -> String {
    format!("_{user}_DEV_m.call")
}

/// The room gives a lost participant up 12 seconds after it was heard of last; the rest of 15 seconds is the service's.
const LOST: i64 = 3_000;
const HUNG_UP: i64 = 2_000;
/// Of 15 seconds, when weir comes back a second after a browser died.
const RESTARTED: i64 = 14_000;

#[tokio::test]
async fn whoever_vanishes_leaves_no_ghost_in_any_mode() {
    for mode in [Mode::State, Mode::Matrix2] {
        for (delegates, undelayed) in [(false, false), (true, false), (true, true)] {
            for (intended, limit) in [(false, LOST), (true, HUNG_UP + i64::from(undelayed) * 1_000)] {
                let mut world = World::new().await;
                world.home.set_undelayed(undelayed);
                let bob = world.enters(BOB, mode, delegates).await;
                world.advance(30_000).await;
                assert_eq!(world.endings(), 0, "nobody is cleared who is there");
                world.leaves(&bob, intended).await;
                let took = world.until_over(limit).await;
                assert!(!intended || took >= SECOND_THOUGHTS, "whoever comes back at once keeps the membership");
            }
            let mut world = World::new().await;
            world.home.set_undelayed(undelayed);
            world.enters(BOB, mode, delegates).await;
            let mut world = world.restart(BOB, mode, delegates).await;
            world.until_over(RESTARTED).await;
        }
    }
}

/// As in `ghosts`.
const SECOND_THOUGHTS: i64 = 1_000;

#[tokio::test]
async fn whoever_comes_back_after_a_restart_keeps_the_membership() {
    let mut world = World::new().await;
    let bob = world.enters(BOB, Mode::State, false).await;
    let mut world = world.restart(BOB, Mode::State, false).await;
    // The page tries again late, and its media takes its time.
    world.advance(11_000).await;
    let (answer, admitted) = oneshot::channel();
    let (room, identity) = (bob.room.clone(), bob.identity.clone());
    let shown = Shown { room, identity, issued_at: world.now / 1_000, call: None, joined: true };
    world.input(Input::Join { shown: Box::new(shown), answer }).await;
    assert_eq!(admitted.await.unwrap().result, Ok(Rights::ALL));
    world.advance(6_000).await;
    world.input(Input::Presence(Presence { sid: "PA_2".to_owned(), ..bob.clone() })).await;
    world.advance(60_000).await;
    assert_eq!(world.endings(), 0);
    world.leaves(&Presence { sid: "PA_2".to_owned(), ..bob }, false).await;
    world.until_over(LOST).await;
}

#[tokio::test]
async fn whoever_is_in_the_call_on_another_node_is_no_ghost_here() {
    for (mode, delegates) in [(Mode::State, false), (Mode::State, true), (Mode::Matrix2, false)] {
        let mut world = World::new().await;
        let bob = world.enters(BOB, mode, delegates).await;
        let mut world = world.restart(BOB, mode, delegates).await;
        world.service.nodes = Some(Nodes::with_a_room_elsewhere(&bob.room));
        world.advance(3_700_000).await;
        assert_eq!(world.endings(), 0, "{mode:?}");
        // The call there is over, and nobody was seen to leave it.
        world.service.nodes = None;
        world.until_over(RESTARTED).await;
    }
}

#[tokio::test]
async fn a_homeserver_that_is_gone_keeps_no_ghost_for_ever() {
    for mode in [Mode::State, Mode::Matrix2] {
        let mut world = World::new().await;
        let bob = world.enters(BOB, mode, false).await;
        world.home.set_down(true);
        world.leaves(&bob, false).await;
        world.advance(120_000).await;
        world.home.set_down(false);
        let before = world.home.asked().len();
        world.advance(20_000).await;
        let after: Vec<String> = world.home.asked().split_off(before);
        assert!(after.iter().any(|line| line.starts_with("PUT") && line.contains("member")), "{mode:?}: {after:#?}");
    }
}

#[tokio::test]
async fn a_page_that_announces_itself_again_is_not_fought() {
    let mut world = World::new().await;
    let bob = world.enters(BOB, Mode::State, false).await;
    world.leaves(&bob, false).await;
    world.until_over(LOST).await;
    for round in 0..2 {
        let content = json!({ "application": "m.call", "call_id": "", "device_id": "DEV", "round": round });
        let event = world.home.set(ROOM, CALL_MEMBER, &state_key(BOB), BOB, &content);
        world.push(&event).await;
        let again = Presence { sid: format!("PA_again{round}"), ..bob.clone() };
        world.input(Input::Presence(again.clone())).await;
        world.leaves(&again, false).await;
        world.advance(30_000).await;
    }
    assert_eq!(world.endings(), 1, "{:#?}", world.home.asked());
    let page = String::from_utf8(world.metrics.page(true)).unwrap();
    assert!(page.contains("weir_matrix_memberships_cleared_total{result=\"left\"} 2"), "{page}");
}

#[tokio::test]
async fn who_is_kicked_is_out_at_once_and_emptied_by_somebody_who_may() {
    let mut world = World::new().await;
    let bob = world.enters(BOB, Mode::State, false).await;
    let kick = world.home.set(ROOM, "m.room.member", BOB, ALICE, &json!({ "membership": "leave" }));
    world.push(&kick).await;
    let removed = Order::Remove { room: bob.room.clone(), identity: bob.identity.clone() };
    assert_eq!(world.orders.try_recv().ok(), Some(removed));
    world.until_over(LOST).await;
    let last = world.home.asked().into_iter().rfind(|line| line.starts_with("PUT")).unwrap();
    assert!(last.contains("user_id=%40alice"), "{last}");
    let page = String::from_utf8(world.metrics.page(true)).unwrap();
    assert!(page.contains("weir_matrix_ejections_total{reason=\"not_in_room\"} 1"), "{page}");
}

#[tokio::test]
async fn the_video_of_remote_users_is_lowered_near_a_ceiling() {
    let mut world = World::new().await;
    let remote = "@rita:far.test";
    world.home.member(ROOM, remote, "join");
    let joined = world.enters(remote, Mode::State, false).await;
    let kbps = u64::from(MatrixConfig::default().remote_users.max_kbps_per_room);
    for (share, expected) in [(50, None), (95, Some(Some(1)))] {
        for _ in 0..3 {
            world.now += 1_000;
            let rates = vec![(joined.identity.clone(), kbps * 10 * share), ("@alice:hs.test:DEV".to_owned(), u64::MAX)];
            world.input(Input::Rates { room: joined.room.clone(), rates }).await;
        }
        let given = world.orders.try_recv().ok();
        let lower = |max_spatial| {
            let (room, identity) = (joined.room.clone(), joined.identity.clone());
            Order::Lower { room, identity, max_spatial }
        };
        assert_eq!(given, expected.map(lower));
    }
    let page = String::from_utf8(world.metrics.page(true)).unwrap();
    assert!(page.contains("weir_matrix_remote_video_lowered{kind=\"room\"} 1"), "{page}");
}

#[tokio::test]
async fn more_tokens_than_places_let_nobody_more_of_other_homeservers_in() {
    let mut world = World::new().await;
    let mut config = MatrixConfig::default();
    config.remote_users.max_per_room = 1;
    world.service.config = Arc::new(config);
    let mut tokens = Vec::new();
    let users = ["@rita:far.test", "@sam:far.test"];
    for user in users {
        world.home.member(ROOM, user, "join");
    }
    for user in users {
        tokens.push(world.gets_token(user, Mode::State, false).await);
    }
    let [rita, sam] = [0, 1].map(|n| tokens[n].clone());
    world.input(Input::Presence(rita)).await;
    assert!(matches!(world.orders.try_recv(), Ok(Order::Permit { .. })), "the first has a place");
    world.input(Input::Presence(sam.clone())).await;
    let removed = Order::Remove { room: sam.room, identity: sam.identity };
    assert_eq!(world.orders.try_recv().ok(), Some(removed));
}
