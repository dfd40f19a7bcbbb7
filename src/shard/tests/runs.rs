//! How what leaves is put together: runs of one size, and parts of a turn.

use super::*;

/// Two subscribers of a video track that flows.
fn watched() -> Bench {
    let mut bench = Bench::new(3);
    bench.publish(1, 10, track(MediaKind::Video, 500));
    bench.subscribe(2, 10, 20, 9000);
    bench.subscribe(3, 10, 30, 9100);
    bench.send(1, &rtp(VP8, 0, 0, 500, true, &vp8(true, true, 0, b"key")));
    bench.take();
    bench
}

fn part(seq: u16, last: bool, length: usize) -> Vec<u8> {
    rtp(VP8, seq, 3000, 500, last, &vp8(false, seq == 1, 1, &vec![seq as u8; length]))
}

#[test]
fn packets_of_nearly_one_size_leave_in_one_run_with_their_payloads_as_they_were() {
    let mut bench = watched();
    let lengths = [1097, 1100, 1101, 1101, 700];
    let published: Vec<Vec<u8>> = (1..=5).map(|n| part(n, n == 5, lengths[usize::from(n) - 1])).collect();
    published.iter().for_each(|packet| bench.send(1, packet));
    bench.shard.flush(bench.now, &mut bench.out);
    let to_second = bench.out.transmits().filter(|(transmit, _)| transmit.route == route(2));
    assert_eq!(to_second.count(), 1, "one system call");
    let sent = bench.out.datagrams().filter(|(to, _)| *to == route(2)).map(|(_, bytes)| bytes.to_vec());
    let sent: Vec<_> = sent.collect();
    assert_eq!(sent.len(), 5);
    for (sent, published) in sent.iter().zip(&published) {
        let (sent, published) = (PacketView::parse(sent).unwrap(), PacketView::parse(published).unwrap());
        assert_eq!(sent.payload(), published.payload());
        assert_eq!(sent.marker(), published.marker());
    }
    bench.assert_conserved();
}

#[test]
fn a_packet_alone_and_one_much_smaller_than_its_neighbours_get_no_padding() {
    let mut bench = watched();
    bench.send(1, &part(1, true, 500));
    let alone = bench.take();
    assert_eq!(PacketView::parse(rtp_to(&alone, 2)[0]).unwrap().padding(), 0);
    bench.send(1, &part(2, false, 500));
    bench.send(1, &part(3, true, 900));
    let sent = bench.take();
    let padding = rtp_to(&sent, 2).iter().map(|p| PacketView::parse(p).unwrap().padding()).sum::<u8>();
    assert_eq!(padding, 0);
}

#[test]
fn what_arrives_between_two_parts_of_a_turn_joins_the_runs_of_those_still_waiting() {
    let mut bench = watched();
    bench.send(1, &part(1, false, 1000));
    assert!(bench.shard.flush_part(bench.now, 1, &mut bench.out), "the second still waits");
    let first: Vec<_> = bench.out.datagrams().map(|(to, _)| to).collect();
    assert_eq!(first, [route(2)]);
    bench.out.sent();
    bench.send(1, &part(2, true, 1000));
    assert!(bench.shard.flush_part(bench.now, 1, &mut bench.out));
    let runs: Vec<_> = bench.out.transmits().map(|(t, bytes)| (t.route, bytes.len().div_ceil(t.segment))).collect();
    assert_eq!(runs, [(route(3), 2)], "both in one run");
    bench.out.sent();
    assert!(!bench.shard.flush_part(bench.now, 1, &mut bench.out), "nobody is left");
    let last: Vec<_> = bench.out.datagrams().map(|(to, _)| to).collect();
    assert_eq!(last, [route(2)]);
    bench.out.sent();
    assert!(!bench.shard.flush_part(bench.now, 1, &mut bench.out));
    assert!(bench.out.is_quiet());
    bench.assert_conserved();
}

#[test]
fn whoever_is_removed_between_two_parts_gets_nothing_more() {
    let mut bench = watched();
    bench.send(1, &part(1, true, 1000));
    assert!(bench.shard.flush_part(bench.now, 1, &mut bench.out));
    bench.out.sent();
    bench.command(Command::RemoveParticipant { participant: ParticipantId(3) });
    assert!(rtp_to(&bench.take(), 3).is_empty());
    bench.send(1, &part(2, true, 1000));
    assert_eq!(rtp_to(&bench.take(), 2).len(), 1);
    bench.assert_conserved();
}
