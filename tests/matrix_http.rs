//! Tokens and ejections of a real node on loopback, against a homeserver that does what the test says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests may fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test of a real process in real time")]
#![allow(clippy::disallowed_types, unreachable_pub, reason = "the homeserver is shared between tasks")]

#[path = "matrix_http/audit.rs"]
mod audit;
#[path = "matrix_http/doors.rs"]
mod doors;
#[path = "matrix_http/homeserver.rs"]
mod homeserver;
#[path = "matrix_http/joining.rs"]
mod joining;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use futures_util::StreamExt;
use homeserver::{AS_TOKEN, HS_TOKEN, Homeserver, NAME};
use livekit_protocol as proto;
use prost::Message as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use weir::config::{Config, Feed, HomeserverConfig, PolicyRoomConfig, PortRange, Secret, Span, Trust};
use weir::control::Server;

const ROOM: &str = "!room:hs.test";
const ALICE: &str = "@alice:hs.test";
const BOB: &str = "@bob:hs.test";

struct Node {
    home: Homeserver,
    weir: SocketAddr,
    http: reqwest::Client,
    server: Server,
}

fn config(home: &Homeserver) -> Config {
    let mut config = Config::dev();
    config.port = 0;
    config.rtc.udp_port = PortRange { first: 0, last: None };
    config.rtc.tcp_port = 0;
    config.room.auto_create = false;
    config.matrix.url = "wss://sfu.test".to_owned();
    config.matrix.state_file = String::new();
    config.matrix.homeserver_grace = Span(Duration::from_secs(1));
    config.matrix.homeservers.push(HomeserverConfig {
        server_name: NAME.to_owned(),
        client_api_url: home.url(),
        as_token: Secret::new(AS_TOKEN),
        hs_token: Secret::new(HS_TOKEN),
        ..HomeserverConfig::default()
    });
    config
}

impl Node {
    /// Alice and Bob in a room, with clients' usual power levels.
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::of(Homeserver::start().await, change).await
    }

    async fn of(home: Homeserver, change: impl FnOnce(&mut Config)) -> Self {
        home.member(ROOM, ALICE, "join");
        home.member(ROOM, BOB, "join");
        home.set(ROOM, "m.room.power_levels", "", ALICE, &levels(&json!({})));
        let mut config = config(&home);
        change(&mut config);
        let server = Server::start(&config).unwrap();
        let weir = server.started().http[0];
        Self { home, weir, http: reqwest::Client::new(), server }
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let sent = self.http.post(format!("http://{}{path}", self.weir)).json(body).send().await.unwrap();
        (sent.status().as_u16(), sent.json().await.unwrap_or(Value::Null))
    }

    async fn sfu_get(&self, user: &str) -> (u16, Value) {
        self.post("/sfu/get", &sfu_get(user)).await
    }

    /// A token of a user who is to get one.
    async fn token(&self, user: &str) -> String {
        let (status, body) = self.sfu_get(user).await;
        assert_eq!(status, 200, "{body}");
        body["jwt"].as_str().unwrap().to_owned()
    }

    /// A page of the operator's listener, which [`watched`] switches on.
    async fn operator(&self, path: &str) -> String {
        let admin = self.server.started().admin[0];
        self.http.get(format!("http://{admin}{path}")).send().await.unwrap().text().await.unwrap()
    }

    async fn metrics(&self) -> String {
        self.operator("/metrics").await
    }

    async fn why(&self, user: &str) -> String {
        self.operator(&format!("/debug/why?user={user}")).await
    }

    async fn validate(&self, token: &str) -> u16 {
        let url = format!("http://{}/rtc/validate?access_token={token}", self.weir);
        self.http.get(url).send().await.unwrap().status().as_u16()
    }

    async fn join(&self, token: &str) -> Client {
        let url = format!("ws://{}/rtc?access_token={token}&protocol=16&auto_subscribe=1", self.weir);
        let (socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let mut client = Client(socket);
        let first = client.next().await.expect("a first message");
        assert!(matches!(first, proto::signal_response::Message::Join(_)), "{first:?}");
        client
    }
}

