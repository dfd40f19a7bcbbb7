//! Writing RTP headers for outgoing packets: a fixed buffer, renumbered extensions, no allocation.
//!
//! One [`HeaderBuffer`] is kept and reused by whoever emits packets. Fields only known at the moment of sending
//! (transport-wide sequence number, absolute send time) are written as zeros and patched there.

use crate::base::{Instant, PayloadType, Ssrc};
use crate::rtp::ext::{self, ExtensionIds};
use crate::rtp::packet::{Extensions, FIXED_HEADER};

/// Room for every extension we pass or write at its longest: 12 fixed, 4 head, a 255-byte dependency descriptor, the
/// others, and the two-byte element heads.
pub const MAX_HEADER: usize = 400;

/// The fixed fields of an outgoing header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Marker bit.
    pub marker: bool,
    /// Payload type as the far end knows it.
    pub payload_type: PayloadType,
    /// Sequence number as on the wire.
    pub sequence: u16,
    /// Timestamp as on the wire.
    pub timestamp: u32,
    /// Outgoing RTP stream.
    pub ssrc: Ssrc,
}

/// A header being written, with the places to patch.
#[derive(Clone, Debug)]
pub struct HeaderBuffer {
    bytes: [u8; MAX_HEADER],
    length: usize,
    /// Where the two bytes of the transport-wide sequence number are.
    transport_cc: Option<usize>,
    /// Where the three bytes of the absolute send time are.
    abs_send_time: Option<usize>,
}

impl Default for HeaderBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl HeaderBuffer {
    /// An empty one.
    pub const fn new() -> Self {
        Self { bytes: [0; MAX_HEADER], length: 0, transport_cc: None, abs_send_time: None }
    }

