//! RTP in: open, find the stream, account for it, keep it in the history, let the room decide.
//!
//! Nothing is sent here. Decisions become [`Pending`] copies, which [`super::egress`] sends at the next flush.

use crate::base::{DropReason, Instant, PayloadType};
use crate::room::TrackKey;
use crate::room::packet::Packet;
use crate::rtp::codec::{Codec, FrameInfo};
use crate::rtp::ext;
use crate::rtp::packet::{PacketView, retransmitted};
use crate::shard::Shard;
use crate::shard::outbox::Outbox;
use crate::shard::parts::{Bound, Copy, Pending, RoomKey, Stream, StreamKey};
use crate::shard::timers::{Owner, shared};
use crate::transport::TransportKey;
use crate::transport::history::Entry;
use crate::transport::route::Route;
use crate::transport::rx::Received;

impl Shard {
    pub(super) fn handle_rtp(
        &mut self,
        now: Instant,
        route: Route,
        datagram: &mut [u8],
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        let key = self.table.find(&route).ok_or(DropReason::UnknownRoute)?;
        let line = self.lines.get_mut(key).ok_or(DropReason::UnknownRoute)?;
        let opened = line.transport.open_rtp(now, datagram)?;
        line.transport.arrived_by(now, route);
        let packet = datagram.get(..opened.len).ok_or(DropReason::Bug)?;
        let view = PacketView::parse(packet)?;
        self.stats.rtp_received = self.stats.rtp_received.wrapping_add(1);
        if let Some(data) = line.extensions.transport_cc.and_then(|id| view.extension(id))
            && let Some(sequence) = ext::transport_cc(data)
        {
            line.feedback.on_packet(now, sequence, view.marker(), view.ssrc());
            let due = line.feedback.next_timeout();
            self.timers.schedule(Owner::Transport(key), &mut line.scheduled, due);
        }
        let bound = match line.bound(view.ssrc()) {
            Some(bound) => bound,
            None => self.bind(now, key, &view)?,
        };
        self.take_in(now, key, bound, &view, packet.len(), out)
    }

    fn take_in(
        &mut self,
        now: Instant,
        key: TransportKey,
        bound: Bound,
        view: &PacketView<'_>,
        size: usize,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        let stream = self.streams.get_mut(bound.stream).ok_or(DropReason::Bug)?;
        let arrived = if bound.rtx { stream.recovered(now, view)? } else { stream.arrived(now, view, size)? };
        if bound.rtx {
            self.stats.rtx_received = self.stats.rtx_received.wrapping_add(1);
        }
        let due = stream.rx.next_nack();
        if due.is_some()
            && let Some(line) = self.lines.get_mut(key)
        {
            self.timers.schedule(Owner::Transport(key), &mut line.scheduled, due);
        }
        let entry = Entry {
            payload_type: arrived.payload_type,
            payload: arrived.payload,
            ..Entry::new(arrived.received.seq, now, view, arrived.info)
        };
        self.keep(now, bound.stream, size, &entry, out)?;
        let Some(stream) = self.streams.get_mut(bound.stream) else { return Err(DropReason::Bug) };
        let packet = Packet {
            arrival: now,
            spatial: stream.spatial,
            seq: arrived.received.seq,
            newest: arrived.received.newest,
            restarted: arrived.received.restarted || core::mem::take(&mut stream.fresh),
            timestamp: view.timestamp(),
            marker: view.marker(),
            payload_type: arrived.payload_type,
            padding_only: arrived.payload.is_empty(),
            size: u16::try_from(size).unwrap_or(u16::MAX),
            audio_level: stream.audio_level(view),
            frame: arrived.info,
        };
        let (room, track) = (stream.room, stream.track);
        let decided = self.decide(now, bound.stream, &packet, &entry, out);
        if arrived.received.outage {
            self.outage(now, room, track, packet.spatial, out);
        }
        decided
    }

    /// Keep a packet for the end of the turn and for retransmission.
    pub(super) fn keep(
        &mut self,
        now: Instant,
        key: StreamKey,
        size: usize,
        entry: &Entry<'_>,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        let stream = self.streams.get_mut(key).ok_or(DropReason::Bug)?;
        if stream.must_flush(self.flushes, size) {
            self.flush_media(now, out);
        }
        let Some(stream) = self.streams.get_mut(key) else { return Err(DropReason::Bug) };
        if !entry.payload.is_empty() {
            stream.history.insert(entry)?;
        }
        Ok(())
    }

    /// Packets of an encoding will not come any more: whoever shows it needs a key frame.
    pub(super) fn outage(&mut self, now: Instant, room: RoomKey, track: TrackKey, spatial: u8, out: &mut Outbox) {
        if let Some((room, _)) = self.rooms.get_mut(room) {
            room.on_outage(now, track, spatial);
        }
        self.after_room(now, room, out);
    }

