//! Received RTP streams: packets become frames, frames are checked bit for bit. Pure.

use std::collections::BTreeMap;

use rtc::rtp::Packet;

use crate::content;

/// Frames that may be incomplete at the same time.
const MAX_FRAMES: usize = 128;
/// Packets of one frame.
const MAX_FRAME_PACKETS: usize = 512;

/// What was received on one subscribed track.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// RTP packets, repeated ones included.
    pub packets: u64,
    /// Frames that were whole and right.
    pub frames: u64,
    /// Frames that were whole but not as they were sent. Must stay 0.
    pub wrong: u64,
    /// Frames given up because packets of them were missing.
    pub incomplete: u64,
    /// Key frames among `frames`.
    pub key_frames: u64,
    /// Times the sequence number jumped ahead of the last one by more than one. 0 on a path without loss.
    pub gaps: u64,
    /// [`content::source_of`] the last frame.
    pub source: u64,
    /// Encoding of the last frame.
    pub layer: u8,
    /// Number of the last frame.
    pub number: u32,
    /// Size told by the last key frame.
    pub size: (u16, u16),
    /// Frames that followed the one before them by sequence number but not by VP8 picture id. 0 when the server keeps
    /// numbering continuous; losses on the way do not count.
    pub picture_id_jumps: u64,
}

/// One received RTP stream.
#[derive(Debug, Default)]
pub struct Receiver {
    /// What came so far.
    pub seen: Received,
    is_video: bool,
    highest: Option<u16>,
    /// Last sequence number and picture id of the last whole frame.
    last_frame: Option<(u16, u16)>,
    /// By RTP timestamp, in order of arrival of their first packets.
    frames: BTreeMap<u32, Frame>,
    order: Vec<u32>,
}

#[derive(Debug, Default)]
struct Frame {
    packets: BTreeMap<u16, Vec<u8>>,
    first: Option<u16>,
    last: Option<u16>,
    picture: Option<u16>,
    is_done: bool,
}

impl Receiver {
    /// For audio or video.
    pub fn new(is_video: bool) -> Self {
        Self { is_video, ..Self::default() }
    }

    /// Take a packet of the stream.
    pub fn handle(&mut self, packet: &Packet) {
        self.seen.packets += 1;
        let sequence = packet.header.sequence_number;
        match self.highest {
            Some(highest) if sequence.wrapping_sub(highest) == 0 || sequence.wrapping_sub(highest) > 0x8000 => {}
            Some(highest) => {
                self.seen.gaps += u64::from(sequence.wrapping_sub(highest) > 1);
                self.highest = Some(sequence);
            }
            None => self.highest = Some(sequence),
        }
        if packet.payload.is_empty() {
            return;
        }
        if self.is_video {
            self.video(packet);
        } else {
            match content::read_audio(&packet.payload) {
                Some(mark) => self.note(mark),
                None => self.seen.wrong += 1,
            }
        }
    }

    fn video(&mut self, packet: &Packet) {
        let Some(descriptor) = Descriptor::read(&packet.payload) else {
            self.seen.wrong += 1;
            return;
        };
        let timestamp = packet.header.timestamp;
        if !self.frames.contains_key(&timestamp) {
            self.make_room();
            self.order.push(timestamp);
        }
        let frame = self.frames.entry(timestamp).or_default();
        if frame.is_done || frame.packets.len() >= MAX_FRAME_PACKETS {
            return;
        }
        let sequence = packet.header.sequence_number;
        if descriptor.is_start {
            frame.first = Some(sequence);
            frame.picture = descriptor.picture;
        }
        if packet.header.marker {
            frame.last = Some(sequence);
        }
        frame.packets.insert(sequence, packet.payload.slice(descriptor.length..).to_vec());
        let (Some(first), Some(last)) = (frame.first, frame.last) else { return };
        let count = usize::from(last.wrapping_sub(first)) + 1;
        if frame.packets.len() != count {
            return;
        }
        frame.is_done = true;
        let parts =
            (0..count).filter_map(|n| u16::try_from(n).ok().and_then(|n| frame.packets.get(&first.wrapping_add(n))));
        let whole: Vec<u8> = parts.flatten().copied().collect();
        let picture = frame.picture;
        frame.packets.clear();
        self.whole(&whole, first, last, picture);
    }

    fn whole(&mut self, frame: &[u8], first: u16, last: u16, picture: Option<u16>) {
        let Some((mark, size)) = content::read_video(frame) else {
            self.seen.wrong += 1;
            return;
        };
        if let Some(size) = size {
            self.seen.key_frames += 1;
            self.seen.size = size;
        }
        if let (Some(picture), Some((last_sequence, last_picture))) = (picture, self.last_frame)
            && first == last_sequence.wrapping_add(1)
        {
            self.seen.picture_id_jumps += u64::from(picture != (last_picture + 1) & 0x7fff);
        }
        self.last_frame = picture.map(|picture| (last, picture));
        self.note(mark);
    }

    const fn note(&mut self, mark: content::Mark) {
        self.seen.frames += 1;
        self.seen.source = mark.source;
        self.seen.layer = mark.layer;
        self.seen.number = mark.number;
    }

    fn make_room(&mut self) {
        if self.order.len() >= MAX_FRAMES {
            let oldest = self.order.remove(0);
            if self.frames.remove(&oldest).is_some_and(|frame| !frame.is_done) {
                self.seen.incomplete += 1;
            }
        }
    }
}

/// What a VP8 payload descriptor says (RFC 7741, 4.2).
struct Descriptor {
    length: usize,
    is_start: bool,
    picture: Option<u16>,
}

impl Descriptor {
    fn read(payload: &[u8]) -> Option<Self> {
        let first = *payload.first()?;
        let is_start = first & 0x10 != 0 && first & 0x07 == 0;
        let mut length = 1;
        let mut picture = None;
        if first & 0x80 != 0 {
            let bits = *payload.get(length)?;
            length += 1;
            if bits & 0x80 != 0 {
                let high = *payload.get(length)?;
                length += 1;
                picture = Some(u16::from(high & 0x7f));
                if high & 0x80 != 0 {
                    picture = Some(u16::from_be_bytes([high & 0x7f, *payload.get(length)?]));
                    length += 1;
                }
            }
            length += usize::from(bits & 0x40 != 0) + usize::from(bits & 0x30 != 0);
        }
        (payload.len() > length).then_some(Self { length, is_start, picture })
    }
}
