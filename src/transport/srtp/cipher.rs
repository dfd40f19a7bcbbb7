//! The two protection profiles: key derivation, sealing and opening of one packet, stateless beyond the keys.

use aes::Aes128;
use aes::cipher::{BlockEncrypt, InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use ctr::CtrCore;
use ctr::flavors::Ctr128BE;

use super::{ENCRYPTED, Profile, RTCP_HEADER, TRAILER};
use crate::base::DropReason;

/// Tag of AEAD_AES_128_GCM.
const GCM_TAG: usize = 16;
/// Tag of HMAC-SHA1-80, a truncated one.
const SHA1_TAG: usize = 10;

const LABEL_RTP: u8 = 0;
const LABEL_RTCP: u8 = 3;

/// Keys of one direction.
pub(super) enum Cipher {
    Gcm { rtp: Box<Gcm>, rtcp: Box<Gcm> },
    Cm { rtp: Box<Cm>, rtcp: Box<Cm> },
}

/// AES-GCM with the salt its nonces are made from.
pub(super) struct Gcm {
    key: LessSafeKey,
    salt: [u8; 12],
}

/// AES in counter mode with its key schedule kept, and HMAC-SHA1 keyed once.
pub(super) struct Cm {
    aes: Aes128,
    salt: [u8; 14],
    auth: hmac::Key,
}

impl Cipher {
    /// Derive session keys from a master key and salt (RFC 3711, 4.3; RFC 7714, 11). `None` for wrong lengths.
    pub(super) fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Option<Self> {
        let aes = Aes128::new_from_slice(key).ok()?;
        // A salt of 12 bytes counts as 14 with zeros behind.
        let mut padded = [0; 14];
        padded.get_mut(..salt.len())?.copy_from_slice(salt);
        Some(match profile {
            Profile::AeadAes128Gcm => {
                let gcm = |label| Gcm::derive(&aes, &padded, label).map(Box::new);
                Self::Gcm { rtp: gcm(LABEL_RTP)?, rtcp: gcm(LABEL_RTCP)? }
            }
            Profile::Aes128CmSha1 => {
                let cm = |label| Box::new(Cm::derive(&aes, &padded, label));
                Self::Cm { rtp: cm(LABEL_RTP), rtcp: cm(LABEL_RTCP) }
            }
        })
    }

    /// Encrypt `out[start + header..]` in place and append the tag.
    pub(super) fn seal_rtp(
        &self,
        out: &mut Vec<u8>,
        start: usize,
        header: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<(), DropReason> {
        let packet = out.get_mut(start..).ok_or(DropReason::Bug)?;
        let (header, body) = packet.split_at_mut_checked(header).ok_or(DropReason::Bug)?;
        match self {
            Self::Gcm { rtp, .. } => {
                let tag = rtp.seal(rtp.nonce(ssrc, index), header, body)?;
                out.extend_from_slice(&tag);
            }
            Self::Cm { rtp, .. } => {
                rtp.apply(ssrc, index, body);
                let tag = rtp.tag(&[packet, &roc(index)]);
                out.extend_from_slice(&tag);
            }
        }
        Ok(())
    }

    /// Check the tag and decrypt in place; gives the length without tag.
    pub(super) fn open_rtp(
        &self,
        packet: &mut [u8],
        header: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<usize, DropReason> {
        let len = packet.len();
        match self {
            Self::Gcm { rtp, .. } => {
                let (header, body) = packet.split_at_mut_checked(header).ok_or(DropReason::MalformedRtp)?;
                if body.len() < GCM_TAG {
                    return Err(DropReason::MalformedRtp);
                }
                rtp.open(rtp.nonce(ssrc, index), header, body)?;
                Ok(len - GCM_TAG)
            }
            Self::Cm { rtp, .. } => {
                let end = len.checked_sub(SHA1_TAG).filter(|end| *end >= header).ok_or(DropReason::MalformedRtp)?;
                let (sealed, tag) = packet.split_at_mut_checked(end).ok_or(DropReason::MalformedRtp)?;
                rtp.verify(&[sealed, &roc(index)], tag)?;
                rtp.apply(ssrc, index, sealed.get_mut(header..).unwrap_or_default());
                Ok(end)
            }
        }
    }

    /// The E flag and index of an SRTCP packet.
    pub(super) fn rtcp_trailer(&self, packet: &[u8]) -> Option<u32> {
        let (tag, behind) = match self {
            Self::Gcm { .. } => (GCM_TAG, 0),
            Self::Cm { .. } => (SHA1_TAG, SHA1_TAG),
        };
        if packet.len() < RTCP_HEADER + TRAILER + tag {
            return None;
        }
        let end = packet.len() - behind;
        packet.get(..end)?.last_chunk().map(|trailer| u32::from_be_bytes(*trailer))
    }

    /// Encrypt `out[start + 8..]` in place; append trailer and tag in the order of the profile.
    pub(super) fn seal_rtcp(&self, out: &mut Vec<u8>, start: usize, ssrc: u32, index: u32) -> Result<(), DropReason> {
        let trailer = (index | ENCRYPTED).to_be_bytes();
        let packet = out.get_mut(start..).ok_or(DropReason::Bug)?;
        let (header, body) = packet.split_at_mut_checked(RTCP_HEADER).ok_or(DropReason::Bug)?;
        match self {
            Self::Gcm { rtcp, .. } => {
                let tag = rtcp.seal(rtcp.nonce_rtcp(ssrc, index), &rtcp_aad(header, trailer), body)?;
                out.extend_from_slice(&tag);
                out.extend_from_slice(&trailer);
            }
            Self::Cm { rtcp, .. } => {
                rtcp.apply(ssrc, u64::from(index), body);
                out.extend_from_slice(&trailer);
                let tag = rtcp.tag(&[out.get(start..).unwrap_or_default()]);
                out.extend_from_slice(&tag);
            }
        }
        Ok(())
    }

    /// Check the tag and decrypt in place; gives the length without tag and trailer. The caller has read the trailer.
    pub(super) fn open_rtcp(&self, packet: &mut [u8], ssrc: u32, index: u32) -> Result<usize, DropReason> {
        const SHORT: DropReason = DropReason::MalformedRtcp;
        match self {
            Self::Gcm { rtcp, .. } => {
                let end = packet.len().checked_sub(TRAILER).ok_or(SHORT)?;
                let (sealed, trailer) = packet.split_at_mut_checked(end).ok_or(SHORT)?;
                let trailer = *trailer.first_chunk().ok_or(SHORT)?;
                let (header, body) = sealed.split_at_mut_checked(RTCP_HEADER).ok_or(SHORT)?;
                let plain = body.len().checked_sub(GCM_TAG).ok_or(SHORT)?;
                rtcp.open(rtcp.nonce_rtcp(ssrc, index), &rtcp_aad(header, trailer), body)?;
                Ok(RTCP_HEADER + plain)
            }
            Self::Cm { rtcp, .. } => {
                let end = packet.len().checked_sub(SHA1_TAG).ok_or(SHORT)?;
                let (sealed, tag) = packet.split_at_mut_checked(end).ok_or(SHORT)?;
                rtcp.verify(&[sealed], tag)?;
                let end = end.checked_sub(TRAILER).ok_or(SHORT)?;
                rtcp.apply(ssrc, u64::from(index), sealed.get_mut(RTCP_HEADER..end).ok_or(SHORT)?);
                Ok(end)
            }
        }
    }
}

/// What authenticates an encrypted SRTCP packet beside the body (RFC 7714, 9.2).
fn rtcp_aad(header: &[u8], trailer: [u8; TRAILER]) -> [u8; RTCP_HEADER + TRAILER] {
    let mut aad = [0; RTCP_HEADER + TRAILER];
    for (to, from) in aad.iter_mut().zip(header.iter().chain(&trailer)) {
        *to = *from;
    }
    aad
}

/// The roll-over counter of an index, as authenticated behind the packet (RFC 3711, 4.2).
const fn roc(index: u64) -> [u8; 4] {
    let [_, _, a, b, c, d, _, _] = index.to_be_bytes();
    [a, b, c, d]
}

impl Gcm {
    fn derive(master: &Aes128, salt: &[u8; 14], label: u8) -> Option<Self> {
        let key = UnboundKey::new(&AES_128_GCM, &derive::<16>(master, salt, label)).ok()?;
        Some(Self { key: LessSafeKey::new(key), salt: derive(master, salt, label + 2) })
    }

    /// RFC 7714, 8.1: 00 00 SSRC ROC SEQ, xor salt.
    fn nonce(&self, ssrc: u32, index: u64) -> Nonce {
        let [s0, s1, s2, s3] = ssrc.to_be_bytes();
        let [_, _, i0, i1, i2, i3, i4, i5] = index.to_be_bytes();
        self.salted([0, 0, s0, s1, s2, s3, i0, i1, i2, i3, i4, i5])
    }

    /// RFC 7714, 9.1: 00 00 SSRC 00 00 INDEX, xor salt.
    fn nonce_rtcp(&self, ssrc: u32, index: u32) -> Nonce {
        let [s0, s1, s2, s3] = ssrc.to_be_bytes();
        let [i0, i1, i2, i3] = index.to_be_bytes();
        self.salted([0, 0, s0, s1, s2, s3, 0, 0, i0, i1, i2, i3])
    }

    fn salted(&self, mut nonce: [u8; 12]) -> Nonce {
        xor(&mut nonce, &self.salt);
        Nonce::assume_unique_for_key(nonce)
    }

    fn seal(&self, nonce: Nonce, aad: &[u8], body: &mut [u8]) -> Result<[u8; GCM_TAG], DropReason> {
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(aad), body).map_err(|_| DropReason::Bug)?;
        tag.as_ref().first_chunk().copied().ok_or(DropReason::Bug)
    }

    fn open(&self, nonce: Nonce, aad: &[u8], body: &mut [u8]) -> Result<(), DropReason> {
        self.key.open_in_place(nonce, Aad::from(aad), body).map(|_| ()).map_err(|_| DropReason::Unauthentic)
    }
}

impl Cm {
    fn derive(master: &Aes128, salt: &[u8; 14], label: u8) -> Self {
        Self {
            aes: Aes128::new(&derive::<16>(master, salt, label).into()),
            auth: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &derive::<20>(master, salt, label + 1)),
            salt: derive(master, salt, label + 2),
        }
    }

    /// Encrypt or decrypt (RFC 3711, 4.1.1).
    fn apply(&self, ssrc: u32, index: u64, body: &mut [u8]) {
        let [s0, s1, s2, s3] = ssrc.to_be_bytes();
        let [_, _, i0, i1, i2, i3, i4, i5] = index.to_be_bytes();
        let mut iv = [0, 0, 0, 0, s0, s1, s2, s3, i0, i1, i2, i3, i4, i5, 0, 0];
        xor(&mut iv, &self.salt);
        let core = CtrCore::<&Aes128, Ctr128BE>::inner_iv_init(&self.aes, &iv.into());
        StreamCipherCoreWrapper::from_core(core).apply_keystream(body);
    }

    fn tag(&self, parts: &[&[u8]]) -> [u8; SHA1_TAG] {
        let mut context = hmac::Context::with_key(&self.auth);
        for part in parts {
            context.update(part);
        }
        context.sign().as_ref().first_chunk().copied().unwrap_or_default()
    }

    fn verify(&self, parts: &[&[u8]], tag: &[u8]) -> Result<(), DropReason> {
        verify_slices_are_equal(&self.tag(parts), tag).map_err(|_| DropReason::Unauthentic)
    }
}

/// `N` bytes of the AES-CM key derivation function with a key derivation rate of zero (RFC 3711, 4.3.3).
fn derive<const N: usize>(master: &Aes128, salt: &[u8; 14], label: u8) -> [u8; N] {
    let mut out = [0; N];
    for (block, counter) in out.chunks_mut(16).zip(0u16..) {
        let mut input = [0; 16];
        xor(&mut input, salt);
        xor(&mut input[7..], &[label]);
        xor(&mut input[14..], &counter.to_be_bytes());
        let mut input = input.into();
        master.encrypt_block(&mut input);
        for (to, from) in block.iter_mut().zip(input) {
            *to = from;
        }
    }
    out
}

fn xor(to: &mut [u8], with: &[u8]) {
    for (to, with) in to.iter_mut().zip(with) {
        *to ^= with;
    }
}

#[cfg(test)]
impl Cipher {
    /// With given session key and salt, for the vectors of RFC 7714.
    pub(super) fn gcm_with_session_key(key: &[u8], salt: &[u8]) -> Self {
        let gcm = || {
            let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).ok()?);
            Some(Box::new(Gcm { key, salt: *salt.first_chunk()? }))
        };
        match (gcm(), gcm()) {
            (Some(rtp), Some(rtcp)) => Self::Gcm { rtp, rtcp },
            _ => unreachable!(),
        }
    }
}

/// Session key, authentication key and salt of RTP, for the vectors of RFC 3711.
#[cfg(test)]
pub(super) fn session_keys(key: &[u8], salt: &[u8]) -> [Vec<u8>; 3] {
    let (Ok(master), Ok(salt)) = (Aes128::new_from_slice(key), salt.try_into()) else { unreachable!() };
    [
        derive::<16>(&master, &salt, 0).to_vec(),
        derive::<20>(&master, &salt, 1).to_vec(),
        derive::<14>(&master, &salt, 2).to_vec(),
    ]
}
