//! Data channels: SCTP over DTLS (RFC 8831, RFC 8832) on the `rtc-sctp` state machine.
//!
//! The far end starts the association. Browsers and pion do so whichever DTLS role they have; others only as DTLS client,
//! so where we are that, we start it ourselves unless an INIT comes soon: INITs that cross are better avoided. The far
//! end opens `_reliable`, `_lossy` and `_data_track`, or we do; other labels are acknowledged and what comes on them is
//! dropped. Messages received wait in a bounded queue; while control has too
//! much untaken, reliable messages stay in SCTP, whose receive window then stops the sender.

mod guard;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rtc_datachannel::data_channel::DataChannel as Reliability;
use rtc_datachannel::message::Message;
use rtc_datachannel::message::message_channel_ack::DataChannelAck;
use rtc_datachannel::message::message_channel_open::{CHANNEL_PRIORITY_NORMAL, ChannelType, DataChannelOpen};
use rtc_sctp::{
    Association, AssociationError, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event,
    Payload, PayloadProtocolIdentifier, ServerConfig, StreamEvent, TransportConfig,
};
use rtc_shared::TransportProtocol;
use rtc_shared::marshal::{Marshal, Unmarshal};

use super::identity::DtlsIdentity;
use crate::base::{DropReason, Instant};
use crate::shard::command::DataChannel;
use crate::shard::event::CloseReason;
use crate::transport::{Config, Edges};
use guard::Guard;

/// The address the library knows the far end by.
const FAR_END: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 1));
/// Streams a far end may use; clients use three.
const MAX_STREAMS: usize = 16;
/// Associations being set up at once: an INIT that is repeated because our answer was lost makes another.
const MAX_PENDING: usize = 3;
/// INITs taken in the life of a transport: the library keeps a little of each.
const MAX_INITS: usize = 16;
/// How long a DTLS client waits for the far end's INIT before it sends its own.
const PATIENCE: Duration = Duration::from_millis(200);
const CHANNELS: [DataChannel; 3] = [DataChannel::Reliable, DataChannel::Lossy, DataChannel::DataTrack];

const fn label(channel: DataChannel) -> &'static str {
    match channel {
        DataChannel::Reliable => "_reliable",
        DataChannel::Lossy => "_lossy",
        DataChannel::DataTrack => "_data_track",
    }
}

/// The data channels of a transport.
pub(super) struct Data {
    identity: Arc<DtlsIdentity>,
    endpoint: Endpoint,
    established: Option<Association>,
    pending: Vec<(AssociationHandle, Association)>,
    handle: Option<AssociationHandle>,
    inits: usize,
    guard: Guard,
    streams: Vec<Stream>,
    /// Whether we open the channels.
    open_channels: bool,
    /// Decides which stream numbers are ours.
    is_dtls_client: bool,
    /// When we start the association ourselves, if nobody has by then.
    start_at: Option<Instant>,
    transport: TransportConfig,
    reported_open: bool,
    incoming: VecDeque<(DataChannel, Bytes)>,
    untaken: usize,
    /// SCTP packets to go into DTLS records.
    outgoing: VecDeque<Bytes>,
    /// Whether SCTP may have something to send.
    stirred: bool,
    lost_to_error: bool,
    limits: Limits,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) dropped: u64,
}

#[derive(Debug)]
struct Limits {
    message: usize,
    untaken: usize,
    queue: usize,
    lossy: usize,
}

#[derive(Debug)]
struct Stream {
    id: u16,
    /// `None` for a label that means nothing to us, and before the label came.
    channel: Option<DataChannel>,
    open: bool,
}

impl core::fmt::Debug for Data {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Data").field("streams", &self.streams).field("untaken", &self.untaken).finish_non_exhaustive()
    }
}

impl Data {
    pub(super) fn new(identity: &Arc<DtlsIdentity>, open_channels: bool, config: &Config) -> Self {
        let small = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let transport = TransportConfig::default()
            .with_max_receive_buffer_size(small(config.receive_window))
            .with_max_message_size(small(config.max_message));
        let any = SocketAddr::from(([192, 0, 2, 2], 1));
        let server = Some(Arc::new(ServerConfig::new(transport.clone())));
        Self {
            identity: Arc::clone(identity),
            endpoint: Endpoint::new(any, TransportProtocol::UDP, Arc::new(EndpointConfig::new()), server),
            established: None,
            pending: Vec::new(),
            handle: None,
            inits: 0,
            guard: Guard::new(config.receive_window),
            streams: Vec::new(),
            open_channels,
            is_dtls_client: false,
            start_at: None,
            transport,
            reported_open: false,
            incoming: VecDeque::new(),
            untaken: 0,
            outgoing: VecDeque::new(),
            stirred: false,
            lost_to_error: false,
            limits: Limits {
                message: config.max_message,
                untaken: config.untaken_budget,
                queue: config.send_queue,
                lossy: config.lossy_queue,
            },
            received: 0,
            sent: 0,
            dropped: 0,
        }
    }

