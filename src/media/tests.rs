//! Real sockets on loopback, real threads; no shard logic beyond what a datagram in and out needs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream, UdpSocket};
use std::time::Duration;

use super::*;
use crate::base::RoomId;
use crate::mailbox::{Mailbox, ufrag_prefix};
use crate::shard::command::Command;
use crate::transport::route::Route;

/// A datagram that brings a shard down, in tests.
pub(super) const POISON: &[u8] = b"\0poison";

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PATIENCE: Duration = Duration::from_secs(10);

fn config(threads: usize) -> MediaConfig {
    MediaConfig {
        threads,
        bind: vec![LOCAL],
        udp_port: 0,
        tcp: vec![SocketAddr::new(LOCAL, 0)],
        turn: None,
        shard: ShardConfig::default(),
    }
}

/// A blocking wait for a report of the wanted kind, with a limit.
fn wait_for<T>(link: &mut MediaLink, mut wanted: impl FnMut(usize, Report) -> Option<T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let found = async {
            loop {
                let (thread, report) = link.reports.recv().await.expect("media threads report while they run");
                if let Some(found) = wanted(thread, report) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("a report in time")
    })
}

fn far_end() -> UdpSocket {
    let socket = UdpSocket::bind((LOCAL, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn a_run_arrives_as_single_datagrams_from_the_address_of_the_route() {
    for (bind, local) in [
        (LOCAL, LOCAL),
        (Ipv4Addr::UNSPECIFIED.into(), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))),
        (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into()),
    ] {
        let Ok(port) = UdpPort::bind(SocketAddr::new(bind, 0)) else { continue };
        let far = UdpSocket::bind(SocketAddr::new(if local.is_ipv4() { LOCAL } else { local }, 0)).unwrap();
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        let local = SocketAddr::new(local, port.local().port());
        assert!(port.serves(local));
        let mut stats = ThreadStats::default();
        let run: Vec<u8> = (0..100u8).flat_map(|n| [n; 600]).chain([200; 17]).collect();
        port.send(local, far.local_addr().unwrap(), &run, 600, &mut stats);
        let mut buffer = [0; 2_000];
        for n in 0..100u8 {
            let (length, from) = far.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from), (&[n; 600][..], local));
        }
        assert_eq!(far.recv(&mut buffer).unwrap(), 17);
        assert_eq!((stats.datagrams_sent, stats.send_full, stats.send_failed), (101, 0, 0));
        assert!(stats.send_calls < 20, "{} calls for 101 datagrams: no segmentation offload", stats.send_calls);
    }
}

#[test]
fn datagrams_arrive_one_by_one_with_their_route_and_a_turn_takes_no_more_than_its_share() {
    let mut port = UdpPort::bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)).unwrap();
    let sender = UdpPort::bind(SocketAddr::new(LOCAL, 0)).unwrap();
    let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3)), port.local().port());
    let run: Vec<u8> = (0..100u8).flat_map(|n| [n; 300]).collect();
    sender.send(sender.local(), to, &run, 300, &mut ThreadStats::default());
    let (mut stats, mut seen) = (ThreadStats::default(), Vec::new());
    port.receive(&mut stats, |route, datagram| {
        assert_eq!(route, Route::Udp { local: to, remote: sender.local() });
        assert!(datagram.len() == 300 && datagram.iter().all(|b| *b == datagram[0]));
        seen.push(datagram[0]);
    });
    assert_eq!(seen.len(), udp::DATAGRAMS_PER_TURN);
    assert!(port.is_ready());
    port.receive(&mut stats, |_, datagram| seen.push(datagram[0]));
    assert_eq!(seen, (0..100u8).collect::<Vec<_>>());
    assert!(!port.is_ready());
    assert_eq!(stats.datagrams_received, 100);
}

#[test]
fn an_unreachable_far_end_is_counted_and_hurts_nobody() {
    let port = UdpPort::bind(SocketAddr::new(LOCAL, 0)).unwrap();
    let mut stats = ThreadStats::default();
    // From loopback there is no way to a public address, and no datagram is as large as this.
    port.send(port.local(), "192.0.2.1:9".parse().unwrap(), &[0; 100], 100, &mut stats);
    port.send(port.local(), port.local(), &[0; 65_530], 65_530, &mut stats);
    assert_eq!((stats.datagrams_sent, stats.send_failed), (0, 2));
}

