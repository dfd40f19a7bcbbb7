//! Legacy calls of a homeserver's users: who gets in, to whom they may speak, how much, and that they and participants
//! never get what is the others'.

use base64::Engine as _;

use super::*;
use crate::base::Bitrate;

const SECRET: &[u8] = b"what the homeserver knows as turn_shared_secret";
const OTHER_SECRET: &[u8] = b"that of another homeserver";
/// A date, Unix time.
const TODAY: u64 = 1_800_000_000;
const RELAYED: &str = "192.0.2.1:50000";
const FAR: &str = "8.8.8.8:4000";
const IPV6: (AttrType, &[u8]) = (ATTR_REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
const CHANNEL: (AttrType, &[u8]) = (ATTR_CHANNEL_NUMBER, &[0x40, 0, 0, 0]);

/// As Synapse makes it.
fn shared(username: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, SECRET);
    base64::engine::general_purpose::STANDARD.encode(hmac::sign(&key, username.as_bytes()))
}

fn block(network: &str, prefix: u8) -> Block {
    Block { network: network.parse().unwrap(), prefix }
}

fn rules() -> PeerRules {
    let own = ["192.0.2.1", "2001:db8::1", "10.0.0.5", "9.9.9.9", "127.0.0.1", "::1"];
    PeerRules {
        relayed: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        ports: 50_000..=50_099,
        own: own.iter().map(|ip| ip.parse().unwrap()).collect(),
        allowed: vec![],
        denied: vec![block("1.2.3.0", 24)],
    }
}

fn calls() -> CallsConfig {
    CallsConfig {
        secrets: vec![OTHER_SECRET.to_vec(), SECRET.to_vec()],
        rules: rules(),
        max_allocations: 8,
        max_per_user: 4,
        user_rate: Bitrate::from_kbps(800),
        total_rate: Bitrate::from_kbps(1_600),
    }
}

fn user(name: &str) -> String {
    format!("{}:@{name}:example.org", TODAY + 600)
}

fn bench_of(calls: CallsConfig) -> Bench {
    let mut bench = Bench::with(Config { calls: Some(calls), ..config() });
    bench.server.set_date(TODAY);
    bench.username = user("anna");
    bench.password = shared;
    bench.settle();
    // A moment in which meters fill.
    bench.pass(1);
    bench
}

fn bench() -> Bench {
    bench_of(calls())
}

impl Bench {
    /// Open and close relayed ports as the thread does. Gives those that were closed.
    fn settle(&mut self) -> Vec<SocketAddr> {
        let ended = std::iter::from_fn(|| self.server.next_ended_relay()).collect();
        for ip in [peer(RELAYED).ip(), peer("[2001:db8::1]:0").ip()] {
            for _ in 0..self.server.relays_wanted(ip.is_ipv6()) {
                self.transaction += 1;
                self.server.offer_relay(SocketAddr::new(ip, 50_000 + u16::from(self.transaction)));
            }
        }
        ended
    }

    fn allocated(&mut self, link: Route) -> SocketAddr {
        let answer = self.allocate(link);
        assert_eq!(code(&answer), 0);
        self.settle();
        self.pass(1);
        relayed(&answer)
    }

    fn permit(&mut self, link: Route, to: &str) -> u16 {
        code(&self.ask(link, PERMIT, &[], &[peer(to)]))
    }

    /// What leaves for peers outside.
    fn outward(&self) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
        let bytes = |it: &Outward| self.out.outward_bytes[it.range.clone()].to_vec();
        self.out.outward.iter().map(|it| (it.relayed, it.peer, bytes(it))).collect()
    }

    /// Datagrams to clients after a peer sent one.
    fn heard(&mut self, to: SocketAddr, from: &str, data: &[u8]) -> Vec<(Route, Vec<u8>)> {
        self.out.clear();
        self.server.handle_peer(self.now, to, peer(from), data, &mut self.out);
        self.to_clients()
    }

    fn to_clients(&self) -> Vec<(Route, Vec<u8>)> {
        self.out.outbox.datagrams().map(|(to, datagram)| (to, datagram.to_vec())).collect()
    }

    fn indicate(&mut self, link: Route, to: SocketAddr, data: &[u8]) -> usize {
        let mut message = request(0x16, 9, &[]);
        address(ATTR_XOR_PEER_ADDRESS, to, &mut message);
        message.add(ATTR_DATA, data);
        self.out.clear();
        self.server.handle(self.now, link, &message.raw, &mut self.out);
        assert!(self.out.inward.is_empty(), "nothing of a legacy call reaches a shard");
        self.out.outward.len() + self.out.outbox.datagrams().count()
    }
}

