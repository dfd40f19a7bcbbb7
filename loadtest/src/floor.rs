//! `weir-loadtest floor`: what sending costs at the least. The packets of a shape are sealed with AES-128-GCM and sent
//! in the same bursts to as many receivers, one GSO call for each burst and receiver; nothing is received. A second
//! process, pinned elsewhere, drains the receivers.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use clap::Args;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use serde::Serialize;

use crate::light::shape::{Shape, Stream};
use crate::peer::now as clock;
use crate::stats::{cpu_us, nanos};

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
    Ok(Floor { sent, received: line.trim().parse()?, cpu_us_per_packet: spent as f64 / sent.max(1) as f64 })
}

fn send(args: &FloorArgs, receivers: &[SocketAddr]) -> anyhow::Result<u64> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
    let keys: Vec<LessSafeKey> = (0..receivers.len())
        .map(|n| UnboundKey::new(&AES_128_GCM, &[u8::try_from(n % 251).unwrap_or(0); 16]).map(LessSafeKey::new))
        .collect::<Result<_, _>>()?;
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
        let at = nanos();
        (0..args.shape.burst()).for_each(|n| stream.packet(n, burst == 0, at, 0, &mut plain));
        let size = plain.len() / args.shape.burst();
        let header = size - args.shape.payload();
        for (to, key) in receivers.iter().zip(&keys) {
            arena.clear();
            for (packet, number) in plain.chunks(size).zip(0u64..) {
                let start = arena.len();
                arena.extend_from_slice(packet);
                let mut nonce = [0; 12];
                nonce[4..].copy_from_slice(&(burst * 8 + number).to_be_bytes());
                let Some((head, body)) = arena.get_mut(start..).and_then(|p| p.split_at_mut_checked(header)) else {
                    continue;
                };
                let nonce = Nonce::assume_unique_for_key(nonce);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(&*head), body)?;
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

/// Receive and count on `receivers` sockets until the standard input ends: print the ports, then the number of
/// datagrams.
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
    let (mut events, mut buffer, mut received) = (Events::with_capacity(1_024), vec![0; 65_536], 0u64);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            let Some(socket) = sockets.get(event.token().0) else {
                println!("{received}");
                return Ok(());
            };
            while socket.recv(&mut buffer).is_ok() {
                received += 1;
            }
        }
    }
}
