//! The transport surface without cryptography: for simulation and benches, never for the network.
//!
//! Connected at once over the route it is given. RTP and RTCP pass as they are. A data message is one datagram: a
//! leading byte 20 (a DTLS content type, so that demultiplexing sends it the right way), a channel byte, the message.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::base::DropReason;
use crate::shard::command::DataChannel;
use crate::shard::event::CloseReason;
use crate::shard::outbox::Outbox;
use crate::transport::route::Route;
use crate::transport::srtp::{Profile, Srtp, unwrap_index};
use crate::transport::{Config, Edges, Opened, TransportStats};

/// First byte of a data message.
pub const DATA: u8 = 20;
const RTP_HEADER: usize = 12;
const RTCP_HEADER: usize = 8;

/// See the module.
#[derive(Debug)]
pub struct PlainTransport {
    route: Option<Route>,
    streams: Vec<Stream>,
    max_streams: usize,
    max_message: usize,
    send_queue: usize,
    incoming: VecDeque<(DataChannel, Bytes)>,
    outgoing: VecDeque<(DataChannel, Bytes)>,
    outgoing_bytes: usize,
    stats: TransportStats,
    /// Seals what is sent, for benches; what comes stays plain.
    sealing: Option<Box<Srtp>>,
}

/// Highest packet index seen of an SSRC, to unwrap the next.
#[derive(Debug)]
struct Stream {
    ssrc: u32,
    highest: u64,
}

impl PlainTransport {
    /// Connected over `route`.
    pub fn new(route: Route, config: &Config) -> Self {
        Self {
            route: Some(route),
            streams: Vec::new(),
            max_streams: config.max_receive_streams,
            max_message: config.max_message,
            send_queue: config.send_queue,
            incoming: VecDeque::new(),
            outgoing: VecDeque::new(),
            outgoing_bytes: 0,
            stats: TransportStats::default(),
            sealing: None,
        }
    }

    /// The same, but what is sent is sealed with AEAD_AES_128_GCM under keys nobody negotiated (as
    /// [`Profile::exported`] has them): measures what a real subscriber costs. Too little material: plain.
    pub fn sealing(route: Route, config: &Config, material: &[u8]) -> Self {
        let sealing = Srtp::new(Profile::AeadAes128Gcm, material, false, config).map(Box::new);
        Self { sealing, ..Self::new(route, config) }
    }

    pub(super) fn handle_message(&mut self, packet: &[u8]) -> Result<Edges, DropReason> {
        let (&[DATA, channel], message) = packet.split_first_chunk().ok_or(DropReason::DtlsRefused)? else {
            return Err(DropReason::DtlsRefused);
        };
        let channel = match channel {
            0 => DataChannel::Reliable,
            1 => DataChannel::Lossy,
            2 => DataChannel::DataTrack,
            _ => return Err(DropReason::DtlsRefused),
        };
        self.incoming.push_back((channel, Bytes::copy_from_slice(message)));
        self.stats.messages_received += 1;
        Ok(Edges::NONE)
    }

    pub(super) fn open_rtp(&mut self, packet: &[u8]) -> Result<Opened, DropReason> {
        let &[first, _, s0, s1, _, _, _, _, r0, r1, r2, r3] =
            packet.first_chunk::<RTP_HEADER>().ok_or(DropReason::MalformedRtp)?;
        if first >> 6 != 2 {
            return Err(DropReason::MalformedRtp);
        }
        let (seq, ssrc) = (u16::from_be_bytes([s0, s1]), u32::from_be_bytes([r0, r1, r2, r3]));
        let index = if let Some(stream) = self.streams.iter_mut().find(|stream| stream.ssrc == ssrc) {
            let index = unwrap_index(stream.highest, seq);
            stream.highest = stream.highest.max(index);
            index
        } else if self.streams.len() < self.max_streams {
            self.streams.push(Stream { ssrc, highest: u64::from(seq) });
            u64::from(seq)
        } else {
            return Err(DropReason::Full);
        };
        self.stats.rtp_opened += 1;
        Ok(Opened { len: packet.len(), index })
    }

    pub(super) const fn open_rtcp(&mut self, packet: &[u8]) -> Result<usize, DropReason> {
        if packet.len() < RTCP_HEADER {
            return Err(DropReason::MalformedRtcp);
        }
        self.stats.rtcp_opened += 1;
        Ok(packet.len())
    }

    pub(super) fn seal_rtp(
        &mut self,
        index: u64,
        header: &[u8],
        payload: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<(), DropReason> {
        if let Some(srtp) = &mut self.sealing {
            self.stats.sealed += 1;
            return srtp.seal_rtp(index, header, payload, out);
        }
        if header.len() < RTP_HEADER {
            return Err(DropReason::MalformedRtp);
        }
        out.extend_from_slice(header);
        for part in payload {
            out.extend_from_slice(part);
        }
        self.stats.sealed += 1;
        Ok(())
    }

    pub(super) fn seal_rtcp(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Result<(), DropReason> {
        if packet.len() < RTCP_HEADER {
            return Err(DropReason::MalformedRtcp);
        }
        out.extend_from_slice(packet);
        self.stats.sealed += 1;
        Ok(())
    }

    pub(super) fn send_data(&mut self, channel: DataChannel, message: &Bytes) -> Result<Edges, DropReason> {
        if message.len() > self.max_message {
            return Err(DropReason::TooLarge);
        }
        if self.outgoing_bytes + message.len() > self.send_queue {
            return match channel {
                DataChannel::Reliable => Ok(Edges::closed(CloseReason::DataQueueFull)),
                DataChannel::Lossy | DataChannel::DataTrack => Err(DropReason::Full),
            };
        }
        self.outgoing_bytes += message.len();
        self.outgoing.push_back((channel, message.clone()));
        self.stats.messages_sent += 1;
        Ok(Edges::NONE)
    }

    pub(super) fn poll_data(&mut self) -> Option<(DataChannel, Bytes)> {
        self.incoming.pop_front()
    }

    pub(super) const fn wants_drain(&self) -> bool {
        self.outgoing_bytes > 0
    }

    pub(super) fn drain_data(&mut self, out: &mut Outbox) -> Edges {
        self.outgoing_bytes = 0;
        for (channel, message) in self.outgoing.drain(..) {
            let Some(route) = self.route else { continue };
            let channel = match channel {
                DataChannel::Reliable => 0,
                DataChannel::Lossy => 1,
                DataChannel::DataTrack => 2,
            };
            out.datagram(route, |arena| {
                arena.extend_from_slice(&[DATA, channel]);
                arena.extend_from_slice(&message);
                Some(())
            });
        }
        Edges::NONE
    }

    pub(super) const fn route(&self) -> Option<Route> {
        self.route
    }

    pub(super) fn forget_route(&mut self, route: Route) {
        if self.route == Some(route) {
            self.route = None;
        }
    }

    pub(super) const fn close(&mut self) {
        self.route = None;
    }

    pub(super) const fn stats(&self) -> TransportStats {
        self.stats
    }
}
