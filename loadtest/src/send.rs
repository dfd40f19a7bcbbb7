//! Published tracks: which frame is due when, and how it becomes RTP packets.

use std::time::{Duration, Instant};

use rtc::rtp::Packet;
use rtc::rtp_transceiver::RTCRtpSenderId;

use crate::content::{self, Mark};
use crate::e2ee::FrameKey;
use crate::{clip, stats};

/// Bytes of VP8 payload per packet.
const PACKET: usize = 1_100;
/// Bytes of an Opus frame: 32 kbit/s.
const AUDIO_BYTES: usize = 80;
/// A key frame is this many times as large as another frame.
const KEY_FACTOR: usize = 4;
/// A picture is spoken of as lost when it is this late: after a pause of the process, go on from now.
const LATE: Duration = Duration::from_millis(500);
/// RFC 6464: a voice, and -30 dBov.
const LEVEL: u8 = 0x80 | 30;

/// One RTP stream of a track.
#[derive(Debug)]
pub struct Encoding {
    /// Its SSRC.
    pub ssrc: u32,
    /// Its rid, in simulcast.
    pub rid: Option<String>,
    /// Width and height.
    pub size: (u16, u16),
    /// Bits per second.
    pub bitrate: usize,
    /// The server wants it (dynacast).
    pub enabled: bool,
    sequence: u16,
    number: u32,
    picture: u16,
    key_wanted: bool,
    cursor: clip::Cursor,
}

/// What negotiation decided about a track.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wiring {
    /// Payload type of the codec.
    pub payload_type: u8,
    /// Header extension id and value of the mid.
    pub mid: Option<(u8, String)>,
    /// Header extension id of the rid.
    pub rid: Option<u8>,
    /// Header extension id of the audio level.
    pub level: Option<u8>,
}

/// One published track.
#[derive(Debug)]
pub struct Source {
    /// What the server calls it.
    pub sid: String,
    /// What the client calls it.
    pub cid: String,
    /// Its sender in the peer connection.
    pub sender: RTCRtpSenderId,
    /// From the lowest.
    pub encodings: Vec<Encoding>,
    /// Nothing is sent before it is known.
    pub wiring: Option<Wiring>,
    /// Nothing is sent.
    pub muted: bool,
    /// Video rather than audio.
    pub is_video: bool,
    /// The audio level says silence.
    pub silent: bool,
    /// Real pictures and sound ([`clip`]) rather than frames without a meaning.
    pub real: bool,
    mark: u64,
    interval: Duration,
    due: Instant,
    timestamp: u32,
    ticks: u32,
}

impl Encoding {
    /// With everything but its numbering.
    pub fn new(ssrc: u32, rid: Option<String>, size: (u16, u16), bitrate: usize) -> Self {
        let sequence = (ssrc >> 16) as u16;
        Self {
            ssrc,
            rid,
            size,
            bitrate,
            enabled: true,
            sequence,
            number: 0,
            picture: sequence & 0x7fff,
            key_wanted: true,
            cursor: clip::Cursor::default(),
        }
    }
}

impl Source {
    /// `fps` makes it video.
    pub fn new(
        sid: String,
        cid: String,
        identity: &str,
        sender: RTCRtpSenderId,
        encodings: Vec<Encoding>,
        fps: Option<u32>,
        now: Instant,
    ) -> Self {
        let mark = content::source_of(identity, &cid);
        let (interval, ticks) = match fps {
            Some(fps) => (Duration::from_secs(1) / fps.max(1), 90_000 / fps.max(1)),
            None => (content::AUDIO_FRAME, 960),
        };
        Self {
            sid,
            cid,
            sender,
            encodings,
            wiring: None,
            muted: false,
            is_video: fps.is_some(),
            silent: false,
            real: false,
            mark,
            interval,
            due: now,
            timestamp: (mark >> 32) as u32,
            ticks,
        }
    }

    /// When the next frame is due; nothing while nothing is to be sent.
    pub fn due(&self) -> Option<Instant> {
        (self.wiring.is_some() && !self.muted).then_some(self.due)
    }

    /// The subscriber side lost its picture.
    pub fn want_key_frame(&mut self, ssrc: u32) {
        for encoding in self.encodings.iter_mut().filter(|e| e.ssrc == ssrc) {
            encoding.key_wanted = true;
        }
    }

