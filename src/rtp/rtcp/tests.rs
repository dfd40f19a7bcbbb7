//! Packets as browsers send them, byte by byte, and writing against reading.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use proptest::prelude::*;

const BLOCK: ReportBlock = ReportBlock {
    ssrc: Ssrc(0x0a0b_0c0d),
    fraction_lost: 64,
    cumulative_lost: -2,
    highest: 0x0001_0203,
    jitter: 7,
    last_sr: 0x1122_3344,
    delay_since_sr: 65_536,
};
const INFO: SenderInfo =
    SenderInfo { ssrc: Ssrc(1), ntp: NtpTime(0x0102_0304_0506_0708), rtp: 9, packets: 10, octets: 11 };

fn all(bytes: &[u8]) -> Vec<Packet<'_>> {
    Compound::new(bytes).map(Result::unwrap).collect()
}

fn one(bytes: &[u8]) -> Packet<'_> {
    let mut packets = all(bytes);
    assert_eq!(packets.len(), 1);
    packets.remove(0)
}

#[test]
fn reads_a_compound_as_libwebrtc_sends_it() {
    let mut bytes = Vec::new();
    write::sender_report(&mut bytes, &INFO, &[BLOCK]);
    write::source_description(&mut bytes, Ssrc(1), "name");
    write::nack(&mut bytes, Ssrc(1), Ssrc(2), [65_535, 0, 15, 16]);
    write::pli(&mut bytes, Ssrc(1), Ssrc(2));
    let [
        Packet::SenderReport(info, blocks),
        Packet::SourceDescription,
        Packet::Nack { media: Ssrc(2), lost },
        Packet::Pli { media: Ssrc(2) },
    ] = all(&bytes)[..]
    else {
        unreachable!("{bytes:?}")
    };
    assert_eq!(info, INFO);
    assert_eq!(blocks.collect::<Vec<_>>(), [BLOCK]);
    assert_eq!(lost.collect::<Vec<_>>(), [65_535, 0, 15, 16]);
}

#[test]
fn bytes_are_those_of_the_standards() {
    let mut bytes = Vec::new();
    write::nack(&mut bytes, Ssrc(1), Ssrc(2), [10, 11, 26, 27]);
    assert_eq!(bytes, [0x81, 205, 0, 4, 0, 0, 0, 1, 0, 0, 0, 2, 0, 10, 0x80, 0x01, 0, 27, 0, 0]);
    bytes.clear();
    write::fir(&mut bytes, Ssrc(1), Ssrc(2), 5);
    assert_eq!(bytes, [0x84, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 5, 0, 0, 0]);
    bytes.clear();
    write::remb(&mut bytes, Ssrc(1), 2_500_000, &[Ssrc(2)]);
    // 2 500 000 = 156 250 << 4.
    assert_eq!(
        bytes,
        [0x8f, 206, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 1, 0x12, 0x62, 0x5a, 0, 0, 0, 2]
    );
    bytes.clear();
    write::bye(&mut bytes, Ssrc(7));
    assert_eq!(bytes, [0x81, 203, 0, 1, 0, 0, 0, 7]);
    bytes.clear();
    // The list of items must end with a zero even where the name fills the word.
    write::source_description(&mut bytes, Ssrc(7), "ab");
    assert_eq!(bytes, [0x81, 202, 0, 3, 0, 0, 0, 7, 1, 2, b'a', b'b', 0, 0, 0, 0]);
}

#[test]
fn reads_feedback_of_all_kinds() {
    let mut bytes = Vec::new();
    write::receiver_report(&mut bytes, Ssrc(3), &[BLOCK, BLOCK]);
    let Packet::ReceiverReport(Ssrc(3), blocks) = one(&bytes) else { unreachable!() };
    assert_eq!(blocks.count(), 2);

    bytes.clear();
    write::fir(&mut bytes, Ssrc(1), Ssrc(2), 5);
    let Packet::Fir(entries) = one(&bytes) else { unreachable!() };
    assert_eq!(entries.collect::<Vec<_>>(), [(Ssrc(2), 5)]);

    bytes.clear();
    write::bye(&mut bytes, Ssrc(7));
    let Packet::Bye(ssrcs) = one(&bytes) else { unreachable!() };
    assert_eq!(ssrcs.collect::<Vec<_>>(), [Ssrc(7)]);

    bytes.clear();
    write::dlrr(&mut bytes, Ssrc(1), Ssrc(2), NtpTime(0x0000_aaaa_bbbb_0000), 4);
    let Packet::Dlrr(blocks) = one(&bytes) else { unreachable!() };
    assert_eq!(blocks.collect::<Vec<_>>(), [(Ssrc(2), 0xaaaa_bbbb, 4)]);

    let rrtr = [0x80, 207, 0, 4, 0, 0, 0, 9, 4, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8];
    let Packet::ReferenceTime { sender: Ssrc(9), ntp } = one(&rrtr) else { unreachable!() };
    assert_eq!(ntp, NtpTime(0x0102_0304_0506_0708));

    let app = [0x80, 204, 0, 1, 0, 0, 0, 9];
    assert!(matches!(one(&app), Packet::Other { packet_type: 204, .. }));
}

#[test]
fn refuses_what_is_cut_off_or_lies_about_its_length() {
    let mut whole = Vec::new();
    write::sender_report(&mut whole, &INFO, &[BLOCK]);
    for length in 1..whole.len() {
        assert!(Compound::new(&whole[..length]).any(|packet| packet.is_err()), "{length}");
    }
    for bad in [
        &[0x82, 201, 0, 1, 0, 0, 0, 1][..], // two blocks, none there
        &[0x41, 201, 0, 1, 0, 0, 0, 1],     // version
        &[0xa0, 201, 0, 1, 0, 0, 0, 0],     // padding of zero
        &[0xa0, 201, 0, 1, 0, 0, 0, 9],     // padding beyond the packet
        &[0x8f, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 1, 0, 0, 1], // one SSRC, none there
    ] {
        let mut packets = Compound::new(bad);
        assert!(packets.next().unwrap().is_err(), "{bad:?}");
        assert!(packets.next().is_none());
    }
}

#[test]
fn a_datagram_of_tiny_packets_is_read_to_the_limit_only() {
    let many = [0x80, 202, 0, 0].repeat(300);
    assert_eq!(Compound::new(&many).count(), usize::from(MAX_PACKETS));
}

proptest! {
    #[test]
    fn a_nack_says_what_was_lost(first: u16, gaps in proptest::collection::vec(1u16..40, 0..60)) {
        let mut lost = vec![first];
        for gap in gaps {
            lost.push(lost[lost.len() - 1].wrapping_add(gap));
        }
        let mut bytes = Vec::new();
        write::nack(&mut bytes, Ssrc(1), Ssrc(2), lost.iter().copied());
        let Packet::Nack { lost: read, .. } = one(&bytes) else { unreachable!() };
        prop_assert_eq!(read.collect::<Vec<_>>(), lost);
    }

    #[test]
    fn remb_keeps_eighteen_bits(bps: u64) {
        let mut bytes = Vec::new();
        write::remb(&mut bytes, Ssrc(1), bps, &[Ssrc(5)]);
        let Packet::Remb { bps: read, .. } = one(&bytes) else { unreachable!() };
        prop_assert!(read <= bps && bps - read <= bps >> 17);
    }
}