    /// DTLS is up, with us in this role.
    pub(super) fn connected(&mut self, now: Instant, is_dtls_client: bool) {
        self.is_dtls_client = is_dtls_client;
        self.start_at = is_dtls_client.then_some(now + PATIENCE);
    }

    /// Send the first INIT where nobody else does.
    fn start(&mut self, now: Instant) {
        self.start_at = None;
        let config = ClientConfig::new(self.transport.clone());
        // It refuses only when full of associations, which is when there is one.
        if let Ok((handle, association)) = self.endpoint.connect(self.identity.std(now), config, FAR_END) {
            self.pending.push((handle, association));
            self.stirred = true;
        }
    }

    /// Take an SCTP packet out of a DTLS record.
    pub(super) fn handle(&mut self, now: Instant, packet: Bytes) -> Edges {
        let is_init = guard::is_init(&packet);
        if is_init && (self.established.is_some() || self.inits >= MAX_INITS || !self.guard.on_init(&packet)) {
            return Edges::NONE;
        }
        if !self.guard.on_received(&packet) {
            return Edges::closed(CloseReason::DataProtocol);
        }
        self.inits += usize::from(is_init);
        self.start_at = self.start_at.filter(|_| !is_init);
        self.stirred = true;
        // The library's parsers have panicked on crafted chunks; that must cost the sender its transport and nobody else
        // anything. Nothing of the association is used after it.
        let handled = catch_unwind(AssertUnwindSafe(|| self.dispatch(now, packet)));
        handled.unwrap_or_else(|_| {
            self.established = None;
            self.pending.clear();
            Edges::closed(CloseReason::DataProtocol)
        })
    }

