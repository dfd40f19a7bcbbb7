//! Out: copies that were decided, transport by transport, so that datagrams of one size form runs; then data.
//!
//! A header is written and the payload sealed straight from the history of its stream into the outbox.

use crate::base::{DropReason, Instant};
use crate::rtp::codec::{Detail, vp8};
use crate::rtp::header::Fields;
use crate::rtp::seq::wire_u16;
use crate::shard::Shard;
use crate::shard::equalise;
use crate::shard::outbox::Outbox;
use crate::shard::parts::{Copy, Pending};
use crate::shard::timers::Owner;
use crate::transport::TransportKey;
use crate::transport::tx::Sent;

/// The first sender report of a stream follows its first packet after this: soon, for lip sync, but not before the
/// packet.
const FIRST_REPORT: core::time::Duration = core::time::Duration::from_millis(20);

impl Shard {
    /// Send what was decided since the last flush. Call it at the end of each turn, before the transmits are sent.
    pub fn flush(&mut self, now: Instant, out: &mut Outbox) {
        self.flush_media(now, out);
        self.flush_data(now, out);
    }

    /// The same in parts: send to at most `transports` of those something waits for, longest waiting first. `true` when
    /// others are left. Between two parts the caller sends what there is and may take in more: what arrives meanwhile
    /// joins the runs of those that still wait, so batches grow with load and nobody waits for them.
    pub fn flush_part(&mut self, now: Instant, transports: usize, out: &mut Outbox) -> bool {
        for _ in 0..transports {
            let Some(key) = self.busy.pop_front() else { break };
            self.flush_transport(now, key, out);
        }
        if !self.busy.is_empty() {
            return true;
        }
        self.all_flushed();
        self.flush_data(now, out);
        false
    }

    pub(super) fn flush_media(&mut self, now: Instant, out: &mut Outbox) {
        while let Some(key) = self.busy.pop_front() {
            self.flush_transport(now, key, out);
        }
        self.all_flushed();
    }

    fn flush_transport(&mut self, now: Instant, key: TransportKey, out: &mut Outbox) {
        let Some(line) = self.lines.get_mut(key) else { return };
        let mut next = line.queue.take().map(|(first, _)| first);
        if let Some(first) = next {
            equalise::equalise(&mut self.pending, first);
        }
        while let Some(copy) = next.and_then(|at| self.pending.get(at as usize)).copied() {
            next = copy.next;
            if !self.waits(now, key, &copy) {
                self.send(now, key, &copy, out);
            }
        }
    }

    /// Nothing decided is left: the histories may be written over again.
    fn all_flushed(&mut self) {
        self.flushes = self.flushes.wrapping_add(1);
        self.pending.clear();
        self.stats.copies_dropped = self.fanout.dropped.clone();
    }

    pub(super) fn send(&mut self, now: Instant, key: TransportKey, copy: &Pending, out: &mut Outbox) {
        let result = self.emit(now, key, copy, out);
        match result {
            Ok(()) if copy.copy != Copy::First => self.stats.rtx_sent = self.stats.rtx_sent.wrapping_add(1),
            Ok(()) => self.stats.rtp_forwarded = self.stats.rtp_forwarded.wrapping_add(1),
            Err(reason) if copy.copy != Copy::First => self.stats.dropped.add(reason),
            Err(reason) => self.fanout.dropped.add(reason),
        }
    }

