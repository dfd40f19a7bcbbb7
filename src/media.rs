//! The media threads: each is one OS thread with one UDP port, one [`crate::shard::Shard`] and no locks.
//!
//! A thread's turn takes in what has arrived, obeys commands, serves timers, flushes the shard and sends what came out.
//! Started by `main`, which gives the [`MediaLink`] to control; control and media know each other only through
//! [`crate::mailbox`].

mod acceptor;
pub mod clock;
mod tcp;
mod thread;
mod turn;
mod udp;
mod watchdog;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::Sender;
use std::thread::{Builder, JoinHandle};

use mio::{Poll, Token, Waker};
use tokio::sync::mpsc;

pub(crate) use self::acceptor::household;
use self::acceptor::{Acceptor, AcceptorHandle};
use self::clock::Clock;
use self::thread::{FIRST_UDP, MediaThread, Pulse, WAKE};
pub use self::turn::TurnConfig;
use self::turn::TurnThread;
use self::udp::UdpPort;
use crate::base::ShardId;
use crate::mailbox::{MAX_THREADS, Mailbox, MediaLink, REPORTS, RelayBox, Report, Reporter, ThreadLink, ThreadStats};
use crate::shard::ShardConfig;
use crate::shard::outbox::Outbox;

/// What to start.
#[derive(Clone, Debug)]
pub struct MediaConfig {
    /// How many media threads, 1 to [`crate::mailbox::MAX_THREADS`].
    pub threads: usize,
    /// Addresses to bind UDP to. The unspecified address of a family means all of it; answers leave from the address
    /// the request came to.
    pub bind: Vec<IpAddr>,
    /// UDP port of the first thread; the others take the ports after it. 0: any free port for each.
    pub udp_port: u16,
    /// Where ICE-TCP listens; empty: off. Port 0: any.
    pub tcp: Vec<SocketAddr>,
    /// The TURN service, if there is to be one.
    pub turn: Option<TurnConfig>,
    /// For each shard. `ntp_at_zero` is set by the clock.
    pub shard: ShardConfig,
}

