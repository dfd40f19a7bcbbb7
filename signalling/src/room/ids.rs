//! Everything random or counted in a room: sids, ids of the media plane, SSRCs, ICE credentials. One seed gives one
//! sequence, so a run can be repeated.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::media::{DowntrackId, IceCredentials, ParticipantId, TrackId, TransportId};

/// Letters that cannot be mistaken for each other.
const SID_LETTERS: &[u8] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/// What RFC 8839, 5.4 allows in credentials, without `+` and `/`, which some log and URL tools mangle.
const ICE_LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Source of ids and secrets.
#[derive(Debug)]
pub(super) struct Ids {
    next: u64,
    rng: StdRng,
    ssrcs: BTreeSet<u32>,
}

impl Ids {
    pub(super) fn new(first: u64, seed: [u8; 32]) -> Self {
        Self { next: first, rng: StdRng::from_seed(seed), ssrcs: BTreeSet::new() }
    }

    fn count(&mut self) -> u64 {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        id
    }

    pub(super) fn participant(&mut self) -> ParticipantId {
        ParticipantId(self.count())
    }

    pub(super) fn transport(&mut self) -> TransportId {
        TransportId(self.count())
    }

    pub(super) fn track(&mut self) -> TrackId {
        TrackId(self.count())
    }

    pub(super) fn downtrack(&mut self) -> DowntrackId {
        DowntrackId(self.count())
    }

    fn letters(&mut self, alphabet: &[u8], count: usize) -> String {
        (0..count)
            .map(|_| char::from(alphabet.get(self.rng.random_range(0..alphabet.len())).copied().unwrap_or(b'x')))
            .collect()
    }

    /// `PREFIX_` and twelve letters; `infix` stands between (kind and source of tracks).
    pub(super) fn sid(&mut self, prefix: &str, infix: &str) -> String {
        format!("{prefix}_{infix}{}", self.letters(SID_LETTERS, 12))
    }

    /// An SSRC nothing else in the room has. Give it back with [`Self::release_ssrc`].
    pub(super) fn ssrc(&mut self) -> u32 {
        loop {
            let ssrc = self.rng.random_range(1..u32::MAX);
            if self.ssrcs.insert(ssrc) {
                return ssrc;
            }
        }
    }

    pub(super) fn release_ssrc(&mut self, ssrc: u32) {
        self.ssrcs.remove(&ssrc);
    }

    /// At least 24 random bits of fragment and 128 of password (RFC 8445, 5.3), with a wide margin.
    /// `prefix` names the media thread.
    pub(super) fn credentials(&mut self, prefix: &str) -> IceCredentials {
        let random = self.letters(ICE_LETTERS, 12);
        let ufrag = format!("{prefix}{random}");
        IceCredentials { ufrag, pwd: self.letters(ICE_LETTERS, 32) }
    }

    /// Session id of an `o=` line: below 2^62 (RFC 9429, 5.2.1).
    pub(super) fn session_id(&mut self) -> u64 {
        self.rng.random_range(1..(1 << 62))
    }

    /// First number of our offers on a transport.
    pub(super) fn first_offer_id(&mut self) -> u32 {
        self.rng.random_range(1..=256)
    }

    pub(super) fn secret(&mut self) -> Vec<u8> {
        self.letters(ICE_LETTERS, 32).into_bytes()
    }
}
