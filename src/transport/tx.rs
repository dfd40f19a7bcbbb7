//! What we know of one RTP stream we send to a subscriber: counters, what the far end reports, what can be sent again.
//!
//! Per packet sent: [`TxStream::on_sent`]. On RTCP: [`TxStream::on_nack`], [`TxStream::on_report_block`]. By timer:
//! [`TxStream::sender_report`]. Packets themselves stay in the history of the received stream
//! ([`crate::transport::history`]); here are only numbers that lead there.

use core::time::Duration;

use crate::base::{DropReason, Instant, Ssrc};
use crate::rtp::codec::vp8;
use crate::rtp::ntp::{self, NtpTime, WallClock};
use crate::rtp::rtcp::{ReportBlock, SenderInfo};
use crate::rtp::seq::{unwrap_u16, wire_u32};
use crate::transport::rx::{PublisherClock, SenderClock};

/// Most answers to NACKs per packet: as often as libwebrtc asks. Where a fifth is lost, one packet of 600 is lost four times,
/// and whoever misses it then stands still until it asks for a key frame, which takes it seconds.
const MAX_ANSWERS: u8 = 10;
/// A packet is not sent again within this share of the round trip, since whoever asks cannot know of the last answer yet,
/// in eighths; at least and at most this, and this where the round trip is not known.
const ANSWER_SPACING_EIGHTHS: u32 = 7;
const LEAST_ANSWER_SPACING: Duration = Duration::from_millis(10);
const MOST_ANSWER_SPACING: Duration = Duration::from_millis(500);
const UNKNOWN_ANSWER_SPACING: Duration = Duration::from_millis(80);
/// Retransmissions may take half of what the stream itself takes: a fifth of all packets lost, and as many of those sent
/// again, takes a quarter ...
const BUDGET_DIVISOR: usize = 2;
/// ... and this much at once: a lost large key frame. Higher lets a far end that NACKs everything cost more.
const BUDGET_BURST: i64 = 64 * 1024;

/// A publisher's clock that puts its stream further than this from when it came is not believed.
const MAX_CLOCK_ERROR_SECONDS: u32 = 10;

/// Packets that can be answered for at first; four seconds of a small picture of 15 packets a second, and 2 kB.
const FIRST_ANSWERABLE: usize = 64;
/// A packet younger than this is kept for an answer while there may be more of them: several round trips.
const KEPT: Duration = Duration::from_secs(1);

/// What is fixed about a sent stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Outgoing SSRC.
    pub ssrc: Ssrc,
    /// RTP clock rate in Hz.
    pub clock_rate: u32,
    /// How many sent packets can be answered for at most; rounded up to a power of two. Zero: no NACK.
    pub answerable: usize,
    /// First sequence number of the retransmission stream (RFC 4588).
    pub first_rtx: u16,
}

/// A packet as it was sent, apart from what its history entry has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Outgoing unwrapped sequence number.
    pub seq: u64,
    /// Which encoding's history it came from.
    pub encoding: u8,
    /// Its number there.
    pub source: u64,
    /// Timestamp as published.
    pub source_timestamp: u32,
    /// Timestamp as sent.
    pub timestamp: u32,
    /// The VP8 numbers it was sent with.
    pub vp8: Option<vp8::Numbers>,
    /// Marker bit as sent.
    pub marker: bool,
}

/// A packet to be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retransmit {
    /// Its outgoing unwrapped sequence number: goes on the wire as the original sequence number.
    pub seq: u64,
    /// Which encoding's history has it.
    pub encoding: u8,
    /// Its unwrapped number there.
    pub source: u64,
    /// Timestamp as sent.
    pub timestamp: u32,
    /// The VP8 numbers it was sent with.
    pub vp8: Option<vp8::Numbers>,
    /// Marker bit as sent.
    pub marker: bool,
    /// How often it has been sent again with this.
    pub answers: u8,
}

/// What is kept of a sent packet: 32 bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    source: u64,
    /// Low half of the outgoing number; enough, since slots are reused within 2^32 packets.
    seq: u32,
    timestamp: u32,
    /// Milliseconds when it was sent, or last answered for, wrapping.
    touched_ms: u32,
    vp8: vp8::Numbers,
    used: bool,
    has_vp8: bool,
    marker: bool,
    encoding: u8,
    answers: u8,
}

/// Send state of one RTP stream.
#[derive(Debug)]
pub struct TxStream {
    config: Config,
    slots: Box<[Slot]>,
    highest: Option<u64>,
    packets: u32,
    octets: u32,
    last: Option<LastSent>,
    next_rtx: u64,
    /// Bytes; in debt after an answer larger than what was left.
    budget: i64,
    far_end: FarEnd,
    placed: bool,
}

#[derive(Clone, Copy, Debug)]
struct LastSent {
    at: Instant,
    encoding: u8,
    source_timestamp: u32,
    timestamp: u32,
}

/// What the subscriber reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FarEnd {
    /// Smoothed round-trip time.
    pub rtt: Option<Duration>,
    /// Loss in the last reporting interval, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost since the beginning.
    pub lost: i32,
    /// Jitter in timestamp units.
    pub jitter: u32,
}

