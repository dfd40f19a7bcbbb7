//! Media without signalling: real media threads on loopback, shards told what to do by hand, and an independent WebRTC
//! implementation at the far ends. What arrives is compared bit for bit with what was sent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use signalling::media::{
    DataChannel, Demand, DowntrackId, DowntrackParams, IceCredentials, MediaCommand, MediaEvent, MediaKind,
    ParticipantId, TrackId, TrackParams, TransportId, TransportParams,
};
use signalling::sdp::{self, AnswerSection, Description, Direction, LocalTransport, NegotiatedSection, SendPlan};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use weir::base::ShardId;
use weir::control::bridge;
use weir::mailbox::{MediaLink, Report, ThreadStats, ufrag_prefix};
use weir::media::clock::Clock;
use weir::media::{MediaConfig, MediaThreads};
use weir::shard::ShardConfig;
use weir::shard::command::Command;
use weir::transport::{DtlsIdentity, generate_identity};
use weir_loadtest::peer::{Peer, PeerEvent, now};
use weir_loadtest::receive::{Received, Receiver};
use weir_loadtest::send::{Encoding, Source};

const ROOM: u64 = 1;
const PATIENCE: Duration = Duration::from_secs(20);

/// A media thread and what it reported.
struct Server {
    link: MediaLink,
    fingerprint: [u8; 32],
    events: Vec<MediaEvent>,
    stats: Option<Box<ThreadStats>>,
    _threads: MediaThreads,
}

/// A far end with its media.
struct Far {
    peer: Peer,
    number: u64,
    /// UDP port of the far end's own that leads to the server over ICE-TCP.
    relay: Option<u16>,
    sources: Vec<Source>,
    receivers: BTreeMap<u32, Receiver>,
    channels: usize,
    messages: Vec<Vec<u8>>,
}