    /// Ask the room and note what it decides.
    pub(super) fn decide(
        &mut self,
        now: Instant,
        key: StreamKey,
        packet: &Packet,
        entry: &Entry<'_>,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        let stream = self.streams.get(key).ok_or(DropReason::Bug)?;
        let (room_key, track) = (stream.room, stream.track);
        let (room, scheduled) = self.rooms.get_mut(room_key).ok_or(DropReason::Bug)?;
        let offered = self.fanout.offered;
        room.on_rtp(track, packet, &mut self.fanout, &mut out.events);
        let due = room.next_timeout().map(|at| shared(now, at.max(now)));
        self.timers.schedule(Owner::Room(room_key), scheduled, due);
        let news = !room.crossing.news.is_empty();
        let crosses = !self.fanout.relays.is_empty();
        if news {
            self.cross(now, room_key, out);
        }
        if crosses {
            self.relay(key, packet, entry, out);
        }
        if self.fanout.offered == offered {
            return if crosses { Ok(()) } else { Err(DropReason::NoSubscriber) };
        }
        let mut sends = core::mem::take(&mut self.fanout.sends);
        for (sender, header) in sends.drain(..) {
            let (source, size) = (packet.seq, packet.size);
            self.push(Pending { sender, stream: key, source, header, copy: Copy::First, size, pad: 0, next: None });
        }
        self.fanout.sends = sends;
        self.stats.rtp_offered = self.fanout.offered;
        if self.pending.len() >= self.config.limits.pending_copies {
            self.flush_media(now, out);
        }
        Ok(())
    }

    /// Append a copy to the list of its transport.
    pub(super) fn push(&mut self, copy: Pending) {
        let line_key = self.senders.get(copy.sender).map(|sender| sender.line);
        let Some((key, line)) = line_key.and_then(|key| Some((key, self.lines.get_mut(key)?))) else {
            self.fanout.dropped.add(DropReason::Removed);
            return;
        };
        let Ok(at) = u32::try_from(self.pending.len()) else {
            self.fanout.dropped.add(DropReason::Full);
            return;
        };
        let first = match line.queue {
            Some((first, last)) => {
                if let Some(last) = self.pending.get_mut(last as usize) {
                    last.next = Some(at);
                }
                first
            }
            None => {
                self.busy.push_back(key);
                at
            }
        };
        line.queue = Some((first, at));
        self.pending.push(copy);
    }
}

/// A packet of a stream, told apart from its wrapping.
struct Arrived<'a> {
    received: Received,
    payload_type: PayloadType,
    payload: &'a [u8],
    info: FrameInfo,
}

impl Stream {
    fn arrived<'a>(&mut self, now: Instant, view: &PacketView<'a>, size: usize) -> Result<Arrived<'a>, DropReason> {
        let payload_type = view.payload_type();
        let codec = self.codecs.iter().find(|codec| codec.payload_type == payload_type);
        let codec = codec.ok_or(DropReason::UnknownPayloadType)?.codec;
        let received = self.rx.on_packet(now, view.sequence(), view.timestamp(), size)?;
        let payload = view.payload();
        let info = if payload.is_empty() { FrameInfo::WHOLE } else { self.frame(codec, payload, view)? };
        Ok(Arrived { received, payload_type, payload, info })
    }

    fn recovered<'a>(&mut self, now: Instant, view: &PacketView<'a>) -> Result<Arrived<'a>, DropReason> {
        let codec = self.codecs.iter().find(|codec| codec.rtx == Some(view.payload_type()));
        let codec = *codec.ok_or(DropReason::UnknownPayloadType)?;
        let (sequence, payload) = retransmitted(view.payload()).ok_or(DropReason::UselessRtx)?;
        let received = self.rx.on_recovered(now, sequence)?;
        let info = self.frame(codec.codec, payload, view)?;
        Ok(Arrived { received, payload_type: codec.payload_type, payload, info })
    }

    /// What payload and dependency descriptor say of the frame. A payload that makes no sense, because it is encrypted, is
    /// no fault where the descriptor tells all.
    fn frame(&mut self, codec: Codec, payload: &[u8], view: &PacketView<'_>) -> Result<FrameInfo, DropReason> {
        let read = FrameInfo::read(codec, payload, view.marker());
        let descriptor = self.extensions.dependency_descriptor.and_then(|id| view.extension(id));
        match descriptor.and_then(|data| self.dependency.read(data)) {
            Some(frame) => Ok(read.unwrap_or(FrameInfo::WHOLE).with_dependency(frame)),
            None => read,
        }
    }

    fn audio_level(&self, view: &PacketView<'_>) -> Option<u8> {
        let data = view.extension(self.extensions.audio_level?)?;
        ext::audio_level(data).map(|level| level.below_max_db)
    }

    /// Count a packet; true when what waits for the next flush could be written over by further ones.
    fn must_flush(&mut self, flush: u64, size: usize) -> bool {
        let (number, packets, bytes) = &mut self.since_flush;
        if *number != flush {
            (*number, *packets, *bytes) = (flush, 0, 0);
        }
        *packets += 1;
        *bytes += size;
        *packets >= self.flush_limits.0 || *bytes >= self.flush_limits.1
    }
}
