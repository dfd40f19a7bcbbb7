//! What we write, an independent implementation reads as we meant it, and the other way round.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use bytes::Bytes;
use rtc_rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc_rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc_rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc_rtcp::sender_report::SenderReport;
use rtc_rtcp::source_description::SourceDescription;
use rtc_rtcp::transport_feedbacks::transport_layer_cc::{PacketStatusChunk, SymbolTypeTcc, TransportLayerCc};
use rtc_rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
use rtc_shared::marshal::{Marshal, Unmarshal};
use weir::base::{Instant, PayloadType, Rng, Ssrc};
use weir::cc::feedback::FeedbackGenerator;
use weir::rtp::header::{Fields, HeaderBuffer};
use weir::rtp::ntp::NtpTime;
use weir::rtp::packet::PacketView;
use weir::rtp::rtcp::{Compound, Packet, ReportBlock, SenderInfo, write};

fn theirs<T: Clone + 'static>(bytes: &[u8]) -> T {
    let packets = rtc_rtcp::packet::unmarshal(&mut Bytes::copy_from_slice(bytes)).unwrap();
    packets.iter().find_map(|packet| packet.as_any().downcast_ref::<T>().cloned()).unwrap()
}

#[test]
fn reports_and_requests_mean_the_same_to_others() {
    let block = ReportBlock {
        ssrc: Ssrc(5),
        fraction_lost: 64,
        cumulative_lost: 300,
        highest: 70_000,
        jitter: 12,
        last_sr: 0x1122_3344,
        delay_since_sr: 99,
    };
    let info = SenderInfo { ssrc: Ssrc(1), ntp: NtpTime(0x0102_0304_0506_0708), rtp: 9, packets: 10, octets: 11 };
    let mut bytes = Vec::new();
    write::sender_report(&mut bytes, &info, &[block]);
    let report: SenderReport = theirs(&bytes);
    assert_eq!((report.ssrc, report.ntp_time, report.rtp_time), (1, 0x0102_0304_0506_0708, 9));
    assert_eq!((report.packet_count, report.octet_count), (10, 11));
    let read = report.reports.first().unwrap();
    assert_eq!((read.ssrc, read.fraction_lost, read.total_lost), (5, 64, 300));
    assert_eq!(
        (read.last_sequence_number, read.jitter, read.last_sender_report, read.delay),
        (70_000, 12, 0x1122_3344, 99)
    );

    bytes.clear();
    write::source_description(&mut bytes, Ssrc(7), "participant");
    let description: SourceDescription = theirs(&bytes);
    let chunk = description.chunks.first().unwrap();
    assert_eq!((chunk.source, &chunk.items.first().unwrap().text[..]), (7, &b"participant"[..]));

    bytes.clear();
    let lost = [65_530, 65_535, 0, 9, 10, 500];
    write::nack(&mut bytes, Ssrc(1), Ssrc(2), lost);
    let nack: TransportLayerNack = theirs(&bytes);
    assert_eq!(nack.media_ssrc, 2);
    assert_eq!(nack.nacks.iter().flat_map(|pair| pair.packet_list()).collect::<Vec<u16>>(), lost);

    bytes.clear();
    write::pli(&mut bytes, Ssrc(1), Ssrc(2));
    assert_eq!(theirs::<PictureLossIndication>(&bytes).media_ssrc, 2);

    bytes.clear();
    write::fir(&mut bytes, Ssrc(1), Ssrc(2), 200);
    let fir: FullIntraRequest = theirs(&bytes);
    assert_eq!(fir.fir.iter().map(|entry| (entry.ssrc, entry.sequence_number)).collect::<Vec<_>>(), [(2, 200)]);

    bytes.clear();
    write::remb(&mut bytes, Ssrc(1), 2_500_000, &[Ssrc(2), Ssrc(3)]);
    let remb: ReceiverEstimatedMaximumBitrate = theirs(&bytes);
    assert!((remb.bitrate - 2_500_000.0).abs() < 1.0);
    assert_eq!(remb.ssrcs, [2, 3]);
}

