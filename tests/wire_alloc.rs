//! Reading, keeping and answering for packets allocates nothing once streams are running.
#![allow(unsafe_code, clippy::unwrap_used, reason = "tests; a counting allocator is the only way to know")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use weir::base::{Instant, PayloadType, Rng, Ssrc};
use weir::cc::feedback::FeedbackGenerator;
use weir::rtp::codec::{Codec, Detail, FrameInfo, vp8};
use weir::rtp::ext::{self, ExtensionIds};
use weir::rtp::header::{Fields, HeaderBuffer};
use weir::rtp::ntp::{NtpTime, WallClock};
use weir::rtp::packet::PacketView;
use weir::rtp::rtcp::{Compound, Packet, write};
use weir::rtp::seq::wire_u16;
use weir::transport::history::{Entry, History, Limits};
use weir::transport::rx::{self, RxStream};
use weir::transport::tx::{self, Sent, TxStream};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is handed to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const IDS: ExtensionIds = ExtensionIds {
    mid: Some(1),
    rid: None,
    repaired_rid: None,
    audio_level: None,
    abs_send_time: Some(2),
    transport_cc: Some(3),
    dependency_descriptor: None,
    abs_capture_time: Some(4),
    playout_delay: None,
    video_orientation: None,
    color_space: None,
    video_content_type: None,
};

/// One received stream, one sent one, and all that is kept of them.
struct Streams {
    rx: RxStream,
    history: History,
    feedback: FeedbackGenerator,
    tx: TxStream,
    header: HeaderBuffer,
    rtcp: Vec<u8>,
    wall: WallClock,
    again: u64,
}

impl Streams {
    /// A packet comes in and goes out; `lost` ones only leave a hole.
    fn packet(&mut self, now: Instant, packet: &[u8], sent_seq: u64) {
        let view = PacketView::parse(packet).unwrap();
        let cc = view.extension(3).and_then(ext::transport_cc).unwrap();
        self.feedback.on_packet(now, cc, view.marker(), view.ssrc());
        let received = self.rx.on_packet(now, view.sequence(), view.timestamp(), packet.len()).unwrap();
        let info = FrameInfo::read(Codec::Vp8, view.payload(), view.marker()).unwrap();
        self.history.insert(&Entry::new(received.seq, now, &view, info)).unwrap();

        let kept = self.history.packet(received.seq).unwrap();
        let fields = Fields {
            marker: kept.marker,
            payload_type: PayloadType(96),
            sequence: wire_u16(sent_seq),
            timestamp: kept.timestamp,
            ssrc: Ssrc(2),
        };
        self.header.forward(&fields, kept.extensions, &IDS, &IDS, Some("1"));
        self.header.set_transport_cc(cc);
        self.header.set_abs_send_time(now);
        let Detail::Vp8(descriptor) = kept.info.detail else { unreachable!() };
        let mut out = [0; vp8::MAX_DESCRIPTOR];
        assert!(descriptor.rewrite(kept.payload, descriptor.numbers(), &mut out).is_some());
        let sent = Sent {
            seq: sent_seq,
            encoding: 0,
            source: received.seq,
            source_timestamp: kept.timestamp,
            timestamp: kept.timestamp,
            vp8: Some(descriptor.numbers()),
            marker: kept.marker,
        };
        self.tx.on_sent(now, &sent, kept.payload.len());
    }

    fn turn(&mut self, now: Instant) {
        self.rtcp.clear();
        let lost = self.rx.poll_nacks(now, None).lost;
        write::nack(&mut self.rtcp, Ssrc(1), Ssrc(2), lost.iter().copied());
        while self.feedback.poll(now, Ssrc(1), &mut self.rtcp) {}
        let block = self.rx.report_block(now).unwrap();
        write::receiver_report(&mut self.rtcp, Ssrc(1), &[block]);
        let info = self.tx.sender_report(now, &self.wall, None).unwrap();
        write::sender_report(&mut self.rtcp, &info, &[]);
        write::source_description(&mut self.rtcp, info.ssrc, "name");
        for packet in Compound::new(&self.rtcp) {
            match packet.unwrap() {
                Packet::Nack { lost, .. } => {
                    // What we miss of the publisher stands for what the subscriber misses of us.
                    for sequence in lost {
                        self.again += u64::from(self.tx.on_nack(now, sequence.wrapping_sub(1), None).is_ok());
                    }
                }
                Packet::ReceiverReport(_, blocks) => {
                    blocks.for_each(|block| self.tx.on_report_block(self.wall.at(now), &block));
                }
                Packet::TransportCc(feedback) => assert!(feedback.statuses().count() > 0),
                _ => {}
            }
        }
    }
}

#[test]
fn running_streams_allocate_nothing() {
    let mut publisher = HeaderBuffer::new();
    let mut streams = Streams {
        rx: RxStream::new(rx::Config { ssrc: Ssrc(1), clock_rate: 90_000, nack: true }),
        history: History::new(Limits::VIDEO),
        feedback: FeedbackGenerator::new(),
        tx: TxStream::new(tx::Config { ssrc: Ssrc(2), clock_rate: 90_000, answerable: 512, first_rtx: 0 }),
        header: HeaderBuffer::new(),
        rtcp: Vec::with_capacity(4096),
        wall: WallClock::new(Instant::ZERO, NtpTime(1 << 60)),
        again: 0,
    };
    let mut rng = Rng::new(1);
    let mut packet = Vec::with_capacity(1500);
    let mut before = 0;
    for index in 0..20_000u64 {
        if index == 2000 {
            before = ALLOCATIONS.get();
        }
        let now = Instant::ZERO + Duration::from_millis(1000 + index * 2);
        // One in fifty is lost, after a quiet beginning.
        if index > 500 && rng.below(50) == 0 {
            continue;
        }
        let fields = Fields {
            marker: index % 10 == 9,
            payload_type: PayloadType(96),
            sequence: wire_u16(index),
            timestamp: u32::try_from(index / 10).unwrap() * 3000,
            ssrc: Ssrc(1),
        };
        let cc = wire_u16(index).to_be_bytes();
        let extensions = [(3u8, &cc[..]), (4, &[7; 8])];
        packet.clear();
        packet.extend_from_slice(publisher.write(&fields, extensions.into_iter()));
        packet.extend_from_slice(&[0x90, 0xe0, 0x92, 0x34, 0x55, 0x40, 0x31, 0, 0]);
        packet.resize(1000, 0xee);
        streams.packet(now, &packet, 100 + index);
        if index % 5 == 0 {
            streams.turn(now);
        }
    }
    let allocated = ALLOCATIONS.get() - before;
    assert!(streams.again > 100, "retransmissions were part of it: {}", streams.again);
    assert_eq!(allocated, 0);
}
