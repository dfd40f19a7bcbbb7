//! What is published: shape V (video frames of 8 packets of 1100 bytes, 30 a second) and shape A (audio, 50 packets of
//! 120 bytes a second), and shape S, a small video (15 frames a second of one packet of 1100 bytes). The last bytes of
//! each payload say which packet it is and when it was sent.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::content::Mark;

/// A load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Shape {
    /// Video: VP8, 8 packets of 1100 bytes of payload in each of 30 frames a second.
    #[value(name = "V")]
    #[serde(rename = "V")]
    Video,
    /// Small video: VP8, one packet of 1100 bytes in each of 15 frames a second.
    #[value(name = "S")]
    #[serde(rename = "S")]
    Small,
    /// Audio: Opus, 50 packets of 120 bytes of payload a second.
    #[value(name = "A")]
    #[serde(rename = "A")]
    Audio,
}

/// Bytes at the end of a payload that are ours.
pub const STAMP: usize = 16;
/// Bytes before them.
const FILLER: u8 = 0x5a;
/// First of them.
const MAGIC: u32 = 0x7ea7_0001;
/// Source of all frames of light participants.
pub const LIGHT_SOURCE: u64 = MAGIC as u64;
/// Extension ids as our offers name them.
pub const TRANSPORT_CC: u8 = 3;
/// Audio level (RFC 6464).
pub const AUDIO_LEVEL: u8 = 6;

impl Shape {
    /// Video rather than audio.
    pub const fn is_video(self) -> bool {
        !matches!(self, Self::Audio)
    }

    /// Width, height, and bits per second; of audio nothing.
    pub const fn size(self) -> (u32, u32, u32) {
        match self {
            Self::Video => (1280, 720, 2_200_000),
            Self::Small => (320, 180, 150_000),
            Self::Audio => (0, 0, 0),
        }
    }

    /// Payload type offered.
    pub const fn payload_type(self) -> u8 {
        match self {
            Self::Video | Self::Small => 96,
            Self::Audio => 111,
        }
    }

    /// RTP payload of each packet in bytes.
    pub const fn payload(self) -> usize {
        match self {
            Self::Video | Self::Small => 1100,
            Self::Audio => 120,
        }
    }

    /// Packets sent back to back.
    pub const fn burst(self) -> usize {
        match self {
            Self::Video => 8,
            Self::Small | Self::Audio => 1,
        }
    }

    /// Bursts per second.
    pub const fn bursts_per_second(self) -> u32 {
        match self {
            Self::Video => 30,
            Self::Small => 15,
            Self::Audio => 50,
        }
    }

    /// RTP clock units from burst to burst.
    pub const fn ticks(self) -> u32 {
        match self {
            Self::Video => 3_000,
            Self::Small => 6_000,
            Self::Audio => 960,
        }
    }

    /// Letter on the command line.
    pub const fn letter(self) -> &'static str {
        match self {
            Self::Video => "V",
            Self::Small => "S",
            Self::Audio => "A",
        }
    }
}

/// A published RTP stream, packet after packet.
#[derive(Debug)]
pub struct Stream {
    shape: Shape,
    ssrc: u32,
    /// Packets so far; the sequence number and the number in the stamp.
    pub packets: u32,
    bursts: u32,
}

impl Stream {
    /// A new one.
    pub const fn new(shape: Shape, ssrc: u32) -> Self {
        Self { shape, ssrc, packets: 0, bursts: 0 }
    }

    /// What it is.
    pub const fn shape(&self) -> Shape {
        self.shape
    }

    /// Append packet number `at` of the current burst to `out`, stamped with `sent_ns` and numbered `transport` among
    /// all packets of the transport. `key`: of a key frame.
    pub fn packet(&mut self, at: usize, key: bool, sent_ns: u64, transport: u16, out: &mut Vec<u8>) {
        let is_last = at + 1 == self.shape.burst();
        let sequence = (self.packets & 0xffff) as u16;
        let is_video = self.shape.is_video();
        // Audio: the marker begins a talk spurt.
        let marker = if is_video { is_last } else { self.bursts == 0 };
        out.extend_from_slice(&[0x90, self.shape.payload_type() | if marker { 0x80 } else { 0 }]);
        out.extend_from_slice(&sequence.to_be_bytes());
        out.extend_from_slice(&self.bursts.wrapping_mul(self.shape.ticks()).to_be_bytes());
        out.extend_from_slice(&self.ssrc.to_be_bytes());
        let [cc0, cc1] = transport.to_be_bytes();
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
        out.resize(end - STAMP, FILLER);
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

/// What a whole frame of such packets says, bytes between the stamps checked; `None` when it is none, or a byte is
/// wrong. All participants of this kind are one source.
pub fn mark(frame: &[u8]) -> Option<Mark> {
    let (number, sent) = stamp(frame)?;
    let is_stamp = |at: usize, chunk: &[u8]| {
        let ours = stamp(chunk).is_some_and(|(n, _)| number.wrapping_sub(n) as usize == at);
        ours && chunk[..chunk.len() - STAMP].iter().all(|byte| *byte == FILLER)
    };
    // A packet of video is 4 bytes longer than its part of the frame, which begins with 3 or 10 clear bytes.
    let part = Shape::Video.payload() - 4;
    let (rest, burst) = if frame.len() <= Shape::Audio.payload() {
        (frame, 1)
    } else {
        let clear = if frame.first()? & 1 == 0 { 10 } else { 3 };
        (frame.get(clear..)?, frame.len().div_ceil(part))
    };
    let right = rest.rchunks(part).enumerate().all(|(at, chunk)| is_stamp(at, chunk));
    let number = number / u32::try_from(burst).unwrap_or(1).max(1);
    right.then_some(Mark { source: LIGHT_SOURCE, layer: 0, number, sent })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packet_has_its_size_and_says_what_it_is() {
        for shape in [Shape::Video, Shape::Small, Shape::Audio] {
            let mut stream = Stream::new(shape, 7);
            for number in 0..20u32 {
                let at = number as usize % shape.burst();
                let mut packet = Vec::new();
                stream.packet(at, true, 1_000 + u64::from(number), 9, &mut packet);
                let header = if shape.is_video() { 20 } else { 24 };
                assert_eq!(packet.len(), header + shape.payload());
                assert_eq!(stamp(&packet), Some((number, 1_000 + u64::from(number))));
            }
        }
    }
    #[test]
    fn a_whole_frame_is_known_and_a_wrong_byte_is_noticed() {
        for shape in [Shape::Video, Shape::Small, Shape::Audio] {
            let mut stream = Stream::new(shape, 7);
            for number in 0..3u32 {
                let mut frame = Vec::new();
                for at in 0..shape.burst() {
                    let mut packet = Vec::new();
                    stream.packet(at, number == 0, 77, 1, &mut packet);
                    frame.extend_from_slice(&packet[24..]);
                }
                let source = LIGHT_SOURCE;
                assert_eq!(mark(&frame), Some(Mark { source, layer: 0, number, sent: 77 }), "{shape:?} {number}");
                let middle = frame.len() / 2;
                frame[middle] ^= 1;
                assert_eq!(mark(&frame), None, "{shape:?}");
            }
        }
    }
}
