//! RTCP both ways: what far ends report and ask for, and what we report and ask of them.
//!
//! From publishers come sender reports, from subscribers receiver reports, NACK, PLI, FIR and REMB; on a transport that
//! does both all of them. Ours leave at once, not with the media of the flush: they are small and few.

use core::time::Duration;

use crate::base::{Bitrate, DropReason, Instant, MediaKind, PayloadType, Ssrc};
use crate::room::downtrack::Header;
use crate::room::rewriter::Numbering;
use crate::rtp::ntp::NtpTime;
use crate::rtp::rtcp::{Compound, Packet, ReportBlock, SenderInfo, write};
use crate::shard::Shard;
use crate::shard::outbox::Outbox;
use crate::shard::parts::{Copy, Line, Pending, RoomKey, Source};
use crate::transport::TransportKey;
use crate::transport::route::Route;

/// Between two receiver reports, and between two sender reports, to a transport.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// A compound packet is closed beyond this size.
const FULL: usize = 1100;
/// Report blocks one receiver report holds (RFC 3550, 6.4.2).
const MAX_BLOCKS: usize = 31;

impl Shard {
    pub(super) fn handle_rtcp(
        &mut self,
        now: Instant,
        route: Route,
        datagram: &mut [u8],
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        let key = self.table.find(&route).ok_or(DropReason::UnknownRoute)?;
        let line = self.lines.get_mut(key).ok_or(DropReason::UnknownRoute)?;
        let len = line.transport.open_rtcp(now, datagram)?;
        line.transport.arrived_by(now, route);
        let room = line.room;
        let compound = Compound::new(datagram.get(..len).ok_or(DropReason::Bug)?);
        for packet in compound {
            self.on_rtcp(now, key, packet?, out);
        }
        self.after_room(now, room, out);
        Ok(())
    }

    fn on_rtcp(&mut self, now: Instant, key: TransportKey, packet: Packet<'_>, out: &mut Outbox) {
        match packet {
            Packet::SenderReport(info, blocks) => {
                self.on_sender_report(now, key, &info);
                for block in blocks {
                    self.on_report_block(now, key, &block);
                }
            }
            Packet::ReceiverReport(_, blocks) => {
                for block in blocks {
                    self.on_report_block(now, key, &block);
                }
            }
            Packet::Nack { media, lost } => {
                for sequence in lost {
                    self.on_nack(now, key, media, sequence);
                }
            }
            Packet::Pli { media } => self.on_keyframe_request(now, key, media),
            Packet::Fir(entries) => {
                for (media, _) in entries {
                    self.on_keyframe_request(now, key, media);
                }
            }
            Packet::Remb { bps, .. } => self.on_remb(now, key, Bitrate::from_bps(bps), out),
            Packet::TransportCc(feedback) => self.on_transport_feedback(now, key, &feedback, out),
            Packet::ReferenceTime { sender, ntp } => self.answer_reference_time(key, sender, ntp, out),
            Packet::SourceDescription | Packet::Bye(_) | Packet::Dlrr(_) | Packet::Other { .. } => {}
        }
    }

    fn on_sender_report(&mut self, now: Instant, key: TransportKey, info: &SenderInfo) {
        let Some(line) = self.lines.get_mut(key) else { return };
        let Some(bound) = line.bound(info.ssrc).filter(|bound| !bound.rtx) else { return };
        let Some(stream) = self.streams.get_mut(bound.stream) else { return };
        line.clock.on_sender_report(now, &self.wall, info);
        stream.rx.on_sender_report(now, info);
        if let Some((room, _)) = self.rooms.get_mut(stream.room)
            && let Some(track) = room.tracks.get_mut(stream.track)
            && let Some(clock) = track.clocks.get_mut(usize::from(stream.spatial))
        {
            *clock = stream.rx.sender_clock();
        }
        let (room, track) = (stream.room, stream.track);
        self.tell_takers(room, track);
    }

