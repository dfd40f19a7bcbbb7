//! The server API and webhooks of a real node on loopback, as server SDKs and webhook receivers meet them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests may fail by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use livekit_protocol as proto;
use prost::Message as _;
use reqwest::Response;
use serde_json::{Value, json};
use signalling::token::{Claims, VideoGrant, body_hash, verify};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use weir::config::{Config, Keys, PortRange};
use weir::control::{Server, auth};

const HOUR: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_secs(10);

fn config() -> Config {
    let mut config = Config::dev();
    config.port = 0;
    config.rtc.udp_port = PortRange { first: 0, last: None };
    config.rtc.tcp_port = 0;
    config.room.auto_create = false;
    config
}

/// A node and somebody who may do everything in room `r`.
struct Api {
    server: Server,
    address: SocketAddr,
    client: reqwest::Client,
}

fn everything() -> VideoGrant {
    VideoGrant { room_create: true, room_list: true, room_admin: true, room: "r".to_owned(), ..VideoGrant::default() }
}

fn token(video: VideoGrant) -> String {
    auth::mint(&Config::dev().keys, "admin", video, HOUR).unwrap()
}

impl Api {
    fn start(config: &Config) -> Self {
        let server = Server::start(config).unwrap();
        let address = server.started().http[0];
        Self { server, address, client: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    async fn send(&self, path: &str, token: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Response {
        let request = self.client.post(format!("http://{}{path}", self.address)).header("content-type", content_type);
        let request = if token.is_empty() { request } else { request.bearer_auth(token) };
        request.header("origin", "https://app").body(body).send().await.unwrap()
    }

    async fn call_as(&self, video: VideoGrant, method: &str, body: Value) -> (u16, Value) {
        let path = format!("/twirp/livekit.RoomService/{method}");
        let response = self.send(&path, &token(video), "application/json", body.to_string()).await;
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
        (response.status().as_u16(), serde_json::from_str(&response.text().await.unwrap()).unwrap())
    }

    async fn call(&self, method: &str, body: Value) -> (u16, Value) {
        self.call_as(everything(), method, body).await
    }

    async fn join(&self, identity: &str) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
        let video = VideoGrant { room_join: true, room: "r".to_owned(), ..VideoGrant::default() };
        let token = auth::mint(&Config::dev().keys, identity, video, HOUR).unwrap();
        let url = format!("ws://{}/rtc?access_token={token}&protocol=17", self.address);
        tokio_tungstenite::connect_async(url).await.unwrap().0
    }
}

fn is_error(answer: &(u16, Value), status: u16, code: &str) {
    assert_eq!((answer.0, answer.1["code"].as_str()), (status, Some(code)), "{}", answer.1);
    assert!(answer.1["msg"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_are_made_listed_changed_and_deleted() {
    let api = Api::start(&config());
    assert_eq!(api.call("ListRooms", json!({})).await, (200, json!({ "rooms": [] })));
    let asked = json!({ "name": "r", "empty_timeout": 77, "departureTimeout": 11, "max_participants": 3, "metadata": "m", "unknown": 1 });
    let (status, made) = api.call("CreateRoom", asked).await;
    assert_eq!(status, 200, "{made}");
    for (field, value) in [
        ("name", json!("r")),
        ("empty_timeout", json!(77)),
        ("departure_timeout", json!(11)),
        ("max_participants", json!(3)),
        ("metadata", json!("m")),
        ("num_participants", json!(0)),
        ("active_recording", json!(false)),
    ] {
        assert_eq!(made[field], value, "{field}");
    }
    assert!(made["sid"].as_str().unwrap().starts_with("RM_"));
    assert!(made["creation_time"].as_str().unwrap().parse::<i64>().unwrap() > 1_600_000_000);
    let (_, again) = api.call("CreateRoom", json!({ "name": "r", "metadata": "other" })).await;
    assert_eq!(again, made, "the room that is there, as it is");
    api.call("CreateRoom", json!({ "name": "second" })).await;
    let names = |listed: &Value| -> Vec<String> {
        listed["rooms"].as_array().unwrap().iter().map(|room| room["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&api.call("ListRooms", json!({})).await.1), ["r", "second"]);
    assert_eq!(names(&api.call("ListRooms", json!({ "names": ["second", "no", "second"] })).await.1), ["second"]);
    let (_, changed) = api.call("UpdateRoomMetadata", json!({ "room": "r", "metadata": "new" })).await;
    assert_eq!(changed["metadata"], "new");
    assert_eq!(api.call("DeleteRoom", json!({ "room": "r" })).await, (200, json!({})));
    is_error(&api.call("DeleteRoom", json!({ "room": "r" })).await, 404, "not_found");
    is_error(&api.call("UpdateRoomMetadata", json!({ "room": "r", "metadata": "" })).await, 404, "not_found");
    assert_eq!(names(&api.call("ListRooms", json!({})).await.1), ["second"]);
    let (_, fresh) = api.call("CreateRoom", json!({ "name": "r" })).await;
    assert_ne!(fresh["sid"], made["sid"]);
    assert_eq!(fresh["metadata"], "");
}

#[tokio::test(flavor = "multi_thread")]
async fn participants_are_found_changed_and_removed() {
    let api = Api::start(&config());
    let who = |identity: &str| json!({ "room": "r", "identity": identity });
    let missing_room = api.call("GetParticipant", who("alice")).await;
    is_error(&missing_room, 404, "not_found");
    assert_eq!(missing_room.1["msg"], "requested room does not exist");
    assert_eq!(api.call("ListParticipants", json!({ "room": "r" })).await, (200, json!({ "participants": [] })));

    api.call("CreateRoom", json!({ "name": "r" })).await;
    let mut socket = api.join("alice").await;
    let (status, alice) = api.call("GetParticipant", who("alice")).await;
    assert_eq!((status, alice["identity"].as_str()), (200, Some("alice")));
    assert_eq!(alice["permission"]["can_publish"], true);
    assert_eq!(alice["tracks"], json!([]));
    let missing = api.call("GetParticipant", who("bob")).await;
    is_error(&missing, 404, "not_found");
    assert_eq!(missing.1["msg"], "participant does not exist");
    let (_, listed) = api.call("ListParticipants", json!({ "room": "r" })).await;
    assert_eq!(listed["participants"].as_array().unwrap().len(), 1);

    let change = json!({ "room": "r", "identity": "alice", "name": "Alice", "metadata": "m", "attributes": { "k": "v" },
        "permission": { "canSubscribe": true, "can_publish_sources": ["MICROPHONE"] } });
    let (status, changed) = api.call("UpdateParticipant", change).await;
    assert_eq!(status, 200, "{changed}");
    assert_eq!((&changed["name"], &changed["metadata"]), (&json!("Alice"), &json!("m")));
    assert_eq!(changed["attributes"], json!({ "k": "v" }));
    assert_eq!(changed["permission"]["can_publish"], false);
    assert_eq!(changed["permission"]["can_publish_sources"], json!(["MICROPHONE"]));

    let data =
        json!({ "room": "r", "data": "aGk=", "kind": "RELIABLE", "topic": "t", "destination_identities": ["alice"] });
    assert_eq!(api.call("SendData", data).await, (200, json!({})));
    let bad = json!({ "room": "r", "data": "aGk=", "nonce": "aGk=" });
    is_error(&api.call("SendData", bad).await, 400, "invalid_argument");
    let subscribe = json!({ "room": "r", "identity": "alice", "track_sids": ["TR_x"], "subscribe": true });
    assert_eq!(api.call("UpdateSubscriptions", subscribe).await, (200, json!({})));
    let mute = json!({ "room": "r", "identity": "alice", "track_sid": "TR_x", "muted": true });
    is_error(&api.call("MutePublishedTrack", mute).await, 404, "not_found");

    assert_eq!(api.call("RemoveParticipant", who("alice")).await, (200, json!({})));
    is_error(&api.call("GetParticipant", who("alice")).await, 404, "not_found");
    is_error(&api.call("RemoveParticipant", who("alice")).await, 404, "not_found");
    let leave = leave_of(&mut socket).await;
    assert_eq!(leave.reason(), proto::DisconnectReason::ParticipantRemoved);
    assert_eq!(leave.action(), proto::leave_request::Action::Disconnect);
}

async fn leave_of(socket: &mut WebSocketStream<MaybeTlsStream<TcpStream>>) -> proto::LeaveRequest {
    use futures_util::StreamExt as _;
    loop {
        let frame = tokio::time::timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap();
        let Ok(message) = proto::SignalResponse::decode(frame.into_data()) else { continue };
        if let Some(proto::signal_response::Message::Leave(leave)) = message.message {
            return leave;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_needs_its_grant() {
    let api = Api::start(&config());
    api.call("CreateRoom", json!({ "name": "r" })).await;
    let without = |take: fn(&mut VideoGrant)| {
        let mut grant = everything();
        take(&mut grant);
        grant
    };
    for (method, grant) in [
        ("CreateRoom", without(|grant| grant.room_create = false)),
        ("DeleteRoom", without(|grant| grant.room_create = false)),
        ("ListRooms", without(|grant| grant.room_list = false)),
    ] {
        is_error(&api.call_as(grant, method, json!({ "name": "r", "room": "r" })).await, 401, "unauthenticated");
    }
    for method in [
        "ListParticipants",
        "GetParticipant",
        "RemoveParticipant",
        "MutePublishedTrack",
        "UpdateParticipant",
        "UpdateSubscriptions",
        "SendData",
        "UpdateRoomMetadata",
    ] {
        for grant in [
            without(|grant| grant.room_admin = false),
            without(|grant| grant.room = "other".to_owned()),
            without(|grant| grant.room.clear()),
        ] {
            is_error(&api.call_as(grant, method, json!({ "room": "r" })).await, 401, "unauthenticated");
        }
    }
    let path = "/twirp/livekit.RoomService/ListRooms";
    let forged = auth::mint(&Keys::single("devkey", "other"), "a", everything(), HOUR).unwrap();
    for bad in ["", "x", &forged] {
        let response = api.send(path, bad, "application/json", "{}").await;
        assert_eq!(response.status(), 401, "{bad}");
        let error: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(error["code"], "unauthenticated");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_formats_any_prefix_and_twirps_own_errors() {
    let api = Api::start(&config());
    let admin = token(everything());
    let request = proto::CreateRoomRequest { name: "r".to_owned(), max_participants: 5, ..Default::default() };
    let path = "/twirp/livekit.RoomService/CreateRoom";
    let response = api.send(path, &admin, "application/protobuf", request.encode_to_vec()).await;
    assert_eq!(response.headers()["content-type"], "application/protobuf");
    let room = proto::Room::decode(response.bytes().await.unwrap()).unwrap();
    assert_eq!((room.name.as_str(), room.max_participants), ("r", 5));
    let list = "/livekit/sfu//twirp/livekit.RoomService/ListRooms";
    let response = api.send(list, &admin, "application/json; charset=utf-8", "{}").await;
    assert!(response.text().await.unwrap().contains("\"max_participants\":5"));

    for (path, kind, body, status, code) in [
        ("/twirp/livekit.RoomService/Nothing", "application/json", "{}", 404, "bad_route"),
        ("/twirp/livekit.Nothing/ListRooms", "application/json", "{}", 404, "bad_route"),
        ("/twirp/x", "application/json", "{}", 404, "bad_route"),
        ("/twirp/livekit.RoomService/ListRooms", "text/plain", "{}", 404, "bad_route"),
        ("/twirp/livekit.RoomService/ListRooms", "application/json", "{", 400, "malformed"),
        ("/twirp/livekit.RoomService/ListRooms", "application/protobuf", "\u{1}", 400, "malformed"),
        ("/twirp/livekit.RoomService/CreateRoom", "application/json", "{}", 400, "invalid_argument"),
        ("/twirp/livekit.RoomService/MoveParticipant", "application/json", "{}", 501, "unimplemented"),
        ("/twirp/livekit.Egress/ListEgress", "application/json", "{}", 501, "unimplemented"),
    ] {
        let response = api.send(path, &admin, kind, body).await;
        assert_eq!(response.status(), status, "{path}");
        let error: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(error["code"], code, "{path}");
    }
    let large = vec![b' '; (10 << 20) + 1];
    assert_eq!(api.send(path, &admin, "application/json", large.clone()).await.status(), 400);
    // Whoever has no key sends its body in vain.
    let sent = api.client.post(format!("http://{}{path}", api.address)).body(large).send().await;
    assert!(sent.is_err() || sent.is_ok_and(|response| response.status() == 404));
    let got = api.client.get(format!("http://{}{path}", api.address)).send().await.unwrap();
    assert_eq!(got.status(), 404);
}

/// What a receiver got: event, and when it was sent.
type Received = (proto::WebhookEvent, Claims);

/// A receiver on loopback that answers as `answer` says, given how many requests it has had before.
async fn receiver(answer: fn(usize) -> StatusCode) -> (String, mpsc::UnboundedReceiver<Received>) {
    let (sender, received) = mpsc::unbounded_channel();
    let count = Arc::new(AtomicUsize::new(0));
    let take = async move |headers: HeaderMap, body: Bytes| {
        let status = answer(count.fetch_add(1, Ordering::Relaxed));
        assert_eq!(headers["content-type"], "application/webhook+json");
        let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
        let claims =
            verify(headers["authorization"].to_str().unwrap(), |key| (key == "devkey").then_some("secret"), now)
                .unwrap();
        assert_eq!(claims.sha256, body_hash(&body));
        assert!(claims.exp - now > 290 && claims.exp - now <= 301);
        if status.is_success() {
            sender.send((serde_json::from_slice(&body).unwrap(), claims)).unwrap();
        }
        (status, [("location", "/elsewhere")])
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/hook", axum::routing::post(take));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, received)
}

async fn next(received: &mut mpsc::UnboundedReceiver<Received>) -> proto::WebhookEvent {
    tokio::time::timeout(SOON, received.recv()).await.expect("a webhook in time").unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_arrive_signed_in_order_and_in_spite_of_failures() {
    // Every other request fails, and another receiver is never there.
    let (url, mut received) =
        receiver(|n| if n % 2 == 0 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }).await;
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut config = config();
    config.webhook.urls = vec![format!("http://{dead}/"), url];
    let api = Api::start(&config);
    api.call("CreateRoom", json!({ "name": "r", "metadata": "m" })).await;
    let socket = api.join("alice").await;
    api.call("RemoveParticipant", json!({ "room": "r", "identity": "alice" })).await;
    api.call("DeleteRoom", json!({ "room": "r" })).await;
    drop(socket);
    let started = next(&mut received).await;
    assert_eq!(started.event, "room_started");
    assert_eq!(started.room.as_ref().unwrap().metadata, "m");
    assert!(started.created_at > 1_600_000_000);
    let gone = next(&mut received).await;
    assert_eq!(gone.event, "participant_connection_aborted", "it never connected its media");
    let who = gone.participant.unwrap();
    assert_eq!(who.identity, "alice");
    assert_eq!(who.disconnect_reason(), proto::DisconnectReason::ParticipantRemoved);
    let finished = next(&mut received).await;
    assert_eq!(finished.event, "room_finished");
    assert!(started.id != finished.id && !started.id.is_empty());
    assert_eq!(started.room.unwrap().sid, finished.room.unwrap().sid);
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_not_followed_and_refusals_not_repeated() {
    let (url, mut received) = receiver(|n| if n == 0 { StatusCode::TEMPORARY_REDIRECT } else { StatusCode::OK }).await;
    let mut config = config();
    config.webhook.urls = vec![url];
    let api = Api::start(&config);
    api.call("CreateRoom", json!({ "name": "r" })).await;
    api.call("DeleteRoom", json!({ "room": "r" })).await;
    assert_eq!(next(&mut received).await.event, "room_finished", "what came before was refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_tells_the_end_of_its_rooms() {
    let (url, mut received) = receiver(|_| StatusCode::OK).await;
    let mut config = config();
    config.webhook.urls = vec![url];
    let api = Api::start(&config);
    api.call("CreateRoom", json!({ "name": "r" })).await;
    let mut socket = api.join("alice").await;
    let leaving = async {
        let leave = leave_of(&mut socket).await;
        drop(socket);
        leave
    };
    let (leave, ()) = tokio::join!(leaving, api.server.drain());
    assert_eq!(leave.action(), proto::leave_request::Action::Reconnect);
    let mut events = Vec::new();
    while let Ok((event, _)) = received.try_recv() {
        events.push(event.event);
    }
    assert_eq!(events, ["room_started", "participant_connection_aborted", "room_finished"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_on_record_with_the_key_that_made_them_and_looks_are_not() {
    let folder = std::env::temp_dir().join(format!("weir-audit-api-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut config = config();
    config.audit.to = folder.join("records").to_string_lossy().into_owned();
    config.audit.key_file = folder.join("key").to_string_lossy().into_owned();
    let api = Api::start(&config);
    api.call("ListRooms", json!({})).await;
    api.call("CreateRoom", json!({ "name": "r" })).await;
    let mut alice = api.join("alice").await;
    api.call("RemoveParticipant", json!({ "room": "r", "identity": "alice" })).await;
    api.call("RemoveParticipant", json!({ "room": "r", "identity": "alice" })).await;
    alice.close(None).await.unwrap();
    drop(api);

    let pseudonyms = weir::control::audit::Pseudonyms::load(&folder.join("key")).unwrap();
    let (room, alice, admin) = (pseudonyms.room("r"), pseudonyms.person("alice"), pseudonyms.person("admin"));
    let file = std::fs::read_dir(folder.join("records")).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(file).unwrap();
    let records = text.lines().map(|line| serde_json::from_str(line).unwrap()).map(|mut record: Value| {
        assert!(record.as_object_mut().unwrap().remove("time").is_some());
        record
    });
    let removal = |result: &str| {
        json!({ "event": "admin", "at": "api", "room": room, "who": alice, "rule": "RemoveParticipant",
            "why": result, "key": "devkey", "by": admin })
    };
    assert_eq!(
        records.collect::<Vec<_>>(),
        [
            json!({ "event": "admin", "at": "api", "room": room, "rule": "CreateRoom", "why": "ok", "key": "devkey",
            "by": admin }),
            json!({ "event": "admission", "at": "join", "room": room, "who": alice, "rule": "token", "why": "may join" }),
            removal("ok"),
            removal("not_found"),
        ]
    );
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Joins with media and answers one call with `reply`.
async fn callee(api: &Api, identity: &str) -> weir_loadtest::Client {
    let video = VideoGrant { room_join: true, room: "r".to_owned(), ..VideoGrant::default() };
    let token = auth::mint(&Config::dev().keys, identity, video, HOUR).unwrap();
    let url = format!("ws://{}", api.address);
    let client = weir_loadtest::Client::connect(&url, &token, weir_loadtest::Options::default()).await.unwrap();
    client.until(SOON, |seen| seen.channels_open.then_some(())).await.unwrap();
    client
}

async fn answer_one(client: &mut weir_loadtest::Client, reply: proto::rpc_response::Value) -> proto::RpcRequest {
    use proto::data_packet::Value as Packet;
    let request = |event| match event {
        weir_loadtest::Event::Data(_, packet) => match packet.value {
            Some(Packet::RpcRequest(request)) => Some((packet.participant_identity, request)),
            _ => None,
        },
        _ => None,
    };
    let (caller, request) = client.wait(SOON, request).await.unwrap();
    let ack = Packet::RpcAck(proto::RpcAck { request_id: request.id.clone() });
    let response = proto::RpcResponse { request_id: request.id.clone(), value: Some(reply) };
    for (sequence, value) in [(1, ack), (2, Packet::RpcResponse(response))] {
        let destination_identities = vec![caller.clone()];
        let packet = proto::DataPacket { value: Some(value), sequence, destination_identities, ..Default::default() };
        client.raw_data("_reliable", packet.encode_to_vec()).await.unwrap();
    }
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_of_participants_are_called_in_json_and_protobuf() {
    use proto::rpc_response::Value as Reply;
    let mut config = config();
    config.rtc.node_ip = "127.0.0.1".to_owned();
    let api = Api::start(&config);
    api.call("CreateRoom", json!({ "name": "r" })).await;
    let ask = json!({ "room": "r", "destination_identity": "alice", "method": "greet", "payload": "hello" });
    is_error(&api.call("PerformRpc", ask.clone()).await, 404, "not_found");
    let mut alice = callee(&api, "alice").await;
    let asked = api.call("PerformRpc", ask.clone());
    let (answer, request) = tokio::join!(asked, answer_one(&mut alice, Reply::Payload("hi there".to_owned())));
    assert_eq!(answer, (200, json!({ "payload": "hi there" })));
    assert_eq!((request.method.as_str(), request.payload.as_str()), ("greet", "hello"));

    let mut bob = callee(&api, "bob").await;
    let error = proto::RpcError { code: 1_500, message: "not today".to_owned(), data: "7".to_owned() };
    let body = proto::PerformRpcRequest {
        room: "r".to_owned(),
        destination_identity: "bob".to_owned(),
        method: "greet".to_owned(),
        ..Default::default()
    };
    let (path, token) = ("/twirp/livekit.RoomService/PerformRpc", token(everything()));
    let asked = api.send(path, &token, "application/protobuf", body.encode_to_vec());
    let (answer, _) = tokio::join!(asked, answer_one(&mut bob, Reply::Error(error)));
    assert_eq!(answer.status(), 409);
    let told: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let meta = json!({ "rpc_code": "1500", "rpc_data": "7" });
    assert_eq!(told, json!({ "code": "aborted", "msg": "not today", "meta": meta }));

    // Nobody answers in time; nobody else's room is open; nothing is called without a name.
    let mut hasty = ask.clone();
    hasty["response_timeout_ms"] = json!(200);
    is_error(&api.call("PerformRpc", hasty).await, 408, "deadline_exceeded");
    let other = VideoGrant { room: "other".to_owned(), ..everything() };
    is_error(&api.call_as(other, "PerformRpc", ask.clone()).await, 401, "unauthenticated");
    let mut nameless = ask;
    nameless["method"] = json!("");
    is_error(&api.call("PerformRpc", nameless).await, 400, "invalid_argument");
}
