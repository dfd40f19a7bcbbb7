//! TURN for legacy one-to-one calls, on real sockets: a whole node on loopback, a client of its own over UDP and TCP with
//! credentials as a homeserver makes them, and a peer that is nobody's relay.
//!
//! Loopback is no public address: the node allows it as an operator may allow a block. 127.0.0.1 is the node's own and
//! stays refused; peers are on 127.0.0.2.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests may fail by panicking")]
#![allow(
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    reason = "a test of a real process in real time"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use md5::{Digest, Md5};
use weir::config::{Bind, Config, PortRange, Secret};
use weir::control::Server;

const SECRET: &str = "what-the-homeserver-has-as-turn_shared_secret";
const PATIENCE: Duration = Duration::from_secs(20);
const PORTS: (u16, u16) = (42_000, 42_999);

const ALLOCATE: u16 = 3;
const REFRESH: u16 = 4;
const PERMIT: u16 = 8;
const BIND: u16 = 9;

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start() -> (Server, SocketAddr) {
    // Somebody else may take a port in the moment between.
    let started = (0..5).find_map(|_| {
        let mut config = Config::dev();
        config.port = 0;
        config.rtc.udp_port = PortRange { first: 0, last: None };
        config.rtc.tcp_port = 0;
        config.rtc.enable_loopback_candidate = false;
        config.rtc.node_ip = "127.0.0.1".to_owned();
        config.prometheus.port = free_port();
        config.prometheus.bind_addresses = vec![Bind("127.0.0.1".parse().unwrap())];
        config.turn.enabled = true;
        let port = free_port();
        (config.turn.udp_port, config.turn.tcp_port) = (port, port);
        let calls = &mut config.turn.legacy_calls;
        calls.enabled = true;
        calls.shared_secrets = vec![Secret::new(SECRET)];
        (calls.relay_range_start, calls.relay_range_end) = PORTS;
        // Loopback is faster than any line; what a rate does is seen without sockets.
        (calls.per_user_kbps, calls.total_kbps) = (10_000_000, 10_000_000);
        calls.allow_restricted_peer_cidrs = vec!["127.0.0.0/8".parse().unwrap()];
        Server::start(&config).ok().map(|server| (server, SocketAddr::from(([127, 0, 0, 1], port))))
    });
    started.expect("a node that starts")
}

enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

/// A TURN client, as small as it can be.
struct Client {
    link: Link,
    /// Of a connection, what has been read and is no whole message.
    rest: Vec<u8>,
    username: String,
    password: String,
    realm: Vec<u8>,
    nonce: Vec<u8>,
    transaction: u8,
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// As Synapse answers `/voip/turnServer`.
fn credentials(user: &str, expires: u64) -> (String, String) {
    let username = format!("{expires}:{user}");
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, SECRET.as_bytes());
    let password = base64::engine::general_purpose::STANDARD.encode(hmac::sign(&key, username.as_bytes()));
    (username, password)
}

impl Client {
    fn new(server: SocketAddr, over_tcp: bool, (username, password): (String, String)) -> Self {
        let link = if over_tcp {
            let stream = TcpStream::connect(server).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            Link::Tcp(stream)
        } else {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(server).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            Link::Udp(socket)
        };
        Self { link, rest: vec![], username, password, realm: vec![], nonce: vec![], transaction: 0 }
    }

    fn send(&mut self, message: &[u8]) {
        match &mut self.link {
            Link::Udp(socket) => assert_eq!(socket.send(message).unwrap(), message.len()),
            Link::Tcp(stream) => {
                let padding = [0; 4];
                stream.write_all(message).unwrap();
                stream.write_all(&padding[..message.len().next_multiple_of(4) - message.len()]).unwrap();
            }
        }
    }

    /// The next message, without padding.
    fn receive(&mut self) -> Vec<u8> {
        match &mut self.link {
            Link::Udp(socket) => {
                let mut buffer = [0; 2_048];
                let length = socket.recv(&mut buffer).expect("an answer");
                buffer[..length].to_vec()
            }
            Link::Tcp(stream) => loop {
                if let Some([kind, _, high, low]) = self.rest.first_chunk().copied() {
                    let length = usize::from(u16::from_be_bytes([high, low])) + if kind < 4 { 20 } else { 4 };
                    if self.rest.len() >= length.next_multiple_of(4) {
                        let message = self.rest[..length].to_vec();
                        self.rest.drain(..length.next_multiple_of(4));
                        return message;
                    }
                }
                let mut buffer = [0; 2_048];
                let read = stream.read(&mut buffer).expect("an answer");
                assert!(read > 0, "the connection was closed");
                self.rest.extend_from_slice(&buffer[..read]);
            },
        }
    }

