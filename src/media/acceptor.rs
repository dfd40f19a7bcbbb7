//! The ICE-TCP acceptor: a thread that reads the first frame of each connection and hands it to the media thread the
//! ufrag in it names.
//!
//! Strangers wait here and not on a media thread: little is read of each, for a few seconds, and there is a limit to how
//! many wait, in all and from one address.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::{Domain, Protocol, Socket, Type};

use super::clock::Clock;
use super::tcp::frame::ufrag_of_request;
use crate::base::Instant;
use crate::mailbox::{HandedOver, Mailbox, thread_of_ufrag};

/// How long a connection may take to send its first frame.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections that may wait for their first frame.
const MAX_PENDING: usize = 1_024;
/// Of those, from one address (one /64 of IPv6): a household behind one address, not a flood.
const MAX_PER_ADDRESS: u32 = 16;
/// Largest first frame: a binding request with the longest user name and every attribute browsers send.
const MAX_FIRST_FRAME: usize = 1_200;
/// Connections accepted before those that wait are looked at.
const ACCEPTS_AT_ONCE: usize = 64;
/// How long to wait with accepting when the system has no descriptor or memory left.
const PAUSE: Duration = Duration::from_millis(100);
const BACKLOG: i32 = 1_024;

const WAKE: Token = Token(0);
const FIRST_LISTENER: usize = 1;

/// The acceptor, before it runs.
#[derive(Debug)]
pub(super) struct Acceptor {
    poll: Poll,
    clock: Clock,
    listeners: Vec<TcpListener>,
    mailboxes: Vec<Mailbox>,
    stop: Arc<AtomicBool>,
    pending: BTreeMap<usize, Pending>,
    per_address: BTreeMap<IpAddr, u32>,
    /// Waiting connections in the order of their patience.
    deadlines: VecDeque<(Instant, usize)>,
    next: usize,
    /// Listeners that may have more, and until when not to ask them.
    backlog: bool,
    paused_until: Option<Instant>,
}

/// What ends an acceptor.
#[derive(Debug)]
pub(super) struct AcceptorHandle {
    stop: Arc<AtomicBool>,
    waker: Waker,
}

impl AcceptorHandle {
    /// Tell it to end.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.waker.wake();
    }
}

#[derive(Debug)]
struct Pending {
    stream: TcpStream,
    address: IpAddr,
    read: Vec<u8>,
}

/// What became of a waiting connection.
enum Outcome {
    Waits,
    Refused,
    Belongs { thread: usize },
}

/// Listen on `address`.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restart must not wait for connections of the last run to time out.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

impl Acceptor {
    /// For these listeners; `mailboxes` in the order of the threads.
    pub(super) fn new(
        mut listeners: Vec<TcpListener>,
        mailboxes: Vec<Mailbox>,
        clock: Clock,
    ) -> io::Result<(Self, AcceptorHandle)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        for (index, listener) in listeners.iter_mut().enumerate() {
            poll.registry().register(listener, Token(FIRST_LISTENER + index), Interest::READABLE)?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let next = FIRST_LISTENER + listeners.len();
        let acceptor = Self {
            poll,
            clock,
            listeners,
            mailboxes,
            stop: stop.clone(),
            pending: BTreeMap::new(),
            per_address: BTreeMap::new(),
            deadlines: VecDeque::new(),
            next,
            backlog: true,
            paused_until: None,
        };
        Ok((acceptor, AcceptorHandle { stop, waker }))
    }

    /// Serve until stopped.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(256);
        while !self.stop.load(Ordering::SeqCst) {
            let timeout = self.timeout();
            if self.poll.poll(&mut events, timeout).is_err() {
                // Interrupted: `events` is empty.
            }
            let now = self.clock.now();
            for event in &events {
                match event.token() {
                    WAKE => {}
                    Token(token) if token < FIRST_LISTENER + self.listeners.len() => self.backlog = true,
                    Token(token) => self.advance(token),
                }
            }
            self.accept(now);
            self.expire(now);
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let now = self.clock.now();
        let until = |at: Instant| at.since(now);
        let accepting = self.backlog.then(|| self.paused_until.map_or(Duration::ZERO, until));
        let expiring = self.deadlines.front().map(|(at, _)| until(*at));
        accepting.into_iter().chain(expiring).min()
    }

