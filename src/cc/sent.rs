//! What was sent to a transport under which transport-wide number, until it is reported on.
//!
//! A ring as large as the rate asks for: a number that has left it is ignored when it is reported at last. One per [`super::estimator`], which
//! asks it what became of packets. Loss is counted with one report of patience, since receivers repeat themselves after
//! a late packet.

use crate::rtp::seq::{unwrap_u16, wire_u32};

/// Packets remembered at most; a power of two. 2048 are a second at 20 Mbit/s and 32 kB of memory; fewer would forget
/// before the report comes.
const RING: usize = 2048;
/// Packets remembered at first: 4 kB, enough for sound and a small picture.
const FIRST_RING: usize = 256;
/// A packet younger than this is not forgotten while the ring may grow.
const KEPT_US: u64 = 3_000_000;

/// Longer runs of lost packets are an outage.
const MOST_RUN: u32 = 100;
/// Untagged, as opposed to part of a probe.
pub(super) const NO_CLUSTER: u8 = 0;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Never sent, or forgotten.
    #[default]
    Empty,
    InFlight,
    /// One report says it has not come.
    Missing,
    Lost,
    Received,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    at_us: u64,
    seq: u32,
    size: u16,
    cluster: u8,
    state: State,
}

/// A packet that has arrived, as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delivered {
    pub(super) seq: u64,
    pub(super) sent_us: u64,
    pub(super) size: u16,
    pub(super) cluster: u8,
    /// It had been counted as lost.
    pub(super) recovered: bool,
}

/// What one sweep decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Swept {
    pub(super) lost: u32,
    /// How many were lost in a row, squared and summed up.
    pub(super) lost_squares: u32,
    /// Of those lost, in the cluster asked about.
    pub(super) lost_in_cluster: u32,
    /// Bytes of packets that no report spoke of: it was lost itself.
    pub(super) unknown: u32,
}

/// The ring.
#[derive(Clone, Debug)]
pub(super) struct SendLog {
    slots: Box<[Slot]>,
    /// Unwrapped number of the next packet.
    next: u64,
    /// Everything below has been judged as lost, received or unknown.
    judged: u64,
    /// Everything below was covered by the last report.
    covered: u64,
    /// Highest number that has arrived, plus one.
    acked: u64,
    in_flight: u64,
    /// How many before `judged` were lost in a row.
    run: u32,
}

impl SendLog {
    pub(super) fn new(first: u16) -> Self {
        let next = (1 << 32) + u64::from(first);
        Self {
            slots: vec![Slot::default(); FIRST_RING].into(),
            next,
            judged: next,
            covered: next,
            acked: next,
            in_flight: 0,
            run: 0,
        }
    }

    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Bytes after the newest packet that has arrived.
    pub(super) const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    pub(super) fn push(&mut self, at_us: u64, size: u16, cluster: u8) -> u64 {
        let seq = self.next;
        self.next += 1;
        self.in_flight += u64::from(size);
        let forgets = self
            .place(seq)
            .is_some_and(|slot| slot.state != State::Empty && at_us.saturating_sub(slot.at_us) < KEPT_US);
        if forgets && self.slots.len() < RING {
            self.grow();
        }
        let oldest = self.next.saturating_sub(self.slots.len() as u64);
        self.judged = self.judged.max(oldest);
        while self.acked < oldest {
            // Never reported on: no longer on the road.
            self.advance();
        }
        if let Some(slot) = self.place(seq) {
            *slot = Slot { at_us, seq: wire_u32(seq), size, cluster, state: State::InFlight };
        }
        seq
    }

    /// The unwrapped number meant by one on the wire, when it can have been sent.
    pub(super) fn unwrap(&self, wire: u16) -> Option<u64> {
        let last = self.next.checked_sub(1)?;
        let seq = unwrap_u16(last, wire);
        (seq <= last && seq + self.slots.len() as u64 > last).then_some(seq)
    }

    /// A report says that this one has arrived. `None` when that is known already, or it was never sent.
    pub(super) fn received(&mut self, seq: u64) -> Option<Delivered> {
        let slot = self.slot_mut(seq)?;
        let before = slot.state;
        if !matches!(before, State::InFlight | State::Missing | State::Lost) {
            return None;
        }
        slot.state = State::Received;
        let delivered = Delivered {
            seq,
            sent_us: slot.at_us,
            size: slot.size,
            cluster: slot.cluster,
            recovered: before == State::Lost,
        };
        while self.acked <= seq {
            self.advance();
        }
        Some(delivered)
    }

    /// A report says that this one has not arrived.
    pub(super) fn missing(&mut self, seq: u64) {
        if let Some(slot) = self.slot_mut(seq).filter(|slot| slot.state == State::InFlight) {
            slot.state = State::Missing;
        }
    }

