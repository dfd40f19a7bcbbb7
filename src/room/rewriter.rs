//! Continuous numbering for a downtrack, whatever is switched, dropped, muted or lost before it.
//!
//! What is lost on the way to us leaves a hole in the outgoing numbers, so that the subscriber asks and a late packet
//! fits in; what we drop by choice leaves none. Numbers run in epochs: an epoch is a stretch of one encoding forwarded
//! without interruption. Every downtrack owns one rewriter; it decides nothing, it only renumbers.

use core::time::Duration;

use crate::base::{DropReason, Instant};
use crate::room::packet::Packet;
use crate::rtp::codec::vp8::Numbers;

/// What differs between a received packet and its copy for one subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbering {
    /// Unwrapped outgoing sequence number; the low 16 bits go on the wire.
    pub seq: u64,
    /// Outgoing RTP timestamp.
    pub timestamp: u32,
    /// Numbers to write into the VP8 descriptor.
    pub vp8: Option<Numbers>,
}

/// How many runs of dropped packets an epoch remembers, so that late packets find their place. Temporal layers of a
/// 30 fps stream make up to 15 runs a second: this is two seconds, and 1 kB per downtrack that leaves something out.
const RUNS: usize = 32;

/// Further apart than this, aligned timestamps are not believed and arrival times count.
const ALIGNMENT_TRUST: Duration = Duration::from_secs(2);

/// Renumbers the packets of a downtrack.
#[derive(Debug)]
pub struct Rewriter {
    clock_rate: u32,
    current: Epoch,
    previous: Epoch,
    /// The next packet begins an epoch.
    interrupted: bool,
    started: bool,
    /// Follows the last packet sent in order.
    next_seq: u64,
    /// Its received number.
    last_source: u64,
    last_timestamp: u32,
    last_arrival: Instant,
    last_vp8: Option<Numbers>,
}

/// A run of packets dropped by choice.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    first: u64,
    last: u64,
    timestamp: u32,
    picture_shift: u16,
    seq_shift: u64,
}

#[derive(Debug)]
struct Epoch {
    spatial: Option<u8>,
    first: u64,
    highest: u64,
    /// Outgoing minus incoming, wrapping.
    seq_shift: u64,
    timestamp_shift: u32,
    picture_shift: u16,
    tl0_shift: u8,
    key_shift: u8,
    skipped_picture: Option<u16>,
    /// A ring once it is full; empty as long as nothing is left out.
    runs: Vec<Run>,
    /// Runs ever made; the ring holds the last of them.
    run_count: usize,
}

impl Epoch {
    const EMPTY: Self = Self {
        spatial: None,
        first: 0,
        highest: 0,
        seq_shift: 0,
        timestamp_shift: 0,
        picture_shift: 0,
        tl0_shift: 0,
        key_shift: 0,
        skipped_picture: None,
        runs: Vec::new(),
        run_count: 0,
    };

    /// Shifts that held where a packet belongs; `None` when it was dropped there, or nobody knows any more.
    fn shifts_at(&self, packet: &Packet) -> Option<(u64, u16)> {
        let seq = packet.seq;
        if self.spatial != Some(packet.spatial) || seq < self.first || seq > self.highest {
            return None;
        }
        let mut shifts = (self.seq_shift, self.picture_shift);
        let kept = self.run_count.min(RUNS);
        for back in 1..=kept {
            let run = self.runs.get((self.run_count - back) % RUNS)?;
            if seq > run.last {
                return Some(shifts);
            }
            if seq >= run.first {
                return None;
            }
            shifts = (run.seq_shift, run.picture_shift);
        }
        (self.run_count <= RUNS).then_some(shifts)
    }

    fn numbering(&self, packet: &Packet, (seq_shift, picture_shift): (u64, u16)) -> Numbering {
        let vp8 = packet.numbers().map(|numbers| Numbers {
            picture_id: numbers.picture_id.wrapping_add(picture_shift),
            tl0_picture_index: numbers.tl0_picture_index.wrapping_add(self.tl0_shift),
            key_index: numbers.key_index.wrapping_add(self.key_shift),
        });
        Numbering {
            seq: packet.seq.wrapping_add(seq_shift),
            timestamp: packet.timestamp.wrapping_add(self.timestamp_shift),
            vp8,
        }
    }
}

