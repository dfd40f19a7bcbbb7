//! Time-limited credentials (draft-uberti-behave-turn-rest: user name `expiry:subject`, password by HMAC), the keys made
//! of them, and nonces. Nothing is stored: whoever knows the secret can check them.
//!
//! Participants' are made with the node's key, by its own clock; those of a homeserver's users with the secret it shares
//! with this node, by the date. A user name says which it would be, and only a key of that kind can prove it.

use core::net::IpAddr;

use aws_lc_rs::{digest, hmac};
use md5::{Digest, Md5};

use super::allocation::Reach;
use super::calls::MAX_SECRETS;
use crate::base::Instant;
use crate::transport::route::Route;

/// Realm where there is room for one. It says nothing; clients only hash it.
pub(super) const REALM: &[u8] = b"weir";
/// Length of a nonce, in characters. Each byte counts in a challenge that must stay small.
pub(super) const NONCE: usize = 4;
/// A nonce is good for this long at least, and for less than twice as long.
const NONCE_SLOT_SECONDS: u64 = 1_800;
/// Longest user name taken: ten digits, a colon, a subject; Matrix user ids have 255 bytes at most.
const MAX_USERNAME: usize = 266;
/// What subjects of participants begin with; Matrix user ids begin with `@`.
const PARTICIPANT: &str = "PA_";

/// Makes and checks everything that is secret here. Restarts of the node make its credentials worthless, as they do its
/// allocations.
#[derive(Debug)]
pub(super) struct Secrets {
    credentials: hmac::Key,
    /// Those shared with homeservers; none: there is one use only.
    shared: Vec<hmac::Key>,
    nonces: hmac::Key,
}

/// What a user name says, once its password was proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct User<'a> {
    /// Until when it may make allocations, in seconds since the clock's zero; of a homeserver's users, of Unix time.
    pub(super) expires: u64,
    /// Whom it was given to; quotas count it.
    pub(super) subject: &'a str,
}

impl Secrets {
    pub(super) fn new<'a>(key: &[u8], shared: impl Iterator<Item = &'a Vec<u8>>) -> Self {
        // One key in, two unrelated ones out.
        let credentials = hmac::Key::new(hmac::HMAC_SHA256, key);
        let nonces = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&credentials, b"nonces").as_ref());
        let shared = shared.take(MAX_SECRETS).map(|secret| hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret));
        Self { credentials, shared: shared.collect(), nonces }
    }

    /// Which use a user name would be for, if it were proved.
    pub(super) fn reach(&self, user: User<'_>) -> Reach {
        if self.shared.is_empty() || user.subject.starts_with(PARTICIPANT) { Reach::Media } else { Reach::Outside }
    }

    /// The long-term keys (RFC 8489, 9.2.2) that could prove a user name in a realm.
    pub(super) fn keys(&self, reach: Reach, username: &str, realm: &[u8]) -> impl Iterator<Item = hmac::Key> {
        let (own, shared) = match reach {
            Reach::Media => (Some(&self.credentials), &[][..]),
            Reach::Outside => (None, &self.shared[..]),
        };
        let own = own.map(|key| long_term(username, realm, &password(key, username)));
        own.into_iter().chain(shared.iter().map(move |key| long_term(username, realm, &shared_password(key, username))))
    }

    /// The nonce for this far end now.
    pub(super) fn nonce(&self, now: Instant, link: &Route) -> [u8; NONCE] {
        self.nonce_of(now.as_millis() / 1_000 / NONCE_SLOT_SECONDS, link)
    }

    /// Whether this far end may still use a nonce.
    pub(super) fn is_fresh(&self, now: Instant, link: &Route, nonce: &[u8]) -> bool {
        let slot = now.as_millis() / 1_000 / NONCE_SLOT_SECONDS;
        nonce == self.nonce_of(slot, link) || slot > 0 && nonce == self.nonce_of(slot - 1, link)
    }

    /// 24 bits: a nonce only narrows down when and from where a captured request could be sent once more. What proves
    /// a user is the 160 bits of MESSAGE-INTEGRITY.
    fn nonce_of(&self, slot: u64, link: &Route) -> [u8; NONCE] {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut context = hmac::Context::with_key(&self.nonces);
        context.update(&slot.to_be_bytes());
        let remote = link.reflexive();
        match remote.ip() {
            IpAddr::V4(ip) => context.update(&ip.octets()),
            IpAddr::V6(ip) => context.update(&ip.octets()),
        }
        context.update(&remote.port().to_be_bytes());
        let tag = context.sign();
        let mut nonce = [0; NONCE];
        for (letter, byte) in nonce.iter_mut().zip(tag.as_ref()) {
            *letter = LETTERS.get(usize::from(byte & 63)).copied().unwrap_or(b'A');
        }
        nonce
    }
}

fn long_term(username: &str, realm: &[u8], password: &[u8]) -> hmac::Key {
    let mut hash = Md5::new();
    hash.update(username.as_bytes());
    hash.update(b":");
    hash.update(realm);
    hash.update(b":");
    hash.update(password);
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &hash.finalize())
}

/// Bytes of base64 of a SHA-1 hash, with its `=`.
const SHARED_PASSWORD: usize = digest::SHA1_OUTPUT_LEN.div_ceil(3) * 4;

/// The password homeservers make for a user name: base64 of HMAC-SHA-1 under the shared secret.
fn shared_password(key: &hmac::Key, username: &str) -> [u8; SHARED_PASSWORD] {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let tag = hmac::sign(key, username.as_bytes());
    let mut text = [b'='; SHARED_PASSWORD];
    for (quad, bytes) in text.chunks_exact_mut(4).zip(tag.as_ref().chunks(3)) {
        let bits = bytes.iter().chain([&0, &0]).take(3).fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        for (at, letter) in quad.iter_mut().enumerate().take(bytes.len() + 1) {
            let six = bits >> (18 - 6 * at) & 63;
            *letter = usize::try_from(six).ok().and_then(|six| LETTERS.get(six)).copied().unwrap_or(b'A');
        }
    }
    text
}

/// The password of a user name, 64 hexadecimal digits: HMAC-SHA-256 of the user name under the node's key.
fn password(key: &hmac::Key, username: &str) -> [u8; 2 * digest::SHA256_OUTPUT_LEN] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let tag = hmac::sign(key, username.as_bytes());
    let mut text = [0; 2 * digest::SHA256_OUTPUT_LEN];
    for (pair, byte) in text.chunks_exact_mut(2).zip(tag.as_ref()) {
        for (digit, nibble) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
            *digit = HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
        }
    }
    text
}

/// Take a user name apart. Nothing of it is proved.
pub(super) fn read(username: &str) -> Option<User<'_>> {
    if username.len() > MAX_USERNAME {
        return None;
    }
    let (expires, subject) = username.split_once(':')?;
    Some(User { expires: expires.parse().ok()?, subject })
}
