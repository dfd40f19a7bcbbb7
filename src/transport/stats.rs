//! Counters of one transport.

/// Plain counters since the transport was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransportStats {
    /// ICE checks answered with success.
    pub checks: u64,
    /// Times the selected route changed.
    pub route_changes: u64,
    /// SRTP packets opened.
    pub rtp_opened: u64,
    /// SRTCP packets opened.
    pub rtcp_opened: u64,
    /// SRTP and SRTCP packets sealed.
    pub sealed: u64,
    /// Data messages received and handed on.
    pub messages_received: u64,
    /// Data messages accepted for sending.
    pub messages_sent: u64,
    /// Lossy messages dropped, either direction, because too much was waiting.
    pub messages_dropped: u64,
}
