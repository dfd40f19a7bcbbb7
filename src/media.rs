//! The media threads: each is one OS thread with one UDP port, one [`crate::shard::Shard`] and no locks.
//!
//! A thread's turn takes in what has arrived, obeys commands, serves timers, flushes the shard and sends what came out.
//! Started by `main`, which gives the [`MediaLink`] to control; control and media know each other only through
//! [`crate::mailbox`].

pub mod clock;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::thread::JoinHandle;

use crate::mailbox::{MAX_THREADS, MediaLink, REPORTS};
use crate::shard::ShardConfig;

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
    /// For each shard. `ntp_at_zero` is overwritten with the truth of the clock.
    pub shard: ShardConfig,
}

/// The running media threads. Dropping it ends them.
#[derive(Debug)]
pub struct MediaThreads {
    mailboxes: Vec<crate::mailbox::Mailbox>,
    threads: Vec<JoinHandle<()>>,
}

impl MediaThreads {
    /// Bind all sockets and start the threads. Fails with the address that could not be had.
    pub fn start(config: MediaConfig) -> Result<(Self, MediaLink), StartError> {
        let _ = (config, REPORTS);
        Err(StartError::Threads(0))
    }
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
    #[error("cannot start media thread {thread}: {source}")]
    System {
        /// Which.
        thread: usize,
        /// What the system says.
        source: io::Error,
    },
}
