//! What is written is read back by the parser.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::rtp::packet::PacketView;
use proptest::prelude::*;

const FIELDS: Fields = Fields {
    marker: true,
    payload_type: PayloadType(111),
    sequence: 7,
    timestamp: 0x0102_0304,
    ssrc: Ssrc(0xaabb_ccdd),
};

fn extensions<'a>(list: &'a [(u8, &'a [u8])]) -> impl Iterator<Item = (u8, &'a [u8])> + Clone {
    list.iter().copied()
}

#[test]
fn writes_a_bare_header() {
    let mut header = HeaderBuffer::new();
    assert_eq!(
        header.write(&FIELDS, core::iter::empty()),
        [0x80, 0x80 | 111, 0, 7, 1, 2, 3, 4, 0xaa, 0xbb, 0xcc, 0xdd]
    );
}

#[test]
fn writes_one_byte_elements_padded_to_words() {
    let mut header = HeaderBuffer::new();
    let bytes = header.write(&FIELDS, extensions(&[(1, &[9]), (14, &[1, 2, 3])]));
    assert_eq!(bytes[0], 0x90);
    assert_eq!(bytes[12..], [0xbe, 0xde, 0, 2, 0x10, 9, 0xe2, 1, 2, 3, 0, 0]);
}

#[test]
fn changes_to_two_byte_elements_when_one_byte_does_not_do() {
    for list in [&[(15, &[1u8][..])][..], &[(1, &[7; 17])], &[(1, &[])]] {
        let mut header = HeaderBuffer::new();
        let bytes = header.write(&FIELDS, extensions(list)).to_vec();
        assert_eq!(bytes[12..14], [0x10, 0x00], "{list:?}");
        assert_eq!(PacketView::parse(&bytes).unwrap().extensions().collect::<Vec<_>>(), list);
    }
}

#[test]
fn forwards_what_means_the_same_to_everyone_under_the_subscribers_ids() {
    let from = ExtensionIds {
        mid: Some(1),
        audio_level: Some(2),
        abs_capture_time: Some(3),
        transport_cc: Some(4),
        dependency_descriptor: Some(5),
        video_orientation: Some(6),
        ..ExtensionIds::default()
    };
    let to = ExtensionIds {
        mid: Some(9),
        audio_level: Some(8),
        abs_capture_time: Some(7),
        transport_cc: Some(3),
        abs_send_time: Some(2),
        dependency_descriptor: Some(1),
        ..ExtensionIds::default()
    };
    let mut published = HeaderBuffer::new();
    let block = published
        .write(&FIELDS, extensions(&[(1, b"0"), (2, &[5]), (3, &[3; 8]), (4, &[0, 1]), (5, &[5; 20]), (6, &[1])]))
        .to_vec();
    let source = PacketView::parse(&block).unwrap();

    let mut header = HeaderBuffer::new();
    header.forward(&FIELDS, source.extensions(), &from, &to, Some("v1"));
    assert!(header.has_transport_cc());
    header.set_transport_cc(0x1234);
    header.set_abs_send_time(Instant::from_millis(1000));
    let sent = PacketView::parse(header.bytes()).unwrap();
    assert_eq!(sent.extension(9), Some(&b"v1"[..]));
    assert_eq!(sent.extension(3), Some(&[0x12, 0x34][..]));
    assert_eq!(sent.extension(2), Some(&[4, 0, 0][..]));
    assert_eq!(sent.extension(7), Some(&[3; 8][..]));
    assert_eq!(sent.extension(1), Some(&[5; 20][..]));
    assert_eq!(sent.extensions().count(), 5, "no audio level, no orientation the subscriber did not negotiate");
}

#[test]
fn a_header_of_its_own_forgets_the_patches_of_the_one_before() {
    let to = ExtensionIds { transport_cc: Some(3), ..ExtensionIds::default() };
    let mut header = HeaderBuffer::new();
    header.forward(&FIELDS, Extensions::default(), &to, &to, None);
    let plain = header.write(&FIELDS, core::iter::empty()).to_vec();
    header.set_transport_cc(0xffff);
    assert_eq!(header.bytes(), plain);
}

#[test]
fn what_does_not_fit_is_left_out() {
    let long = [7; 255];
    let mut header = HeaderBuffer::new();
    let bytes = header.write(&FIELDS, extensions(&[(1, &long), (2, &long), (3, &[1])])).to_vec();
    let ids: Vec<u8> = PacketView::parse(&bytes).unwrap().extensions().map(|(id, _)| id).collect();
    assert_eq!(ids, [1, 3]);
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        marker: bool, payload_type in 0u8..128, sequence: u16, timestamp: u32, ssrc: u32,
        list in proptest::collection::vec((1u8..=255, proptest::collection::vec(any::<u8>(), 0..30)), 0..8),
    ) {
        let fields = Fields { marker, payload_type: PayloadType(payload_type), sequence, timestamp, ssrc: Ssrc(ssrc) };
        let mut header = HeaderBuffer::new();
        let bytes = header.write(&fields, list.iter().map(|(id, data)| (*id, data.as_slice()))).to_vec();
        let view = PacketView::parse(&bytes).unwrap();
        prop_assert_eq!(view.marker(), marker);
        prop_assert_eq!(view.payload_type(), PayloadType(payload_type));
        prop_assert_eq!((view.sequence(), view.timestamp(), view.ssrc()), (sequence, timestamp, Ssrc(ssrc)));
        let read: Vec<(u8, Vec<u8>)> = view.extensions().map(|(id, data)| (id, data.to_vec())).collect();
        prop_assert_eq!(read, list);
    }
}
