//! AV1 aggregation header (AV1 RTP specification 1.0, 4.4). OBUs stay unread: layers come from the dependency
//! descriptor ([`crate::rtp::dd`]), and without one the stream is forwarded as published.

use crate::rtp::codec::{Detail, FrameInfo};

/// Z: continues an OBU of the packet before.
const CONTINUES: u8 = 0x80;
/// N: first packet of a coded video sequence, a key frame.
const NEW_SEQUENCE: u8 = 0x08;

pub(super) fn read(payload: &[u8], marker: bool) -> Option<FrameInfo> {
    let [header, _, ..] = *payload else { return None };
    let continues = header & CONTINUES != 0;
    if continues && header & NEW_SEQUENCE != 0 {
        // A sequence cannot begin in the middle of an OBU (4.4).
        return None;
    }
    Some(FrameInfo {
        keyframe: header & NEW_SEQUENCE != 0,
        start_of_frame: !continues,
        end_of_frame: marker,
        spatial: 0,
        temporal: 0,
        temporal_switch: false,
        size: None,
        detail: Detail::None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_new_sequence_is_a_key_frame() {
        assert!(read(&[0x18, 0x0a], false).unwrap().keyframe);
        let middle = read(&[0x90, 0x0a], true).unwrap();
        assert!(!middle.keyframe && !middle.start_of_frame && middle.end_of_frame);
        assert_eq!(read(&[0x88, 0x0a], false), None);
        assert_eq!(read(&[0x18], false), None);
        assert_eq!(read(&[], false), None);
    }
}
