//! What control and media rely on: limits that are errors, an order that holds, levels that merge.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use mio::{Poll, Token, Waker};
use tokio::sync::mpsc;

use super::*;
use crate::shard::command::DataChannel;
use crate::shard::event::Event;

fn mailbox() -> (Mailbox, Inbox, Poll) {
    let poll = Poll::new().unwrap();
    let (mailbox, inbox) = Mailbox::new(Waker::new(poll.registry(), Token(0)).unwrap());
    (mailbox, inbox, poll)
}

/// The orders that wait, in short.
fn drain(inbox: &mut Inbox) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(order) = inbox.take() {
        seen.push(match order {
            Order::Command(Command::AddParticipant { participant, .. }) => format!("+{}", participant.0),
            Order::Command(Command::RemoveParticipant { participant }) => format!("-{}", participant.0),
            other => panic!("{other:?}"),
        });
    }
    seen
}

fn add(id: u64) -> Command {
    Command::AddParticipant { room: RoomId(1), participant: ParticipantId(id) }
}

fn remove(id: u64) -> Command {
    Command::RemoveParticipant { participant: ParticipantId(id) }
}

#[test]
fn a_full_mailbox_gives_the_command_back_and_still_takes_removals() {
    let (mailbox, mut inbox, _poll) = mailbox();
    for id in 0..COMMANDS as u64 {
        mailbox.send(add(id)).unwrap();
    }
    let MailboxFull(back) = mailbox.send(add(9_999)).unwrap_err();
    assert!(matches!(*back, Command::AddParticipant { participant: ParticipantId(9_999), .. }));
    mailbox.send(remove(3)).unwrap();
    assert_eq!(mailbox.depth(), COMMANDS + 1);
    let seen = drain(&mut inbox);
    assert_eq!(seen[0], "-3", "a removal does not queue behind joins");
    assert_eq!(seen.last().unwrap(), "-3", "and what was sent before it cannot undo it");
    assert_eq!(seen.len(), COMMANDS + 2);
}

#[test]
fn a_removal_keeps_its_place_between_what_came_before_and_after() {
    let (mailbox, mut inbox, _poll) = mailbox();
    for command in [add(1), remove(1), add(2), add(3), remove(2), remove(3), add(4)] {
        mailbox.send(command).unwrap();
    }
    assert_eq!(drain(&mut inbox), ["-1", "-2", "-3", "+1", "-1", "+2", "+3", "-2", "-3", "+4"]);
    mailbox.send(remove(4)).unwrap();
    assert_eq!(drain(&mut inbox), ["-4"], "with nothing before it, once is enough");
}

#[test]
fn whoever_queues_wakes_a_sleeper() {
    let (mailbox, mut inbox, mut poll) = mailbox();
    let mut events = mio::Events::with_capacity(4);
    mailbox.send(add(1)).unwrap();
    assert!(!inbox.may_sleep(), "something waits");
    drain(&mut inbox);
    assert!(inbox.may_sleep());
    mailbox.send(add(2)).unwrap();
    poll.poll(&mut events, Some(std::time::Duration::from_secs(10))).unwrap();
    assert!(!events.is_empty());
    inbox.awake();
    drain(&mut inbox);
    mailbox.stop();
    assert!(!inbox.may_sleep() && inbox.is_stopped());
}

#[test]
fn the_prefix_of_a_ufrag_names_the_thread() {
    for thread in 0..MAX_THREADS {
        let ufrag: String = ufrag_prefix(thread).unwrap().iter().chain(&['X', 'y']).collect();
        assert_eq!(thread_of_ufrag(ufrag.as_bytes()), Some(thread));
    }
    assert_eq!(ufrag_prefix(MAX_THREADS), None);
    for strange in [&b""[..], b"0", b"A0", b"0+", b":0"] {
        assert_eq!(thread_of_ufrag(strange), None);
    }
}

#[test]
fn when_control_is_slow_edges_wait_in_order_and_levels_merge() {
    let (sender, mut receiver) = mpsc::channel(1);
    let mut reporter = Reporter::new(7, sender);
    let connected = |id| Event::TransportConnected { transport: TransportId(id) };
    for id in 1..=3 {
        reporter.event(connected(id));
    }
    reporter.event(Event::Speakers { room: RoomId(1), levels: vec![(TrackId(1), 0.5), (TrackId(2), 0.4)] });
    assert!(!reporter.flush(), "one fits, the rest waits");
    reporter.event(Event::Speakers { room: RoomId(1), levels: vec![(TrackId(2), 0.9)] });
    reporter.event(Event::Quality { participant: ParticipantId(1), score: 10 });
    reporter.event(Event::Quality { participant: ParticipantId(1), score: 90 });
    reporter.event(connected(4));
    let mut seen = Vec::new();
    loop {
        let all = reporter.flush();
        let Ok((thread, report)) = receiver.try_recv() else { break };
        assert_eq!(thread, 7);
        seen.push(match report {
            Report::Event(Event::TransportConnected { transport }) => transport.0.to_string(),
            Report::Event(Event::Speakers { levels, .. }) => format!("{levels:?}"),
            Report::Event(Event::Quality { score, .. }) => format!("quality {score}"),
            other => panic!("{other:?} {all}"),
        });
    }
    assert_eq!(seen, ["1", "2", "3", "4", "[(TrackId(2), 0.9), (TrackId(1), 0.5)]", "quality 90"]);
}

#[test]
fn lossy_data_is_lost_before_reliable_data_when_control_sleeps() {
    let (sender, _receiver) = mpsc::channel(1);
    let mut reporter = Reporter::new(0, sender);
    let data = |channel| Event::Data { transport: TransportId(1), channel, payload: bytes::Bytes::new() };
    for _ in 0..5_000 {
        reporter.event(data(DataChannel::Lossy));
    }
    let lost = reporter.data_lost();
    assert!(lost > 0);
    for _ in 0..5_000 {
        reporter.event(data(DataChannel::Reliable));
    }
    assert_eq!(reporter.data_lost(), lost);
}
