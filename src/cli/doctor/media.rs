//! The hops of media: joins a room of its own twice, and sends ICE checks to every address weir tells clients.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use signalling::matrix::server_name::is_public;
use signalling::token::VideoGrant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::report::Report;
use super::stun;
use super::web::Web;
use super::ws::{Joined, NotJoined};
use crate::config::Keys;
use crate::control::auth;

/// How long one check may take; it is sent several times.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pause between sending a check again.
const AGAIN: Duration = Duration::from_millis(300);
/// How long the tokens are good.
const TOKEN: Duration = Duration::from_secs(60);
/// Candidates tried.
const MAX_CANDIDATES: usize = 64;

/// An address of the offer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    tcp: bool,
    address: SocketAddr,
}

/// What the offer says about ICE.
#[derive(Debug, Default)]
struct Ice {
    ufrag: String,
    password: String,
    candidates: Vec<Candidate>,
}

/// Join and check. `host`: where HTTP is, to hold the advertised addresses against.
pub(super) async fn look(web: &Web, base: &str, host: &str, keys: &Keys, report: &mut Report) {
    const HOP: &str = "join";
    let room = format!("weir-doctor-{}", random());
    let join = async |identity: &str| {
        let grant = VideoGrant { room_join: true, room: room.clone(), room_create: true, ..VideoGrant::default() };
        let token = auth::mint(keys, identity, grant, TOKEN).map_err(|error| NotJoined::Silent(error.to_string()))?;
        Joined::new(web, base, &token).await
    };
    let first = match join("doctor-1").await {
        Ok(joined) => joined,
        Err(NotJoined::Refused(401, _)) => {
            return report.bad(
                HOP,
                "weir refuses a token made with the first of the configured keys (401)",
                "restart weir after changing keys; let the URL lead to the weir of this configuration; keep time on both machines",
            );
        }
        Err(NotJoined::Refused(503, text)) => {
            return report.bad(
                HOP,
                format!("weir takes no new call: {text}"),
                "see /readyz and the status page of weir",
            );
        }
        Err(NotJoined::Refused(status, text)) => {
            return report.bad(HOP, format!("a join is answered with {status}: {text}"), "look into weir's log");
        }
        Err(NotJoined::Silent(what)) => {
            return report.bad(
                HOP,
                format!("the WebSocket opens, but nothing comes over it: {what}"),
                "let the proxy hand WebSocket frames on at once: no buffering, no time-out below 60 seconds",
            );
        }
    };
    report.ok(HOP, "joined a room, and was told where media goes");
    let ice = read(&first.offer);
    advertised(&ice, host, report).await;
    udp(&ice, report).await;
    tcp(&ice, report).await;
    turn(&first.join.ice_servers, report).await;
    match join("doctor-2").await {
        Ok(second) => {
            let sid = |joined: &Joined| joined.join.room.as_ref().map(|room| room.sid.clone()).unwrap_or_default();
            if sid(&first) == sid(&second) {
                report.ok("call", "two participants meet in one room");
            } else {
                report.bad(
                    "call",
                    "two participants of one room came to two rooms: the URL leads to several nodes that know nothing of \
                     each other",
                    "give each weir a URL of its own",
                );
            }
            second.leave().await;
        }
        Err(_) => report.bad("call", "a second participant was not let in", "look into weir's log"),
    }
    first.leave().await;
}

/// Credentials and candidates of an SDP.
fn read(sdp: &str) -> Ice {
    let mut ice = Ice::default();
    for line in sdp.lines() {
        if let Some(ufrag) = line.strip_prefix("a=ice-ufrag:") {
            ice.ufrag = ufrag.trim().to_owned();
        } else if let Some(password) = line.strip_prefix("a=ice-pwd:") {
            ice.password = password.trim().to_owned();
        } else if let Some(candidate) = line.strip_prefix("a=candidate:") {
            // RFC 8839, 5.1: foundation, component, transport, priority, address, port.
            let fields: Vec<&str> = candidate.split_whitespace().collect();
            let [_, _, transport, _, ip, port, ..] = fields.as_slice() else { continue };
            let (Ok(ip), Ok(port)) = (ip.parse(), port.parse()) else { continue };
            let tcp = transport.eq_ignore_ascii_case("tcp");
            let candidate = Candidate { tcp, address: SocketAddr::new(ip, port) };
            if !ice.candidates.contains(&candidate) && ice.candidates.len() < MAX_CANDIDATES {
                ice.candidates.push(candidate);
            }
        }
    }
    ice
}