/// Random arrivals with holes, reordering and long waits: both readers find the same packets and the same times.
#[test]
fn transport_wide_feedback_is_read_alike() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let mut generator = FeedbackGenerator::new();
        let mut now = Instant::from_millis(77_777);
        let start = rng.next_u16();
        let mut bytes = Vec::new();
        for step in 0..300u16 {
            let wait = if rng.below(40) == 0 { rng.below(400_000) } else { rng.below(3000) };
            now = now + Duration::from_micros(wait);
            let jitter = u16::try_from(rng.below(1 + seed % 12)).unwrap();
            generator.on_packet(now, start.wrapping_add(step * 2).wrapping_add(jitter), rng.below(9) == 0, Ssrc(4));
            while generator.poll(now, Ssrc(3), &mut bytes) {
                compare(&bytes);
                bytes.clear();
            }
        }
    }
}

fn compare(bytes: &[u8]) {
    let Some(Ok(Packet::TransportCc(ours))) = Compound::new(bytes).next() else { unreachable!("our own report") };
    let theirs: TransportLayerCc = theirs(bytes);
    assert_eq!((theirs.sender_ssrc, theirs.media_ssrc), (3, 4));
    assert_eq!((theirs.base_sequence_number, theirs.packet_status_count), (ours.base, ours.count));
    assert_eq!((theirs.reference_time, theirs.fb_pkt_count), (ours.reference_time, ours.number));
    let symbols = theirs.packet_chunks.iter().flat_map(|chunk| match chunk {
        PacketStatusChunk::RunLengthChunk(run) => vec![run.packet_status_symbol; run.run_length.into()],
        PacketStatusChunk::StatusVectorChunk(vector) => vector.symbol_list.clone(),
    });
    let mut deltas = theirs.recv_deltas.iter();
    let mut micros = 0;
    for (status, symbol) in ours.statuses().zip(symbols.take(ours.count.into())) {
        let arrival = (symbol != SymbolTypeTcc::PacketNotReceived).then(|| {
            micros += deltas.next().unwrap().delta;
            micros / 250
        });
        assert_eq!(status.arrival, arrival, "{status:?}");
    }
    assert!(deltas.next().is_none());
}

#[test]
fn rtp_headers_are_read_alike() {
    let mut rng = Rng::new(5);
    let mut header = HeaderBuffer::new();
    for round in 0..2000u32 {
        // Ids ascend: the other reader keeps one value per id.
        let highest = if round % 2 == 0 { 15 } else { 256 };
        let mut extensions = Vec::new();
        let mut id = 1 + rng.below(4);
        while id < highest && extensions.len() < 6 {
            let length = 1 + rng.below(if round % 2 == 0 { 16 } else { 30 });
            let data: Vec<u8> = (0..length).map(|_| rng.next_u64().to_le_bytes()[0]).collect();
            extensions.push((u8::try_from(id).unwrap(), data));
            id += 1 + rng.below(highest / 6);
        }
        let fields = Fields {
            marker: round % 3 == 0,
            payload_type: PayloadType(96 + (rng.next_u64().to_le_bytes()[0] & 31)),
            sequence: rng.next_u16(),
            timestamp: rng.next_u32(),
            ssrc: Ssrc(rng.next_u32()),
        };
        let mut bytes = header.write(&fields, extensions.iter().map(|(id, data)| (*id, &data[..]))).to_vec();
        bytes.extend_from_slice(b"payload");
        let read = rtc_rtp::packet::Packet::unmarshal(&mut Bytes::copy_from_slice(&bytes)).unwrap();
        assert_eq!((read.header.marker, read.header.payload_type), (fields.marker, fields.payload_type.0));
        assert_eq!((read.header.sequence_number, read.header.timestamp), (fields.sequence, fields.timestamp));
        assert_eq!((read.header.ssrc, &read.payload[..]), (fields.ssrc.0, &b"payload"[..]));
        for (id, data) in &extensions {
            assert_eq!(read.header.get_extension(*id).as_deref(), Some(&data[..]), "id {id}");
        }
        // And back: what they write from it, we read.
        let again = read.marshal().unwrap();
        let view = PacketView::parse(&again).unwrap();
        assert_eq!((view.sequence(), view.ssrc(), view.payload()), (fields.sequence, fields.ssrc, &b"payload"[..]));
        for (id, data) in &extensions {
            assert_eq!(view.extension(*id), Some(&data[..]));
        }
    }
}
