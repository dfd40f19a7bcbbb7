//! What a room needs to know of a received packet: the facts of its header, its place in its stream and its frame.
//!
//! The shard fills it once per packet, after decryption; every downtrack of the track decides by it. The payload stays
//! in the history of its stream and never comes here.

use crate::base::{Instant, PayloadType};
use crate::rtp::codec::vp8::{Descriptor, Numbers};
use crate::rtp::codec::{Detail, FrameInfo};

/// One received packet, without its payload.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// When it arrived.
    pub arrival: Instant,
    /// Position of its encoding, which is its spatial layer for simulcast.
    pub spatial: u8,
    /// Unwrapped sequence number within the encoding.
    pub seq: u64,
    /// No packet with a higher number came before.
    pub newest: bool,
    /// The numbering of the encoding jumped: what is missing before this packet will never come.
    pub restarted: bool,
    /// RTP timestamp as received.
    pub timestamp: u32,
    /// RTP marker bit.
    pub marker: bool,
    /// Payload type as received.
    pub payload_type: PayloadType,
    /// It carries no media.
    pub padding_only: bool,
    /// Size of the packet in bytes.
    pub size: u16,
    /// Audio level in -dBov (RFC 6464), if said.
    pub audio_level: Option<u8>,
    /// What the payload descriptor says of the frame.
    pub frame: FrameInfo,
}

impl Packet {
    /// The VP8 descriptor, if it is VP8.
    pub const fn vp8(&self) -> Option<Descriptor> {
        match self.frame.detail {
            Detail::Vp8(descriptor) => Some(descriptor),
            _ => None,
        }
    }

    /// The VP8 numbers that must stay continuous, if it is VP8.
    pub fn numbers(&self) -> Option<Numbers> {
        self.vp8().map(|descriptor| descriptor.numbers())
    }

    /// Temporal layer as far as we can leave it out: of codecs whose descriptor says which frames need which.
    pub const fn temporal(&self) -> u8 {
        match self.frame.detail {
            Detail::None => 0,
            Detail::Vp8(_) | Detail::Vp9(_) | Detail::Dependency(_) => self.frame.temporal,
        }
    }
}
