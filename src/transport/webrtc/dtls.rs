//! DTLS 1.2 (RFC 6347, RFC 5763) on the `rtc-dtls` state machine: as server, or as client where the far end wants it so.
//!
//! Around the library stands what it lacks: the SRTP profile by our preference ([`super::hello`]), limits on what an
//! unauthenticated or hostile far end can make it store, and resending of our last flight when the far end repeats its
//! own. The library knows connections by address; it gets a made-up one, so that the
//! real route may change freely.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::{Bytes, BytesMut};
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_shared::TransportProtocol;
use rtc_shared::error::Error;

use super::hello::{HelloCollector, Records};
use super::identity::DtlsIdentity;
use crate::base::{DropReason, Instant};
use crate::shard::event::CloseReason;
use crate::shard::outbox::Outbox;
use crate::transport::params::{DtlsRole, Fingerprint};
use crate::transport::route::Route;
use crate::transport::srtp::Profile;

/// The address the library knows the far end by.
const FAR_END: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::new(192, 0, 2, 1), 1));
/// Bytes taken before the handshake is through. A flight has at most 3 kB and is repeated a few times.
const HANDSHAKE_BYTES: usize = 64 * 1024;
/// Handshake fragments taken in the clear: the library joins them by recursion, so their number is stack depth.
const FRAGMENTS: usize = 512;
/// Bytes of encrypted handshake records and of handshake records after the handshake, over the life of the transport:
/// a Finished message is 50 bytes.
const LATE_BYTES: usize = 16 * 1024;
/// Our flight is sent again at most this often on request, and not sooner than this.
const RESENDS: u32 = 12;
const RESEND_INTERVAL: core::time::Duration = core::time::Duration::from_millis(40);
/// Unasked, our flight is sent again after this, then twice as long, and so on up to eight times.
const RESEND_UNASKED: core::time::Duration = core::time::Duration::from_millis(600);

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const HANDSHAKE_HEADER: usize = 12;
const RECORD_HEADER: usize = 13;

/// The DTLS association of a transport.
pub(super) struct Dtls {
    identity: Arc<DtlsIdentity>,
    endpoint: Endpoint,
    is_client: bool,
    state: State,
    /// What [`HelloCollector`] chose.
    profile: Profile,
    /// As client, the number of the next record in the clear.
    record: u64,
    handshake_left: usize,
    fragments_left: usize,
    late_left: usize,
    flight: Vec<BytesMut>,
    flight_sent: Instant,
    resends: u32,
}

impl core::fmt::Debug for Dtls {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Dtls").field("state", &self.state).field("profile", &self.profile).finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum State {
    /// Waiting for a whole ClientHello.
    Hello(HelloCollector),
    /// The ClientHello is ours to send.
    Start,
    Handshake,
    Established,
    Closed,
}

/// What a finished handshake gives.
pub(super) struct Established {
    /// Of the far end's certificate, whose key it has proved to have.
    pub(super) fingerprint: Fingerprint,
    pub(super) profile: Profile,
    /// As [`crate::transport::srtp::Srtp::new`] takes it.
    pub(super) material: Vec<u8>,
}

/// What a datagram brought about.
#[derive(Default)]
pub(super) struct Step {
    pub(super) established: Option<Established>,
    pub(super) closed: Option<CloseReason>,
    /// Decrypted records in order.
    pub(super) data: Vec<Bytes>,
}

impl Dtls {
    pub(super) fn new(identity: &Arc<DtlsIdentity>) -> Self {
        let any = SocketAddr::from(([192, 0, 2, 2], 1));
        Self {
            identity: Arc::clone(identity),
            endpoint: Endpoint::new(any, TransportProtocol::UDP, None),
            is_client: false,
            state: State::Hello(HelloCollector::default()),
            profile: Profile::Aes128CmSha1,
            record: 0,
            handshake_left: HANDSHAKE_BYTES,
            fragments_left: FRAGMENTS,
            late_left: LATE_BYTES,
            flight: Vec::new(),
            flight_sent: Instant::ZERO,
            resends: 0,
        }
    }

