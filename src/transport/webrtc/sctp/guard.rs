//! Keeps from the SCTP library what an honest far end never sends and it cannot bear.
//!
//! - It bounds what is buffered by the receive window, but not the number of chunks (each costs far more than a byte),
//!   and takes in-sequence chunks beyond the window while nothing can be read. So we count chunks and bytes that came and
//!   were not read, and start afresh whenever an acknowledgement of ours says that nothing is buffered.
//! - FORWARD TSN makes it walk every sequence number up to the new one: one packet could cost two thousand million steps.
//! - Overlapping gap blocks of a SACK are walked one by one, and stream resets that must wait are kept.
//! - Error causes and parameters that are longer than their chunk make it panic.

/// Chunks received and not read. A window of 256 kB holds 5000 messages of 50 bytes.
const MAX_CHUNKS: usize = 16 * 1024;
/// How far a sequence number may be ahead of what we have acknowledged: a window of small chunks.
const MAX_AHEAD: u32 = 16 * 1024;
/// Sequence numbers all gap blocks of a SACK may cover.
const MAX_GAPS: usize = 16 * 1024;
/// Stream resets over the life of a transport; clients open three channels and keep them.
const MAX_RESETS: usize = 1024;

const COMMON_HEADER: usize = 12;
const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const SACK: u8 = 3;
const HEARTBEAT: u8 = 4;
const ABORT: u8 = 6;
const ERROR: u8 = 9;
const RECONFIG: u8 = 130;
const FORWARD_TSN: u8 = 192;
const DATA_HEADER: usize = 16;
const INIT_HEADER: usize = 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Guard {
    window: usize,
    chunks: usize,
    bytes: usize,
    resets: usize,
    /// The far end's sequence number up to which we have acknowledged; from its INIT at first.
    acknowledged: Option<u32>,
}

impl Guard {
    pub(super) const fn new(window: usize) -> Self {
        Self { window, chunks: 0, bytes: 0, resets: 0, acknowledged: None }
    }

    /// An INIT came in; false when it is to be ignored: it is no repetition of the first.
    pub(super) fn on_init(&mut self, packet: &[u8]) -> bool {
        let Some(initial) = Chunks::new(packet).next().and_then(|(_, chunk)| word(chunk, 16)) else { return false };
        let before = initial.wrapping_sub(1);
        *self.acknowledged.get_or_insert(before) == before
    }

    /// A packet came in; false when no honest far end sends such a one.
    pub(super) fn on_received(&mut self, packet: &[u8]) -> bool {
        let mut honest = true;
        for (kind, chunk) in Chunks::new(packet) {
            match kind {
                DATA => {
                    self.chunks += 1;
                    self.bytes += chunk.len().saturating_sub(DATA_HEADER);
                    honest &= self.is_near(chunk);
                }
                FORWARD_TSN => honest &= self.is_near(chunk),
                SACK => honest &= gaps(chunk) <= MAX_GAPS,
                RECONFIG => {
                    self.resets += 1;
                    honest &= has_whole_items(chunk, 4);
                }
                HEARTBEAT | ABORT | ERROR => honest &= has_whole_items(chunk, 4),
                INIT => honest &= has_whole_items(chunk, INIT_HEADER),
                INIT_ACK => {
                    honest &= has_whole_items(chunk, INIT_HEADER);
                    // The answer to an INIT of ours says where the far end counts from.
                    let before = word(chunk, 16).map(|initial| initial.wrapping_sub(1));
                    self.acknowledged = self.acknowledged.or(before);
                }
                _ => {}
            }
        }
        honest && self.chunks <= MAX_CHUNKS && self.bytes <= self.window.saturating_mul(4) && self.resets <= MAX_RESETS
    }

    /// Whether the sequence number of a DATA or FORWARD TSN chunk is one to be expected, or an old one.
    fn is_near(&self, chunk: &[u8]) -> bool {
        let (Some(base), Some(tsn)) = (self.acknowledged, word(chunk, 4)) else { return false };
        let ahead = tsn.wrapping_sub(base);
        ahead <= MAX_AHEAD || ahead > u32::MAX / 2 + 1
    }

