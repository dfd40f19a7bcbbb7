//! H.264 NAL unit headers (RFC 6184): single units, STAP-A and FU-A, the forms WebRTC uses. Slice data stays unread; it
//! may be encrypted.

use crate::rtp::codec::{Detail, FrameInfo};
use crate::rtp::cursor::Cursor;

const IDR: u8 = 5;
const SPS: u8 = 7;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

pub(super) fn read(payload: &[u8], marker: bool) -> Option<FrameInfo> {
    let mut cursor = Cursor::new(payload);
    let kind = cursor.u8()? & 0x1f;
    let (keyframe, start_of_frame) = match kind {
        1..=23 => (begins_keyframe(kind), true),
        STAP_A => (aggregate_begins_keyframe(cursor)?, true),
        FU_A => {
            let header = cursor.u8()?;
            let start = header & 0x80 != 0;
            (start && begins_keyframe(header & 0x1f), start)
        }
        // Interleaved forms are never negotiated (packetization mode 2); forwarded without knowing more.
        25..=27 | 29 => (false, false),
        _ => return None,
    };
    Some(FrameInfo {
        keyframe,
        start_of_frame,
        end_of_frame: marker,
        spatial: 0,
        temporal: 0,
        temporal_switch: false,
        size: None,
        detail: Detail::None,
    })
}

/// Senders put the parameter sets before each IDR picture, often in a packet of their own: the frame begins there.
const fn begins_keyframe(kind: u8) -> bool {
    matches!(kind, IDR | SPS)
}

fn aggregate_begins_keyframe(mut cursor: Cursor<'_>) -> Option<bool> {
    let mut keyframe = false;
    let mut units = 0;
    while cursor.len() > 0 {
        let length = cursor.u16()?;
        let unit = cursor.take(usize::from(length))?;
        keyframe |= begins_keyframe(unit.first()? & 0x1f);
        units += 1;
    }
    (units > 0).then_some(keyframe)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn keyframe(payload: &[u8]) -> bool {
        read(payload, false).unwrap().keyframe
    }

    #[test]
    fn finds_key_frames_in_all_forms() {
        assert!(keyframe(&[0x65, 0x88]), "single IDR");
        assert!(!keyframe(&[0x41, 0x9a]), "single slice");
        assert!(keyframe(&[0x78, 0, 2, 0x67, 0x42, 0, 1, 0x68]), "STAP-A of SPS and PPS");
        assert!(!keyframe(&[0x78, 0, 2, 0x41, 0x9a, 0, 1, 0x06]), "STAP-A without");
        assert!(keyframe(&[0x7c, 0x85, 0x88]), "first fragment of an IDR");
        assert!(!keyframe(&[0x7c, 0x05, 0x88]), "later fragment of an IDR");
        assert!(!read(&[0x7c, 0x45, 0x88], true).unwrap().start_of_frame);
    }

    #[test]
    fn refuses_what_is_cut_off() {
        for bad in [&[][..], &[0x78], &[0x78, 0], &[0x78, 0, 3, 0x67], &[0x78, 0, 0], &[0x7c], &[0x00, 1], &[0x1e, 1]] {
            assert_eq!(read(bad, false), None, "{bad:?}");
        }
    }
}
