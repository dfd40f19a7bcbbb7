//! The public HTTP surface of a real node on loopback: what clients and browsers decide by.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests may fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test of a real process in real time")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use prost::Message as _;
use signalling::token::VideoGrant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use weir::config::{Bind, Config, Keys, PortRange, Seconds};
use weir::control::{Server, auth};

const HOUR: Duration = Duration::from_secs(3600);

fn config() -> Config {
    let mut config = Config::dev();
    config.port = 0;
    config.rtc.udp_port = PortRange { first: 0, last: None };
    config.rtc.tcp_port = 0;
    config
}

fn start(config: &Config) -> (Server, SocketAddr) {
    let server = Server::start(config).unwrap();
    let address = server.started().http[0];
    (server, address)
}

fn token(video: VideoGrant) -> String {
    auth::mint(&Config::dev().keys, "alice", video, HOUR).unwrap()
}

fn room(name: &str) -> VideoGrant {
    VideoGrant { room_join: true, room: name.to_owned(), ..VideoGrant::default() }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// Sends raw bytes, reads until the answer is whole or the server closes.
async fn send(address: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    let whole = |all: &[u8]| {
        let text = String::from_utf8_lossy(all).to_ascii_lowercase();
        let (head, body) = text.split_once("\r\n\r\n")?;
        if head.starts_with("http/1.1 101 ") {
            return Some(());
        }
        let length = head.split("content-length: ").nth(1)?.lines().next()?.parse::<usize>().ok()?;
        (body.len() >= length).then_some(())
    };
    // A reset after the answer is as good as an end.
    let _ = tokio::time::timeout(Duration::from_secs(10), async {
        while whole(&all).is_none() && stream.read_buf(&mut all).await? > 0 {}
        Ok::<(), std::io::Error>(())
    })
    .await;
    let text = String::from_utf8_lossy(&all).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

async fn get(address: SocketAddr, path: &str) -> Answer {
    send(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nOrigin: https://app\r\nConnection: close\r\n\r\n")).await
}

async fn upgrade(address: SocketAddr, path: &str) -> Answer {
    send(
        address,
        &format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nOrigin: https://app\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ),
    )
    .await
}

fn assert_cors(answer: &Answer) {
    assert!(answer.head.contains("access-control-allow-origin: *"), "no CORS: {}", answer.head);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_have_the_status_clients_decide_by_and_cors() {
    let (_server, address) = start(&config());
    let good = token(room("r"));
    let foreign = auth::mint(&Keys::single("devkey", "other"), "a", room("r"), HOUR).unwrap();
    let unknown = auth::mint(&Keys::single("nobody", "secret"), "a", room("r"), HOUR).unwrap();
    let no_join = token(VideoGrant { room: "r".to_owned(), ..VideoGrant::default() });
    let nobody = auth::mint(&Config::dev().keys, "", room("r"), HOUR).unwrap();
    let no_room = token(VideoGrant { room_join: true, ..VideoGrant::default() });
    for (path, status, body) in [
        ("/".to_owned(), 200, "OK"),
        ("/healthz".to_owned(), 200, "OK"),
        ("/readyz".to_owned(), 200, "ready"),
        ("/rtc".to_owned(), 404, ""),
        ("/rtc/v1".to_owned(), 404, ""),
        ("/nothing".to_owned(), 404, ""),
        ("/rtc/validate".to_owned(), 401, "no access token"),
        ("/rtc/validate?access_token=x".to_owned(), 401, "invalid token"),
        (format!("/rtc/validate?access_token={foreign}"), 401, "invalid token signature"),
        (format!("/rtc/validate?access_token={unknown}"), 401, "unknown API key"),
        (format!("/rtc/validate?access_token={no_join}"), 401, "token does not allow joining a room"),
        (format!("/rtc/validate?access_token={no_room}"), 400, "room name is empty or too long"),
        (format!("/rtc/validate?access_token={nobody}"), 400, "identity cannot be empty"),
        (format!("/rtc/v1/validate?access_token={nobody}"), 400, "identity cannot be empty"),
        (format!("/rtc/validate?access_token={good}"), 200, "success"),
        (format!("/livekit/sfu//rtc/validate?access_token={good}"), 200, "success"),
        (format!("/rtc/v1/validate?access_token={good}"), 400, "join_request is missing"),
    ] {
        let answer = get(address, &path).await;
        assert_eq!((answer.status, answer.body.as_str()), (status, body), "{path}");
        assert_cors(&answer);
    }
    for (path, status) in [
        ("/rtc".to_owned(), 401),
        ("/rtc?access_token=x".to_owned(), 401),
        (format!("/rtc?access_token={nobody}&protocol=17"), 400),
        (format!("/rtc/v1?access_token={good}"), 400),
        (format!("/prefix/rtc/v1?access_token={good}"), 400),
        (format!("/rtc/v1?access_token={good}&join_request=!!!"), 400),
    ] {
        let answer = upgrade(address, &path).await;
        assert_eq!(answer.status, status, "{path}");
        assert_cors(&answer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn header_token_wins_over_the_query_and_other_schemes_are_left_alone() {
    let (_server, address) = start(&config());
    let good = token(room("r"));
    let ask = |authorization: String, query: String| async move {
        let head = format!("GET /rtc/validate?access_token={query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        send(address, &format!("{head}Authorization: {authorization}\r\n\r\n")).await.status
    };
    assert_eq!(ask(format!("Bearer {good}"), "bad".to_owned()).await, 200);
    assert_eq!(ask("Bearer bad".to_owned(), good.clone()).await, 401);
    assert_eq!(ask("Basic dTpw".to_owned(), good.clone()).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn preflight_allows_every_header_for_a_day() {
    let (_server, address) = start(&config());
    let answer = send(
        address,
        "OPTIONS /rtc/validate HTTP/1.1\r\nHost: x\r\nOrigin: https://app\r\nConnection: close\r\n\
         Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: authorization,x-own\r\n\r\n",
    )
    .await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("access-control-allow-headers: authorization,x-own"), "{}", answer.head);
    assert!(answer.head.contains("access-control-max-age: 86400"), "{}", answer.head);
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_that_may_not_be_made_are_said_not_to_exist() {
    let mut config = config();
    config.room.auto_create = false;
    let (_server, address) = start(&config);
    let (plain, creator) = (token(room("r")), token(VideoGrant { room_create: true, ..room("r") }));
    for answer in [
        get(address, &format!("/rtc/validate?access_token={plain}")).await,
        upgrade(address, &format!("/rtc?access_token={plain}&protocol=17")).await,
    ] {
        assert_eq!((answer.status, answer.body.as_str()), (404, "requested room does not exist"));
        assert_cors(&answer);
    }
    assert_eq!(get(address, &format!("/rtc/validate?access_token={creator}")).await.status, 200);
    // Somebody who was in the room before a restart is told to join anew, not that all is lost.
    let mut client =
        Client::connect(address, &format!("/rtc?access_token={plain}&protocol=17&reconnect=1&sid=PA_x")).await;
    let Some(proto::signal_response::Message::Leave(leave)) = client.next().await else { panic!("no leave") };
    assert_eq!(leave.action(), proto::leave_request::Action::Reconnect);
    assert!(client.next().await.is_none(), "closed after the leave");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_in_a_room_comes_back_after_a_restart_although_rooms_are_not_made_for_everybody() {
    use proto::signal_response::Message as Response;
    let mut config = config();
    config.room.auto_create = false;
    let refreshed = {
        let (_server, address) = start(&config);
        let creator = token(VideoGrant { room_create: true, ..room("r") });
        let _creator = Client::connect(address, &format!("/rtc?access_token={creator}&protocol=17")).await;
        let bob = auth::mint(&config.keys, "bob", room("r"), HOUR).unwrap();
        let mut bob = Client::connect(address, &format!("/rtc?access_token={bob}&protocol=17")).await;
        bob.until(|message| if let Response::RefreshToken(token) = message { Some(token) } else { None }).await
    };
    let (_server, address) = start(&config);
    let other = token(room("r"));
    assert_eq!(upgrade(address, &format!("/rtc?access_token={other}&protocol=17")).await.status, 404);
    assert_eq!(get(address, &format!("/rtc/validate?access_token={refreshed}")).await.status, 200);
    let mut bob = Client::connect(address, &format!("/rtc?access_token={refreshed}&protocol=17")).await;
    assert!(matches!(bob.next().await, Some(Response::Join(_))));
    // It is there again, so everybody else may come too.
    assert_eq!(upgrade(address, &format!("/rtc?access_token={other}&protocol=17")).await.status, 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_request_lines_pass_and_endless_ones_do_not() {
    let (_server, address) = start(&config());
    let long = format!("/rtc/validate?access_token={}&x={}", token(room("r")), "y".repeat(16 << 10));
    assert_eq!(get(address, &long).await.status, 200);
    let endless = get(address, &format!("/?x={}", "y".repeat(200 << 10))).await;
    assert!([0, 414, 431].contains(&endless.status), "{}", endless.status);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_are_cut_off_and_free_their_place() {
    let mut config = config();
    config.limit.request_head_timeout = Seconds(1);
    config.limit.max_connections = 2;
    let (_server, address) = start(&config);
    let began = Instant::now();
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
        slow.push(stream);
    }
    assert_eq!(get(address, "/").await.status, 200, "served when a place is free again");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_refuses_the_upgrade_and_still_validates() {
    let mut config = config();
    config.limit.max_participants = 1;
    let (_server, address) = start(&config);
    let path = |identity: &str| {
        let token = auth::mint(&Config::dev().keys, identity, room("r"), HOUR).unwrap();
        format!("/rtc?access_token={token}&protocol=17")
    };
    let (path, other) = (path("alice"), path("bob"));
    let _first = Client::connect(address, &path).await;
    assert_eq!(upgrade(address, &other).await.status, 503);
    assert_eq!(get(address, &other.replace("/rtc", "/rtc/validate")).await.status, 200);
    // Who is in already takes no second place.
    assert_eq!(upgrade(address, &path).await.status, 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_keeps_its_place_until_it_ends() {
    let mut config = config();
    config.limit.max_connections = 2;
    let (_server, address) = start(&config);
    let path = |name: &str| {
        let token = auth::mint(&Config::dev().keys, name, room("r"), HOUR).unwrap();
        format!("/rtc?access_token={token}&protocol=17")
    };
    let _first = Client::connect(address, &path("first")).await;
    let second = Client::connect(address, &path("second")).await;
    let waiting = tokio::spawn(async move { get(address, "/").await.status });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished(), "served beyond the limit");
    drop(second);
    assert_eq!(waiting.await.unwrap(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_gets_its_share_and_is_told_so() {
    let mut config = config();
    config.limit.join_rate_per_address = 1;
    let (_server, address) = start(&config);
    let path = format!("/rtc?access_token={}&protocol=17", token(room("r")));
    let mut statuses = Vec::new();
    for _ in 0..30 {
        statuses.push(upgrade(address, &path).await);
        if statuses.last().unwrap().status == 429 {
            break;
        }
    }
    let refused = statuses.pop().unwrap();
    assert_eq!((refused.status, refused.body.as_str()), (429, "too many joins from this address"));
    assert_cors(&refused);
    assert!(statuses.len() >= 10 && statuses.iter().all(|answer| answer.status == 101));
    assert_eq!(get(address, "/").await.status, 200);

    config.limit.join_rate_per_address = 0;
    config.limit.max_connections_per_address = 2;
    let (_server, address) = start(&config);
    let _first = Client::connect(address, &path).await;
    let second = Client::connect(address, &path.replace("protocol=17", "protocol=16")).await;
    for refused in [upgrade(address, &path).await, get(address, &path.replace("/rtc", "/rtc/validate")).await] {
        assert_eq!((refused.status, refused.body.as_str()), (429, "too many connections from this address"));
        assert_cors(&refused);
    }
    drop(second);
    let freed = async {
        while upgrade(address, &path).await.status != 101 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), freed).await.expect("a place is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_sends_everybody_away_to_come_back_and_takes_nobody() {
    let (server, address) = start(&config());
    let path = format!("/rtc?access_token={}&protocol=17", token(room("r")));
    let mut client = Client::connect(address, &path).await;
    assert!(matches!(client.next().await, Some(proto::signal_response::Message::Join(_))));
    let leaving = async {
        loop {
            match client.next().await {
                Some(proto::signal_response::Message::Leave(leave)) => break leave,
                Some(_) => {}
                None => panic!("closed without a leave"),
            }
        }
    };
    let ((), leave) = tokio::join!(server.drain(), leaving);
    assert_eq!(leave.action(), proto::leave_request::Action::Reconnect);
    drop(client);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lets_calls_end_takes_joins_into_them_and_no_new_calls() {
    use proto::signal_request::Message as Request;
    let mut config = config();
    config.drain.calls = weir::config::DrainCalls::Wait;
    config.drain.deadline = "1h".parse().unwrap();
    let (server, address) = start(&config);
    let path = |who: &str, name: &str| {
        let token = auth::mint(&Config::dev().keys, who, room(name), HOUR).unwrap();
        format!("/rtc?access_token={token}&protocol=17")
    };
    let mut alice = Client::connect(address, &path("alice", "running")).await;
    assert!(matches!(alice.next().await, Some(proto::signal_response::Message::Join(_))));
    assert_eq!(get(address, "/readyz").await.status, 200);
    let draining = tokio::spawn(async move { server.drain().await });
    let elsewhere = path("bob", "new").replace("/rtc", "/rtc/validate");
    let refused = async {
        while get(address, &elsewhere).await.status != 503 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), refused).await.expect("new calls are refused");
    // What proxies ask: it lives, and is to be given no new calls.
    assert_eq!(get(address, "/healthz").await.status, 200);
    for asked in ["/readyz", "/any/prefix/readyz"] {
        let answer = get(address, asked).await;
        assert_eq!((answer.status, answer.body.as_str()), (503, ""), "{asked}");
    }
    let mut bob = Client::connect(address, &path("bob", "running")).await;
    assert!(matches!(bob.next().await, Some(proto::signal_response::Message::Join(_))));
    assert!(!draining.is_finished());
    for client in [&mut alice, &mut bob] {
        client.send(Request::Leave(proto::LeaveRequest::default())).await;
    }
    tokio::time::timeout(Duration::from_secs(40), draining).await.expect("the last call has ended").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_at_the_deadline_is_moved_and_the_operator_may_ask_for_the_end() {
    let mut config = config();
    config.drain.calls = weir::config::DrainCalls::Wait;
    config.drain.deadline = "100ms".parse().unwrap();
    config.prometheus.port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let (server, address) = start(&config);
    let operators = SocketAddr::from(([127, 0, 0, 1], config.prometheus.port));
    let path = format!("/rtc?access_token={}&protocol=17", token(room("r")));
    let mut client = Client::connect(address, &path).await;
    assert_eq!(get(operators, "/readyz").await.status, 200);
    let drain = "POST /drain HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n";
    assert_eq!(send(operators, &format!("{drain}Origin: https://page\r\n\r\n")).await.status, 403);
    let request = format!("{drain}\r\n");
    let (asked, ()) = tokio::join!(send(operators, &request), server.asked_to_end());
    assert_eq!(asked.status, 202);
    let leaving = client.until(|m| match m {
        proto::signal_response::Message::Leave(leave) => Some(leave),
        _ => None,
    });
    let ((), leave) = tokio::join!(server.drain(), leaving);
    assert_eq!(leave.action(), proto::leave_request::Action::Reconnect);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_starts_with_join_and_answers_pings_in_the_clients_format() {
    use proto::signal_request::Message as Request;
    use proto::signal_response::Message as Response;
    let (_server, address) = start(&config());
    let path = format!("/a/prefix/rtc?access_token={}&protocol=17", token(room("r")));
    let mut client = Client::connect(address, &path).await;
    let Some(Response::Join(join)) = client.next().await else { panic!("no join first") };
    assert!(join.ping_interval > 0);
    assert!(!join.server_info.unwrap().version.is_empty());

    client.send(Request::PingReq(proto::Ping { timestamp: 7, rtt: 0 })).await;
    let pong = client.until(|m| if let Response::PongResp(pong) = m { Some(pong) } else { None }).await;
    assert_eq!(pong.last_ping_timestamp, 7);
    assert!(pong.timestamp > 1_600_000_000_000, "milliseconds");

    let request = proto::SignalRequest { message: Some(Request::PingReq(proto::Ping { timestamp: 8, rtt: 0 })) };
    client.0.send(Message::text(serde_json::to_string(&request).unwrap())).await.unwrap();
    let text = loop {
        if let Message::Text(text) = client.0.next().await.unwrap().unwrap() {
            break text;
        }
    };
    let answer: proto::SignalResponse = serde_json::from_str(&text).unwrap();
    assert!(matches!(answer.message, Some(Response::PongResp(_))), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_and_oversized_messages_end_only_their_own_connection() {
    let mut config = config();
    config.limit.signal_message_size_limit = 65_536;
    let (_server, address) = start(&config);
    let path = |name: &str| {
        let token = auth::mint(&Config::dev().keys, name, room("r"), HOUR).unwrap();
        format!("/rtc?access_token={token}&protocol=17")
    };
    let mut witness = Client::connect(address, &path("witness")).await;
    for bad in [Message::binary(vec![0xff; 64]), Message::binary(vec![0; 100_000]), Message::text("{")] {
        let mut client = Client::connect(address, &path("bad")).await;
        let _ = client.0.send(bad).await;
        while client.next().await.is_some() {}
    }
    witness.send(proto::signal_request::Message::PingReq(proto::Ping { timestamp: 1, rtt: 0 })).await;
    witness.until(|m| matches!(m, proto::signal_response::Message::PongResp(_)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_resumes_are_told_to_join_anew_as_the_first_message() {
    let (_server, address) = start(&config());
    let path = format!("/rtc?access_token={}&protocol=17&reconnect=1&sid=PA_gone", token(room("r")));
    let mut client = Client::connect(address, &path).await;
    let Some(proto::signal_response::Message::Leave(leave)) = client.next().await else { panic!("no leave first") };
    assert_eq!(leave.action(), proto::leave_request::Action::Reconnect);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_debug_pages_are_on_their_own_listener_only() {
    let mut config = config();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    config.prometheus.port = free;
    config.prometheus.bind_addresses = vec![Bind("127.0.0.1".parse().unwrap())];
    let (server, address) = start(&config);
    let _client = Client::connect(address, &format!("/rtc?access_token={}&protocol=17", token(room("r")))).await;
    let own = server.started().admin[0];
    let page = get(own, "/metrics").await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("weir_control_joins_total{result=\"joined\"} 1"), "{}", page.body);
    assert!(page.body.contains("weir_control_rooms 1"), "{}", page.body);
    assert_eq!(get(own, "/debug/rooms").await.status, 200);
    for path in ["/metrics", "/debug/rooms"] {
        assert_eq!(get(address, path).await.status, 404);
    }
}

/// A signalling client without media.
struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    async fn connect(address: SocketAddr, path: &str) -> Self {
        match tokio_tungstenite::connect_async(format!("ws://{address}{path}")).await {
            Ok((socket, _)) => Self(socket),
            Err(Error::Http(response)) => panic!("refused with {}", response.status()),
            Err(error) => panic!("{error}"),
        }
    }

    /// The next signal message; `None` at the end.
    async fn next(&mut self) -> Option<proto::signal_response::Message> {
        loop {
            let frame = tokio::time::timeout(Duration::from_secs(10), self.0.next()).await.expect("an answer in time");
            match frame? {
                Ok(Message::Binary(bytes)) => return proto::SignalResponse::decode(bytes).unwrap().message,
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    async fn until<T>(&mut self, wanted: impl Fn(proto::signal_response::Message) -> Option<T>) -> T {
        loop {
            let message = self.next().await.expect("still open");
            if let Some(found) = wanted(message) {
                return found;
            }
        }
    }

    async fn send(&mut self, message: proto::signal_request::Message) {
        let request = proto::SignalRequest { message: Some(message) };
        self.0.send(Message::binary(request.encode_to_vec())).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_admin_port_monitoring_sees_no_rooms() {
    let mut config = config();
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    (config.prometheus_port, config.admin.port) = (free(), free());
    let (server, address) = start(&config);
    let _client = Client::connect(address, &format!("/rtc?access_token={}&protocol=17", token(room("r")))).await;
    let (metrics, admin) = (server.started().metrics[0], server.started().admin[0]);
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!((get(metrics, path).await.status, get(admin, path).await.status), (200, 200), "{path}");
    }
    for path in ["/", "/status.json", "/debug/rooms", "/debug/why"] {
        assert_eq!((get(metrics, path).await.status, get(admin, path).await.status), (404, 200), "{path}");
    }
    let page = get(admin, "/").await.body;
    assert!(page.contains("<h1>weir</h1>") && page.contains(">Room 1</a>"), "{page}");
    assert!(get(admin, "/rooms/1").await.body.contains("Participant PA_"));
    assert_eq!(get(admin, "/rooms/2").await.status, 404);
    server.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_says_so_and_stays_ready_for_those_who_come_back() {
    let mut config = config();
    config.limit.max_rooms = 1;
    config.prometheus.port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (server, address) = start(&config);
    let own = server.started().admin[0];
    assert_eq!(get(own, "/readyz").await.body, "ready\n");
    let path = |name: &str| format!("/rtc?access_token={}&protocol=17", token(room(name)));
    let _client = Client::connect(address, &path("first")).await;
    assert_eq!(upgrade(address, &path("second")).await.status, 503);
    assert_eq!(upgrade(address, &path("first")).await.status, 101, "a room that is there takes joins");
    let ready = get(own, "/readyz").await;
    assert!(ready.status == 200 && ready.body.contains("note: full"), "{}", ready.body);
    let page = get(own, "/metrics").await.body;
    assert!(page.contains("weir_control_full_total{limit=\"rooms\"} 1\n"), "{page}");
    assert!(page.contains("weir_ready 1\n"), "{page}");
    server.drain().await;
}

/// One request over TLS that trusts `root` alone; `None` when there is no handshake.
async fn ask_tls(address: SocketAddr, root: &rcgen::Certificate, request: &str) -> Option<String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.der().clone()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(client));
    let stream = TcpStream::connect(address).await.unwrap();
    let mut stream = connector.connect("weir.example.org".try_into().unwrap(), stream).await.ok()?;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    Some(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn own_tls_serves_and_takes_up_a_renewed_certificate() {
    let folder = std::env::temp_dir().join(format!("weir-http-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut config = config();
    config.tls.cert_file = folder.join("cert.pem").to_string_lossy().into_owned();
    config.tls.key_file = folder.join("key.pem").to_string_lossy().into_owned();
    let renew = || {
        let made = rcgen::generate_simple_self_signed(["weir.example.org".to_owned()]).unwrap();
        std::fs::write(&config.tls.cert_file, made.cert.pem()).unwrap();
        std::fs::write(&config.tls.key_file, made.signing_key.serialize_pem()).unwrap();
        made.cert
    };
    let first = renew();
    let (server, address) = start(&config);
    let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(ask_tls(address, &first, request).await.unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(get(address, "/").await.status, 0, "no plain HTTP on a port with TLS");
    let second = renew();
    server.reload();
    assert!(ask_tls(address, &first, request).await.is_none());
    assert!(ask_tls(address, &second, request).await.unwrap().ends_with("OK"));
    let _ = std::fs::remove_dir_all(folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_count_the_clients_behind_a_proxy_and_not_the_proxy() {
    let mut config = config();
    config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    config.limit.join_rate_per_address = 1;
    let (_server, address) = start(&config);
    // Ten at once, then one a second: an eleventh of one client is refused, whatever it says left of its own address.
    let ask = |client: &'static str| async move {
        let head = "GET /rtc?access_token=x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        send(address, &format!("{head}X-Forwarded-For: {client}\r\n\r\n")).await.status
    };
    let mut refused = 0;
    for _ in 0..30 {
        refused += usize::from(ask("6.6.6.6, 203.0.113.7").await == 429);
    }
    assert!(refused > 0, "the client is bounded");
    assert_eq!(ask("203.0.113.8").await, 401, "another client is not");
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_headers_come_before_everything_and_are_required_of_proxies() {
    let mut config = config();
    config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    config.proxy_protocol = true;
    let (_server, address) = start(&config);
    let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let line = "PROXY TCP4 203.0.113.7 127.0.0.1 56324 443\r\n";
    assert_eq!(send(address, &format!("{line}{request}")).await.status, 200);
    assert_eq!(send(address, request).await.status, 0, "cut");
}