    fn message(&mut self, kind: u16, attributes: &[u8]) -> Vec<u8> {
        self.transaction += 1;
        let length = u16::try_from(attributes.len()).unwrap();
        let transaction = [self.transaction; 12];
        let head = [&kind.to_be_bytes()[..], &length.to_be_bytes(), &[0x21, 0x12, 0xa4, 0x42], &transaction];
        [&head.concat(), attributes].concat()
    }

    /// Ask, with what the server challenged with; gives the answer's attributes, or the code of an error.
    fn ask(&mut self, method: u16, attributes: &[u8]) -> Result<Vec<(u16, Vec<u8>)>, u16> {
        let mut all = attributes.to_vec();
        for (kind, value) in [(6, self.username.as_bytes()), (0x14, &self.realm), (0x15, &self.nonce)] {
            all.extend(attribute(kind, value));
        }
        let key = Md5::new()
            .chain_update(&self.username)
            .chain_update(":")
            .chain_update(&self.realm)
            .chain_update(":")
            .chain_update(&self.password)
            .finalize();
        let mut request = self.message(method, &all);
        let covered = (request.len() - 20 + 24) as u16;
        request[2..4].copy_from_slice(&covered.to_be_bytes());
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key), &request);
        request.extend(attribute(8, tag.as_ref()));
        self.answer(&request)
    }

    fn answer(&mut self, request: &[u8]) -> Result<Vec<(u16, Vec<u8>)>, u16> {
        self.send(request);
        let answer = self.receive();
        assert_eq!(answer[8..20], request[8..20], "an answer to something else");
        let found = attributes(&answer);
        match found.iter().find(|(kind, _)| *kind == 9) {
            Some((_, code)) => {
                let code = u16::from(code[2]) * 100 + u16::from(code[3]);
                for (kind, value) in &found {
                    match kind {
                        0x14 => self.realm.clone_from(value),
                        0x15 => self.nonce.clone_from(value),
                        _ => {}
                    }
                }
                Err(code)
            }
            None => Ok(found),
        }
    }

    fn allocate(&mut self) -> Result<SocketAddr, u16> {
        let wish = attribute(0x19, &[17, 0, 0, 0]);
        let challenge = self.message(ALLOCATE, &wish);
        assert_eq!(self.answer(&challenge), Err(401));
        let answer = self.ask(ALLOCATE, &wish)?;
        let (_, relayed) = answer.iter().find(|(kind, _)| *kind == 0x16).expect("a relayed address");
        Ok(unmask(relayed))
    }

    fn permit(&mut self, peer: SocketAddr) -> Result<(), u16> {
        self.ask(PERMIT, &masked(peer)).map(|_| ())
    }

    fn indicate(&mut self, peer: SocketAddr, data: &[u8]) {
        let message = [masked(peer), attribute(0x13, data)].concat();
        let message = self.message(0x16, &message);
        self.send(&message);
    }

    /// What a peer sent, in whatever form it came.
    fn data(&mut self) -> Vec<u8> {
        let message = self.receive();
        if message[0] == 0x40 {
            return message[4..].to_vec();
        }
        assert_eq!(message[..2], [0, 0x17], "data");
        attributes(&message).into_iter().find(|(kind, _)| *kind == 0x13).unwrap().1
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = [&kind.to_be_bytes()[..], &(value.len() as u16).to_be_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn attributes(message: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let (mut found, mut rest) = (Vec::new(), &message[20..]);
    while let [k0, k1, n0, n1, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*n0, *n1]));
        found.push((u16::from_be_bytes([*k0, *k1]), tail[..length].to_vec()));
        rest = tail.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// XOR-PEER-ADDRESS of IPv4.
fn masked(peer: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(peer) = peer else { panic!("IPv4 only") };
    let port = (peer.port() ^ 0x2112).to_be_bytes();
    let ip = (peer.ip().to_bits() ^ 0x2112_a442).to_be_bytes();
    attribute(0x12, &[&[0, 1], &port[..], &ip].concat())
}

fn unmask(value: &[u8]) -> SocketAddr {
    let port = u16::from_be_bytes([value[2], value[3]]) ^ 0x2112;
    let ip = u32::from_be_bytes(value[4..8].try_into().unwrap()) ^ 0x2112_a442;
    SocketAddr::from((ip.to_be_bytes(), port))
}

fn peer_socket() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.2:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn hear(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2_048];
    let (length, from) = socket.recv_from(&mut buffer).expect("a datagram");
    (buffer[..length].to_vec(), from)
}

