//! Transport-wide congestion control feedback on what a publisher sends us
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01, 3.1).
//!
//! One [`FeedbackGenerator`] per transport, told of every packet that carries the extension before anything else is
//! decided about it: a packet that is not reported counts as lost and slows the publisher down. The shard polls it when
//! it is due and sends what it wrote as RTCP.

use core::time::Duration;

use crate::base::{Instant, Ssrc};
use crate::rtp::rtcp::{TRANSPORT_FEEDBACK, write};
use crate::rtp::seq::{Unwrapper16, wire_u16};

/// Most sequence numbers one poll looks back over. A publisher at 50 Mbit/s sends 500 in 100 ms; a hostile jump of
/// numbers reports on no more than these.
const WINDOW: u64 = RING as u64;
const RING: usize = 2048;
/// A report goes at least this often while packets come.
const INTERVAL: Duration = Duration::from_millis(100);
/// At the end of a frame it may go earlier.
const MARKER_INTERVAL: Duration = Duration::from_millis(50);
/// This many packets are reported at once.
const MAX_PENDING: u16 = 100;
/// Bytes of chunks and deltas in one packet; with SRTCP it stays far below an MTU.
const MAX_BODY: usize = 1100;
/// Numbers this far behind are too old to report, as libwebrtc's 500 ms are.
const MAX_LATE: u64 = 512;
/// This many packets in a row from outside the window mean that the numbering restarted.
const MAX_STRAY: u16 = 50;

/// Ticks of 250 us, the unit of deltas.
const TICK_NANOS: u64 = 250_000;
/// Ticks in the 64 ms of the reference time.
const TICKS_PER_REFERENCE: u64 = 256;

/// A packet that arrived: its unwrapped number and the tick it came in. Number zero: none.
#[derive(Clone, Copy, Debug, Default)]
struct Arrival {
    seq: u64,
    tick: u64,
}

/// Remembers arrivals and turns them into feedback packets.
#[derive(Debug)]
pub struct FeedbackGenerator {
    unwrapper: Unwrapper16,
    /// Arrivals at their number modulo [`WINDOW`]; taken from the heap at the first packet.
    ring: Box<[Arrival]>,
    /// First number not reported on yet.
    begin: u64,
    /// Packets that came since the last report.
    pending: u16,
    /// A frame has ended since the last report.
    marker: bool,
    /// When the last report went; when the first packet came before any did.
    since: Instant,
    started: bool,
    number: u8,
    stray: u16,
    media: Ssrc,
    /// Scratch of the report being written: a symbol per packet, and the deltas.
    symbols: Vec<u8>,
    deltas: Vec<u8>,
}

impl Default for FeedbackGenerator {
    fn default() -> Self {
        Self::new()
    }
}

impl FeedbackGenerator {
    /// Nothing has arrived yet.
    pub fn new() -> Self {
        Self {
            unwrapper: Unwrapper16::new(),
            ring: Box::default(),
            begin: 0,
            pending: 0,
            marker: false,
            since: Instant::ZERO,
            started: false,
            number: 0,
            stray: 0,
            media: Ssrc(0),
            symbols: Vec::new(),
            deltas: Vec::new(),
        }
    }

    /// A packet with this transport-wide number arrived on RTP stream `media`; `marker` is its marker bit.
    pub fn on_packet(&mut self, now: Instant, sequence: u16, marker: bool, media: Ssrc) {
        let seq = self.unwrapper.peek(sequence);
        match self.unwrapper.highest() {
            None => self.begin = seq,
            Some(highest) if seq + MAX_LATE <= highest => {
                self.stray += 1;
                if self.stray > MAX_STRAY {
                    self.unwrapper = Unwrapper16::new();
                    self.ring.fill(Arrival::default());
                    self.pending = 0;
                    self.begin = self.unwrapper.peek(sequence);
                    self.stray = 0;
                    self.record(now, sequence, marker, media);
                }
                return;
            }
            Some(_) => {}
        }
        self.stray = 0;
        self.record(now, sequence, marker, media);
    }

    fn record(&mut self, now: Instant, sequence: u16, marker: bool, media: Ssrc) {
        if self.ring.is_empty() {
            self.ring = vec![Arrival::default(); RING].into();
            self.symbols.reserve_exact(RING);
            self.deltas.reserve_exact(MAX_BODY);
        }
        let seq = self.unwrapper.unwrap(sequence);
        let Some(slot) = self.ring.get_mut(index(seq)) else { return };
        if slot.seq == seq {
            // The first arrival of a duplicate is the one that counts.
            return;
        }
        *slot = Arrival { seq, tick: now.as_nanos() / TICK_NANOS };
        if !self.started {
            self.started = true;
            self.since = now;
        }
        // A late packet moves the start of the next report back to it; those between are reported again, as libwebrtc
        // does, with the same times.
        self.begin = self.begin.min(seq);
        self.pending = self.pending.saturating_add(1);
        self.marker |= marker;
        self.media = media;
    }

