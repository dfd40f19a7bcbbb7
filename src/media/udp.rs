//! One bound UDP socket of a media thread: batches in (recvmmsg, GRO) and runs out (GSO) through `quinn-udp`.
//!
//! Knows no transport: what arrives is handed on with its [`Route`], what leaves names one. Errors never end anything:
//! they are counted, because a packet that could not be sent is a packet lost on the way.

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use std::os::fd::AsRawFd;

use crate::mailbox::ThreadStats;
use crate::transport::route::Route;

/// Datagrams one socket may hand on per turn, so that others get theirs.
pub(super) const DATAGRAMS_PER_TURN: usize = 64;
/// Buffers one system call may fill; what `quinn-udp` takes at most.
const SLOTS: usize = quinn_udp::BATCH_SIZE;
/// Size of each: GRO joins datagrams up to the largest UDP payload. Memory that is never written costs nothing.
const SLOT_BYTES: usize = 65_536;
/// What is asked for as socket buffers. The kernel grants at most `net.core.{r,w}mem_max`. A second of 30 Mbit/s.
const SOCKET_BUFFER: usize = 4 << 20;

/// A bound socket with the batch it is working off.
#[derive(Debug)]
pub(super) struct UdpPort {
    io: std::net::UdpSocket,
    state: UdpSocketState,
    /// Where it is bound; the port is real.
    local: SocketAddr,
    /// The system may have more for us. Poll is edge-triggered: it says so once.
    ready: bool,
    buffer: Box<[u8]>,
    meta: [RecvMeta; SLOTS],
    /// Slots of the last batch that are filled, the one being worked off, and how far.
    filled: usize,
    slot: usize,
    offset: usize,
}

impl UdpPort {
    /// Bind to `address`; port 0 takes a free one.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        // The system grants what it likes; a smaller buffer loses packets earlier, no more.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
        let io = std::net::UdpSocket::from(socket);
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        let local = io.local_addr()?;
        Ok(Self {
            io,
            state,
            local,
            ready: true,
            buffer: vec![0; SLOTS * SLOT_BYTES].into_boxed_slice(),
            meta: [RecvMeta::default(); SLOTS],
            filled: 0,
            slot: 0,
            offset: 0,
        })
    }

    /// Where it is bound.
    pub(super) const fn local(&self) -> SocketAddr {
        self.local
    }

    /// Have `registry` report arrivals under `token`.
    pub(super) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.io.as_raw_fd()), token, Interest::READABLE)
    }

    /// Something may have arrived.
    pub(super) const fn set_ready(&mut self) {
        self.ready = true;
    }

    /// Whether [`Self::receive`] may have something.
    pub(super) const fn is_ready(&self) -> bool {
        self.ready || self.slot < self.filled
    }

    /// Hand on up to [`DATAGRAMS_PER_TURN`] datagrams. They are lent for change in place.
    pub(super) fn receive(&mut self, stats: &mut ThreadStats, mut take: impl FnMut(Route, &mut [u8])) {
        let mut left = DATAGRAMS_PER_TURN;
        while left > 0 {
            if self.slot >= self.filled && !self.refill(stats) {
                return;
            }
            let Some(meta) = self.meta.get(self.slot) else { return };
            let (length, stride) = (meta.len.min(SLOT_BYTES), meta.stride.max(1));
            let local = SocketAddr::new(meta.dst_ip.unwrap_or_else(|| self.local.ip()), self.local.port());
            let route = Route::Udp { local, remote: meta.addr };
            while left > 0 && self.offset < length {
                let start = self.slot * SLOT_BYTES + self.offset;
                let end = self.slot * SLOT_BYTES + (self.offset + stride).min(length);
                // Before it is handed on: should it bring the shard down, it does so once.
                self.offset += stride;
                left -= 1;
                stats.datagrams_received += 1;
                if let Some(datagram) = self.buffer.get_mut(start..end) {
                    take(route, datagram);
                }
            }
            if self.offset >= length {
                self.slot += 1;
                self.offset = 0;
            }
        }
    }

    /// Take the next batch from the system. `false`: there is none.
    fn refill(&mut self, stats: &mut ThreadStats) -> bool {
        (self.filled, self.slot, self.offset) = (0, 0, 0);
        if !self.ready {
            return false;
        }
        let mut slots = self.buffer.chunks_exact_mut(SLOT_BYTES);
        let mut buffers: [IoSliceMut<'_>; SLOTS] =
            std::array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
        stats.receive_calls += 1;
        match self.state.recv(UdpSockRef::from(&self.io), &mut buffers, &mut self.meta) {
            Ok(filled) => self.filled = filled,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Nothing more; or a fault, after which the next arrival (or the housekeeping) tries again.
            Err(_) => self.ready = false,
        }
        self.filled > 0
    }

    /// Whether what is to leave from `local` leaves through this socket.
    pub(super) fn serves(&self, local: SocketAddr) -> bool {
        local.port() == self.local.port()
            && (local.ip() == self.local.ip()
                || (self.local.ip().is_unspecified() && local.is_ipv4() == self.local.is_ipv4()))
    }

    /// Send a run: datagrams of `segment` bytes, the last perhaps shorter, from the address `local` to `remote`.
    pub(super) fn send(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
        run: &[u8],
        segment: usize,
        stats: &mut ThreadStats,
    ) {
        let segment = segment.max(1);
        let source = (self.local.ip().is_unspecified() && !local.ip().is_unspecified()).then(|| local.ip());
        let at_once = segment.saturating_mul(self.state.max_gso_segments().max(1));
        for part in run.chunks(at_once) {
            match self.send_part(source, remote, part, segment, stats) {
                Ok(()) => stats.datagrams_sent += part.len().div_ceil(segment) as u64,
                // EIO and EINVAL: a device or kernel that cannot segment. From now on `max_gso_segments` is 1; this part
                // goes out one by one.
                Err(error) if part.len() > segment && is_unsupported(&error) => {
                    for datagram in part.chunks(segment) {
                        match self.send_part(source, remote, datagram, segment, stats) {
                            Ok(()) => stats.datagrams_sent += 1,
                            Err(error) => count_failure(&error, 1, stats),
                        }
                    }
                }
                Err(error) => count_failure(&error, part.len().div_ceil(segment) as u64, stats),
            }
        }
    }

    fn send_part(
        &self,
        src_ip: Option<IpAddr>,
        destination: SocketAddr,
        contents: &[u8],
        segment: usize,
        stats: &mut ThreadStats,
    ) -> io::Result<()> {
        stats.send_calls += 1;
        let segment_size = (contents.len() > segment).then_some(segment);
        let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip };
        self.state.try_send(UdpSockRef::from(&self.io), &transmit)
    }
}

// Linux numbers; the kinds of std do not tell these apart on every version.
const EIO: i32 = 5;
const ENOMEM: i32 = 12;
const EINVAL: i32 = 22;
const ENOBUFS: i32 = 105;

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EIO | EINVAL))
}

fn count_failure(error: &io::Error, datagrams: u64, stats: &mut ThreadStats) {
    let full = error.kind() == ErrorKind::WouldBlock || matches!(error.raw_os_error(), Some(ENOBUFS | ENOMEM));
    let counter = if full { &mut stats.send_full } else { &mut stats.send_failed };
    *counter += datagrams;
}