    fn dispatch(&mut self, now: Instant, packet: Bytes) -> Edges {
        match self.endpoint.handle(self.identity.std(now), FAR_END, None, packet) {
            Some((handle, DatagramEvent::NewAssociation(association))) => {
                if self.pending.len() >= MAX_PENDING {
                    self.pending.remove(0);
                }
                self.pending.push((handle, association));
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => {
                if self.handle == Some(handle) {
                    if let Some(association) = &mut self.established {
                        association.handle_event(event);
                    }
                } else if let Some((_, association)) = self.pending.iter_mut().find(|(known, _)| *known == handle) {
                    association.handle_event(event);
                }
            }
            _ => {}
        }
        self.progress(now)
    }

    /// Look what became of the association and its streams.
    fn progress(&mut self, now: Instant) -> Edges {
        let mut edges = self.establish(now);
        let Some(association) = &mut self.established else { return edges };
        while let Some(event) = association.poll() {
            match event {
                Event::Stream(StreamEvent::Opened { id }) => {
                    if self.streams.iter().any(|stream| stream.id == id) {
                        continue;
                    }
                    if self.streams.len() >= MAX_STREAMS {
                        return Edges::closed(CloseReason::DataProtocol);
                    }
                    self.streams.push(Stream { id, channel: None, open: false });
                }
                // Also told for each stream that was reset.
                Event::AssociationLost { reason, id } => {
                    self.lost_to_error |= matches!(reason, AssociationError::TransportError);
                    self.streams.retain(|stream| stream.id != id);
                }
                _ => {}
            }
        }
        let closed = association.is_closed();
        edges = edges.and(self.read(now));
        if closed {
            let reason = if self.lost_to_error { CloseReason::DataProtocol } else { CloseReason::ClosedByPeer };
            edges = edges.and(Edges::closed(reason));
        }
        edges.and(self.report_open())
    }

    /// Take the first association that is through its handshake.
    fn establish(&mut self, now: Instant) -> Edges {
        if self.established.is_some() {
            return Edges::NONE;
        }
        let Some(at) = self.pending.iter().position(|(_, association)| !association.is_handshaking()) else {
            return Edges::NONE;
        };
        let (handle, association) = self.pending.swap_remove(at);
        self.pending.clear();
        self.handle = Some(handle);
        self.established = Some(association);
        if self.open_channels && self.open_ours(now).is_none() {
            return Edges::closed(CloseReason::DataProtocol);
        }
        Edges::NONE
    }

    /// Open our channels. The DTLS client has the even stream numbers, the server the odd ones (RFC 8832, 6).
    fn open_ours(&mut self, now: Instant) -> Option<()> {
        let now = self.identity.std(now);
        let association = self.established.as_mut()?;
        let ids = if self.is_dtls_client { [0, 2, 4] } else { [1, 3, 5] };
        for (channel, id) in CHANNELS.into_iter().zip(ids) {
            let channel_type = match channel {
                DataChannel::Reliable => ChannelType::Reliable,
                DataChannel::Lossy | DataChannel::DataTrack => ChannelType::PartialReliableRexmitUnordered,
            };
            let open = Message::DataChannelOpen(DataChannelOpen {
                channel_type,
                priority: CHANNEL_PRIORITY_NORMAL,
                reliability_parameter: 0,
                label: label(channel).into(),
                protocol: Vec::new(),
            });
            let open = open.marshal().ok()?.freeze();
            let mut stream = association.open_stream(id, PayloadProtocolIdentifier::Binary).ok()?;
            let (unordered, reliability) = Reliability::get_reliability_params(channel_type);
            stream.set_reliability_params(unordered, reliability, 0).ok()?;
            stream.write_chunk_with_ppi(now, &open, PayloadProtocolIdentifier::Dcep).ok()?;
            self.streams.push(Stream { id, channel: Some(channel), open: false });
        }
        Some(())
    }

    /// Read what has arrived, as far as control keeps up.
    fn read(&mut self, now: Instant) -> Edges {
        for at in 0..self.streams.len() {
            while let Some((id, channel, open)) = self.streams.get(at).map(|s| (s.id, s.channel, s.open)) {
                let full = self.untaken >= self.limits.untaken;
                // Before it is open only DCEP can be in it. What is not reliable is read to be dropped.
                if full && open && channel == Some(DataChannel::Reliable) {
                    break;
                }
                let Some(association) = &mut self.established else { break };
                let Ok(mut stream) = association.stream(id) else { break };
                let Ok(Some(chunks)) = stream.read_sctp() else { break };
                self.stirred = true;
                self.guard.on_read(chunks.chunks.len(), chunks.len());
                if chunks.len() > self.limits.message {
                    return Edges::closed(CloseReason::DataProtocol);
                }
                let Ok(payload) = chunks.to_payload(self.limits.message) else { continue };
                match chunks.ppi {
                    PayloadProtocolIdentifier::Dcep => {
                        if self.on_dcep(now, at, &payload).is_none() {
                            return Edges::closed(CloseReason::DataProtocol);
                        }
                    }
                    PayloadProtocolIdentifier::String | PayloadProtocolIdentifier::Binary => {
                        self.on_message(channel, full, payload.freeze());
                    }
                    // Empty messages mean nothing in the protocol above.
                    _ => self.dropped += 1,
                }
            }
        }
        Edges::NONE
    }

    fn on_message(&mut self, channel: Option<DataChannel>, full: bool, payload: Bytes) {
        let Some(channel) = channel.filter(|_| !full && !payload.is_empty()) else {
            self.dropped += 1;
            return;
        };
        self.untaken += payload.len();
        self.received += 1;
        self.incoming.push_back((channel, payload));
    }

    /// A channel establishment message on the stream at `at`; `None` when it breaks the rules.
    fn on_dcep(&mut self, now: Instant, at: usize, payload: &[u8]) -> Option<()> {
        let mut cursor = payload;
        let message = Message::unmarshal(&mut cursor).ok()?;
        let stream = self.streams.get_mut(at)?;
        match message {
            Message::DataChannelAck(_) => stream.open = true,
            Message::DataChannelOpen(open) => {
                if stream.open {
                    return Some(());
                }
                stream.open = true;
                stream.channel = CHANNELS.into_iter().find(|channel| label(*channel).as_bytes() == open.label);
                let ack = Message::DataChannelAck(DataChannelAck {}).marshal().ok()?.freeze();
                let id = stream.id;
                let mut stream = self.established.as_mut()?.stream(id).ok()?;
                let (unordered, reliability) = Reliability::get_reliability_params(open.channel_type);
                stream.set_reliability_params(unordered, reliability, open.reliability_parameter).ok()?;
                stream.write_chunk_with_ppi(self.identity.std(now), &ack, PayloadProtocolIdentifier::Dcep).ok()?;
            }
            _ => return None,
        }
        Some(())
    }

    fn report_open(&mut self) -> Edges {
        let open = |channel| self.streams.iter().any(|stream| stream.open && stream.channel == Some(channel));
        if self.reported_open || !open(DataChannel::Reliable) || !open(DataChannel::Lossy) {
            return Edges::NONE;
        }
        self.reported_open = true;
        Edges { channels_open: true, ..Edges::NONE }
    }

    /// Queue a message. See [`crate::transport::Transport::send_data`].
    pub(super) fn send(&mut self, now: Instant, channel: DataChannel, message: &Bytes) -> Result<Edges, DropReason> {
        if message.len() > self.limits.message || message.is_empty() {
            return Err(DropReason::TooLarge);
        }
        let Some(association) = &mut self.established else { return Err(DropReason::NotConnected) };
        let mut target = None;
        let mut queued = 0;
        for stream in &self.streams {
            let buffered = association.stream(stream.id).and_then(|s| s.buffered_amount()).unwrap_or_default();
            queued += buffered;
            if stream.open && stream.channel == Some(channel) && target.is_none() {
                target = Some((stream.id, buffered));
            }
        }
        let (id, buffered) = target.ok_or(DropReason::NotConnected)?;
        let lossy = channel != DataChannel::Reliable;
        if lossy && (buffered + message.len() > self.limits.lossy || queued + message.len() > self.limits.queue) {
            self.dropped += 1;
            return Err(DropReason::Full);
        }
        if queued + message.len() > self.limits.queue {
            return Ok(Edges::closed(CloseReason::DataQueueFull));
        }
        let mut stream = association.stream(id).map_err(|_| DropReason::NotConnected)?;
        stream
            .write_chunk_with_ppi(self.identity.std(now), message, PayloadProtocolIdentifier::Binary)
            .map_err(|_| DropReason::NotConnected)?;
        self.stirred = true;
        self.sent += 1;
        Ok(Edges::NONE)
    }

    /// The next message received.
    pub(super) fn poll(&mut self) -> Option<(DataChannel, Bytes)> {
        self.incoming.pop_front()
    }

    /// Control has taken so many bytes: read on.
    pub(super) fn taken(&mut self, now: Instant, bytes: usize) -> Edges {
        let was_full = self.untaken >= self.limits.untaken;
        self.untaken = self.untaken.saturating_sub(bytes);
        if was_full && self.untaken < self.limits.untaken { self.progress(now) } else { Edges::NONE }
    }

    /// Whether there may be something to send.
    pub(super) fn wants_drain(&self) -> bool {
        self.stirred || !self.outgoing.is_empty()
    }

    /// The next SCTP packet to send.
    pub(super) fn next_packet(&mut self, now: Instant) -> Option<Bytes> {
        if self.outgoing.is_empty() && self.stirred {
            self.stirred = false;
            let now = self.identity.std(now);
            let pending = self.pending.iter_mut().map(|(_, association)| association);
            for association in self.established.iter_mut().chain(pending) {
                while let Some(transmit) = association.poll_transmit(now) {
                    if let Payload::RawEncode(packets) = transmit.message {
                        self.outgoing.extend(packets);
                    }
                }
            }
        }
        let packet = self.outgoing.pop_front()?;
        self.guard.on_sent(&packet);
        Some(packet)
    }

    /// Time has passed: retransmissions and delayed acknowledgements.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Edges {
        if self.start_at.is_some_and(|due| due <= now) {
            self.start(now);
        }
        let time = self.identity.std(now);
        let pending = self.pending.iter_mut().map(|(_, association)| association);
        for association in self.established.iter_mut().chain(pending) {
            if association.poll_timeout().is_some_and(|due| due <= time) {
                association.handle_timeout(time);
                self.stirred = true;
            }
        }
        if self.stirred { self.progress(now) } else { Edges::NONE }
    }

    /// When the next of these is due.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let pending = self.pending.iter().map(|(_, association)| association);
        let due = self.established.iter().chain(pending).filter_map(Association::poll_timeout).min();
        due.map(|due| self.identity.ours(due)).into_iter().chain(self.start_at).min()
    }
}
