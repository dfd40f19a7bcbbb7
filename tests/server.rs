//! A whole node on loopback and participants that are real but synthetic: what a user would notice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use weir::config::{Config, DEV_KEY, DEV_SECRET};
use weir::control::Server;
use weir_loadtest::content::source_of;
use weir_loadtest::proto::signal_response::Message as Response;
use weir_loadtest::proto::{self, leave_request::Action};
use weir_loadtest::{Client, Event, Generation, Options, Video, token};

const PATIENCE: Duration = Duration::from_secs(20);
/// Frames that make a stream.
const MANY: u64 = 20;

/// A node on free ports.
struct Node {
    server: Server,
    url: String,
}

impl Node {
    fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// Everybody is on another media thread than whoever came before.
    fn start_apart() -> Self {
        Self::start_with(|config| config.room.participants_per_thread = 1)
    }

    fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::dev();
        config.port = 0;
        config.rtc.udp_port.first = 0;
        config.rtc.tcp_port = 0;
        config.rtc.media_threads = 2;
        config.rtc.node_ip = "127.0.0.1".to_owned();
        config.prometheus.port = 0;
        change(&mut config);
        let server = Server::start(&config).unwrap();
        let http = server.started().http[0];
        Self { server, url: format!("ws://{http}") }
    }

    async fn join(&self, identity: &str) -> Client {
        self.join_as(identity, Options::default()).await
    }

    async fn join_as(&self, identity: &str, options: Options) -> Client {
        join(&self.url, DEV_SECRET, identity, options).await
    }
}

async fn join(url: &str, secret: &str, identity: &str, options: Options) -> Client {
    let token = token::join_token(DEV_KEY, secret, identity, "room").unwrap();
    let mut client = Client::connect(url, &token, options).await.unwrap();
    client.wait(PATIENCE, |event| matches!(event, Event::Connected).then_some(())).await.expect("media");
    client
}

fn v0() -> Options {
    Options {
        generation: Generation::V0,
        auto_subscribe: true,
        adaptive_stream: false,
        offer_in_join: false,
        answer_active: false,
        ..Options::default()
    }
}

/// Until `frames` right frames of this track arrived; nothing may be wrong with any.
async fn watch(client: &Client, sid: &str, frames: u64) -> weir_loadtest::receive::Received {
    let seen = client
        .until(PATIENCE, |snapshot| snapshot.received.get(sid).filter(|r| r.frames >= frames).cloned())
        .await
        .unwrap_or_else(|error| panic!("{sid}: {error:#}"));
    assert_eq!((seen.wrong, seen.picture_id_jumps), (0, 0), "{sid}: {seen:#?}");
    seen
}

/// Until `frames` more than now.
async fn watch_more(client: &Client, sid: &str, frames: u64) {
    let now = client.snapshot().await.unwrap().received.get(sid).map_or(0, |r| r.frames);
    watch(client, sid, now + frames).await;
}

/// Until nothing of the track has arrived for a second.
async fn silence(client: &Client, sid: &str) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let packets = async || client.snapshot().await.unwrap().received.get(sid).map_or(0, |r| r.packets);
    loop {
        let before = packets().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        if packets().await == before {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{sid} does not stop");
    }
}

async fn leave_of(client: &mut Client) -> proto::LeaveRequest {
    let leave = |event| match event {
        Event::Signal(message) => match *message {
            Response::Leave(leave) => Some(leave),
            _ => None,
        },
        _ => None,
    };
    client.wait(PATIENCE, leave).await.expect("a leave request")
}