    /// What signalling made our role, told once; false when a handshake in the other one is under way.
    pub(super) fn set_role(&mut self, role: DtlsRole) -> bool {
        match (role, &self.state) {
            (DtlsRole::Passive, _) => true,
            (DtlsRole::Active, State::Hello(_)) => {
                self.is_client = true;
                self.state = State::Start;
                true
            }
            (DtlsRole::Active, _) => false,
        }
    }

    /// Whether the handshake is ours to start, and not started.
    pub(super) const fn wants_start(&self) -> bool {
        matches!(self.state, State::Start)
    }

    /// Send the ClientHello if that is due, now that `route` has passed ICE.
    pub(super) fn start(&mut self, now: Instant, route: Route, out: &mut Outbox) {
        if self.wants_start() {
            self.state = State::Handshake;
            let config = Arc::clone(self.identity.client_config());
            // Only a lack of randomness can fail; then the handshake runs out of time.
            let _started = self.endpoint.connect(self.identity.std(now), FAR_END, config, None);
            self.send(now, route, out, false);
        }
    }

    pub(super) const fn is_client(&self) -> bool {
        self.is_client
    }

    /// Take a datagram from a route that has passed ICE.
    ///
    /// # Errors
    /// `DtlsRefused` when nothing in it was of use.
    pub(super) fn handle(
        &mut self,
        now: Instant,
        packet: &[u8],
        route: Route,
        out: &mut Outbox,
    ) -> Result<Step, DropReason> {
        let mut step = Step::default();
        match &mut self.state {
            State::Start | State::Closed => return Err(DropReason::DtlsRefused),
            State::Hello(collector) => {
                let Some((profile, datagrams)) = collector.push(packet) else { return Ok(step) };
                self.profile = profile;
                self.endpoint.set_server_config(Some(Arc::clone(self.identity.server_config(profile))));
                self.state = State::Handshake;
                for datagram in datagrams {
                    self.feed(now, &datagram, route, out, &mut step);
                }
            }
            State::Handshake | State::Established => self.feed(now, packet, route, out, &mut step),
        }
        if step.closed.is_some() {
            self.state = State::Closed;
        }
        Ok(step)
    }

    fn feed(&mut self, now: Instant, packet: &[u8], route: Route, out: &mut Outbox, step: &mut Step) {
        let (admitted, has_handshake) = self.admit(packet);
        if admitted.is_empty() {
            if matches!(self.state, State::Handshake) && self.handshake_left == 0 {
                step.closed = Some(CloseReason::DtlsFailed);
            }
            return;
        }
        // Should the library panic on something crafted, its sender loses the transport and nobody else anything.
        let time = self.identity.std(now);
        let read = AssertUnwindSafe(|| self.endpoint.read(time, FAR_END, None, admitted));
        let Ok(result) = catch_unwind(read) else {
            step.closed = Some(CloseReason::DtlsFailed);
            return;
        };
        let sent = self.send(now, route, out, result.is_err());
        match result {
            Ok(events) => {
                for event in events {
                    self.on_event(event, step);
                }
            }
            // A fatal alert of the far end, or a handshake that cannot go on. Later, only the first is the end: whatever
            // else is wrong with a record is that record's problem.
            Err(Error::ErrAlertFatalOrClose) if matches!(self.state, State::Established) => {
                step.closed = Some(CloseReason::ClosedByPeer);
            }
            Err(_) if matches!(self.state, State::Handshake) => step.closed = Some(CloseReason::DtlsFailed),
            Err(_) => {}
        }
        // A server repeats itself for want of our next flight, if at all, and that has its own timer.
        let repeated = has_handshake && !sent && !self.is_client && matches!(self.state, State::Handshake);
        if repeated && now.since(self.flight_sent) >= RESEND_INTERVAL {
            self.resend(now, route, out);
        }
    }

