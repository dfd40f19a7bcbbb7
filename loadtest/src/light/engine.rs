//! One thread for all that arrives: it polls the sockets of all light participants, opens, counts and time-stamps what
//! came, and sends checks, reports and feedback when they are due.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rtc_srtp::context::Context;
use tokio::sync::oneshot;

use crate::light::feedback::{self, Arrivals, Received};
use crate::light::offer::REPAIR;
use crate::light::peer::{Got, Peer};
use crate::light::shape::{TRANSPORT_CC, stamp};
use crate::peer::now as clock;
use crate::stats::{Histogram, nanos};

/// How often due things are looked for; also how late orders are taken.
const TICK: Duration = Duration::from_millis(5);
const FEEDBACK_EVERY: Duration = Duration::from_millis(100);
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// No handshake takes longer.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(20);

/// Packets sent within these times (of [`nanos`]) count.
#[derive(Debug)]
pub struct Window {
    from: AtomicU64,
    to: AtomicU64,
}

impl Default for Window {
    fn default() -> Self {
        Self { from: AtomicU64::new(u64::MAX), to: AtomicU64::new(u64::MAX) }
    }
}

impl Window {
    /// It begins now; gives the time.
    pub fn open(&self) -> u64 {
        let now = nanos();
        self.from.store(now, Ordering::Relaxed);
        now
    }

    /// It ends now; gives the time.
    pub fn close(&self) -> u64 {
        let now = nanos();
        self.to.store(now, Ordering::Relaxed);
        now
    }

    /// Whether a packet sent at this time counts.
    pub fn holds(&self, at: u64) -> bool {
        at >= self.from.load(Ordering::Relaxed) && at < self.to.load(Ordering::Relaxed)
    }
}

/// What a publisher's thread needs to send.
pub struct Sealer {
    /// The participant's socket.
    pub socket: UdpSocket,
    /// Seals its RTP.
    pub context: Context,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// A participant to serve.
#[derive(Debug)]
pub struct Seat {
    /// Its path, nothing sent on it yet.
    pub peer: Peer,
    /// SSRC to report with; of what it publishes, if anything.
    pub ssrc: u32,
    /// Set when a key frame is asked for.
    pub key_frame: Arc<AtomicBool>,
    /// It publishes.
    pub publishes: bool,
    /// It has left: its path is served no more.
    pub left: Arc<AtomicBool>,
    /// Told when SRTP is up, with what sending takes if it publishes; dropped when it fails.
    pub connected: Option<oneshot::Sender<Option<Sealer>>>,
    /// Told at the first media packet, by the clock of [`nanos`].
    pub first_media: Option<oneshot::Sender<u64>>,
}

/// What is asked of the thread.
#[derive(Debug)]
pub enum Order {
    /// Serve one more.
    Add(Box<Seat>),
    /// Say what was counted.
    Tell(oneshot::Sender<Totals>),
    /// End.
    Stop,
}

/// What was counted, over all participants.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Media packets.
    pub packets: u64,
    /// Media packets of the window.
    pub counted: u64,
    /// Media packets but probes, at any time.
    pub came: u64,
    /// Packets the streams' numbers say there should be, at any time, of streams that came at all.
    pub spanned: u64,
    /// Bytes of media packets, headers included.
    pub bytes: u64,
    /// Streams that brought a packet since last told.
    pub streams: u64,
    /// Media packets of the window that came twice or out of order.
    pub disordered: u64,
    /// Media packets of the window whose end is not ours: of complete participants, or changed on the way.
    pub unknown: u64,
    /// Packets that did not open.
    pub unauthentic: u64,
    /// Paths that ended.
    pub closed: u64,
    /// Time from sending to receiving in the window, in nanoseconds.
    pub latency: Histogram,
    /// The same at any time, since last told.
    pub recent: Histogram,
    /// How often it was told.
    tellings: u64,
}

struct Place {
    seat: Seat,
    born: Instant,
    connected: bool,
    arrivals: Arrivals,
    streams: Vec<Received>,
    /// Number of the newest packet by SSRC, and the telling it was last seen in.
    newest: BTreeMap<u32, (u32, u64)>,
    next_feedback: Instant,
    next_report: Instant,
}

