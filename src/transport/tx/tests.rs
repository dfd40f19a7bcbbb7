//! What the subscriber is told and given again, under virtual time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;

fn ms(millis: u64) -> Instant {
    Instant::from_millis(10_000 + millis)
}

fn wall() -> WallClock {
    WallClock::new(Instant::ZERO, NtpTime::from_unix(Duration::from_secs(1_700_000_000)))
}

fn stream() -> TxStream {
    TxStream::new(Config { ssrc: Ssrc(9), clock_rate: 90_000, answerable: 64, first_rtx: 65_535 })
}

fn sent(seq: u64) -> Sent {
    Sent { seq, encoding: 1, source: seq + 5000, source_timestamp: 1000, timestamp: 51_000, vp8: None, marker: false }
}

#[test]
fn a_missing_packet_is_sent_again_as_often_as_it_is_asked_for_and_not_at_once() {
    let mut tx = stream();
    let numbers = vp8::Numbers { picture_id: 3, tl0_picture_index: 2, key_index: 1 };
    tx.on_sent(ms(0), &Sent { vp8: Some(numbers), marker: true, ..sent(100) }, 1000);
    let again = tx.on_nack(ms(10), 100, None).unwrap();
    let expected = Retransmit {
        seq: 100,
        encoding: 1,
        source: 5100,
        timestamp: 51_000,
        vp8: Some(numbers),
        marker: true,
        answers: 1,
    };
    assert_eq!(again, expected);
    assert_eq!(tx.on_nack(ms(60), 100, None), Err(DropReason::Duplicate), "a round trip is longer than that");
    for answers in 2..=10 {
        let again = tx.on_nack(ms(10 + u64::from(answers) * 95), 100, None).unwrap();
        assert_eq!(again, Retransmit { answers, ..expected });
    }
    assert_eq!(tx.on_nack(ms(9000), 100, None), Err(DropReason::Duplicate), "ten times");
    assert_eq!((tx.take_rtx(10), tx.take_rtx(10)), (65_535, 65_536), "numbers go on over the wrap");
}

#[test]
fn a_short_round_trip_lets_answers_follow_sooner() {
    let mut tx = stream();
    tx.on_sent(ms(0), &sent(100), 1000);
    let wall = wall();
    let block = ReportBlock {
        ssrc: Ssrc(9),
        fraction_lost: 3,
        cumulative_lost: 4,
        highest: 0,
        jitter: 5,
        last_sr: wall.at(ms(0)).middle(),
        delay_since_sr: ntp::short(Duration::from_millis(500)),
    };
    tx.on_report_block(wall.at(ms(520)), &block);
    let far_end = tx.far_end();
    assert!((19_900..20_100).contains(&far_end.rtt.unwrap().as_micros()));
    assert_eq!((far_end.fraction_lost, far_end.lost, far_end.jitter), (3, 4, 5));
    assert!(tx.on_nack(ms(530), 100, None).is_ok());
    assert!(tx.on_nack(ms(540), 100, None).is_err());
    assert!(tx.on_nack(ms(549), 100, None).is_ok());
    // An answer to a report from the future is no round trip.
    tx.on_report_block(wall.at(ms(0)), &ReportBlock { delay_since_sr: 70_000, ..block });
    assert_eq!(tx.far_end().rtt, far_end.rtt);
}

#[test]
fn what_was_not_sent_or_is_forgotten_is_not_sent_again() {
    let mut tx = stream();
    assert_eq!(tx.on_nack(ms(0), 100, None), Err(DropReason::TooLate));
    for seq in 65_500..65_600 {
        tx.on_sent(ms(0), &sent(seq), 100);
    }
    assert_eq!(tx.on_nack(ms(0), 65_500, None), Err(DropReason::TooLate), "written over");
    assert_eq!(tx.on_nack(ms(0), 64, None), Err(DropReason::TooLate), "ahead of the last");
    assert_eq!(tx.on_nack(ms(0), 63, None).unwrap().seq, 65_599);
    let mut silent = TxStream::new(Config { answerable: 0, ..tx.config });
    silent.on_sent(ms(0), &sent(1), 100);
    assert_eq!(silent.on_nack(ms(0), 1, None), Err(DropReason::TooLate));
}