    /// A report has been read that covered everything below `end`. What an earlier report had covered and is still
    /// missing is lost now.
    pub(super) fn sweep(&mut self, end: u64, cluster: u8) -> Swept {
        let mut swept = Swept::default();
        let mut run = self.run;
        for seq in self.judged..self.covered {
            let Some(slot) = self.slot_mut(seq) else { continue };
            if slot.state == State::InFlight {
                swept.unknown = swept.unknown.saturating_add(u32::from(slot.size));
            }
            if slot.state == State::Received {
                run = 0;
            }
            if slot.state == State::Missing {
                slot.state = State::Lost;
                swept.lost += 1;
                run = (run + 1).min(MOST_RUN);
                // The squares of this and of one less are so far apart.
                swept.lost_squares += 2 * run - 1;
                swept.lost_in_cluster += u32::from(cluster != NO_CLUSTER && slot.cluster == cluster);
            }
        }
        self.run = run;
        self.judged = self.judged.max(self.covered);
        self.covered = self.covered.max(end.min(self.next));
        swept
    }

    /// Twice the size; nothing is forgotten.
    fn grow(&mut self) {
        let size = self.slots.len() * 2;
        let before = core::mem::replace(&mut self.slots, vec![Slot::default(); size].into());
        for slot in before.iter().filter(|slot| slot.state != State::Empty) {
            if let Some(place) = self.place(u64::from(slot.seq)) {
                *place = *slot;
            }
        }
    }

    fn advance(&mut self) {
        let acked = self.acked;
        let size = self.slot_mut(acked).map_or(0, |slot| u64::from(slot.size));
        self.in_flight = self.in_flight.saturating_sub(size);
        self.acked += 1;
    }

    /// The slot of a number that is still remembered.
    fn slot_mut(&mut self, seq: u64) -> Option<&mut Slot> {
        self.place(seq).filter(|slot| slot.state != State::Empty && slot.seq == wire_u32(seq))
    }

    fn place(&mut self, seq: u64) -> Option<&mut Slot> {
        let mask = self.slots.len() as u64 - 1;
        self.slots.get_mut(usize::try_from(seq & mask).ok()?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn counts_a_missing_packet_once_the_next_report_does_not_repair_it() {
        let mut log = SendLog::new(65_534);
        let sent: Vec<u64> = (0..6).map(|n| log.push(n, 100, NO_CLUSTER)).collect();
        assert_eq!(log.in_flight(), 600);
        assert!(log.received(sent[0]).is_some());
        log.missing(sent[1]);
        log.missing(sent[2]);
        assert!(log.received(sent[3]).is_some());
        assert_eq!(log.in_flight(), 200);
        assert_eq!(log.sweep(sent[4], NO_CLUSTER).lost, 0);
        assert!(!log.received(sent[2]).unwrap().recovered, "it was only late");
        assert_eq!(log.sweep(sent[5], NO_CLUSTER).lost, 1);
        assert!(log.received(sent[1]).unwrap().recovered);
        assert!(log.received(sent[1]).is_none(), "said again");
    }

    #[test]
    fn packets_of_a_report_that_never_came_are_not_lost() {
        let mut log = SendLog::new(0);
        let sent: Vec<u64> = (0..10).map(|n| log.push(n, 100, NO_CLUSTER)).collect();
        assert!(log.received(sent[9]).is_some());
        assert_eq!(log.sweep(sent[9] + 1, NO_CLUSTER).lost + log.sweep(sent[9] + 1, NO_CLUSTER).lost, 0);
        assert_eq!(log.in_flight(), 0);
    }

    #[test]
    fn grows_with_the_rate_and_forgets_nothing_by_it() {
        let mut log = SendLog::new(65_000);
        let sent: Vec<u64> = (0..1000).map(|n| log.push(n * 1_000, 100, NO_CLUSTER)).collect();
        assert_eq!(log.slots.len(), 1024);
        assert!(sent.iter().all(|seq| log.received(*seq).is_some()));
        let mut slow = SendLog::new(0);
        for n in 0..1000 {
            slow.push(n * 20_000, 100, NO_CLUSTER);
        }
        assert_eq!(slow.slots.len(), FIRST_RING, "50 packets a second");
    }

    #[test]
    fn knows_only_what_it_has_sent_and_not_forgotten() {
        let mut log = SendLog::new(65_000);
        for n in 0..5000 {
            log.push(n, 100, NO_CLUSTER);
        }
        let last = log.next() - 1;
        assert_eq!(log.unwrap(crate::rtp::seq::wire_u16(last)), Some(last));
        assert_eq!(log.unwrap(crate::rtp::seq::wire_u16(last + 1)), None);
        assert_eq!(log.unwrap(crate::rtp::seq::wire_u16(last - RING as u64)), None);
        assert!(log.received(last - RING as u64).is_none());
        assert_eq!(log.in_flight(), RING as u64 * 100);
    }
}
