//! Encryption of frames as clients do it, end to end: what a server forwards it cannot read. Pure.
//!
//! A frame becomes `clear header | ciphertext | tag 16 | iv 12 | 12 | key index`, sealed with AES-128-GCM, the clear
//! header authenticated. The header is what a server needs to see: the first byte of Opus, three of a VP8 frame, ten of
//! a VP8 key frame. Each participant has a key of its own, handed out beside the SFU; its index says which of them, so
//! that a new one can follow when somebody leaves.

use std::collections::BTreeMap;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};

const KEY: usize = 16;
const TAG: usize = 16;
/// Length of the iv, and the index of the key.
const TRAILER: usize = 2;
const SALT: &[u8] = b"LKFrameEncryptionKey";
/// Clients leave this many zero bytes as the context of the derivation.
const INFO: [u8; 128] = [0; 128];
const CLEAR_AUDIO: usize = 1;
const CLEAR_KEY: usize = 10;
const CLEAR_DELTA: usize = 3;

/// What a participant hands out: from it the key of its frames follows.
pub type Material = [u8; KEY];

/// Fresh material. `None`: the system has no randomness.
pub fn material() -> Option<Material> {
    let mut material = [0; KEY];
    SystemRandom::new().fill(&mut material).ok().map(|()| material)
}

/// The key of a participant's frames, with its index.
#[derive(Debug)]
pub struct FrameKey {
    index: u8,
    aes: LessSafeKey,
}

struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        KEY
    }
}

/// The AES key that follows from what was handed out (16 or 32 bytes). `None`: never, for such lengths.
fn derive(material: &[u8]) -> Option<[u8; KEY]> {
    let mut key = [0; KEY];
    let secret = Salt::new(HKDF_SHA256, SALT).extract(material);
    secret.expand(&[&INFO], Length).ok()?.fill(&mut key).ok()?;
    Some(key)
}

impl FrameKey {
    /// From what was handed out. `None`: what no derivation takes.
    pub fn new(index: u8, material: &[u8]) -> Option<Self> {
        Self::from_aes(index, &derive(material)?)
    }

    fn from_aes(index: u8, key: &[u8]) -> Option<Self> {
        Some(Self { index, aes: LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).ok()?) })
    }

    /// Seal a frame of the stream `ssrc`. `counter` counts the frames sealed for the stream: with the timestamp it keeps
    /// the iv from coming again.
    pub fn seal(&self, is_video: bool, (ssrc, timestamp, counter): (u32, u32, u32), frame: &[u8]) -> Vec<u8> {
        let mut iv = [0; NONCE_LEN];
        iv[..4].copy_from_slice(&ssrc.to_be_bytes());
        iv[4..8].copy_from_slice(&timestamp.to_be_bytes());
        iv[8..].copy_from_slice(&timestamp.wrapping_sub(counter % 0xffff).to_be_bytes());
        self.seal_with(iv, is_video, frame)
    }

    fn seal_with(&self, iv: [u8; NONCE_LEN], is_video: bool, frame: &[u8]) -> Vec<u8> {
        if frame.is_empty() {
            return Vec::new();
        }
        let (clear, secret) = frame.split_at(clear(is_video, frame).min(frame.len()));
        let mut sealed = secret.to_vec();
        let nonce = Nonce::assume_unique_for_key(iv);
        // It refuses no length a frame can have.
        let Ok(tag) = self.aes.seal_in_place_separate_tag(nonce, Aad::from(clear), &mut sealed) else {
            return Vec::new();
        };
        let length = u8::try_from(NONCE_LEN).unwrap_or(0);
        [clear, &sealed, tag.as_ref(), &iv, &[length, self.index]].concat()
    }
}

/// The keys known of one participant, by index.
#[derive(Debug, Default)]
pub struct Keyring(BTreeMap<u8, FrameKey>);

impl Keyring {
    /// An empty one.
    pub const fn none() -> Self {
        Self(BTreeMap::new())
    }

    /// One more key; it replaces one of the same index.
    pub fn add(&mut self, key: FrameKey) {
        self.0.insert(key.index, key);
    }

