//! Limits and times of transports. Every queue and table of a transport is bounded by one of these.
//!
//! Control makes one value from the configuration file; each shard gets a copy.

use core::time::Duration;

/// Limits and times, the same for all transports of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// A transport no authentic ICE check arrived for within this time is closed. Longer holds half-open transports of
    /// vanished clients; shorter cuts off clients that gather slowly.
    pub ice_timeout: Duration,
    /// The DTLS handshake, counted from the first valid ICE check, must be through within this time.
    pub dtls_timeout: Duration,
    /// A transport that heard nothing authentic (ICE check, SRTP, SRTCP, DTLS) for this long is closed. Browsers check
    /// consent every 2.7 s (Chromium) to 5.3 s (Firefox).
    pub liveness_timeout: Duration,
    /// Routes remembered per transport, 1 to 8; the oldest that is not selected is forgotten first.
    pub max_routes: usize,
    /// Transports of a shard that have not passed an ICE check yet.
    pub max_pending: usize,
    /// RTP streams remembered per transport for replay protection; the one silent longest is forgotten first.
    pub max_receive_streams: usize,
    /// RTP streams a transport may send over its life.
    pub max_send_streams: usize,
    /// Largest data message taken in, bytes; a longer one closes the transport.
    pub max_message: usize,
    /// Bytes the far end may have in flight to us over SCTP.
    pub receive_window: usize,
    /// Bytes of received messages control may have untaken before no more reliable data is read.
    pub untaken_budget: usize,
    /// Bytes that may wait to be sent as data; a reliable message beyond closes the transport.
    pub send_queue: usize,
    /// Bytes waiting beyond which lossy messages are dropped rather than queued.
    pub lossy_queue: usize,
    /// Bytes of data datagrams sent per drain call, so that data never delays media by more.
    pub drain_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ice_timeout: Duration::from_secs(20),
            dtls_timeout: Duration::from_secs(30),
            liveness_timeout: Duration::from_secs(10),
            max_routes: 8,
            max_pending: 1024,
            max_receive_streams: 1024,
            max_send_streams: 16_384,
            max_message: 65_535 + 1024,
            receive_window: 256 * 1024,
            untaken_budget: 256 * 1024,
            send_queue: 4 * 1024 * 1024,
            lossy_queue: 64 * 1024,
            drain_bytes: 64 * 1024,
        }
    }
}