    fn on_report_block(&mut self, now: Instant, key: TransportKey, block: &ReportBlock) {
        let Some(line) = self.lines.get_mut(key) else { return };
        if let Some(bandwidth) = line.bandwidth.as_deref_mut() {
            bandwidth.estimator.on_other_report(now);
        }
        let Some(sender) = line.sender(block.ssrc).and_then(|key| self.senders.get_mut(key)) else { return };
        sender.tx.on_report_block(self.wall.at(now), block);
        let far_end = sender.tx.far_end();
        let Some((room, _)) = self.rooms.get_mut(line.room) else { return };
        if let Some(downtrack) = room.downtracks.get_mut(sender.downtrack) {
            downtrack.fraction_lost = far_end.fraction_lost;
        }
        // What it publishes on the same transport is as far away.
        if let Some(rtt) = far_end.rtt {
            for track in line.publications.iter().filter_map(|id| self.publications.get(id)) {
                if let Some(track) = room.tracks.get_mut(track.track) {
                    track.rtt = rtt;
                }
            }
        }
    }

    fn on_nack(&mut self, now: Instant, key: TransportKey, media: Ssrc, sequence: u16) {
        self.stats.nacks_received = self.stats.nacks_received.wrapping_add(1);
        if let Err(reason) = self.answer_nack(now, key, media, sequence) {
            self.stats.nacks_refused.add(reason);
        }
    }

    fn answer_nack(&mut self, now: Instant, key: TransportKey, media: Ssrc, sequence: u16) -> Result<(), DropReason> {
        let line = self.lines.get(key).ok_or(DropReason::Bug)?;
        let sender_key = line.sender(media).ok_or(DropReason::UnknownSsrc)?;
        let sender = self.senders.get_mut(sender_key).ok_or(DropReason::Bug)?;
        if !sender.nack || sender.rtx_ssrc.is_none() {
            return Err(DropReason::Disabled);
        }
        let room = self.rooms.get(sender.room).map(|(room, _)| room).ok_or(DropReason::Bug)?;
        let publication = self.publications.get(&sender.track).ok_or(DropReason::Removed)?;
        if room.tracks.get(publication.track).is_none_or(|track| track.muted) {
            return Err(DropReason::Muted);
        }
        let again = sender.tx.on_nack(now, sequence, line.rtt())?;
        let stream = publication.streams.get(usize::from(again.encoding)).copied().flatten();
        let stream_key = stream.ok_or(DropReason::TooLate)?;
        let stream = self.streams.get(stream_key).ok_or(DropReason::TooLate)?;
        let entry = stream.history.packet(again.source).ok_or(DropReason::TooLate)?;
        let map = sender.payload_types.iter().find(|map| map.from == entry.payload_type);
        let payload_type: PayloadType = map.ok_or(DropReason::UnknownPayloadType)?.to;
        let numbering = Numbering { seq: again.seq, timestamp: again.timestamp, vp8: again.vp8 };
        let header = Header { payload_type, numbering, marker: again.marker };
        let source = again.source;
        let copy = Pending {
            sender: sender_key,
            stream: stream_key,
            source,
            header,
            copy: Copy::Again,
            size: 0,
            pad: 0,
            next: None,
        };
        let twice = line.loses_again(again.answers);
        self.push(copy);
        if twice {
            self.push(copy);
        }
        Ok(())
    }

    fn on_keyframe_request(&mut self, now: Instant, key: TransportKey, media: Ssrc) {
        self.stats.keyframe_requests_received = self.stats.keyframe_requests_received.wrapping_add(1);
        let Some(line) = self.lines.get(key) else { return };
        let Some(sender) = line.sender(media).and_then(|key| self.senders.get(key)) else { return };
        if let Some((room, _)) = self.rooms.get_mut(sender.room) {
            room.on_keyframe_request(now, sender.downtrack);
        }
    }

    fn on_remb(&mut self, now: Instant, key: TransportKey, remb: Bitrate, out: &mut Outbox) {
        let Some(line) = self.lines.get_mut(key) else { return };
        line.remb.on_remb(now, remb, line.rate.measured(now));
        self.tell_room(now, key, out);
    }

