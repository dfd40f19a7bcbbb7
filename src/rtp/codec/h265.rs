//! H.265 NAL unit headers (RFC 7798): single units, aggregation packets and fragmentation units, without DONL fields
//! (`sprop-max-don-diff` is never negotiated). Slice data stays unread.

use crate::rtp::codec::{Detail, FrameInfo};
use crate::rtp::cursor::Cursor;

const AGGREGATION: u8 = 48;
const FRAGMENTATION: u8 = 49;

pub(super) fn read(payload: &[u8], marker: bool) -> Option<FrameInfo> {
    let mut cursor = Cursor::new(payload);
    let [first, second] = cursor.array()?;
    let kind = (first >> 1) & 0x3f;
    let (keyframe, start_of_frame) = match kind {
        0..=47 => (begins_keyframe(kind), true),
        AGGREGATION => (aggregate_begins_keyframe(cursor)?, true),
        FRAGMENTATION => {
            let header = cursor.u8()?;
            let start = header & 0x80 != 0;
            (start && begins_keyframe(header & 0x3f), start)
        }
        _ => (false, false),
    };
    Some(FrameInfo {
        keyframe,
        start_of_frame,
        end_of_frame: marker,
        spatial: 0,
        // TID is one more than the temporal layer; zero is forbidden (1.1.4).
        temporal: (second & 0x07).checked_sub(1)?,
        temporal_switch: false,
        size: None,
        detail: Detail::None,
    })
}

/// Pictures a decoder can begin with (16 to 21), and the parameter sets before them.
const fn begins_keyframe(kind: u8) -> bool {
    matches!(kind, 16..=21 | 32..=34)
}

fn aggregate_begins_keyframe(mut cursor: Cursor<'_>) -> Option<bool> {
    let mut keyframe = false;
    while cursor.len() > 0 {
        let length = cursor.u16()?;
        let unit = cursor.take(usize::from(length))?;
        keyframe |= begins_keyframe((unit.first()? >> 1) & 0x3f);
    }
    Some(keyframe)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn finds_key_frames_in_all_forms() {
        assert!(read(&[0x26, 0x01, 0xaf], false).unwrap().keyframe, "IDR_W_RADL");
        assert!(!read(&[0x02, 0x01, 0xd0], false).unwrap().keyframe, "trailing picture");
        assert!(read(&[0x60, 0x01, 0, 2, 0x40, 0x01], false).unwrap().keyframe, "aggregate with VPS");
        assert!(read(&[0x62, 0x01, 0x93, 0xaf], false).unwrap().keyframe, "first fragment");
        assert!(!read(&[0x62, 0x01, 0x13, 0xaf], false).unwrap().keyframe, "later fragment");
        assert_eq!(read(&[0x02, 0x03, 0xd0], false).unwrap().temporal, 2);
        assert_eq!(read(&[0x02, 0x00, 0xd0], false), None, "TID zero");
        assert_eq!(read(&[0x60, 0x01, 0, 9, 0x40], false), None);
    }
}
