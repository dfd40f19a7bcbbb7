//! SRTP and SRTCP in place, into the caller's buffers, without allocation (RFC 3711, RFC 7714).
//!
//! One [`Srtp`] holds both directions of a transport. Sequence numbers are unwrapped and replays refused here when a
//! packet is opened; when one is sealed the caller brings the unwrapped index.
//!
//! Why no nonce is ever used twice, which would lose both secrecy and authenticity of AES-GCM: the nonce is made of
//! SSRC and 48-bit index (RTP) or SSRC and 31-bit index (RTCP) under a key per direction and per protocol. For RTP
//! `sent` remembers the indices used of each SSRC and refuses a second use and what is too old to tell; it never forgets
//! an SSRC. For RTCP a counter of the whole transport only goes up. Both refuse to wrap.

mod cipher;
mod stream;

use crate::base::DropReason;
use crate::transport::{Config, Opened};
use cipher::Cipher;
pub(crate) use stream::unwrap_index;
use stream::{Streams, WhenFull};

/// SRTP protection profile (RFC 5764, 4.1.2; RFC 7714, 14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// `SRTP_AEAD_AES_128_GCM`, 0x0007: one pass, four times as fast as the other.
    AeadAes128Gcm,
    /// `SRTP_AES128_CM_HMAC_SHA1_80`, 0x0001: what every WebRTC client has.
    Aes128CmSha1,
}

impl Profile {
    /// Bytes of a master salt.
    pub const fn salt(self) -> usize {
        match self {
            Self::AeadAes128Gcm => 12,
            Self::Aes128CmSha1 => 14,
        }
    }

    /// Bytes of keying material to export from DTLS: two keys and two salts (RFC 5764, 4.2).
    pub const fn exported(self) -> usize {
        2 * (KEY + self.salt())
    }
}

/// Bytes of a master key.
const KEY: usize = 16;
/// First bytes of an RTP header, up to the SSRC.
const RTP_HEADER: usize = 12;
/// What stays in the clear of an RTCP packet.
const RTCP_HEADER: usize = 8;
/// The E flag and the index of SRTCP.
const TRAILER: usize = 4;
const ENCRYPTED: u32 = 1 << 31;
const MAX_RTP_INDEX: u64 = (1 << 48) - 1;
const MAX_RTCP_INDEX: u32 = (1 << 31) - 1;

/// Keys and packet indices of a connected transport.
pub struct Srtp {
    inbound: Cipher,
    outbound: Cipher,
    received: Streams,
    received_rtcp: Streams,
    sent: Streams,
    rtcp_index: u32,
}

impl core::fmt::Debug for Srtp {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Srtp").field("rtcp_index", &self.rtcp_index).finish_non_exhaustive()
    }
}

impl Srtp {
    /// From the keying material DTLS exported: client key, server key, client salt, server salt (RFC 5764, 4.2). `None`
    /// when there is too little of it.
    pub fn new(profile: Profile, material: &[u8], we_are_client: bool, config: &Config) -> Option<Self> {
        let (client_key, rest) = material.split_at_checked(KEY)?;
        let (server_key, rest) = rest.split_at_checked(KEY)?;
        let (client_salt, rest) = rest.split_at_checked(profile.salt())?;
        let (server_salt, _) = rest.split_at_checked(profile.salt())?;
        let client = Cipher::new(profile, client_key, client_salt)?;
        let server = Cipher::new(profile, server_key, server_salt)?;
        let (inbound, outbound) = if we_are_client { (server, client) } else { (client, server) };
        Some(Self {
            inbound,
            outbound,
            received: Streams::new(config.max_receive_streams, WhenFull::ForgetOldest),
            received_rtcp: Streams::new(config.max_receive_streams, WhenFull::ForgetOldest),
            sent: Streams::new(config.max_send_streams, WhenFull::Refuse),
            rtcp_index: 0,
        })
    }

    /// Open an SRTP packet in place.
    ///
    /// # Errors
    /// `MalformedRtp`, `Replayed` or `Unauthentic`.
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Result<Opened, DropReason> {
        let (ssrc, seq) = rtp_ids(packet)?;
        let header = rtp_header_len(packet)?;
        let slot = self.received.find(ssrc);
        let index = self.received.index(slot, seq);
        self.received.check(slot, index)?;
        let len = self.inbound.open_rtp(packet, header, ssrc, index)?;
        self.received.accept(slot, ssrc, index)?;
        Ok(Opened { len, index })
    }