    /// Turn encodings on and off as the server says, by position. What comes back begins with a key frame.
    pub fn enable(&mut self, wanted: impl Fn(usize) -> bool) {
        for (position, encoding) in self.encodings.iter_mut().enumerate() {
            let enabled = wanted(position);
            encoding.key_wanted |= enabled && !encoding.enabled;
            encoding.enabled = enabled;
        }
    }

    /// Packets that are due.
    pub fn packets(&mut self, now: Instant) -> Vec<Packet> {
        self.sealed(now, None)
    }

    /// Packets that are due, their frames encrypted with `key` if there is one.
    pub fn sealed(&mut self, now: Instant, key: Option<&FrameKey>) -> Vec<Packet> {
        let Some(wiring) = self.wiring.clone() else { return Vec::new() };
        let mut packets = Vec::new();
        if now.saturating_duration_since(self.due) > LATE {
            self.due = now;
        }
        while !self.muted && self.due <= now {
            self.due += self.interval;
            self.timestamp = self.timestamp.wrapping_add(self.ticks);
            for layer in 0..self.encodings.len() {
                self.frame(layer, &wiring, key, &mut packets);
            }
        }
        packets
    }

    fn frame(&mut self, layer: usize, wiring: &Wiring, key: Option<&FrameKey>, into: &mut Vec<Packet>) {
        let Some(encoding) = self.encodings.get_mut(layer) else { return };
        if !encoding.enabled {
            return;
        }
        encoding.number = encoding.number.wrapping_add(1);
        let layer = u8::try_from(layer).unwrap_or(u8::MAX);
        let mark = Mark { source: self.mark, layer, number: encoding.number, sent: stats::nanos() };
        let level = wiring.level.map(|id| (id, vec![if self.silent { 0x7f } else { LEVEL }]));
        let mid = wiring.mid.as_ref().map(|(id, mid)| (*id, mid.clone().into_bytes()));
        let rid = wiring.rid.zip(encoding.rid.clone()).map(|(id, rid)| (id, rid.into_bytes()));
        let extensions: Vec<(u8, Vec<u8>)> = level.into_iter().chain(mid).chain(rid).collect();
        let (encoding_ssrc, encoding_number) = (encoding.ssrc, encoding.number);
        let mut push = |encoding: &mut Encoding, payload: Vec<u8>, marker| {
            let mut packet = Packet::default();
            packet.header.version = 2;
            packet.header.marker = marker;
            packet.header.payload_type = wiring.payload_type;
            packet.header.sequence_number = encoding.sequence;
            packet.header.timestamp = self.timestamp;
            packet.header.ssrc = encoding.ssrc;
            for (id, value) in &extensions {
                // Ids and lengths are small: it cannot fail.
                let _ = packet.header.set_extension(*id, value.clone().into());
            }
            packet.payload = payload.into();
            encoding.sequence = encoding.sequence.wrapping_add(1);
            into.push(packet);
        };
        let seal = |frame: Vec<u8>| match key {
            Some(key) => key.seal(self.is_video, (encoding_ssrc, self.timestamp, mark.number), &frame),
            None => frame,
        };
        if !self.is_video {
            let frame = if self.real { clip::audio_frame(mark) } else { content::audio_frame(mark, AUDIO_BYTES) };
            push(encoding, seal(frame), encoding_number == 1);
            return;
        }
        let frame = seal(picture(encoding, mark, self.real, self.interval));
        encoding.picture = (encoding.picture + 1) & 0x7fff;
        let count = frame.len().div_ceil(PACKET);
        // Nearly equal parts, as encoders' packetizers make them.
        let part = frame.len().div_ceil(count);
        for (index, part) in frame.chunks(part).enumerate() {
            let [high, low] = (0x8000 | encoding.picture).to_be_bytes();
            let start = if index == 0 { 0x10 } else { 0 };
            let payload = [&[0x80 | start, 0x80, high, low], part].concat();
            push(encoding, payload, index + 1 == count);
        }
    }
}

/// The next picture of an encoding.
fn picture(encoding: &mut Encoding, mark: Mark, real: bool, interval: Duration) -> Vec<u8> {
    let key = std::mem::take(&mut encoding.key_wanted);
    if real {
        return clip::video_frame(&mut encoding.cursor, mark, key).0;
    }
    let millis = usize::try_from(interval.as_millis()).unwrap_or(0);
    let length = encoding.bitrate * millis / 8_000 * if key { KEY_FACTOR } else { 1 };
    content::video_frame(mark, key.then_some(encoding.size), length)
}
