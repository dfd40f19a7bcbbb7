//! Connections of TURN clients, plain or TLS: accepted, read into messages, written from bounded queues. Strangers have a
//! few seconds to make an allocation; one address has few connections.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use rustls::{ServerConfig, ServerConnection};

use super::connection::{Connection, Reading};
use crate::base::Instant;
use crate::media::acceptor::household;
use crate::transport::route::{Route, TcpConnection};

/// How long a connection may live without an allocation.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections accepted per turn and listener.
const ACCEPTS_AT_ONCE: usize = 16;
/// How long to wait with accepting when the system has no descriptor or memory left.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections that may hand on messages per turn.
const CONNECTIONS_PER_TURN: usize = 32;

/// A listener and what is spoken behind it.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) listener: TcpListener,
    pub(super) tls: bool,
}

/// All connections of the TURN thread.
#[derive(Debug)]
pub(super) struct Streams {
    doors: Vec<Door>,
    /// Tokens below it are doors, from it on connections.
    first: usize,
    max: usize,
    max_per_address: u32,
    backlog: bool,
    paused_until: Option<Instant>,
    connections: BTreeMap<u64, Connection>,
    per_address: BTreeMap<IpAddr, u32>,
    next: u64,
    ready: VecDeque<u64>,
    dirty: Vec<u64>,
    closed: Vec<Route>,
}

impl Streams {
    pub(super) fn new(doors: Vec<Door>, first: usize, max: usize, max_per_address: u32) -> Self {
        Self {
            doors,
            first,
            max,
            max_per_address,
            backlog: true,
            paused_until: None,
            connections: BTreeMap::new(),
            per_address: BTreeMap::new(),
            next: 0,
            ready: VecDeque::new(),
            dirty: Vec::new(),
            closed: Vec::new(),
        }
    }

    /// The poll reported a door or a connection.
    pub(super) fn set_ready(&mut self, token: usize, readable: bool, writable: bool) {
        let Some(id) = token.checked_sub(self.first) else {
            self.backlog = true;
            return;
        };
        let id = id as u64;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if readable && !connection.is_ready {
            connection.is_ready = true;
            self.ready.push_back(id);
        }
        if writable {
            self.mark(id);
        }
    }

    /// Whether there is something to do without waiting.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty() || (self.backlog && self.paused_until.is_none())
    }

    /// Accept who waits, some at a time. `tls` is for the doors that want it.
    pub(super) fn accept(&mut self, now: Instant, registry: &Registry, tls: Option<&Arc<ServerConfig>>) {
        if self.paused_until.is_some_and(|until| now < until) {
            return;
        }
        self.paused_until = None;
        if !std::mem::take(&mut self.backlog) {
            return;
        }
        for index in 0..self.doors.len() {
            let mut left = ACCEPTS_AT_ONCE;
            while let Some(door) = self.doors.get(index) {
                if left == 0 {
                    self.backlog = true;
                    break;
                }
                left -= 1;
                let tls = if door.tls { tls } else { None };
                match door.listener.accept() {
                    Ok((stream, remote)) => self.admit(now, registry, stream, remote, tls),
                    Err(error) => match error.kind() {
                        std::io::ErrorKind::WouldBlock => break,
                        std::io::ErrorKind::ConnectionAborted | std::io::ErrorKind::Interrupted => {}
                        // No descriptor, no memory: newcomers wait in the kernel.
                        _ => {
                            self.backlog = true;
                            self.paused_until = Some(now + PAUSE);
                            return;
                        }
                    },
                }
            }
        }
    }

    fn admit(
        &mut self,
        now: Instant,
        registry: &Registry,
        mut stream: TcpStream,
        remote: SocketAddr,
        tls: Option<&Arc<ServerConfig>>,
    ) {
        let from_there = self.per_address.get(&household(remote.ip())).copied().unwrap_or(0);
        let Ok(id) = usize::try_from(self.next) else { return };
        let Ok(tls) = tls.cloned().map(ServerConnection::new).transpose() else { return };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.connections.len() >= self.max
            || from_there >= self.max_per_address
            || registry.register(&mut stream, Token(self.first.saturating_add(id)), interest).is_err()
        {
            return;
        }
        // Small packets must not wait for each other.
        let _ = stream.set_nodelay(true);
        self.per_address.insert(household(remote.ip()), from_there + 1);
        self.connections.insert(self.next, Connection::new(now, stream, remote, tls));
        self.ready.push_back(self.next);
        self.next += 1;
    }

    /// Hand on messages of some connections.
    pub(super) fn receive(&mut self, now: Instant, mut take: impl FnMut(Route, &[u8])) {
        for _ in 0..self.ready.len().min(CONNECTIONS_PER_TURN) {
            let Some(id) = self.ready.pop_front() else { return };
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            let route = Route::Tcp { connection: TcpConnection(id), remote: connection.remote };
            match connection.receive(|message| take(route, message)) {
                Reading::More => self.ready.push_back(id),
                Reading::Done => connection.is_ready = false,
                Reading::Ended => {
                    // What TLS has to say about it, if it still can be said.
                    let _ = connection.write(now);
                    self.end(id);
                }
            }
            // Reading may have left TLS with something to say.
            self.mark(id);
        }
    }

    fn mark(&mut self, id: u64) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !std::mem::replace(&mut connection.is_dirty, true)
        {
            self.dirty.push(id);
        }
    }

    /// Queue messages, each `segment` bytes long, the last perhaps shorter. What does not fit is lost.
    pub(super) fn send(&mut self, now: Instant, to: TcpConnection, run: &[u8], segment: usize) {
        let Some(connection) = self.connections.get_mut(&to.0) else { return };
        for message in run.chunks(segment.max(1)) {
            connection.push(now, message);
        }
        self.mark(to.0);
    }

    /// Write what the connections take.
    pub(super) fn flush(&mut self, now: Instant) {
        while let Some(id) = self.dirty.pop() {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            connection.is_dirty = false;
            if !connection.write(now) {
                self.end(id);
            }
        }
    }

    /// Close what is stuck, or has made no allocation in time. Called about once a second.
    pub(super) fn sweep(&mut self, now: Instant, is_allocated: impl Fn(&Route) -> bool) {
        let is_dead = |id: u64, c: &Connection| {
            let route = Route::Tcp { connection: TcpConnection(id), remote: c.remote };
            c.is_stuck(now) || now.since(c.made) > PATIENCE && !is_allocated(&route)
        };
        let dead: Vec<u64> = self.connections.iter().filter(|(id, c)| is_dead(**id, c)).map(|(id, _)| *id).collect();
        for id in dead {
            self.end(id);
        }
    }

    /// The next connection that ended.
    pub(super) fn next_closed(&mut self) -> Option<Route> {
        self.closed.pop()
    }

    fn end(&mut self, id: u64) {
        let Some(connection) = self.connections.remove(&id) else { return };
        let address = household(connection.remote.ip());
        if let Some(count) = self.per_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&address);
            }
        }
        self.closed.push(Route::Tcp { connection: TcpConnection(id), remote: connection.remote });
    }
}