impl Server {
    /// With one media thread, or with two: then whoever has an even number is on the second.
    fn start(threads: usize) -> Self {
        let clock = Clock::start();
        let identity = Arc::new(DtlsIdentity::new(&generate_identity().unwrap(), clock.anchor()).unwrap());
        let fingerprint = identity.fingerprint().0;
        let config = MediaConfig {
            threads,
            bind: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            udp_port: 0,
            tcp: vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)],
            turn: None,
            shard: ShardConfig { identity: Some(identity), ..Default::default() },
        };
        let (threads, link) = MediaThreads::start(config, clock).unwrap();
        for thread in &link.threads {
            thread.mailbox.send(Command::AddRoom { room: bridge::room_id(ROOM) }).unwrap();
        }
        Self { link, fingerprint, events: Vec::new(), stats: None, _threads: threads }
    }

    /// The thread of a far end.
    fn thread(&self, far: u64) -> usize {
        if self.link.threads.len() == 2 && far.is_multiple_of(2) { 1 } else { 0 }
    }

    fn tell(&self, command: MediaCommand) {
        let far = match &command {
            MediaCommand::AddParticipant { participant } | MediaCommand::AddTransport { participant, .. } => {
                participant.0
            }
            MediaCommand::Publish { transport, .. }
            | MediaCommand::Subscribe { transport, .. }
            | MediaCommand::DataTaken { transport, .. } => transport.0,
            MediaCommand::SetDemand { downtrack, .. } => downtrack.0 / 100,
            MediaCommand::SendData { transports, .. } => transports[0].0,
            _ => {
                // About tracks, and removals: every thread that knows of it.
                for thread in &self.link.threads {
                    thread.mailbox.send(bridge::command(ROOM, command.clone())).unwrap();
                }
                return;
            }
        };
        let thread = self.thread(far);
        let command = bridge::command(ROOM, command);
        if let Command::Publish { track, params, .. } = &command {
            for (_, other) in self.link.threads.iter().enumerate().filter(|(other, _)| *other != thread) {
                let (room, origin) = (bridge::room_id(ROOM), ShardId(u16::try_from(thread).unwrap()));
                let mirror = Command::Mirror { room, track: *track, origin, params: params.clone() };
                other.mailbox.send(mirror).unwrap();
            }
        }
        self.link.threads[thread].mailbox.send(command).unwrap();
    }

    fn listen(&mut self) {
        while let Ok((_, report)) = self.link.reports.try_recv() {
            match report {
                Report::Event(event) => self.events.extend(bridge::event(event)),
                Report::Stats(stats) => self.stats = Some(stats),
                Report::Turn(_) => {}
                Report::ShardDied => panic!("the shard died"),
            }
        }
    }

    /// Answer an offer of `far` by `plan`, and open its transport the first time.
    fn answer(&self, far: &mut Far, offer: &str, plan: &[AnswerSection]) -> Vec<NegotiatedSection> {
        let offer = Description::parse(offer, &sdp::Limits::default()).unwrap();
        let (participant, transport) = (ParticipantId(far.number), TransportId(far.number));
        let thread = self.thread(far.number);
        let prefix: String = ufrag_prefix(thread).unwrap().iter().collect();
        let credentials = IceCredentials {
            ufrag: format!("{prefix}far{}", far.number),
            pwd: format!("abcdefghijklmnopqrstuvwx{}", far.number),
        };
        let port = far.relay.unwrap_or_else(|| self.link.threads[thread].udp[0].port());
        let local = LocalTransport {
            session_id: 1,
            session_version: 1,
            credentials: credentials.clone(),
            fingerprint: self.fingerprint,
            candidates: vec![format!("candidate:1 1 udp 2130706431 127.0.0.1 {port} typ host")],
            max_message_size: 65_536,
            bandwidth: sdp::Bandwidth::TransportCc,
        };
        self.tell(MediaCommand::AddParticipant { participant });
        let params = TransportParams { local: credentials, remote: Some(offer.remote.clone()), open_channels: false };
        self.tell(MediaCommand::AddTransport { participant, transport, params });
        let answer = sdp::write_answer(&offer, &local, plan).unwrap();
        far.peer.accept(&answer.sdp, &BTreeMap::new()).unwrap();
        for source in &mut far.sources {
            source.wiring = far.peer.wiring(source.sender, source.is_video);
        }
        answer.sections
    }

    fn publish(&self, far: &Far, track: u64, section: &NegotiatedSection, kind: MediaKind) {
        let params = TrackParams {
            kind,
            screen_share: false,
            always_heard: false,
            mid: section.mid.clone(),
            codecs: section.codec_params(),
            encodings: section.encodings.clone(),
            extensions: section.extensions,
            nack: section.nack,
            muted: false,
        };
        self.tell(MediaCommand::Publish { transport: TransportId(far.number), track: TrackId(track), params });
    }

    fn subscribe(&self, far: &Far, track: u64, from: &NegotiatedSection, section: &NegotiatedSection) {
        let params = DowntrackParams {
            ssrc: ssrc_of(far.number, track),
            rtx_ssrc: None,
            payload_types: sdp::payload_maps(&from.codecs, &section.codecs),
            extensions: section.extensions,
            mid: String::new(),
            cname: "cname".to_owned(),
            nack: section.nack,
            demand: Demand { enabled: true, max_spatial: 2, max_temporal: 255, priority: 1 },
        };
        assert!(!params.payload_types.is_empty());
        self.tell(MediaCommand::Subscribe {
            transport: TransportId(far.number),
            track: TrackId(track),
            downtrack: DowntrackId(far.number * 100 + track),
            params,
        });
    }
}

fn ssrc_of(far: u64, track: u64) -> u32 {
    u32::try_from(far * 1_000 + track).unwrap()
}

impl Far {
    async fn new(number: u64) -> Self {
        let mut peer = Peer::new(true).await.unwrap();
        peer.open_channels().unwrap();
        Self { peer, number, relay: None, sources: vec![], receivers: BTreeMap::new(), channels: 0, messages: vec![] }
    }

    fn publish(&mut self, cid: &str, encodings: Vec<Encoding>, fps: Option<u32>) {
        let sender = self.peer.publish(cid, fps.is_some(), &encodings).unwrap();
        let identity = self.number.to_string();
        self.sources.push(Source::new(String::new(), cid.to_owned(), &identity, sender, encodings, fps, now()));
    }

    fn received(&self, track: u64) -> Received {
        let ssrc = ssrc_of(self.number, track);
        self.receivers.get(&ssrc).map(|receiver| receiver.seen.clone()).unwrap_or_default()
    }

