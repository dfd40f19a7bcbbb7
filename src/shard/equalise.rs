//! Packets of nearly one size made of one size, by a few bytes of RTP padding, so that they leave in one system call.
//!
//! Encoders cut a picture into packets that differ by a byte or two, and generic segmentation offload takes datagrams of
//! one size, the last perhaps shorter. A byte of padding costs nothing beside another trip through the kernel's send
//! path, which takes as long as sealing ten packets. Payloads stay as they are: padding is outside of them (RFC 3550,
//! 5.1), and receivers take it off before they look.

use crate::shard::parts::{Copy, Pending};

/// Most padding of one packet, in bytes: what encoders' packets differ by, and the extensions of a picture's first one.
const MOST: u16 = 16;

/// Padding by its length: zeros, and the length in the last byte.
const PADDING: [[u8; MOST as usize]; MOST as usize + 1] = {
    let mut all = [[0; MOST as usize]; MOST as usize + 1];
    let mut length = 1;
    while length <= MOST as usize {
        #[allow(clippy::cast_possible_truncation, reason = "at most 16")]
        {
            all[length][length - 1] = length as u8;
        }
        length += 1;
    }
    all
};

/// Bytes to put behind a payload.
pub(super) fn padding(length: u8) -> &'static [u8] {
    let length = usize::from(length);
    PADDING.get(length).and_then(|bytes| bytes.get(..length)).unwrap_or_default()
}

/// Give the copies of one transport, beginning with `first`, the padding that joins neighbours of one stream into runs.
/// The last of a run needs none: it may be shorter.
pub(super) fn equalise(pending: &mut [Pending], first: u32) {
    let mut begin = Some(first);
    while let Some(at) = begin {
        let Some(group) = Group::from(pending, at) else { return };
        if group.low != group.high {
            group.pad(pending, at);
        }
        begin = group.next;
    }
}

/// Neighbours that can be of one size.
struct Group {
    low: u16,
    high: u16,
    last: u32,
    /// The first copy that does not belong to it.
    next: Option<u32>,
}

impl Group {
    fn from(pending: &[Pending], at: u32) -> Option<Self> {
        let first = pending.get(at as usize)?;
        let mut group = Self { low: first.size, high: first.size, last: at, next: first.next };
        if first.size == 0 {
            return Some(group);
        }
        while let Some((at, copy)) = group.next.and_then(|at| Some((at, pending.get(at as usize)?))) {
            let (low, high) = (group.low.min(copy.size), group.high.max(copy.size));
            if copy.sender != first.sender || copy.copy != Copy::First || high - low > MOST {
                break;
            }
            group = Self { low, high, last: at, next: copy.next };
        }
        Some(group)
    }

    fn pad(&self, pending: &mut [Pending], first: u32) {
        let mut at = first;
        while at != self.last {
            let Some(copy) = pending.get_mut(at as usize) else { return };
            copy.pad = u8::try_from(self.high - copy.size).unwrap_or(0);
            let Some(next) = copy.next else { return };
            at = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_says_its_own_length_in_the_last_byte() {
        for length in 1..=u8::try_from(MOST).unwrap_or(0) {
            let bytes = padding(length);
            assert_eq!((bytes.len(), bytes.last()), (usize::from(length), Some(&length)));
            assert!(bytes.iter().rev().skip(1).all(|byte| *byte == 0));
        }
        assert!(padding(0).is_empty());
    }
}
