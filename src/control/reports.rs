//! Carries what the media threads report to the rooms it is about. One task, no state but the table of rooms.
//!
//! It never waits for a room: one that does not keep up loses data messages first; when not even edges fit any more, its
//! channel is closed, which the room takes for the loss of its media and sends everybody away to come back.

use std::collections::BTreeMap;
use std::sync::Arc;

use signalling::media::{MediaEvent, ParticipantId};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::bridge;
use super::metrics::Metrics;
use crate::mailbox::{Mailbox, Report, ThreadStats};
use crate::media::clock::unix_now;
use crate::shard::command::Command;
use crate::shard::event::Event;

/// What a room task hears of the media plane.
#[derive(Debug)]
pub(super) enum MediaInput {
    /// Something happened.
    Event(MediaEvent),
    /// This media thread lost all it had.
    Lost(usize),
    /// What participants publish now, bit/s, about once a second.
    Rates(Vec<(ParticipantId, u64)>),
}

/// A room came or went.
#[derive(Debug)]
pub(super) enum RouteChange {
    /// Reports about this room go there.
    Add { number: u64, to: mpsc::Sender<MediaInput> },
    /// No more.
    Remove { number: u64 },
}

/// Share of a room's channel that only edges may use; levels and data stop before.
const RESERVED_FOR_EDGES: usize = 4;

/// The routing task.
pub(super) struct Reports {
    pub(super) reports: mpsc::Receiver<(usize, Report)>,
    pub(super) changes: mpsc::Receiver<RouteChange>,
    /// By thread number: to give back the window of data messages that are thrown away.
    pub(super) mailboxes: Vec<Mailbox>,
    pub(super) metrics: Arc<Metrics>,
    /// Rooms are to know what their participants publish.
    pub(super) wants_rates: bool,
}

impl Reports {
    /// Until the media threads or the registry are gone.
    pub(super) async fn run(mut self) {
        let mut rooms: BTreeMap<u64, mpsc::Sender<MediaInput>> = BTreeMap::new();
        let mut last = vec![ThreadStats::default(); self.mailboxes.len()];
        loop {
            tokio::select! {
                // Changes first: a room is announced before it can cause a report.
                biased;
                change = self.changes.recv() => match change {
                    Some(RouteChange::Add { number, to }) => { rooms.insert(number, to); }
                    Some(RouteChange::Remove { number }) => { rooms.remove(&number); }
                    None => return,
                },
                report = self.reports.recv() => match report {
                    Some((thread, Report::Event(event))) => self.route(&mut rooms, thread, event),
                    Some((thread, Report::Stats(stats))) => {
                        self.metrics.fold(&mut last, thread, &stats);
                        self.metrics.load.observe(thread, &stats, Instant::now(), unix_now().as_secs());
                        if self.wants_rates {
                            route_rates(&rooms, &stats);
                        }
                    }
                    Some((_, Report::Turn(stats))) => self.metrics.turn.fold(&stats),
                    Some((thread, Report::ShardDied)) => {
                        tracing::error!(thread, "a media thread lost its rooms; their participants are told to reconnect");
                        self.metrics.shard_died(&mut last, thread);
                        // Each room knows whether it was there. One whose channel is full learns it from the channel's end.
                        rooms.retain(|_, to| to.try_send(MediaInput::Lost(thread)).is_ok());
                    }
                    None => return,
                },
            }
        }
    }

    fn route(&self, rooms: &mut BTreeMap<u64, mpsc::Sender<MediaInput>>, thread: usize, event: Event) {
        let Some(number) = bridge::room_of(&event) else { return };
        // A room that has just ended: its last events crossed the end.
        let Some(to) = rooms.get(&number) else { return };
        let crowded = to.capacity() < to.max_capacity() / RESERVED_FOR_EDGES;
        match &event {
            Event::Data { transport, payload, .. } if crowded => {
                self.metrics.data_dropped.inc();
                let taken = Command::DataTaken { transport: *transport, bytes: payload.len() };
                if let Some(mailbox) = self.mailboxes.get(thread) {
                    let _ = mailbox.send(taken);
                }
                return;
            }
            Event::Speakers { .. } | Event::Quality { .. } if crowded => return,
            _ => {}
        }
        let Some(event) = bridge::event(event) else { return };
        if to.try_send(MediaInput::Event(event)).is_err() {
            rooms.remove(&number);
        }
    }
}

/// What participants publish, to the room of each. A room that is behind hears of it the next time.
fn route_rates(rooms: &BTreeMap<u64, mpsc::Sender<MediaInput>>, stats: &ThreadStats) {
    let mut by_room: BTreeMap<u64, Vec<(ParticipantId, u64)>> = BTreeMap::new();
    for (participant, rate) in &stats.published {
        let rates = by_room.entry(bridge::room_of_participant(*participant)).or_default();
        rates.push((ParticipantId(participant.0), rate.as_bps()));
    }
    for (number, rates) in by_room {
        if let Some(to) = rooms.get(&number).filter(|to| to.capacity() > to.max_capacity() / RESERVED_FOR_EDGES) {
            let _ = to.try_send(MediaInput::Rates(rates));
        }
    }
}
