//! The top of the pure core: all rooms and transports of one media thread, as a value.
//!
//! `handle_*` takes an input and the time and pushes packets and events into an [`outbox::Outbox`] the caller lends.
//! Forwarding has two phases: a datagram is decided upon when it comes in, copies leave at [`Shard::flush`], sorted by
//! transport. Called by the media thread and by simulations; knows no socket and no clock.
//!
//! The parts: [`Shard`] itself finds out whose a datagram is; `ingress` takes RTP in, `bind` finds the encoding of an
//! unknown SSRC, `rtcp` reads and writes reports, `bandwidth` finds out
//! what can be sent, `egress` sends, in packets that `equalise` made fit one run, `commands` obeys
//! control.

mod bandwidth;
mod bind;
pub mod census;
pub mod command;
mod commands;
pub mod config;
pub mod debug;
mod egress;
mod equalise;
pub mod event;
mod ingress;
pub mod outbox;
mod parts;
pub mod relay;
mod rtcp;
mod timers;

pub use config::{Limits, ShardConfig};

use std::collections::{BTreeMap, VecDeque};

use slotmap::SlotMap;

use crate::base::{DowntrackId, DropReason, Instant, ParticipantId, Rng, RoomId, TrackId, TransportId};
use crate::room::{DowntrackKey, Fanout, ParticipantKey, Room, SenderKey};
use crate::rtp::demux::{self, Kind};
use crate::rtp::header::HeaderBuffer;
use crate::rtp::ntp::{NtpTime, WallClock};
use crate::shard::event::{Event, ShardStats};
use crate::shard::outbox::Outbox;
use crate::shard::parts::{Line, Pending, Publication, RoomKey, Sender, Stream, StreamKey};
use crate::shard::timers::{Owner, Scheduled, Timers, shared};
use crate::transport::route::Route;
use crate::transport::{Edges, TransportKey, TransportTable};

/// All rooms and transports of one media thread.
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    rng: Rng,
    wall: WallClock,
    stats: ShardStats,
    ids: Ids,
    rooms: SlotMap<RoomKey, (Room, Scheduled)>,
    lines: SlotMap<TransportKey, Line>,
    table: TransportTable,
    streams: SlotMap<StreamKey, Stream>,
    senders: SlotMap<SenderKey, Sender>,
    publications: BTreeMap<TrackId, Publication>,
    timers: Timers,
    fanout: Fanout,
    pending: Vec<Pending>,
    /// Transports with something pending, in the order of their first copy.
    busy: VecDeque<TransportKey>,
    /// Transports that wait to send data.
    draining: Vec<TransportKey>,
    /// Number of the next flush.
    flushes: u64,
    header: HeaderBuffer,
    /// RTCP being written.
    scratch: Vec<u8>,
}

/// Names of control to keys of ours; looked at on commands only.
#[derive(Debug, Default)]
struct Ids {
    rooms: BTreeMap<RoomId, RoomKey>,
    participants: BTreeMap<ParticipantId, (RoomKey, ParticipantKey)>,
    transports: BTreeMap<TransportId, TransportKey>,
    downtracks: BTreeMap<DowntrackId, (RoomKey, DowntrackKey)>,
}

impl Shard {
    /// An empty shard. `seed` feeds sequence number offsets and the like, never keys.
    pub fn new(config: ShardConfig, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut transport = config.transport.clone();
        transport.max_pending = transport.max_pending.min(config.limits.unconnected_transports);
        Self {
            wall: WallClock::new(Instant::ZERO, NtpTime(config.ntp_at_zero)),
            table: TransportTable::new(&transport, rng.next_u64()),
            config,
            rng,
            stats: ShardStats::default(),
            ids: Ids::default(),
            rooms: SlotMap::with_key(),
            lines: SlotMap::with_key(),
            streams: SlotMap::with_key(),
            senders: SlotMap::with_key(),
            publications: BTreeMap::new(),
            timers: Timers::default(),
            fanout: Fanout::default(),
            pending: Vec::new(),
            busy: VecDeque::new(),
            draining: Vec::new(),
            flushes: 0,
            header: HeaderBuffer::new(),
            scratch: Vec::new(),
        }
    }

    /// Take one datagram (one framed packet on ICE-TCP). It is decrypted in place.
    pub fn handle_datagram(&mut self, now: Instant, route: Route, datagram: &mut [u8], out: &mut Outbox) {
        self.stats.bytes_received = self.stats.bytes_received.wrapping_add(datagram.len() as u64);
        let result = match demux::classify(datagram) {
            Kind::Stun => self.handle_stun(now, route, datagram, out),
            Kind::Dtls => self.handle_dtls(now, route, datagram, out),
            Kind::Rtp => self.handle_rtp(now, route, datagram, out),
            Kind::Rtcp => self.handle_rtcp(now, route, datagram, out),
            Kind::Unknown => Err(DropReason::NotMultiplexed),
        };
        if let Err(reason) = result {
            self.stats.dropped.add(reason);
        }
    }

