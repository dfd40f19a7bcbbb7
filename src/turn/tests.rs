//! The server against messages of an independent codec: who gets in, to whom anybody may speak, what everything costs.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "tests may panic"
)]

use aws_lc_rs::hmac;
use rtc_dtls::crypto_provider::default_provider;
use rtc_stun::attributes::*;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{Message as Stun, MessageType, Setter, TransactionId};
use rtc_stun::xoraddr::XorMappedAddress;

use super::*;

mod calls;

const KEY: &[u8] = b"the key of the node";
const ALLOCATE: u16 = 3;
const REFRESH: u16 = 4;
const PERMIT: u16 = 8;
const BIND: u16 = 9;
const UDP_TRANSPORT: (AttrType, &[u8]) = (ATTR_REQUESTED_TRANSPORT, &[17, 0, 0, 0]);

fn peer(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn udp(port: u16) -> Route {
    Route::Udp { local: peer("192.0.2.1:3478"), remote: ([198, 51, 100, 7], port).into() }
}

fn tcp(number: u64) -> Route {
    let connection = crate::transport::route::TcpConnection(number);
    Route::Tcp { connection, remote: ([198, 51, 100, 7], 5_000).into() }
}

fn config() -> Config {
    let peers = ["192.0.2.1:7882", "192.0.2.1:7883", "[2001:db8::1]:7882"];
    Config {
        peers: peers.iter().enumerate().map(|(thread, address)| (peer(address), thread)).collect(),
        key: KEY.to_vec(),
        max_allocations: 20,
        max_per_user: 3,
        max_per_address: 10,
        calls: None,
    }
}

fn password(username: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY);
    hmac::sign(&key, username.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn request(method: u16, transaction: u8, attributes: &[(AttrType, &[u8])]) -> Stun {
    let mut message = Stun::new();
    let mut kind = MessageType::default();
    kind.read_value(method);
    message.build(&[Box::new(kind), Box::new(TransactionId([transaction; 12]))]).unwrap();
    for (attribute, value) in attributes {
        message.add(*attribute, value);
    }
    message
}

fn address(kind: AttrType, address: SocketAddr, message: &mut Stun) {
    XorMappedAddress { ip: address.ip(), port: address.port() }.add_to_as(message, kind).unwrap();
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A server with a clock and somebody who asks it.
struct Bench {
    server: TurnServer,
    now: Instant,
    out: Output,
    username: String,
    password: fn(&str) -> String,
    transaction: u8,
}

impl Bench {
    fn new() -> Self {
        Self::with(config())
    }

    fn with(config: Config) -> Self {
        let (now, username) = (Instant::from_millis(1_000), "3600:PA_anna".to_owned());
        Self { server: TurnServer::new(config, 7), now, out: Output::default(), username, password, transaction: 0 }
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        self.server.handle_timeout(self.now);
    }

    fn give(&mut self, link: Route, packet: &[u8]) -> Vec<Vec<u8>> {
        self.out.clear();
        self.server.handle(self.now, link, packet, &mut self.out);
        assert!(self.out.outbox.datagrams().all(|(to, _)| to == link), "answers go where the request came from");
        self.out.outbox.datagrams().map(|(_, datagram)| datagram.to_vec()).collect()
    }

    fn ask_raw(&mut self, link: Route, packet: &[u8]) -> Stun {
        let [answer] = self.give(link, packet).try_into().unwrap();
        let mut message = Stun::new();
        message.write(&answer).unwrap();
        message
    }

    fn challenge(&mut self, link: Route) -> (Vec<u8>, Vec<u8>) {
        let answer = self.ask_raw(link, &request(ALLOCATE, 1, &[UDP_TRANSPORT]).raw);
        assert_eq!(code(&answer), 401);
        (answer.get(ATTR_REALM).unwrap(), answer.get(ATTR_NONCE).unwrap())
    }

    /// A signed request; its answer must be signed alike.
    fn ask(&mut self, link: Route, method: u16, attributes: &[(AttrType, &[u8])], peers: &[SocketAddr]) -> Stun {
        self.transaction += 1;
        let transaction = self.transaction;
        self.ask_again(link, method, attributes, peers, transaction)
    }

    fn ask_again(
        &mut self,
        link: Route,
        method: u16,
        attributes: &[(AttrType, &[u8])],
        peers: &[SocketAddr],
        transaction: u8,
    ) -> Stun {
        let (realm, nonce) = self.challenge(link);
        let mut message = request(method, transaction, attributes);
        for peer in peers {
            address(ATTR_XOR_PEER_ADDRESS, *peer, &mut message);
        }
        message.add(ATTR_USERNAME, self.username.as_bytes());
        message.add(ATTR_REALM, &realm);
        message.add(ATTR_NONCE, &nonce);
        let provider = default_provider().unwrap();
        let (realm, secret) = (String::from_utf8(realm).unwrap(), (self.password)(&self.username));
        let key = MessageIntegrity::long_term_integrity_key(self.username.clone(), realm, secret, provider.crypto());
        let key = key.unwrap();
        MessageIntegrity::new_raw_integrity_with_provider(key.clone(), provider.crypto()).add_to(&mut message).unwrap();
        let mut answer = self.ask_raw(link, &message.raw);
        if code(&answer) != 401 {
            MessageIntegrity::check(&mut answer, &key, provider.crypto()).unwrap();
        }
        answer
    }

    fn allocate(&mut self, link: Route) -> Stun {
        self.ask(link, ALLOCATE, &[UDP_TRANSPORT], &[])
    }

    /// What was handed to shards: thread, peer, data.
    fn inward(&self) -> Vec<(usize, SocketAddr, Vec<u8>)> {
        let one = |inward: &Inward| match inward.route {
            Route::Turn { peer, .. } => (inward.thread, peer, self.out.inward_bytes[inward.range.clone()].to_vec()),
            _ => panic!("not relayed"),
        };
        self.out.inward.iter().map(one).collect()
    }

    fn send_indication(&mut self, link: Route, to: SocketAddr, data: &[u8]) -> usize {
        let mut message = request(0x16, 9, &[]);
        address(ATTR_XOR_PEER_ADDRESS, to, &mut message);
        message.add(ATTR_DATA, data);
        assert!(self.give(link, &message.raw).is_empty());
        self.out.inward.len()
    }
}

/// 0: success.
fn code(answer: &Stun) -> u16 {
    answer.get(ATTR_ERROR_CODE).map_or(0, |value| u16::from(value[2]) * 100 + u16::from(value[3]))
}

fn relayed(answer: &Stun) -> SocketAddr {
    let mut found = XorMappedAddress::default();
    found.get_from_as(answer, ATTR_XOR_RELAYED_ADDRESS).unwrap();
    SocketAddr::new(found.ip, found.port)
}

#[test]
fn datagrams_go_to_the_shard_behind_a_peer_and_come_back() {
    let mut bench = Bench::new();
    for link in [udp(1), tcp(1)] {
        let answer = bench.allocate(link);
        assert_eq!(code(&answer), 0);
        let mut mapped = XorMappedAddress::default();
        mapped.get_from_as(&answer, ATTR_XORMAPPED_ADDRESS).unwrap();
        assert_eq!(SocketAddr::new(mapped.ip, mapped.port), link.reflexive());
        let media = peer("192.0.2.1:7883");
        assert_eq!(bench.send_indication(link, media, b"too early"), 0, "no permission yet");
        assert_eq!(code(&bench.ask(link, PERMIT, &[], &[media])), 0);
        bench.send_indication(link, media, b"check");
        assert_eq!(bench.inward(), [(1, media, b"check".to_vec())]);
        let Route::Turn { allocation, relayed: from, .. } = bench.out.inward[0].route else { panic!("not relayed") };
        assert_eq!(from, relayed(&answer));
        // Without a channel the answer is a Data indication.
        bench.out.clear();
        bench.server.handle_media(bench.now, allocation, media, b"answer", &mut bench.out);
        let (_, indication) = bench.out.outbox.datagrams().next().unwrap();
        let mut data = Stun::new();
        data.write(indication).unwrap();
        assert_eq!((data.typ.value(), data.get(ATTR_DATA).unwrap()), (0x17, b"answer".to_vec()));
        // With one, four bytes are all it costs.
        assert_eq!(code(&bench.ask(link, BIND, &[(ATTR_CHANNEL_NUMBER, &[0x40, 1, 0, 0])], &[media])), 0);
        bench.give(link, &[0x40, 1, 0, 3, b'r', b't', b'p']);
        assert_eq!(bench.inward(), [(1, media, b"rtp".to_vec())]);
        bench.out.clear();
        bench.server.handle_media(bench.now, allocation, media, b"video", &mut bench.out);
        let (_, framed) = bench.out.outbox.datagrams().next().unwrap();
        let padded: &[u8] = if is_stream(&link) { b"\x40\x01\0\x05video\0\0\0" } else { b"\x40\x01\0\x05video" };
        assert_eq!(framed, padded);
        // From where the client has permitted nothing, nothing comes.
        bench.out.clear();
        bench.server.handle_media(bench.now, allocation, peer("[2001:db8::1]:7882"), b"x", &mut bench.out);
        assert!(bench.out.outbox.is_quiet());
    }
}

/// The list of anchors of abuse: everything but the advertised media addresses, in each form.
#[test]
fn nothing_but_advertised_media_addresses_is_a_peer() {
    let mut bench = Bench::new();
    let v4 = [
        "127.0.0.1:7882",
        "0.0.0.0:7882",
        "10.0.0.1:80",
        "172.16.0.1:80",
        "192.168.0.1:80",
        "169.254.169.254:80",
        "100.64.0.1:1",
        "224.0.0.1:7882",
        "255.255.255.255:7882",
        "8.8.8.8:53",
        "192.0.2.1:22",
        "192.0.2.1:3478",
        "192.0.2.1:7881",
        "192.0.2.1:7884",
        "192.0.2.2:7882",
    ];
    let v6 = [
        "[::1]:7882",
        "[::]:7882",
        "[fc00::1]:80",
        "[fe80::1]:80",
        "[::ffff:127.0.0.1]:7882",
        "[::ffff:192.0.2.1]:7882",
        "[::192.0.2.1]:7882",
        "[64:ff9b::c000:201]:7882",
        "[2002:c000:201::]:7882",
        "[ff02::1]:7882",
        "[2001:db8::1]:22",
        "[2001:db8::1]:7883",
        "[2001:db8::2]:7882",
    ];
    let wish: [(AttrType, &[u8]); 2] = [UDP_TRANSPORT, (ATTR_REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0])];
    assert_eq!(code(&bench.allocate(udp(1))), 0);
    let answer = bench.ask(udp(2), ALLOCATE, &wish, &[]);
    assert!(relayed(&answer).is_ipv6());
    for (link, peers) in [(udp(1), &v4[..]), (udp(2), &v6[..])] {
        // What is permitted for the address must not open its other ports.
        let ours = peer(if link == udp(1) { "192.0.2.1:7882" } else { "[2001:db8::1]:7882" });
        assert_eq!(code(&bench.ask(link, PERMIT, &[], &[ours])), 0);
        for bad in peers {
            assert_eq!(code(&bench.ask(link, PERMIT, &[], &[peer(bad)])), 403, "{bad}");
            assert_eq!(code(&bench.ask(link, PERMIT, &[], &[ours, peer(bad)])), 403, "{bad}");
            let channel: [(AttrType, &[u8]); 1] = [(ATTR_CHANNEL_NUMBER, &[0x40, 0, 0, 0])];
            assert_eq!(code(&bench.ask(link, BIND, &channel, &[peer(bad)])), 403, "{bad}");
            assert_eq!(bench.send_indication(link, peer(bad), b"x"), 0, "{bad}");
        }
        assert_eq!(bench.send_indication(link, ours, b"x"), 1);
    }
    for (link, other) in [(udp(1), "[2001:db8::1]:7882"), (udp(2), "192.0.2.1:7882"), (udp(1), "[::1]:7882")] {
        assert_eq!(code(&bench.ask(link, PERMIT, &[], &[peer(other)])), 443, "{other}");
    }
}

#[test]
fn only_the_challenge_is_larger_than_what_it_answers_and_by_half_at_most() {
    let mut bench = Bench::new();
    let mut hostile: Vec<Vec<u8>> = Vec::new();
    for kind in [1, 2, 3, 4, 6, 7, 8, 9, 0x16, 0x17, 0x101, 0x113, 0x7ff] {
        hostile.push(request(kind, 3, &[]).raw);
        hostile.push(request(kind, 3, &[UDP_TRANSPORT]).raw);
        hostile.push(request(kind, 3, &[UDP_TRANSPORT, (ATTR_SOFTWARE, b"a client of some length")]).raw);
        hostile.push(request(kind, 3, &[(AttrType(0x7abc), b"")]).raw);
        hostile.push(request(kind, 3, &[(ATTR_MESSAGE_INTEGRITY, &[0; 20])]).raw);
        let signed: [(AttrType, &[u8]); 4] =
            [(ATTR_USERNAME, b"1:a"), (ATTR_REALM, b""), (ATTR_NONCE, b""), (ATTR_MESSAGE_INTEGRITY, &[0; 20])];
        hostile.push(request(kind, 3, &signed).raw);
    }
    hostile.extend([
        vec![],
        vec![0],
        vec![0; 20],
        vec![0x40, 0, 0, 0],
        vec![0x40, 0, 0xff, 0xff, 1],
        vec![0xff; 1_200],
    ]);
    for packet in hostile {
        let sent: usize = bench.give(udp(1), &packet).iter().map(Vec::len).sum();
        let is_challenge = bench.out.outbox.datagrams().any(|(_, d)| d.get(20..28) == Some(&[0, 9, 0, 4, 0, 0, 4, 1]));
        let limit = if is_challenge { packet.len() * 3 / 2 } else { packet.len() };
        assert!(sent <= limit, "{sent} bytes for {packet:?}");
    }
    // What browsers begin with does get a challenge.
    bench.challenge(udp(1));
    assert_eq!(bench.server.stats().allocations(), 0);
    // Nobody can pretend to be at the far end of a connection: there Binding has its answer.
    assert_eq!(bench.give(tcp(1), &request(1, 1, &[]).raw).len(), 1);
    assert_eq!(bench.give(udp(1), &request(1, 1, &[]).raw).len(), 0);
}

#[test]
fn credentials_are_for_one_participant_and_a_time() {
    let mut bench = Bench::new();
    for wrong in ["", "PA_anna", "x:PA_anna", ":PA_anna", "-1:PA_anna", "0:PA_anna"] {
        wrong.clone_into(&mut bench.username);
        assert_eq!(code(&bench.allocate(udp(1))), 401, "{wrong}");
    }
    bench.username = "3600:PA_anna".to_owned();
    assert_eq!(code(&bench.allocate(udp(1))), 0);
    // Somebody else's cannot use it.
    bench.username = "3600:PA_ben".to_owned();
    assert_eq!(code(&bench.ask(udp(1), REFRESH, &[], &[])), 441);
    // What was made in time lasts, as long as it is refreshed.
    bench.username = "3600:PA_anna".to_owned();
    for _ in 0..20 {
        bench.pass(500);
        assert_eq!(code(&bench.ask(udp(1), REFRESH, &[], &[])), 0);
    }
    assert_eq!(code(&bench.allocate(udp(2))), 401, "expired");
}

#[test]
fn a_nonce_ends_and_its_successor_is_told() {
    let mut bench = Bench::new();
    // With room for it, and without: then it is the realm.
    for (link, first) in [(tcp(1), true), (udp(1), false)] {
        let (realm, nonce) = bench.challenge(link);
        assert_eq!(nonce.is_empty(), !first);
        let fresh = if first { &nonce } else { &realm };
        assert!(bench.server.secrets.is_fresh(bench.now, &link, fresh));
        assert!(!bench.server.secrets.is_fresh(bench.now, &udp(2), fresh), "it is for one far end");
        bench.pass(3_600);
        let mut message = request(ALLOCATE, 1, &[UDP_TRANSPORT, (ATTR_USERNAME, b"99999:PA_anna")]);
        message.add(ATTR_REALM, &realm);
        message.add(ATTR_NONCE, &nonce);
        message.add(ATTR_MESSAGE_INTEGRITY, &[0; 20]);
        let answer = bench.ask_raw(link, &message.raw);
        assert_eq!(code(&answer), 438);
        let next = (answer.get(ATTR_REALM).unwrap(), answer.get(ATTR_NONCE).unwrap());
        assert_eq!(next.0, b"weir", "there is room in the answer to a signed request");
        assert_ne!(&next.1, fresh);
    }
}

#[test]
fn there_is_a_limit_for_each_user_each_address_and_all() {
    let mut bench = Bench::new();
    for port in 1..=3 {
        assert_eq!(code(&bench.allocate(udp(port))), 0);
    }
    assert_eq!(code(&bench.allocate(udp(4))), 486, "three for a user");
    for port in 4..=10 {
        bench.username = format!("3600:PA_{port}");
        assert_eq!(code(&bench.allocate(udp(port))), 0);
    }
    bench.username = "3600:PA_last".to_owned();
    assert_eq!(code(&bench.allocate(udp(11))), 486, "ten for an address");
    // One that ends makes place.
    bench.username = "3600:PA_4".to_owned();
    assert_eq!(code(&bench.ask(udp(4), REFRESH, &[(ATTR_LIFETIME, &[0; 4])], &[])), 0);
    assert!(!bench.server.is_allocated(&udp(4)));
    assert_eq!(code(&bench.allocate(udp(11))), 0);
    bench.server.link_closed(&udp(11));
    assert_eq!(bench.server.stats().allocations(), 9);
    let mut bench = Bench::with(Config { max_allocations: 1, ..config() });
    assert_eq!(code(&bench.allocate(udp(1))), 0);
    assert_eq!(code(&bench.allocate(udp(2))), 508);
    // Nothing is left of what has ended.
    bench.pass(600);
    assert_eq!(bench.server.stats().allocations(), 0);
    assert!(bench.server.per_user.is_empty() && bench.server.per_address.is_empty() && bench.server.links.is_empty());
    assert!(bench.server.relayed.is_empty() && bench.server.next_timeout().is_none());
}

#[test]
fn lifetimes_permissions_and_channels_end_and_are_renewed() {
    let mut bench = Bench::new();
    let media = peer("192.0.2.1:7882");
    let lifetime = |answer: &Stun| number(&answer.get(ATTR_LIFETIME).unwrap());
    assert_eq!(lifetime(&bench.allocate(udp(1))), 600);
    assert_eq!(lifetime(&bench.ask(udp(1), REFRESH, &[(ATTR_LIFETIME, &[0, 0, 0, 9])], &[])), 600);
    assert_eq!(lifetime(&bench.ask(udp(1), REFRESH, &[(ATTR_LIFETIME, &[0xff; 4])], &[])), 3_600);
    let channel: [(AttrType, &[u8]); 1] = [(ATTR_CHANNEL_NUMBER, &[0x40, 7, 0, 0])];
    assert_eq!(code(&bench.ask(udp(1), BIND, &channel, &[media])), 0);
    let speaks = |bench: &mut Bench| {
        bench.give(udp(1), &[0x40, 7, 0, 1, b'x']);
        bench.out.inward.len()
    };
    bench.pass(299);
    assert_eq!(speaks(&mut bench), 1);
    bench.pass(1);
    assert_eq!(speaks(&mut bench), 0, "the permission is over");
    assert_eq!(code(&bench.ask(udp(1), PERMIT, &[], &[media])), 0);
    assert_eq!(speaks(&mut bench), 1, "the channel is not");
    bench.pass(299);
    assert_eq!(code(&bench.ask(udp(1), PERMIT, &[], &[media])), 0);
    bench.pass(1);
    assert_eq!(speaks(&mut bench), 0, "now it is");
    assert_eq!(code(&bench.ask(udp(1), BIND, &channel, &[media])), 0);
    // Neither the number nor the peer may be bound otherwise.
    assert_eq!(code(&bench.ask(udp(1), BIND, &channel, &[peer("192.0.2.1:7883")])), 400);
    assert_eq!(code(&bench.ask(udp(1), BIND, &[(ATTR_CHANNEL_NUMBER, &[0x40, 8, 0, 0])], &[media])), 400);
    for bad in [[0x3f, 0xff, 0, 0], [0x50, 0, 0, 0], [0x7f, 0xff, 0, 0]] {
        assert_eq!(code(&bench.ask(udp(1), BIND, &[(ATTR_CHANNEL_NUMBER, &bad)], &[media])), 400);
    }
}

#[test]
fn a_lost_answer_is_given_again_and_a_second_allocation_is_not() {
    let mut bench = Bench::new();
    let first = bench.ask_again(udp(1), ALLOCATE, &[UDP_TRANSPORT], &[], 77);
    let again = bench.ask_again(udp(1), ALLOCATE, &[UDP_TRANSPORT], &[], 77);
    assert_eq!((relayed(&first), code(&again)), (relayed(&again), 0));
    assert_eq!(code(&bench.allocate(udp(1))), 437);
    assert_eq!(code(&bench.ask(udp(2), REFRESH, &[], &[])), 437, "there is none");
    assert_eq!(code(&bench.ask(udp(2), ALLOCATE, &[(ATTR_REQUESTED_TRANSPORT, &[6, 0, 0, 0])], &[])), 442);
    assert_eq!(code(&bench.ask(udp(2), ALLOCATE, &[], &[])), 400);
    assert_eq!(code(&bench.ask(udp(2), ALLOCATE, &[UDP_TRANSPORT, (ATTR_EVEN_PORT, &[0x80])], &[])), 508);
    assert_eq!(code(&bench.ask(udp(2), ALLOCATE, &[UDP_TRANSPORT, (AttrType(0x7777), b"")], &[])), 420);
}

#[test]
fn messages_of_a_connection_are_found_however_they_are_cut() {
    let stun = request(ALLOCATE, 1, &[UDP_TRANSPORT]).raw;
    let stream = [&stun[..], b"\x40\x01\0\x05video\0\0\0", b"\x40\x02\0\x04data", &stun].concat();
    for step in [1, 3, 7, 1_000] {
        let (mut frames, mut found) = (frame::Frames::default(), Vec::new());
        for part in stream.chunks(step) {
            frames.extend(part);
            while let Some(message) = frames.take().unwrap() {
                found.push(message.to_vec());
            }
        }
        assert_eq!(found, [&stun[..], b"\x40\x01\0\x05video", b"\x40\x02\0\x04data", &stun]);
    }
    for bad in [&b"GET / HTTP/1.1"[..], &[0x40, 0, 0xff, 0xff], &[0, 1, 0x80, 0], &[0, 1, 0, 3], &[0x80, 0, 0, 0]] {
        let mut frames = frame::Frames::default();
        frames.extend(bad);
        assert_eq!(frames.take(), Err(frame::NotTurn), "{bad:?}");
    }
}