struct Client(tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>);

impl Client {
    async fn next(&mut self) -> Option<proto::signal_response::Message> {
        loop {
            match tokio::time::timeout(Duration::from_secs(5), self.0.next()).await.ok()?? {
                Ok(Message::Binary(bytes)) => return proto::SignalResponse::decode(bytes).unwrap().message,
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                _ => return None,
            }
        }
    }

    /// Until it is told that it may publish, and how many kinds of sources that is narrowed to.
    async fn until_permission(&mut self, expected: (bool, usize)) -> proto::ParticipantPermission {
        while let Some(message) = self.next().await {
            let proto::signal_response::Message::Update(update) = message else { continue };
            let mut all = update.participants.into_iter().filter_map(|participant| participant.permission);
            let found = all.find(|it| (it.can_publish, it.can_publish_sources.len()) == expected);
            if let Some(found) = found {
                return found;
            }
        }
        panic!("the connection ended, or nothing was said");
    }

    /// Until it is sent away, with how long that took.
    async fn until_leave(&mut self) -> (proto::LeaveRequest, Duration) {
        let started = Instant::now();
        while let Some(message) = self.next().await {
            if let proto::signal_response::Message::Leave(leave) = message {
                return (leave, started.elapsed());
            }
        }
        panic!("the connection ended without a leave");
    }
}

/// With the operator's listener.
fn watched(config: &mut Config) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    config.prometheus.port = free;
}

fn levels(more: &Value) -> Value {
    let mut events = json!({ "org.matrix.msc3401.call.member": 0 });
    events.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "users": { ALICE: 100 }, "users_default": 0, "state_default": 50, "events": events })
}

fn openid(user: &str) -> Value {
    let server = user.split_once(':').unwrap().1;
    json!({ "access_token": format!("openid:{user}"), "token_type": "Bearer", "matrix_server_name": server, "expires_in": 3600 })
}

fn sfu_get(user: &str) -> Value {
    json!({ "room": ROOM, "openid_token": openid(user), "device_id": "DEV" })
}

