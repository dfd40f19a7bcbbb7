//! Reports are read back by the parser: what arrived, when, and what did not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;

use super::*;
use crate::rtp::rtcp::{Compound, Packet};
use proptest::prelude::*;

const MEDIA: Ssrc = Ssrc(7);

fn ms(millis: u64) -> Instant {
    Instant::from_millis(1_000_000 + millis)
}

/// All reports due at `now`, as (wire sequence number, arrival tick).
fn poll(generator: &mut FeedbackGenerator, now: Instant) -> Vec<Vec<(u16, Option<i64>)>> {
    let mut reports = Vec::new();
    let mut out = Vec::new();
    while generator.poll(now, Ssrc(1), &mut out) {
        assert!(out.len() <= 1200, "{} bytes", out.len());
        let Some(Ok(Packet::TransportCc(feedback))) = Compound::new(&out).next() else { unreachable!("{out:?}") };
        assert_eq!(feedback.media, MEDIA);
        let reference = i64::from(feedback.reference_time) * 256;
        reports.push(feedback.statuses().map(|s| (s.sequence, s.arrival.map(|ticks| reference + ticks))).collect());
        out.clear();
        assert!(reports.len() < 100);
    }
    reports
}

fn tick(now: Instant) -> i64 {
    i64::try_from(now.as_nanos() / TICK_NANOS).unwrap() & 0xffff_ffff
}

#[test]
fn a_sparse_stream_is_reported_after_a_tenth_of_a_second() {
    let mut generator = FeedbackGenerator::new();
    assert_eq!(generator.next_timeout(), None);
    generator.on_packet(ms(0), 65_535, false, MEDIA);
    generator.on_packet(ms(20), 1, false, MEDIA);
    assert_eq!(generator.next_timeout(), Some(ms(100)));
    assert!(poll(&mut generator, ms(99)).is_empty());
    assert_eq!(poll(&mut generator, ms(100)), [[(65_535, Some(tick(ms(0)))), (0, None), (1, Some(tick(ms(20))))]]);
    assert_eq!(generator.next_timeout(), None, "nothing left to say");
}

#[test]
fn the_end_of_a_frame_or_many_packets_report_earlier() {
    let mut generator = FeedbackGenerator::new();
    generator.on_packet(ms(0), 0, true, MEDIA);
    assert_eq!(generator.next_timeout(), Some(ms(50)));
    assert_eq!(poll(&mut generator, ms(50)).len(), 1);
    for sequence in 1..=101 {
        assert!(poll(&mut generator, ms(60)).is_empty());
        generator.on_packet(ms(60), sequence, false, MEDIA);
    }
    assert_eq!(poll(&mut generator, ms(60))[0].len(), 101);
}

#[test]
fn a_late_packet_is_reported_and_a_duplicate_is_not_reported_again() {
    let mut generator = FeedbackGenerator::new();
    for sequence in [10, 11, 13] {
        generator.on_packet(ms(0), sequence, false, MEDIA);
    }
    poll(&mut generator, ms(100));
    generator.on_packet(ms(110), 13, false, MEDIA);
    assert_eq!(generator.next_timeout(), None);
    generator.on_packet(ms(120), 12, false, MEDIA);
    assert_eq!(poll(&mut generator, ms(200)), [[(12, Some(tick(ms(120)))), (13, Some(tick(ms(0))))]]);
}

#[test]
fn a_hostile_jump_costs_little() {
    let mut generator = FeedbackGenerator::new();
    generator.on_packet(ms(0), 0, false, MEDIA);
    generator.on_packet(ms(1), 30_000, false, MEDIA);
    let mut out = Vec::new();
    assert!(generator.poll(ms(100), Ssrc(1), &mut out));
    assert!(out.len() < 40, "{}", out.len());
    assert!(!generator.poll(ms(100), Ssrc(1), &mut out));
}

#[test]
fn numbers_that_start_over_are_followed_after_a_while() {
    let mut generator = FeedbackGenerator::new();
    generator.on_packet(ms(0), 20_000, false, MEDIA);
    poll(&mut generator, ms(100));
    for sequence in 0..60 {
        generator.on_packet(ms(200 + u64::from(sequence)), sequence, false, MEDIA);
    }
    let reports = poll(&mut generator, ms(400));
    assert_eq!(reports[0][0].0, 50, "the first fifty were taken for strays");
    assert_eq!(reports[0].len(), 10);
}

#[test]
fn arrivals_too_far_apart_for_a_delta_go_into_separate_reports() {
    let mut generator = FeedbackGenerator::new();
    generator.on_packet(ms(0), 0, false, MEDIA);
    generator.on_packet(ms(9000), 1, false, MEDIA);
    assert_eq!(poll(&mut generator, ms(9000)), [[(0, Some(tick(ms(0))))], [(1, Some(tick(ms(9000))))]]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn everything_that_arrived_is_reported_with_its_time(
        start: u16,
        packets in proptest::collection::vec((0u16..200, 0u64..30_000), 1..400),
    ) {
        let mut generator = FeedbackGenerator::new();
        let mut arrived = BTreeMap::new();
        let mut reported = BTreeMap::new();
        let mut micros = 0;
        let mut at = Instant::ZERO;
        for (index, (jump, wait)) in packets.iter().enumerate() {
            micros += wait;
            at = ms(0) + Duration::from_micros(micros);
            // A walk with holes and steps back of at most 100.
            let sequence = start.wrapping_add(u16::try_from(index * 3).unwrap()).wrapping_add(*jump);
            generator.on_packet(at, sequence, false, MEDIA);
            arrived.entry(sequence).or_insert_with(|| tick(at));
            for (sequence, arrival) in poll(&mut generator, at).into_iter().flatten() {
                if let Some(arrival) = arrival {
                    reported.insert(sequence, arrival);
                }
            }
        }
        for (sequence, arrival) in poll(&mut generator, at + INTERVAL).into_iter().flatten() {
            if let Some(arrival) = arrival {
                reported.insert(sequence, arrival);
            }
        }
        prop_assert_eq!(reported, arrived);
    }
}
