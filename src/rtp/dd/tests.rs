//! Descriptors are written bit by bit here, as the specification's syntax tables list them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;

/// Bits in the order of the syntax tables.
#[derive(Default)]
struct Writer(Vec<bool>);

impl Writer {
    fn put(mut self, value: u32, width: u32) -> Self {
        (0..width).rev().for_each(|bit| self.0.push(value >> bit & 1 == 1));
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0
            .chunks(8)
            .map(|bits| bits.iter().enumerate().fold(0, |byte, (at, bit)| byte | u8::from(*bit) << (7 - at)))
            .collect()
    }
}

/// L1T2: two templates per layer pattern (key, T0, T1), two decode targets, one chain, 640x360.
fn key_descriptor() -> Vec<u8> {
    let mut w = Writer::default().put(0b11, 2).put(10, 6).put(500, 16);
    // Structure present, nothing custom.
    w = w.put(0b10000, 5).put(10, 6).put(1, 5);
    // Layers: key and T0 in the same layer, then T1, then no more.
    w = w.put(0, 2).put(1, 2).put(3, 2);
    // Indications: key switch, switch; T0 required, switch; T1 not present, discardable.
    w = w.put(0b10_10, 4).put(0b11_10, 4).put(0b00_01, 4);
    // References: none; 2; 1.
    w = w.put(0, 1).put(1, 1).put(1, 4).put(0, 1).put(1, 1).put(0, 4).put(0, 1);
    // One chain: ns(3) of 1 is "10"; both targets protected by chain 0: ns(1) takes no bits; chain diffs.
    w = w.put(0b10, 2).put(0, 4).put(2, 4).put(1, 4);
    // Sizes.
    w.put(1, 1).put(639, 16).put(359, 16).bytes()
}

#[test]
fn reads_a_key_frame_and_frames_after_it() {
    let mut reader = Reader::new();
    let key = reader.read(&key_descriptor()).unwrap();
    assert!(key.has_structure && key.start_of_frame && key.end_of_frame && key.is_switch);
    assert_eq!((key.number, key.spatial, key.temporal, key.size), (500, 0, 0, Some((640, 360))));
    assert_eq!((key.present, key.switch, key.discardable, key.active), (0b11, 0b11, 0, 0b11));

    // Mandatory fields alone: first packet of a T1 frame.
    let delta = reader.read(&[0x80 | 12, 0x01, 0xf5]).unwrap();
    assert!(delta.start_of_frame && !delta.end_of_frame && !delta.has_structure);
    assert_eq!((delta.number, delta.temporal, delta.present, delta.discardable), (501, 1, 0b10, 0b10));
    assert_eq!(delta.active, 0b11, "said with the key frame");
}

#[test]
fn a_frame_may_bring_fields_of_its_own() {
    let mut reader = Reader::new();
    reader.read(&key_descriptor()).unwrap();
    let custom = Writer::default()
        .put(0b10, 2)
        .put(11, 6)
        .put(502, 16)
        .put(0b01111, 5)
        .put(0b01, 2) // only the first target is active
        .put(0b10_11, 4) // switch, required
        .put(2, 2)
        .put(17, 8)
        .put(0, 2)
        .put(9, 8) // one chain
        .bytes();
    let frame = reader.read(&custom).unwrap();
    assert_eq!((frame.active, frame.switch, frame.present), (0b01, 0b01, 0b11));
    assert_eq!(reader.read(&[0x80 | 11, 0x01, 0xf7]).unwrap().active, 0b01, "holds until said otherwise");
}

#[test]
fn a_frame_without_its_structure_is_not_read() {
    let mut reader = Reader::new();
    assert_eq!(reader.read(&[0x80 | 12, 0x01, 0xf5]), None);
    reader.read(&key_descriptor()).unwrap();
    assert_eq!(reader.read(&[0x80 | 13, 0x01, 0xf5]), None, "template 13 of 10..=12");
    assert_eq!(reader.read(&[0x80 | 9, 0x01, 0xf5]), None);
}

#[test]
fn what_is_cut_off_is_refused_and_changes_nothing() {
    let whole = key_descriptor();
    for length in 0..whole.len() {
        let mut reader = Reader::new();
        if reader.read(&whole[..length]).is_some() {
            panic!("{length} of {} bytes read", whole.len());
        }
        assert_eq!(reader.read(&[0x80 | 12, 0x01, 0xf5]), None, "{length}");
    }
}

#[test]
fn too_many_templates_end_at_the_limit() {
    // 65 templates in one layer.
    let mut w = Writer::default().put(0b11, 2).put(0, 6).put(1, 16).put(0b10000, 5).put(0, 6).put(0, 5);
    for _ in 0..70 {
        w = w.put(0, 2);
    }
    w = w.put(3, 2);
    for _ in 0..100 {
        w = w.put(0, 8);
    }
    assert_eq!(Reader::new().read(&w.bytes()), None);
}