/// The thread's state.
pub struct Engine {
    poll: Poll,
    orders: Receiver<Order>,
    window: Arc<Window>,
    places: Vec<Place>,
    totals: Totals,
    scratch: Vec<u8>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("places", &self.places.len()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Start the thread; it ends at [`Order::Stop`] or when the sender is dropped.
    pub fn start(window: Arc<Window>) -> anyhow::Result<Sender<Order>> {
        let (sender, orders) = std::sync::mpsc::channel();
        let engine = Self {
            poll: Poll::new()?,
            orders,
            window,
            places: Vec::new(),
            totals: Totals::default(),
            scratch: Vec::new(),
        };
        std::thread::Builder::new().name("receive".to_owned()).spawn(move || engine.run())?;
        Ok(sender)
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(1_024);
        let mut next_tick = clock();
        let mut buffer = vec![0; 65_536];
        loop {
            let wait = next_tick.saturating_duration_since(clock());
            // An interrupted poll is a short one.
            let _ = self.poll.poll(&mut events, Some(wait));
            for event in &events {
                self.drain(event.token().0, &mut buffer);
            }
            let now = clock();
            if now < next_tick {
                continue;
            }
            next_tick = now + TICK;
            if !self.obey(now) {
                return;
            }
            self.tick(now);
        }
    }

    /// `false`: the end.
    fn obey(&mut self, now: Instant) -> bool {
        loop {
            match self.orders.try_recv() {
                Ok(Order::Add(seat)) => self.add(now, *seat),
                Ok(Order::Tell(reply)) => {
                    let told = self.totals.clone();
                    self.totals.recent = Histogram::default();
                    self.totals.streams = 0;
                    self.totals.tellings += 1;
                    // The asker may have gone.
                    let _ = reply.send(told);
                }
                Err(std::sync::mpsc::TryRecvError::Empty) => return true,
                Ok(Order::Stop) | Err(std::sync::mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn add(&mut self, now: Instant, seat: Seat) {
        let fd = seat.peer.socket.as_raw_fd();
        if self.poll.registry().register(&mut SourceFd(&fd), Token(self.places.len()), Interest::READABLE).is_err() {
            // Dropping the seat tells who waits for it.
            return;
        }
        self.places.push(Place {
            seat,
            born: now,
            connected: false,
            arrivals: Arrivals::default(),
            streams: Vec::new(),
            newest: BTreeMap::new(),
            next_feedback: now,
            next_report: now + REPORT_EVERY,
        });
    }

    /// Take all that has arrived on a socket.
    fn drain(&mut self, at: usize, buffer: &mut [u8]) {
        let Self { places, totals, window, .. } = self;
        let Some(place) = places.get_mut(at) else { return };
        if place.seat.left.load(Ordering::Relaxed) {
            return;
        }
        loop {
            // Refused: what was sent before the server was there, or after it went.
            let length = match place.seat.peer.socket.recv(buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => continue,
                Err(_) => return,
            };
            let at_ns = nanos();
            let Some(datagram) = buffer.get_mut(..length) else { return };
            match place.seat.peer.handle(clock(), datagram) {
                Ok(Got::Rtp(packet)) => place.media(&packet, at_ns, window, totals),
                Ok(Got::Rtcp(packet)) => place.heed(&packet, at_ns),
                Ok(Got::Connected) => place.connect(),
                Ok(Got::Unauthentic) => totals.unauthentic += 1,
                Ok(Got::Closed) => totals.closed += 1,
                Ok(Got::Nothing) => {}
                // The handshake goes on or runs into its limit.
                Err(error) => eprintln!("light participant {at}: {error:#}"),
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        let at_us = nanos() / 1_000;
        for place in self.places.iter_mut().filter(|place| !place.seat.left.load(Ordering::Relaxed)) {
            if !place.connected && now > place.born + HANDSHAKE_LIMIT {
                place.seat.connected = None;
                continue;
            }
            // A failed handshake is told by its limit.
            let _ = place.seat.peer.tick(now);
            if !place.connected {
                continue;
            }
            self.scratch.clear();
            let media = place.streams.first().map_or(0, |stream| stream.ssrc);
            if now >= place.next_report {
                place.next_report = now + REPORT_EVERY;
                feedback::receiver_report(place.seat.ssrc, &mut place.streams, at_us, &mut self.scratch);
            }
            if now >= place.next_feedback {
                place.next_feedback = now + FEEDBACK_EVERY;
                place.arrivals.write(place.seat.ssrc, media, &mut self.scratch);
            }
            if !self.scratch.is_empty() {
                place.seat.peer.send_rtcp(&self.scratch);
            }
        }
    }
}

impl Place {
    fn connect(&mut self) {
        self.connected = true;
        let sealer = self.seat.publishes.then(|| {
            let context = self.seat.peer.sealer().ok()?;
            Some(Sealer { socket: self.seat.peer.socket.try_clone().ok()?, context })
        });
        if let Some(connected) = self.seat.connected.take() {
            // The asker may have gone.
            let _ = connected.send(sealer.flatten());
        }
    }

    fn media(&mut self, packet: &[u8], at_ns: u64, window: &Window, totals: &mut Totals) {
        let Some(&[first, second, q0, q1, _, _, _, _, s0, s1, s2, s3]) = packet.first_chunk::<12>() else { return };
        let (sequence, ssrc) = (u16::from_be_bytes([q0, q1]), u32::from_be_bytes([s0, s1, s2, s3]));
        if let Some(number) = transport_number(packet) {
            self.arrivals.add(number, at_ns / 1_000);
        }
        if self.streams.len() < 16 && self.streams.iter().all(|stream| stream.ssrc != ssrc) {
            self.streams.push(Received::new(ssrc, sequence));
        }
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.ssrc == ssrc) {
            stream.add(sequence);
        }
        let padding = if first & 0x20 == 0 { 0 } else { usize::from(packet.last().copied().unwrap_or(0)) };
        totals.packets += 1;
        if second & 0x7f == REPAIR {
            // Nothing is asked for again: the server finds out what gets through.
            return;
        }
        let payload = packet.get(header_length(packet)..packet.len().saturating_sub(padding)).unwrap_or_default();
        if payload.is_empty() {
            // The server tries out what gets through.
            return;
        }
        totals.bytes += packet.len() as u64;
        let stamped = stamp(payload);
        let sixteen = u32::from(sequence);
        let tellings = totals.tellings;
        let (number, sent) = stamped.unwrap_or((sixteen, at_ns));
        let newest = self.newest.entry(ssrc).or_insert_with(|| {
            totals.streams += 1;
            (number.wrapping_sub(1), tellings)
        });
        if newest.1 != tellings {
            newest.1 = tellings;
            totals.streams += 1;
        }
        if let Some(first_media) = self.seat.first_media.take() {
            let _ = first_media.send(at_ns);
        }
        // Without a stamp, which complete participants do not write, the sequence number says what is missing.
        let ahead = match stamped {
            Some(_) => number.wrapping_sub(newest.0).cast_signed(),
            None => i32::from((sequence.wrapping_sub((newest.0 & 0xffff) as u16)).cast_signed()),
        };
        if ahead > 0 {
            newest.0 = number;
        }
        totals.spanned += u64::try_from(ahead).unwrap_or(0);
        totals.came += 1;
        let latency = at_ns.saturating_sub(sent);
        if stamped.is_some() {
            totals.recent.add(latency);
        }
        if !window.holds(sent) {
            return;
        }
        totals.disordered += u64::from(ahead <= 0);
        if stamped.is_none() {
            totals.unknown += 1;
            return;
        }
        totals.counted += 1;
        totals.latency.add(latency);
    }

    fn heed(&mut self, packet: &[u8], at_ns: u64) {
        let heard = feedback::hear(packet);
        if heard.key_frame {
            self.seat.key_frame.store(true, Ordering::Relaxed);
        }
        for (ssrc, ntp) in heard.sender_reports {
            if let Some(stream) = self.streams.iter_mut().find(|stream| stream.ssrc == ssrc) {
                stream.sender_report(ntp, at_ns / 1_000);
            }
        }
    }
}

/// Length of the RTP header with its extensions.
pub(crate) fn header_length(packet: &[u8]) -> usize {
    let first = packet.first().copied().unwrap_or(0);
    let fixed = 12 + 4 * usize::from(first & 15);
    if first & 0x10 == 0 {
        return fixed;
    }
    let words =
        packet.get(fixed + 2..).and_then(|rest| rest.first_chunk()).map_or(0, |words| u16::from_be_bytes(*words));
    fixed + 4 + 4 * usize::from(words)
}

/// The transport-wide number among one-byte header extensions (RFC 8285).
fn transport_number(packet: &[u8]) -> Option<u16> {
    let first = *packet.first()?;
    if first & 0x10 == 0 {
        return None;
    }
    let at = 12 + 4 * usize::from(first & 15);
    let &[0xbe, 0xde, w0, w1] = packet.get(at..)?.first_chunk::<4>()? else { return None };
    let mut rest = packet.get(at + 4..)?.get(..4 * usize::from(u16::from_be_bytes([w0, w1])))?;
    while let Some((head, tail)) = rest.split_first() {
        if *head == 0 {
            rest = tail;
            continue;
        }
        let (data, next) = tail.split_at_checked(usize::from(head & 15) + 1)?;
        if head >> 4 == TRANSPORT_CC {
            return data.first_chunk().map(|number| u16::from_be_bytes(*number));
        }
        rest = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::light::shape::{Shape, Stream};

    #[test]
    fn finds_the_transport_wide_number_of_what_is_published() {
        for shape in [Shape::Video, Shape::Audio] {
            let mut stream = Stream::new(shape, 7);
            let mut packet = Vec::new();
            stream.packet(0, false, 5, 4_464, &mut packet);
            assert_eq!(transport_number(&packet), Some(4_464));
        }
    }
}