    async fn turn(&mut self) {
        let mut buffer = [0; 2_048];
        while let Ok((length, from)) = self.peer.socket.try_recv_from(&mut buffer) {
            self.peer.datagram(from, &buffer[..length]);
        }
        if self.peer.deadline().is_some_and(|at| at <= now()) {
            self.peer.timeout();
        }
        for source in &mut self.sources {
            for packet in source.packets(now()) {
                let _ = self.peer.send_rtp(source.sender, packet);
            }
        }
        let mut events = Vec::new();
        self.peer.pump(&mut events).await;
        for event in events {
            match event {
                PeerEvent::Connected => println!("{} connected", self.number),
                PeerEvent::Failed => panic!("the peer connection of {} failed", self.number),
                PeerEvent::ChannelOpen(_) => self.channels += 1,
                PeerEvent::Data(_, data) => self.messages.push(data.to_vec()),
                PeerEvent::Rtp(packet) => {
                    let announced = self.peer.announced.get(&packet.header.ssrc).expect("an announced stream");
                    let fresh = || Receiver::new(announced.is_video);
                    self.receivers.entry(packet.header.ssrc).or_insert_with(fresh).handle(&packet);
                }
                PeerEvent::KeyFrameWanted(ssrc) => {
                    self.sources.iter_mut().for_each(|source| source.want_key_frame(ssrc));
                }
            }
        }
    }
}

/// Let everybody talk until `done`.
async fn talk(server: &mut Server, fars: &mut [Far], what: &str, mut done: impl FnMut(&Server, &mut [Far]) -> bool) {
    let deadline = now() + PATIENCE;
    while now() < deadline {
        for far in &mut *fars {
            far.turn().await;
        }
        server.listen();
        if done(server, fars) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for far in fars {
        println!("{}: {:#?}", far.number, far.receivers.values().map(|r| &r.seen).collect::<Vec<_>>());
    }
    let picture = tokio::time::timeout(Duration::from_secs(1), server.link.threads[0].mailbox.inspect()).await;
    println!("{picture:#?}\n{:#?}\n{:#?}", server.events, server.stats);
    panic!("{what}: not in time");
}

/// Alice publishes a voice, a single video and a simulcast one; Bob takes them all.
async fn a_call() -> (Server, [Far; 2]) {
    a_call_over(false, 1).await
}

/// Datagrams of a far end, framed (RFC 4571) on a connection to `server`: ICE-TCP for a client that speaks UDP only. Gives
/// the port to send to.
async fn relay_to(server: SocketAddr) -> u16 {
    let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = near.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut stream = TcpStream::connect(server).await.unwrap();
        let (mut from_server, mut to_server) = stream.split();
        let (mut datagram, mut frame) = ([0; 2_048], Vec::new());
        let (mut buffer, mut client) = ([0; 4_096], None);
        loop {
            tokio::select! {
                received = near.recv_from(&mut datagram) => {
                    let (length, from) = received.unwrap();
                    client = Some(from);
                    to_server.write_all(&u16::try_from(length).unwrap().to_be_bytes()).await.unwrap();
                    to_server.write_all(&datagram[..length]).await.unwrap();
                }
                read = from_server.read(&mut buffer) => {
                    match read {
                        Ok(0) | Err(_) => return,
                        Ok(read) => frame.extend_from_slice(&buffer[..read]),
                    }
                    while let Some((length, rest)) = frame.split_first_chunk::<2>() {
                        let length = usize::from(u16::from_be_bytes(*length));
                        let Some(whole) = rest.get(..length) else { break };
                        near.send_to(whole, client.unwrap()).await.unwrap();
                        frame.drain(..2 + length);
                    }
                }
            }
        }
    });
    port
}