fn data_of(datagram: &[u8]) -> (u16, Vec<u8>) {
    let mut message = Stun::new();
    message.write(datagram).unwrap();
    (message.typ.value(), message.get(ATTR_DATA).unwrap())
}

#[test]
fn a_homeservers_user_relays_to_a_public_peer_and_back() {
    let mut bench = bench();
    for link in [udp(1), tcp(1)] {
        let relayed = bench.allocated(link);
        assert_eq!(relayed.ip(), peer(RELAYED).ip());
        assert_eq!(bench.indicate(link, peer(FAR), b"too early"), 0);
        assert!(bench.heard(relayed, FAR, b"too early").is_empty());
        assert_eq!(bench.permit(link, FAR), 0);
        assert_eq!(bench.indicate(link, peer(FAR), b"check"), 1);
        assert_eq!(bench.outward(), [(relayed, peer(FAR), b"check".to_vec())]);
        let answer = bench.heard(relayed, FAR, b"answer");
        assert_eq!((answer[0].0, data_of(&answer[0].1)), (link, (0x17, b"answer".to_vec())));
        // A permission is for all ports of an address, and for no other.
        assert_eq!(bench.heard(relayed, "8.8.8.8:9", b"x").len(), 1);
        assert!(bench.heard(relayed, "8.8.4.4:4000", b"x").is_empty());
        assert_eq!(code(&bench.ask(link, BIND, &[CHANNEL], &[peer(FAR)])), 0);
        bench.give(link, &[0x40, 0, 0, 3, b'r', b't', b'p']);
        assert_eq!(bench.outward(), [(relayed, peer(FAR), b"rtp".to_vec())]);
        let video = bench.heard(relayed, FAR, b"video");
        assert!(video[0].1.starts_with(b"\x40\x00\x00\x05video"));
    }
    let stats = bench.server.stats();
    assert_eq!((stats.calls.allocations, stats.calls.to_peers.bytes), (2, 2 * 8));
    assert_eq!((stats.calls.to_clients.datagrams, stats.media), (6, UseStats::default()));
}

/// The list of anchors of abuse, for those who may speak to the Internet.
#[test]
fn nothing_private_special_or_of_this_node_is_a_peer() {
    let v4 = [
        "127.0.0.1:80",
        "127.255.0.1:80",
        "0.0.0.0:80",
        "0.1.2.3:80",
        "10.0.0.1:80",
        "10.0.0.5:80",
        "172.16.0.1:80",
        "172.31.255.255:80",
        "192.168.0.1:80",
        "169.254.169.254:80",
        "100.64.0.1:80",
        "100.127.255.254:80",
        "192.0.0.1:80",
        "198.18.0.1:80",
        "198.51.100.1:80",
        "203.0.113.9:80",
        "224.0.0.1:80",
        "239.255.255.255:80",
        "240.0.0.1:80",
        "255.255.255.255:80",
        // This node: a service of it, TURN, media, ICE-TCP; ports below and above the relayed ones.
        "192.0.2.1:22",
        "192.0.2.1:3478",
        "192.0.2.1:7882",
        "192.0.2.1:7881",
        "192.0.2.1:49999",
        "192.0.2.1:50100",
        // Another public address of it, and what the operator denies.
        "9.9.9.9:443",
        "1.2.3.4:443",
    ];
    let v6 = [
        "[::1]:80",
        "[::]:80",
        "[fc00::1]:80",
        "[fd12:3456::1]:80",
        "[fe80::1]:80",
        "[fec0::1]:80",
        "[ff02::1]:80",
        "[::ffff:127.0.0.1]:80",
        "[::ffff:10.0.0.1]:80",
        "[::ffff:8.8.8.8]:80",
        "[::127.0.0.1]:80",
        "[::8.8.8.8]:80",
        "[64:ff9b::7f00:1]:80",
        "[64:ff9b:1::1]:80",
        "[2002:7f00:1::]:80",
        "[2002:808:808::1]:80",
        "[2001::1]:80",
        "[2001:db8::2]:80",
        "[2001:db8::1]:7882",
        "[2001:db8::1]:22",
        "[3fff::1]:80",
        "[100::1]:80",
    ];
    let mut bench = bench();
    bench.allocated(udp(1));
    let answer = bench.ask(udp(2), ALLOCATE, &[UDP_TRANSPORT, IPV6], &[]);
    assert!(relayed(&answer).is_ipv6());
    for (link, peers, good) in [(udp(1), &v4[..], FAR), (udp(2), &v6[..], "[2606:4700::1111]:80")] {
        assert_eq!(bench.permit(link, good), 0);
        for bad in peers {
            assert_eq!(bench.permit(link, bad), 403, "{bad}");
            assert_eq!(code(&bench.ask(link, PERMIT, &[], &[peer(good), peer(bad)])), 403, "{bad}");
            assert_eq!(code(&bench.ask(link, BIND, &[CHANNEL], &[peer(bad)])), 403, "{bad}");
            assert_eq!(bench.indicate(link, peer(bad), b"x"), 0, "{bad}");
        }
        bench.pass(1);
        assert_eq!(bench.indicate(link, peer(good), b"x"), 1);
    }
    for (link, other) in [(udp(1), "[2606:4700::1111]:80"), (udp(1), "[::1]:80"), (udp(2), FAR)] {
        assert_eq!(bench.permit(link, other), 443, "{other}");
    }
    assert_eq!(bench.server.stats().refused(Refusal::Peer), 3 * (v4.len() + v6.len()) as u64);
}

