//! `weir-loadtest floor`: what sending costs at the least. The packets of a shape are sealed with AES-128-GCM and sent
//! in the same bursts to as many receivers, one GSO call for each burst and receiver; nothing is received. A second
//! process, pinned elsewhere, drains the receivers: it opens each packet, as participants do, and takes the time it was
//! under way. That is the latency of the path without a server.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use clap::Args;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use serde::{Deserialize, Serialize};

use crate::light::engine::header_length;
use crate::light::shape::{Shape, Stream, stamp};
use crate::peer::now as clock;
use crate::report::Percentiles;
use crate::stats::{Histogram, cpu_us};

/// What to do.
#[derive(Clone, Debug, Args)]
pub struct FloorArgs {
    /// What is sent.
    #[arg(long, default_value = "V")]
    pub shape: Shape,
    /// To how many receivers.
    #[arg(long, default_value_t = 125)]
    pub subscribers: usize,
    /// For how long, in seconds.
    #[arg(long, default_value_t = 10)]
    pub duration: u64,
    /// Processor the receivers are pinned to.
    #[arg(long)]
    pub receivers_on: Option<u32>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Floor {
    /// Packets sent.
    pub sent: u64,
    /// Packets that arrived.
    pub received: u64,
    /// Processor time of the sender per packet, in microseconds.
    pub cpu_us_per_packet: f64,
    /// From sending a burst to receiving its packets: the path of participants, without a server on it.
    pub latency_ms: Percentiles,
    /// How busy the receivers' processor was.
    pub receivers_cpu_percent: f64,
}

/// What the receiving end prints at its end.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Drained {
    received: u64,
    unauthentic: u64,
    latency_ms: Percentiles,
    cpu_us: u64,
}

/// Nanoseconds that mean the same in both processes.
#[expect(clippy::disallowed_methods, reason = "two processes have no other clock in common here")]
fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The key of a receiver.
fn key(receiver: usize) -> anyhow::Result<LessSafeKey> {
    Ok(LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[u8::try_from(receiver % 251).unwrap_or(0); 16])?))
}

/// Not safe for anything but measuring: it repeats with the sequence number.
fn nonce(packet: &[u8]) -> Nonce {
    let mut nonce = [0; 12];
    if let (Some(end), Some(sequence)) = (nonce.last_chunk_mut::<2>(), packet.get(2..4)) {
        end.copy_from_slice(sequence);
    }
    Nonce::assume_unique_for_key(nonce)
}

