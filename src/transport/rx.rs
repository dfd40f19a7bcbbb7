//! What we know of one RTP stream a publisher sends us: its numbering, its holes, its clock.
//!
//! Per packet: [`RxStream::on_packet`] (or [`RxStream::on_recovered`] for one that came as a retransmission). By timer:
//! [`RxStream::poll_nacks`] and [`RxStream::report_block`]. The shard owns it and carries what it says to RTCP.

mod nack;

use core::time::Duration;

use crate::base::{DropReason, Instant, Ssrc};
use crate::rtp::ntp::{self, NtpTime, WallClock};
use crate::rtp::rtcp::{ReportBlock, SenderInfo};
use crate::rtp::seq::{Unwrapper16, wire_u16, wire_u32};
use nack::NackQueue;
pub use nack::{MAX_MISSING, NackRound};

/// Numbers further ahead than this are a restart of the stream rather than loss (RFC 3550, A.1 takes 3000).
const MAX_JUMP: u64 = 3000;
/// Numbers further back than this are too old to mean anything; two of them in a row are a restart (A.1).
const MAX_LATE: u64 = 1024;
/// Bits in the window that tells duplicates from late packets; covers [`MAX_LATE`].
const WINDOW_WORDS: usize = 16;

/// What is fixed about a received stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which stream.
    pub ssrc: Ssrc,
    /// RTP clock rate in Hz.
    pub clock_rate: u32,
    /// Whether the publisher answers NACK.
    pub nack: bool,
}

/// A packet that is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its unwrapped sequence number.
    pub seq: u64,
    /// The stream started over with other numbers (RFC 3550, A.1). Unwrapped numbers went on forwards all the same, so
    /// nothing need be cleared; ask for a key frame.
    pub restarted: bool,
    /// More is missing than will be asked for; the holes are given up. Ask for a key frame.
    pub outage: bool,
    /// It is the highest so far; false for one that came late.
    pub newest: bool,
}

/// Receive state of one RTP stream.
#[derive(Debug)]
pub struct RxStream {
    config: Config,
    unwrapper: Unwrapper16,
    /// Which of the last 1024 numbers up to the highest came: a bit each, at the number modulo 1024.
    seen: [u64; WINDOW_WORDS],
    /// First number of the stream, for the count of expected packets.
    base: u64,
    /// Where the last packet of a suspected restart would continue.
    restart_at: Option<u16>,
    received: u64,
    /// Counts at the last report.
    expected_before: u64,
    received_before: u64,
    jitter: Jitter,
    nacks: NackQueue,
    sender: Option<SenderClock>,
    bytes: u64,
}

