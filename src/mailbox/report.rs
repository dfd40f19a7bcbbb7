//! What media threads report to control, and the end that keeps order and bounds when control is slow.
//!
//! Edges (a transport connected, a message arrived) keep their order and wait; levels (who speaks, how good a line is,
//! counters) are merged with newer ones of the same key while they wait.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::base::{Bitrate, DowntrackId, ParticipantId, RoomId, Spread, TrackId};
use crate::shard::census::Census;
use crate::shard::command::DataChannel;
use crate::shard::event::{Event, ShardStats};

/// One report of a media thread.
#[derive(Debug)]
pub enum Report {
    /// Something happened on the shard. Never `Event::Stats`: that comes as [`Report::Stats`].
    Event(Event),
    /// Counters of thread and shard, about once a second.
    Stats(Box<ThreadStats>),
    /// Counters of the TURN thread, about once a second. It has no number.
    Turn(Box<crate::turn::Stats>),
    /// The shard panicked and is gone with all its rooms; an empty one runs on the same ports. Everything that was sent
    /// to the thread before may or may not have reached the new one: remove all rooms that were there.
    ShardDied,
}

/// Counters of a media thread since its start, and its shard's since the last [`Report::ShardDied`].
#[derive(Clone, Debug, Default)]
pub struct ThreadStats {
    /// The shard's own.
    pub shard: ShardStats,
    /// How long turns took.
    pub turns: TurnStats,
    /// Copies sent by how long the turn took that sent them: the longest they can have been inside weir, where nothing
    /// holds them back on purpose. Time in the kernel's queue is not in it.
    pub forwarding: Spread,
    /// What the shard holds now.
    pub census: Census,
    /// What each participant publishes now.
    pub published: Vec<(ParticipantId, Bitrate)>,
    /// UDP datagrams received.
    pub datagrams_received: u64,
    /// System calls that received them.
    pub receive_calls: u64,
    /// UDP datagrams handed to the kernel.
    pub datagrams_sent: u64,
    /// System calls that sent them.
    pub send_calls: u64,
    /// Datagrams not sent because the socket's buffer or the device queue was full (EAGAIN, ENOBUFS, ENOMEM).
    pub send_full: u64,
    /// Datagrams not sent for any other reason (unreachable, too large for the path, no such local address).
    pub send_failed: u64,
    /// ICE-TCP connections now.
    pub tcp_connections: u32,
    /// Frames not sent because a connection's queue was full.
    pub tcp_full: u64,
    /// Runs for clients of the TURN service that were lost because its queue was full.
    pub relay_full: u64,
    /// Commands that wait now.
    pub mailbox_depth: u32,
    /// Data messages thrown away because control did not keep up.
    pub data_lost: u64,
    /// Shards that died on this thread.
    pub deaths: u64,
}

/// How long loop turns took from waking to sleeping.
#[derive(Clone, Debug, Default)]
pub struct TurnStats {
    /// Turns by duration: the slot of a turn is the first of [`TurnStats::BOUNDS`] it does not exceed; one more slot
    /// for longer ones.
    pub buckets: [u64; Self::BOUNDS.len() + 1],
    /// All turns.
    pub count: u64,
    /// Time in all turns, nanoseconds.
    pub sum_nanos: u64,
}

impl TurnStats {
    /// Upper bounds of the buckets, microseconds.
    pub const BOUNDS: [u64; 9] = [50, 100, 250, 500, 1_000, 2_500, 5_000, 20_000, 100_000];

    /// Count one turn.
    pub fn add(&mut self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let slot = Self::BOUNDS.iter().position(|bound| nanos <= bound * 1_000).unwrap_or(Self::BOUNDS.len());
        if let Some(bucket) = self.buckets.get_mut(slot) {
            *bucket = bucket.wrapping_add(1);
        }
        self.count = self.count.wrapping_add(1);
        self.sum_nanos = self.sum_nanos.wrapping_add(nanos);
    }
}

/// Waiting edges above which lossy data is thrown away.
const MANY_EDGES: usize = 4_096;
/// Waiting edges above which no data at all is kept. Other edges are bounded by what control asked for.
const TOO_MANY_EDGES: usize = 65_536;