async fn two_see_and_hear_each_other(start: fn() -> Node, first: Options, second: Options) {
    let node = start();
    let alice = node.join_as("alice", first).await;
    let mic = alice.publish_audio("mic").await.unwrap();
    let bob = node.join_as("bob", second).await;
    let cam = bob.publish_video(Video::small("cam")).await.unwrap();
    let heard = watch(&bob, &mic, MANY).await;
    assert_eq!(heard.source, source_of("alice", "mic"));
    let seen = watch(&alice, &cam, MANY).await;
    assert_eq!((seen.source, seen.size), (source_of("bob", "cam"), (320, 180)));
    // A second track each, while the first flows.
    let screen = alice.publish_video(Video { screen_share: true, ..Video::small("screen") }).await.unwrap();
    let voice = bob.publish_audio("mic").await.unwrap();
    assert_eq!(watch(&bob, &screen, MANY).await.source, source_of("alice", "screen"));
    assert_eq!(watch(&alice, &voice, MANY).await.source, source_of("bob", "mic"));
    watch_more(&bob, &mic, MANY).await;
    watch_more(&alice, &cam, MANY).await;
    for client in [&alice, &bob] {
        assert_eq!(client.snapshot().await.unwrap().strangers, 0, "a packet nobody announced");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_generation_one_see_and_hear_each_other() {
    two_see_and_hear_each_other(Node::start, Options::default(), Options::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_generation_zero_see_and_hear_each_other() {
    two_see_and_hear_each_other(Node::start, v0(), v0()).await;
}

/// Browsers answer as DTLS client, native clients as DTLS server.
#[tokio::test(flavor = "multi_thread")]
async fn both_dtls_roles_see_and_hear_each_other() {
    two_see_and_hear_each_other(Node::start, Options { answer_active: true, ..v0() }, v0()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_generations_see_and_hear_each_other() {
    two_see_and_hear_each_other(Node::start, Options { offer_in_join: false, ..Options::default() }, v0()).await;
}

async fn ten_see_and_hear_each_other(start: fn() -> Node) {
    let node = start();
    let mut clients = Vec::new();
    let mut tracks = Vec::new();
    for number in 0..10 {
        let client = node.join(&format!("p{number}")).await;
        tracks.push((number, client.publish_audio("mic").await.unwrap()));
        let video = Video { fps: 5, encodings: vec![(320, 180, 60_000)], ..Video::small("cam") };
        tracks.push((number, client.publish_video(video).await.unwrap()));
        clients.push(client);
    }
    for (number, client) in clients.iter().enumerate() {
        for (_, sid) in tracks.iter().filter(|(of, _)| *of != number) {
            watch(client, sid, 5).await;
        }
        assert_eq!(client.snapshot().await.unwrap().others.len(), 9);
    }
}

async fn an_asked_for_size_arrives(start: fn() -> Node) {
    let node = start();
    let alice = node.join("alice").await;
    let cam = alice.publish_video(Video::simulcast("cam")).await.unwrap();
    let bob = node.join_as("bob", Options { adaptive_stream: true, ..Options::default() }).await;
    let carol = node.join("carol").await;
    watch(&bob, &cam, 5).await;
    for (width, height) in [(1280, 720), (320, 180), (640, 360), (1280, 720)] {
        bob.ask_size(&cam, width, height).await.unwrap();
        let wanted = (u16::try_from(width).unwrap(), u16::try_from(height).unwrap());
        bob.until(PATIENCE, |s| s.received.get(&cam).filter(|r| r.size == wanted).map(|_| ()))
            .await
            .unwrap_or_else(|error| panic!("{wanted:?}: {error:#}"));
        watch_more(&bob, &cam, 5).await;
    }
    // Nobody else's picture has changed for it.
    assert_eq!(watch(&carol, &cam, MANY).await.size, (1280, 720));
}

async fn a_mute_is_silence_and_is_told_and_ends(start: fn() -> Node) {
    let node = start();
    let alice = node.join("alice").await;
    let mic = alice.publish_audio("mic").await.unwrap();
    let cam = alice.publish_video(Video::small("cam")).await.unwrap();
    let bob = node.join("bob").await;
    watch(&bob, &mic, MANY).await;
    watch(&bob, &cam, MANY).await;
    let told = async |sid: &str, muted: bool| {
        bob.until(Duration::from_secs(1), |snapshot| {
            let track = snapshot.others.get("alice")?.tracks.iter().find(|track| track.sid == sid)?;
            (track.muted == muted).then_some(())
        })
        .await
        .expect("told within a second");
    };
    for sid in [&mic, &cam] {
        alice.mute(sid, true).await.unwrap();
        told(sid, true).await;
        silence(&bob, sid).await;
        alice.mute(sid, false).await.unwrap();
        told(sid, false).await;
        watch_more(&bob, sid, MANY).await;
    }
}

async fn an_unpublished_track_is_gone_and_its_section_serves_the_next(start: fn() -> Node) {
    let node = start();
    let alice = node.join("alice").await;
    let bob = node.join("bob").await;
    for round in 0..3 {
        let cam = alice.publish_video(Video::small(&format!("cam{round}"))).await.unwrap();
        let seen = watch(&bob, &cam, MANY).await;
        assert_eq!(seen.source, source_of("alice", &format!("cam{round}")));
        alice.unpublish(&cam).await.unwrap();
        bob.until(PATIENCE, |s| s.others.get("alice")?.tracks.is_empty().then_some(())).await.expect("told");
    }
}

async fn who_leaves_is_gone_for_the_others(start: fn() -> Node) {
    let node = start();
    let alice = node.join("alice").await;
    let mic = alice.publish_audio("mic").await.unwrap();
    let bob = node.join("bob").await;
    watch(&bob, &mic, MANY).await;
    alice.leave().await.unwrap();
    bob.until(Duration::from_secs(2), |s| (!s.others.contains_key("alice")).then_some(())).await.expect("told");
    silence(&bob, &mic).await;
}

async fn a_lost_websocket_costs_no_media_and_can_be_resumed(start: fn() -> Node) {
    for options in [Options::default(), v0()] {
        let node = start();
        let alice = node.join_as("alice", options).await;
        let mic = alice.publish_audio("mic").await.unwrap();
        let bob = node.join_as("bob", options).await;
        let cam = bob.publish_video(Video::small("cam")).await.unwrap();
        watch(&bob, &mic, MANY).await;
        watch(&alice, &cam, MANY).await;
        alice.drop_signal().await.unwrap();
        watch_more(&bob, &mic, 100).await;
        watch_more(&alice, &cam, MANY).await;
        assert!(bob.snapshot().await.unwrap().others.contains_key("alice"));
        alice.resume().await.unwrap();
        // The same tracks go on, and new things work.
        watch_more(&bob, &mic, 100).await;
        watch_more(&alice, &cam, MANY).await;
        let screen = alice.publish_video(Video::small("screen")).await.unwrap();
        watch(&bob, &screen, MANY).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_that_cannot_be_is_answered_with_reconnect_first() {
    let node = Node::start();
    let mut alice = node.join("alice").await;
    alice.signal(proto::signal_request::Message::Leave(proto::LeaveRequest::default())).await.unwrap();
    alice.wait(PATIENCE, |event| matches!(event, Event::SignalLost).then_some(())).await.unwrap();
    let refused = alice.resume().await.unwrap_err().to_string();
    assert!(refused.contains("Leave"), "{refused}");
    assert_eq!(leave_of(&mut alice).await.action, Action::Reconnect as i32);
}

async fn the_same_identity_again_replaces_the_first(start: fn() -> Node) {
    let node = start();
    let mut first = node.join("alice").await;
    first.publish_audio("mic").await.unwrap();
    let bob = node.join("bob").await;
    let again = node.join("alice").await;
    let leave = leave_of(&mut first).await;
    assert_eq!(leave.reason, proto::DisconnectReason::DuplicateIdentity as i32);
    assert_eq!(leave.action, Action::Disconnect as i32);
    let mic = again.publish_audio("mic").await.unwrap();
    watch(&bob, &mic, MANY).await;
    let sid = again.snapshot().await.unwrap().sid;
    bob.until(PATIENCE, |s| (s.others.get("alice")?.sid == sid).then_some(())).await.expect("the new one is seen");
}

async fn who_crashes_can_come_back_at_once(start: fn() -> Node) {
    let node = start();
    let alice = node.join("alice").await;
    let bob = node.join("bob").await;
    let cam = bob.publish_video(Video::small("cam")).await.unwrap();
    watch(&alice, &cam, MANY).await;
    drop(alice);
    let alice = node.join("alice").await;
    watch(&alice, &cam, MANY).await;
    let mic = alice.publish_audio("mic").await.unwrap();
    watch(&bob, &mic, MANY).await;
}

async fn messages_arrive_in_order_and_only_where_they_are_sent(start: fn() -> Node) {
    for options in [Options::default(), v0()] {
        let node = start();
        let mut clients = Vec::new();
        for identity in ["alice", "bob", "carol"] {
            let client = node.join_as(identity, options).await;
            client.until(PATIENCE, |seen| seen.channels_open.then_some(())).await.expect("channels");
            clients.push(client);
        }
        let [alice, bob, carol] = &mut clients[..] else { unreachable!() };
        for n in 0..50u8 {
            alice.send_data(true, &[n; 1_000], &["bob"]).await.unwrap();
        }
        alice.send_data(true, b"to all", &[]).await.unwrap();
        for n in 0..50u8 {
            let (from, payload) = user_packet(bob).await;
            assert_eq!((from.as_str(), payload), ("alice", vec![n; 1_000]));
        }
        assert_eq!(user_packet(bob).await.1, b"to all");
        assert_eq!(user_packet(carol).await.1, b"to all", "carol got what was not for her");
    }
}

async fn user_packet(client: &mut Client) -> (String, Vec<u8>) {
    let user = |event| match event {
        Event::Data(_, packet) => match packet.value {
            Some(proto::data_packet::Value::User(user)) => Some((packet.participant_identity, user.payload)),
            _ => None,
        },
        _ => None,
    };
    client.wait(PATIENCE, user).await.expect("a user packet")
}

async fn who_speaks_is_told_to_those_who_hear(start: fn() -> Node) {
    let node = start();
    let alice = node.join("alice").await;
    let mic = alice.publish_audio("mic").await.unwrap();
    let bob = node.join("bob").await;
    watch(&bob, &mic, MANY).await;
    let sid = alice.snapshot().await.unwrap().sid;
    bob.until(PATIENCE, |s| s.speakers.get(&sid).filter(|level| **level > 0.0).map(|_| ())).await.expect("speaking");
    alice.silence(&mic, true).await.unwrap();
    bob.until(PATIENCE, |s| (!s.speakers.contains_key(&sid)).then_some(())).await.expect("silent");
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_from_one_disturbs_no_other() {
    let node = Node::start();
    let alice = node.join("alice").await;
    let mic = alice.publish_audio("mic").await.unwrap();
    let bob = node.join("bob").await;
    watch(&bob, &mic, MANY).await;
    let mut rubbish = 1u64;
    let mut random = move |length: usize| -> Vec<u8> {
        (0..length)
            .map(|_| {
                rubbish = rubbish.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (rubbish >> 56) as u8
            })
            .collect()
    };
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let ports: Vec<SocketAddr> = node.server.started().udp.clone();
    for round in 0..20 {
        let mallory = node.join("mallory").await;
        for length in [0, 1, 7, 100, 1_000, 60_000] {
            // It may have been thrown out by now, which is fine.
            let _ = mallory.raw_data("_reliable", random(length)).await;
            let _ = mallory.raw_data("_lossy", random(length.min(1_000))).await;
        }
        let offer = proto::SessionDescription {
            r#type: "offer".to_owned(),
            sdp: String::from_utf8_lossy(&random(2_000)).into_owned(),
            id: round,
            ..Default::default()
        };
        let _ = mallory.signal(proto::signal_request::Message::Offer(offer)).await;
        let _ = mallory.raw_signal(random(500)).await;
        for first in [0u8, 1, 20, 22, 64, 128, 144, 200, 255] {
            let mut datagram = random(100);
            datagram[0] = first;
            for port in &ports {
                socket.send_to(&datagram, port).unwrap();
            }
        }
    }
    watch_more(&bob, &mic, 100).await;
    let seen = watch(&bob, &mic, MANY).await;
    assert_eq!((seen.gaps, seen.wrong), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_node_tells_everybody_to_reconnect() {
    let node = Node::start();
    let mut alice = node.join("alice").await;
    let mut bob = node.join_as("bob", v0()).await;
    let draining = async {
        for client in [&mut alice, &mut bob] {
            assert_eq!(leave_of(client).await.action, Action::Reconnect as i32);
        }
    };
    tokio::join!(node.server.drain(), draining);
    let token = token::join_token(DEV_KEY, DEV_SECRET, "late", "room").unwrap();
    assert!(Client::connect(&node.url, &token, Options::default()).await.is_err(), "no new joins");
    tokio::task::block_in_place(|| drop(node));
}

/// The program itself, ended when dropped.
struct Program(std::process::Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_program_takes_its_leave_and_ends_well() {
    const SECRET: &str = "a secret of more than thirty-two bytes";
    let port = free_port();
    let file = std::env::temp_dir().join(format!("weir-server-test-{}.yaml", std::process::id()));
    let media = free_port();
    let text = format!(
        "port: {port}\nbind_addresses: [127.0.0.1]\nkeys: {{ {DEV_KEY}: {SECRET} }}\n\
         rtc: {{ udp_port: {media}, tcp_port: 0, node_ip: 127.0.0.1, enable_loopback_candidate: true, \
         media_threads: 1 }}\n"
    );
    std::fs::write(&file, text).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_weir"));
    let mut program = Program(command.args(["serve", "--config"]).arg(&file).spawn().unwrap());
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        assert!(program.0.try_wait().unwrap().is_none(), "it did not start");
        assert!(tokio::time::Instant::now() < deadline, "it does not listen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    std::fs::remove_file(&file).unwrap();
    let mut alice = join(&format!("ws://127.0.0.1:{port}"), SECRET, "alice", Options::default()).await;
    let kill = std::process::Command::new("kill").args(["-TERM", &program.0.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(leave_of(&mut alice).await.action, Action::Reconnect as i32);
    drop(alice);
    let ended = loop {
        if let Some(status) = program.0.try_wait().unwrap() {
            break status;
        }
        assert!(tokio::time::Instant::now() < deadline, "it does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(ended.success(), "{ended}");
}

/// The same with everybody on one media thread, and with each on another one than the one before.
macro_rules! together_and_apart {
    ($($name:ident)*) => {
        mod together {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Node::start).await;
            })*
        }

        mod apart {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Node::start_apart).await;
            })*
        }
    };
}

together_and_apart! {
    ten_see_and_hear_each_other
    an_asked_for_size_arrives
    a_mute_is_silence_and_is_told_and_ends
    an_unpublished_track_is_gone_and_its_section_serves_the_next
    who_leaves_is_gone_for_the_others
    a_lost_websocket_costs_no_media_and_can_be_resumed
    messages_arrive_in_order_and_only_where_they_are_sent
    who_speaks_is_told_to_those_who_hear
    who_crashes_can_come_back_at_once
    the_same_identity_again_replaces_the_first
}

#[tokio::test(flavor = "multi_thread")]
async fn two_on_different_media_threads_see_and_hear_each_other() {
    two_see_and_hear_each_other(Node::start_apart, Options::default(), v0()).await;
}
