//! Two whole nodes of two regions, a real nats-server, and participants who do not know of either: they always meet.
//!
//! The server is Debian's, unpacked by `tests/run.sh setup`; where it is not, these tests say so and show nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests may fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test of real processes in real time")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use signalling::token::VideoGrant;
use weir::config::{Config, DEV_KEY, DEV_SECRET};
use weir::control::{Server, auth};
use weir_loadtest::proto::leave_request::Action;
use weir_loadtest::proto::signal_response::Message as Response;
use weir_loadtest::{Client, Event, Options, token};

const PATIENCE: Duration = Duration::from_secs(20);

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A nats-server of its own.
struct Engine {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Engine {
    fn program() -> Option<PathBuf> {
        let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.cache/deploy/usr/sbin/nats-server");
        let found = [unpacked, PathBuf::from("/usr/sbin/nats-server")].into_iter().find(|path| path.exists());
        if found.is_none() {
            eprintln!("SKIPPED: there is no nats-server; `tests/run.sh setup` unpacks one");
        }
        found
    }

    fn start(port: u16) -> Option<Self> {
        let program = Self::program()?;
        let folder = std::env::temp_dir().join(format!("weir-nats-{}-{port}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let child = Command::new(program)
            .args(["-a", "127.0.0.1", "-p", &port.to_string(), "--user", "weir", "--pass", "word", "-js", "-sd"])
            .arg(&folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begin.elapsed() < PATIENCE, "nats-server does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { child, port, folder })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

struct Node {
    server: Server,
    http: SocketAddr,
}

impl Node {
    fn start(name: &str, region: &str, engine: u16) -> Self {
        Self::with(name, region, engine, |_| {})
    }

    fn with(name: &str, region: &str, engine: u16, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::dev();
        config.port = free_port();
        config.rtc.udp_port.first = 0;
        config.rtc.tcp_port = 0;
        config.rtc.media_threads = 1;
        config.rtc.node_ip = "127.0.0.1".to_owned();
        config.prometheus.port = 0;
        config.region = region.to_owned();
        config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
        config.nodes.directory = vec![format!("nats://weir:word@127.0.0.1:{engine}")];
        config.nodes.name = name.to_owned();
        config.nodes.address = format!("http://127.0.0.1:{}", config.port);
        change(&mut config);
        let server = Server::start(&config).unwrap();
        let http = server.started().http[0];
        Self { server, http }
    }

    /// A call of the server API at this node, about any room: status and answer.
    async fn api(&self, method: &str, body: Value) -> (u16, Value) {
        let room = body["room"].as_str().unwrap_or_default().to_owned();
        let video = VideoGrant { room_create: true, room_list: true, room_admin: true, room, ..VideoGrant::default() };
        let token = auth::mint(&Config::dev().keys, "admin", video, PATIENCE).unwrap();
        let url = format!("http://{}/twirp/livekit.RoomService/{method}", self.http);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.post(url).bearer_auth(token).header("content-type", "application/json");
        let answer = answer.body(body.to_string()).send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    }

    /// Names of the rooms this node says there are.
    async fn rooms(&self) -> Vec<String> {
        let (status, answer) = self.api("ListRooms", json!({})).await;
        assert_eq!(status, 200, "{answer}");
        answer["rooms"].as_array().unwrap().iter().map(|room| room["name"].as_str().unwrap().to_owned()).collect()
    }

    /// By this node's door, whichever node the room is on.
    async fn join(&self, identity: &str, room: &str) -> Client {
        let token = token::join_token(DEV_KEY, DEV_SECRET, identity, room).unwrap();
        let mut client = Client::connect(&format!("ws://{}", self.http), &token, Options::default()).await.unwrap();
        client.wait(PATIENCE, |event| matches!(event, Event::Connected).then_some(())).await.expect("media");
        client
    }
}

/// Both hear each other, so both are in one call.
async fn assert_together(one: &Client, other: &Client) {
    let (first, second) = (one.publish_audio("mic").await.unwrap(), other.publish_audio("mic").await.unwrap());
    hears(other, &first, 20).await;
    hears(one, &second, 20).await;
}

/// Until so many frames more have arrived, none of them wrong.
async fn hears(client: &Client, sid: &str, more: u64) {
    let frames = async || client.snapshot().await.unwrap().received.get(sid).map_or(0, |r| r.frames);
    let wanted = frames().await + more;
    let seen = client
        .until(PATIENCE, |snapshot| snapshot.received.get(sid).filter(|r| r.frames >= wanted).cloned())
        .await
        .unwrap_or_else(|error| panic!("{sid}: {error:#}"));
    assert_eq!(seen.wrong, 0, "{sid}");
}

async fn know_each_other() {
    // Each says once a second what it is.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_users_of_two_regions_meet_whoever_comes_first_and_in_the_same_instant() {
    let Some(engine) = Engine::start(free_port()) else { return };
    let (eu, us) = (Node::start("eu-1", "eu", engine.port), Node::start("us-1", "us", engine.port));
    know_each_other().await;
    for round in 0..4 {
        let room = format!("room {round}");
        let (alice, bob) = match round {
            0 => {
                let alice = eu.join("alice", &room).await;
                (alice, us.join("bob", &room).await)
            }
            1 => {
                let bob = us.join("bob", &room).await;
                (eu.join("alice", &room).await, bob)
            }
            _ => tokio::join!(eu.join("alice", &room), us.join("bob", &room)),
        };
        assert_together(&alice, &bob).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_engine_media_flows_and_joins_go_on() {
    let Some(engine) = Engine::start(free_port()) else { return };
    let port = engine.port;
    let (eu, us) = (Node::start("eu-1", "eu", port), Node::start("us-1", "us", port));
    know_each_other().await;
    let alice = eu.join("alice", "room").await;
    let bob = us.join("bob", "room").await;
    let sid = alice.publish_audio("mic").await.unwrap();
    hears(&bob, &sid, 20).await;
    let lost = async |who: &Client| {
        let seen = who.snapshot().await.unwrap().received.get(&sid).cloned().unwrap();
        (seen.wrong, seen.picture_id_jumps)
    };
    let before = lost(&bob).await;
    drop(engine);
    // Longer than nodes take to be sure that it is silent.
    tokio::time::sleep(Duration::from_secs(6)).await;
    hears(&bob, &sid, 50).await;
    let carol = us.join("carol", "room").await;
    hears(&carol, &sid, 20).await;
    let (dave, erin) = tokio::join!(eu.join("dave", "new room"), us.join("erin", "new room"));
    assert_together(&dave, &erin).await;
    // It comes back with nothing in it.
    let _engine = Engine::start(port).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let frank = eu.join("frank", "new room").await;
    let his = frank.publish_audio("mic").await.unwrap();
    hears(&erin, &his, 20).await;
    assert_eq!(lost(&bob).await, before);
    hears(&bob, &sid, 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rooms_of_a_node_that_drains_are_the_other_nodes_at_once() {
    let Some(engine) = Engine::start(free_port()) else { return };
    let (eu, us) = (Node::start("eu-1", "eu", engine.port), Node::start("us-1", "us", engine.port));
    know_each_other().await;
    let mut alice = eu.join("alice", "room").await;
    let mut bob = us.join("bob", "room").await;
    let draining = async { eu.server.drain().await };
    let moving = async {
        for client in [&mut alice, &mut bob] {
            let leave = |event| match event {
                Event::Signal(message) => match *message {
                    Response::Leave(leave) => Some(leave),
                    _ => None,
                },
                _ => None,
            };
            let leave = client.wait(PATIENCE, leave).await.expect("to be sent away");
            assert_eq!(leave.action, i32::from(Action::Reconnect));
        }
        // The node that ends is a door as long as it runs; what is behind it is the other one.
        let back = tokio::join!(eu.join("alice", "room"), us.join("bob", "room"));
        (alice, bob) = back;
        assert_together(&alice, &bob).await;
    };
    tokio::join!(draining, moving);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_api_is_one_at_every_node() {
    let Some(engine) = Engine::start(free_port()) else { return };
    let (eu, us) = (Node::start("eu-1", "eu", engine.port), Node::start("us-1", "us", engine.port));
    know_each_other().await;
    let (_alice, mut bob) = (eu.join("alice", "of eu").await, us.join("bob", "of us").await);
    assert_eq!(us.api("CreateRoom", json!({ "name": "made" })).await.0, 200);
    for node in [&eu, &us] {
        assert_eq!(node.rooms().await, ["made", "of eu", "of us"]);
        let (status, some) = node.api("ListRooms", json!({ "names": ["of us", "of nobody"] })).await;
        assert_eq!((status, some["rooms"].as_array().unwrap().len()), (200, 1));
        for (room, identity) in [("of eu", "alice"), ("of us", "bob")] {
            let (status, found) = node.api("GetParticipant", json!({ "room": room, "identity": identity })).await;
            assert_eq!((status, found["identity"].as_str()), (200, Some(identity)));
        }
        let (status, error) = node.api("GetParticipant", json!({ "room": "of us", "identity": "alice" })).await;
        assert_eq!((status, error["code"].as_str()), (404, Some("not_found")), "{error}");
        let (status, error) = node.api("DeleteRoom", json!({ "room": "of nobody" })).await;
        assert_eq!((status, error["msg"].as_str()), (404, Some("requested room does not exist")));
        // It is there once, wherever it is asked for.
        let (status, again) = node.api("CreateRoom", json!({ "name": "of us", "metadata": "ignored" })).await;
        assert_eq!((status, again["num_participants"].as_u64(), again["metadata"].as_str()), (200, Some(1), Some("")));
    }
    assert_eq!(eu.api("RemoveParticipant", json!({ "room": "of us", "identity": "bob" })).await.0, 200);
    let leave = |event| match event {
        Event::Signal(message) => matches!(*message, Response::Leave(_)).then_some(()),
        _ => None,
    };
    bob.wait(PATIENCE, leave).await.expect("to be removed");

    // A node that takes connections and says nothing: what it has is not known, and that is said.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", mute.local_addr().unwrap());
    let third = Node::with("us-2", "us", engine.port, |config| config.nodes.address = address);
    know_each_other().await;
    let (status, error) = eu.api("ListRooms", json!({})).await;
    assert_eq!((status, error["code"].as_str()), (503, Some("unavailable")), "{error}");
    assert_eq!(eu.api("ListParticipants", json!({ "room": "of eu" })).await.0, 200, "it is not asked for that");
    drop(third);
    drop(mute);
    // One that is gone has no rooms. Until that is sure, nothing wrong is said.
    drop(us);
    let begin = Instant::now();
    loop {
        let (status, answer) = eu.api("ListRooms", json!({})).await;
        if status == 200 {
            assert_eq!(answer["rooms"].as_array().unwrap().len(), 1, "{answer}");
            break;
        }
        assert!(status == 503 && begin.elapsed() < PATIENCE, "{answer}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(eu.rooms().await, ["of eu"]);
    let (status, error) = eu.api("GetParticipant", json!({ "room": "of us", "identity": "bob" })).await;
    assert_eq!((status, error["code"].as_str()), (404, Some("not_found")));
}