/// The running media threads. Dropping it ends them and waits until they have.
#[derive(Debug)]
pub struct MediaThreads {
    mailboxes: Vec<Mailbox>,
    acceptor: Option<AcceptorHandle>,
    relay: Option<RelayBox>,
    /// Dropping it ends the watchdog.
    watchdog: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl MediaThreads {
    /// Bind all sockets and start the threads. Fails, with nothing left running, when something could not be had.
    pub fn start(config: MediaConfig, clock: Clock) -> Result<(Self, MediaLink), StartError> {
        if config.threads == 0 || config.threads > MAX_THREADS {
            return Err(StartError::Threads(config.threads));
        }
        if config.bind.is_empty() {
            return Err(StartError::NoAddress);
        }
        // Read once: all shards of a node share it.
        let shard = ShardConfig { ntp_at_zero: clock.ntp_at_zero(), ..config.shard.clone() };
        let config = MediaConfig { shard, ..config };
        let (sender, reports) = mpsc::channel(REPORTS);
        let mut parts = Vec::new();
        let mut links = Vec::new();
        for index in 0..config.threads {
            let (thread, link) = prepare(index, &config, clock, sender.clone())?;
            parts.push(thread);
            links.push(link);
        }
        connect(&mut parts, &links);
        let mailboxes: Vec<Mailbox> = links.iter().map(|link| link.mailbox.clone()).collect();
        let listen = |address: &SocketAddr| {
            acceptor::listen(*address).map_err(|source| StartError::Listen {
                protocol: "TCP",
                address: *address,
                source,
            })
        };
        let listeners = config.tcp.iter().map(listen).collect::<Result<Vec<_>, _>>()?;
        let tcp = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();

        let mut running =
            Self { mailboxes: mailboxes.clone(), acceptor: None, relay: None, watchdog: None, threads: Vec::new() };
        if !listeners.is_empty() {
            let system = |source| StartError::System { what: "the ICE-TCP acceptor".to_owned(), source };
            let (acceptor, handle) = Acceptor::new(listeners, mailboxes.clone(), clock).map_err(system)?;
            running.acceptor = Some(handle);
            running.spawn("weir-ice-tcp".to_owned(), move || acceptor.run())?;
        }
        let mut turn = None;
        if let Some(config) = &config.turn {
            let (thread, relay, link) = TurnThread::new(config, &links, clock, sender)?;
            turn = Some(link);
            for media in &mut parts {
                media.relay = Some(relay.clone());
            }
            running.relay = Some(relay);
            running.spawn("weir-turn".to_owned(), move || thread.run())?;
        }
        let watched = parts.iter().map(|thread| thread.pulse.clone()).zip(mailboxes).collect();
        for thread in parts {
            running.spawn(format!("weir-media-{}", thread.index), move || thread.run())?;
        }
        let (alive, ended) = std::sync::mpsc::channel();
        running.watchdog = Some(alive);
        running.spawn("weir-watchdog".to_owned(), move || watchdog::run(watched, clock, &ended))?;
        Ok((running, MediaLink { threads: links, tcp, turn, reports }))
    }

    fn spawn(&mut self, name: String, body: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
        let what = name.clone();
        let handle = Builder::new().name(name).spawn(body).map_err(|source| StartError::System { what, source })?;
        self.threads.push(handle);
        Ok(())
    }
}

impl Drop for MediaThreads {
    fn drop(&mut self) {
        self.mailboxes.iter().for_each(Mailbox::stop);
        if let Some(acceptor) = &self.acceptor {
            acceptor.stop();
        }
        if let Some(relay) = &self.relay {
            relay.stop();
        }
        self.watchdog = None;
        for thread in self.threads.drain(..) {
            // It has panicked outside its supervisor: the panic hook has told.
            let _ = thread.join();
        }
    }
}

/// A way from each shard to each other one.
fn connect(parts: &mut [MediaThread], links: &[ThreadLink]) {
    let number = |index: usize| ShardId(u16::try_from(index).unwrap_or(u16::MAX));
    for from in 0..links.len() {
        for (to, link) in links.iter().enumerate().filter(|(to, _)| *to != from) {
            let (inlet, outlet) = link.mailbox.ring(number(from));
            if let Some(thread) = parts.get_mut(from) {
                thread.rings.push((number(to), inlet));
            }
            if let Some(thread) = parts.get_mut(to) {
                thread.inbox.attach(outlet);
            }
        }
    }
}

/// Everything of a thread but the thread.
fn prepare(
    index: usize,
    config: &MediaConfig,
    clock: Clock,
    reports: mpsc::Sender<(usize, Report)>,
) -> Result<(MediaThread, ThreadLink), StartError> {
    let system = |source| StartError::System { what: format!("media thread {index}"), source };
    let poll = Poll::new().map_err(system)?;
    let waker = Waker::new(poll.registry(), WAKE).map_err(system)?;
    let mut udp = Vec::new();
    for ip in &config.bind {
        let port = match config.udp_port {
            0 => 0,
            first => u16::try_from(usize::from(first) + index).map_err(|_| StartError::Port(index))?,
        };
        let address = SocketAddr::new(*ip, port);
        let listen = |source| StartError::Listen { protocol: "UDP", address, source };
        let socket = UdpPort::bind(address).map_err(listen)?;
        socket.register(poll.registry(), Token(FIRST_UDP + udp.len())).map_err(system)?;
        udp.push(socket);
    }
    let (mailbox, inbox) = Mailbox::new(waker);
    let link = ThreadLink { mailbox, udp: udp.iter().map(UdpPort::local).collect() };
    let thread = MediaThread {
        index,
        clock,
        poll,
        udp,
        inbox,
        reporter: Reporter::new(index, reports),
        config: config.shard.clone(),
        pulse: Pulse::default(),
        tcp: tcp::TcpTable::default(),
        relay: None,
        rings: Vec::new(),
        outbox: Outbox::new(),
        stats: ThreadStats::default(),
    };
    Ok((thread, link))
}

/// Why the media threads could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The number of threads is not possible.
    #[error("{0} media threads asked for, 1 to {max} are possible", max = MAX_THREADS)]
    Threads(usize),
    /// No address to bind to.
    #[error("no address for media to listen on")]
    NoAddress,
    /// There are not as many ports after the first.
    #[error("no port is left for media thread {0}: choose a lower first UDP port")]
    Port(usize),
    /// A socket could not be had.
    #[error("cannot listen on {protocol} {address}: {source}")]
    Listen {
        /// `UDP` or `TCP`.
        protocol: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Anything else the system refuses.
    #[error("cannot start {what}: {source}")]
    System {
        /// Which part.
        what: String,
        /// What the system says.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests;
