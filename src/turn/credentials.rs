//! Time-limited credentials (the form of draft-uberti-behave-turn-rest: `expiry:subject`, password by HMAC), the keys
//! made of them, and nonces. Nothing is stored: whoever knows the node's key can check them.

use core::net::IpAddr;

use aws_lc_rs::{digest, hmac};
use md5::{Digest, Md5};

use crate::base::Instant;
use crate::transport::route::Route;

/// Realm where there is room for one. It says nothing; clients only hash it.
pub(super) const REALM: &[u8] = b"weir";
/// Length of a nonce, in characters. Each byte counts in a challenge that must stay small.
pub(super) const NONCE: usize = 4;
/// A nonce is good for this long at least, and for less than twice as long.
const NONCE_SLOT_SECONDS: u64 = 1_800;
/// Longest user name taken: ten digits, a colon, a subject.
const MAX_USERNAME: usize = 128;

/// Makes and checks everything that is secret here. Restarts of the node make its credentials worthless, as they do its
/// allocations.
#[derive(Debug)]
pub(super) struct Secrets {
    credentials: hmac::Key,
    nonces: hmac::Key,
}

/// What a user name says, once its password was proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct User<'a> {
    /// Until when it may make allocations, in seconds since the clock's zero.
    pub(super) expires: u64,
    /// Whom it was given to; quotas count it.
    pub(super) subject: &'a str,
}

impl Secrets {
    pub(super) fn new(key: &[u8]) -> Self {
        // One key in, two unrelated ones out.
        let credentials = hmac::Key::new(hmac::HMAC_SHA256, key);
        let nonces = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&credentials, b"nonces").as_ref());
        Self { credentials, nonces }
    }

    /// The long-term key (RFC 8489, 9.2.2) of a user name in a realm.
    pub(super) fn key(&self, username: &str, realm: &[u8]) -> hmac::Key {
        let password = password(&self.credentials, username);
        let mut hash = Md5::new();
        hash.update(username.as_bytes());
        hash.update(b":");
        hash.update(realm);
        hash.update(b":");
        hash.update(password);
        hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &hash.finalize())
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
