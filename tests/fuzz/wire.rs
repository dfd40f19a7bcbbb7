//! Bodies for RTP, RTCP and what keeps state of them.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "tests; cargo-fuzz targets take the bodies from here")]

use weir::base::{Instant, PayloadType, Ssrc};
use weir::cc::feedback::FeedbackGenerator;
use weir::rtp::codec::{Codec, Detail, FrameInfo, vp8};
use weir::rtp::dd;
use weir::rtp::ext::{self, ExtensionIds};
use weir::rtp::header::{Fields, HeaderBuffer, MAX_HEADER};
use weir::rtp::packet::{self, Extensions, PacketView};
use weir::rtp::rtcp::{Compound, Packet};
use weir::rtp::seq::wire_u16;
use weir::rtp::twcc::Feedback;
use weir::transport::history::{Entry, History, Limits};
use weir::transport::rx::{Config, MAX_MISSING, RxStream};

/// Classification of any datagram.
pub fn demux(data: &[u8]) {
    weir::rtp::demux::classify(data);
}

/// RTP header, extensions and their values; all parts lie inside the packet.
pub fn rtp_packet(data: &[u8]) {
    let header = packet::header_length(data);
    let Ok(view) = PacketView::parse(data) else { return };
    assert_eq!(header, Some(view.payload_range().start));
    assert_eq!(data.get(view.payload_range()), Some(view.payload()));
    assert!(view.csrcs().count() <= 15);
    for (id, value) in view.extensions() {
        assert!(id != 0 && view.extension(id).is_some());
        ext::name(value);
        ext::audio_level(value);
        ext::transport_cc(value);
        ext::abs_send_time(value);
        if let Some(time) = ext::AbsCaptureTime::read(value) {
            let (bytes, length) = time.write();
            assert_eq!(value.get(..length), bytes.get(..length));
        }
    }
    packet::retransmitted(view.payload());
}

/// A header forwarded from any packet parses, and has nothing that was not negotiated.
pub fn rtp_header(data: &[u8]) {
    let Ok(view) = PacketView::parse(data) else { return };
    let from = ExtensionIds {
        abs_capture_time: Some(1),
        dependency_descriptor: Some(3),
        playout_delay: Some(200),
        ..ExtensionIds::default()
    };
    let to = ExtensionIds { mid: Some(4), transport_cc: Some(5), abs_send_time: Some(6), ..from };
    let fields =
        Fields { marker: view.marker(), payload_type: PayloadType(96), sequence: 1, timestamp: 2, ssrc: Ssrc(3) };
    let mut header = HeaderBuffer::new();
    header.forward(&fields, view.extensions(), &from, &to, Some("video"));
    header.set_transport_cc(7);
    header.set_abs_send_time(Instant::from_millis(8));
    assert!(header.bytes().len() <= MAX_HEADER);
    let sent = PacketView::parse(header.bytes()).unwrap();
    assert_eq!(sent.extension(4), Some(&b"video"[..]));
    assert_eq!(sent.extension(5), Some(&[0, 7][..]));
    assert!(sent.extensions().all(|(id, _)| [1, 3, 4, 5, 6, 200].contains(&id)));
}

/// Payload descriptors of all codecs; rewriting VP8 keeps everything but the numbers. First byte: marker.
pub fn codec(data: &[u8]) {
    let Some((first, payload)) = data.split_first() else { return };
    for codec in [Codec::Opus, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264, Codec::H265, Codec::Other] {
        let Ok(info) = FrameInfo::read(codec, payload, first & 1 != 0) else { continue };
        assert!(!info.keyframe || info.start_of_frame);
        match info.detail {
            Detail::Vp8(descriptor) => {
                assert!(usize::from(descriptor.length) < payload.len());
                let mut out = [0; vp8::MAX_DESCRIPTOR];
                let numbers = vp8::Numbers { picture_id: 0x7abc, tl0_picture_index: 1, key_index: 2 };
                let rewritten = descriptor.rewrite(payload, numbers, &mut out).unwrap();
                assert_eq!(vp8::Descriptor::read(rewritten).map(|d| d.length), Some(descriptor.length));
            }
            Detail::Vp9(descriptor) => assert!(usize::from(descriptor.length) < payload.len()),
            Detail::Dependency(_) | Detail::None => {}
        }
    }
}

