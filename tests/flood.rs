//! A node under more load than it may take: newcomers are refused, calls go on, and the operator can see it all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests may fail by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use weir::config::{Bind, Config, DEV_KEY, DEV_SECRET};
use weir::control::Server;
use weir_loadtest::{Client, Event, Options, Snapshot, Video, token};

const PATIENCE: Duration = Duration::from_secs(30);

struct Node {
    server: Server,
    url: String,
}

impl Node {
    fn start(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::dev();
        config.port = 0;
        config.rtc.udp_port.first = 0;
        config.rtc.tcp_port = 0;
        config.rtc.media_threads = 1;
        config.rtc.node_ip = "127.0.0.1".to_owned();
        change(&mut config);
        let server = Server::start(&config).unwrap();
        let url = format!("ws://{}", server.started().http[0]);
        Self { server, url }
    }

    async fn join(&self, identity: &str) -> Client {
        let token = token::join_token(DEV_KEY, DEV_SECRET, identity, "call").unwrap();
        let mut client = Client::connect(&self.url, &token, Options::default()).await.unwrap();
        client.wait(PATIENCE, |event| matches!(event, Event::Connected).then_some(())).await.expect("media");
        client
    }

    async fn knock(&self, identity: &str, room: &str) -> Result<Socket, u16> {
        knock(&self.url, &token::join_token(DEV_KEY, DEV_SECRET, identity, room).unwrap()).await
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How a join without media is answered.
async fn knock(url: &str, token: &str) -> Result<Socket, u16> {
    match tokio_tungstenite::connect_async(format!("{url}/rtc?protocol=16&access_token={token}")).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn frames(client: &Client, sid: &str) -> u64 {
    let snapshot = client.snapshot().await.unwrap();
    snapshot.received.get(sid).map_or(0, |received| {
        assert_eq!(received.wrong, 0);
        received.frames
    })
}

fn runtime(threads: usize) -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap()
}

/// Node, call and flood on threads of their own: what the flood costs its own side must not look like the node's.
#[test]
fn a_thousand_joins_in_a_second_disturb_no_call() {
    // This process holds both ends of each connection.
    weir::control::system::raise_open_files(0);
    let (serving, calling, flooding) = (runtime(2), runtime(1), runtime(1));
    let node = {
        let _inside = serving.enter();
        Node::start(|config| config.limit.max_participants = 300)
    };
    let (_alice, bob, mic) = calling.block_on(async {
        let alice = node.join("alice").await;
        let mic = alice.publish_audio("mic").await.unwrap();
        let bob = node.join("bob").await;
        hears(&bob, &mic, 20).await;
        (alice, bob, mic)
    });
    let tokens: Vec<String> = (0..1_000)
        .map(|n| token::join_token(DEV_KEY, DEV_SECRET, &format!("flood-{n}"), &format!("flood-{}", n % 40)).unwrap())
        .collect();
    let url = node.url.clone();
    let flood = flooding.spawn(async move {
        let knocks = tokens.iter().map(|token| tokio::time::timeout(PATIENCE * 2, knock(&url, token)));
        futures_util::future::join_all(knocks).await
    });
    let (stood_still, noise) = calling.block_on(longest_pause(&bob, &mic, || flood.is_finished()));
    let (mut joined, mut refused) = (Vec::new(), 0);
    for answer in flooding.block_on(flood).unwrap() {
        match answer.expect("an answer in time") {
            Ok(socket) => joined.push(socket),
            Err(503) => refused += 1,
            Err(other) => panic!("answered with {other}"),
        }
    }
    assert!((1..=298).contains(&joined.len()), "{} of 298 places", joined.len());
    assert_eq!(refused, 1_000 - joined.len());
    let allowed = Duration::from_secs(1) + 4 * noise;
    assert!(stood_still < allowed, "the call stood still for {stood_still:?}, any thread for {noise:?}");
    calling.block_on(async {
        // The call is whole, and places that are free again serve newcomers.
        hears(&bob, &mic, 50).await;
        drop(joined);
        let freed = async {
            while node.knock("late", "late").await.is_err() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(PATIENCE, freed).await.expect("a place is free again");
    });
}

/// So many more frames.
async fn hears(client: &Client, sid: &str, more: u64) {
    let wanted = frames(client, sid).await + more;
    let enough = |snapshot: &Snapshot| snapshot.received.get(sid).filter(|r| r.frames >= wanted).map(|_| ());
    client.until(PATIENCE, enough).await.expect("frames");
}

/// Until `ended`: the longest time without a new frame, and by how much this machine woke this thread late.
async fn longest_pause(client: &Client, sid: &str, ended: impl Fn() -> bool) -> (Duration, Duration) {
    const LOOK: Duration = Duration::from_millis(50);
    let (mut longest, mut noise) = (Duration::ZERO, Duration::ZERO);
    let (mut last, mut since) = (frames(client, sid).await, Instant::now());
    while !ended() {
        let before = Instant::now();
        tokio::time::sleep(LOOK).await;
        noise = noise.max(before.elapsed() - LOOK);
        let now = frames(client, sid).await;
        longest = longest.max(since.elapsed());
        if now > last {
            (last, since) = (now, Instant::now());
        }
    }
    (longest, noise)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_the_websocket_keeps_the_place() {
    let node = Node::start(|config| config.limit.max_participants = 2);
    let alice = node.join("alice").await;
    let bob = node.join("bob").await;
    assert_eq!(node.knock("carl", "call").await.err(), Some(503));
    alice.drop_signal().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for room in ["call", "another"] {
        assert_eq!(node.knock("carl", room).await.err(), Some(503), "alice is still in the call");
    }
    alice.resume().await.unwrap();
    let mic = alice.publish_audio("mic").await.unwrap();
    bob.until(PATIENCE, |snapshot| snapshot.received.get(&mic).filter(|r| r.frames > 20).cloned()).await.unwrap();
    bob.leave().await.unwrap();
    let freed = async {
        while node.knock("carl", "call").await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.expect("a place is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_debug_page_shows_what_flows_and_no_name_or_address() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let node = Node::start(|config| {
        config.prometheus.port = port;
        config.prometheus.bind_addresses = vec![Bind("127.0.0.1".parse().unwrap())];
    });
    let alice = node.join("planted-alice").await;
    let cam = alice.publish_video(Video::small("cam")).await.unwrap();
    let bob = node.join("planted-bob").await;
    bob.until(PATIENCE, |snapshot| snapshot.received.get(&cam).filter(|r| r.frames > 30).cloned()).await.unwrap();
    let page = page(node.server.started().admin[0], "/debug/rooms").await;
    for secret in ["planted", "127.0.0.1", "\"call\""] {
        assert!(!page.contains(secret), "{page}");
    }
    let rooms: Value = serde_json::from_str(&page).unwrap();
    let room = &rooms[0];
    let id = &room["tracks"][0]["id"];
    let all = room["media"]["participants"].as_array().unwrap();
    let (publisher, subscriber) = (&all[0], &all[1]);
    let track = &publisher["tracks"][0];
    assert_eq!((&track["id"], &track["muted"], &track["downtracks"]), (id, &json!(false), &json!(1)), "{page}");
    assert!(track["encodings"][0]["bitrate_bps"].as_u64().unwrap() > 10_000, "{page}");
    let downtrack = &subscriber["downtracks"][0];
    assert_eq!((&downtrack["track"], &downtrack["current"]), (id, &json!(0)), "{page}");
    assert!(downtrack["sent"].as_u64().unwrap() > 0 && downtrack["lost_percent"].is_number(), "{page}");
    assert_eq!(subscriber["transports"][0]["path"], "udp", "{page}");
}

async fn page(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}