impl TxStream {
    /// A stream nothing has been sent of.
    pub fn new(config: Config) -> Self {
        let next_rtx = u64::from(config.first_rtx);
        Self {
            config,
            slots: Box::default(),
            highest: None,
            packets: 0,
            octets: 0,
            last: None,
            next_rtx,
            budget: BUDGET_BURST,
            far_end: FarEnd::default(),
            placed: false,
        }
    }

    /// A packet was sealed and handed over; `payload` is its payload length in bytes.
    pub fn on_sent(&mut self, now: Instant, sent: &Sent, payload: usize) {
        self.count(payload);
        self.budget = (self.budget + signed(payload / BUDGET_DIVISOR)).min(BUDGET_BURST);
        if self.highest.is_none_or(|highest| sent.seq >= highest) {
            self.highest = Some(sent.seq);
            self.last = Some(LastSent {
                at: now,
                encoding: sent.encoding,
                source_timestamp: sent.source_timestamp,
                timestamp: sent.timestamp,
            });
        }
        let now_ms = wire_u32(now.as_millis());
        self.make_room(now_ms, sent.seq);
        let Some(slot) = slot_of(&mut self.slots, sent.seq) else { return };
        *slot = Slot {
            seq: wire_u32(sent.seq),
            source: sent.source,
            timestamp: sent.timestamp,
            touched_ms: now_ms,
            vp8: sent.vp8.unwrap_or_default(),
            used: true,
            has_vp8: sent.vp8.is_some(),
            marker: sent.marker,
            encoding: sent.encoding,
            answers: 0,
        };
    }

    /// A packet without an entry in a history was sent: padding. Counted only.
    pub fn on_padding_sent(&mut self, payload: usize) {
        self.count(payload);
    }

    /// The far end misses a packet (wire sequence number). What to send again, on the retransmission stream. `rtt` is the
    /// round trip right now, a queue included, where it is known.
    ///
    /// # Errors
    /// [`DropReason::TooLate`] for one no longer known or never sent, [`DropReason::Duplicate`] for one answered a
    /// moment ago or ten times already, [`DropReason::Full`] when retransmissions have used up their share.
    pub fn on_nack(&mut self, now: Instant, sequence: u16, rtt: Option<Duration>) -> Result<Retransmit, DropReason> {
        let highest = self.highest.ok_or(DropReason::TooLate)?;
        let seq = unwrap_u16(highest, sequence);
        if seq > highest {
            return Err(DropReason::TooLate);
        }
        let spacing = rtt.max(self.far_end.rtt).map_or(UNKNOWN_ANSWER_SPACING, |rtt| {
            (rtt / 8 * ANSWER_SPACING_EIGHTHS).clamp(LEAST_ANSWER_SPACING, MOST_ANSWER_SPACING)
        });
        let now_ms = wire_u32(now.as_millis());
        let Some(slot) = slot_of(&mut self.slots, seq).filter(|slot| slot.used && slot.seq == wire_u32(seq)) else {
            return Err(DropReason::TooLate);
        };
        let since_answer = Duration::from_millis(u64::from(now_ms.wrapping_sub(slot.touched_ms)));
        if slot.answers >= MAX_ANSWERS || (slot.answers > 0 && since_answer < spacing) {
            return Err(DropReason::Duplicate);
        }
        if self.budget <= 0 {
            return Err(DropReason::Full);
        }
        slot.answers += 1;
        slot.touched_ms = now_ms;
        Ok(Retransmit {
            seq,
            encoding: slot.encoding,
            source: slot.source,
            timestamp: slot.timestamp,
            vp8: slot.has_vp8.then_some(slot.vp8),
            marker: slot.marker,
            answers: slot.answers,
        })
    }

    /// Take the next unwrapped number of the retransmission stream for a packet that is being sent again; `payload` is
    /// what it costs of the budget, in bytes.
    pub fn take_rtx(&mut self, payload: usize) -> u64 {
        self.budget = self.budget.saturating_sub(signed(payload));
        let seq = self.next_rtx;
        self.next_rtx += 1;
        seq
    }

    /// A packet sent a moment ago, the `back`-th before the newest, to be sent again unasked as part of a probe. Counts
    /// neither as an answer nor against the budget. `None` when it is not known.
    pub fn recent(&self, back: u64) -> Option<Retransmit> {
        let seq = self.highest?.checked_sub(back)?;
        let at = usize::try_from(seq & self.slots.len().checked_sub(1)? as u64).ok()?;
        let slot = self.slots.get(at).filter(|slot| slot.used && slot.seq == wire_u32(seq))?;
        Some(Retransmit {
            seq,
            encoding: slot.encoding,
            source: slot.source,
            timestamp: slot.timestamp,
            vp8: slot.has_vp8.then_some(slot.vp8),
            marker: slot.marker,
            answers: slot.answers,
        })
    }

    /// Timestamp of the packet sent last; zero before the first.
    pub fn last_timestamp(&self) -> u32 {
        self.last.map_or(0, |last| last.timestamp)
    }

