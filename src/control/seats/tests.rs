//! Who goes where, and what each thread is told.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::base::{MediaKind, RoomId};
use crate::mailbox::Mailbox;
use crate::shard::command::DataChannel;
use crate::transport::params::{EncodingParams, ExtensionIds};

/// Seats on some threads that nobody runs.
fn seats(threads: usize, limit: usize) -> Seats {
    let thread = |n: usize| {
        let poll = mio::Poll::new().unwrap();
        let (mailbox, _) = Mailbox::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let load = Arc::new(AtomicUsize::new(0));
        ThreadInfo { mailbox, ufrag_prefix: format!("0{n}"), candidates: vec![format!("candidate:{n}")], load }
    };
    Seats::new(1, (0..threads).map(thread).collect(), 0, limit)
}

impl Seats {
    fn join(&mut self, n: u64, busy: &[f64]) -> (usize, Routed) {
        let chosen = self.choose(busy);
        self.threads[chosen].load.fetch_add(1, Ordering::Relaxed);
        let (room, participant, transport) = (RoomId(1 << 32), ParticipantId(n), TransportId(n));
        let mut routed = self.route(Command::AddParticipant { room, participant });
        routed.extend(self.route(Command::CapBitrate { transport, cap: None }));
        self.transports.insert(transport, (participant, chosen));
        (chosen, routed)
    }

    fn publish(&mut self, n: u64) -> Routed {
        let params = TrackParams {
            kind: MediaKind::Audio,
            screen_share: false,
            always_heard: false,
            mid: String::new(),
            codecs: Vec::new(),
            encodings: vec![EncodingParams { rid: None, ssrc: None, rtx_ssrc: None }],
            extensions: ExtensionIds::default(),
            nack: false,
            muted: false,
        };
        self.route(Command::Publish { transport: TransportId(n), track: TrackId(n), params })
    }
}

fn shown(routed: &Routed) -> Vec<String> {
    let name = |command: &Command| {
        let text = format!("{command:?}");
        text.split([' ', '{']).next().unwrap_or_default().to_owned()
    };
    routed.iter().map(|(thread, command)| format!("{thread} {}", name(command))).collect()
}

#[test]
fn a_small_room_stays_on_one_thread() {
    let mut seats = seats(3, 100);
    for n in 1..=20 {
        assert_eq!(seats.join(n, &[0.5, 0.0, 0.0]).0, 0);
    }
    assert!(!seats.is_spread());
    assert_eq!(shown(&seats.publish(1)), ["0 Publish"], "nothing is mirrored");
}

#[test]
fn a_room_that_makes_its_thread_busy_goes_on_on_another() {
    let mut seats = seats(3, 100);
    for n in 1..=10 {
        seats.join(n, &[0.2, 0.1, 0.0]);
    }
    assert_eq!(seats.join(11, &[0.69, 0.1, 0.0]).0, 1, "one more would make it too busy");
    assert_eq!(seats.join(12, &[0.9, 0.3, 0.0]).0, 1, "and the next goes there too");
    assert_eq!([13, 14].map(|n| seats.join(n, &[0.9, 0.9, 0.0]).0), [1, 1], "a few at least");
    assert_eq!([15, 16, 17, 18].map(|n| seats.join(n, &[0.9, 0.9, 0.0]).0), [2; 4]);
    assert_eq!(seats.join(19, &[0.9, 0.9, 0.9]).0, 1, "where there are the fewest, when all are busy");
}

#[test]
fn a_room_that_is_a_small_part_of_a_busy_thread_stays() {
    let mut seats = seats(2, 100);
    seats.threads[0].load.store(50, Ordering::Relaxed);
    for n in 1..=10 {
        assert_eq!(seats.join(n, &[0.95, 0.0]).0, 0);
    }
}

#[test]
fn a_room_may_be_made_to_spread_or_not_to() {
    let mut forced = seats(2, 1);
    assert_eq!([1, 2, 3, 4].map(|n| forced.join(n, &[0.0, 0.0]).0), [0, 1, 0, 1]);
    let mut never = seats(2, 0);
    assert_eq!([1, 2, 3].map(|n| never.join(n, &[1.0, 0.0]).0), [0, 0, 0]);
}

#[test]
fn what_is_published_is_mirrored_where_the_room_is_and_ends_there_with_its_publisher() {
    let mut seats = seats(3, 1);
    seats.join(1, &[]);
    seats.publish(1);
    let (_, routed) = seats.join(2, &[]);
    assert_eq!(shown(&routed)[..3], ["1 AddRoom", "1 Mirror", "1 AddParticipant"]);
    assert_eq!(shown(&seats.publish(2)), ["1 Publish", "0 Mirror"]);
    assert_eq!(seats.place().unwrap().ufrag_prefix, "01");
    let muted = seats.route(Command::SetMuted { track: TrackId(1), muted: true });
    assert_eq!(shown(&muted), ["0 SetMuted", "1 SetMuted"]);
    let removed = seats.route(Command::RemoveParticipant { participant: ParticipantId(1) });
    assert_eq!(shown(&removed), ["0 RemoveParticipant", "1 Unpublish"]);
    let removed = seats.route(Command::RemoveParticipant { participant: ParticipantId(2) });
    assert_eq!(shown(&removed), ["1 RemoveParticipant", "0 Unpublish", "1 RemoveRoom"]);
    assert!(!seats.is_spread() && seats.tracks.is_empty() && seats.transports.is_empty());
}

#[test]
fn data_goes_to_each_thread_once() {
    let mut seats = seats(2, 2);
    for n in 1..=4 {
        seats.join(n, &[]);
    }
    let (channel, payload) = (DataChannel::Lossy, bytes::Bytes::from_static(b"hello"));
    let transports = [4, 1, 3, 2].map(TransportId).to_vec();
    let routed = seats.route(Command::SendData { transports, channel, payload });
    let to = |at: usize| match &routed[at] {
        (thread, Command::SendData { transports, .. }) => (*thread, transports.clone()),
        other => panic!("{other:?}"),
    };
    assert_eq!(routed.len(), 2);
    assert_eq!(to(0), (0, [1, 2].map(TransportId).to_vec()));
    assert_eq!(to(1), (1, [4, 3].map(TransportId).to_vec()));
}

#[test]
fn the_loss_of_a_thread_concerns_those_on_it() {
    let mut seats = seats(2, 1);
    for n in 1..=2 {
        seats.join(n, &[]);
        seats.publish(n);
    }
    let (routed, gone) = seats.lost(1);
    assert_eq!(gone, [ParticipantId(2)]);
    assert_eq!(shown(&routed), ["0 ForgetShard", "1 AddRoom", "1 Mirror"]);
}
