//! Packets whose every byte can be told from where they come from: track, encoding and number.

use std::collections::BTreeMap;

use weir::base::{Instant, Rng};
use weir::rtp::packet::PacketView;

pub const OPUS: u8 = 111;
pub const VP8: u8 = 96;
pub const VP8_RTX: u8 = 97;
/// The temporal pattern of a 3-layer encoder, with its layer-sync bit and how many frames back it refers.
const PATTERN: [(u8, bool, u32); 4] = [(0, false, 4), (2, true, 1), (1, true, 2), (2, false, 1)];
const FILL: usize = 24;

/// What a packet says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    pub track: u32,
    pub encoding: u8,
    pub seq: u64,
    pub frame: u32,
    /// The frame it refers to; itself for a key frame.
    pub refers: u32,
    pub key: bool,
    pub start: bool,
    pub temporal: u8,
}

impl Label {
    const LEN: usize = 4 + 1 + 8 + 4 + 4 + 3;

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.track.to_be_bytes());
        out.push(self.encoding);
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&self.frame.to_be_bytes());
        out.extend_from_slice(&self.refers.to_be_bytes());
        out.extend_from_slice(&[u8::from(self.key), u8::from(self.start), self.temporal]);
        let mut rng = Rng::new((u64::from(self.track) << 40) ^ (u64::from(self.encoding) << 36) ^ self.seq);
        let fill = FILL + (self.seq % 7) as usize;
        out.extend((0..fill).map(|_| rng.next_u16() as u8));
    }

    /// Read it back and compare every byte; what is behind the descriptor must be as it was sent.
    pub fn read(body: &[u8]) -> Self {
        let array = |at: usize| <[u8; 4]>::try_from(&body[at..at + 4]).unwrap();
        let label = Self {
            track: u32::from_be_bytes(array(0)),
            encoding: body[4],
            seq: u64::from_be_bytes(body[5..13].try_into().unwrap()),
            frame: u32::from_be_bytes(array(13)),
            refers: u32::from_be_bytes(array(17)),
            key: body[21] != 0,
            start: body[22] != 0,
            temporal: body[23],
        };
        let mut again = Vec::new();
        label.write(&mut again);
        assert_eq!(again, body, "payload changed on its way");
        assert!(body.len() > Self::LEN);
        label
    }
}

/// A received or forwarded payload, taken apart.
pub struct Payload {
    pub label: Label,
    pub vp8: Option<Vp8>,
}

/// The numbers of a VP8 descriptor as written here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vp8 {
    pub picture: u16,
    pub tl0: u8,
    pub key_index: u8,
}

impl Payload {
    pub fn read(video: bool, payload: &[u8]) -> Self {
        if !video {
            return Self { label: Label::read(&payload[1..]), vp8: None };
        }
        let vp8 = Vp8 {
            picture: u16::from_be_bytes([payload[2] & 0x7f, payload[3]]),
            tl0: payload[4],
            key_index: payload[5] & 0x1f,
        };
        let start = payload[0] & 0x10 != 0;
        let clear = match (start, start && payload[6] & 1 == 0) {
            (true, true) => 10,
            (true, false) => 3,
            _ => 0,
        };
        Self { label: Label::read(&payload[6 + clear..]), vp8: Some(vp8) }
    }
}

/// One RTP stream being published.
pub struct Encoder {
    pub track: u32,
    pub encoding: u8,
    pub ssrc: u32,
    pub rtx_ssrc: u32,
    pub video: bool,
    pub enabled: bool,
    pub wants_key: bool,
    seq: u64,
    rtx_seq: u16,
    timestamp_base: u32,
    clock_rate: u64,
    frame: u32,
    since_key: u32,
    picture: u16,
    tl0: u8,
    key_index: u8,
    last_base: u32,
    packets: u32,
    octets: u32,
    history: BTreeMap<u16, Vec<u8>>,
}

impl Encoder {
    pub fn new(track: u32, encoding: u8, ssrc: u32, video: bool, rng: &mut Rng) -> Self {
        Self {
            track,
            encoding,
            ssrc,
            rtx_ssrc: ssrc + 1,
            video,
            enabled: true,
            wants_key: true,
            // Near the wrap often enough.
            seq: 65_536 - rng.below(400) + if rng.below(2) == 0 { rng.below(60_000) } else { 0 },
            rtx_seq: rng.next_u16(),
            timestamp_base: rng.next_u32(),
            clock_rate: if video { 90_000 } else { 48_000 },
            frame: 0,
            since_key: 0,
            picture: rng.next_u16() & 0x7fff,
            tl0: rng.next_u16() as u8,
            key_index: rng.next_u16() as u8 & 0x1f,
            last_base: 0,
            packets: 0,
            octets: 0,
            history: BTreeMap::new(),
        }
    }