    fn answer_reference_time(&mut self, key: TransportKey, asker: Ssrc, ntp: NtpTime, out: &mut Outbox) {
        let Some(line) = self.lines.get_mut(key) else { return };
        self.scratch.clear();
        write::receiver_report(&mut self.scratch, line.our_ssrc, &[]);
        write::dlrr(&mut self.scratch, line.our_ssrc, asker, ntp, 0);
        send(line, &self.scratch, &mut self.stats.bytes_sent, out);
    }

    /// Everything that is due towards one far end.
    pub(super) fn report(&mut self, now: Instant, key: TransportKey, out: &mut Outbox) {
        if self.lines.get(key).is_none_or(|line| !line.connected) {
            return;
        }
        self.ask_for_missing(now, key, out);
        self.send_feedback(now, key, out);
        let Some(line) = self.lines.get_mut(key) else { return };
        if line.next_receiver_report <= now {
            line.next_receiver_report = now + REPORT_INTERVAL;
            self.tell_room(now, key, out);
            self.send_receiver_reports(now, key, out);
        }
        let Some(line) = self.lines.get_mut(key) else { return };
        if line.next_sender_report.is_some_and(|due| due <= now) {
            line.next_sender_report = Some(now + REPORT_INTERVAL);
            self.send_sender_reports(now, key, out);
        }
    }

    fn ask_for_missing(&mut self, now: Instant, key: TransportKey, out: &mut Outbox) {
        let Some(line) = self.lines.get_mut(key) else { return };
        self.scratch.clear();
        let mut given_up = None;
        for bound in line.received.iter().filter(|bound| !bound.rtx) {
            let Some(stream) = self.streams.get_mut(bound.stream) else { continue };
            if stream.rx.next_nack().is_none_or(|due| due > now) {
                continue;
            }
            let track = self.rooms.get_mut(stream.room).and_then(|(room, _)| room.tracks.get_mut(stream.track));
            let round = stream.rx.poll_nacks(now, track.as_ref().map(|track| track.rtt));
            if round.given_up > 0 {
                // One at a time is enough: the next round tells of others.
                given_up = Some((stream.room, stream.track, stream.spatial));
            }
            if !round.lost.is_empty() {
                self.stats.nacks_sent = self.stats.nacks_sent.wrapping_add(round.lost.len() as u64);
                write::nack(&mut self.scratch, line.our_ssrc, bound.ssrc, round.lost.iter().copied());
            }
        }
        if !self.scratch.is_empty() {
            send(line, &self.scratch, &mut self.stats.bytes_sent, out);
        }
        if let Some((room, track, spatial)) = given_up {
            self.outage(now, room, track, spatial, out);
        }
    }

    fn send_feedback(&mut self, now: Instant, key: TransportKey, out: &mut Outbox) {
        let Some(line) = self.lines.get_mut(key) else { return };
        loop {
            self.scratch.clear();
            if !line.feedback.poll(now, line.our_ssrc, &mut self.scratch) {
                return;
            }
            send(line, &self.scratch, &mut self.stats.bytes_sent, out);
        }
    }

    fn send_receiver_reports(&mut self, now: Instant, key: TransportKey, out: &mut Outbox) {
        let Some(line) = self.lines.get_mut(key) else { return };
        let empty = ReportBlock::nothing_lost(Ssrc(0), 0);
        let mut blocks = [empty; MAX_BLOCKS];
        let mut count = 0;
        for at in 0..line.received.len() {
            let Some(bound) = line.received.get(at).filter(|bound| !bound.rtx) else { continue };
            let Some(stream) = self.streams.get_mut(bound.stream) else { continue };
            let Some(block) = stream.rx.report_block(now) else { continue };
            if let Some((room, _)) = self.rooms.get_mut(stream.room)
                && let Some(track) = room.tracks.get_mut(stream.track)
            {
                track.fraction_lost = block.fraction_lost;
            }
            if let Some(slot) = blocks.get_mut(count) {
                *slot = block;
                count += 1;
            }
            if count == MAX_BLOCKS {
                self.scratch.clear();
                write::receiver_report(&mut self.scratch, line.our_ssrc, &blocks);
                send(line, &self.scratch, &mut self.stats.bytes_sent, out);
                count = 0;
            }
        }
        if count > 0 {
            self.scratch.clear();
            write::receiver_report(&mut self.scratch, line.our_ssrc, blocks.get(..count).unwrap_or_default());
            // Without transport-wide feedback the far end estimates by what we say it may send: everything.
            if line.extensions.transport_cc.is_none() {
                let media: [Ssrc; 1] = [blocks.first().map_or(Ssrc(0), |block| block.ssrc)];
                write::remb(&mut self.scratch, line.our_ssrc, self.config.room.publisher_remb.as_bps(), &media);
            }
            send(line, &self.scratch, &mut self.stats.bytes_sent, out);
        }
    }

