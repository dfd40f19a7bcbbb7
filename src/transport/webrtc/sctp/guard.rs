//! Counts what a far end has made SCTP store, from the packets that pass by.
//!
//! The library bounds what is buffered by the receive window, but not the number of chunks (each costs far more than one
//! byte), and it takes in-sequence chunks beyond the window while nothing can be read. So we count chunks and bytes that
//! came and were not read, and start afresh whenever an acknowledgement of ours says that nothing is buffered.

/// Chunks received and not read. A window of 256 kB holds 5000 messages of 50 bytes.
const MAX_CHUNKS: usize = 16 * 1024;

const COMMON_HEADER: usize = 12;
const DATA: u8 = 0;
const INIT: u8 = 1;
const SACK: u8 = 3;
const DATA_HEADER: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Guard {
    window: usize,
    chunks: usize,
    bytes: usize,
}

impl Guard {
    pub(super) const fn new(window: usize) -> Self {
        Self { window, chunks: 0, bytes: 0 }
    }

    /// A packet came in; false when the far end has filled more than any honest one.
    pub(super) fn on_received(&mut self, packet: &[u8]) -> bool {
        for (kind, chunk) in Chunks::new(packet) {
            if kind == DATA {
                self.chunks += 1;
                self.bytes += chunk.len().saturating_sub(DATA_HEADER);
            }
        }
        self.chunks <= MAX_CHUNKS && self.bytes <= self.window.saturating_mul(4)
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
                && let Some([_, _, _, _, w0, w1, w2, w3]) = chunk.get(4..).and_then(|rest| rest.first_chunk::<8>())
                && u32::from_be_bytes([*w0, *w1, *w2, *w3]) as usize >= self.window
            {
                *self = Self::new(self.window);
            }
        }
    }
}

/// Whether a packet starts with INIT, which asks for a new association.
pub(super) fn is_init(packet: &[u8]) -> bool {
    Chunks::new(packet).next().is_some_and(|(kind, _)| kind == INIT)
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
