//! The real transport: ICE-lite, then DTLS, then SRTP beside SCTP, with one far end.
//!
//! Nothing counts before the layer below it: DTLS is taken only from routes that passed ICE, keys are used only when
//! the far end's certificate is the one signalled. The WebRTC libraries are named in the files below this one and
//! nowhere else in the core.

mod dtls;
mod hello;
pub mod identity;
mod sctp;

use std::sync::Arc;

use bytes::Bytes;

use crate::base::{DropReason, Instant};
use crate::shard::command::DataChannel;
use crate::shard::event::CloseReason;
use crate::shard::outbox::Outbox;
use crate::transport::ice::IceLite;
use crate::transport::params::{DtlsRole, Fingerprint, IceCredentials, RemoteParams, TransportParams};
use crate::transport::route::Route;
use crate::transport::srtp::Srtp;
use crate::transport::{Checked, Config, DtlsIdentity, Edges, Opened, TransportStats};
use dtls::{Dtls, Established, Step};
use sctp::Data;

/// SCTP packets kept while the handshake is through and the fingerprint to check it against is not known yet.
const MAX_EARLY: usize = 16;

/// See the module.
#[derive(Debug)]
pub struct WebRtcTransport {
    config: Config,
    ice: IceLite,
    dtls: Dtls,
    /// As signalled: the certificate, and our role.
    expected: Option<(Fingerprint, DtlsRole)>,
    /// The handshake is through, the fingerprint is awaited.
    unproven: Option<Unproven>,
    srtp: Option<Srtp>,
    data: Data,
    closed: bool,
    /// The latest time seen, for a timeout that is due at once.
    now: Instant,
    stats: TransportStats,
}

struct Unproven {
    established: Established,
    early: Vec<Bytes>,
}

impl core::fmt::Debug for Unproven {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Unproven").field("early", &self.early.len()).finish_non_exhaustive()
    }
}

impl WebRtcTransport {
    /// Waiting for checks to `params.local`.
    pub fn new(now: Instant, identity: &Arc<DtlsIdentity>, config: &Config, params: &TransportParams) -> Self {
        let mut transport = Self {
            ice: IceLite::new(now, &params.local, config),
            dtls: Dtls::new(identity),
            expected: None,
            unproven: None,
            srtp: None,
            data: Data::new(identity, params.open_channels, config),
            closed: false,
            now,
            stats: TransportStats::default(),
            config: config.clone(),
        };
        if let Some(remote) = &params.remote {
            // Nothing has been started yet that it could contradict.
            let _edges = transport.set_remote(now, remote);
        }
        transport
    }

    pub(super) fn handle_stun(
        &mut self,
        now: Instant,
        route: Route,
        packet: &[u8],
        out: &mut Outbox,
    ) -> Result<Checked, DropReason> {
        if self.closed {
            return Err(DropReason::StunRefused);
        }
        self.now = now;
        let checked = self.ice.handle_stun(now, route, packet, out)?;
        if let Some(route) = self.ice.route() {
            self.dtls.start(now, route, out);
        }
        Ok(checked)
    }

    pub(super) fn handle_dtls(
        &mut self,
        now: Instant,
        route: Route,
        packet: &[u8],
        out: &mut Outbox,
    ) -> Result<Edges, DropReason> {
        if self.closed || !self.ice.knows(route) {
            return Err(DropReason::DtlsRefused);
        }
        self.now = now;
        // Answers go where the checks say, which need not be where this came from.
        let answer_to = self.ice.route().unwrap_or(route);
        let step = self.dtls.handle(now, packet, answer_to, out)?;
        let edges = self.on_step(now, step);
        Ok(self.closing(edges))
    }

    fn on_step(&mut self, now: Instant, step: Step) -> Edges {
        let mut edges = Edges::NONE;
        if let Some(established) = step.established {
            self.unproven = Some(Unproven { established, early: Vec::new() });
            edges = self.prove(now);
        }
        for packet in step.data {
            if self.srtp.is_some() {
                self.alive(now);
                edges = edges.and(self.data.handle(now, packet));
            } else if let Some(unproven) = &mut self.unproven
                && unproven.early.len() < MAX_EARLY
            {
                unproven.early.push(packet);
            }
        }
        if let Some(reason) = step.closed {
            edges = edges.and(Edges::closed(reason));
        }
        edges
    }

    /// Compare certificate and signalled fingerprint when both are there; then the keys may be used.
    fn prove(&mut self, now: Instant) -> Edges {
        let Some((expected, _)) = self.expected else { return Edges::NONE };
        let Some(Unproven { established, early }) = self.unproven.take() else { return Edges::NONE };
        if established.fingerprint != expected {
            return Edges::closed(CloseReason::FingerprintMismatch);
        }
        let Some(srtp) = Srtp::new(established.profile, &established.material, self.dtls.is_client(), &self.config)
        else {
            return Edges::closed(CloseReason::DtlsFailed);
        };
        self.srtp = Some(srtp);
        self.data.connected(now, self.dtls.is_client());
        self.ice.heard(now);
        let mut edges = Edges { connected: true, ..Edges::NONE };
        for packet in early {
            edges = edges.and(self.data.handle(now, packet));
        }
        edges
    }

    pub(super) fn open_rtp(&mut self, now: Instant, packet: &mut [u8]) -> Result<Opened, DropReason> {
        let opened = self.srtp.as_mut().ok_or(DropReason::NoKeys)?.open_rtp(packet)?;
        self.alive(now);
        self.stats.rtp_opened += 1;
        Ok(opened)
    }