/// Whether clients elsewhere could use the addresses they are told. Where HTTP is says where elsewhere is.
async fn advertised(ice: &Ice, host: &str, report: &mut Report) {
    const HOP: &str = "advertised";
    let told: Vec<IpAddr> = ice.candidates.iter().map(|candidate| candidate.address.ip()).collect();
    let list = |ips: &[IpAddr]| {
        let mut ips: Vec<String> = ips.iter().map(IpAddr::to_string).collect();
        ips.dedup();
        ips.join(", ")
    };
    let found = tokio::net::lookup_host((host, 443)).await;
    let named: Vec<IpAddr> = found.map(|all| all.map(|address| address.ip()).collect()).unwrap_or_default();
    let outside = named.iter().any(|ip| is_public(*ip));
    if told.iter().any(|ip| is_public(*ip)) || !outside {
        if told.iter().all(|ip| ip.is_loopback()) && !named.iter().all(|ip| ip.is_loopback()) {
            return report.bad(
                HOP,
                "clients are told to send media to this machine's loopback address alone",
                "set `rtc.node_ip` to the address clients reach this machine at",
            );
        }
        return report.ok(HOP, format!("clients are told to send media to {}", list(&told)));
    }
    report.bad(
        HOP,
        format!(
            "clients are told to send media to {}, which nobody outside reaches; {host} is {}",
            list(&told),
            list(&named)
        ),
        format!("set `rtc.node_ip` to the address the world reaches this machine at, such as {}", list(&named)),
    );
}

async fn udp(ice: &Ice, report: &mut Report) {
    const HOP: &str = "udp";
    let mut found = Vec::new();
    let mut deaf = Vec::new();
    for candidate in ice.candidates.iter().filter(|candidate| !candidate.tcp) {
        match check_udp(ice, candidate.address).await {
            Some(mapped) => found.push((candidate.address, mapped)),
            None => deaf.push(candidate.address.to_string()),
        }
    }
    if found.is_empty() && deaf.is_empty() {
        return report.bad(HOP, "weir tells clients no address for UDP", "set `rtc.udp_port` and `rtc.node_ip`");
    }
    if found.is_empty() {
        return report.bad(
            HOP,
            format!("nothing answers over UDP at {}", deaf.join(", ")),
            "let these UDP ports in through firewall and NAT; if the address is wrong, set `rtc.node_ip`",
        );
    }
    if !deaf.is_empty() {
        report.warn(
            HOP,
            format!("of the addresses clients are told, these do not answer over UDP from here: {}", deaf.join(", ")),
            "let the ports in, or leave the addresses out with `rtc.ips.excludes` or `rtc.interfaces.excludes`",
        );
    }
    let words: Vec<String> = found.iter().map(|(to, from)| format!("{to} (sees us as {})", from.ip())).collect();
    report.ok(HOP, format!("media gets through to {}", words.join(", ")));
}