async fn a_call_over(tcp: bool, threads: usize) -> (Server, [Far; 2]) {
    let server = Server::start(threads);
    let (mut alice, mut bob) = (Far::new(1).await, Far::new(2).await);
    if tcp {
        alice.relay = Some(relay_to(server.link.tcp[0]).await);
        bob.relay = Some(relay_to(server.link.tcp[0]).await);
    }
    alice.publish("mic", vec![Encoding::new(0xaaa1, None, (0, 0), 0)], None);
    alice.publish("cam", vec![Encoding::new(0xaaa2, None, (320, 180), 300_000)], Some(30));
    let layer = |(rid, n, width, height): (&str, u32, u16, u16)| {
        Encoding::new(0xbbb0 + n, Some(rid.to_owned()), (width, height), 150_000 * n as usize)
    };
    let layers = [("q", 1, 320, 180), ("h", 2, 640, 360), ("f", 3, 1280, 720)].map(layer);
    alice.publish("big", layers.into(), Some(15));

    let offer = alice.peer.offer(false).unwrap();
    let receive = || AnswerSection::Receive(sdp::ReceivePlan::default());
    let plan = [receive(), receive(), receive(), AnswerSection::Application];
    let published = server.answer(&mut alice, &offer, &plan);
    assert!(published.iter().take(3).all(|section| section.direction == Direction::RecvOnly), "{published:#?}");
    let kinds = [MediaKind::Audio, MediaKind::Video, MediaKind::Video];
    for (track, (section, kind)) in published.iter().zip(kinds).enumerate() {
        server.publish(&alice, track as u64, section, kind);
    }

    bob.peer.receive_more(1, 2).unwrap();
    let offer = bob.peer.offer(false).unwrap();
    let send = |track: u64| {
        AnswerSection::Send(SendPlan {
            stream_id: format!("PA_alice|TR_{track}"),
            track_id: format!("TR_{track}"),
            ssrc: ssrc_of(2, track),
            rtx_ssrc: None,
            cname: "cname".to_owned(),
            codecs: published[usize::try_from(track).unwrap()].codecs.clone(),
            stereo: false,
        })
    };
    let plan = [send(0), send(1), send(2), AnswerSection::Application];
    let sections = server.answer(&mut bob, &offer, &plan);
    for track in 0..3 {
        let at = usize::try_from(track).unwrap();
        server.subscribe(&bob, track, &published[at], &sections[at]);
    }
    (server, [alice, bob])
}

fn assert_whole(far: &Far) {
    for track in 0..3 {
        let seen = far.received(track);
        assert_eq!((seen.wrong, seen.gaps, seen.picture_id_jumps), (0, 0, 0), "track {track}: {seen:#?}");
    }
}

#[tokio::test]
async fn every_frame_arrives_bit_for_bit_and_layers_follow_the_demand() {
    layers_follow_the_demand(1).await;
}

#[tokio::test]
async fn they_do_so_across_media_threads() {
    layers_follow_the_demand(2).await;
}

#[tokio::test]
async fn a_mute_and_a_removal_hold_across_media_threads() {
    let (mut server, mut fars) = a_call_over(false, 2).await;
    talk(&mut server, &mut fars, "frames", |_, fars| (0..3).all(|track| fars[1].received(track).frames > 20)).await;
    server.tell(MediaCommand::SetMuted { track: TrackId(0), muted: true });
    silence(&mut server, &mut fars, |fars| fars[1].received(0).packets).await;
    let others = fars[1].received(1).packets;
    server.tell(MediaCommand::SetMuted { track: TrackId(0), muted: false });
    let before = fars[1].received(0).frames;
    talk(&mut server, &mut fars, "the voice again", |_, fars| fars[1].received(0).frames > before + 20).await;
    assert!(fars[1].received(1).packets > others, "the picture went on");
    assert_whole(&fars[1]);
    server.tell(MediaCommand::RemoveParticipant { participant: ParticipantId(1) });
    for track in 0..3 {
        server.tell(MediaCommand::Unpublish { track: TrackId(track) });
    }
    let all = |fars: &[Far]| (0..3).map(|track| fars[0].received(track).packets).sum::<u64>();
    silence(&mut server, &mut fars[1..], all).await;
}

/// Until nothing was counted for a second.
async fn silence(server: &mut Server, fars: &mut [Far], count: impl Fn(&[Far]) -> u64) {
    let mut last = (0, now());
    talk(server, fars, "silence", |_, fars| {
        let packets = count(fars);
        if packets != last.0 {
            last = (packets, now());
        }
        last.1.elapsed() > Duration::from_millis(1_000)
    })
    .await;
}

