//! ICE-TCP connections of a media thread (RFC 6544, passive): RFC 4571 frames on the thread's own poll.
//!
//! The acceptor hands connections over with their first frame read. Each has a bounded queue: media is dropped when it is
//! full, and a connection that takes nothing for a while is closed. To the shard a connection is a [`Route`].

pub(super) mod frame;

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use self::frame::FrameBuffer;
use crate::base::Instant;
use crate::mailbox::{HandedOver, ThreadStats};
use crate::transport::route::{Route, TcpConnection};

/// Connections of one media thread. More are refused.
const MAX_CONNECTIONS: usize = 4_096;
/// Bytes that may wait in a connection before media is dropped: a second of 1 Mbit/s.
const MEDIA_QUEUE: usize = 128 << 10;
/// Bytes that may wait before anything is dropped.
const QUEUE: usize = 256 << 10;
/// A connection that takes nothing for this long while something waits is closed.
const STUCK: Duration = Duration::from_secs(10);
/// A connection on which nothing arrives for this long is closed: ICE consent checks come every few seconds.
const SILENT: Duration = Duration::from_secs(30);
/// Frames a connection may hand on per turn.
const FRAMES_PER_TURN: usize = 64;
/// Connections that may hand on frames per turn.
const CONNECTIONS_PER_TURN: usize = 16;

/// All ICE-TCP connections of a thread.
#[derive(Debug, Default)]
pub(super) struct TcpTable {
    connections: BTreeMap<u64, Connection>,
    /// Number of the next connection.
    next: u64,
    /// Connections that may have something to read, each at most once.
    ready: VecDeque<u64>,
    /// Connections that have something to write, each at most once.
    dirty: Vec<u64>,
    /// Connections that ended and of which the shard has not heard.
    closed: Vec<Route>,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    remote: SocketAddr,
    frames: FrameBuffer,
    /// Frames to write, the first `written` bytes of which have been.
    queue: Vec<u8>,
    written: usize,
    is_ready: bool,
    is_dirty: bool,
    /// When something was last read, and since when the far end has taken nothing.
    heard: Instant,
    progress: Instant,
}

impl TcpTable {
    /// Take over an accepted connection; `first` is the smallest token of connections. Closed at once when there are too
    /// many.
    pub(super) fn add(&mut self, now: Instant, handed: HandedOver, registry: &Registry, first: usize) {
        if self.connections.len() >= MAX_CONNECTIONS {
            return;
        }
        let id = self.next;
        let Ok(token) = usize::try_from(id) else { return };
        // An end that is gone already has no address.
        let Ok(remote) = handed.stream.peer_addr() else { return };
        let mut stream = TcpStream::from_std(handed.stream);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if registry.register(&mut stream, Token(first.saturating_add(token)), interest).is_err() {
            return;
        }
        // Small packets must not wait for each other.
        let _ = stream.set_nodelay(true);
        self.next += 1;
        let connection = Connection {
            stream,
            remote,
            frames: FrameBuffer::new(&handed.read),
            queue: Vec::new(),
            written: 0,
            is_ready: true,
            is_dirty: false,
            heard: now,
            progress: now,
        };
        self.connections.insert(id, connection);
        self.ready.push_back(id);
    }

    /// The poll reported connection number `id`.
    pub(super) fn set_ready(&mut self, id: usize, readable: bool, writable: bool) {
        let id = id as u64;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if readable && !connection.is_ready {
            connection.is_ready = true;
            self.ready.push_back(id);
        }
        if writable && !connection.is_dirty && !connection.queue.is_empty() {
            connection.is_dirty = true;
            self.dirty.push(id);
        }
    }

    /// Whether [`Self::receive`] may have something.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty() || !self.closed.is_empty()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    /// Hand on frames of some connections, each at most [`FRAMES_PER_TURN`]; they are lent for change in place.
    pub(super) fn receive(&mut self, now: Instant, mut take: impl FnMut(Route, &mut [u8])) {
        for _ in 0..self.ready.len().min(CONNECTIONS_PER_TURN) {
            let Some(id) = self.ready.pop_front() else { return };
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            let route = Route::Tcp { connection: TcpConnection(id), remote: connection.remote };
            match connection.receive(now, |frame| take(route, frame)) {
                Reading::More => self.ready.push_back(id),
                Reading::Done => connection.is_ready = false,
                Reading::Ended => self.end(id),
            }
        }
    }

