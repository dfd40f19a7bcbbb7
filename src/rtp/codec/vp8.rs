//! VP8 payload descriptor (RFC 7741, 4.2), the clear frame header (4.3; RFC 6386, 9.1), and rewriting of the
//! descriptor's numbers in place of the old ones, so that the payload keeps its length.

use crate::rtp::codec::{Detail, FrameInfo};
use crate::rtp::cursor::Cursor;

/// Longest payload descriptor.
pub const MAX_DESCRIPTOR: usize = 6;

/// A picture id as the publisher writes it: its width never changes while forwarding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureId {
    /// 7 bits.
    Short(u8),
    /// 15 bits.
    Long(u16),
}

impl PictureId {
    /// The number.
    pub const fn value(self) -> u16 {
        match self {
            Self::Short(id) => id as u16,
            Self::Long(id) => id,
        }
    }

    /// The number's bits set: 0x7f or 0x7fff.
    pub const fn mask(self) -> u16 {
        match self {
            Self::Short(_) => 0x7f,
            Self::Long(_) => 0x7fff,
        }
    }
}

/// The payload descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Bytes it takes, 1 to 6.
    pub length: u8,
    /// N: no later frame refers to this one.
    pub non_reference: bool,
    /// S: a partition starts here.
    pub partition_start: bool,
    /// PID, 0 to 7.
    pub partition: u8,
    /// Frame counter, if any.
    pub picture_id: Option<PictureId>,
    /// Counter of base-layer frames, if any.
    pub tl0_picture_index: Option<u8>,
    /// Temporal layer and its Y bit: refers to nothing but base layers. `None` when not said.
    pub temporal: Option<(u8, bool)>,
    /// Key frame counter, 5 bits, if any.
    pub key_index: Option<u8>,
}

/// New numbers for a descriptor. Those the descriptor has no place for are not written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Written in the width the descriptor has, high bits dropped.
    pub picture_id: u16,
    /// Replaces TL0PICIDX.
    pub tl0_picture_index: u8,
    /// Replaces KEYIDX, 5 bits.
    pub key_index: u8,
}

impl Descriptor {
    /// Read the descriptor at the front of `payload`.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(payload);
        let first = cursor.u8()?;
        let mut descriptor = Self {
            length: 1,
            non_reference: first & 0x20 != 0,
            partition_start: first & 0x10 != 0,
            partition: first & 0x07,
            picture_id: None,
            tl0_picture_index: None,
            temporal: None,
            key_index: None,
        };
        if first & 0x80 != 0 {
            descriptor.read_extended(&mut cursor)?;
        }
        descriptor.length = u8::try_from(payload.len() - cursor.len()).ok()?;
        Some(descriptor)
    }

    fn read_extended(&mut self, cursor: &mut Cursor<'_>) -> Option<()> {
        let flags = cursor.u8()?;
        if flags & 0x80 != 0 {
            let high = cursor.u8()?;
            self.picture_id = Some(if high & 0x80 == 0 {
                PictureId::Short(high)
            } else {
                PictureId::Long(u16::from_be_bytes([high & 0x7f, cursor.u8()?]))
            });
        }
        if flags & 0x40 != 0 {
            self.tl0_picture_index = Some(cursor.u8()?);
        }
        if flags & 0x30 != 0 {
            let byte = cursor.u8()?;
            if flags & 0x20 != 0 {
                self.temporal = Some((byte >> 6, byte & 0x20 != 0));
            }
            if flags & 0x10 != 0 {
                self.key_index = Some(byte & 0x1f);
            }
        }
        Some(())
    }

    /// The numbers it has; zero for those it has not.
    pub fn numbers(&self) -> Numbers {
        Numbers {
            picture_id: self.picture_id.map_or(0, PictureId::value),
            tl0_picture_index: self.tl0_picture_index.unwrap_or(0),
            key_index: self.key_index.unwrap_or(0),
        }
    }

    /// Copy the descriptor at the front of `payload` (where `self` was read from) into `out` with new numbers. Gives
    /// the bytes that replace the first `self.length` of the payload; everything after them stays as it is.
    pub fn rewrite<'o>(&self, payload: &[u8], numbers: Numbers, out: &'o mut [u8; MAX_DESCRIPTOR]) -> Option<&'o [u8]> {
        let length = usize::from(self.length);
        let target = out.get_mut(..length)?;
        target.copy_from_slice(payload.get(..length)?);
        let mut at = 2;
        if let Some(id) = self.picture_id {
            let [high, low] = (numbers.picture_id & id.mask()).to_be_bytes();
            match id {
                PictureId::Short(_) => *target.get_mut(at)? = low,
                PictureId::Long(_) => {
                    *target.get_mut(at)? = 0x80 | high;
                    at += 1;
                    *target.get_mut(at)? = low;
                }
            }
            at += 1;
        }
        if self.tl0_picture_index.is_some() {
            *target.get_mut(at)? = numbers.tl0_picture_index;
            at += 1;
        }
        if self.key_index.is_some() {
            let byte = target.get_mut(at)?;
            *byte = (*byte & 0xe0) | (numbers.key_index & 0x1f);
        }
        Some(target)
    }
}

/// Key frame header: 3 bytes of frame tag, 3 of start code, width and height with 2 bits of scaling each.
const KEYFRAME_HEADER: usize = 10;

pub(super) fn read(payload: &[u8], marker: bool) -> Option<FrameInfo> {
    let descriptor = Descriptor::read(payload)?;
    let frame = payload.get(usize::from(descriptor.length)..)?;
    let start_of_frame = descriptor.partition_start && descriptor.partition == 0;
    // A descriptor with nothing behind it is malformed (RFC 7741, 4.2).
    let tag = *frame.first()?;
    let keyframe = start_of_frame && tag & 0x01 == 0;
    let (temporal, layer_sync) = descriptor.temporal.unwrap_or((0, false));
    Some(FrameInfo {
        keyframe,
        start_of_frame,
        end_of_frame: marker,
        spatial: 0,
        temporal,
        temporal_switch: layer_sync,
        size: if keyframe { size(frame) } else { None },
        detail: Detail::Vp8(descriptor),
    })
}

fn size(frame: &[u8]) -> Option<(u16, u16)> {
    let header = frame.first_chunk::<KEYFRAME_HEADER>()?;
    let [_, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1] = *header else { return None };
    Some((u16::from_le_bytes([w0, w1]) & 0x3fff, u16::from_le_bytes([h0, h1]) & 0x3fff))
}

#[cfg(test)]
mod tests;
