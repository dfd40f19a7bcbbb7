//! VP9 payload descriptor (RFC 9628, 4.2). The frame itself may be encrypted and stays unread: key frames and layers
//! are told from the descriptor alone.

use crate::rtp::codec::{Detail, FrameInfo};
use crate::rtp::cursor::Cursor;

/// The payload descriptor, as far as forwarding needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Bytes it takes.
    pub length: u8,
    /// Frame counter, 7 or 15 bits; `None` when the publisher writes none.
    pub picture_id: Option<u16>,
    /// P: refers to earlier pictures.
    pub inter_picture: bool,
    /// D: refers to the layer below in this picture.
    pub inter_layer: bool,
    /// Z: no higher spatial layer refers to this one.
    pub not_for_upper: bool,
    /// U: higher temporal layers may be switched to from here on.
    pub switching_up: bool,
    /// Counter of base-layer frames (non-flexible mode only).
    pub tl0_picture_index: Option<u8>,
}

/// Most reference indices in flexible mode, and most pictures of a group times references, are bounded by the format;
/// spatial layers in a scalability structure are at most 8.
const MAX_REFERENCES: usize = 3;

pub(super) fn read(payload: &[u8], marker: bool) -> Option<FrameInfo> {
    let mut cursor = Cursor::new(payload);
    let flags = cursor.u8()?;
    let bit = |mask: u8| flags & mask != 0;
    let (inter_picture, flexible) = (bit(0x40), bit(0x10));
    let picture_id = if bit(0x80) { Some(picture_id(&mut cursor)?) } else { None };
    let mut descriptor = Descriptor {
        length: 0,
        picture_id,
        inter_picture,
        inter_layer: false,
        not_for_upper: bit(0x01),
        switching_up: false,
        tl0_picture_index: None,
    };
    let (mut temporal, mut spatial) = (0, 0);
    if bit(0x20) {
        let layer = cursor.u8()?;
        temporal = layer >> 5;
        descriptor.switching_up = layer & 0x10 != 0;
        spatial = (layer >> 1) & 0x07;
        descriptor.inter_layer = layer & 0x01 != 0;
        if !flexible {
            descriptor.tl0_picture_index = Some(cursor.u8()?);
        }
    }
    if flexible && inter_picture {
        references(&mut cursor)?;
    }
    let size = if bit(0x02) { scalability_structure(&mut cursor)? } else { None };
    // A descriptor with nothing behind it is malformed.
    if cursor.len() == 0 {
        return None;
    }
    descriptor.length = u8::try_from(payload.len() - cursor.len()).ok()?;
    let start_of_frame = bit(0x08);
    Some(FrameInfo {
        keyframe: start_of_frame && !inter_picture && spatial == 0,
        start_of_frame,
        // E ends a layer frame, the marker ends the picture.
        end_of_frame: bit(0x04) || marker,
        spatial,
        temporal,
        temporal_switch: descriptor.switching_up,
        size,
        detail: Detail::Vp9(descriptor),
    })
}

fn picture_id(cursor: &mut Cursor<'_>) -> Option<u16> {
    let high = cursor.u8()?;
    Some(if high & 0x80 == 0 { u16::from(high) } else { u16::from_be_bytes([high & 0x7f, cursor.u8()?]) })
}

fn references(cursor: &mut Cursor<'_>) -> Option<()> {
    for _ in 0..MAX_REFERENCES {
        if cursor.u8()? & 0x01 == 0 {
            return Some(());
        }
    }
    // A fourth reference is not allowed.
    None
}

/// Skip a scalability structure; gives the size of its largest layer.
fn scalability_structure(cursor: &mut Cursor<'_>) -> Option<Option<(u16, u16)>> {
    let head = cursor.u8()?;
    let mut size = None;
    if head & 0x10 != 0 {
        for _ in 0..=head >> 5 {
            let (width, height) = (cursor.u16()?, cursor.u16()?);
            size = size.max(Some((width, height)));
        }
    }
    if head & 0x08 != 0 {
        for _ in 0..cursor.u8()? {
            let references = (cursor.u8()? >> 2) & 0x03;
            cursor.take(usize::from(references))?;
        }
    }
    Some(size)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    fn descriptor(info: &FrameInfo) -> Descriptor {
        let Detail::Vp9(descriptor) = info.detail else { unreachable!("read as VP9") };
        descriptor
    }

    #[test]
    fn reads_a_key_frame_with_structure() {
        // I, L, B, V; 15-bit picture id 0x1234; T0 S0; TL0PICIDX 7; structure: 2 layers with sizes, 1-picture group.
        let payload = [
            0xaa, 0x92, 0x34, 0x00, 0x07, 0x38, 0x01, 0x40, 0x00, 0xb4, 0x02, 0x80, 0x01, 0x68, 0x01, 0x14, 0x01, 0xee,
        ];
        let info = read(&payload, false).unwrap();
        assert!(info.keyframe && info.start_of_frame && !info.end_of_frame);
        assert_eq!(info.size, Some((640, 360)));
        let descriptor = descriptor(&info);
        assert_eq!(
            (descriptor.picture_id, descriptor.tl0_picture_index, descriptor.length),
            (Some(0x1234), Some(7), 17)
        );
    }

    #[test]
    fn reads_layers_of_a_delta_frame() {
        // I, P, L, B, E; 7-bit picture id; T2, U, S1, D; TL0PICIDX.
        let info = read(&[0xec, 0x05, 0x53, 0x09, 0xee], true).unwrap();
        assert!(!info.keyframe && info.start_of_frame && info.end_of_frame && info.temporal_switch);
        assert_eq!((info.temporal, info.spatial), (2, 1));
        assert!(descriptor(&info).inter_layer);
    }

    #[test]
    fn an_upper_layer_of_a_key_picture_is_no_place_to_begin() {
        let info = read(&[0x28, 0x03, 0x00, 0xee], false).unwrap();
        assert_eq!((info.keyframe, info.spatial), (false, 1));
    }

    #[test]
    fn refuses_what_is_cut_off_or_has_too_many_references() {
        let whole =
            [0xaa, 0x92, 0x34, 0x00, 0x07, 0x38, 0x01, 0x40, 0x00, 0xb4, 0x02, 0x80, 0x01, 0x68, 0x01, 0x14, 0x01];
        for length in 0..=whole.len() {
            assert_eq!(read(&whole[..length], false), None, "{length}");
        }
        assert_eq!(read(&[0x50, 0x03, 0x03, 0x03, 0x02, 0xee], false), None);
        assert!(read(&[0x50, 0x03, 0x03, 0x02, 0xee], false).is_some());
    }
}