fn metrics(server: &Server) -> String {
    let mut stream = TcpStream::connect(server.started().metrics[0]).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_relayed_both_ways_and_its_port_is_given_back() {
    let (server, turn) = start();
    for over_tcp in [false, true] {
        let mut client = Client::new(turn, over_tcp, credentials("@anna:example.org", unix_now() + 600));
        let relayed = client.allocate().unwrap();
        assert!(relayed.ip().is_loopback() && (PORTS.0..=PORTS.1).contains(&relayed.port()), "{relayed}");
        let (peer, address) = peer_socket();
        client.permit(address).unwrap();
        client.indicate(address, b"check");
        assert_eq!(hear(&peer), (b"check".to_vec(), relayed));
        peer.send_to(b"answer", relayed).unwrap();
        assert_eq!(client.data(), b"answer");
        let channel = [attribute(0x0c, &[0x40, 5, 0, 0]), masked(address)].concat();
        client.ask(BIND, &channel).unwrap();
        for number in 0..50_u8 {
            client.send(&[0x40, 5, 0, 5, b'r', b't', b'p', b'-', number]);
            assert_eq!(hear(&peer), (vec![b'r', b't', b'p', b'-', number], relayed));
            peer.send_to(&[number; 1_200], relayed).unwrap();
            assert_eq!(client.data(), [number; 1_200]);
        }
        // Nobody else may send to it: what a stranger sent before does not come instead of what the peer sends.
        let stranger = UdpSocket::bind("127.0.0.3:0").unwrap();
        stranger.send_to(b"let me in", relayed).unwrap();
        peer.send_to(b"still here", relayed).unwrap();
        assert_eq!(client.data(), b"still here");
        client.ask(REFRESH, &attribute(0x0d, &[0; 4])).unwrap();
        let is_free = || UdpSocket::bind(relayed).is_ok();
        let deadline = std::time::Instant::now() + PATIENCE;
        while !is_free() {
            assert!(std::time::Instant::now() < deadline, "the port is still taken");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let deadline = std::time::Instant::now() + PATIENCE;
    let lines = [
        "weir_turn_allocations_made_total{kind=\"legacy_calls\"} 2\n",
        "weir_turn_allocations{kind=\"legacy_calls\"} 0\n",
        "weir_turn_datagrams_total{direction=\"to_peers\",kind=\"legacy_calls\"} 102\n",
        "weir_turn_datagrams_total{direction=\"to_clients\",kind=\"legacy_calls\"} 104\n",
        "weir_turn_lost_total{reason=\"not_permitted\"} 2\n",
        "weir_turn_allocations_made_total{kind=\"media\"} 0\n",
    ];
    while !lines.iter().all(|line| metrics(&server).contains(line)) {
        let page = metrics(&server);
        let turn: Vec<_> = page.lines().filter(|line| line.starts_with("weir_turn")).collect();
        assert!(std::time::Instant::now() < deadline, "{turn:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_relayed_clients_hear_each_other() {
    let (_server, turn) = start();
    let mut anna = Client::new(turn, false, credentials("@anna:example.org", unix_now() + 600));
    let mut ben = Client::new(turn, true, credentials("@ben:example.org", unix_now() + 600));
    let (a, b) = (anna.allocate().unwrap(), ben.allocate().unwrap());
    anna.permit(b).unwrap();
    ben.permit(a).unwrap();
    anna.indicate(b, b"from anna");
    assert_eq!(ben.data(), b"from anna");
    ben.indicate(a, b"from ben");
    assert_eq!(anna.data(), b"from ben");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_not_be_is_refused() {
    let (server, turn) = start();
    let (username, password) = credentials("@anna:example.org", unix_now() - 60);
    assert_eq!(Client::new(turn, false, (username.clone(), password)).allocate(), Err(401), "expired");
    let later = username.replacen(|c: char| c.is_ascii_digit(), "9", 1);
    assert_eq!(Client::new(turn, true, (later, "guessed".to_owned())).allocate(), Err(401));
    let mut client = Client::new(turn, false, credentials("@anna:example.org", unix_now() + 600));
    client.allocate().unwrap();
    let media = server.started().udp[0].port();
    for bad in [
        SocketAddr::from(([127, 0, 0, 1], media)),
        SocketAddr::from(([127, 0, 0, 1], turn.port())),
        SocketAddr::from(([127, 0, 0, 1], server.started().http[0].port())),
        SocketAddr::from(([10, 0, 0, 1], 80)),
        SocketAddr::from(([169, 254, 169, 254], 80)),
        SocketAddr::from(([0, 0, 0, 0], 80)),
        SocketAddr::from(([224, 0, 0, 1], 80)),
    ] {
        assert_eq!(client.permit(bad), Err(403), "{bad}");
    }
    // Public ones may be permitted; nothing is sent to it here.
    client.permit(SocketAddr::from(([192, 175, 48, 1], 9))).unwrap();
}