    pub(super) fn open_rtcp(&mut self, now: Instant, packet: &mut [u8]) -> Result<usize, DropReason> {
        let len = self.srtp.as_mut().ok_or(DropReason::NoKeys)?.open_rtcp(packet)?;
        self.alive(now);
        self.stats.rtcp_opened += 1;
        Ok(len)
    }

    pub(super) fn seal_rtp(
        &mut self,
        index: u64,
        header: &[u8],
        payload: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<(), DropReason> {
        self.srtp.as_mut().ok_or(DropReason::NotConnected)?.seal_rtp(index, header, payload, out)?;
        self.stats.sealed += 1;
        Ok(())
    }

    pub(super) fn seal_rtcp(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Result<(), DropReason> {
        self.srtp.as_mut().ok_or(DropReason::NotConnected)?.seal_rtcp(packet, out)?;
        self.stats.sealed += 1;
        Ok(())
    }

    pub(super) fn send_data(
        &mut self,
        now: Instant,
        channel: DataChannel,
        message: &Bytes,
    ) -> Result<Edges, DropReason> {
        if self.closed {
            return Err(DropReason::NotConnected);
        }
        self.now = now;
        let edges = self.data.send(now, channel, message)?;
        Ok(self.closing(edges))
    }

    pub(super) fn poll_data(&mut self) -> Option<(DataChannel, Bytes)> {
        self.data.poll()
    }

    pub(super) fn data_taken(&mut self, now: Instant, bytes: usize) -> Edges {
        if self.closed {
            return Edges::NONE;
        }
        self.now = now;
        let edges = self.data.taken(now, bytes);
        self.closing(edges)
    }

    pub(super) fn wants_drain(&self) -> bool {
        !self.closed && self.srtp.is_some() && self.data.wants_drain()
    }

    pub(super) fn drain_data(&mut self, now: Instant, out: &mut Outbox) -> Edges {
        self.now = now;
        let Some(route) = self.ice.route() else { return Edges::NONE };
        let mut left = self.config.drain_bytes;
        while self.wants_drain()
            && left > 0
            && let Some(packet) = self.data.next_packet(now)
        {
            left = left.saturating_sub(packet.len());
            self.dtls.write(now, &packet, route, out);
        }
        Edges::NONE
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) -> Edges {
        if self.closed {
            return Edges::NONE;
        }
        self.now = now;
        let (dead, reason) = self.deadline();
        if now >= dead {
            return self.closing(Edges::closed(reason));
        }
        if let Some(route) = self.ice.route() {
            self.dtls.handle_timeout(now, route, out);
        }
        let edges = self.data.handle_timeout(now);
        self.closing(edges)
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        if self.closed {
            return None;
        }
        if (self.wants_drain() || self.dtls.wants_start()) && self.ice.route().is_some() {
            return Some(self.now);
        }
        let (dead, _) = self.deadline();
        // Without a route nothing can be resent.
        let dtls = self.ice.route().and_then(|_| self.dtls.next_timeout());
        [Some(dead), dtls, self.data.next_timeout()].into_iter().flatten().min()
    }

    /// When the transport is dead if nothing happens, and as what.
    fn deadline(&self) -> (Instant, CloseReason) {
        let silent = self.ice.deadline();
        match self.ice.first_check() {
            Some(first) if self.srtp.is_none() => {
                let handshake = (first + self.config.dtls_timeout, CloseReason::DtlsFailed);
                if handshake.0 < silent.0 { handshake } else { silent }
            }
            _ => silent,
        }
    }

    pub(super) const fn route(&self) -> Option<Route> {
        if self.closed { None } else { self.ice.route() }
    }

    pub(super) const fn is_connected(&self) -> bool {
        self.srtp.is_some() && !self.closed
    }

    pub(super) fn set_remote(&mut self, now: Instant, remote: &RemoteParams) -> Edges {
        if self.closed {
            return Edges::NONE;
        }
        self.now = now;
        self.ice.set_remote_ufrag(&remote.ufrag);
        let told = (remote.fingerprint, remote.dtls);
        let fits = match self.expected {
            Some(known) => known == told,
            None => self.dtls.set_role(remote.dtls),
        };
        let edges = if fits {
            self.expected = Some(told);
            self.prove(now)
        } else {
            Edges::closed(CloseReason::FingerprintMismatch)
        };
        self.closing(edges)
    }

    pub(super) fn restart_ice(
        &mut self,
        now: Instant,
        local: &IceCredentials,
        remote: Option<&RemoteParams>,
    ) -> (Edges, Option<String>) {
        let retired = self.ice.restart(local);
        let edges = remote.map_or(Edges::NONE, |remote| self.set_remote(now, remote));
        (edges, retired)
    }

    pub(super) fn forget_route(&mut self, route: Route) {
        self.ice.forget(route);
    }

    pub(super) fn close(&mut self, now: Instant, out: &mut Outbox) {
        self.dtls.close(now, self.ice.route(), out);
        self.closed = true;
        self.srtp = None;
    }

    pub(super) fn arrived_by(&mut self, now: Instant, route: Route) {
        self.ice.arrived_by(now, route);
    }

    /// Something came that only the far end can have sent.
    fn alive(&mut self, now: Instant) {
        self.ice.heard(now);
        self.dtls.confirm();
    }

    /// From the first reason to close on, nothing works.
    const fn closing(&mut self, edges: Edges) -> Edges {
        if edges.closed.is_some() {
            self.closed = true;
        }
        edges
    }

    pub(super) const fn stats(&self) -> TransportStats {
        let (checks, route_changes) = self.ice.counts();
        TransportStats {
            checks,
            route_changes,
            messages_received: self.data.received,
            messages_sent: self.data.sent,
            messages_dropped: self.data.dropped,
            ..self.stats
        }
    }
}

#[cfg(test)]
mod tests;
