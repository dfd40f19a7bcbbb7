//! Descriptors after the examples of RFC 7741, 4.6, and a key frame header after RFC 6386, 9.1.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use proptest::prelude::*;

/// X, S; I, L, T, K; 15-bit picture id 0x1234; TL0PICIDX 0x55; TID 2, Y, KEYIDX 9; key frame 640x480, scaled.
const KEY: [u8; 17] =
    [0x90, 0xf0, 0x92, 0x34, 0x55, 0xa9, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x42, 0xe0, 0x41, 0xff];

#[test]
fn reads_all_fields_and_the_clear_header() {
    let info = read(&KEY, true).unwrap();
    assert!(info.keyframe && info.start_of_frame && info.end_of_frame && info.temporal_switch);
    assert_eq!((info.temporal, info.size), (2, Some((640, 480))));
    let Detail::Vp8(descriptor) = info.detail else { unreachable!("read as VP8") };
    assert_eq!(descriptor.length, 6);
    assert_eq!(descriptor.picture_id, Some(PictureId::Long(0x1234)));
    assert_eq!(descriptor.numbers(), Numbers { picture_id: 0x1234, tl0_picture_index: 0x55, key_index: 9 });
    assert_eq!(descriptor.temporal, Some((2, true)));
}

#[test]
fn tells_delta_frames_and_later_packets() {
    let delta = read(&[0x10, 0x31, 0, 0, 1], false).unwrap();
    assert!(!delta.keyframe && delta.start_of_frame && !delta.end_of_frame);
    let later = read(&[0x00, 0x10, 0, 0], true).unwrap();
    assert!(!later.keyframe && !later.start_of_frame, "the tag is only in the first packet");
    let other_partition = read(&[0x11, 0x10, 0], true).unwrap();
    assert!(!other_partition.keyframe && !other_partition.start_of_frame);
}

#[test]
fn a_short_or_strange_key_frame_has_no_size() {
    assert_eq!(read(&KEY[..15], false).unwrap().size, None);
    let mut strange = KEY;
    strange[9] = 0;
    assert_eq!(read(&strange, false).unwrap().size, None);
}

#[test]
fn refuses_what_is_cut_off() {
    for length in 0..=6 {
        assert_eq!(read(&KEY[..length], false), None, "{length}");
    }
}

#[test]
fn rewrites_numbers_and_nothing_else() {
    let descriptor = Descriptor::read(&KEY).unwrap();
    let mut out = [0; MAX_DESCRIPTOR];
    let numbers = Numbers { picture_id: 0xffff, tl0_picture_index: 1, key_index: 0xff };
    assert_eq!(descriptor.rewrite(&KEY, numbers, &mut out), Some(&[0x90, 0xf0, 0xff, 0xff, 0x01, 0xbf][..]));
    // Seven-bit picture id, nothing else.
    let short = [0x90, 0x80, 0x12, 0];
    let descriptor = Descriptor::read(&short).unwrap();
    let numbers = Numbers { picture_id: 0x1ff, ..numbers };
    assert_eq!(descriptor.rewrite(&short, numbers, &mut out), Some(&[0x90, 0x80, 0x7f][..]));
    // No numbers at all.
    let bare = [0x10, 0];
    assert_eq!(Descriptor::read(&bare).unwrap().rewrite(&bare, numbers, &mut out), Some(&[0x10][..]));
}

proptest! {
    #[test]
    fn rewriting_with_its_own_numbers_changes_nothing(payload in proptest::collection::vec(any::<u8>(), 1..20)) {
        if let Some(descriptor) = Descriptor::read(&payload) {
            let mut out = [0; MAX_DESCRIPTOR];
            let length = usize::from(descriptor.length);
            let rewritten = descriptor.rewrite(&payload, descriptor.numbers(), &mut out);
            prop_assert_eq!(rewritten, Some(&payload[..length]));
        }
    }

    #[test]
    fn what_is_rewritten_is_read_back(
        payload in proptest::collection::vec(any::<u8>(), 1..20), picture_id: u16, tl0: u8, key in 0u8..32,
    ) {
        if let Some(descriptor) = Descriptor::read(&payload) {
            let mut out = [0; MAX_DESCRIPTOR];
            let numbers = Numbers { picture_id, tl0_picture_index: tl0, key_index: key };
            let again = Descriptor::read(descriptor.rewrite(&payload, numbers, &mut out).unwrap()).unwrap();
            prop_assert_eq!(again.length, descriptor.length);
            prop_assert_eq!(again.temporal, descriptor.temporal);
            if let Some(id) = again.picture_id {
                prop_assert_eq!(id.value(), picture_id & id.mask());
            }
            prop_assert_eq!(again.tl0_picture_index, descriptor.tl0_picture_index.map(|_| tl0));
            prop_assert_eq!(again.key_index, descriptor.key_index.map(|_| key));
        }
    }
}