#[test]
fn an_operator_may_allow_a_private_block_but_no_address_of_the_node() {
    let allowed = vec![block("10.0.0.0", 8), block("127.0.0.0", 8), block("::", 0), block("192.0.2.0", 24)];
    let mut bench = bench_of(CallsConfig { rules: PeerRules { allowed, ..rules() }, ..calls() });
    bench.allocated(udp(1));
    for good in ["10.0.0.6:80", "127.0.0.2:80", "192.0.2.2:80"] {
        assert_eq!(bench.permit(udp(1), good), 0, "{good}");
    }
    for bad in ["10.0.0.5:80", "127.0.0.1:80", "192.0.2.1:7882", "11.0.0.1:0", "192.168.0.1:1", "1.2.3.4:5"] {
        let expected = if bad.starts_with("11.") { 0 } else { 403 };
        assert_eq!(bench.permit(udp(1), bad), expected, "{bad}");
    }
    code(&bench.ask(udp(2), ALLOCATE, &[UDP_TRANSPORT, IPV6], &[]));
    for bad in ["[::ffff:10.0.0.6]:80", "[::]:1", "[ff02::1]:80", "[::1]:80"] {
        assert_eq!(bench.permit(udp(2), bad), 403, "{bad}");
    }
    assert_eq!(bench.permit(udp(2), "[fd00::6]:80"), 0);
}

#[test]
fn the_two_uses_never_mix() {
    let mut bench = bench();
    let media = "192.0.2.1:7882";
    // Each with its own secret only.
    bench.username = "3600:PA_anna".to_owned();
    assert_eq!(code(&bench.allocate(udp(1))), 401, "a participant's name proved by a homeserver");
    (bench.username, bench.password) = (user("anna"), password);
    assert_eq!(code(&bench.allocate(udp(1))), 401, "a user's name proved by the node's key");
    for wrong in ["", "1800000600", "x:@anna:example.org", "-1:@anna:example.org"] {
        (bench.username, bench.password) = (wrong.to_owned(), shared);
        assert_eq!(code(&bench.allocate(udp(1))), 401, "{wrong}");
    }
    (bench.username, bench.password) = (user("anna"), |name: &str| shared(&format!("{name} ")));
    assert_eq!(code(&bench.allocate(udp(1))), 401);
    // A participant reaches media and nobody else.
    (bench.username, bench.password) = ("3600:PA_anna".to_owned(), password);
    assert_eq!(code(&bench.allocate(udp(1))), 0);
    assert_eq!(bench.permit(udp(1), media), 0);
    for outside in [FAR, "192.0.2.1:50001"] {
        assert_eq!(bench.permit(udp(1), outside), 403);
    }
    // A user reaches others and no media; somebody else's allocation is not theirs either.
    (bench.username, bench.password) = (user("anna"), shared);
    assert_eq!(bench.permit(udp(1), FAR), 441);
    bench.allocated(udp(2));
    assert_eq!(bench.permit(udp(2), media), 403);
    assert_eq!(bench.permit(udp(2), FAR), 0);
    let stats = bench.server.stats();
    assert_eq!((stats.media.allocations, stats.calls.allocations), (1, 1));
    // Where it is off, a homeserver's secret is worth nothing.
    let mut off = Bench::new();
    (off.username, off.password) = (user("anna"), shared);
    assert_eq!(code(&off.allocate(udp(1))), 401);
    assert_eq!((off.server.relays_wanted(false), off.server.next_ended_relay()), (0, None));
}

