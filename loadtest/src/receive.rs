//! Received RTP streams: packets become frames, frames are opened if they are encrypted and checked bit for bit. Pure.
//!
//! What a server or the way to it may do to frames is told apart: left out, changed, out of order, late, of another
//! source. [`crate::report`] gives it its name.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use rtc::rtp::Packet;

use crate::content::{self, Mark};
use crate::e2ee::{Keyring, Unopened};
use crate::{clip, light};

/// Frames that may be incomplete at the same time.
const MAX_FRAMES: usize = 128;
/// Packets of one frame.
const MAX_FRAME_PACKETS: usize = 512;

/// A picture that stands for longer than three usual intervals, and this much longer than one, is frozen, as browsers
/// count it.
const FREEZE_NS: u64 = 150_000_000;
/// Delays kept until they are asked for.
const MAX_DELAYS: usize = 8_192;

/// What was received on one subscribed track.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// RTP packets, repeated ones included.
    pub packets: u64,
    /// Frames that were whole and right.
    pub frames: u64,
    /// Frames that were whole but not as they were sent. Must stay 0.
    pub wrong: u64,
    /// Those of them that opened, or were not encrypted, and carry no mark of ours: frames of real clients are so.
    pub unmarked: u64,
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
    /// Frames that were left out: their numbers were skipped. Changes between encodings do not count.
    pub missing: u64,
    /// Packets that came after one with a higher sequence number.
    pub disordered: u64,
    /// Packets that came a second time.
    pub repeated: u64,
    /// Frames of another source than the frames before. Must stay 0.
    pub swapped: u64,
    /// Encrypted frames whose key was not there.
    pub unopened: u64,
    /// Bytes of RTP payload.
    pub bytes: u64,
    /// When the first frame was whole and right, by the clock of [`crate::stats::nanos`].
    pub first_frame_ns: Option<u64>,
    /// Times the picture stood still.
    pub freezes: u64,
    /// For how long it did, in nanoseconds.
    pub frozen_ns: u64,
    /// Changes between encodings.
    pub switches: u64,
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
    /// Delays of frames from sending to being whole, in nanoseconds, since they were last taken.
    pub delays: Vec<u64>,
    /// Arrival of the last frame, and the usual time between frames.
    rhythm: Option<(u64, u64)>,
    /// Highest number of frames so far, by encoding.
    numbers: BTreeMap<u8, u32>,
    /// The last sequence numbers, newest last.
    recent: VecDeque<u16>,
    /// Frames since the last one whose number could be read: those in between are not left out.
    unread: u32,
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

    /// Take a packet of the stream, without a clock or keys.
    pub fn handle(&mut self, packet: &Packet) {
        self.handle_at(packet, 0, None);
    }

    /// Take a packet of the stream that arrived at `at_ns` (0: nobody measures). With `keys`, frames are encrypted.
    pub fn handle_at(&mut self, packet: &Packet, at_ns: u64, keys: Option<&Keyring>) {
        self.seen.packets += 1;
        self.seen.bytes += packet.payload.len() as u64;
        self.sequence(packet.header.sequence_number);
        if packet.payload.is_empty() {
            return;
        }
        if self.is_video {
            self.video(packet, at_ns, keys);
            return;
        }
        let Some(frame) = self.open(&packet.payload, keys) else { return };
        match clip::read_audio(&frame).or_else(|| content::read_audio(&frame)).or_else(|| light::shape::mark(&frame)) {
            Some(mark) => self.note(mark, at_ns),
            None => self.unmarked(),
        }
    }

    fn sequence(&mut self, sequence: u16) {
        if self.recent.contains(&sequence) {
            self.seen.repeated += 1;
            return;
        }
        if self.recent.len() >= MAX_FRAMES {
            self.recent.pop_front();
        }
        self.recent.push_back(sequence);
        match self.highest {
            Some(highest) if sequence.wrapping_sub(highest) > 0x8000 => self.seen.disordered += 1,
            Some(highest) => {
                self.seen.gaps += u64::from(sequence.wrapping_sub(highest) > 1);
                self.highest = Some(sequence);
            }
            None => self.highest = Some(sequence),
        }
    }

    /// The frame within, if frames are encrypted; what cannot be opened is counted.
    fn open<'a>(&mut self, frame: &'a [u8], keys: Option<&Keyring>) -> Option<Cow<'a, [u8]>> {
        let Some(keys) = keys else { return Some(Cow::Borrowed(frame)) };
        match keys.open(self.is_video, frame) {
            Ok(frame) => Some(Cow::Owned(frame)),
            Err(Unopened::UnknownKey) => {
                self.seen.unopened += 1;
                self.unread += 1;
                None
            }
            Err(_) => {
                self.seen.wrong += 1;
                None
            }
        }
    }

    fn video(&mut self, packet: &Packet, at_ns: u64, keys: Option<&Keyring>) {
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
        if let Some(frame) = self.open(&whole, keys) {
            self.whole(&frame, (first, last), picture, at_ns);
        }
    }

    fn whole(&mut self, frame: &[u8], (first, last): (u16, u16), picture: Option<u16>, at_ns: u64) {
        let read = clip::read_video(frame).or_else(|| content::read_video(frame));
        let Some((mark, size)) = read.or_else(|| light::shape::mark(frame).map(|mark| (mark, None))) else {
            return self.unmarked();
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
        self.note(mark, at_ns);
        self.pace(at_ns);
    }

    const fn unmarked(&mut self) {
        self.seen.wrong += 1;
        self.seen.unmarked += 1;
    }

    fn note(&mut self, mark: Mark, at_ns: u64) {
        let is_first = self.seen.frames == 0;
        self.seen.frames += 1;
        if !is_first && mark.source != self.seen.source {
            self.seen.swapped += 1;
            return;
        }
        self.seen.switches += u64::from(!is_first && mark.layer != self.seen.layer);
        let is_same = is_first || mark.layer == self.seen.layer;
        let unread = std::mem::take(&mut self.unread);
        let newest = self.numbers.entry(mark.layer).or_insert(mark.number);
        let ahead = mark.number.wrapping_sub(*newest);
        if ahead < u32::MAX / 2 {
            // An encoding that comes back goes on from where it was when it was left.
            self.seen.missing += u64::from(if is_same { ahead.saturating_sub(1).saturating_sub(unread) } else { 0 });
            *newest = mark.number;
        } else {
            // Late rather than left out.
            self.seen.missing = self.seen.missing.saturating_sub(1);
        }
        self.seen.source = mark.source;
        self.seen.layer = mark.layer;
        self.seen.number = mark.number;
        if at_ns == 0 {
            return;
        }
        self.seen.first_frame_ns.get_or_insert(at_ns);
        if mark.sent > 0 && self.delays.len() < MAX_DELAYS {
            self.delays.push(at_ns.saturating_sub(mark.sent));
        }
    }

    /// Does the picture move as it used to?
    fn pace(&mut self, at_ns: u64) {
        if at_ns == 0 {
            return;
        }
        self.rhythm = Some(match self.rhythm {
            None => (at_ns, 0),
            Some((last, 0)) => (at_ns, at_ns.saturating_sub(last)),
            Some((last, usual)) => {
                let gap = at_ns.saturating_sub(last);
                if gap > (3 * usual).max(usual + FREEZE_NS) {
                    self.seen.freezes += 1;
                    self.seen.frozen_ns += gap - usual;
                    (at_ns, usual)
                } else {
                    (at_ns, (7 * usual + gap) / 8)
                }
            }
        });
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
