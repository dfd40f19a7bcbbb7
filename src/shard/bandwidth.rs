//! What can be sent to a transport: feedback in, estimate to the room, queue and padding out.
//!
//! Only for transports whose far end gives transport-wide feedback. Others are sent everything at once, within what
//! their REMB leaves.

use core::time::Duration;

use crate::base::{Bitrate, DropReason, Instant};
use crate::cc::estimator::{Estimator, Kind, Padding};
use crate::cc::pacer::Pacer;
use crate::room::SenderKey;
use crate::room::downtrack::Header;
use crate::room::rewriter::Numbering;
use crate::rtp::header::Fields;
use crate::rtp::seq::wire_u16;
use crate::rtp::twcc::Feedback;
use crate::shard::Shard;
use crate::shard::outbox::Outbox;
use crate::shard::parts::{Copy, Line, Pending};
use crate::shard::timers::Owner;
use crate::transport::TransportKey;
use crate::transport::route::Route;

/// Headers added to a payload, for the queue's account.
const HEADERS: usize = 60;
/// Below RTP: UDP over IPv4 and IPv6.
const UDP_V4: usize = 28;
const UDP_V6: usize = 48;
/// Payload of a padding packet: what one count byte can say, and the least worth sending.
const MOST_PAYLOAD: u8 = 255;
const LEAST_PAYLOAD: u8 = 40;
/// Packets of padding per turn, at most.
const MOST_PADDING: usize = 64;
/// Packets sent again as padding are among this many last ones of their stream, and at least this long.
const RECENT: u64 = 16;
const LEAST_RECENT: usize = 600;
/// A path that loses this much of itself, in thousandths, is given twice what it asks for again, while its queue is no
/// longer than this. Lower spends more of the link on copies, higher lets pictures stand still.
const LOSSY: u32 = 50;
const SHORT_QUEUE: Duration = Duration::from_millis(50);

/// Of one transport.
#[derive(Debug)]
pub(super) struct Bandwidth {
    pub(super) estimator: Estimator,
    pub(super) pacer: Pacer<Pending>,
    due: Instant,
    /// Whose retransmission stream carries padding.
    padding: Option<SenderKey>,
    turn: u64,
    /// The way packets went last.
    route: Option<Route>,
}

impl Bandwidth {
    pub(super) fn new(now: Instant, first: u16) -> Self {
        let (estimator, pacer) = (Estimator::new(first), Pacer::default());
        Self { estimator, pacer, due: now, padding: None, turn: 0, route: None }
    }

    /// When [`Shard::run_bandwidth`] is due.
    pub(super) fn next_timeout(&self, now: Instant) -> Instant {
        self.pacer.next_timeout(now).map_or(self.due, |at| at.min(self.due))
    }

    /// A packet left.
    pub(super) fn on_sent(&mut self, now: Instant, route: Route, size: usize, numbered: bool, copy: Copy) {
        let below = match route {
            Route::Udp { remote, .. } if remote.is_ipv4() => UDP_V4,
            _ => UDP_V6,
        };
        let size = size + below;
        if self.route.replace(route).is_some_and(|before| before != route) {
            self.estimator.on_path_change();
        }
        if numbered {
            let kind = if copy == Copy::Probe { Kind::Padding } else { Kind::Media };
            self.estimator.on_sent(now, size, kind);
        } else {
            self.estimator.on_untracked(now, size);
        }
        self.pacer.on_sent(size);
    }
}

impl Line {
    /// What may be sent here, as far as known.
    pub(super) fn estimate(&mut self, now: Instant) -> Option<Bitrate> {
        let measured = self.bandwidth.as_deref().and_then(|bandwidth| bandwidth.estimator.estimate());
        measured.or_else(|| self.remb.ceiling(now))
    }

    /// The round trip right now, where its feedback tells.
    pub(super) fn rtt(&self) -> Option<Duration> {
        let estimator = &self.bandwidth.as_deref()?.estimator;
        Some(estimator.rtt().max(estimator.queue()))
    }

    /// Whether what is sent again is likely to be lost again, so that it goes twice: on a path that loses much whatever is
    /// sent, or when the last answer was lost. The picture stands still until it comes. Not while a queue explains the loss.
    pub(super) fn loses_again(&self, answers: u8) -> bool {
        let Some(bandwidth) = self.bandwidth.as_deref() else { return false };
        let estimator = &bandwidth.estimator;
        estimator.queue() < SHORT_QUEUE && (answers > 1 || estimator.path_loss_per_mille() >= LOSSY)
    }
}

impl Shard {
    pub(super) fn on_transport_feedback(
        &mut self,
        now: Instant,
        key: TransportKey,
        feedback: &Feedback<'_>,
        out: &mut Outbox,
    ) {
        self.tell_demand(key);
        let Some(bandwidth) = self.lines.get_mut(key).and_then(|line| line.bandwidth.as_deref_mut()) else { return };
        bandwidth.estimator.on_feedback(now, feedback);
        self.tell_room(now, key, out);
        self.send_padding(now, key, out);
        self.schedule_bandwidth(now, key);
    }