/// Both behind relays of this node: nothing has to go through a socket, or round through a NAT.
#[test]
fn allocations_reach_each_other_in_process() {
    let mut bench = bench();
    let anna = bench.allocated(udp(1));
    bench.username = user("ben");
    let ben = bench.allocated(tcp(2));
    let (a, b) = (anna.to_string(), ben.to_string());
    bench.username = user("anna");
    assert_eq!(bench.permit(udp(1), &b), 0);
    assert_eq!(bench.indicate(udp(1), ben, b"hello"), 0, "the other has not permitted it");
    bench.username = user("ben");
    assert_eq!(bench.permit(tcp(2), &a), 0);
    assert_eq!(bench.indicate(udp(1), ben, b"hello"), 1);
    let got = bench.to_clients();
    assert_eq!((got[0].0, data_of(&got[0].1)), (tcp(2), (0x17, b"hello".to_vec())));
    bench.pass(1);
    assert_eq!(bench.indicate(tcp(2), anna, b"hello"), 1);
    // A relayed port that is nobody's; and one of this node's addresses that comes by a socket is no allocation.
    assert_eq!(bench.indicate(udp(1), peer("192.0.2.1:50099"), b"x"), 0);
    assert!(bench.heard(anna, &b, b"x").is_empty());
}

#[test]
fn credentials_end_by_the_date_and_calls_a_day_later_at_most() {
    let mut bench = bench();
    bench.allocated(udp(1));
    bench.server.set_date(TODAY + 601);
    assert_eq!(code(&bench.allocate(udp(2))), 401, "expired");
    assert_eq!(bench.server.stats().refused(Refusal::Expired), 1);
    assert_eq!(code(&bench.ask(udp(1), REFRESH, &[], &[])), 0, "what was made in time lasts");
    bench.server.set_date(TODAY + 600 + 86_401);
    assert_eq!(code(&bench.ask(udp(1), REFRESH, &[], &[])), 401, "but not for ever");
    bench.pass(600);
    assert_eq!(bench.server.stats().allocations(), 0);
}

#[test]
fn each_user_has_so_many_allocations_and_all_together_and_ports_come_back() {
    let mut bench = bench();
    let mut ports: Vec<SocketAddr> = (1..=4).map(|port| bench.allocated(udp(port))).collect();
    assert_eq!(code(&bench.allocate(udp(5))), 486);
    bench.username = user("ben");
    ports.extend((11..=14).map(|port| bench.allocated(udp(port))));
    bench.username = user("carl");
    assert_eq!(code(&bench.allocate(tcp(21))), 508, "eight in all");
    assert_eq!(bench.server.relays_wanted(false), 0);
    let count = ports.len();
    ports.sort();
    ports.dedup();
    assert_eq!(ports.len(), count, "a port each");
    // Participants have their own.
    (bench.username, bench.password) = ("3600:PA_anna".to_owned(), password);
    assert_eq!(code(&bench.allocate(udp(30))), 0);
    (bench.username, bench.password) = (user("anna"), shared);
    assert_eq!(code(&bench.ask(udp(1), REFRESH, &[(ATTR_LIFETIME, &[0; 4])], &[])), 0);
    let ended = bench.settle();
    assert!(ended.len() == 1 && ports.contains(&ended[0]));
    assert!(bench.heard(ended[0], FAR, b"x").is_empty());
    bench.pass(600);
    assert_eq!(bench.settle().len(), 7);
    let stats = bench.server.stats();
    assert_eq!((stats.calls.allocations, stats.refused(Refusal::UserQuota)), (0, 1));
}