    fn resend(&mut self, now: Instant, route: Route, out: &mut Outbox) {
        if self.resends < RESENDS {
            self.resends += 1;
            self.flight_sent = now;
            for datagram in &mut self.flight {
                if self.is_client && !is_second_hello(datagram) {
                    renumber(datagram, &mut self.record);
                }
                transmit(route, datagram, out);
            }
        }
    }

    /// The far end has shown that it has the keys: our last flight arrived.
    pub(super) fn confirm(&mut self) {
        if !self.flight.is_empty() {
            self.flight = Vec::new();
        }
    }

    fn on_event(&mut self, event: EndpointEvent, step: &mut Step) {
        match event {
            EndpointEvent::HandshakeComplete => match self.established() {
                Some(established) => {
                    self.state = State::Established;
                    if self.is_client {
                        // The server's Finished says that it has ours.
                        self.confirm();
                    }
                    step.established = Some(established);
                }
                None => step.closed = Some(CloseReason::DtlsFailed),
            },
            EndpointEvent::ApplicationData(data) => step.data.push(data.freeze()),
            EndpointEvent::PeerClosed => step.closed = Some(CloseReason::ClosedByPeer),
            _ => {}
        }
    }

    fn established(&self) -> Option<Established> {
        let state = self.endpoint.get_connection_state(FAR_END)?;
        let negotiated = match state.srtp_protection_profile() {
            SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => Profile::AeadAes128Gcm,
            SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => Profile::Aes128CmSha1,
            _ => return None,
        };
        let material = state.export_keying_material("EXTRACTOR-dtls_srtp", &[], negotiated.exported()).ok()?;
        let digest = digest::digest(&digest::SHA256, state.peer_certificates.first()?);
        let fingerprint = Fingerprint(*digest.as_ref().first_chunk()?);
        Some(Established { fingerprint, profile: negotiated, material: material.as_ref().to_vec() })
    }

    /// The records of a datagram that may reach the library, and whether a handshake record is among them.
    fn admit(&mut self, packet: &[u8]) -> (BytesMut, bool) {
        let mut admitted = BytesMut::with_capacity(packet.len());
        let mut has_handshake = false;
        let established = matches!(self.state, State::Established);
        for record in Records::new(packet) {
            let size = record.whole.len();
            // One of the next epoch would be queued without limit.
            let fits = match (record.kind, record.epoch) {
                (HANDSHAKE, 0) if !established => take(&mut self.fragments_left, fragments(record.body)),
                (HANDSHAKE, 0 | 1) => take(&mut self.late_left, size),
                (CHANGE_CIPHER_SPEC, 0) => !established,
                (ALERT, 0) => !established,
                (ALERT | APPLICATION_DATA, 1) => true,
                _ => false,
            };
            if !fits {
                continue;
            }
            if !established && !take(&mut self.handshake_left, size) {
                self.handshake_left = 0;
                break;
            }
            has_handshake |= record.kind == HANDSHAKE;
            admitted.extend_from_slice(record.whole);
        }
        (admitted, has_handshake)
    }

    /// Hand over what the library wants sent; whether there was something.
    fn send(&mut self, now: Instant, route: Route, out: &mut Outbox, failed: bool) -> bool {
        let mut first = true;
        while let Some(mut message) = self.endpoint.poll_transmit() {
            if self.is_client {
                // The library raises a fatal alert, and goes on, when the server's first flight comes in the wrong order.
                let is_alert = message.message.first() == Some(&ALERT);
                if is_alert && !failed && matches!(self.state, State::Handshake) {
                    continue;
                }
                renumber(&mut message.message, &mut self.record);
            }
            if matches!(self.state, State::Handshake) {
                if first {
                    self.flight.clear();
                    self.flight_sent = now;
                    self.resends = 0;
                }
                self.flight.push(message.message.clone());
            }
            first = false;
            transmit(route, &message.message, out);
        }
        !first
    }