    /// Whether a copy has to wait; it is queued then.
    pub(super) fn waits(&mut self, now: Instant, key: TransportKey, copy: &Pending) -> bool {
        let Some(line) = self.lines.get_mut(key) else { return false };
        let Some(bandwidth) = line.bandwidth.as_deref_mut() else { return false };
        let Some(rate) = bandwidth.estimator.pacing() else { return false };
        if bandwidth.pacer.admits(now, rate) || self.senders.get(copy.sender).is_none_or(|sender| sender.audio) {
            return false;
        }
        let payload = self.streams.get(copy.stream).and_then(|stream| stream.history.packet(copy.source));
        let size = payload.map_or(0, |entry| entry.payload.len()) + HEADERS;
        bandwidth.pacer.push(*copy, size, copy.copy == Copy::Again);
        if copy.copy == Copy::First {
            self.stats.copies_pending += 1;
        }
        let due = Some(bandwidth.next_timeout(now));
        self.timers.schedule(Owner::Transport(key), &mut line.scheduled, due);
        true
    }

    /// Send what waits and may leave, and padding where it is wanted.
    pub(super) fn run_bandwidth(&mut self, now: Instant, key: TransportKey, out: &mut Outbox) {
        let Some(line) = self.lines.get_mut(key) else { return };
        if line.bandwidth.is_none() || !line.connected {
            return;
        }
        self.release(now, key, out);
        self.tell_demand(key);
        let Some(bandwidth) = self.lines.get_mut(key).and_then(|line| line.bandwidth.as_deref_mut()) else { return };
        // Called for the queue too, every few milliseconds: that must not put off what is due for the estimator.
        let due = bandwidth.due <= now;
        if due {
            bandwidth.estimator.handle_timeout(now);
            self.tell_room(now, key, out);
        }
        self.send_padding(now, key, out);
        let Some(bandwidth) = self.lines.get_mut(key).and_then(|line| line.bandwidth.as_deref_mut()) else { return };
        let next = bandwidth.estimator.next_timeout(now);
        bandwidth.due = if due { next } else { next.min(bandwidth.due) };
    }

    fn release(&mut self, now: Instant, key: TransportKey, out: &mut Outbox) {
        loop {
            let Some(line) = self.lines.get_mut(key) else { return };
            let Some(bandwidth) = line.bandwidth.as_deref_mut() else { return };
            let rate = bandwidth.estimator.pacing().unwrap_or(Bitrate::MAX);
            let Some(copy) = bandwidth.pacer.pop(now, rate) else { return };
            if copy.copy == Copy::First {
                self.stats.copies_pending -= 1;
            }
            self.send(now, key, &copy, out);
        }
    }

    /// What waits for a transport ends with it.
    pub(super) fn drop_waiting(&mut self, key: TransportKey) {
        let Some(bandwidth) = self.lines.get_mut(key).and_then(|line| line.bandwidth.as_deref_mut()) else { return };
        while let Some(copy) = bandwidth.pacer.take() {
            if copy.copy == Copy::First {
                self.stats.copies_pending -= 1;
                self.fanout.dropped.add(DropReason::Removed);
            }
        }
    }

    fn schedule_bandwidth(&mut self, now: Instant, key: TransportKey) {
        let Some(line) = self.lines.get_mut(key) else { return };
        let Some(bandwidth) = line.bandwidth.as_deref_mut() else { return };
        bandwidth.due = bandwidth.due.min(bandwidth.estimator.next_timeout(now));
        let due = Some(bandwidth.next_timeout(now));
        self.timers.schedule(Owner::Transport(key), &mut line.scheduled, due);
    }

    /// What the subscriber could use goes to the estimator: whether to look for more.
    fn tell_demand(&mut self, key: TransportKey) {
        let Some(line) = self.lines.get_mut(key) else { return };
        let Some((room, _)) = self.rooms.get(line.room) else { return };
        let needed = room.participants.get(line.participant).map_or(Bitrate::ZERO, |participant| participant.needed);
        let Some(bandwidth) = line.bandwidth.as_deref_mut() else { return };
        let pads = |key: &SenderKey| self.senders.get(*key).is_some_and(|sender| sender.can_pad());
        if bandwidth.padding.is_none_or(|key| !pads(&key)) {
            bandwidth.padding = line.sent.iter().map(|(_, sender)| *sender).find(pads);
        }
        let padding = match bandwidth.padding {
            None if line.sent.is_empty() => Padding::NotNow,
            None => Padding::Never,
            Some(_) if bandwidth.pacer.is_empty() => Padding::Now,
            Some(_) => Padding::NotNow,
        };
        bandwidth.estimator.set_demand(needed, padding);
    }

