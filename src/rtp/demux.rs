//! What a datagram is, from its first bytes (RFC 7983, section 7; RFC 5761, section 4). Called by the shard for every
//! datagram, before anything else looks at it.

/// What shares our one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// First byte 0 to 3.
    Stun,
    /// First byte 20 to 63.
    Dtls,
    /// First byte 128 to 191, second byte no RTCP packet type.
    Rtp,
    /// First byte 128 to 191, second byte 192 to 223.
    Rtcp,
    /// Anything else: ZRTP, TURN channels, noise, nothing.
    Unknown,
}

/// Classify a datagram. It may still be malformed as what it claims to be.
pub const fn classify(datagram: &[u8]) -> Kind {
    match datagram {
        [0..=3, ..] => Kind::Stun,
        [20..=63, ..] => Kind::Dtls,
        [128..=191, 192..=223, ..] => Kind::Rtcp,
        [128..=191, _, ..] => Kind::Rtp,
        _ => Kind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_by_first_bytes() {
        for (bytes, kind) in [
            (&[0u8, 1][..], Kind::Stun),
            (&[3, 0], Kind::Stun),
            (&[4, 0], Kind::Unknown),
            (&[16, 0], Kind::Unknown),
            (&[20, 0xfe], Kind::Dtls),
            (&[63, 0], Kind::Dtls),
            (&[64, 0], Kind::Unknown),
            (&[128, 111], Kind::Rtp),
            (&[0x90, 0x80 | 96], Kind::Rtp),
            (&[128, 191], Kind::Rtp),
            (&[128, 192], Kind::Rtcp),
            (&[0x81, 200], Kind::Rtcp),
            (&[128, 223], Kind::Rtcp),
            (&[128, 224], Kind::Rtp),
            (&[192, 0], Kind::Unknown),
            (&[128], Kind::Unknown),
            (&[], Kind::Unknown),
        ] {
            assert_eq!(classify(bytes), kind, "{bytes:?}");
        }
    }
}
