//! Opus (RFC 7587): every packet is a whole frame; the payload stays unread.

use crate::rtp::codec::FrameInfo;

/// An empty payload carries no sound and is malformed.
pub(super) const fn read(payload: &[u8]) -> Option<FrameInfo> {
    if payload.is_empty() { None } else { Some(FrameInfo::WHOLE) }
}