/// A stream of dependency descriptors, each with its length before it.
pub fn dependency_descriptor(mut data: &[u8]) {
    let mut reader = dd::Reader::new();
    reader.read(data);
    while let Some((length, rest)) = data.split_first() {
        let (descriptor, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        if let Some(frame) = reader.read(descriptor) {
            assert_eq!(frame.switch & !frame.present, 0);
            assert_eq!(frame.discardable & !frame.present, 0);
        }
        data = rest;
    }
}

/// A compound of RTCP packets, everything in it read to the end.
pub fn rtcp(data: &[u8]) {
    let mut errors = 0;
    for packet in Compound::new(data) {
        let Ok(packet) = packet else {
            errors += 1;
            continue;
        };
        match packet {
            Packet::SenderReport(_, blocks) | Packet::ReceiverReport(_, blocks) => assert!(blocks.count() <= 31),
            Packet::Bye(ssrcs) => assert!(ssrcs.count() <= 31),
            Packet::Remb { media, .. } => assert!(media.count() <= 255),
            Packet::Nack { lost, .. } => assert!(lost.count() <= data.len() * 17 / 4),
            Packet::Fir(entries) => assert!(entries.count() <= data.len() / 8),
            Packet::Dlrr(blocks) => assert!(blocks.count() <= data.len() / 12),
            Packet::TransportCc(feedback) => assert_eq!(feedback.statuses().count(), usize::from(feedback.count)),
            Packet::Pli { .. } | Packet::SourceDescription | Packet::ReferenceTime { .. } | Packet::Other { .. } => {}
        }
    }
    assert!(errors <= 1);
}

/// Transport-wide feedback: as many statuses as claimed, in order.
pub fn twcc(data: &[u8]) {
    let Some(feedback) = Feedback::read(Ssrc(1), data) else { return };
    let mut next = feedback.base;
    for status in feedback.statuses() {
        assert_eq!(status.sequence, next);
        next = next.wrapping_add(1);
    }
    assert_eq!(next, feedback.base.wrapping_add(feedback.count));
}

/// Any numbers in any order at any pace, three bytes each: reports stay small, parse, and come to an end.
pub fn twcc_generator(data: &[u8]) {
    let mut generator = FeedbackGenerator::new();
    let mut now = Instant::ZERO;
    let mut out = Vec::new();
    for [high, low, pace] in data.as_chunks::<3>().0 {
        now = now + core::time::Duration::from_millis(u64::from(*pace) * u64::from(pace & 15));
        generator.on_packet(now, u16::from_be_bytes([*high, *low]), pace & 1 != 0, Ssrc(9));
        let mut reports = 0;
        while generator.poll(now, Ssrc(1), &mut out) {
            assert!(out.len() <= 1200);
            assert!(Compound::new(&out).all(|packet| matches!(packet, Ok(Packet::TransportCc(_)))));
            out.clear();
            reports += 1;
            assert!(reports <= 600);
        }
        assert!(generator.next_timeout().is_none_or(|due| due > now));
    }
}

/// Any numbers in any order: unwrapped ones are never given twice, holes stay few.
pub fn rx_stream(data: &[u8]) {
    let mut rx = RxStream::new(Config { ssrc: Ssrc(1), clock_rate: 90_000, nack: true });
    let mut seen = std::collections::BTreeSet::new();
    let mut now = Instant::ZERO;
    for [high, low, pace] in data.as_chunks::<3>().0 {
        now = now + core::time::Duration::from_millis(u64::from(*pace));
        let sequence = u16::from_be_bytes([*high, *low]);
        let received = if pace & 3 == 3 {
            rx.on_recovered(now, sequence)
        } else {
            rx.on_packet(now, sequence, u32::from(sequence) * 3000, 100)
        };
        if let Ok(received) = received {
            assert_eq!(wire_u16(received.seq), sequence);
            assert!(seen.insert(received.seq), "given twice");
        }
        assert!(rx.poll_nacks(now, None).lost.len() <= MAX_MISSING);
        rx.report_block(now);
    }
}

/// Packets of any number and size; what is found is what was put in.
pub fn history(data: &[u8]) {
    let mut history = History::new(Limits { packets: 16, bytes: 2000 });
    for [step, size, extensions] in data.as_chunks::<3>().0 {
        let seq = 1000 + history.highest().unwrap_or_default().saturating_sub(1000) + u64::from(*step);
        let seq = seq.saturating_sub(20);
        let payload = vec![seq.to_le_bytes()[0]; usize::from(*size) * 7];
        let block = vec![*extensions; usize::from(extensions & 0x3c)];
        let entry = Entry {
            seq,
            arrival: Instant::ZERO,
            timestamp: 0,
            marker: false,
            payload_type: PayloadType(96),
            info: FrameInfo::WHOLE,
            extensions: Extensions::new(0xbede, &block),
            payload: &payload,
        };
        if history.insert(&entry).is_ok() {
            let found = history.packet(seq).unwrap();
            assert_eq!((found.payload, found.extensions.block()), (&payload[..], &block[..]));
        }
        for other in seq.saturating_sub(40)..seq + 40 {
            if let Some(found) = history.packet(other) {
                assert!(found.payload.iter().all(|byte| *byte == other.to_le_bytes()[0]));
            }
        }
    }
}
