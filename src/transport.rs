//! One association with a far end: ICE-lite, DTLS, SRTP and SCTP, and the table that finds it by route or ufrag.
//!
//! Signalling hands over typed parameters ([`params`]); no SDP text comes in here. Called by [`crate::shard`] only.
//! A transport owns no socket and reads no clock: datagrams and time go in, datagrams go out through the
//! [`Outbox`], everything else is a returned value. [`webrtc`] is the real one, [`plain`] the same surface without
//! cryptography for simulation and benches.

pub mod config;
pub mod history;
pub(crate) mod ice;
pub mod params;
pub mod plain;
pub mod route;
pub mod rx;
pub mod srtp;
pub mod stats;
pub(crate) mod stun;
pub mod table;
pub mod tx;
pub mod webrtc;

use bytes::Bytes;

pub use config::Config;
pub use stats::TransportStats;
pub use table::{TransportKey, TransportTable};
pub use webrtc::identity::{DtlsIdentity, IdentityError, generate_identity};

use crate::base::{DropReason, Instant};
use crate::shard::command::DataChannel;
use crate::shard::event::CloseReason;
use crate::shard::outbox::Outbox;
use params::{IceCredentials, RemoteParams, TransportParams};
use plain::PlainTransport;
use route::Route;
use std::sync::Arc;
use webrtc::WebRtcTransport;

/// One association with a far end.
#[derive(Debug)]
pub enum Transport {
    /// ICE-lite, DTLS, SRTP, SCTP.
    WebRtc(Box<WebRtcTransport>),
    /// No handshake, nothing encrypted; only the shard's configuration can ask for it, never the network.
    Plain(Box<PlainTransport>),
}

/// What happened for the first time. Each is reported once in the life of a transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Edges {
    /// ICE and DTLS are through and the fingerprint is the one signalled: media flows.
    pub connected: bool,
    /// `_reliable` and `_lossy` are both open.
    pub channels_open: bool,
    /// The transport is dead; nothing works any more. Remove it.
    pub closed: Option<CloseReason>,
}

impl Edges {
    /// Nothing happened.
    pub const NONE: Self = Self { connected: false, channels_open: false, closed: None };

    /// Dead for this reason.
    pub const fn closed(reason: CloseReason) -> Self {
        Self { closed: Some(reason), ..Self::NONE }
    }

    /// Both; the first reason to close wins.
    pub const fn and(self, other: Self) -> Self {
        Self {
            connected: self.connected || other.connected,
            channels_open: self.channels_open || other.channels_open,
            closed: match self.closed {
                Some(reason) => Some(reason),
                None => other.closed,
            },
        }
    }

    /// Whether nothing happened.
    pub const fn is_none(&self) -> bool {
        !self.connected && !self.channels_open && self.closed.is_none()
    }
}

/// What an authentic ICE check changed. Hand it to [`TransportTable::apply`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The route the check came by, when it was not known before: datagrams from there are this transport's from now on.
    pub bound: Option<Route>,
    /// A route forgotten to make place.
    pub evicted: Option<Route>,
    /// After an ICE restart, the old local ufrag that is no longer valid.
    pub retired: Option<String>,
}

/// An opened SRTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Length of the plain RTP packet, from the start of the buffer.
    pub len: usize,
    /// Unwrapped packet index: roll-over counter << 16 | sequence number (RFC 3711, 3.3.1). 48 bits.
    pub index: u64,
}

impl Transport {
    /// A WebRTC transport waiting for ICE checks to `params.local`.
    pub fn webrtc(now: Instant, identity: &Arc<DtlsIdentity>, config: &Config, params: &TransportParams) -> Self {
        Self::WebRtc(Box::new(WebRtcTransport::new(now, identity, config, params)))
    }

    /// A plain transport, connected at once over `route`, which the caller binds with [`TransportTable::bind`].
    pub fn plain(route: Route, config: &Config) -> Self {
        Self::Plain(Box::new(PlainTransport::new(route, config)))
    }

    /// A plain transport that seals what it sends ([`PlainTransport::sealing`]), for benches.
    pub fn sealing(route: Route, config: &Config, material: &[u8]) -> Self {
        Self::Plain(Box::new(PlainTransport::sealing(route, config, material)))
    }