#[test]
fn retransmissions_keep_to_half_of_the_stream() {
    let mut tx = stream();
    let mut again = 0;
    for seq in 1000..6000 {
        tx.on_sent(ms(seq), &sent(seq), 1000);
        for sequence in seq - 2..=seq {
            if tx.on_nack(ms(seq), u16::try_from(sequence).unwrap(), None).is_ok() {
                tx.take_rtx(1000);
                again += 1000;
            }
        }
    }
    let allowed = 5_000_000 / 2 + BUDGET_BURST + 1000;
    assert!(again <= allowed, "{again}");
    assert!(again > allowed * 9 / 10, "{again}");
}

#[test]
fn a_sender_report_without_the_publishers_goes_on_from_the_last_packet() {
    let mut tx = stream();
    assert_eq!(tx.sender_report(ms(0), &wall(), None), None);
    tx.on_sent(ms(0), &sent(1), 1000);
    tx.on_padding_sent(100);
    let report = tx.sender_report(ms(500), &wall(), None).unwrap();
    assert_eq!((report.ssrc, report.packets, report.octets), (Ssrc(9), 2, 1100));
    assert_eq!((report.ntp, report.rtp), (wall().at(ms(500)), 51_000 + 45_000));
}

#[test]
fn a_publishers_clock_that_was_set_is_not_believed() {
    let wall = wall();
    let mut tx = stream();
    tx.on_sent(ms(0), &sent(1), 1000);
    let mut publisher = PublisherClock::new();
    let info = SenderInfo { ssrc: Ssrc(1), ntp: wall.at(ms(0)), rtp: 1000, packets: 0, octets: 0 };
    publisher.on_sender_report(ms(0), &wall, &info);
    let stale =
        SenderClock { ntp: info.ntp.plus_nanos(-3_600_000_000_000), rtp: 1000, arrival: ms(0), clock_rate: 90_000 };
    assert_eq!(tx.sender_report(ms(100), &wall, Some((&publisher, &stale))).unwrap().rtp, 51_000 + 9000);
    let good = SenderClock { ntp: info.ntp, ..stale };
    assert_eq!(tx.sender_report(ms(100), &wall, Some((&publisher, &good))).unwrap().rtp, 51_000 + 9000);
}

/// Sound and picture captured at one moment are mapped to one moment by the reports of their outgoing streams, though
/// their own reports took different times to arrive and their numbering was moved by different amounts.
#[test]
fn sound_and_picture_stay_together() {
    let wall = wall();
    let mut publisher = PublisherClock::new();
    // Their clock: 77 s behind ours. Captured at `captured` of theirs: audio 5000 units, video 900.
    let theirs = |at: Instant| wall.at(at).plus_nanos(-77_000_000_000);
    let report = |ssrc, rate: u64, at: u64, rtp_at_zero: u32| SenderInfo {
        ssrc: Ssrc(ssrc),
        ntp: theirs(ms(at)),
        rtp: rtp_at_zero + u32::try_from(at * rate / 1000).unwrap(),
        packets: 0,
        octets: 0,
    };
    let audio_sr = report(1, 48_000, 200, 5000);
    let video_sr = report(2, 90_000, 700, 900);
    publisher.on_sender_report(ms(230), &wall, &audio_sr);
    publisher.on_sender_report(ms(850), &wall, &video_sr);
    let clock = |sr: SenderInfo, rate| SenderClock { ntp: sr.ntp, rtp: sr.rtp, arrival: ms(0), clock_rate: rate };

    let mut audio = TxStream::new(Config { clock_rate: 48_000, ..stream().config });
    let mut video = stream();
    let offset = (1_000_000, 7_000_000);
    audio.on_sent(
        ms(1000),
        &Sent { source_timestamp: 5000 + 47_000, timestamp: 5000 + 47_000 + offset.0, ..sent(1) },
        1,
    );
    video.on_sent(ms(1010), &Sent { source_timestamp: 900 + 81_000, timestamp: 900 + 81_000 + offset.1, ..sent(1) }, 1);

    let audio_out = audio.sender_report(ms(2000), &wall, Some((&publisher, &clock(audio_sr, 48_000)))).unwrap();
    let video_out = video.sender_report(ms(2300), &wall, Some((&publisher, &clock(video_sr, 90_000)))).unwrap();
    // Our wall clock at their capture time zero, told by each.
    let zero = |out: SenderInfo, rate: i64, rtp_zero: u32| {
        out.ntp.plus_nanos(-i64::from(out.rtp.wrapping_sub(rtp_zero)) * 1_000_000_000 / rate)
    };
    let audio_zero = zero(audio_out, 48_000, 5000 + offset.0);
    let video_zero = zero(video_out, 90_000, 900 + offset.1);
    let apart = audio_zero.nanos_since(video_zero).abs();
    assert!(apart < 100_000, "{apart} ns apart");
}
