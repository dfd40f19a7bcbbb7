//! What is published: shape V (video frames of 8 packets of 1100 bytes, 30 a second) and shape A (audio, 50 packets of
//! 120 bytes a second). The last bytes of each payload say which packet it is and when it was sent.

use clap::ValueEnum;

/// A load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// Video: VP8, 8 packets of 1100 bytes of payload in each of 30 frames a second.
    #[value(name = "V")]
    Video,
    /// Audio: Opus, 50 packets of 120 bytes of payload a second.
    #[value(name = "A")]
    Audio,
}

/// Bytes at the end of a payload that are ours.
pub const STAMP: usize = 16;
/// First of them.
const MAGIC: u32 = 0x7ea7_0001;
/// Extension ids as our offers name them.
pub const TRANSPORT_CC: u8 = 3;
/// Audio level (RFC 6464).
pub const AUDIO_LEVEL: u8 = 6;

impl Shape {
    /// Payload type offered.
    pub const fn payload_type(self) -> u8 {
        match self {
            Self::Video => 96,
            Self::Audio => 111,
        }
    }

    /// RTP payload of each packet in bytes.
    pub const fn payload(self) -> usize {
        match self {
            Self::Video => 1100,
            Self::Audio => 120,
        }
    }

    /// Packets sent back to back.
    pub const fn burst(self) -> usize {
        match self {
            Self::Video => 8,
            Self::Audio => 1,
        }
    }

    /// Bursts per second.
    pub const fn bursts_per_second(self) -> u32 {
        match self {
            Self::Video => 30,
            Self::Audio => 50,
        }
    }

    /// RTP clock units from burst to burst.
    pub const fn ticks(self) -> u32 {
        match self {
            Self::Video => 3_000,
            Self::Audio => 960,
        }
    }

    /// Letter on the command line.
    pub const fn letter(self) -> &'static str {
        match self {
            Self::Video => "V",
            Self::Audio => "A",
        }
    }
}

/// A published RTP stream, packet after packet.
#[derive(Debug)]
pub struct Stream {
    shape: Shape,
    ssrc: u32,
    /// Packets so far; the sequence number, the transport-wide number and the number in the stamp.
    pub packets: u32,
    bursts: u32,
}

impl Stream {
    /// A new one.
    pub const fn new(shape: Shape, ssrc: u32) -> Self {
        Self { shape, ssrc, packets: 0, bursts: 0 }
    }

    /// Append packet number `at` of the current burst to `out`, stamped with `sent_ns`. `key`: of a key frame.
    pub fn packet(&mut self, at: usize, key: bool, sent_ns: u64, out: &mut Vec<u8>) {
        let is_last = at + 1 == self.shape.burst();
        let sequence = (self.packets & 0xffff) as u16;
        let is_video = self.shape == Shape::Video;
        // Audio: the marker begins a talk spurt.
        let marker = if is_video { is_last } else { self.bursts == 0 };
        out.extend_from_slice(&[0x90, self.shape.payload_type() | if marker { 0x80 } else { 0 }]);
        out.extend_from_slice(&sequence.to_be_bytes());
        out.extend_from_slice(&self.bursts.wrapping_mul(self.shape.ticks()).to_be_bytes());
        out.extend_from_slice(&self.ssrc.to_be_bytes());
        let [cc0, cc1] = sequence.to_be_bytes();
        if is_video {
            out.extend_from_slice(&[0xbe, 0xde, 0, 1, TRANSPORT_CC << 4 | 1, cc0, cc1, 0]);
        } else {
            // Speech at -20 dBov.
            let level = [AUDIO_LEVEL << 4, 0x80 | 20, 0, 0, 0];
            out.extend_from_slice(&[0xbe, 0xde, 0, 2, TRANSPORT_CC << 4 | 1, cc0, cc1]);
            out.extend_from_slice(&level);
        }
        let end = out.len() + self.shape.payload();
        if is_video {
            let [p0, p1] = ((self.bursts & 0x7fff) as u16 | 0x8000).to_be_bytes();
            out.extend_from_slice(&[if at == 0 { 0x90 } else { 0x80 }, 0x80, p0, p1]);
            if at == 0 && key {
                out.extend_from_slice(&[0x10, 0x20, 0, 0x9d, 1, 0x2a, 0, 5, 0xd0, 2]);
            } else if at == 0 {
                out.extend_from_slice(&[0x11, 0x20, 0]);
            }
        }
        out.resize(end - STAMP, 0x5a);
        out.extend_from_slice(&MAGIC.to_be_bytes());
        out.extend_from_slice(&self.packets.to_be_bytes());
        out.extend_from_slice(&sent_ns.to_be_bytes());
        self.packets = self.packets.wrapping_add(1);
        if is_last {
            self.bursts = self.bursts.wrapping_add(1);
        }
    }
}

/// What the end of a payload says: the packet's number and when it was sent, in nanoseconds.
pub fn stamp(payload: &[u8]) -> Option<(u32, u64)> {
    let stamp: &[u8; STAMP] = payload.last_chunk()?;
    let (magic, rest) = stamp.split_first_chunk::<4>()?;
    let (number, rest) = rest.split_first_chunk::<4>()?;
    let sent = rest.first_chunk::<8>()?;
    (u32::from_be_bytes(*magic) == MAGIC).then(|| (u32::from_be_bytes(*number), u64::from_be_bytes(*sent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packet_has_its_size_and_says_what_it_is() {
        for shape in [Shape::Video, Shape::Audio] {
            let mut stream = Stream::new(shape, 7);
            for number in 0..20u32 {
                let at = number as usize % shape.burst();
                let mut packet = Vec::new();
                stream.packet(at, true, 1_000 + u64::from(number), &mut packet);
                let header = if shape == Shape::Video { 20 } else { 24 };
                assert_eq!(packet.len(), header + shape.payload());
                assert_eq!(stamp(&packet), Some((number, 1_000 + u64::from(number))));
            }
        }
    }
}