    /// Encrypt and send application data.
    pub(super) fn write(&mut self, now: Instant, data: &[u8], route: Route, out: &mut Outbox) {
        if matches!(self.state, State::Established)
            && self.endpoint.write(self.identity.std(now), FAR_END, data).is_ok()
        {
            self.send(now, route, out, false);
        }
    }

    /// Time has passed: send our flight if it is due, for the first time or again.
    pub(super) fn handle_timeout(&mut self, now: Instant, route: Route, out: &mut Outbox) {
        self.start(now, route, out);
        if self.next_timeout().is_some_and(|due| due <= now) {
            self.resend(now, route, out);
        }
    }

    /// When our flight goes out again unasked. The library's own timer is not used: it is lost with half a flight of the
    /// far end, and gives up after eight seconds. A far end built on the same library needs this even after the handshake.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let waiting = matches!(self.state, State::Handshake | State::Established);
        if !waiting || self.flight.is_empty() || self.resends >= RESENDS {
            return None;
        }
        Some(self.flight_sent + RESEND_UNASKED * (1 << self.resends.min(3)))
    }

    /// Say goodbye.
    pub(super) fn close(&mut self, now: Instant, route: Option<Route>, out: &mut Outbox) {
        if matches!(self.state, State::Handshake | State::Established) {
            self.endpoint.stop(self.identity.std(now), FAR_END);
            self.state = State::Closed;
            if let Some(route) = route {
                self.send(now, route, out, false);
            }
        }
        self.state = State::Closed;
    }
}

/// Whether a datagram starts with a ClientHello that is the client's second message (RFC 6347, 4.2.1). A server that has it
/// repeats its own flight unasked; one on the library we use even stops doing so when it takes the hello again.
fn is_second_hello(datagram: &[u8]) -> bool {
    matches!(datagram.get(RECORD_HEADER..), Some(&[1, _, _, _, 0, 1, ..])) && datagram.first() == Some(&HANDSHAKE)
}

fn transmit(route: Route, datagram: &[u8], out: &mut Outbox) {
    out.datagram(route, |arena| {
        arena.extend_from_slice(datagram);
        Some(())
    });
}

/// Take from a budget; false, and nothing taken, when it does not suffice.
const fn take(left: &mut usize, amount: usize) -> bool {
    if *left < amount {
        return false;
    }
    *left -= amount;
    true
}

/// Give the records of a datagram that are in the clear the next numbers.
///
/// A server that has seen a record drops its repetition as a replay (RFC 6347, 4.1.2.6), but only the repetition of our
/// first and last flight makes it repeat its own, when that was lost. Numbers are ours from the first record on, lest the library use
/// one again. What is encrypted cannot be renumbered and need not: one record with a new number is enough.
fn renumber(mut datagram: &mut [u8], next: &mut u64) {
    while let Some((header, rest)) = datagram.split_first_chunk_mut::<RECORD_HEADER>() {
        let [_, _, _, e0, e1, number @ .., n0, n1] = header;
        if (*e0, *e1) == (0, 0) {
            let [_, _, low @ ..] = next.to_be_bytes();
            *number = low;
            *next += 1;
        }
        let Some((_, rest)) = rest.split_at_mut_checked(usize::from(u16::from_be_bytes([*n0, *n1]))) else { return };
        datagram = rest;
    }
}

/// Handshake fragments in a record in the clear.
fn fragments(mut body: &[u8]) -> usize {
    let mut count = 0;
    while let Some(&[.., n0, n1, n2]) = body.first_chunk::<HANDSHAKE_HEADER>() {
        let size = (usize::from(n0) << 16) | (usize::from(n1) << 8) | usize::from(n2);
        count += 1;
        let Some(rest) = body.get(HANDSHAKE_HEADER + size..) else { break };
        body = rest;
    }
    count
}
