//! Which packet indices were seen of each RTP stream: unwrapping and replay windows (RFC 3711, 3.3.1 and 3.3.2).

use crate::base::DropReason;

/// Packets a window remembers. Video at high rates reorders by hundreds; retransmissions have an SSRC of their own.
const WINDOW: u64 = 1024;
const WORDS: usize = 16;

/// The packet index of sequence number `seq` nearest to the highest index so far (RFC 3711, 3.3.1). 48 bits.
pub(crate) const fn unwrap_index(highest: u64, seq: u16) -> u64 {
    let base = highest & !0xffff;
    let candidate = base | seq as u64;
    if candidate + 0x8000 < highest {
        candidate + 0x1_0000
    } else if candidate > highest + 0x8000 && base > 0 {
        candidate - 0x1_0000
    } else {
        candidate
    }
}

/// What happens when one more stream would exceed the limit.
#[derive(Clone, Copy, Debug)]
pub(super) enum WhenFull {
    /// The one silent longest is forgotten. Its packets could be replayed then: as an unpublished SSRC, they go nowhere.
    ForgetOldest,
    /// No more streams.
    Refuse,
}

/// Windows by SSRC.
#[derive(Debug)]
pub(super) struct Streams {
    /// Sorted by SSRC, with the place in `streams`: what a search touches is dense.
    order: Vec<(u32, usize)>,
    streams: Vec<Stream>,
    last: (u32, usize),
    max: usize,
    when_full: WhenFull,
    clock: u64,
}

#[derive(Debug)]
struct Stream {
    ssrc: u32,
    highest: u64,
    /// One bit for each index of the window, at index mod 1024.
    seen: [u64; WORDS],
    /// When it was last used, in packets of the transport.
    used: u64,
}

impl Streams {
    /// None yet; at most `max` (at least one).
    pub(super) const fn new(max: usize, when_full: WhenFull) -> Self {
        let max = if max == 0 { 1 } else { max };
        Self { order: Vec::new(), streams: Vec::new(), last: (0, usize::MAX), max, when_full, clock: 0 }
    }

    /// The place of a stream, if it is known.
    pub(super) fn find(&self, ssrc: u32) -> Option<usize> {
        // Packets of one frame follow each other.
        if self.last.0 == ssrc && self.last.1 != usize::MAX {
            return Some(self.last.1);
        }
        let at = self.order.binary_search_by_key(&ssrc, |entry| entry.0).ok()?;
        self.order.get(at).map(|entry| entry.1)
    }

    /// The unwrapped index of `seq`; a new stream starts with a roll-over counter of zero.
    pub(super) fn index(&self, slot: Option<usize>, seq: u16) -> u64 {
        match slot.and_then(|slot| self.streams.get(slot)) {
            Some(stream) => unwrap_index(stream.highest, seq),
            None => u64::from(seq),
        }
    }

    /// Whether `index` is new.
    ///
    /// # Errors
    /// `Replayed` when it was seen, `TooLate` when it is too old to tell.
    pub(super) fn check(&self, slot: Option<usize>, index: u64) -> Result<(), DropReason> {
        let Some(stream) = slot.and_then(|slot| self.streams.get(slot)) else { return Ok(()) };
        if index > stream.highest {
            return Ok(());
        }
        if stream.highest - index >= WINDOW {
            return Err(DropReason::TooLate);
        }
        let (word, bit) = place(index);
        if stream.seen.get(word).is_some_and(|seen| seen & bit != 0) { Err(DropReason::Replayed) } else { Ok(()) }
    }

    /// Remember `index`, which [`Self::check`] found new and (when received) is authentic.
    ///
    /// # Errors
    /// `Full` when the stream is one too many.
    pub(super) fn accept(&mut self, slot: Option<usize>, ssrc: u32, index: u64) -> Result<(), DropReason> {
        self.clock += 1;
        let slot = match slot {
            Some(slot) => slot,
            None => self.add(ssrc, index)?,
        };
        self.last = (ssrc, slot);
        let Some(stream) = self.streams.get_mut(slot) else { return Err(DropReason::Bug) };
        stream.used = self.clock;
        if index > stream.highest {
            stream.advance(index);
        }
        let (word, bit) = place(index);
        if let Some(seen) = stream.seen.get_mut(word) {
            *seen |= bit;
        }
        Ok(())
    }

    fn add(&mut self, ssrc: u32, index: u64) -> Result<usize, DropReason> {
        let stream = Stream { ssrc, highest: index, seen: [0; WORDS], used: self.clock };
        let slot = if self.streams.len() < self.max {
            self.streams.push(stream);
            self.streams.len() - 1
        } else {
            if matches!(self.when_full, WhenFull::Refuse) {
                return Err(DropReason::Full);
            }
            let oldest = self.streams.iter().enumerate().min_by_key(|(_, stream)| stream.used);
            let (slot, old_ssrc) = oldest.map(|(slot, stream)| (slot, stream.ssrc)).ok_or(DropReason::Full)?;
            self.order.retain(|entry| entry.0 != old_ssrc);
            if let Some(place) = self.streams.get_mut(slot) {
                *place = stream;
            }
            slot
        };
        let at = self.order.partition_point(|entry| entry.0 < ssrc);
        self.order.insert(at, (ssrc, slot));
        Ok(slot)
    }

    #[cfg(test)]
    pub(super) const fn len(&self) -> usize {
        self.streams.len()
    }
}

impl Stream {
    /// Move the window up to a new highest index; what was skipped is not seen.
    fn advance(&mut self, index: u64) {
        let steps = index - self.highest;
        if steps >= WINDOW {
            self.seen = [0; WORDS];
        } else {
            for skipped in self.highest + 1..=index {
                let (word, bit) = place(skipped);
                if let Some(seen) = self.seen.get_mut(word) {
                    *seen &= !bit;
                }
            }
        }
        self.highest = index;
    }
}

const fn place(index: u64) -> (usize, u64) {
    (((index % WINDOW) / 64) as usize, 1 << (index % 64))
}
