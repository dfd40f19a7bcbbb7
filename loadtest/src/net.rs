//! A network emulator for real sockets: a UDP proxy between clients and a server with a [`link::Link`] each way, whose
//! shape follows a script or commands on the standard input. All clients share the two links, as behind one access line.
//!
//! It needs no rights and no kernel support. Its timers have a grain of a millisecond.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use serde::Serialize;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};

use link::{Counts, Link, Shape};
use words::{Change, Direction};

pub mod link;
mod tcp;
pub mod waits;
pub mod words;

/// Of IP and UDP.
const HEADERS_V4: usize = 28;
const HEADERS_V6: usize = 48;
/// Clients that may come; each has a socket of its own towards the server.
const MOST_CLIENTS: usize = 1024;
/// Datagrams that wait to enter; more are lost, as in any router.
const MOST_WAITING: usize = 4096;
const LARGEST: usize = 65_536;

/// Stand between clients and a server as a bad network.
#[derive(Clone, Debug, clap::Args)]
pub struct NetArgs {
    /// Where clients send to.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// The server's media address.
    #[arg(long)]
    pub to: SocketAddr,
    /// What the network is like from the start, such as "down rate 3000 delay 25 queue 300". Rates in kbit/s, times in
    /// ms, loss and late in percent; up, down or both.
    #[arg(long, value_parser = Change::now)]
    pub set: Vec<Change>,
    /// A file of the same with the second it happens at before each line.
    #[arg(long)]
    pub script: Option<PathBuf>,
    /// Take the same from the standard input, at once, and the command `stats`: a line of JSON with what happened since
    /// the one before. Ends with the input.
    #[arg(long)]
    pub control: bool,
    /// Where chance begins.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What happened on one direction.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LinkReport {
    /// Packets that arrived.
    pub delivered: u64,
    /// Their bytes, with headers.
    pub bytes: u64,
    /// Packets that found the queue full.
    pub dropped: u64,
    /// Packets lost by chance.
    pub lost: u64,
    /// Packets held back.
    pub late: u64,
    /// Bytes the link could have carried; 0 without a rate.
    pub capacity_bytes: u64,
    /// Bytes of the TCP flow.
    pub tcp_bytes: u64,
    /// Time in the queue, ms.
    pub queue_ms: QueueReport,
}

/// Time in the queue, ms.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct QueueReport {
    /// Median.
    pub p50: u64,
    /// 95 of 100.
    pub p95: u64,
    /// 99 of 100.
    pub p99: u64,
    /// Longest.
    pub max: u64,
}

/// What happened, both ways.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Report {
    /// Over how many seconds.
    pub seconds: f64,
    /// Client to server.
    pub up: LinkReport,
    /// Server to client.
    pub down: LinkReport,
}

impl From<Counts> for LinkReport {
    fn from(counts: Counts) -> Self {
        let at = |percent| counts.waits.percentile(percent);
        Self {
            delivered: counts.delivered,
            bytes: counts.bytes,
            dropped: counts.dropped,
            lost: counts.lost,
            late: counts.late,
            capacity_bytes: counts.capacity / 8,
            tcp_bytes: counts.tcp_bytes,
            queue_ms: QueueReport { p50: at(50), p95: at(95), p99: at(99), max: at(100) },
        }
    }
}

/// A client's datagram, or one for it.
#[derive(Debug)]
struct Datagram {
    client: SocketAddr,
    bytes: Vec<u8>,
}

struct Net {
    near: UdpSocket,
    to: SocketAddr,
    /// By the client's address: the socket towards the server.
    far: BTreeMap<SocketAddr, Arc<UdpSocket>>,
    answers: mpsc::Sender<Datagram>,
    up: Link<Datagram>,
    down: Link<Datagram>,
    started: Instant,
    counted: Instant,
}