fn claims(jwt: &str) -> Value {
    // As Element Call reads it: not the alphabet of URLs.
    let payload = jwt.split('.').nth(1).unwrap();
    assert!(!payload.contains(['-', '_']), "a browser's `atob` would refuse {payload}");
    serde_json::from_slice(&base64::engine::general_purpose::STANDARD_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gives_members_tokens_of_every_generation_for_one_room() {
    let node = Node::start().await;
    let (status, old) = node.post("/livekit/jwt/sfu/get", &sfu_get(ALICE)).await;
    assert_eq!((status, old["url"].as_str()), (200, Some("wss://sfu.test")));
    let old = claims(old["jwt"].as_str().unwrap());
    assert_eq!(old["sub"], "@alice:hs.test:DEV");
    assert_eq!(old["video"]["canPublish"], true);
    // Not said is no, as the tokens of other services have it.
    assert_ne!(old["video"]["roomCreate"], true);
    let new = json!({
        "room_id": ROOM, "slot_id": "m.call#ROOM", "openid_token": openid(ALICE),
        "member": { "id": "mem", "claimed_user_id": ALICE, "claimed_device_id": "DEV" },
    });
    let (status, new) = node.post("/get_token", &new).await;
    assert_eq!(status, 200, "{new}");
    let new = claims(new["jwt"].as_str().unwrap());
    assert_eq!(new["video"]["room"], old["video"]["room"]);
    assert_eq!(new["sub"].as_str().unwrap().len(), 43);
    let (first, second) = (node.token(ALICE).await, node.token(ALICE).await);
    assert_eq!((node.validate(&first).await, node.validate(&second).await), (200, 200));
    let reads = node.home.asked().iter().filter(|asked| asked.contains("/state?")).count();
    assert_eq!(reads, 1, "five requests for tokens cost one look at the room");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_outsiders_and_who_is_not_who_they_say() {
    let node = Node::start().await;
    node.home.member(ROOM, "@left:hs.test", "leave");
    node.home.member(ROOM, "@invited:hs.test", "invite");
    node.home.member(ROOM, "@banned:hs.test", "ban");
    for user in ["@stranger:hs.test", "@left:hs.test", "@invited:hs.test", "@banned:hs.test"] {
        let (status, body) = node.sfu_get(user).await;
        assert_eq!((status, body["errcode"].as_str()), (403, Some("M_FORBIDDEN")), "{user}");
    }
    let mut other_room = sfu_get(ALICE);
    other_room["room"] = json!("!nobody:hs.test");
    assert_eq!(node.post("/sfu/get", &other_room).await.0, 403);
    let mut bad = sfu_get(ALICE);
    bad["openid_token"]["access_token"] = json!("made up");
    assert_eq!(node.post("/sfu/get", &bad).await.0, 401);
    let mut foreign = sfu_get("@alice:127.0.0.1:1");
    assert_eq!(node.post("/sfu/get", &foreign).await.0, 401, "and nobody asked at a private address");
    foreign["openid_token"]["matrix_server_name"] = json!(NAME);
    assert_eq!(node.post("/sfu/get", &foreign).await.0, 401, "a homeserver speaks for its own users");
    let claims_other = json!({
        "room_id": ROOM, "slot_id": "m.call#ROOM", "openid_token": openid(ALICE),
        "member": { "id": "mem", "claimed_user_id": BOB, "claimed_device_id": "DEV" },
    });
    assert_eq!(node.post("/get_token", &claims_other).await.0, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_refuses_at_the_door_in_words_clients_have_and_takes_who_is_in() {
    let node = Node::with(|config| config.limit.max_rooms = 1).await;
    let token = node.token(ALICE).await;
    let _alice = node.join(&token).await;
    let other = "!other:hs.test";
    node.home.member(other, BOB, "join");
    node.home.set(other, "m.room.power_levels", "", BOB, &levels(&json!({})));
    let mut request = sfu_get(BOB);
    request["room"] = json!(other);
    // A refused token would show as a fault of the account; a room that cannot be made has a page of its own.
    let (status, body) = node.post("/sfu/get", &request).await;
    assert_eq!(status, 200, "{body}");
    let full = body["jwt"].as_str().unwrap();
    let url = format!("http://{}/rtc/validate?access_token={full}", node.weir);
    let answer = node.http.get(url).send().await.unwrap();
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.text().await.unwrap(), "requested room does not exist");
    let url = format!("ws://{}/rtc?access_token={full}&protocol=16", node.weir);
    match tokio_tungstenite::connect_async(url).await {
        Err(tokio_tungstenite::tungstenite::Error::Http(response)) => assert_eq!(response.status(), 404),
        other => panic!("{other:?}"),
    }
    let bob = node.token(BOB).await;
    node.join(&bob).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_probes_preflights_and_nonsense_as_clients_expect() {
    let node = Node::start().await;
    let base = format!("http://{}", node.weir);
    let status = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();
    for path in ["/delegate_delayed_leave", "/livekit/jwt/delegate_delayed_leave"] {
        assert_eq!(status(node.http.post(format!("{base}{path}"))).await, 400, "anything but 404 says: supported");
    }
    let preflight = node
        .http
        .request(reqwest::Method::OPTIONS, format!("{base}/sfu/get"))
        .header("origin", "https://call.test")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type");
    let preflight = preflight.send().await.unwrap();
    assert_eq!(
        (preflight.status().as_u16(), &preflight.headers()["access-control-allow-origin"]),
        (200, &"*".parse().unwrap())
    );
    assert_eq!(status(node.http.get(format!("{base}/sfu/get"))).await, 405);
    assert_eq!(status(node.http.post(format!("{base}/sfu/get")).body("x")).await, 400);
    assert_eq!(status(node.http.post(format!("{base}/sfu/get")).body(vec![b' '; 100_000])).await, 413);
    assert_eq!(status(node.http.get(format!("{base}/healthz"))).await, 200);
    let foci: Value =
        node.http.get(format!("{base}/.well-known/matrix/client")).send().await.unwrap().json().await.unwrap();
    assert_eq!(foci["org.matrix.msc4143.rtc_foci"][0]["livekit_service_url"], "https://sfu.test");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwards_for_the_homeserver_that_shows_its_token() {
    let node = Node::start().await;
    let url = format!("http://{}/_matrix/client/unstable/io.element.msc4195/rtc/livekit/get_token", node.weir);
    let body = json!({ "url": "wss://sfu.test", "room_id": ROOM, "slot_id": "m.call#ROOM", "member_id": "mem" });
    let send = async |token: &str, user: &str, body: &Value| {
        let request = node.http.post(&url).bearer_auth(token).header("X-Matrix-User-Identifier", user).json(body);
        let reply = request.send().await.unwrap();
        (reply.status().as_u16(), reply.json::<Value>().await.unwrap())
    };
    let (status, reply) = send(HS_TOKEN, ALICE, &body).await;
    assert_eq!((status, reply["url"].as_str()), (200, Some("wss://sfu.test")), "{reply}");
    assert_eq!(send(AS_TOKEN, ALICE, &body).await.0, 403);
    assert_eq!(send(HS_TOKEN, "@alice:other.test", &body).await.0, 401);
    assert_eq!(send(HS_TOKEN, "@stranger:hs.test", &body).await.0, 403);
    let mut elsewhere = body.clone();
    elsewhere["url"] = json!("wss://other.test");
    assert_eq!(send(HS_TOKEN, ALICE, &elsewhere).await.1["errcode"], "M_INVALID_PARAM");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn follows_power_levels_and_slots() {
    let node = Node::start().await;
    let stage = levels(&json!({ "org.weir.call.publish": 50, "org.weir.call.publish.microphone": 0 }));
    node.token(BOB).await;
    let event = node.home.set(ROOM, "m.room.power_levels", "", ALICE, &stage);
    node.home.push(node.weir, &[event]).await;
    let video = claims(&node.token(BOB).await)["video"].clone();
    assert_eq!((&video["canPublish"], &video["canPublishSources"]), (&json!(true), &json!(["microphone"])));
    assert!(claims(&node.token(ALICE).await)["video"].get("canPublishSources").is_none_or(|s| s == &json!([])));
    let listen =
        node.home.set(ROOM, "m.room.power_levels", "", ALICE, &levels(&json!({ "org.weir.call.publish": 50 })));
    node.home.push(node.weir, &[listen]).await;
    assert_eq!(claims(&node.token(BOB).await)["video"]["canPublish"], false);
    let slot = node.home.set(ROOM, "m.rtc.slot", "m.call#ROOM", ALICE, &json!({ "status": "closed" }));
    node.home.push(node.weir, &[slot]).await;
    assert_eq!(node.sfu_get(BOB).await.0, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honours_moderation_lists() {
    let list = "!list:hs.test";
    let node = Node::with(|config| {
        config.matrix.homeservers[0].policy_rooms =
            vec![PolicyRoomConfig { room: list.to_owned(), as_user: ALICE.to_owned() }];
    })
    .await;
    node.home.member(list, ALICE, "join");
    let token = node.token(BOB).await;
    let rule = json!({ "entity": "@bob:*", "recommendation": "m.ban", "reason": "spam" });
    let event = node.home.set(list, "m.policy.rule.user", "bob", ALICE, &rule);
    node.home.push(node.weir, std::slice::from_ref(&event)).await;
    assert_eq!(node.sfu_get(BOB).await.0, 403);
    assert_eq!(node.validate(&token).await, 401);
    let gone = node.home.set(list, "m.policy.rule.user", "bob", ALICE, &json!({}));
    node.home.push(node.weir, &[gone]).await;
    node.token(BOB).await;
    let other =
        node.home.set(ROOM, "m.policy.rule.user", "x", ALICE, &json!({ "entity": "*", "recommendation": "m.ban" }));
    node.home.push(node.weir, &[other]).await;
    node.token(BOB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ejects_whoever_is_kicked_and_refuses_the_old_token() {
    let node = Node::start().await;
    let token = node.token(BOB).await;
    let mut bob = node.join(&token).await;
    let kick = node.home.set(ROOM, "m.room.member", BOB, ALICE, &json!({ "membership": "leave" }));
    let started = Instant::now();
    node.home.push(node.weir, &[kick]).await;
    let (leave, _) = bob.until_leave().await;
    assert!(started.elapsed() < Duration::from_secs(1), "took {:?}", started.elapsed());
    assert_eq!(leave.action(), proto::leave_request::Action::Disconnect);
    assert_eq!(leave.reason(), proto::DisconnectReason::ParticipantRemoved);
    assert_eq!(node.validate(&token).await, 401);
    assert_eq!(node.sfu_get(BOB).await.0, 403);
    // Let in again, a new token works, and the old one does not come back to life.
    let back = node.home.member(ROOM, BOB, "join");
    node.home.push(node.weir, &[back]).await;
    let fresh = node.token(BOB).await;
    assert_eq!((node.validate(&fresh).await, node.validate(&token).await), (200, 401));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lets_everybody_back_with_their_tokens_after_a_restart_and_nobody_who_was_removed() {
    let folder = std::env::temp_dir().join(format!("weir-restart-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("state.db").to_string_lossy().into_owned();
    let mut node = Node::with(|config| config.matrix.state_file.clone_from(&file)).await;
    let (alice, bob) = (node.token(ALICE).await, node.token(BOB).await);
    let kick = node.home.set(ROOM, "m.room.member", BOB, ALICE, &json!({ "membership": "leave" }));
    node.home.push(node.weir, &[kick]).await;
    let back = node.home.member(ROOM, BOB, "join");
    let started = Instant::now();
    while node.validate(&bob).await != 401 {
        assert!(started.elapsed() < Duration::from_secs(1));
    }
    node.home.push(node.weir, &[back]).await;
    // Written by a thread of its own.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut again = config(&node.home);
    again.matrix.state_file = file;
    node.server = Server::start(&again).unwrap();
    node.weir = node.server.started().http[0];
    assert_eq!((node.validate(&alice).await, node.validate(&bob).await), (200, 401));
    node.join(&alice).await;
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_takes_up_who_was_let_in_by_asking_the_room() {
    let node = Node::start().await;
    let (alice, bob) = (node.token(ALICE).await, node.token(BOB).await);
    let sticky = json!({
        "room_id": ROOM, "slot_id": "m.call#ROOM", "openid_token": openid(ALICE),
        "member": { "id": "mem", "claimed_user_id": ALICE, "claimed_device_id": "DEV" },
    });
    let sticky = node.post("/get_token", &sticky).await.1["jwt"].as_str().unwrap().to_owned();
    // Dead, and its state with it; another has the same configuration.
    let mut other = Node::of(node.home.clone(), |_| {}).await;
    drop(node);
    other.home.set_down(true);
    assert_eq!(other.validate(&alice).await, 503, "nobody is let in by a node that knows nothing");
    other.home.set_down(false);
    // The token it gives itself says as much.
    let (mut first, _second) = (other.join(&alice).await, other.join(&sticky).await);
    let refreshed = loop {
        if let proto::signal_response::Message::RefreshToken(token) = first.next().await.unwrap() {
            break token;
        }
    };
    let mut in_call = other.join(&bob).await;
    let kick = other.home.set(ROOM, "m.room.member", BOB, ALICE, &json!({ "membership": "leave" }));
    other.home.push(other.weir, &[kick]).await;
    let (leave, took) = in_call.until_leave().await;
    assert_eq!(leave.action(), proto::leave_request::Action::Disconnect);
    assert!(took < Duration::from_secs(1), "took {took:?}");
    assert_eq!(other.validate(&bob).await, 401);

    // A third has heard of nothing: it reads the room before it believes a token.
    other.server = Server::start(&config(&other.home)).unwrap();
    other.weir = other.server.started().http[0];
    assert_eq!((other.validate(&refreshed).await, other.validate(&bob).await), (200, 401));
    other.home.set(ROOM, "m.room.member", ALICE, BOB, &json!({ "membership": "ban" }));
    other.server = Server::start(&config(&other.home)).unwrap();
    other.weir = other.server.started().http[0];
    assert_eq!((other.validate(&refreshed).await, other.validate(&sticky).await), (401, 401));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_a_token_of_somebody_kicked_before_its_use() {
    let node = Node::start().await;
    let token = node.token(BOB).await;
    assert_eq!(node.validate(&token).await, 200);
    let ban = node.home.set(ROOM, "m.room.member", BOB, ALICE, &json!({ "membership": "ban" }));
    node.home.push(node.weir, &[ban]).await;
    let started = Instant::now();
    while node.validate(&token).await != 401 {
        assert!(started.elapsed() < Duration::from_secs(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takes_history_repeats_and_lost_events_for_what_they_are() {
    let node = Node::start().await;
    let join = node.home.member(ROOM, BOB, "join");
    let token = node.token(BOB).await;
    // A homeserver that replays its history: an old leave, under a transaction id used before.
    let mut old = join.clone();
    old["event_id"] = json!("$old");
    old["origin_server_ts"] = json!(1_600_000_000_000_u64);
    old["content"] = json!({ "membership": "leave" });
    for _ in 0..2 {
        assert_eq!(node.home.push_as(node.weir, HS_TOKEN, "1", std::slice::from_ref(&old)).await, 200);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(node.validate(&token).await, 200, "history ejects nobody");
    // A kick that was never pushed shows at the next doubt: here another old event.
    node.home.set(ROOM, "m.room.member", BOB, ALICE, &json!({ "membership": "leave" }));
    old["event_id"] = json!("$older");
    node.home.push(node.weir, &[old]).await;
    let started = Instant::now();
    while node.validate(&token).await != 401 {
        assert!(started.elapsed() < Duration::from_secs(2), "the state was not read again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(node.home.push_as(node.weir, "wrong", "2", &[]).await, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lets_nobody_new_in_while_the_homeserver_is_down_and_everybody_stay() {
    let node = Node::start().await;
    let token = node.token(BOB).await;
    node.home.set_down(true);
    assert_eq!(node.sfu_get("@carol:hs.test").await.0, 503, "cannot even be proven");
    // Proven shortly before; whether still in the room cannot be said.
    let event = node.home.set(ROOM, "m.room.member", "@x:hs.test", ALICE, &json!({ "membership": "join" }));
    let mut odd = event.clone();
    odd["origin_server_ts"] = json!(1);
    node.home.push(node.weir, &[event, odd]).await;
    assert_eq!(node.validate(&token).await, 200, "who was let in may come back");
    node.home.set_down(false);
    let started = Instant::now();
    while node.sfu_get(BOB).await.0 != 200 {
        assert!(started.elapsed() < Duration::from_secs(20), "recovery is automatic");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn does_without_a_feed_what_the_operator_chose() {
    for (trust, expected) in [(Trust::Deny, 403), (Trust::SubscribeOnly, 200), (Trust::Allow, 200)] {
        let node = Node::with(|config| {
            config.matrix.homeservers[0].feed = Feed::Openid;
            config.matrix.without_feed = trust;
        })
        .await;
        let (status, body) = node.sfu_get(BOB).await;
        assert_eq!(status, expected, "{trust:?}");
        if status == 200 {
            let may = claims(body["jwt"].as_str().unwrap())["video"]["canPublish"].clone();
            assert_eq!(may, json!(trust == Trust::Allow));
        }
    }
    let node = Node::with(|config| config.matrix.homeservers[0].feed = Feed::Joined).await;
    let token = node.token(BOB).await;
    assert_eq!(node.sfu_get("@stranger:hs.test").await.0, 403);
    assert_eq!(node.validate(&token).await, 200);
}