#[test]
fn a_dead_shard_is_replaced_on_the_same_port_and_others_live_on() {
    let (threads, mut link) = MediaThreads::start(config(2), Clock::start()).unwrap();
    let far = far_end();
    far.send_to(POISON, link.threads[1].udp[0]).unwrap();
    wait_for(&mut link, |thread, report| matches!((thread, report), (1, Report::ShardDied)).then_some(()));
    far.send_to(b"\0anything", link.threads[1].udp[0]).unwrap();
    let stats = wait_for(&mut link, |thread, report| match report {
        Report::Stats(stats) if thread == 1 && stats.datagrams_received == 2 => Some(stats),
        Report::ShardDied => panic!("died of something harmless"),
        _ => None,
    });
    assert_eq!(stats.deaths, 1);
    drop(threads);
}

#[test]
fn a_connection_goes_to_the_thread_its_first_frame_names() {
    let (threads, mut link) = MediaThreads::start(config(2), Clock::start()).unwrap();
    let mut near = TcpStream::connect(link.tcp[0]).unwrap();
    let prefix: String = ufrag_prefix(1).unwrap().iter().collect();
    let request = tcp::frame::tests::request(format!("{prefix}ours:theirs").as_bytes());
    near.write_all(&(request.len() as u16).to_be_bytes()).unwrap();
    near.write_all(&request).unwrap();
    let connected = |thread, report| match report {
        Report::Stats(stats) if thread == 1 => (stats.tcp_connections == 1).then_some(()),
        Report::Stats(stats) => {
            assert_eq!(stats.tcp_connections, 0);
            None
        }
        _ => None,
    };
    wait_for(&mut link, connected);
    // Closed by the far end: forgotten.
    drop(near);
    wait_for(&mut link, |thread, report| match report {
        Report::Stats(stats) if thread == 1 => (stats.tcp_connections == 0).then_some(()),
        _ => None,
    });
    drop(threads);
}

#[test]
fn a_connection_that_names_nobody_is_closed() {
    let (threads, link) = MediaThreads::start(config(1), Clock::start()).unwrap();
    let nobody = tcp::frame::tests::request(b"zzours:theirs");
    for first in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0], &[0, 3, 1, 2, 3], &[&[0, nobody.len() as u8], &nobody[..]].concat()]
    {
        let mut near = TcpStream::connect(link.tcp[0]).unwrap();
        near.set_read_timeout(Some(PATIENCE)).unwrap();
        near.write_all(first).unwrap();
        let closed = near.read(&mut [0; 10]);
        assert!(matches!(&closed, Ok(0)) || closed.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionReset));
    }
    drop(threads);
}

#[test]
fn a_port_in_use_is_named() {
    let taken = far_end();
    let config = MediaConfig { udp_port: taken.local_addr().unwrap().port(), ..config(1) };
    let error = MediaThreads::start(config, Clock::start()).unwrap_err().to_string();
    assert!(error.contains(&taken.local_addr().unwrap().to_string()), "{error}");
}

#[test]
fn a_stalled_thread_is_told_once() {
    let poll = Poll::new().unwrap();
    let (mailbox, _inbox) = Mailbox::new(Waker::new(poll.registry(), WAKE).unwrap());
    let clock = Clock::start();
    let pulse = Pulse::default();
    // A turn that began at the clock's zero and has not ended.
    pulse.store(1, std::sync::atomic::Ordering::Relaxed);
    let (alive, ended) = std::sync::mpsc::channel();
    let watched = vec![(pulse, mailbox.clone())];
    let watchdog = std::thread::spawn(move || watchdog::run(watched, clock, &ended));
    while mailbox.stalls() == 0 && clock.now() < crate::base::Instant::from_millis(10_000) {
        std::thread::park_timeout(Duration::from_millis(300));
    }
    std::thread::park_timeout(Duration::from_millis(600));
    drop(alive);
    watchdog.join().unwrap();
    assert_eq!(mailbox.stalls(), 1);
}

#[test]
fn a_command_wakes_a_sleeping_thread() {
    let (threads, link) = MediaThreads::start(config(1), Clock::start()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for room in 0..100 {
        link.threads[0].mailbox.send(Command::AddRoom { room: RoomId(room) }).unwrap();
    }
    let asked = clock_of(|| {
        let picture = link.threads[0].mailbox.inspect();
        runtime.block_on(async { tokio::time::timeout(PATIENCE, picture).await }).unwrap().unwrap();
    });
    assert!(asked < Duration::from_millis(900), "answered by the housekeeping only: {asked:?}");
    assert_eq!(link.threads[0].mailbox.depth(), 0);
    drop(threads);
}

fn clock_of(body: impl FnOnce()) -> Duration {
    let clock = Clock::start();
    body();
    clock.now().since(crate::base::Instant::ZERO)
}