impl Rewriter {
    /// Numbering starts at `first_seq`. `clock_rate` is that of the RTP timestamps, in Hz.
    pub fn new(first_seq: u16, clock_rate: u32) -> Self {
        Self {
            clock_rate,
            current: Epoch::EMPTY,
            previous: Epoch::EMPTY,
            interrupted: true,
            started: false,
            next_seq: u64::from(first_seq),
            last_source: 0,
            last_timestamp: 0,
            last_arrival: Instant::ZERO,
            last_vp8: None,
        }
    }

    /// Nothing is forwarded from here on; what comes next begins anew, right behind what was sent.
    pub const fn interrupt(&mut self) {
        self.interrupted = true;
    }

    /// What to add to received timestamps of the encoding now forwarded; `None` before the first packet.
    pub fn timestamp_shift(&self) -> Option<(u8, u32)> {
        self.current.spatial.map(|spatial| (spatial, self.current.timestamp_shift))
    }

    /// Number of the next packet in order.
    pub const fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Whether a packet of this encoding would begin an epoch.
    pub fn begins(&self, spatial: u8) -> bool {
        self.interrupted || self.current.spatial != Some(spatial)
    }

    /// Begin an epoch with this packet. `aligned` is its timestamp in terms of the encoding forwarded before, where
    /// sender reports of both tell it.
    pub fn begin(&mut self, packet: &Packet, aligned: Option<u32>) -> Numbering {
        let same = self.current.spatial == Some(packet.spatial);
        let mut runs = core::mem::take(&mut self.previous.runs);
        runs.clear();
        let timestamp = self.first_timestamp(packet, aligned, same);
        let mut epoch = Epoch {
            spatial: Some(packet.spatial),
            first: packet.seq,
            highest: packet.seq,
            seq_shift: self.next_seq.wrapping_sub(packet.seq),
            timestamp_shift: timestamp.wrapping_sub(packet.timestamp),
            runs,
            ..Epoch::EMPTY
        };
        if let (Some(numbers), Some(last)) = (packet.numbers(), self.last_vp8) {
            epoch.picture_shift = last.picture_id.wrapping_add(1).wrapping_sub(numbers.picture_id);
            epoch.tl0_shift = last.tl0_picture_index.wrapping_add(1).wrapping_sub(numbers.tl0_picture_index);
            epoch.key_shift = last.key_index.wrapping_add(1).wrapping_sub(numbers.key_index);
        }
        self.previous = core::mem::replace(&mut self.current, epoch);
        // Holes behind the last packet sent are closed: what is missing there precedes a new beginning.
        self.previous.highest = self.last_source;
        self.interrupted = false;
        self.started = true;
        self.advance(packet)
    }

    /// A packet of the encoding being forwarded, to be sent.
    pub fn forward(&mut self, packet: &Packet) -> Result<Numbering, DropReason> {
        if self.current.spatial == Some(packet.spatial) && packet.seq > self.current.highest {
            self.current.highest = packet.seq;
            self.current.skipped_picture = None;
            return Ok(self.advance(packet));
        }
        self.late(packet)
    }

    /// A packet that comes after newer ones: it is sent if a hole was left for it.
    pub fn late(&mut self, packet: &Packet) -> Result<Numbering, DropReason> {
        if let Some(shifts) = self.current.shifts_at(packet) {
            let numbering = self.current.numbering(packet, shifts);
            // What was newer may all have been dropped: then this one is the newest sent.
            if numbering.seq >= self.next_seq {
                self.sent(packet, numbering);
            }
            return Ok(numbering);
        }
        let shifts = self.previous.shifts_at(packet).ok_or(DropReason::TooLate)?;
        Ok(self.previous.numbering(packet, shifts))
    }

