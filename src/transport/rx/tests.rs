//! Numbering, loss arithmetic, requests for what is missing, and clocks, under virtual time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;

fn ms(millis: u64) -> Instant {
    Instant::from_millis(10_000 + millis)
}

fn stream() -> RxStream {
    RxStream::new(Config { ssrc: Ssrc(1), clock_rate: 90_000, nack: true })
}

/// Feed a packet that is on time.
fn feed(rx: &mut RxStream, now: Instant, sequence: u16) -> Result<Received, DropReason> {
    rx.on_packet(now, sequence, 0, 1000)
}

fn asked(rx: &mut RxStream, now: Instant) -> Vec<u16> {
    rx.poll_nacks(now, Some(Duration::from_millis(40))).lost.to_vec()
}

#[test]
fn numbers_go_on_over_the_wrap_and_duplicates_are_told() {
    let mut rx = stream();
    let first = feed(&mut rx, ms(0), 65_534).unwrap().seq;
    assert_eq!(
        feed(&mut rx, ms(0), 0).unwrap(),
        Received { seq: first + 2, restarted: false, outage: false, newest: true }
    );
    assert_eq!(
        feed(&mut rx, ms(0), 65_535).unwrap(),
        Received { seq: first + 1, restarted: false, outage: false, newest: false }
    );
    assert_eq!(feed(&mut rx, ms(0), 65_535), Err(DropReason::Duplicate));
    assert_eq!(feed(&mut rx, ms(0), 0), Err(DropReason::Duplicate));
}

#[test]
fn a_packet_from_before_the_first_is_taken_once() {
    let mut rx = stream();
    let first = feed(&mut rx, ms(0), 10).unwrap().seq;
    assert_eq!(feed(&mut rx, ms(0), 9).unwrap().seq, first - 1);
    assert_eq!(feed(&mut rx, ms(0), 9), Err(DropReason::Duplicate));
}

#[test]
fn one_stray_number_changes_nothing_but_two_are_a_restart() {
    let mut rx = stream();
    let first = feed(&mut rx, ms(0), 100).unwrap().seq;
    assert_eq!(feed(&mut rx, ms(0), 30_000), Err(DropReason::TooLate));
    assert_eq!(feed(&mut rx, ms(0), 101).unwrap().seq, first + 1);
    for start in [30_000, 5, 60_000] {
        assert_eq!(feed(&mut rx, ms(0), start), Err(DropReason::TooLate));
        let highest = rx.highest().unwrap();
        let received = feed(&mut rx, ms(0), start + 1).unwrap();
        assert!(received.restarted && received.seq > highest, "numbers never go back");
        assert_eq!(wire_u16(received.seq), start + 1);
        assert_eq!(feed(&mut rx, ms(0), start + 2).unwrap().seq, received.seq + 1);
    }
}

#[test]
fn holes_are_asked_for_at_once_then_ever_more_slowly_five_times() {
    let mut rx = stream();
    feed(&mut rx, ms(0), 10).unwrap();
    assert_eq!(rx.next_nack(), None);
    feed(&mut rx, ms(0), 13).unwrap();
    let mut times = Vec::new();
    for now in 0..2000 {
        let round = rx.poll_nacks(ms(now), Some(Duration::from_millis(40)));
        if !round.lost.is_empty() {
            assert_eq!(round.lost, [11, 12]);
            times.push(now);
        }
        if round.given_up > 0 {
            assert_eq!(round.given_up, 2);
            break;
        }
    }
    assert_eq!(times, [0, 40, 90, 153, 232]);
    assert_eq!(rx.next_nack(), None, "given up");
}

#[test]
fn what_arrives_is_not_asked_for() {
    let mut rx = stream();
    for sequence in [10, 14] {
        feed(&mut rx, ms(0), sequence).unwrap();
    }
    feed(&mut rx, ms(1), 12).unwrap();
    assert_eq!(asked(&mut rx, ms(2)), [11, 13]);
    assert!(rx.on_recovered(ms(30), 11).is_ok());
    assert_eq!(rx.on_recovered(ms(30), 11), Err(DropReason::UselessRtx));
    assert_eq!(rx.on_recovered(ms(30), 500), Err(DropReason::UselessRtx), "never heard of");
    assert_eq!(asked(&mut rx, ms(60)), [13]);
}