    /// A message was read.
    pub(super) const fn on_read(&mut self, chunks: usize, bytes: usize) {
        self.chunks = self.chunks.saturating_sub(chunks);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// A packet goes out.
    pub(super) fn on_sent(&mut self, packet: &[u8]) {
        for (kind, chunk) in Chunks::new(packet) {
            if kind == SACK
                && let (Some(cumulative), Some(window)) = (word(chunk, 4), word(chunk, 8))
            {
                self.acknowledged = Some(cumulative);
                if window as usize >= self.window {
                    (self.chunks, self.bytes) = (0, 0);
                }
            }
        }
    }
}

/// Whether a packet starts with INIT, which asks for a new association.
pub(super) fn is_init(packet: &[u8]) -> bool {
    Chunks::new(packet).next().is_some_and(|(kind, _)| kind == INIT)
}

/// How many sequence numbers the gap blocks of a SACK cover, counted as often as they are covered.
fn gaps(sack: &[u8]) -> usize {
    let count = sack.get(12..).and_then(|rest| rest.first_chunk()).map_or(0, |count| u16::from_be_bytes(*count));
    let blocks = sack.get(16..).unwrap_or_default().chunks_exact(4).take(usize::from(count));
    blocks
        .map(|block| match block {
            &[s0, s1, e0, e1] => {
                usize::from(u16::from_be_bytes([e0, e1]).saturating_sub(u16::from_be_bytes([s0, s1]))) + 1
            }
            _ => 0,
        })
        .sum()
}

/// Whether the parameters or error causes of a chunk, from `at` on, lie within it.
fn has_whole_items(chunk: &[u8], at: usize) -> bool {
    let mut rest = chunk.get(at..).unwrap_or_default();
    while let Some(&[_, _, n0, n1]) = rest.first_chunk() {
        let length = usize::from(u16::from_be_bytes([n0, n1]));
        if length < 4 || length > rest.len() {
            return false;
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    rest.is_empty()
}

fn word(chunk: &[u8], at: usize) -> Option<u32> {
    chunk.get(at..).and_then(|rest| rest.first_chunk()).map(|bytes| u32::from_be_bytes(*bytes))
}

/// The chunks of a packet with their types (RFC 9260, 3.2); ends at what is cut off.
struct Chunks<'a>(&'a [u8]);

impl<'a> Chunks<'a> {
    fn new(packet: &'a [u8]) -> Self {
        Self(packet.get(COMMON_HEADER..).unwrap_or_default())
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let &[kind, _, n0, n1] = self.0.first_chunk()?;
        let length = usize::from(u16::from_be_bytes([n0, n1]));
        if length < 4 {
            return None;
        }
        let chunk = self.0.get(..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, chunk))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::cast_possible_truncation, reason = "tests")]

    use super::*;

    fn packet(chunks: &[(u8, &[u8])]) -> Vec<u8> {
        let mut packet = vec![0; COMMON_HEADER];
        for (kind, body) in chunks {
            packet.extend_from_slice(&[*kind, 0]);
            packet.extend_from_slice(&(body.len() as u16 + 4).to_be_bytes());
            packet.extend_from_slice(body);
            packet.resize(packet.len().next_multiple_of(4), 0);
        }
        packet
    }

    fn init(tsn: u32) -> Vec<u8> {
        packet(&[(INIT, &[&[0; 12][..], &tsn.to_be_bytes()].concat())])
    }

    fn data(tsn: u32) -> Vec<u8> {
        packet(&[(DATA, &[&tsn.to_be_bytes()[..], &[0; 9]].concat())])
    }

    #[test]
    fn refuses_what_jumps_ahead() {
        for first in [1000, 0, u32::MAX - 5] {
            let mut guard = Guard::new(1000);
            assert!(!guard.on_received(&data(first)), "before INIT");
            assert!(guard.on_init(&init(first)) && guard.on_init(&init(first)) && !guard.on_init(&init(first ^ 1)));
            assert!(guard.on_received(&data(first)) && guard.on_received(&data(first.wrapping_sub(9))));
            assert!(!guard.on_received(&data(first.wrapping_add(20_000))));
            let forward = |tsn: u32| packet(&[(FORWARD_TSN, &tsn.to_be_bytes())]);
            assert!(guard.on_received(&forward(first.wrapping_add(100))));
            assert!(!guard.on_received(&forward(first.wrapping_add(1 << 30))));
            let sack = [first.wrapping_add(15_000).to_be_bytes(), [0; 4], [0; 4]].concat();
            guard.on_sent(&packet(&[(SACK, &sack)]));
            assert!(guard.on_received(&data(first.wrapping_add(20_000))));
        }
    }

    #[test]
    fn counts_what_is_not_read_until_nothing_is_buffered() {
        let mut guard = Guard::new(1000);
        guard.on_init(&init(1));
        assert!((0..MAX_CHUNKS).all(|_| guard.on_received(&data(1)) || guard.bytes > 4000));
        assert!(!guard.on_received(&data(1)));
        guard.on_sent(&packet(&[(SACK, &[0, 0, 0, 1, 0, 0, 0x03, 0xe8, 0, 0, 0, 0])]));
        assert!(guard.on_received(&data(2)));
    }

    #[test]
    fn refuses_causes_and_parameters_beyond_their_chunk() {
        let mut guard = Guard::new(1000);
        for kind in [HEARTBEAT, ABORT, ERROR, RECONFIG] {
            assert!(guard.on_received(&packet(&[(kind, &[0, 1, 0, 6, 1, 2])])));
            assert!(guard.on_received(&packet(&[(kind, &[])])));
            for bad in [&[0, 1, 0, 9, 1, 2, 3, 4][..], &[0, 1, 0, 3], &[0, 1, 0, 0], &[0, 1]] {
                assert!(!guard.on_received(&packet(&[(kind, bad)])), "{kind} {bad:?}");
            }
        }
    }

    #[test]
    fn refuses_gap_blocks_laid_over_each_other() {
        let mut guard = Guard::new(1000);
        let sack = |blocks: u8| {
            let mut body = vec![0, 0, 0, 1, 0, 0, 0, 0, 0, blocks, 0, 0];
            body.extend([0, 2, 0x10, 0].repeat(usize::from(blocks)));
            packet(&[(SACK, &body)])
        };
        assert!(guard.on_received(&sack(3)) && !guard.on_received(&sack(200)));
    }
}