impl RxStream {
    /// A stream nothing has come of yet.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            unwrapper: Unwrapper16::new(),
            seen: [0; WINDOW_WORDS],
            base: 0,
            restart_at: None,
            received: 0,
            expected_before: 0,
            received_before: 0,
            jitter: Jitter::new(config.clock_rate),
            nacks: NackQueue::new(),
            sender: None,
            bytes: 0,
        }
    }

    /// A packet of the stream arrived; `size` is its length in bytes for the counters.
    ///
    /// # Errors
    /// [`DropReason::Duplicate`], or [`DropReason::TooLate`] for one too old to tell.
    pub fn on_packet(
        &mut self,
        now: Instant,
        sequence: u16,
        timestamp: u32,
        size: usize,
    ) -> Result<Received, DropReason> {
        let received = self.take(now, sequence)?;
        self.received += 1;
        self.bytes += size as u64;
        self.jitter.on_packet(now, timestamp);
        Ok(received)
    }

    /// A packet of the stream arrived as a retransmission (RFC 4588), with its original number. It fills a hole but
    /// counts as lost in reports, as they describe the path.
    ///
    /// # Errors
    /// [`DropReason::UselessRtx`] when the packet is there already, or is not one of the recent past.
    pub fn on_recovered(&mut self, now: Instant, sequence: u16) -> Result<Received, DropReason> {
        let seq = self.unwrapper.peek(sequence);
        match self.unwrapper.highest() {
            Some(highest) if seq <= highest && highest - seq < MAX_LATE => {}
            _ => return Err(DropReason::UselessRtx),
        }
        self.take(now, sequence).map_err(|_| DropReason::UselessRtx)
    }

    fn take(&mut self, now: Instant, sequence: u16) -> Result<Received, DropReason> {
        let seq = self.unwrapper.peek(sequence);
        let Some(highest) = self.unwrapper.highest() else {
            self.base = seq;
            return Ok(self.advance(seq, sequence, false));
        };
        if seq > highest {
            if seq - highest > MAX_JUMP {
                return self.suspect_restart(sequence);
            }
            if seq - highest > MAX_LATE {
                self.seen = [0; WINDOW_WORDS];
            } else {
                (highest + 1..seq).for_each(|missing| self.mark(missing, false));
            }
            let overrun = self.config.nack && !self.nacks.on_gap(now, highest + 1, seq);
            let received = self.advance(seq, sequence, false);
            return Ok(Received { outage: overrun, ..received });
        }
        if highest - seq >= MAX_LATE {
            return self.suspect_restart(sequence);
        }
        self.restart_at = None;
        if self.has(seq) {
            return Err(DropReason::Duplicate);
        }
        self.mark(seq, true);
        self.nacks.on_arrived(seq);
        Ok(Received { seq, restarted: false, outage: false, newest: false })
    }

    /// One stray number is dropped; a second that continues it is believed (RFC 3550, A.1).
    fn suspect_restart(&mut self, sequence: u16) -> Result<Received, DropReason> {
        if self.restart_at != Some(sequence) {
            self.restart_at = Some(sequence.wrapping_add(1));
            return Err(DropReason::TooLate);
        }
        // Always forwards, so that numbers never repeat: users of them need not know of restarts.
        let highest = self.unwrapper.highest().unwrap_or_default();
        let ahead = u64::from(sequence.wrapping_sub(wire_u16(highest)));
        let seq = highest + ahead + (1 << 16);
        self.unwrapper = Unwrapper16::starting_at(seq);
        self.seen = [0; WINDOW_WORDS];
        self.base = seq;
        self.received = 0;
        self.expected_before = 0;
        self.received_before = 0;
        self.jitter = Jitter::new(self.config.clock_rate);
        self.nacks.clear();
        self.sender = None;
        Ok(self.advance(seq, sequence, true))
    }

    fn advance(&mut self, seq: u64, sequence: u16, restarted: bool) -> Received {
        self.restart_at = None;
        self.unwrapper.unwrap(sequence);
        self.mark(seq, true);
        Received { seq, restarted, outage: false, newest: true }
    }

    /// An SR of this stream came.
    pub fn on_sender_report(&mut self, now: Instant, info: &SenderInfo) {
        if info.ntp.0 != 0 {
            self.sender =
                Some(SenderClock { ntp: info.ntp, rtp: info.rtp, arrival: now, clock_rate: self.config.clock_rate });
        }
    }

    /// The packets to ask for again now; each is given at most five times. The round also says when packets were
    /// given up, which for video means asking for a key frame.
    pub fn poll_nacks(&mut self, now: Instant, rtt: Option<Duration>) -> NackRound<'_> {
        self.nacks.poll(now, rtt)
    }

    /// When [`Self::poll_nacks`] is due.
    pub fn next_nack(&self) -> Option<Instant> {
        self.nacks.next_due()
    }

    /// The report block for an RR, with the loss since the last call (RFC 3550, A.3). `None` before the first packet.
    pub fn report_block(&mut self, now: Instant) -> Option<ReportBlock> {
        let highest = self.unwrapper.highest()?;
        let expected = highest - self.base + 1;
        let expected_since = expected - self.expected_before;
        let received_since = self.received - self.received_before;
        (self.expected_before, self.received_before) = (expected, self.received);
        let lost_since = expected_since.saturating_sub(received_since);
        let fraction = (lost_since << 8).checked_div(expected_since).unwrap_or(0);
        let lost = i64::try_from(expected).unwrap_or(i64::MAX) - i64::try_from(self.received).unwrap_or(i64::MAX);
        Some(ReportBlock {
            ssrc: self.config.ssrc,
            fraction_lost: u8::try_from(fraction).unwrap_or(u8::MAX),
            cumulative_lost: i32::try_from(lost.clamp(-0x80_0000, 0x7f_ffff)).unwrap_or(0),
            highest: wire_u32(highest),
            jitter: self.jitter.value(),
            last_sr: self.sender.map_or(0, |sender| sender.ntp.middle()),
            delay_since_sr: self.sender.map_or(0, |sender| ntp::short(now.since(sender.arrival))),
        })
    }

    /// The publisher's clock for this stream, once an SR came.
    pub const fn sender_clock(&self) -> Option<SenderClock> {
        self.sender
    }

    /// Which stream.
    pub const fn ssrc(&self) -> Ssrc {
        self.config.ssrc
    }

    /// Highest unwrapped sequence number.
    pub const fn highest(&self) -> Option<u64> {
        self.unwrapper.highest()
    }

    /// Bytes of all packets since the beginning, without retransmissions.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    fn has(&self, seq: u64) -> bool {
        let (word, bit) = place(seq);
        self.seen.get(word).is_some_and(|bits| bits & bit != 0)
    }

    fn mark(&mut self, seq: u64, came: bool) {
        let (word, bit) = place(seq);
        if let Some(bits) = self.seen.get_mut(word) {
            *bits = if came { *bits | bit } else { *bits & !bit };
        }
    }
}