async fn layers_follow_the_demand(threads: usize) {
    let (mut server, mut fars) = a_call_over(false, threads).await;
    talk(&mut server, &mut fars, "frames of all tracks", |_, fars| {
        (0..3).all(|track| fars[1].received(track).frames > 50) && fars[1].received(2).size == (1280, 720)
    })
    .await;
    assert_whole(&fars[1]);
    for (track, cid) in ["mic", "cam", "big"].into_iter().enumerate() {
        let source = weir_loadtest::content::source_of("1", cid);
        assert_eq!(fars[1].received(track as u64).source, source, "{cid}");
    }

    let demand = |max_spatial, enabled| MediaCommand::SetDemand {
        downtrack: DowntrackId(202),
        demand: Demand { enabled, max_spatial, max_temporal: 255, priority: 1 },
    };
    for (layer, size) in [(0, (320, 180)), (1, (640, 360)), (2, (1280, 720)), (0, (320, 180))] {
        server.tell(demand(layer, true));
        talk(&mut server, &mut fars, "another size", |_, fars| {
            fars[1].received(2).size == size && fars[1].received(2).layer == layer
        })
        .await;
        assert_whole(&fars[1]);
    }

    server.tell(demand(0, false));
    let mut silent_since = (0, now());
    talk(&mut server, &mut fars, "silence of a disabled track", |_, fars| {
        let frames = fars[1].received(2).frames;
        if frames != silent_since.0 {
            silent_since = (frames, now());
        }
        silent_since.1.elapsed() > Duration::from_secs(1)
    })
    .await;
    server.tell(demand(2, true));
    let before = fars[1].received(2).frames;
    talk(&mut server, &mut fars, "the track again", |_, fars| fars[1].received(2).frames > before + 20).await;
    assert_whole(&fars[1]);
}

#[tokio::test]
async fn a_call_runs_over_tcp_where_udp_is_closed() {
    let (mut server, mut fars) = a_call_over(true, 1).await;
    talk(&mut server, &mut fars, "frames of all tracks", |server, fars| {
        let connections = server.stats.as_ref().map(|stats| stats.tcp_connections);
        (0..3).all(|track| fars[1].received(track).frames > 50) && connections == Some(2)
    })
    .await;
    assert_whole(&fars[1]);
    let stats = server.stats.unwrap();
    assert_eq!((stats.datagrams_received, stats.tcp_full), (0, 0));
}

#[tokio::test]
async fn messages_pass_in_order_between_transports() {
    let (mut server, mut fars) = a_call_over(false, 2).await;
    talk(&mut server, &mut fars, "open channels", |server, fars| {
        let open = |far: u64| {
            let wanted = MediaEvent::ChannelsOpen { transport: TransportId(far) };
            server.events.contains(&wanted)
        };
        open(1) && open(2) && fars.iter().all(|far| far.channels == 3)
    })
    .await;
    let message = |n: u8| vec![n; 1 + usize::from(n) * 50];
    for n in 0..100 {
        assert!(fars[0].peer.send_data("_reliable", &message(n)));
    }
    let mut passed = 0;
    talk(&mut server, &mut fars, "all messages", |server, fars| {
        for event in server.events.iter().skip(passed) {
            if let MediaEvent::Data { transport, channel, payload } = event {
                assert_eq!((*transport, *channel), (TransportId(1), DataChannel::Reliable));
                let transports = vec![TransportId(2)];
                server.tell(MediaCommand::SendData { transports, channel: *channel, payload: payload.clone() });
                server.tell(MediaCommand::DataTaken { transport: *transport, bytes: payload.len() });
            }
        }
        passed = server.events.len();
        fars[1].messages.len() == 100
    })
    .await;
    assert!(fars[1].messages.iter().zip(0..).all(|(received, n)| *received == message(n)));
}

#[tokio::test]
async fn nothing_passes_after_a_removal() {
    let (mut server, mut fars) = a_call().await;
    talk(&mut server, &mut fars, "frames", |_, fars| fars[1].received(0).frames > 20).await;
    server.tell(MediaCommand::RemoveParticipant { participant: ParticipantId(1) });
    let picture = server.link.threads[0].mailbox.inspect().await.unwrap();
    assert_eq!(picture.rooms[0].participants.len(), 1);
    // What was on its way arrives; then nothing does.
    let mut last = (0, now());
    talk(&mut server, &mut fars[1..], "silence", |_, fars| {
        let packets = (0..3).map(|track| fars[0].received(track).packets).sum::<u64>();
        if packets != last.0 {
            last = (packets, now());
        }
        last.1.elapsed() > Duration::from_millis(1_500)
    })
    .await;
}