    pub fn timestamp(&self, now: Instant) -> u32 {
        let ticks = u128::from(now.as_nanos()) * u128::from(self.clock_rate) / 1_000_000_000;
        self.timestamp_base.wrapping_add(ticks as u32)
    }

    /// The packets of the frame that is due now.
    pub fn frame(&mut self, now: Instant) -> Vec<Vec<u8>> {
        if !self.enabled {
            self.wants_key = true;
            return Vec::new();
        }
        self.frame += 1;
        let timestamp = self.timestamp(now);
        if !self.video {
            return vec![self.packet(timestamp, true, &[0x78], self.frame, false, true, 0)];
        }
        let key = core::mem::take(&mut self.wants_key);
        self.picture = (self.picture + 1) & 0x7fff;
        self.since_key = if key { 0 } else { self.since_key + 1 };
        let (temporal, sync, back) = if key { (0, false, 0) } else { PATTERN[self.since_key as usize % 4] };
        let refers = match (key, temporal) {
            (true, _) => self.frame,
            (_, 0) => self.last_base,
            _ => self.frame - back.min(self.since_key),
        };
        if temporal == 0 {
            self.tl0 = self.tl0.wrapping_add(1);
            self.last_base = self.frame;
        }
        if key {
            self.key_index = (self.key_index + 1) & 0x1f;
        }
        let count = 1 + usize::from(self.encoding) + if key { 2 } else { 0 };
        (0..count).map(|n| self.video_packet(timestamp, n, count, key, temporal, sync, refers)).collect()
    }

    #[allow(clippy::too_many_arguments, reason = "the facts of one packet")]
    fn video_packet(
        &mut self,
        timestamp: u32,
        n: usize,
        count: usize,
        key: bool,
        temporal: u8,
        sync: bool,
        refers: u32,
    ) -> Vec<u8> {
        let start = n == 0;
        let [high, low] = (self.picture | 0x8000).to_be_bytes();
        let third = (temporal << 6) | (u8::from(sync) << 5) | self.key_index;
        let mut head = vec![0x80 | if start { 0x10 } else { 0 }, 0xf0, high, low, self.tl0, third];
        if start && key {
            head.extend_from_slice(&[0x10, 0, 0, 0x9d, 1, 0x2a, 64, 1, 240, 0]);
        } else if start {
            head.extend_from_slice(&[0x11, 0, 0]);
        }
        self.packet(timestamp, n + 1 == count, &head, refers, key, start, temporal)
    }

    #[allow(clippy::too_many_arguments, reason = "the facts of one packet")]
    fn packet(
        &mut self,
        timestamp: u32,
        marker: bool,
        head: &[u8],
        refers: u32,
        key: bool,
        start: bool,
        temporal: u8,
    ) -> Vec<u8> {
        let seq = self.seq;
        self.seq += 1;
        let mut packet = rtp(if self.video { VP8 } else { OPUS }, marker, seq as u16, timestamp, self.ssrc);
        packet.extend_from_slice(head);
        let (track, encoding, frame) = (self.track, self.encoding, self.frame);
        Label { track, encoding, seq, frame, refers, key, start, temporal }.write(&mut packet);
        self.packets += 1;
        self.octets += packet.len() as u32 - 12;
        if self.video {
            self.history.insert(seq as u16, packet.clone());
            self.history.remove(&(seq as u16).wrapping_sub(300));
        }
        packet
    }

    /// A packet of padding, as browsers send to probe.
    pub fn padding(&mut self, now: Instant) -> Vec<u8> {
        let seq = self.seq;
        self.seq += 1;
        let mut packet = rtp(VP8, false, seq as u16, self.timestamp(now), self.ssrc);
        packet[0] |= 0x20;
        packet.extend_from_slice(&[0, 0, 0, 4]);
        packet
    }

    /// The packet once more, on the retransmission stream.
    pub fn again(&mut self, sequence: u16) -> Option<Vec<u8>> {
        let original = self.history.get(&sequence)?;
        let view = PacketView::parse(original).unwrap();
        self.rtx_seq = self.rtx_seq.wrapping_add(1);
        let mut packet = rtp(VP8_RTX, view.marker(), self.rtx_seq, view.timestamp(), self.rtx_ssrc);
        packet.extend_from_slice(&sequence.to_be_bytes());
        packet.extend_from_slice(view.payload());
        Some(packet)
    }

    pub fn counters(&self) -> (u32, u32) {
        (self.packets, self.octets)
    }
}

fn rtp(payload_type: u8, marker: bool, seq: u16, timestamp: u32, ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, payload_type | (u8::from(marker) << 7)];
    packet.extend_from_slice(&seq.to_be_bytes());
    packet.extend_from_slice(&timestamp.to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet
}