    /// The next connection that ended by itself; the shard is to be told.
    pub(super) fn next_closed(&mut self) -> Option<Route> {
        self.closed.pop()
    }

    /// Queue the datagrams of a run as frames; what does not fit is counted.
    pub(super) fn send(
        &mut self,
        now: Instant,
        to: TcpConnection,
        run: &[u8],
        segment: usize,
        stats: &mut ThreadStats,
    ) {
        let Some(connection) = self.connections.get_mut(&to.0) else { return };
        if connection.queue.is_empty() {
            connection.progress = now;
        }
        for datagram in run.chunks(segment.max(1)) {
            if !connection.push(datagram) {
                stats.tcp_full += 1;
            }
        }
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(to.0);
        }
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

    /// Close one at the shard's wish. It is not told.
    pub(super) fn close(&mut self, connection: TcpConnection) {
        self.connections.remove(&connection.0);
    }

    /// Close all; numbers go on.
    pub(super) fn clear(&mut self) {
        self.connections.clear();
        self.ready.clear();
        self.dirty.clear();
        self.closed.clear();
    }

    /// Close what is stuck or silent. Called about once a second.
    pub(super) fn sweep(&mut self, now: Instant) {
        let is_dead =
            |c: &Connection| now.since(c.heard) > SILENT || (!c.queue.is_empty() && now.since(c.progress) > STUCK);
        let dead: Vec<u64> = self.connections.iter().filter(|(_, c)| is_dead(c)).map(|(id, _)| *id).collect();
        for id in dead {
            self.end(id);
        }
    }

    fn end(&mut self, id: u64) {
        // Dropping the stream closes it, which takes it out of the poll too.
        if let Some(Connection { remote, .. }) = self.connections.remove(&id) {
            self.closed.push(Route::Tcp { connection: TcpConnection(id), remote });
        }
    }
}

/// How reading went.
enum Reading {
    /// There may be more.
    More,
    /// The system has nothing more for now.
    Done,
    /// Closed by the far end, broken, or it sent what is no frame.
    Ended,
}

impl Connection {
    fn receive(&mut self, now: Instant, mut take: impl FnMut(&mut [u8])) -> Reading {
        let mut left = FRAMES_PER_TURN;
        loop {
            while left > 0 {
                match self.frames.next() {
                    Ok(Some([])) => {}
                    Ok(Some(frame)) => take(frame),
                    Ok(None) => break,
                    Err(frame::TooLarge) => return Reading::Ended,
                }
                left -= 1;
            }
            if left == 0 {
                return Reading::More;
            }
            match self.stream.read(self.frames.space()) {
                Ok(0) => return Reading::Ended,
                Ok(read) => {
                    self.frames.filled(read);
                    self.heard = now;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Reading::Done,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Reading::Ended,
            }
        }
    }

    /// `false`: no room.
    fn push(&mut self, datagram: &[u8]) -> bool {
        // RFC 7983: 128 and above is RTP and RTCP. The rest (checks, handshakes, data) keeps the connection alive.
        let limit = if datagram.first().is_some_and(|first| *first >= 128) { MEDIA_QUEUE } else { QUEUE };
        let Ok(length) = u16::try_from(datagram.len()) else { return false };
        if self.queue.len() - self.written + 2 + datagram.len() > limit {
            return false;
        }
        if self.written == self.queue.len() {
            self.queue.clear();
            self.written = 0;
        } else if self.written > QUEUE {
            self.queue.drain(..self.written);
            self.written = 0;
        }
        self.queue.extend_from_slice(&length.to_be_bytes());
        self.queue.extend_from_slice(datagram);
        true
    }

    /// `false`: broken.
    fn write(&mut self, now: Instant) -> bool {
        while let Some(rest) = self.queue.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(0) => return false,
                Ok(written) => {
                    self.written += written;
                    self.progress = now;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        self.queue.clear();
        self.written = 0;
        self.progress = now;
        true
    }
}