    /// A STUN message whose USERNAME starts with a ufrag of ours ([`TransportTable::find_stun`]). An authentic check is
    /// answered on the route it came by and keeps the transport alive.
    ///
    /// # Errors
    /// What was wrong with it; nothing changed, and nothing was sent unless it was authentic.
    pub fn handle_stun(
        &mut self,
        now: Instant,
        route: Route,
        packet: &[u8],
        out: &mut Outbox,
    ) -> Result<Checked, DropReason> {
        match self {
            Self::WebRtc(transport) => transport.handle_stun(now, route, packet, out),
            Self::Plain(_) => Err(DropReason::StunRefused),
        }
    }

    /// A datagram of DTLS records. Call [`Self::poll_data`] and, at the end of the turn, [`Self::drain_data`] after it.
    ///
    /// # Errors
    /// Why it was refused: the route has not passed ICE, or the transport is closed.
    pub fn handle_dtls(
        &mut self,
        now: Instant,
        route: Route,
        packet: &[u8],
        out: &mut Outbox,
    ) -> Result<Edges, DropReason> {
        match self {
            Self::WebRtc(transport) => transport.handle_dtls(now, route, packet, out),
            Self::Plain(transport) => transport.handle_message(packet),
        }
    }

    /// Open an SRTP packet in place: authenticate, check for replay, decrypt (RFC 3711, 3.3).
    ///
    /// # Errors
    /// Why it is not ours, not authentic or not new; the buffer's payload is then undefined.
    pub fn open_rtp(&mut self, now: Instant, packet: &mut [u8]) -> Result<Opened, DropReason> {
        match self {
            Self::WebRtc(transport) => transport.open_rtp(now, packet),
            Self::Plain(transport) => transport.open_rtp(packet),
        }
    }

    /// An SRTP or SRTCP packet that opened came by this route: the far end may have moved there.
    pub fn arrived_by(&mut self, now: Instant, route: Route) {
        if let Self::WebRtc(transport) = self {
            transport.arrived_by(now, route);
        }
    }

    /// Open an SRTCP packet in place and give the length of the plain compound packet (RFC 3711, 3.4).
    ///
    /// # Errors
    /// As [`Self::open_rtp`].
    pub fn open_rtcp(&mut self, now: Instant, packet: &mut [u8]) -> Result<usize, DropReason> {
        match self {
            Self::WebRtc(transport) => transport.open_rtcp(now, packet),
            Self::Plain(transport) => transport.open_rtcp(packet),
        }
    }