    /// Write a header with these extensions, in this order, all with their negotiated id. Ids of zero and data longer
    /// than 255 bytes are left out, and so is what no longer fits. Gives the header.
    pub fn write<'e>(&mut self, fields: &Fields, extensions: impl Iterator<Item = (u8, &'e [u8])> + Clone) -> &[u8] {
        self.write_with(fields, extensions.map(|(id, data)| (id, data, Patch::Never)))
    }

    /// Write the header of a forwarded packet: extensions of `source` that mean the same to every subscriber are passed
    /// with the subscriber's ids (abs-capture-time, dependency descriptor, orientation, color space, content type,
    /// playout delay); `mid` and the places for [`Self::set_transport_cc`] and [`Self::set_abs_send_time`] are added
    /// where negotiated. Nothing else of the publisher's gets through. Gives the header, not yet patched.
    pub fn forward(
        &mut self,
        fields: &Fields,
        source: Extensions<'_>,
        from: &ExtensionIds,
        to: &ExtensionIds,
        mid: Option<&str>,
    ) -> &[u8] {
        let mid = mid.and_then(|mid| to.mid.map(|id| (id, mid.as_bytes(), Patch::Never)));
        let cc = to.transport_cc.map(|id| (id, &[0u8; 2][..], Patch::TransportCc));
        let send_time = to.abs_send_time.map(|id| (id, &[0u8; 3][..], Patch::AbsSendTime));
        let passed =
            source.filter_map(|(id, data)| renumber(id, from, to).map(|renumbered| (renumbered, data, Patch::Never)));
        self.write_with(fields, mid.into_iter().chain(cc).chain(send_time).chain(passed))
    }

    /// Write the header of a packet that is padding only (RFC 3550, 5.1: the padding bit), with places for
    /// [`Self::set_transport_cc`] and [`Self::set_abs_send_time`], and with `mid`, where negotiated.
    pub fn padding(&mut self, fields: &Fields, to: &ExtensionIds, mid: Option<&str>) -> &[u8] {
        self.forward(fields, Extensions::default(), &ExtensionIds::default(), to, mid);
        self.set_padding();
        self.bytes()
    }

    /// Say that padding follows the payload (RFC 3550, 5.1).
    pub fn set_padding(&mut self) {
        if let Some(first) = self.bytes.first_mut() {
            *first |= 0x20;
        }
    }

    /// Put in the transport-wide sequence number, where there is a place for one.
    pub fn set_transport_cc(&mut self, sequence: u16) {
        if let Some(place) = self.transport_cc.and_then(|at| self.bytes.get_mut(at..at + 2)) {
            place.copy_from_slice(&sequence.to_be_bytes());
        }
    }

    /// Put in the absolute send time, where there is a place for it.
    pub fn set_abs_send_time(&mut self, now: Instant) {
        if let Some(place) = self.abs_send_time.and_then(|at| self.bytes.get_mut(at..at + 3)) {
            place.copy_from_slice(&ext::abs_send_time_at(now));
        }
    }

    /// Whether there is a place for a transport-wide sequence number: only then may one be used up.
    pub const fn has_transport_cc(&self) -> bool {
        self.transport_cc.is_some()
    }

    /// The header as it stands.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn write_with<'e>(
        &mut self,
        fields: &Fields,
        extensions: impl Iterator<Item = (u8, &'e [u8], Patch)> + Clone,
    ) -> &[u8] {
        self.length = 0;
        self.transport_cc = None;
        self.abs_send_time = None;
        let writable = extensions.filter(|(id, data, _)| *id != 0 && data.len() <= 255);
        let two_byte = writable.clone().any(|(id, data, _)| id > 14 || data.is_empty() || data.len() > 16);
        self.push(&[0x80, (u8::from(fields.marker) << 7) | (fields.payload_type.0 & 0x7f)]);
        self.push(&fields.sequence.to_be_bytes());
        self.push(&fields.timestamp.to_be_bytes());
        self.push(&fields.ssrc.0.to_be_bytes());
        let head = self.length;
        for (id, data, patch) in writable {
            self.element(head, two_byte, id, data, patch);
        }
        self.close_block(head, two_byte);
        self.bytes()
    }

    fn element(&mut self, head: usize, two_byte: bool, id: u8, data: &[u8], patch: Patch) {
        let block_head = if self.length == head { 4 } else { 0 };
        let element_head = if two_byte { 2 } else { 1 };
        // Three bytes stay free for padding the block to 32 bits.
        if self.length + block_head + element_head + data.len() + 3 > MAX_HEADER {
            return;
        }
        self.push_zeros(block_head);
        let length = u8::try_from(data.len()).unwrap_or(u8::MAX);
        if two_byte {
            self.push(&[id, length]);
        } else {
            self.push(&[(id << 4) | (length.wrapping_sub(1) & 0x0f)]);
        }
        match patch {
            Patch::TransportCc => self.transport_cc = Some(self.length),
            Patch::AbsSendTime => self.abs_send_time = Some(self.length),
            Patch::Never => {}
        }
        self.push(data);
    }

    fn close_block(&mut self, head: usize, two_byte: bool) {
        if self.length == head {
            return;
        }
        let padding = (4 - self.length % 4) % 4;
        self.push_zeros(padding);
        let words = u16::try_from((self.length - head - 4) / 4).unwrap_or_default().to_be_bytes();
        let profile: [u8; 2] = if two_byte { [0x10, 0x00] } else { [0xbe, 0xde] };
        if let Some(place) = self.bytes.get_mut(head..head + 4) {
            place.copy_from_slice(&[profile[0], profile[1], words[0], words[1]]);
        }
        if let Some(first) = self.bytes.first_mut() {
            *first |= 0x10;
        }
    }

    fn push_zeros(&mut self, count: usize) {
        (0..count).for_each(|_| self.push(&[0]));
    }

    fn push(&mut self, data: &[u8]) {
        let end = self.length + data.len();
        if let Some(place) = self.bytes.get_mut(self.length..end) {
            place.copy_from_slice(data);
            self.length = end;
        }
    }
}

#[derive(Clone, Copy)]
enum Patch {
    Never,
    TransportCc,
    AbsSendTime,
}

/// The subscriber's id of an extension that is passed on, `None` for one that is not.
fn renumber(id: u8, from: &ExtensionIds, to: &ExtensionIds) -> Option<u8> {
    let id = Some(id);
    [
        (from.abs_capture_time, to.abs_capture_time),
        (from.dependency_descriptor, to.dependency_descriptor),
        (from.video_orientation, to.video_orientation),
        (from.color_space, to.color_space),
        (from.video_content_type, to.video_content_type),
        (from.playout_delay, to.playout_delay),
    ]
    .into_iter()
    .find_map(|(theirs, ours)| if theirs == id { ours } else { None })
}

const _: () = assert!(FIXED_HEADER + 4 < MAX_HEADER);

#[cfg(test)]
mod tests;
