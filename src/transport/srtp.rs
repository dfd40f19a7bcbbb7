//! SRTP and SRTCP.

/// The packet index of sequence number `seq` nearest to the highest index so far (RFC 3711, 3.3.1). 48 bits.
pub(crate) fn unwrap_index(highest: u64, seq: u16) -> u64 {
    let low = u64::from(seq);
    let base = highest & !0xffff;
    let candidate = base | low;
    if candidate + 0x8000 < highest {
        candidate + 0x1_0000
    } else if candidate > highest + 0x8000 && base > 0 {
        candidate - 0x1_0000
    } else {
        candidate
    }
}

/// SRTP protection profile (RFC 5764, 4.1.2; RFC 7714, 14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// `SRTP_AEAD_AES_128_GCM`, 0x0007: one pass, four times as fast as the other.
    AeadAes128Gcm,
    /// `SRTP_AES128_CM_HMAC_SHA1_80`, 0x0001: what every WebRTC client has.
    Aes128CmSha1,
}