    pub(super) fn emit(
        &mut self,
        now: Instant,
        key: TransportKey,
        copy: &Pending,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        let line = self.lines.get_mut(key).ok_or(DropReason::Removed)?;
        let sender = self.senders.get_mut(copy.sender).ok_or(DropReason::Removed)?;
        let stream = self.streams.get(copy.stream).ok_or(DropReason::Removed)?;
        let entry = stream.history.packet(copy.source).ok_or(DropReason::TooLate)?;
        let route = line.transport.route().ok_or(DropReason::NotConnected)?;
        let numbering = copy.header.numbering;

        let mut descriptor = [0; vp8::MAX_DESCRIPTOR];
        let (head, payload): (&[u8], &[u8]) = match (entry.info.detail, numbering.vp8) {
            (Detail::Vp8(read), Some(numbers)) => {
                let head = read.rewrite(entry.payload, numbers, &mut descriptor).ok_or(DropReason::Bug)?;
                (head, entry.payload.get(head.len()..).ok_or(DropReason::Bug)?)
            }
            _ => (&[], entry.payload),
        };
        let original = wire_u16(numbering.seq).to_be_bytes();
        let (index, fields, prefix): (u64, Fields, &[u8]) = if copy.copy != Copy::First {
            let rtx = sender.payload_types.iter().find(|map| map.to == copy.header.payload_type);
            let payload_type = rtx.and_then(|map| map.rtx).ok_or(DropReason::UnknownPayloadType)?;
            let ssrc = sender.rtx_ssrc.ok_or(DropReason::UnknownPayloadType)?;
            let cost = if copy.copy == Copy::Probe { 0 } else { entry.payload.len() };
            let index = sender.tx.take_rtx(cost);
            let timestamp = numbering.timestamp;
            let sequence = wire_u16(index);
            (index, Fields { marker: copy.header.marker, payload_type, sequence, timestamp, ssrc }, &original)
        } else {
            let fields = Fields {
                marker: copy.header.marker,
                payload_type: copy.header.payload_type,
                sequence: wire_u16(numbering.seq),
                timestamp: numbering.timestamp,
                ssrc: sender.tx.ssrc(),
            };
            (numbering.seq, fields, &[])
        };
        let mid = if copy.copy == Copy::First { sender.section() } else { sender.repair_section() };
        self.header.forward(&fields, entry.extensions, &stream.extensions, &sender.extensions, mid);
        let numbered = self.header.has_transport_cc();
        if let Some(bandwidth) = line.bandwidth.as_deref() {
            self.header.set_transport_cc(bandwidth.estimator.next_number());
        }
        self.header.set_abs_send_time(now);
        if copy.pad > 0 {
            self.header.set_padding();
        }
        let padding = equalise::padding(copy.pad);
        let header = self.header.bytes();
        let transport = &mut line.transport;
        let mut refused = DropReason::Bug;
        let sent = out.datagram(route, |arena| {
            let before = arena.len();
            transport
                .seal_rtp(index, header, &[prefix, head, payload, padding], arena)
                .map_err(|reason| refused = reason)
                .ok()
                .map(|()| arena.len() - before)
        });
        let size = sent.ok_or(refused)?;
        if let Some(bandwidth) = line.bandwidth.as_deref_mut() {
            bandwidth.on_sent(now, route, size, numbered, copy.copy);
        }
        line.rate.add(now, size);
        self.stats.bytes_sent = self.stats.bytes_sent.wrapping_add(size as u64);
        if copy.copy != Copy::First {
            return Ok(());
        }
        let sent = Sent {
            seq: numbering.seq,
            encoding: stream.spatial,
            source: copy.source,
            source_timestamp: entry.timestamp,
            timestamp: numbering.timestamp,
            vp8: numbering.vp8,
            marker: copy.header.marker,
        };
        sender.tx.on_sent(now, &sent, entry.payload.len());
        if !sender.reported {
            sender.reported = true;
            // Of a microphone that is not forwarded it would say how long somebody kept quiet.
            if !(sender.audio && self.rooms.get(sender.room).is_some_and(|(room, _)| room.is_choosing_speakers())) {
                self.stats.first_packet.add(now.since(sender.born), 1);
            }
            let soon = now + FIRST_REPORT;
            line.next_sender_report = Some(line.next_sender_report.map_or(soon, |at| at.min(soon)));
            self.timers.schedule(Owner::Transport(key), &mut line.scheduled, Some(soon));
        }
        Ok(())
    }

    fn flush_data(&mut self, now: Instant, out: &mut Outbox) {
        let mut draining = core::mem::take(&mut self.draining);
        for key in draining.drain(..) {
            let Some(line) = self.lines.get_mut(key) else { continue };
            line.drains = false;
            let edges = line.transport.drain_data(now, out);
            // What is left is sent in a later turn: its time limit is due at once.
            self.after_transport(now, key, edges, out);
        }
        draining.append(&mut self.draining);
        self.draining = draining;
    }
}