/// Work until the standard input ends (with `control`) or the process is interrupted. The first line on the standard
/// output says where it listens, the last what happened.
///
/// # Errors
/// When a socket cannot be bound, or the script is wrong.
pub async fn run(args: &NetArgs) -> anyhow::Result<()> {
    let mut script = match &args.script {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            Change::script(&text).map_err(|wrong| anyhow!("{}: {wrong}", path.display()))?
        }
        None => Vec::new(),
    };
    script.reverse();
    let (answers, mut arriving) = mpsc::channel(MOST_WAITING);
    let mut net = Net {
        near: UdpSocket::bind(args.listen).await.with_context(|| args.listen.to_string())?,
        to: args.to,
        far: BTreeMap::new(),
        answers,
        up: Link::new(Shape::default(), args.seed),
        down: Link::new(Shape::default(), args.seed.wrapping_add(1)),
        started: Instant::now(),
        counted: Instant::now(),
    };
    args.set.iter().for_each(|change| net.change(change));
    say(&serde_json::json!({ "listening": net.near.local_addr()? }));
    let mut control = args.control.then(commands);
    let mut buffer = vec![0; LARGEST];
    loop {
        while let Some(change) = script.pop_if(|change| change.at <= net.now()) {
            net.change(&change);
        }
        net.deliver();
        let wake = net.wake(script.last().map(|change| change.at));
        tokio::select! {
            received = net.near.recv_from(&mut buffer) => {
                // An error is an unreachable client: it is the network's business, not ours.
                if let Ok((length, client)) = received {
                    net.take_up(client, buffer.get(..length).unwrap_or_default());
                }
            }
            Some(datagram) = arriving.recv() => net.take_down(datagram),
            () = tokio::time::sleep_until(wake) => {}
            line = next_line(&mut control) => match line {
                Some(line) => net.obey(line.trim()),
                None => break,
            },
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    net.tell();
    Ok(())
}

/// Lines of the standard input. On a thread of its own: a read there cannot be called off, and would hold up the end.
fn commands() -> mpsc::Receiver<String> {
    let (lines, commands) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    commands
}

/// The next command, `None` when there will be no more; never without control.
async fn next_line(control: &mut Option<mpsc::Receiver<String>>) -> Option<String> {
    match control {
        Some(lines) => lines.recv().await,
        None => std::future::pending().await,
    }
}

fn say(value: &impl Serialize) {
    println!("{}", serde_json::to_string(value).unwrap_or_default());
}

impl Net {
    /// Microseconds since the start.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn wake(&self, script: Option<u64>) -> Instant {
        let next = [self.up.next_at(), self.down.next_at(), script].into_iter().flatten().min();
        next.map_or_else(|| Instant::now() + Duration::from_secs(1), |at| self.started + Duration::from_micros(at))
    }

    fn change(&mut self, change: &Change) {
        let now = self.now();
        if change.direction != Direction::Down {
            let shape = change.apply(*self.up.shape());
            self.up.set_shape(now, shape);
        }
        if change.direction != Direction::Up {
            let shape = change.apply(*self.down.shape());
            self.down.set_shape(now, shape);
        }
    }

    fn obey(&mut self, line: &str) {
        match line {
            "" => {}
            "stats" => self.tell(),
            _ => match Change::now(line) {
                Ok(change) => self.change(&change),
                Err(wrong) => say(&serde_json::json!({ "error": wrong })),
            },
        }
    }

    fn tell(&mut self) {
        let now = self.now();
        self.up.advance(now);
        self.down.advance(now);
        let seconds = self.counted.elapsed().as_secs_f64();
        self.counted = Instant::now();
        say(&Report { seconds, up: self.up.take_counts().into(), down: self.down.take_counts().into() });
    }

    /// A client sent something.
    fn take_up(&mut self, client: SocketAddr, bytes: &[u8]) {
        if !self.far.contains_key(&client) && (self.far.len() >= MOST_CLIENTS || self.meet(client).is_err()) {
            return;
        }
        let now = self.now();
        self.up.send(now, bytes.len() + headers(client), Datagram { client, bytes: bytes.to_vec() });
    }

    /// The server answered.
    fn take_down(&mut self, datagram: Datagram) {
        let now = self.now();
        self.down.send(now, datagram.bytes.len() + headers(datagram.client), datagram);
    }

    /// A socket of its own for a new client, so that the server tells clients apart.
    fn meet(&mut self, client: SocketAddr) -> anyhow::Result<()> {
        let any: std::net::IpAddr = if self.to.is_ipv4() {
            std::net::Ipv4Addr::UNSPECIFIED.into()
        } else {
            std::net::Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = std::net::UdpSocket::bind((any, 0))?;
        socket.connect(self.to)?;
        socket.set_nonblocking(true)?;
        let far = Arc::new(UdpSocket::from_std(socket)?);
        self.far.insert(client, far.clone());
        let answers = self.answers.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; LARGEST];
            loop {
                match far.recv(&mut buffer).await {
                    Ok(length) => {
                        let bytes = buffer.get(..length).unwrap_or_default().to_vec();
                        let taken = answers.try_send(Datagram { client, bytes });
                        if matches!(taken, Err(mpsc::error::TrySendError::Closed(_))) {
                            return;
                        }
                    }
                    // The server is not there (yet).
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        Ok(())
    }

    /// What has got through goes on; what a socket does not take is lost.
    fn deliver(&mut self) {
        let now = self.now();
        while let Some(datagram) = self.up.receive(now) {
            if let Some(far) = self.far.get(&datagram.client) {
                let _ = far.try_send(&datagram.bytes);
            }
        }
        while let Some(datagram) = self.down.receive(now) {
            let _ = self.near.try_send_to(&datagram.bytes, datagram.client);
        }
    }
}

const fn headers(address: SocketAddr) -> usize {
    if address.is_ipv4() { HEADERS_V4 } else { HEADERS_V6 }
}