const fn place(seq: u64) -> (usize, u64) {
    (((seq / 64) % WINDOW_WORDS as u64) as usize, 1 << (seq % 64))
}

/// Interarrival jitter (RFC 3550, A.8), in timestamp units with 4 bits of fraction.
#[derive(Debug)]
struct Jitter {
    clock_rate: u32,
    transit: Option<u32>,
    sixteenths: u32,
}

impl Jitter {
    const fn new(clock_rate: u32) -> Self {
        Self { clock_rate, transit: None, sixteenths: 0 }
    }

    fn on_packet(&mut self, now: Instant, timestamp: u32) {
        let units = u128::from(now.as_nanos()) * u128::from(self.clock_rate) / 1_000_000_000;
        let arrival = u64::try_from(units & u128::from(u32::MAX)).map_or(0, wire_u32);
        let transit = arrival.wrapping_sub(timestamp);
        if let Some(before) = self.transit {
            // A jump of the timestamp must not spoil the value for minutes: at most a second counts.
            let change = transit.wrapping_sub(before).cast_signed().unsigned_abs().min(self.clock_rate);
            self.sixteenths = self.sixteenths.saturating_add(change).saturating_sub((self.sixteenths + 8) >> 4);
        }
        self.transit = Some(transit);
    }

    const fn value(&self) -> u32 {
        self.sixteenths >> 4
    }
}

/// One pair of wall clock and RTP time of a publisher's stream, from its last SR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderClock {
    /// The publisher's wall clock.
    pub ntp: NtpTime,
    /// RTP time at that moment.
    pub rtp: u32,
    /// When the SR came.
    pub arrival: Instant,
    /// RTP clock rate in Hz.
    pub clock_rate: u32,
}

impl SenderClock {
    /// RTP time of the stream at a moment of the publisher's wall clock.
    pub fn rtp_at(&self, publisher: NtpTime) -> u32 {
        let nanos = i128::from(publisher.nanos_since(self.ntp));
        let units = nanos * i128::from(self.clock_rate) / 1_000_000_000;
        // The low 32 bits are right for negative numbers too.
        let units = i64::try_from(units).unwrap_or_default();
        self.rtp.wrapping_add(wire_u32(units.cast_unsigned()))
    }

    /// The publisher's wall clock when its stream stood at `rtp` (taken as near the last SR).
    pub fn ntp_at(&self, rtp: u32) -> NtpTime {
        let units = i64::from(rtp.wrapping_sub(self.rtp).cast_signed());
        self.ntp.plus_nanos(units.saturating_mul(1_000_000_000) / i64::from(self.clock_rate.max(1)))
    }
}

/// How far a publisher's wall clock is from ours: one per publishing transport, fed by the SRs of all its streams.
///
/// All streams of a participant are put on our clock with the same distance, so that they stay as far from each other as
/// the publisher said, however their SRs were delayed. The distance follows the fastest SR and forgives slowly, which
/// follows clock drift.
#[derive(Clone, Copy, Debug, Default)]
pub struct PublisherClock {
    /// Ours minus theirs in nanoseconds, at the least delay seen.
    distance: Option<i64>,
}

/// A clock this far off the distance held was set anew.
const CLOCK_STEP_NANOS: i64 = 2_000_000_000;

impl PublisherClock {
    /// No SR yet.
    pub const fn new() -> Self {
        Self { distance: None }
    }

    /// An SR of any stream came.
    pub fn on_sender_report(&mut self, now: Instant, wall: &WallClock, info: &SenderInfo) {
        let sample = wall.at(now).nanos_since(info.ntp);
        self.distance = Some(match self.distance {
            Some(held) if sample > held && sample.saturating_sub(held) < CLOCK_STEP_NANOS => {
                held + (sample - held) / 64
            }
            _ => sample,
        });
    }

    /// The publisher's wall clock at a moment of ours; `None` before its first SR.
    pub fn theirs(&self, ours: NtpTime) -> Option<NtpTime> {
        self.distance.map(|distance| ours.plus_nanos(distance.saturating_neg()))
    }

    /// Our wall clock at a moment of the publisher's; `None` before its first SR.
    pub fn ours(&self, theirs: NtpTime) -> Option<NtpTime> {
        self.distance.map(|distance| theirs.plus_nanos(distance))
    }
}

#[cfg(test)]
mod tests;