async fn check_udp(ice: &Ice, to: SocketAddr) -> Option<SocketAddr> {
    let any: SocketAddr = if to.is_ipv4() {
        (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).await.ok()?;
    socket.connect(to).await.ok()?;
    let id = transaction();
    exchange(&socket, &stun::check(&ice.ufrag, &ice.password, id), |answer| stun::mapped(answer, id)).await
}

/// Send until something comes back that `read` understands.
async fn exchange<T>(socket: &UdpSocket, packet: &[u8], read: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    let ask = async {
        let mut answer = [0; 1_500];
        loop {
            // A port that is closed answers with an error; another try may find it open.
            let _ = socket.send(packet).await;
            if let Ok(Ok(size)) = tokio::time::timeout(AGAIN, socket.recv(&mut answer)).await {
                if let Some(found) = answer.get(..size).and_then(&read) {
                    return found;
                }
            } else {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, ask).await.ok()
}

async fn tcp(ice: &Ice, report: &mut Report) {
    const HOP: &str = "tcp";
    let tcp: Vec<SocketAddr> = ice.candidates.iter().filter(|it| it.tcp).map(|it| it.address).collect();
    if tcp.is_empty() {
        return report.warn(
            HOP,
            "media over TCP is off: people whose network lets no UDP through have no calls",
            "set `rtc.tcp_port`",
        );
    }
    let mut deaf = Vec::new();
    let mut good = Vec::new();
    for address in tcp {
        let works = tokio::time::timeout(PATIENCE, check_tcp(ice, address)).await.ok().flatten().is_some();
        if works { good.push(address.to_string()) } else { deaf.push(address.to_string()) }
    }
    if good.is_empty() {
        return report.bad(
            HOP,
            format!("nothing answers over TCP at {}", deaf.join(", ")),
            "let this TCP port in through firewall and NAT (past the proxy: it is no HTTP)",
        );
    }
    report.ok(HOP, format!("media gets through over TCP to {}", good.join(", ")));
}

/// The same over TCP, framed (RFC 4571).
async fn check_tcp(ice: &Ice, to: SocketAddr) -> Option<SocketAddr> {
    let mut stream = TcpStream::connect(to).await.ok()?;
    let id = transaction();
    let packet = stun::check(&ice.ufrag, &ice.password, id);
    stream.write_u16(u16::try_from(packet.len()).ok()?).await.ok()?;
    stream.write_all(&packet).await.ok()?;
    loop {
        let length = stream.read_u16().await.ok()?;
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await.ok()?;
        if let Some(mapped) = stun::mapped(&answer, id) {
            return Some(mapped);
        }
    }
}

/// TURN servers clients are told: whether anything there speaks STUN.
async fn turn(servers: &[livekit_protocol::IceServer], report: &mut Report) {
    const HOP: &str = "turn";
    let urls: Vec<&String> =
        servers.iter().flat_map(|server| &server.urls).filter(|url| url.starts_with("turn")).collect();
    if urls.is_empty() {
        return report.skip(HOP, "clients are told no TURN server");
    }
    let mut good = Vec::new();
    for url in urls {
        let (scheme, rest) = url.split_once(':').unwrap_or_default();
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let default = if scheme == "turns" { 5349 } else { 3478 };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) => (host.trim_matches(['[', ']']), port.parse().unwrap_or(default)),
            None => (place, default),
        };
        let over_tcp = scheme == "turns" || query.contains("transport=tcp");
        if ask_turn(host, port, over_tcp, scheme == "turns").await {
            good.push(url.as_str());
        } else {
            report.bad(
                HOP,
                format!("no TURN server answers at {url}"),
                "correct `rtc.turn_servers`, start the TURN server, let its port in",
            );
        }
    }
    if !good.is_empty() {
        report.ok(HOP, format!("answers at {}", good.join(", ")));
    }
}

async fn ask_turn(host: &str, port: u16, over_tcp: bool, tls: bool) -> bool {
    let id = transaction();
    let packet = stun::allocate(id);
    let ask = async {
        if over_tcp {
            let mut stream = TcpStream::connect((host, port)).await.ok()?;
            if tls {
                // Whether TLS is right there, clients find out; that something listens is what is asked here.
                return Some(());
            }
            stream.write_all(&packet).await.ok()?;
            let mut answer = [0; 20];
            stream.read_exact(&mut answer).await.ok()?;
            return stun::answers(&answer, id).then_some(());
        }
        let to = tokio::net::lookup_host((host, port)).await.ok()?.next()?;
        let any: SocketAddr =
            if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { (std::net::Ipv6Addr::UNSPECIFIED, 0).into() };
        let socket = UdpSocket::bind(any).await.ok()?;
        socket.connect(to).await.ok()?;
        exchange(&socket, &packet, |answer| stun::answers(answer, id).then_some(())).await
    };
    tokio::time::timeout(PATIENCE, ask).await.ok().flatten().is_some()
}

fn transaction() -> [u8; 12] {
    let mut id = [0; 12];
    // Without randomness an answer could be mistaken, by nobody but us.
    let _ = aws_lc_rs::rand::fill(&mut id);
    id
}

fn random() -> String {
    transaction().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]

    use super::*;

    #[test]
    fn offers_are_read() {
        let ice = read(
            "v=0\r\na=ice-ufrag:00ab\r\na=ice-pwd:secret\r\na=candidate:1 1 udp 2130706431 192.0.2.1 7882 typ host\r\n\
             a=candidate:2 1 tcp 1 2001:db8::1 7881 typ host tcptype passive\r\na=candidate:broken\r\n\
             a=candidate:1 1 udp 2130706431 192.0.2.1 7882 typ host\r\n",
        );
        assert_eq!((ice.ufrag.as_str(), ice.password.as_str()), ("00ab", "secret"));
        let tcp = Candidate { tcp: true, address: "[2001:db8::1]:7881".parse().unwrap() };
        let udp = Candidate { tcp: false, address: "192.0.2.1:7882".parse().unwrap() };
        assert_eq!(ice.candidates, [udp, tcp]);
    }
}