/// The reporting end of one media thread.
#[derive(Debug)]
pub struct Reporter {
    thread: usize,
    channel: mpsc::Sender<(usize, Report)>,
    edges: VecDeque<Report>,
    speakers: BTreeMap<RoomId, BTreeMap<TrackId, f32>>,
    qualities: BTreeMap<ParticipantId, u8>,
    stream_states: BTreeMap<DowntrackId, bool>,
    stats: Option<Box<ThreadStats>>,
    data_lost: u64,
}

impl Reporter {
    /// For the thread of this number.
    pub fn new(thread: usize, channel: mpsc::Sender<(usize, Report)>) -> Self {
        Self {
            thread,
            channel,
            edges: VecDeque::new(),
            speakers: BTreeMap::new(),
            qualities: BTreeMap::new(),
            stream_states: BTreeMap::new(),
            stats: None,
            data_lost: 0,
        }
    }

    /// Take an event; it leaves with the next [`Self::flush`].
    pub fn event(&mut self, event: Event) {
        match event {
            Event::Speakers { room, levels } => self.speakers.entry(room).or_default().extend(levels),
            Event::Quality { participant, score } => {
                self.qualities.insert(participant, score);
            }
            Event::StreamState { downtrack, paused } => {
                self.stream_states.insert(downtrack, paused);
            }
            // The thread takes the shard's counters itself, together with its own.
            Event::Stats(_) => {}
            Event::Data { channel, .. } if self.edges.len() >= limit_of(channel) => self.data_lost += 1,
            edge => self.edges.push_back(Report::Event(edge)),
        }
    }

    /// Replace the counters that wait.
    pub fn stats(&mut self, stats: Box<ThreadStats>) {
        self.stats = Some(stats);
    }

    /// The shard died: levels of it mean nothing any more.
    pub fn shard_died(&mut self) {
        self.speakers.clear();
        self.qualities.clear();
        self.stream_states.clear();
        self.edges.push_back(Report::ShardDied);
    }

    /// Data messages thrown away.
    pub const fn data_lost(&self) -> u64 {
        self.data_lost
    }

    /// Put into the channel what it takes. `false`: something is left for the next turn.
    pub fn flush(&mut self) -> bool {
        while let Some(report) = self.next() {
            match self.channel.try_send((self.thread, report)) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full((_, report))) => {
                    self.put_back(report);
                    return false;
                }
                // Control is gone: the process ends, nobody wants to know.
                Err(mpsc::error::TrySendError::Closed(_)) => self.forget(),
            }
        }
        true
    }

    fn next(&mut self) -> Option<Report> {
        if let Some(edge) = self.edges.pop_front() {
            return Some(edge);
        }
        if let Some((downtrack, paused)) = self.stream_states.pop_first() {
            return Some(Report::Event(Event::StreamState { downtrack, paused }));
        }
        if let Some((room, levels)) = self.speakers.pop_first() {
            let mut levels: Vec<_> = levels.into_iter().collect();
            levels.sort_by(|a, b| b.1.total_cmp(&a.1));
            return Some(Report::Event(Event::Speakers { room, levels }));
        }
        if let Some((participant, score)) = self.qualities.pop_first() {
            return Some(Report::Event(Event::Quality { participant, score }));
        }
        self.stats.take().map(Report::Stats)
    }

    fn put_back(&mut self, report: Report) {
        match report {
            Report::Event(Event::StreamState { downtrack, paused }) => {
                self.stream_states.insert(downtrack, paused);
            }
            Report::Event(Event::Speakers { room, levels }) => {
                self.speakers.insert(room, levels.into_iter().collect());
            }
            Report::Event(Event::Quality { participant, score }) => {
                self.qualities.insert(participant, score);
            }
            Report::Stats(stats) => self.stats = Some(stats),
            // No media thread reports for the TURN thread.
            Report::Turn(_) => {}
            edge @ (Report::Event(_) | Report::ShardDied) => self.edges.push_front(edge),
        }
    }

    fn forget(&mut self) {
        self.edges.clear();
        self.speakers.clear();
        self.qualities.clear();
        self.stream_states.clear();
        self.stats = None;
    }
}

/// How many edges may wait before a message of this channel is thrown away.
const fn limit_of(channel: DataChannel) -> usize {
    match channel {
        DataChannel::Reliable => TOO_MANY_EDGES,
        DataChannel::Lossy | DataChannel::DataTrack => MANY_EDGES,
    }
}