#[test]
fn more_holes_than_the_queue_holds_ask_for_a_key_frame() {
    let mut rx = stream();
    feed(&mut rx, ms(0), 0).unwrap();
    assert!(!feed(&mut rx, ms(0), 101).unwrap().outage, "a hundred fit");
    assert!(feed(&mut rx, ms(0), 103).unwrap().outage, "one more does not");
    assert!(asked(&mut rx, ms(1)).is_empty());
    assert!(feed(&mut rx, ms(0), 2000).unwrap().outage);
}

#[test]
fn a_stream_that_is_not_asked_never_restarts_for_holes() {
    let mut rx = RxStream::new(Config { ssrc: Ssrc(1), clock_rate: 48_000, nack: false });
    feed(&mut rx, ms(0), 0).unwrap();
    assert!(!feed(&mut rx, ms(0), 500).unwrap().outage);
    assert_eq!(rx.next_nack(), None);
}

#[test]
fn reports_loss_since_the_last_report_and_in_all() {
    let mut rx = stream();
    assert_eq!(rx.report_block(ms(0)), None);
    for sequence in (0..100).filter(|sequence| sequence % 4 != 1) {
        feed(&mut rx, ms(0), sequence).unwrap();
    }
    let block = rx.report_block(ms(0)).unwrap();
    assert_eq!((block.fraction_lost, block.cumulative_lost, wire_u16(block.highest.into())), (64, 25, 99));
    // A retransmission fills the hole but not the report.
    rx.on_recovered(ms(1), 97).unwrap();
    for sequence in 100..110 {
        feed(&mut rx, ms(0), sequence).unwrap();
    }
    let block = rx.report_block(ms(0)).unwrap();
    assert_eq!((block.fraction_lost, block.cumulative_lost), (0, 25));
}

#[test]
fn reports_when_the_last_sender_report_came() {
    let mut rx = stream();
    feed(&mut rx, ms(0), 1).unwrap();
    assert_eq!(rx.report_block(ms(0)).unwrap().last_sr, 0);
    let ntp = NtpTime(0x1111_2222_3333_4444);
    rx.on_sender_report(ms(0), &SenderInfo { ssrc: Ssrc(1), ntp, rtp: 0, packets: 0, octets: 0 });
    let block = rx.report_block(ms(500)).unwrap();
    assert_eq!((block.last_sr, block.delay_since_sr), (0x2222_3333, 32_768));
}

#[test]
fn jitter_follows_rfc_3550() {
    let mut rx = stream();
    // Every packet 10 ms later or earlier than its timestamp says: differences of 10 ms, so jitter nears 10 ms.
    for index in 0..300u32 {
        let late = u64::from(index % 2) * 10;
        rx.on_packet(ms(u64::from(index) * 20 + late), u16::try_from(index).unwrap(), index * 1800, 100).unwrap();
    }
    let jitter = rx.report_block(ms(9000)).unwrap().jitter;
    assert!((880..=900).contains(&jitter), "{jitter}");
}

#[test]
fn a_sender_clock_maps_both_ways() {
    let clock = SenderClock { ntp: NtpTime(5 << 32), rtp: u32::MAX - 10, arrival: ms(0), clock_rate: 90_000 };
    assert_eq!(clock.rtp_at(NtpTime(6 << 32)), 89_989);
    assert_eq!(clock.rtp_at(NtpTime(4 << 32)), u32::MAX - 10 - 90_000);
    assert_eq!(clock.ntp_at(89_989), NtpTime(6 << 32));
}

#[test]
fn the_publishers_distance_follows_the_fastest_report() {
    let wall = WallClock::new(Instant::ZERO, NtpTime::from_unix(Duration::from_secs(1_000_000)));
    let mut clock = PublisherClock::new();
    assert_eq!(clock.theirs(wall.at(ms(0))), None);
    // Their clock is an hour behind; reports take 300, then 20, then 100 ms.
    let theirs = |at: Instant| wall.at(at).plus_nanos(-3_600_000_000_000);
    for (sent, delay) in [(0, 300), (1000, 20), (2000, 100)] {
        let info = SenderInfo { ssrc: Ssrc(1), ntp: theirs(ms(sent)), rtp: 0, packets: 0, octets: 0 };
        clock.on_sender_report(ms(sent + delay), &wall, &info);
    }
    let error = clock.theirs(wall.at(ms(5000))).unwrap().nanos_since(theirs(ms(5000)));
    assert!((-25_000_000..=-20_000_000).contains(&error), "{error}");
    let back = clock.ours(clock.theirs(wall.at(ms(7))).unwrap()).unwrap();
    assert_eq!(back, wall.at(ms(7)));
}