    /// When [`Self::poll`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.pending == 0 {
            return None;
        }
        Some(if self.pending > MAX_PENDING {
            self.since
        } else if self.marker {
            self.since + MARKER_INTERVAL
        } else {
            self.since + INTERVAL
        })
    }

    /// Append one feedback packet to `out` when one is due; true then, and the caller asks again: reports are split
    /// when they would be too long, or when arrivals lie more than 8 s apart.
    pub fn poll(&mut self, now: Instant, sender: Ssrc, out: &mut Vec<u8>) -> bool {
        let Some(highest) = self.unwrapper.highest() else { return false };
        if self.next_timeout().is_none_or(|due| due > now) {
            return false;
        }
        self.begin = self.begin.max((highest + 1).saturating_sub(WINDOW));
        let Some(reference) = self.collect(highest) else {
            self.pending = 0;
            return false;
        };
        let (base, number) = (wire_u16(self.begin), self.number);
        let count = u16::try_from(self.symbols.len()).unwrap_or_default();
        write::packet(out, TRANSPORT_FEEDBACK, 15, |out| {
            write::addresses(out, sender, self.media);
            out.extend_from_slice(&base.to_be_bytes());
            out.extend_from_slice(&count.to_be_bytes());
            let [.., a, b, c] = reference.to_be_bytes();
            out.extend_from_slice(&[a, b, c, number]);
            write_chunks(&self.symbols, out);
            out.extend_from_slice(&self.deltas);
        });
        self.number = number.wrapping_add(1);
        self.begin += u64::from(count);
        if self.begin > highest {
            self.pending = 0;
            self.marker = false;
            self.since = now;
        }
        true
    }

    /// Fill `symbols` and `deltas` from `begin` on, as far as one packet holds. Gives the reference time; `None` when
    /// nothing has arrived (which cannot be while something is pending).
    fn collect(&mut self, highest: u64) -> Option<u64> {
        self.symbols.clear();
        self.deltas.clear();
        let first = (self.begin..=highest).find_map(|seq| self.arrival(seq))?;
        let reference = first / TICKS_PER_REFERENCE;
        let mut tick = reference * TICKS_PER_REFERENCE;
        for seq in self.begin..=highest {
            // Chunks take at most two bytes per seven symbols.
            if self.symbols.len() * 2 / 7 + self.deltas.len() + 4 > MAX_BODY {
                break;
            }
            let Some(arrival) = self.arrival(seq) else {
                self.symbols.push(NONE);
                continue;
            };
            let delta = arrival.cast_signed().saturating_sub(tick.cast_signed());
            if let Ok(small) = u8::try_from(delta) {
                self.symbols.push(SMALL);
                self.deltas.push(small);
            } else if let Ok(large) = i16::try_from(delta) {
                self.symbols.push(LARGE);
                self.deltas.extend_from_slice(&large.to_be_bytes());
            } else {
                break;
            }
            tick = arrival;
        }
        Some(reference)
    }

    fn arrival(&self, seq: u64) -> Option<u64> {
        self.ring.get(index(seq)).filter(|arrival| arrival.seq == seq).map(|arrival| arrival.tick)
    }
}

const NONE: u8 = 0;
const SMALL: u8 = 1;
const LARGE: u8 = 2;

/// Symbols as chunks: runs where they are at least as short as vectors, else vectors of the narrowest symbols.
fn write_chunks(mut symbols: &[u8], out: &mut Vec<u8>) {
    while let Some(&first) = symbols.first() {
        let run = symbols.iter().take_while(|symbol| **symbol == first).count().min(0x1fff);
        let narrow = symbols.iter().take(14).all(|symbol| *symbol != LARGE);
        let (width, room) = if narrow { (1, 14) } else { (2, 7) };
        let (chunk, taken) = if run >= room || run == symbols.len() {
            ((u16::from(first) << 13) | u16::try_from(run).unwrap_or(0), run)
        } else {
            let taken = room.min(symbols.len());
            let head: u16 = if narrow { 0b10 } else { 0b11 };
            let vector = symbols.iter().take(taken).fold(head, |vector, symbol| (vector << width) | u16::from(*symbol));
            (vector << (width * (room - taken)), taken)
        };
        out.extend_from_slice(&chunk.to_be_bytes());
        symbols = symbols.get(taken..).unwrap_or_default();
    }
}

/// Where in the ring a number lies.
#[allow(clippy::cast_possible_truncation, reason = "the remainder is below the size of the ring")]
const fn index(seq: u64) -> usize {
    (seq % WINDOW) as usize
}

#[cfg(test)]
mod tests;