    /// A packet of the encoding being forwarded that is dropped by choice: close the numbering over it.
    pub fn skip(&mut self, packet: &Packet) {
        let epoch = &mut self.current;
        if self.interrupted || epoch.spatial != Some(packet.spatial) || packet.seq <= epoch.highest {
            return;
        }
        let before = Run {
            first: packet.seq,
            last: packet.seq,
            timestamp: packet.timestamp,
            picture_shift: epoch.picture_shift,
            seq_shift: epoch.seq_shift,
        };
        let last = epoch.run_count.checked_sub(1).and_then(|at| epoch.runs.get_mut(at % RUNS));
        // A hole within one dropped frame belongs to that frame.
        let goes_on = |last: &&mut Run| {
            last.last == epoch.highest && (packet.seq == epoch.highest + 1 || packet.timestamp == last.timestamp)
        };
        if let Some(last) = last.filter(goes_on) {
            epoch.seq_shift = epoch.seq_shift.wrapping_sub(packet.seq - last.last);
            last.last = packet.seq;
            last.timestamp = packet.timestamp;
        } else {
            epoch.seq_shift = epoch.seq_shift.wrapping_sub(1);
            match epoch.runs.get_mut(epoch.run_count % RUNS) {
                Some(slot) => *slot = before,
                None => epoch.runs.push(before),
            }
            epoch.run_count += 1;
        }
        epoch.highest = packet.seq;
        if let Some(picture) = packet.vp8().and_then(|vp8| vp8.picture_id).map(|id| id.value())
            && epoch.skipped_picture != Some(picture)
        {
            epoch.skipped_picture = Some(picture);
            epoch.picture_shift = epoch.picture_shift.wrapping_sub(1);
        }
    }

    fn advance(&mut self, packet: &Packet) -> Numbering {
        let numbering = self.current.numbering(packet, (self.current.seq_shift, self.current.picture_shift));
        self.sent(packet, numbering);
        numbering
    }

    const fn sent(&mut self, packet: &Packet, numbering: Numbering) {
        self.next_seq = numbering.seq.wrapping_add(1);
        self.last_source = packet.seq;
        self.last_timestamp = numbering.timestamp;
        self.last_arrival = packet.arrival;
        if numbering.vp8.is_some() {
            self.last_vp8 = numbering.vp8;
        }
    }

    fn first_timestamp(&self, packet: &Packet, aligned: Option<u32>, same: bool) -> u32 {
        if !self.started {
            return packet.timestamp;
        }
        let waited = ticks(packet.arrival.since(self.last_arrival), self.clock_rate);
        let by_arrival = self.last_timestamp.wrapping_add(waited);
        let candidate = if same { Some(packet.timestamp.wrapping_add(self.current.timestamp_shift)) } else { aligned };
        let trust = i64::from(ticks(ALIGNMENT_TRUST, self.clock_rate));
        let timestamp =
            candidate.filter(|c| i64::from(difference(*c, by_arrival)).abs() <= trust).unwrap_or(by_arrival);
        if difference(timestamp, self.last_timestamp) <= 0 { self.last_timestamp.wrapping_add(1) } else { timestamp }
    }
}

/// Signed distance of two RTP timestamps, the shorter way around.
pub const fn difference(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b).cast_signed()
}

/// A duration in ticks of an RTP clock, modulo 2^32.
pub fn ticks(time: Duration, clock_rate: u32) -> u32 {
    let ticks = time.as_nanos().saturating_mul(u128::from(clock_rate)) / 1_000_000_000;
    u32::try_from(ticks & u128::from(u32::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_and_differences_wrap() {
        assert_eq!(ticks(Duration::from_secs(1), 90_000), 90_000);
        assert_eq!(ticks(Duration::from_secs(100_000), 90_000), 410_065_408, "modulo 2^32");
        assert_eq!(difference(5, u32::MAX), 6);
        assert_eq!(difference(u32::MAX, 5), -6);
    }
}
