//! Packets made by hand after RFC 3550, figure in 5.1, and RFC 8285, figures in 4.2 and 4.3.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;

fn packet(first: u8, tail: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, 0x80 | 96, 0x12, 0x34, 0, 0, 0x0e, 0x10, 0xde, 0xad, 0xbe, 0xef];
    bytes.extend_from_slice(tail);
    bytes
}

#[test]
fn reads_the_fixed_header() {
    let bytes = packet(0x80, b"payload");
    let view = PacketView::parse(&bytes).unwrap();
    assert!(view.marker());
    assert_eq!(view.payload_type(), PayloadType(96));
    assert_eq!((view.sequence(), view.timestamp(), view.ssrc()), (0x1234, 3600, Ssrc(0xdead_beef)));
    assert_eq!(view.payload(), b"payload");
    assert_eq!(&bytes[view.payload_range()], b"payload");
    assert_eq!(header_length(&bytes), Some(12));
}

#[test]
fn reads_csrcs_and_one_byte_extensions() {
    // Two sources; id 1 with one byte, padding, id 3 with three bytes, padding.
    let bytes = packet(0x92, &[0, 0, 0, 1, 0, 0, 0, 2, 0xbe, 0xde, 0, 2, 0x10, 0xaa, 0, 0x32, 1, 2, 3, 0, b'p']);
    let view = PacketView::parse(&bytes).unwrap();
    assert_eq!(view.csrcs().collect::<Vec<_>>(), [Ssrc(1), Ssrc(2)]);
    assert_eq!(view.extension(1), Some(&[0xaa][..]));
    assert_eq!(view.extension(3), Some(&[1, 2, 3][..]));
    assert_eq!(view.extension(2), None);
    assert_eq!(view.payload(), b"p");
}

#[test]
fn reads_two_byte_extensions() {
    let bytes = packet(0x90, &[0x10, 0x05, 0, 3, 1, 0, 0, 20, 5, 9, 8, 7, 6, 5, 0, 0, b'p']);
    let view = PacketView::parse(&bytes).unwrap();
    assert_eq!(view.extensions().collect::<Vec<_>>(), [(1, &[][..]), (20, &[9, 8, 7, 6, 5][..])]);
}

#[test]
fn a_broken_element_ends_the_block_but_not_the_packet() {
    for block in [
        &[0xbe, 0xde, 0, 1, 0x13, 1, 2, 3][..], // needs four bytes
        &[0xbe, 0xde, 0, 1, 0xf0, 1, 0x10, 2],  // id 15 ends it
        &[0x10, 0x00, 0, 1, 7, 9, 1, 2],        // needs nine bytes
        &[0x12, 0x34, 0, 1, 0x10, 1, 0x10, 2],  // a profile nobody knows
        &[0x10, 0x00, 0, 1, 0, 0, 0, 7],        // id without length
    ] {
        let bytes = packet(0x90, block);
        let view = PacketView::parse(&bytes).unwrap();
        assert_eq!(view.extensions().count(), 0, "{block:?}");
    }
}

#[test]
fn checks_padding() {
    let bytes = packet(0xa0, &[1, 2, 3, 0, 2]);
    let view = PacketView::parse(&bytes).unwrap();
    assert_eq!((view.payload(), view.padding()), (&[1, 2, 3][..], 2));
    let bytes = packet(0xa0, &[0, 0, 3]);
    let view = PacketView::parse(&bytes).unwrap();
    assert!(view.is_padding_only());
    for bad in [&[1, 2, 0][..], &[1, 2, 4], &[]] {
        assert_eq!(PacketView::parse(&packet(0xa0, bad)).err(), Some(DropReason::MalformedRtp), "{bad:?}");
    }
}

#[test]
fn refuses_what_is_cut_off_or_of_another_version() {
    let whole = packet(0x91, &[0, 0, 0, 1, 0xbe, 0xde, 0, 1, 0x10, 1, 0, 0]);
    for length in 0..whole.len() {
        assert!(PacketView::parse(&whole[..length]).is_err(), "{length}");
    }
    assert!(PacketView::parse(&whole).unwrap().is_padding_only());
    assert!(PacketView::parse(&packet(0x40, b"x")).is_err());
    assert_eq!(header_length(&packet(0x40, b"x")), None);
}

#[test]
fn reads_the_original_out_of_a_retransmission() {
    assert_eq!(retransmitted(&[0x01, 0x02, 9]), Some((0x0102, &[9][..])));
    assert_eq!(retransmitted(&[0x01, 0x02]), None);
    assert_eq!(retransmitted(&[0x01]), None);
}
