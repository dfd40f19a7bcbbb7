//! The real transport.

pub mod identity;

use std::sync::Arc;

use bytes::Bytes;

use crate::base::{DropReason, Instant};
use crate::shard::command::DataChannel;
use crate::shard::outbox::Outbox;
use crate::transport::params::{IceCredentials, RemoteParams, TransportParams};
use crate::transport::route::Route;
use crate::transport::{Checked, Config, DtlsIdentity, Edges, Opened, TransportStats};

/// ICE-lite, DTLS, SRTP and SCTP with one far end.
#[derive(Debug)]
pub struct WebRtcTransport {}

#[allow(clippy::needless_pass_by_ref_mut, clippy::unused_self, reason = "bodies follow")]
impl WebRtcTransport {
    /// Waiting for checks.
    pub fn new(_now: Instant, _identity: &Arc<DtlsIdentity>, _config: &Config, _params: TransportParams) -> Self {
        Self {}
    }
    pub(super) fn handle_stun(
        &mut self,
        _now: Instant,
        _route: Route,
        _packet: &[u8],
        _out: &mut Outbox,
    ) -> Result<Checked, DropReason> {
        Err(DropReason::StunRefused)
    }
    pub(super) fn handle_dtls(
        &mut self,
        _now: Instant,
        _route: Route,
        _packet: &[u8],
        _out: &mut Outbox,
    ) -> Result<Edges, DropReason> {
        Err(DropReason::DtlsRefused)
    }
    pub(super) fn open_rtp(&mut self, _now: Instant, _packet: &mut [u8]) -> Result<Opened, DropReason> {
        Err(DropReason::NoKeys)
    }
    pub(super) fn open_rtcp(&mut self, _now: Instant, _packet: &mut [u8]) -> Result<usize, DropReason> {
        Err(DropReason::NoKeys)
    }
    pub(super) fn seal_rtp(
        &mut self,
        _index: u64,
        _header: &[u8],
        _payload: &[&[u8]],
        _out: &mut Vec<u8>,
    ) -> Result<(), DropReason> {
        Err(DropReason::NotConnected)
    }
    pub(super) fn seal_rtcp(&mut self, _packet: &[u8], _out: &mut Vec<u8>) -> Result<(), DropReason> {
        Err(DropReason::NotConnected)
    }
    pub(super) fn send_data(
        &mut self,
        _now: Instant,
        _channel: DataChannel,
        _message: &Bytes,
    ) -> Result<Edges, DropReason> {
        Err(DropReason::NotConnected)
    }
    pub(super) fn poll_data(&mut self) -> Option<(DataChannel, Bytes)> {
        None
    }
    pub(super) fn data_taken(&mut self, _now: Instant, _bytes: usize) -> Edges {
        Edges::NONE
    }
    pub(super) const fn wants_drain(&self) -> bool {
        false
    }
    pub(super) fn drain_data(&mut self, _now: Instant, _out: &mut Outbox) -> Edges {
        Edges::NONE
    }
    pub(super) fn handle_timeout(&mut self, _now: Instant, _out: &mut Outbox) -> Edges {
        Edges::NONE
    }
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        None
    }
    pub(super) const fn route(&self) -> Option<Route> {
        None
    }
    pub(super) const fn is_connected(&self) -> bool {
        false
    }
    pub(super) fn set_remote(&mut self, _now: Instant, _remote: &RemoteParams) -> Edges {
        Edges::NONE
    }
    pub(super) fn restart_ice(
        &mut self,
        _local: IceCredentials,
        _remote: Option<&RemoteParams>,
    ) -> (Edges, Option<String>) {
        (Edges::NONE, None)
    }
    pub(super) fn forget_route(&mut self, _route: Route) {}
    pub(super) fn close(&mut self, _now: Instant, _out: &mut Outbox) {}
    pub(super) const fn stats(&self) -> TransportStats {
        TransportStats {
            checks: 0,
            route_changes: 0,
            rtp_opened: 0,
            rtcp_opened: 0,
            sealed: 0,
            messages_received: 0,
            messages_sent: 0,
            messages_dropped: 0,
        }
    }
}
