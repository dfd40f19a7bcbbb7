//! Reports made by hand after the draft's figures.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;

fn report(base: u16, count: u16, rest: &[u8]) -> Vec<u8> {
    let [b0, b1] = base.to_be_bytes();
    let [c0, c1] = count.to_be_bytes();
    [&[b0, b1, c0, c1, 0, 0, 2, 9][..], rest].concat()
}

fn arrivals(body: &[u8]) -> Vec<(u16, Option<i64>)> {
    let feedback = Feedback::read(Ssrc(1), body).unwrap();
    feedback.statuses().map(|status| (status.sequence, status.arrival)).collect()
}

#[test]
fn reads_runs_and_both_vectors() {
    // Run of 2 small, one-bit vector 1,0 and fill, over the wrap.
    let body = report(65_534, 4, &[0x20, 0x02, 0xa0, 0x00, 4, 8, 12, 0]);
    assert_eq!(arrivals(&body), [(65_534, Some(4)), (65_535, Some(12)), (0, Some(24)), (1, None)]);
    // Two-bit vector: small, large (-2), none, small.
    let body = report(5, 4, &[0xd8, 0x40, 10, 0xff, 0xfe, 3]);
    assert_eq!(arrivals(&body), [(5, Some(10)), (6, Some(8)), (7, None), (8, Some(11))]);
    let feedback = Feedback::read(Ssrc(1), &body).unwrap();
    assert_eq!((feedback.reference_time, feedback.number, feedback.base, feedback.count), (2, 9, 5, 4));
}

#[test]
fn a_last_chunk_longer_than_the_report_is_clipped() {
    let body = report(0, 3, &[0x3f, 0xff, 1, 1, 1]);
    assert_eq!(arrivals(&body).len(), 3);
}

#[test]
fn a_tiny_report_may_claim_many_lost_packets() {
    let mut runs = Vec::new();
    (0..8).for_each(|_| runs.extend_from_slice(&[0x1f, 0xff]));
    let body = report(0, 65_528, &runs);
    let feedback = Feedback::read(Ssrc(1), &body).unwrap();
    assert_eq!(feedback.statuses().filter(|status| status.arrival.is_none()).count(), 65_528);
}

#[test]
fn refuses_what_does_not_add_up() {
    for bad in [
        report(0, 0, &[0x20, 0x01, 1]),       // nothing reported
        report(0, 1, &[]),                    // no chunk
        report(0, 2, &[0x20, 0x01, 1]),       // chunks end early
        report(0, 2, &[0x20, 0x02, 1]),       // a delta is missing
        report(0, 1, &[0x60, 0x01, 1, 1]),    // reserved symbol in a run
        report(0, 1, &[0xf0, 0x00, 1, 1]),    // reserved symbol in a vector
        report(0, 1, &[0x00, 0x00, 0x00, 0]), // runs of nothing
        vec![0, 0, 0, 1, 0, 0, 2],
    ] {
        assert!(Feedback::read(Ssrc(1), &bad).is_none(), "{bad:?}");
    }
}