    fn accept(&mut self, now: Instant) {
        if !self.backlog || self.paused_until.is_some_and(|until| now < until) {
            return;
        }
        self.paused_until = None;
        let mut accepted = 0;
        for index in 0..self.listeners.len() {
            loop {
                if accepted == ACCEPTS_AT_ONCE {
                    return;
                }
                let Some(listener) = self.listeners.get(index) else { break };
                match listener.accept() {
                    Ok((stream, remote)) => {
                        accepted += 1;
                        self.admit(now, stream, remote);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // The far end has gone already (ECONNABORTED), or a signal came: the next one, please.
                    Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {
                        accepted += 1;
                    }
                    // No descriptor, no memory: calls go on, newcomers wait in the kernel.
                    Err(_) => {
                        self.paused_until = Some(now + PAUSE);
                        return;
                    }
                }
            }
        }
        self.backlog = false;
    }

    fn admit(&mut self, now: Instant, mut stream: TcpStream, remote: SocketAddr) {
        let address = household(remote.ip());
        let from_there = self.per_address.get(&address).copied().unwrap_or(0);
        if self.pending.len() >= MAX_PENDING || from_there >= MAX_PER_ADDRESS {
            return;
        }
        let token = self.next;
        if self.poll.registry().register(&mut stream, Token(token), Interest::READABLE).is_err() {
            return;
        }
        self.next += 1;
        self.per_address.insert(address, from_there + 1);
        self.pending.insert(token, Pending { stream, address, read: Vec::new() });
        self.deadlines.push_back((now + PATIENCE, token));
        self.advance(token);
    }

    /// Read on from a waiting connection and see whose it is.
    fn advance(&mut self, token: usize) {
        let Some(pending) = self.pending.get_mut(&token) else { return };
        match pending.read_on() {
            Outcome::Waits => {}
            Outcome::Refused => drop(self.take(token)),
            Outcome::Belongs { thread } => self.hand_over(token, thread),
        }
    }

    fn hand_over(&mut self, token: usize, thread: usize) {
        let Some(mut pending) = self.take(token) else { return };
        let Some(mailbox) = self.mailboxes.get(thread) else { return };
        if self.poll.registry().deregister(&mut pending.stream).is_ok() {
            let handed = HandedOver { stream: pending.stream.into(), read: pending.read };
            // Full: dropping it closes it, and the client tries again.
            let _ = mailbox.hand_over(handed);
        }
    }

    fn take(&mut self, token: usize) -> Option<Pending> {
        let pending = self.pending.remove(&token)?;
        if let Some(count) = self.per_address.get_mut(&pending.address) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&pending.address);
            }
        }
        Some(pending)
    }

    fn expire(&mut self, now: Instant) {
        while let Some((at, token)) = self.deadlines.front().copied() {
            // Those that were handed over or refused leave the front without waiting for their time.
            if self.pending.contains_key(&token) && now < at {
                return;
            }
            self.deadlines.pop_front();
            drop(self.take(token));
        }
    }
}

impl Pending {
    fn read_on(&mut self) -> Outcome {
        let mut buffer = [0; MAX_FIRST_FRAME + 2];
        loop {
            let wanted = match self.read.first_chunk::<2>() {
                None => 2,
                Some(length) => 2 + usize::from(u16::from_be_bytes(*length)),
            };
            if wanted > buffer.len() {
                return Outcome::Refused;
            }
            if let Some(first) = self.read.get(2..wanted).filter(|first| !first.is_empty()) {
                let thread = ufrag_of_request(first).and_then(thread_of_ufrag);
                return thread.map_or(Outcome::Refused, |thread| Outcome::Belongs { thread });
            }
            if wanted == 2 && self.read.len() >= 2 {
                return Outcome::Refused;
            }
            // No more than the first frame: the rest is for the media thread.
            let Some(space) = buffer.get_mut(..wanted - self.read.len()) else { return Outcome::Refused };
            match self.stream.read(space) {
                Ok(0) => return Outcome::Refused,
                Ok(read) => self.read.extend_from_slice(space.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Outcome::Waits,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Outcome::Refused,
            }
        }
    }
}

/// The address connections are counted under: IPv6 hosts own a /64.
pub(crate) fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        v4 @ IpAddr::V4(_) => v4,
    }
}
