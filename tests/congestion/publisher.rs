//! A publisher on a good network: sound, and a camera in three encodings that answers key frame requests.

use weir::base::Rng;

pub const OPUS: u8 = 111;
pub const VP8: u8 = 96;
/// Bits per second of the encodings.
pub const LADDER: [u64; 3] = [150_000, 500_000, 1_700_000];
pub const FPS: u64 = 30;
const MTU: usize = 1100;
/// A key frame is so many times as large as others.
const KEY: usize = 5;

/// One encoding, or the sound.
pub struct Encoder {
    pub ssrc: u32,
    pub key: bool,
    sequence: u16,
    picture: u16,
    timestamp: u32,
    rate: Option<u64>,
    spatial: u8,
    debt: usize,
}

impl Encoder {
    pub fn sound(ssrc: u32) -> Self {
        Self { ssrc, key: false, sequence: 1, picture: 0, timestamp: 0, rate: None, spatial: 0, debt: 0 }
    }

    pub fn camera(ssrc: u32, spatial: u8) -> Self {
        Self { key: true, rate: Some(LADDER[usize::from(spatial)]), spatial, ..Self::sound(ssrc) }
    }

    /// The next frame of picture, or 20 ms of sound.
    pub fn frame(&mut self, ms: u64, rng: &mut Rng) -> Vec<Vec<u8>> {
        let Some(rate) = self.rate else {
            self.timestamp = (ms * 48) as u32;
            return vec![self.packet(OPUS, false, &[0x78; 80])];
        };
        self.timestamp = (ms * 90) as u32;
        let mean = (rate / 8 / FPS) as usize;
        let mut size = mean * (80 + rng.below(40) as usize) / 100;
        let key = core::mem::take(&mut self.key);
        if key {
            size *= KEY;
            self.debt += size - mean;
        } else if self.debt > 0 {
            // An encoder makes up for a key frame.
            let less = (size / 3).min(self.debt);
            self.debt -= less;
            size -= less;
        }
        self.picture = (self.picture + 1) & 0x7fff;
        let mut packets = Vec::new();
        let count = size.div_ceil(MTU).max(1);
        for n in 0..count {
            let head = [0x80 | if n == 0 { 0x10 } else { 0 }, 0xe0];
            let mut payload = head.to_vec();
            payload.extend_from_slice(&(self.picture | 0x8000).to_be_bytes());
            payload.extend_from_slice(&[self.picture as u8, 0x20]);
            if n == 0 {
                payload.extend_from_slice(if key {
                    &[0x10, 0, 0, 0x9d, 1, 0x2a, 64, 1, 240, 0]
                } else {
                    &[0x11, 0, 0]
                });
            }
            // What the subscriber reads back: at a fixed place from the end.
            payload.resize((size / count).max(40), 0);
            payload.push(self.spatial);
            packets.push(self.packet(VP8, n + 1 == count, &payload));
        }
        packets
    }

    fn packet(&mut self, payload_type: u8, marker: bool, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80, payload_type | if marker { 0x80 } else { 0 }];
        packet.extend_from_slice(&self.sequence.to_be_bytes());
        packet.extend_from_slice(&self.timestamp.to_be_bytes());
        packet.extend_from_slice(&self.ssrc.to_be_bytes());
        packet.extend_from_slice(payload);
        self.sequence = self.sequence.wrapping_add(1);
        packet
    }
}