#[test]
fn nobody_relays_more_than_the_rate_and_all_not_more_than_theirs() {
    let mut bench = bench_of(CallsConfig { max_per_user: 8, ..calls() });
    // 800 kbit/s for each, twice that for all: 100 and 200 kB a second.
    let offer = |bench: &mut Bench, links: &[Route]| {
        let (before, start) = (bench.server.stats().calls.to_peers.bytes, bench.now);
        for millisecond in 0..1_000 {
            bench.now = start + Duration::from_millis(millisecond);
            for link in links {
                bench.indicate(*link, peer(FAR), &[7; 500]);
            }
        }
        bench.server.stats().calls.to_peers.bytes - before
    };
    let name = |bench: &mut Bench, name: &str, port: u16| {
        bench.username = user(name);
        assert_eq!(code(&bench.allocate(udp(port))), 0);
        assert_eq!(bench.permit(udp(port), FAR), 0);
        bench.settle();
    };
    name(&mut bench, "anna", 1);
    name(&mut bench, "anna", 2);
    assert!((95_000..=105_000).contains(&offer(&mut bench, &[udp(1), udp(2)])), "two allocations, one user");
    for (number, other) in ["ben", "carl", "dora"].iter().enumerate() {
        name(&mut bench, other, 3 + u16::try_from(number).unwrap());
    }
    let all = offer(&mut bench, &[udp(1), udp(3), udp(4), udp(5)]);
    assert!((195_000..=305_000).contains(&all), "{all}: the rate, and what was saved up of it");
    let all = offer(&mut bench, &[udp(1), udp(3), udp(4), udp(5)]);
    assert!((195_000..=205_000).contains(&all), "{all}");
    // What comes for a client counts as well.
    let relayed = bench.allocations_of(udp(1));
    assert!(bench.heard(relayed, FAR, b"x").is_empty());
    let stats = bench.server.stats();
    assert!(stats.lost(Lost::UserRate) > 0 && stats.lost(Lost::TotalRate) > 0, "{stats:?}");
    // Ending and beginning anew gives nothing.
    bench.username = user("anna");
    for port in [1, 2] {
        assert_eq!(code(&bench.ask(udp(port), REFRESH, &[(ATTR_LIFETIME, &[0; 4])], &[])), 0);
    }
    bench.settle();
    bench.pass(2);
    name(&mut bench, "anna", 1);
    assert!(offer(&mut bench, &[udp(1)]) <= 105_000);
}

impl Bench {
    fn allocations_of(&self, link: Route) -> SocketAddr {
        self.server.allocations[&link].relayed
    }
}

#[test]
fn families_are_those_of_the_node_and_fragments_are_not_promised_away() {
    let mut bench = bench_of(CallsConfig {
        rules: PeerRules { relayed: vec!["192.0.2.1".parse().unwrap()], ..rules() },
        ..calls()
    });
    assert_eq!(code(&bench.ask(udp(1), ALLOCATE, &[UDP_TRANSPORT, IPV6], &[])), 440);
    assert_eq!(code(&bench.ask(udp(1), ALLOCATE, &[UDP_TRANSPORT, (ATTR_DONT_FRAGMENT, &[])], &[])), 420);
    assert_eq!(code(&bench.ask(udp(1), ALLOCATE, &[UDP_TRANSPORT, (ATTR_EVEN_PORT, &[0x80])], &[])), 508);
    // An even port without its neighbour is to be had.
    let even = bench.ask(udp(3), ALLOCATE, &[UDP_TRANSPORT, (ATTR_EVEN_PORT, &[0])], &[]);
    assert_eq!(relayed(&even).port() % 2, 0);
    assert!(bench.allocate(udp(1)).get(ATTR_XOR_RELAYED_ADDRESS).is_ok());
    // A lost answer is given again.
    let first = bench.ask_again(udp(2), ALLOCATE, &[UDP_TRANSPORT], &[], 201);
    let again = bench.ask_again(udp(2), ALLOCATE, &[UDP_TRANSPORT], &[], 201);
    assert_eq!(relayed(&first), relayed(&again));
    // Without a port that is open there is no allocation.
    let mut dry = Bench::with(Config { calls: Some(calls()), ..config() });
    (dry.username, dry.password) = (user("anna"), shared);
    assert_eq!(code(&dry.allocate(udp(1))), 508);
}