    /// Do what is due. Call it when [`Self::next_timeout`] has come, or earlier.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) {
        let due = self.timers.take_due(now);
        for (at, owner) in &due {
            match *owner {
                Owner::Transport(key) => {
                    if self.lines.get(key).is_some_and(|line| line.scheduled == Some(*at)) {
                        self.transport_timeout(now, key, out);
                    }
                }
                Owner::Room(key) => {
                    if self.rooms.get(key).is_some_and(|(_, scheduled)| *scheduled == Some(*at)) {
                        self.room_timeout(now, key, out);
                    }
                }
            }
        }
        self.timers.done(due);
    }

    /// When [`Self::handle_timeout`] wants to be called at the latest. Changes with every input.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// An ICE-TCP connection has ended. (One the shard wants closed is in [`Outbox::close_tcp`].)
    pub fn route_closed(&mut self, now: Instant, route: Route, out: &mut Outbox) {
        if let Some(key) = self.table.remove_route(&route)
            && let Some(line) = self.lines.get_mut(key)
        {
            line.transport.forget_route(route);
            self.after_transport(now, key, Edges::NONE, out);
        }
    }

    /// Counters up to now.
    pub const fn stats(&self) -> &ShardStats {
        &self.stats
    }

    fn handle_stun(&mut self, now: Instant, route: Route, packet: &[u8], out: &mut Outbox) -> Result<(), DropReason> {
        let key = self.table.find_stun(packet)?;
        let line = self.lines.get_mut(key).ok_or(DropReason::UnknownRoute)?;
        let checked = line.transport.handle_stun(now, route, packet, out)?;
        if let Some(evicted @ Route::Tcp { connection, .. }) = checked.evicted
            && evicted != route
        {
            out.close_tcp.push(connection);
        }
        if let Some(previous) = self.table.apply(key, &checked)
            && let Some(previous) = self.lines.get_mut(previous)
        {
            previous.transport.forget_route(route);
        }
        self.after_transport(now, key, Edges::NONE, out);
        Ok(())
    }

    fn handle_dtls(&mut self, now: Instant, route: Route, packet: &[u8], out: &mut Outbox) -> Result<(), DropReason> {
        let key = self.table.find(&route).ok_or(DropReason::DtlsRefused)?;
        let line = self.lines.get_mut(key).ok_or(DropReason::UnknownRoute)?;
        let edges = line.transport.handle_dtls(now, route, packet, out)?;
        self.after_transport(now, key, edges, out);
        Ok(())
    }

    /// What every call into a transport may have left: messages, data to send, another time limit, its end.
    fn after_transport(&mut self, now: Instant, key: TransportKey, edges: Edges, out: &mut Outbox) {
        let Some(line) = self.lines.get_mut(key) else { return };
        while let Some((channel, payload)) = line.transport.poll_data() {
            out.events.push(Event::Data { transport: line.id, channel, payload });
        }
        if line.transport.wants_drain() && !line.drains {
            line.drains = true;
            self.draining.push(key);
        }
        if edges.channels_open {
            out.events.push(Event::ChannelsOpen { transport: line.id });
        }
        if edges.connected {
            out.events.push(Event::TransportConnected { transport: line.id });
            self.transport_connected(now, key, out);
        }
        if let Some(reason) = edges.closed {
            self.transport_failed(now, key, reason, out);
            return;
        }
        let Some(line) = self.lines.get_mut(key) else { return };
        let due = line.transport.next_timeout();
        self.timers.schedule(Owner::Transport(key), &mut line.scheduled, due);
    }

    fn transport_timeout(&mut self, now: Instant, key: TransportKey, out: &mut Outbox) {
        let Some(line) = self.lines.get_mut(key) else { return };
        let mut edges = Edges::NONE;
        if line.transport.next_timeout().is_some_and(|due| due <= now) {
            edges = line.transport.handle_timeout(now, out);
        }
        line.scheduled = None;
        self.after_transport(now, key, edges, out);
        self.run_bandwidth(now, key, out);
        self.report(now, key, out);
        let Some(due) = self.transport_due(now, key) else { return };
        if let Some(line) = self.lines.get_mut(key) {
            self.timers.reschedule(now, Owner::Transport(key), &mut line.scheduled, Some(due));
        }
    }

    /// The earliest of all that a transport and its streams wait for.
    fn transport_due(&self, now: Instant, key: TransportKey) -> Option<Instant> {
        let line = self.lines.get(key)?;
        let nacks = line.received.iter().filter(|bound| !bound.rtx);
        let nacks = nacks.filter_map(|bound| self.streams.get(bound.stream)?.rx.next_nack()).min();
        let times = [
            line.transport.next_timeout(),
            line.feedback.next_timeout(),
            Some(line.next_receiver_report),
            line.next_sender_report,
            nacks,
            line.bandwidth.as_deref().filter(|_| line.connected).map(|bandwidth| bandwidth.next_timeout(now)),
        ];
        times.into_iter().flatten().min()
    }

    fn room_timeout(&mut self, now: Instant, key: RoomKey, out: &mut Outbox) {
        if let Some((room, scheduled)) = self.rooms.get_mut(key) {
            *scheduled = None;
            room.handle_timeout(now, &mut out.events);
        }
        self.after_room(now, key, out);
    }

    /// What every call into a room may have left: words for other shards, key frame requests, another time limit.
    fn after_room(&mut self, now: Instant, key: RoomKey, out: &mut Outbox) {
        self.cross(now, key, out);
        self.request_keyframes(key, out);
        if let Some((room, scheduled)) = self.rooms.get_mut(key) {
            let due = room.next_timeout().map(|at| shared(now, at.max(now + core::time::Duration::from_millis(1))));
            self.timers.schedule(Owner::Room(key), scheduled, due);
        }
    }
}

#[cfg(test)]
mod tests;