    fn send_sender_reports(&mut self, now: Instant, key: TransportKey, out: &mut Outbox) {
        let count = self.lines.get(key).map_or(0, |line| line.sent.len());
        self.scratch.clear();
        for at in 0..count {
            let Some((_, sender)) = self.lines.get(key).and_then(|line| line.sent.get(at)).copied() else { continue };
            let Some(sender) = self.senders.get(sender) else { continue };
            let publication = self.publications.get(&sender.track);
            let publisher = publication.and_then(|it| self.publisher_clock(it, sender.tx.last_encoding()?));
            let publisher = publisher.as_ref().map(|(clock, stream)| (clock, stream));
            let Some(info) = sender.tx.sender_report(now, &self.wall, publisher) else { continue };
            write::sender_report(&mut self.scratch, &info, &[]);
            write::source_description(&mut self.scratch, info.ssrc, &sender.cname);
            if self.scratch.len() >= FULL {
                self.send_scratch(key, out);
            }
        }
        self.send_scratch(key, out);
    }

    fn send_scratch(&mut self, key: TransportKey, out: &mut Outbox) {
        if let Some(line) = self.lines.get_mut(key)
            && !self.scratch.is_empty()
        {
            send(line, &self.scratch, &mut self.stats.bytes_sent, out);
        }
        self.scratch.clear();
    }

    /// Carry out the key frame requests a room has left.
    pub(super) fn request_keyframes(&mut self, key: RoomKey, out: &mut Outbox) {
        let Some((room, _)) = self.rooms.get_mut(key) else { return };
        let mut requests = core::mem::take(&mut room.keyframe_requests);
        for (track, spatial) in requests.drain(..) {
            let Some(track) = room.tracks.get(track).filter(|track| track.kind == MediaKind::Video) else { continue };
            let Some(publication) = self.publications.get(&track.id) else { continue };
            let line = match publication.source {
                Source::Line(line) => line,
                Source::Shard(origin) => {
                    Self::relay_keyframe_request(origin, track.id, spatial, out);
                    continue;
                }
            };
            let stream = publication.streams.get(usize::from(spatial)).copied().flatten();
            let Some(stream) = stream.and_then(|stream| self.streams.get(stream)) else { continue };
            let Some(line) = self.lines.get_mut(line) else { continue };
            self.scratch.clear();
            write::pli(&mut self.scratch, line.our_ssrc, stream.rx.ssrc());
            if send(line, &self.scratch, &mut self.stats.bytes_sent, out) {
                self.stats.keyframe_requests_sent = self.stats.keyframe_requests_sent.wrapping_add(1);
            }
        }
        room.keyframe_requests = requests;
    }
}

/// Seal a compound packet and hand it over. False when it cannot be sent now; then nothing depends on it.
fn send(line: &mut Line, packet: &[u8], bytes_sent: &mut u64, out: &mut Outbox) -> bool {
    let Some(route) = line.transport.route().filter(|_| line.connected) else { return false };
    let transport = &mut line.transport;
    let sent = out.datagram(route, |arena| {
        let before = arena.len();
        transport.seal_rtcp(packet, arena).ok().map(|()| arena.len() - before)
    });
    *bytes_sent = bytes_sent.wrapping_add(sent.unwrap_or_default() as u64);
    sent.is_some()
}