    /// The frame within, and the index of its key. An empty frame is none and stays one.
    pub fn open(&self, is_video: bool, sealed: &[u8]) -> Result<Vec<u8>, Unopened> {
        if sealed.is_empty() {
            return Ok(Vec::new());
        }
        let (rest, &[length, index]) = sealed.split_last_chunk::<TRAILER>().ok_or(Unopened::Malformed)?;
        if usize::from(length) != NONCE_LEN {
            return Err(Unopened::Malformed);
        }
        let (rest, iv) = rest.split_last_chunk::<NONCE_LEN>().ok_or(Unopened::Malformed)?;
        let (clear, secret) = rest.split_at_checked(clear(is_video, rest)).ok_or(Unopened::Malformed)?;
        if secret.len() < TAG {
            return Err(Unopened::Malformed);
        }
        let key = self.0.get(&index).ok_or(Unopened::UnknownKey)?;
        let mut opened = secret.to_vec();
        let nonce = Nonce::assume_unique_for_key(*iv);
        let plain = key.aes.open_in_place(nonce, Aad::from(clear), &mut opened).map_err(|_| Unopened::Forged)?;
        Ok([clear, plain].concat())
    }
}

/// Why a frame could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unopened {
    /// It is not as encrypted frames are.
    Malformed,
    /// Its key has not come (yet).
    UnknownKey,
    /// A bit of it is wrong, or the key.
    Forged,
}

/// How many bytes of a frame stay readable.
fn clear(is_video: bool, frame: &[u8]) -> usize {
    match (is_video, frame.first()) {
        (false, _) => CLEAR_AUDIO,
        // The inverse key frame bit (RFC 6386, 9.1).
        (true, Some(first)) if first & 1 == 0 => CLEAR_KEY,
        (true, _) => CLEAR_DELTA,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use serde_json::Value;

    use super::*;

    fn hex(text: &Value) -> Vec<u8> {
        let text = text.as_str().unwrap();
        (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
    }

    /// Frames sealed by the workers of `livekit-client` in Chromium and Node, and by this format's other writers.
    #[test]
    fn seals_and_opens_as_clients_do() {
        let file: Value = serde_json::from_str(include_str!("e2ee/vectors.json")).unwrap();
        let vectors = file["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 28);
        for vector in vectors {
            let name = &vector["name"];
            let (plain, sealed, aes) = (hex(&vector["plaintext"]), hex(&vector["encrypted"]), hex(&vector["aes"]));
            let is_video = vector["kind"] != "audio";
            let index = u8::try_from(vector["index"].as_u64().unwrap()).unwrap();
            let iv = hex(&vector["iv"]).try_into().unwrap();
            if vector["derivation"] == "HKDF" && vector["ratchets"] == 0 {
                assert_eq!(derive(&hex(&vector["key"])).unwrap().as_slice(), aes, "{name}");
            }
            let key = FrameKey::from_aes(index, &aes).unwrap();
            assert_eq!(key.seal_with(iv, is_video, &plain), sealed, "{name}");
            let mut keys = Keyring::default();
            assert_eq!(keys.open(is_video, &sealed), Err(Unopened::UnknownKey), "{name}");
            keys.add(key);
            assert_eq!(keys.open(is_video, &sealed).unwrap(), plain, "{name}");
        }
    }

    #[test]
    fn writes_the_iv_from_stream_time_and_count() {
        let key = FrameKey::new(3, &[7; 16]).unwrap();
        let sealed = key.seal(false, (0x1122_3344, 960, 7), &[1, 2, 3]);
        let expected = [0x11, 0x22, 0x33, 0x44, 0, 0, 3, 0xc0, 0, 0, 3, 0xb9, 12, 3];
        assert_eq!(sealed[sealed.len() - 14..], expected);
    }

    #[test]
    fn notices_each_wrong_bit() {
        let mut keys = Keyring::default();
        keys.add(FrameKey::new(0, &material().unwrap()).unwrap());
        let key = FrameKey::new(0, &[9; 16]).unwrap();
        keys.add(key);
        let sealed = keys.0[&0].seal(true, (1, 2, 3), &[0x10, 0, 0, 0x9d, 1, 0x2a, 64, 1, 180, 0, 5, 6, 7]);
        assert!(keys.open(true, &sealed).is_ok());
        for bit in 0..sealed.len() * 8 {
            let mut wrong = sealed.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(keys.open(true, &wrong).is_err(), "bit {bit}");
        }
        for length in 1..sealed.len() {
            assert!(keys.open(true, &sealed[..length]).is_err(), "{length} bytes");
        }
        assert_eq!(keys.open(true, &[]), Ok(Vec::new()));
    }
}