    /// What can be sent goes to the room.
    pub(super) fn tell_room(&mut self, now: Instant, key: TransportKey, out: &mut Outbox) {
        let Some(line) = self.lines.get_mut(key).filter(|line| !line.sent.is_empty()) else { return };
        let estimate = line.estimate(now);
        let estimator = line.bandwidth.as_deref().map(|bandwidth| &bandwidth.estimator);
        let certain = estimator.is_none_or(|estimator| estimator.estimate().is_none() || estimator.is_short(now));
        let (room_key, participant) = (line.room, line.participant);
        let Some((room, _)) = self.rooms.get_mut(room_key) else { return };
        room.set_certain(participant, certain);
        if room.on_estimate(participant, estimate) {
            room.reallocate(now, &mut out.events);
            self.after_room(now, room_key, out);
        }
    }

    fn send_padding(&mut self, now: Instant, key: TransportKey, out: &mut Outbox) {
        for _ in 0..MOST_PADDING {
            let Some(line) = self.lines.get_mut(key).filter(|line| line.connected) else { return };
            let Some(bandwidth) = line.bandwidth.as_deref_mut() else { return };
            if !bandwidth.pacer.is_empty() || bandwidth.estimator.padding(now) == 0 {
                return;
            }
            bandwidth.turn = bandwidth.turn.wrapping_add(1);
            let turn = bandwidth.turn;
            let size = bandwidth.estimator.padding_size();
            let Some(sender) = bandwidth.padding else { return };
            let again = if size >= LEAST_RECENT { self.recent(sender, turn) } else { None };
            let sent = match again {
                Some(copy) => self.emit(now, key, &copy, out),
                None => self.emit_padding(now, key, (sender, size), out),
            };
            if sent.is_err() {
                return;
            }
            self.stats.probes_sent = self.stats.probes_sent.wrapping_add(1);
        }
    }

    /// A packet sent a moment ago, long enough to be worth sending once more.
    fn recent(&self, key: SenderKey, turn: u64) -> Option<Pending> {
        let sender = self.senders.get(key)?;
        let again = sender.tx.recent(turn % RECENT)?;
        let publication = self.publications.get(&sender.track)?;
        let room = self.rooms.get(sender.room).map(|(room, _)| room)?;
        room.tracks.get(publication.track).filter(|track| !track.muted)?;
        let stream = publication.streams.get(usize::from(again.encoding)).copied().flatten()?;
        let entry = self.streams.get(stream)?.history.packet(again.source)?;
        if entry.payload.len() < LEAST_RECENT {
            return None;
        }
        let payload_type = sender.payload_types.iter().find(|map| map.from == entry.payload_type)?.to;
        let numbering = Numbering { seq: again.seq, timestamp: again.timestamp, vp8: again.vp8 };
        let header = Header { payload_type, numbering, marker: again.marker };
        let (source, copy) = (again.source, Copy::Probe);
        Some(Pending { sender: key, stream, source, header, copy, size: 0, pad: 0, next: None })
    }

    /// A packet of nothing but padding on the retransmission stream (RFC 4588, RFC 3550, 5.1).
    fn emit_padding(
        &mut self,
        now: Instant,
        key: TransportKey,
        (sender, size): (SenderKey, usize),
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        let line = self.lines.get_mut(key).ok_or(DropReason::Removed)?;
        let sender = self.senders.get_mut(sender).ok_or(DropReason::Removed)?;
        let route = line.transport.route().ok_or(DropReason::NotConnected)?;
        let bandwidth = line.bandwidth.as_deref_mut().ok_or(DropReason::Bug)?;
        let payload_type = sender.payload_types.iter().find_map(|map| map.rtx).ok_or(DropReason::UnknownPayloadType)?;
        let ssrc = sender.rtx_ssrc.ok_or(DropReason::UnknownPayloadType)?;
        let index = sender.tx.take_rtx(0);
        let timestamp = sender.tx.last_timestamp();
        let fields = Fields { marker: false, payload_type, sequence: wire_u16(index), timestamp, ssrc };
        self.header.padding(&fields, &sender.extensions, sender.repair_section());
        self.header.set_transport_cc(bandwidth.estimator.next_number());
        self.header.set_abs_send_time(now);
        let header = self.header.bytes();
        let length = u8::try_from(size.saturating_sub(HEADERS)).unwrap_or(MOST_PAYLOAD).max(LEAST_PAYLOAD);
        let padding = [0; MOST_PAYLOAD as usize];
        let zeros = padding.get(1..usize::from(length)).unwrap_or_default();
        let transport = &mut line.transport;
        let mut refused = DropReason::Bug;
        let sent = out.datagram(route, |arena| {
            let before = arena.len();
            let sealed =
                transport.seal_rtp(index, header, &[zeros, &[length]], arena).map_err(|reason| refused = reason);
            sealed.ok().map(|()| arena.len() - before)
        });
        let size = sent.ok_or(refused)?;
        bandwidth.on_sent(now, route, size, true, Copy::Probe);
        self.stats.bytes_sent = self.stats.bytes_sent.wrapping_add(size as u64);
        Ok(())
    }
}
