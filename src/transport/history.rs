//! Packets of one received RTP stream, decrypted, for forwarding at the end of the turn and for retransmission.
//!
//! One ring per encoding, shared by all its downtracks: they keep only numbers that lead here. Payloads lie one after
//! the other in one block of memory, so that a stream of small packets keeps more of them than a stream of large ones.
//! Nothing is allocated before the first packet and nothing after it.

use crate::base::{DropReason, Instant, PayloadType};
use crate::rtp::codec::FrameInfo;
use crate::rtp::packet::{Extensions, PacketView};

/// Largest extension block plus payload that is stored, in bytes: an Ethernet frame's worth.
pub const MAX_PACKET: usize = 1500;

/// How much of a stream is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most packets; rounded up to a power of two, at least 2.
    pub packets: usize,
    /// Most bytes of payloads and extensions; at least [`MAX_PACKET`].
    pub bytes: usize,
}

impl Limits {
    /// A second at 2.6 Mbit/s. More lets packets be sent again after longer round trips, for memory of every encoding.
    pub const VIDEO: Self = Self { packets: 512, bytes: 320 * 1024 };
    /// Five seconds of Opus in 20 ms frames at up to 77 kbit/s.
    pub const AUDIO: Self = Self { packets: 256, bytes: 48 * 1024 };
}

/// One packet, to be put in or as found.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Unwrapped sequence number ([`crate::transport::rx::RxStream`] gives it).
    pub seq: u64,
    /// When it came.
    pub arrival: Instant,
    /// RTP timestamp as published.
    pub timestamp: u32,
    /// Marker bit.
    pub marker: bool,
    /// The publisher's payload type; of the original where it came as a retransmission.
    pub payload_type: PayloadType,
    /// What it says of its frame.
    pub info: FrameInfo,
    /// The publisher's header extensions.
    pub extensions: Extensions<'a>,
    /// Payload without padding.
    pub payload: &'a [u8],
}

impl<'a> Entry<'a> {
    /// From a packet of the stream itself. For a retransmission, put in the original's sequence number, payload type
    /// and payload ([`crate::rtp::packet::retransmitted`]).
    pub const fn new(seq: u64, arrival: Instant, packet: &PacketView<'a>, info: FrameInfo) -> Self {
        Self {
            seq,
            arrival,
            timestamp: packet.timestamp(),
            marker: packet.marker(),
            payload_type: packet.payload_type(),
            info,
            extensions: packet.extensions(),
            payload: packet.payload(),
        }
    }
}

/// Where a packet lies. Valid while its bytes have not been written over.
#[derive(Clone, Copy, Debug)]
struct Slot {
    seq: u64,
    /// Position in the endless stream of bytes written; the place is this modulo the size of the block.
    position: u64,
    arrival: Instant,
    timestamp: u32,
    profile: u16,
    extensions: u16,
    payload: u16,
    marker: bool,
    payload_type: PayloadType,
    info: FrameInfo,
}

/// The ring.
#[derive(Debug)]
pub struct History {
    limits: Limits,
    slots: Box<[Option<Slot>]>,
    bytes: Box<[u8]>,
    /// Next byte to be written, in the endless stream.
    head: u64,
    highest: Option<u64>,
}

impl History {
    /// An empty ring that has not taken its memory yet.
    pub fn new(limits: Limits) -> Self {
        let limits = Limits { packets: limits.packets.max(2).next_power_of_two(), bytes: limits.bytes.max(MAX_PACKET) };
        Self { limits, slots: Box::default(), bytes: Box::default(), head: 0, highest: None }
    }

    /// Keep a copy of a packet. The oldest ones make place.
    ///
    /// # Errors
    /// [`DropReason::TooLarge`] beyond [`MAX_PACKET`] bytes, [`DropReason::TooLate`] for one older than the ring
    /// reaches, [`DropReason::Duplicate`] for one that is there.
    pub fn insert(&mut self, entry: &Entry<'_>) -> Result<(), DropReason> {
        let (block, payload) = (entry.extensions.block(), entry.payload);
        let length = block.len() + payload.len();
        if length > MAX_PACKET {
            return Err(DropReason::TooLarge);
        }
        if self.highest.is_some_and(|highest| entry.seq + self.reach() <= highest) {
            return Err(DropReason::TooLate);
        }
        if self.slots.is_empty() {
            self.allocate();
        }
        if self.slot(entry.seq).is_some() {
            return Err(DropReason::Duplicate);
        }
        let position = self.place(length);
        let slot = Slot {
            seq: entry.seq,
            position,
            arrival: entry.arrival,
            timestamp: entry.timestamp,
            profile: entry.extensions.profile(),
            extensions: u16::try_from(block.len()).map_err(|_| DropReason::TooLarge)?,
            payload: u16::try_from(payload.len()).map_err(|_| DropReason::TooLarge)?,
            marker: entry.marker,
            payload_type: entry.payload_type,
            info: entry.info,
        };
        let at = self.offset(position);
        let target = self.bytes.get_mut(at..at + length).ok_or(DropReason::Bug)?;
        let (extensions, rest) = target.split_at_mut(block.len());
        extensions.copy_from_slice(block);
        rest.copy_from_slice(payload);
        let index = self.index(entry.seq);
        *self.slots.get_mut(index).ok_or(DropReason::Bug)? = Some(slot);
        self.highest = self.highest.max(Some(entry.seq));
        Ok(())
    }

    /// The packet with this unwrapped sequence number, if it is still there.
    pub fn packet(&self, seq: u64) -> Option<Entry<'_>> {
        let slot = self.slot(seq)?;
        let at = self.offset(slot.position);
        let (extensions, rest) = self.bytes.get(at..)?.split_at_checked(usize::from(slot.extensions))?;
        Some(Entry {
            seq,
            arrival: slot.arrival,
            timestamp: slot.timestamp,
            marker: slot.marker,
            payload_type: slot.payload_type,
            info: slot.info,
            extensions: Extensions::new(slot.profile, extensions),
            payload: rest.get(..usize::from(slot.payload))?,
        })
    }

    /// Forget all packets, keep the memory: the stream restarted with other numbers.
    pub fn clear(&mut self) {
        self.slots.fill(None);
        self.highest = None;
    }

    /// Highest sequence number put in.
    pub const fn highest(&self) -> Option<u64> {
        self.highest
    }

    fn slot(&self, seq: u64) -> Option<&Slot> {
        let slot = self.slots.get(self.index(seq))?.as_ref()?;
        let size = self.bytes.len() as u64;
        (slot.seq == seq && slot.position + size >= self.head).then_some(slot)
    }

    /// Take `length` bytes in a row, skipping what is left at the end of the block when they do not fit there.
    fn place(&mut self, length: usize) -> u64 {
        let left = self.bytes.len() - self.offset(self.head);
        if left < length {
            self.head += left as u64;
        }
        let position = self.head;
        self.head += length as u64;
        position
    }

    fn allocate(&mut self) {
        self.slots = vec![None; self.limits.packets].into();
        self.bytes = vec![0; self.limits.bytes].into();
    }

    const fn reach(&self) -> u64 {
        self.limits.packets as u64
    }

    #[allow(clippy::cast_possible_truncation, reason = "masked below the number of slots first")]
    const fn index(&self, seq: u64) -> usize {
        (seq & (self.reach() - 1)) as usize
    }

    #[allow(clippy::cast_possible_truncation, reason = "the remainder is below the length of the block")]
    const fn offset(&self, position: u64) -> usize {
        let size = self.bytes.len() as u64;
        if size == 0 { 0 } else { (position % size) as usize }
    }
}

#[cfg(test)]
mod tests;
