//! An RTP packet over borrowed bytes (RFC 3550, section 5; RFC 8285): parsed in place, copied nowhere.
//!
//! Called once per received packet, after SRTP has been opened (padding can only be checked then); the SRTP code asks
//! [`header_length`] before that. Writing is in [`crate::rtp::header`].

use core::ops::Range;

use crate::base::{DropReason, PayloadType, Ssrc};
use crate::rtp::cursor::Cursor;

/// Length of a header without CSRCs and extensions.
pub const FIXED_HEADER: usize = 12;

/// Profile of one-byte extensions (RFC 8285, 4.2).
const ONE_BYTE_PROFILE: u16 = 0xBEDE;
/// Profile of two-byte extensions, without its 4 application bits (RFC 8285, 4.3).
const TWO_BYTE_PROFILE: u16 = 0x1000;

/// Length of the RTP header with CSRCs and extension block: what SRTP authenticates but does not encrypt. `None` when
/// the header does not parse or is longer than the packet.
pub fn header_length(packet: &[u8]) -> Option<usize> {
    let (first, csrcs_at) = (*packet.first()?, FIXED_HEADER);
    if first >> 6 != 2 {
        return None;
    }
    let mut length = csrcs_at + usize::from(first & 0x0f) * 4;
    if first & 0x10 != 0 {
        let mut block = Cursor::new(packet.get(length..)?);
        block.u16()?;
        length += 4 + usize::from(block.u16()?) * 4;
    }
    (length <= packet.len()).then_some(length)
}

/// A parsed RTP packet. Cheap to copy; all slices borrow the datagram.
#[derive(Clone, Copy, Debug)]
pub struct PacketView<'a> {
    marker: bool,
    payload_type: PayloadType,
    sequence: u16,
    timestamp: u32,
    ssrc: Ssrc,
    csrcs: &'a [u8],
    extensions: Extensions<'a>,
    payload_start: usize,
    payload: &'a [u8],
    padding: u8,
}

impl<'a> PacketView<'a> {
    /// Parse a decrypted packet. [`DropReason::MalformedRtp`] for a wrong version, a header or extension block longer
    /// than the packet, and a padding length of zero or beyond the payload.
    pub fn parse(packet: &'a [u8]) -> Result<Self, DropReason> {
        Self::read(packet).ok_or(DropReason::MalformedRtp)
    }

    fn read(packet: &'a [u8]) -> Option<Self> {
        let payload_start = header_length(packet)?;
        let mut cursor = Cursor::new(packet.get(..payload_start)?);
        let [first, second] = cursor.array()?;
        let (sequence, timestamp, ssrc) = (cursor.u16()?, cursor.u32()?, cursor.u32()?);
        let csrcs = cursor.take(usize::from(first & 0x0f) * 4)?;
        let extensions = if first & 0x10 != 0 {
            let profile = cursor.u16()?;
            cursor.u16()?;
            Extensions::new(profile, cursor.rest())
        } else {
            Extensions::default()
        };
        let mut payload = packet.get(payload_start..)?;
        let mut padding = 0;
        if first & 0x20 != 0 {
            padding = *payload.last()?;
            if padding == 0 {
                return None;
            }
            payload = payload.get(..payload.len().checked_sub(usize::from(padding))?)?;
        }
        Some(Self {
            marker: second & 0x80 != 0,
            payload_type: PayloadType(second & 0x7f),
            sequence,
            timestamp,
            ssrc: Ssrc(ssrc),
            csrcs,
            extensions,
            payload_start,
            payload,
            padding,
        })
    }

    /// Marker bit: for video, the last packet of a frame.
    pub const fn marker(&self) -> bool {
        self.marker
    }

    /// Payload type.
    pub const fn payload_type(&self) -> PayloadType {
        self.payload_type
    }

    /// Sequence number as on the wire.
    pub const fn sequence(&self) -> u16 {
        self.sequence
    }

    /// Timestamp as on the wire, in units of the codec's clock rate.
    pub const fn timestamp(&self) -> u32 {
        self.timestamp
    }

    /// Which RTP stream.
    pub const fn ssrc(&self) -> Ssrc {
        self.ssrc
    }

    /// Contributing sources, at most 15.
    pub fn csrcs(&self) -> impl Iterator<Item = Ssrc> + 'a {
        self.csrcs.as_chunks::<4>().0.iter().map(|bytes| Ssrc(u32::from_be_bytes(*bytes)))
    }

    /// The header extensions.
    pub const fn extensions(&self) -> Extensions<'a> {
        self.extensions
    }

    /// The data of the extension with this negotiated id.
    pub fn extension(&self, id: u8) -> Option<&'a [u8]> {
        self.extensions.find(id)
    }

    /// The payload without padding.
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Where in the packet the payload is.
    pub const fn payload_range(&self) -> Range<usize> {
        self.payload_start..self.payload_start + self.payload.len()
    }

    /// How many bytes of padding there were.
    pub const fn padding(&self) -> u8 {
        self.padding
    }

    /// Whether there is no payload: a bandwidth probe or keep-alive. Nothing to forward.
    pub const fn is_padding_only(&self) -> bool {
        self.payload.is_empty()
    }
}

/// The original sequence number and payload in the payload of a retransmission (RFC 4588, section 4). `None` when it
/// carries no packet, as bandwidth probes do.
pub fn retransmitted(payload: &[u8]) -> Option<(u16, &[u8])> {
    let (sequence, original) = payload.split_first_chunk()?;
    (!original.is_empty()).then_some((u16::from_be_bytes(*sequence), original))
}

/// The header extensions of a packet, as an iterator over `(id, data)`.
///
/// Stops at the first element that does not fit its block, as RFC 8285 asks receivers to; that spoils no packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extensions<'a> {
    profile: u16,
    block: &'a [u8],
}

impl<'a> Extensions<'a> {
    /// Over the bytes of an extension block, without its four-byte head. Unknown profiles hold no extensions.
    pub const fn new(profile: u16, block: &'a [u8]) -> Self {
        Self { profile, block }
    }

    /// The profile field of the block's head; zero when there is no block.
    pub const fn profile(&self) -> u16 {
        self.profile
    }

    /// The bytes of what is still to be read.
    pub const fn block(&self) -> &'a [u8] {
        self.block
    }

    /// The data of the first extension with this id.
    pub fn find(mut self, id: u8) -> Option<&'a [u8]> {
        self.find_map(|(found, data)| (found == id).then_some(data))
    }
}

impl<'a> Iterator for Extensions<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut cursor = Cursor::new(self.block);
        let element = loop {
            let first = cursor.u8()?;
            if first == 0 {
                // Padding between elements.
                continue;
            }
            break if self.profile == ONE_BYTE_PROFILE {
                let id = first >> 4;
                if id == 15 {
                    // Reserved: nothing after it may be read (RFC 8285, 4.2).
                    self.block = &[];
                    return None;
                }
                if id == 0 {
                    // Padding with a length is not ours to interpret; skip its data.
                    cursor.take(usize::from(first & 0x0f) + 1)?;
                    continue;
                }
                (id, usize::from(first & 0x0f) + 1)
            } else if self.profile & 0xfff0 == TWO_BYTE_PROFILE {
                (first, usize::from(cursor.u8()?))
            } else {
                self.block = &[];
                return None;
            };
        };
        let (id, length) = element;
        let Some(data) = cursor.take(length) else {
            self.block = &[];
            return None;
        };
        self.block = cursor.rest();
        Some((id, data))
    }
}

#[cfg(test)]
mod tests;
