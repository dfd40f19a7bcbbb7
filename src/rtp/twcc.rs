//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01, 3.1): reading.
//!
//! Zero allocation; a hostile report costs at most its claimed 65535 statuses of iteration and can be cut short by the
//! caller. Writing is in [`crate::cc::feedback`].

use core::time::Duration;

use crate::base::Ssrc;
use crate::rtp::cursor::Cursor;

/// One feedback packet, checked only as far as its fixed head. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Feedback<'a> {
    /// Media SSRC of the packet; means little.
    pub media: Ssrc,
    /// First sequence number reported on.
    pub base: u16,
    /// How many are reported on, at least 1.
    pub count: u16,
    /// 24-bit arrival clock of the receiver in units of 64 ms, wrapping.
    pub reference_time: u32,
    /// Number of the report, wrapping.
    pub number: u8,
    body: &'a [u8],
}

/// What a report says of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Transport-wide sequence number as on the wire.
    pub sequence: u16,
    /// Arrival in signed units of 250 us since `reference_time`, or `None`: not received (yet).
    pub arrival: Option<i64>,
}

/// Unit of [`Status::arrival`].
pub const TICK: Duration = Duration::from_micros(250);
/// Ticks in a unit of the reference time.
pub const TICKS_PER_REFERENCE: i64 = 256;

const SMALL: u8 = 1;
const LARGE: u8 = 2;

impl<'a> Feedback<'a> {
    /// Read what follows the two SSRCs of a feedback packet. `None` when it is cut off, reports on nothing, uses the
    /// reserved symbol, or has too few chunks or deltas.
    pub fn read(media: Ssrc, body: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor::new(body);
        let (base, count) = (cursor.u16()?, cursor.u16()?);
        let (reference_time, number) = (cursor.u24()?, cursor.u8()?);
        let feedback = Self { media, base, count, reference_time, number, body: cursor.rest() };
        (count > 0 && feedback.deltas_at().is_some()).then_some(feedback)
    }

    /// What it says, packet by packet, in the order of sequence numbers; exactly `count` items.
    pub fn statuses(&self) -> Statuses<'a> {
        let at = self.deltas_at().unwrap_or(self.body.len());
        let (chunks, deltas) = self.body.split_at_checked(at).unwrap_or((self.body, &[]));
        Statuses {
            chunks: Chunks::new(chunks, self.count),
            deltas: Cursor::new(deltas),
            sequence: self.base,
            arrival: 0,
        }
    }

    /// Where the deltas begin, having checked that all chunks and deltas are there. Padding after them is no error.
    fn deltas_at(&self) -> Option<usize> {
        let mut chunks = Chunks::new(self.body, self.count);
        let mut needed = 0usize;
        while chunks.left > 0 {
            // Whole runs at once: a report of 65535 statuses can be 40 bytes long.
            let (symbol, run) = chunks.next_run()?;
            needed += match symbol {
                0 => 0,
                SMALL => usize::from(run),
                LARGE => usize::from(run) * 2,
                _ => return None,
            };
        }
        (chunks.cursor.len() >= needed).then_some(self.body.len() - chunks.cursor.len())
    }
}

/// Iterator over the packets of a report.
#[derive(Clone, Debug)]
pub struct Statuses<'a> {
    chunks: Chunks<'a>,
    deltas: Cursor<'a>,
    sequence: u16,
    arrival: i64,
}

impl Iterator for Statuses<'_> {
    type Item = Status;

    fn next(&mut self) -> Option<Status> {
        let symbol = self.chunks.next_symbol()?;
        let delta = match symbol {
            SMALL => Some(i64::from(self.deltas.u8()?)),
            LARGE => Some(i64::from(self.deltas.u16()?.cast_signed())),
            _ => None,
        };
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        let arrival = delta.map(|delta| {
            self.arrival += delta;
            self.arrival
        });
        Some(Status { sequence, arrival })
    }
}

/// Symbols out of chunks, clipped to the status count: the last chunk may say more than there is.
#[derive(Clone, Debug)]
struct Chunks<'a> {
    cursor: Cursor<'a>,
    /// Symbols still to give.
    left: u16,
    /// The current chunk: symbols left in it, and the symbols, the next one in the top bits of `width`.
    in_chunk: u16,
    vector: u16,
    /// Bits per symbol of a vector chunk; 0 for a run, whose symbol is `vector`.
    width: u8,
}

impl<'a> Chunks<'a> {
    const fn new(bytes: &'a [u8], count: u16) -> Self {
        Self { cursor: Cursor::new(bytes), left: count, in_chunk: 0, vector: 0, width: 0 }
    }

    /// Have a chunk with symbols left in it.
    fn load(&mut self) -> Option<()> {
        // A run of nothing makes no progress but costs two bytes of input: the loop is bounded by the packet.
        while self.in_chunk == 0 {
            let chunk = self.cursor.u16()?;
            (self.in_chunk, self.vector, self.width) = if chunk & 0x8000 == 0 {
                (chunk & 0x1fff, chunk >> 13, 0)
            } else if chunk & 0x4000 == 0 {
                (14, chunk << 2, 1)
            } else {
                (7, chunk << 2, 2)
            };
        }
        Some(())
    }

    /// The next symbol and how often it comes in a row: whole runs, single vector symbols.
    fn next_run(&mut self) -> Option<(u8, u16)> {
        if self.left == 0 {
            return None;
        }
        self.load()?;
        let (symbol, run) = if self.width == 0 {
            (self.vector, self.in_chunk.min(self.left))
        } else {
            let symbol = self.vector >> (16 - self.width);
            self.vector <<= self.width;
            (symbol, 1)
        };
        self.in_chunk -= run;
        self.left -= run;
        Some((u8::try_from(symbol).unwrap_or_default(), run))
    }

    fn next_symbol(&mut self) -> Option<u8> {
        if self.left == 0 {
            return None;
        }
        self.load()?;
        if self.width == 0 {
            self.in_chunk -= 1;
            self.left -= 1;
            return u8::try_from(self.vector).ok();
        }
        self.next_run().map(|(symbol, _)| symbol)
    }
}

#[cfg(test)]
mod tests;