    /// Append a sealed RTP packet to `out`: `header` (from the first byte to the end of the extensions) in the clear,
    /// the parts of `payload` one after the other, encrypted. `index` is the caller's unwrapped sequence number of this
    /// SSRC (48 bits), its low 16 bits are those in `header`.
    ///
    /// An index may be sealed once per SSRC: a second packet with it would break the cipher.
    ///
    /// # Errors
    /// `NotConnected` without keys, `Duplicate` for an index used before, `TooLate` for one too far behind to tell,
    /// `MalformedRtp` for a header that is none, `Full` beyond [`Config::max_send_streams`]. `out` is unchanged then.
    pub fn seal_rtp(
        &mut self,
        index: u64,
        header: &[u8],
        payload: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<(), DropReason> {
        match self {
            Self::WebRtc(transport) => transport.seal_rtp(index, header, payload, out),
            Self::Plain(transport) => transport.seal_rtp(index, header, payload, out),
        }
    }

    /// Append a sealed compound RTCP packet to `out`.
    ///
    /// # Errors
    /// `NotConnected` without keys, `MalformedRtcp` for less than a header; `out` is unchanged then.
    pub fn seal_rtcp(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Result<(), DropReason> {
        match self {
            Self::WebRtc(transport) => transport.seal_rtcp(packet, out),
            Self::Plain(transport) => transport.seal_rtcp(packet, out),
        }
    }

    /// Queue a message on a data channel. It leaves with the next [`Self::drain_data`].
    ///
    /// A reliable message that does not fit the queue closes the transport (`Edges::closed`).
    ///
    /// # Errors
    /// `NotConnected` when there is no such channel (yet), `Full` for a lossy message dropped for lack of room,
    /// `TooLarge` beyond [`Config::max_message`].
    pub fn send_data(&mut self, now: Instant, channel: DataChannel, message: &Bytes) -> Result<Edges, DropReason> {
        match self {
            Self::WebRtc(transport) => transport.send_data(now, channel, message),
            Self::Plain(transport) => transport.send_data(channel, message),
        }
    }

    /// The next message received. Poll until `None` after each call that takes `out` or says so.
    pub fn poll_data(&mut self) -> Option<(DataChannel, Bytes)> {
        match self {
            Self::WebRtc(transport) => transport.poll_data(),
            Self::Plain(transport) => transport.poll_data(),
        }
    }

    /// Control took this many bytes of received messages off its hands: read on. Poll and drain after it.
    pub fn data_taken(&mut self, now: Instant, bytes: usize) -> Edges {
        match self {
            Self::WebRtc(transport) => transport.data_taken(now, bytes),
            Self::Plain(_) => Edges::NONE,
        }
    }

    /// Whether [`Self::drain_data`] has something to do. True after any call that may have queued data.
    pub fn wants_drain(&self) -> bool {
        match self {
            Self::WebRtc(transport) => transport.wants_drain(),
            Self::Plain(transport) => transport.wants_drain(),
        }
    }

    /// Send what waits on the data channels, at most [`Config::drain_bytes`]. To be called at the end of a turn, after
    /// media, for each transport that [`Self::wants_drain`]; while it still wants to then, [`Self::next_timeout`] is due
    /// at once.
    pub fn drain_data(&mut self, now: Instant, out: &mut Outbox) -> Edges {
        match self {
            Self::WebRtc(transport) => transport.drain_data(now, out),
            Self::Plain(transport) => transport.drain_data(out),
        }
    }

    /// Time has passed: retransmissions, time limits. Poll and drain after it.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) -> Edges {
        match self {
            Self::WebRtc(transport) => transport.handle_timeout(now, out),
            Self::Plain(_) => Edges::NONE,
        }
    }

    /// When [`Self::handle_timeout`] is due. May be earlier than needed, never later. It changes with each call that
    /// takes `now`; media only moves it back, so it need not be asked again after a media packet.
    pub fn next_timeout(&self) -> Option<Instant> {
        match self {
            Self::WebRtc(transport) => transport.next_timeout(),
            Self::Plain(_) => None,
        }
    }

    /// Where to send: the route of the latest USE-CANDIDATE check, before one that of the latest check.
    pub const fn route(&self) -> Option<Route> {
        match self {
            Self::WebRtc(transport) => transport.route(),
            Self::Plain(transport) => transport.route(),
        }
    }

    /// Whether media can be opened and sealed.
    pub const fn is_connected(&self) -> bool {
        match self {
            Self::WebRtc(transport) => transport.is_connected(),
            Self::Plain(_) => true,
        }
    }

    /// The far end's half became known or changed. A changed fingerprint or DTLS role closes the transport. Where we are
    /// DTLS client and have a route, [`Self::next_timeout`] is due at once: it starts the handshake.
    pub fn set_remote(&mut self, now: Instant, remote: &RemoteParams) -> Edges {
        match self {
            Self::WebRtc(transport) => transport.set_remote(now, remote),
            Self::Plain(_) => Edges::NONE,
        }
    }

    /// ICE restart (RFC 8445, 9): `local` is accepted from now on, the old credentials until a check with the new ones
    /// arrived. The caller adds the new ufrag to the table ([`TransportTable::add_ufrag`]). Gives the ufrag that is
    /// no longer valid when another restart was still under way.
    pub fn restart_ice(
        &mut self,
        now: Instant,
        local: &IceCredentials,
        remote: Option<&RemoteParams>,
    ) -> (Edges, Option<String>) {
        match self {
            Self::WebRtc(transport) => transport.restart_ice(now, local, remote),
            Self::Plain(_) => (Edges::NONE, None),
        }
    }

    /// A route is gone: its TCP connection ended, or another transport took it over.
    pub fn forget_route(&mut self, route: Route) {
        match self {
            Self::WebRtc(transport) => transport.forget_route(route),
            Self::Plain(transport) => transport.forget_route(route),
        }
    }

    /// Tell the far end that we are leaving (DTLS close_notify), where it can be told. Nothing works after it.
    pub fn close(&mut self, now: Instant, out: &mut Outbox) {
        match self {
            Self::WebRtc(transport) => transport.close(now, out),
            Self::Plain(transport) => transport.close(),
        }
    }

    /// Counters.
    pub const fn stats(&self) -> TransportStats {
        match self {
            Self::WebRtc(transport) => transport.stats(),
            Self::Plain(transport) => transport.stats(),
        }
    }
}