    /// Open an SRTCP packet in place; gives the length of the plain packet.
    ///
    /// # Errors
    /// `MalformedRtcp`, `Replayed` or `Unauthentic` (also for one that is not encrypted).
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, DropReason> {
        const SHORT: DropReason = DropReason::MalformedRtcp;
        let &[first, _, _, _, s0, s1, s2, s3] = packet.first_chunk::<RTCP_HEADER>().ok_or(SHORT)?;
        if first >> 6 != 2 {
            return Err(SHORT);
        }
        let trailer = self.inbound.rtcp_trailer(packet).ok_or(SHORT)?;
        if trailer & ENCRYPTED == 0 {
            return Err(DropReason::Unauthentic);
        }
        let (ssrc, index) = (u32::from_be_bytes([s0, s1, s2, s3]), trailer & !ENCRYPTED);
        let slot = self.received_rtcp.find(ssrc);
        self.received_rtcp.check(slot, u64::from(index))?;
        let len = self.inbound.open_rtcp(packet, ssrc, index)?;
        self.received_rtcp.accept(slot, ssrc, u64::from(index))?;
        Ok(len)
    }

    /// Append a sealed RTP packet. See [`super::Transport::seal_rtp`].
    ///
    /// # Errors
    /// As there.
    pub fn seal_rtp(
        &mut self,
        index: u64,
        header: &[u8],
        payload: &[&[u8]],
        out: &mut Vec<u8>,
    ) -> Result<(), DropReason> {
        let (ssrc, seq) = rtp_ids(header)?;
        if index > MAX_RTP_INDEX || index & 0xffff != u64::from(seq) {
            return Err(DropReason::MalformedRtp);
        }
        let slot = self.sent.find(ssrc);
        self.sent.check(slot, index).map_err(|reason| match reason {
            DropReason::Replayed => DropReason::Duplicate,
            other => other,
        })?;
        self.sent.accept(slot, ssrc, index)?;
        let start = out.len();
        out.extend_from_slice(header);
        for part in payload {
            out.extend_from_slice(part);
        }
        self.outbound.seal_rtp(out, start, header.len(), ssrc, index).inspect_err(|_| out.truncate(start))
    }

    /// Append a sealed compound RTCP packet. See [`super::Transport::seal_rtcp`].
    ///
    /// # Errors
    /// As there, and `Full` after 2^31 packets.
    pub fn seal_rtcp(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Result<(), DropReason> {
        let &[_, _, _, _, s0, s1, s2, s3] = packet.first_chunk::<RTCP_HEADER>().ok_or(DropReason::MalformedRtcp)?;
        if self.rtcp_index >= MAX_RTCP_INDEX {
            return Err(DropReason::Full);
        }
        self.rtcp_index += 1;
        let start = out.len();
        out.extend_from_slice(packet);
        let ssrc = u32::from_be_bytes([s0, s1, s2, s3]);
        self.outbound.seal_rtcp(out, start, ssrc, self.rtcp_index).inspect_err(|_| out.truncate(start))
    }
}

/// SSRC and sequence number of an RTP header.
fn rtp_ids(packet: &[u8]) -> Result<(u32, u16), DropReason> {
    let &[first, _, q0, q1, _, _, _, _, s0, s1, s2, s3] =
        packet.first_chunk::<RTP_HEADER>().ok_or(DropReason::MalformedRtp)?;
    if first >> 6 != 2 {
        return Err(DropReason::MalformedRtp);
    }
    Ok((u32::from_be_bytes([s0, s1, s2, s3]), u16::from_be_bytes([q0, q1])))
}

/// Length of the RTP header with CSRCs and extensions: what stays in the clear (RFC 3711, 3.1).
fn rtp_header_len(packet: &[u8]) -> Result<usize, DropReason> {
    let first = packet.first().ok_or(DropReason::MalformedRtp)?;
    let fixed = RTP_HEADER + 4 * usize::from(first & 0x0f);
    let len = if first & 0x10 == 0 {
        fixed
    } else {
        let &[_, _, n0, n1] =
            packet.get(fixed..).and_then(|rest| rest.first_chunk()).ok_or(DropReason::MalformedRtp)?;
        fixed + 4 + 4 * usize::from(u16::from_be_bytes([n0, n1]))
    };
    if len <= packet.len() { Ok(len) } else { Err(DropReason::MalformedRtp) }
}

#[cfg(test)]
mod tests;