    /// The far end has reported on this stream, so it knows where it belongs.
    pub const fn is_placed(&self) -> bool {
        self.placed
    }

    /// The far end reports on this stream.
    pub fn on_report_block(&mut self, ours: NtpTime, block: &ReportBlock) {
        self.placed = true;
        self.far_end.fraction_lost = block.fraction_lost;
        self.far_end.lost = block.cumulative_lost;
        self.far_end.jitter = block.jitter;
        if let Some(rtt) = rtt_of(ours, block) {
            // The newest counts three quarters: routes change at once.
            self.far_end.rtt = Some(self.far_end.rtt.map_or(rtt, |before| (before + rtt * 3) / 4));
        }
    }

    /// The sender part of an SR for `now`. `None` before the first packet.
    ///
    /// With the clocks of the publisher (its transport's, and that of the encoding sent last, see
    /// [`Self::last_encoding`]), the pair of NTP and RTP time is the publisher's own, moved to our clock and to the
    /// outgoing numbering: streams of one participant then play as far apart as it says. Without, RTP time is carried
    /// on from the last packet.
    pub fn sender_report(
        &self,
        now: Instant,
        wall: &WallClock,
        publisher: Option<(&PublisherClock, &SenderClock)>,
    ) -> Option<SenderInfo> {
        let last = self.last?;
        let ntp = wall.at(now);
        let units = now.since(last.at).as_nanos() * u128::from(self.config.clock_rate) / 1_000_000_000;
        let carried_on = last.timestamp.wrapping_add(u64::try_from(units).map_or(0, wire_u32));
        let rebased = publisher.and_then(|(clock, stream)| {
            let source = stream.rtp_at(clock.theirs(ntp)?);
            let rtp = last.timestamp.wrapping_add(source.wrapping_sub(last.source_timestamp));
            // When the publisher's clock was set, its streams are out of step until each has sent another SR.
            let apart = rtp.wrapping_sub(carried_on).cast_signed().unsigned_abs();
            (apart <= self.config.clock_rate.saturating_mul(MAX_CLOCK_ERROR_SECONDS)).then_some(rtp)
        });
        let rtp = rebased.unwrap_or(carried_on);
        Some(SenderInfo { ssrc: self.config.ssrc, ntp, rtp, packets: self.packets, octets: self.octets })
    }

    /// Which encoding the packet sent last came from.
    pub fn last_encoding(&self) -> Option<u8> {
        self.last.map(|last| last.encoding)
    }

    /// What the subscriber reported last.
    pub const fn far_end(&self) -> FarEnd {
        self.far_end
    }

    /// Which stream.
    pub const fn ssrc(&self) -> Ssrc {
        self.config.ssrc
    }

    /// Packets and payload bytes sent so far, wrapping, without retransmissions.
    pub const fn sent(&self) -> (u32, u32) {
        (self.packets, self.octets)
    }

    /// Have as many slots as the rate asks for: twice as many when a young packet would be forgotten.
    fn make_room(&mut self, now_ms: u32, seq: u64) {
        let most = match self.config.answerable {
            0 => return,
            answerable => answerable.next_power_of_two(),
        };
        if self.slots.is_empty() {
            self.slots = vec![Slot::default(); most.min(FIRST_ANSWERABLE)].into();
        }
        let size = self.slots.len();
        let young = |slot: &Slot| u128::from(now_ms.wrapping_sub(slot.touched_ms)) < KEPT.as_millis();
        let forgets =
            slot_of(&mut self.slots, seq).is_some_and(|slot| slot.used && slot.seq != wire_u32(seq) && young(slot));
        if !forgets || size >= most {
            return;
        }
        let before = core::mem::replace(&mut self.slots, vec![Slot::default(); size * 2].into());
        for slot in before.iter().filter(|slot| slot.used) {
            if let Some(place) = slot_of(&mut self.slots, u64::from(slot.seq)) {
                *place = *slot;
            }
        }
    }

    fn count(&mut self, payload: usize) {
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(u32::try_from(payload).unwrap_or(0));
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn slot_of(slots: &mut [Slot], seq: u64) -> Option<&mut Slot> {
    let mask = slots.len().checked_sub(1)?;
    slots.get_mut(usize::try_from(seq & mask as u64).ok()?)
}

/// Round-trip time from a report block (RFC 3550, 6.4.1): now, minus LSR, minus DLSR. `None` when it answers no SR, or
/// answers one from the future or more than 10 s ago on the road (a lie, or a clock that jumped).
fn rtt_of(ours: NtpTime, block: &ReportBlock) -> Option<Duration> {
    if block.last_sr == 0 {
        return None;
    }
    let units = ours.middle().wrapping_sub(block.last_sr).wrapping_sub(block.delay_since_sr);
    // Rounding may make a very short trip negative.
    let units = if units.cast_signed() < 0 && units.wrapping_neg() < 655 { 1 } else { units };
    let rtt = ntp::from_short(units);
    (rtt <= Duration::from_secs(10)).then_some(rtt)
}

#[cfg(test)]
mod tests;