/// Send and measure.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub fn run(args: &FloorArgs) -> anyhow::Result<Floor> {
    let program = std::env::current_exe()?;
    let mut command = match args.receivers_on {
        Some(processor) => {
            let mut command = Command::new("taskset");
            command.arg("-c").arg(processor.to_string()).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.args(["drain", "--receivers", &args.subscribers.to_string()]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start the receivers")?;
    let mut says = BufReader::new(child.stdout.take().context("no pipe")?);
    let mut line = String::new();
    says.read_line(&mut line)?;
    let receivers: Vec<SocketAddr> = line
        .split_whitespace()
        .map(|port| Ok((Ipv4Addr::LOCALHOST, port.parse()?).into()))
        .collect::<anyhow::Result<_>>()?;
    let before = cpu_us("self").context("no /proc")?;
    let sent = send(args, &receivers)?;
    let spent = cpu_us("self").context("no /proc")?.saturating_sub(before);
    std::thread::park_timeout(Duration::from_millis(500));
    // Its end of the pipe is what it waits for.
    drop(child.stdin.take());
    line.clear();
    says.read_line(&mut line)?;
    child.wait()?;
    let drained: Drained = serde_json::from_str(&line)?;
    ensure!(drained.unauthentic == 0, "{} packets did not open", drained.unauthentic);
    Ok(Floor {
        sent,
        received: drained.received,
        cpu_us_per_packet: spent as f64 / sent.max(1) as f64,
        latency_ms: drained.latency_ms,
        receivers_cpu_percent: drained.cpu_us as f64 / (args.duration.max(1) as f64 * 1e4),
    })
}

fn send(args: &FloorArgs, receivers: &[SocketAddr]) -> anyhow::Result<u64> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
    let keys: Vec<LessSafeKey> = (0..receivers.len()).map(key).collect::<anyhow::Result<_>>()?;
    let mut stream = Stream::new(args.shape, 1);
    let every = Duration::from_secs(1) / args.shape.bursts_per_second();
    let bursts = args.duration * u64::from(args.shape.bursts_per_second());
    let (mut due, mut sent, mut plain, mut arena) = (clock(), 0, Vec::new(), Vec::with_capacity(65_536));
    for burst in 0..bursts {
        while let Some(wait) = due.checked_duration_since(clock()).filter(|wait| !wait.is_zero()) {
            std::thread::park_timeout(wait);
        }
        due += every;
        plain.clear();
        let at = wall();
        (0..args.shape.burst()).for_each(|n| stream.packet(n, burst == 0, at, 0, &mut plain));
        let size = plain.len() / args.shape.burst();
        let header = size - args.shape.payload();
        for (to, key) in receivers.iter().zip(&keys) {
            arena.clear();
            for packet in plain.chunks(size) {
                let start = arena.len();
                arena.extend_from_slice(packet);
                let Some((head, body)) = arena.get_mut(start..).and_then(|p| p.split_at_mut_checked(header)) else {
                    continue;
                };
                let tag = key.seal_in_place_separate_tag(nonce(packet), Aad::from(&*head), body)?;
                arena.extend_from_slice(tag.as_ref());
            }
            let segment = size + 16;
            let segment_size = (arena.len() > segment).then_some(segment);
            let transmit = Transmit { destination: *to, ecn: None, contents: &arena, segment_size, src_ip: None };
            state.try_send(UdpSockRef::from(&socket), &transmit)?;
            sent += args.shape.burst() as u64;
        }
    }
    Ok(sent)
}

/// Receive, open and time on `receivers` sockets until the standard input ends: print the ports, then what came.
pub fn drain(receivers: usize) -> anyhow::Result<()> {
    let mut poll = Poll::new()?;
    let sockets: Vec<UdpSocket> =
        (0..receivers).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    let mut ports = Vec::new();
    for (n, socket) in sockets.iter().enumerate() {
        socket.set_nonblocking(true)?;
        poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), Token(n), Interest::READABLE)?;
        ports.push(socket.local_addr()?.port().to_string());
    }
    println!("{}", ports.join(" "));
    // Kept: what a waker has said is lost with it.
    let waker = Arc::new(mio::Waker::new(poll.registry(), Token(receivers))?);
    let by_input = Arc::clone(&waker);
    std::thread::spawn(move || {
        // Whatever ends it ends us.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = by_input.wake();
    });
    let keys: Vec<LessSafeKey> = (0..receivers).map(key).collect::<anyhow::Result<_>>()?;
    let (mut events, mut buffer) = (Events::with_capacity(1_024), vec![0; 65_536]);
    let (mut received, mut unauthentic, mut latency) = (0, 0, Histogram::default());
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            let Some((socket, key)) = sockets.get(event.token().0).zip(keys.get(event.token().0)) else {
                let cpu_us = cpu_us("self").context("no /proc")?;
                let drained = Drained { received, unauthentic, latency_ms: Percentiles::of(&latency), cpu_us };
                println!("{}", serde_json::to_string(&drained)?);
                return Ok(());
            };
            while let Ok(length) = socket.recv(&mut buffer) {
                let at = wall();
                received += 1;
                let packet = buffer.get_mut(..length).unwrap_or_default();
                let nonce = nonce(packet);
                let Some((head, body)) = packet.split_at_mut_checked(header_length(packet)) else { continue };
                match key.open_in_place(nonce, Aad::from(&*head), body).map(|plain| stamp(plain)) {
                    Ok(Some((_, sent))) => latency.add(at.saturating_sub(sent)),
                    _ => unauthentic += 1,
                }
            }
        }
    }
}
