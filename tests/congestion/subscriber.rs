//! The far end of the bottleneck, as a browser is: feedback, NACK, PLI, a jitter buffer for sound, frames in order.

use std::collections::BTreeMap;

use weir::base::{Instant, Ssrc};
use weir::cc::feedback::FeedbackGenerator;
use weir::rtp::ext;
use weir::rtp::packet::PacketView;
use weir::rtp::rtcp::{ReportBlock, write};
use weir::rtp::seq::Unwrapper16;

pub const TRANSPORT_CC: u8 = 3;
/// A frame later than this after the one before is a freeze.
const FREEZE_MS: u64 = 200;
/// As libwebrtc has them: how often it looks whether to ask for a packet again, how long after the last time it does
/// while it does not know the round trip (whoever sends nothing never does), and how often in all.
const NACK_TICK_MS: u64 = 20;
const NACK_AGAIN_MS: u64 = 100;
const NACK_TRIES: u8 = 10;
/// How long it waits for a key frame to begin with, and for a picture, before it asks for a key frame.
const FIRST_WAIT_MS: u64 = 200;
const STUCK_MS: u64 = 3_000;

struct Piece {
    marker: bool,
    key_start: bool,
    spatial: u8,
}

/// One camera being shown.
#[derive(Default)]
pub struct Screen {
    unwrapper: Unwrapper16,
    pieces: BTreeMap<u64, Piece>,
    next: Option<u64>,
    asked: BTreeMap<u64, (u64, u8)>,
    stuck_since: Option<u64>,
    fresh: bool,
    last_pli: u64,
    last_frame: Option<u64>,
    pub layer: Option<u8>,
    pub freezes: Vec<u64>,
    pub switches: u64,
    pub first_frame: Option<u64>,
}

/// One voice being heard.
#[derive(Default)]
pub struct Voice {
    unwrapper: Unwrapper16,
    buffer: BTreeMap<u64, ()>,
    next: Option<u64>,
    wait: u64,
    silence: u64,
    pub longest: u64,
    pub concealed: u64,
    pub heard: u64,
}

pub struct Subscriber {
    generator: FeedbackGenerator,
    mute: bool,
    pub screens: BTreeMap<u32, Screen>,
    pub voices: BTreeMap<u32, Voice>,
    pub bytes: u64,
    pub padding: u64,
}

impl Subscriber {
    pub fn new(mute: bool) -> Self {
        Self {
            generator: FeedbackGenerator::new(),
            mute,
            screens: BTreeMap::new(),
            voices: BTreeMap::new(),
            bytes: 0,
            padding: 0,
        }
    }

    pub fn receive(&mut self, now: Instant, bytes: &[u8]) {
        if (192..=223).contains(&bytes[1]) {
            return;
        }
        let view = PacketView::parse(bytes).unwrap();
        self.bytes += bytes.len() as u64 + 28;
        if let Some(number) = view.extension(TRANSPORT_CC).and_then(ext::transport_cc) {
            // A marker makes the generator report each 50 ms, as browsers do.
            self.generator.on_packet(now, number, true, view.ssrc());
        }
        let ms = now.as_millis();
        let ssrc = view.ssrc().0;
        if let Some(voice) = self.voices.get_mut(&ssrc) {
            let seq = voice.unwrapper.unwrap(view.sequence());
            voice.next.get_or_insert(seq);
            voice.buffer.insert(seq, ());
        } else if let Some(screen) = self.screens.get_mut(&ssrc) {
            let seq = screen.unwrapper.unwrap(view.sequence());
            screen.take(ms, seq, view.marker(), view.payload());
        } else if let Some(screen) = self.screens.get_mut(&(ssrc - 1)) {
            let payload = view.payload();
            if payload.len() < 10 || bytes[0] & 0x20 != 0 {
                self.padding += bytes.len() as u64 + 28;
                return;
            }
            let sequence = u16::from_be_bytes([payload[0], payload[1]]);
            let seq = screen.unwrapper.peek(sequence);
            if screen.next.is_some_and(|next| seq < next) || screen.pieces.contains_key(&seq) {
                self.padding += bytes.len() as u64 + 28;
            } else {
                screen.take(ms, seq, view.marker(), &payload[2..]);
            }
        }
    }

    /// Every millisecond: what it sends.
    pub fn tick(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let ms = now.as_millis();
        let mut out = Vec::new();
        loop {
            let mut report = Vec::new();
            if !self.generator.poll(now, Ssrc(1), &mut report) {
                break;
            }
            if !self.mute {
                out.push(report);
            }
        }
        for voice in self.voices.values_mut().filter(|_| ms.is_multiple_of(20)) {
            voice.play();
        }
        for (ssrc, screen) in &mut self.screens {
            if core::mem::take(&mut screen.fresh) {
                screen.show(ms);
            }
            out.extend(screen.ask(ms, *ssrc));
        }
        if ms.is_multiple_of(1000) {
            let block = |ssrc: &u32| ReportBlock::nothing_lost(Ssrc(*ssrc), 0);
            let blocks: Vec<ReportBlock> = self.screens.keys().chain(self.voices.keys()).map(block).collect();
            let mut packet = Vec::new();
            write::receiver_report(&mut packet, Ssrc(1), &blocks);
            out.push(packet);
        }
        out
    }
}

impl Screen {
    fn take(&mut self, _ms: u64, seq: u64, marker: bool, payload: &[u8]) {
        let start = payload[0] & 0x10 != 0;
        let key_start = start && payload[6] & 1 == 0;
        let spatial = *payload.last().unwrap();
        self.pieces.insert(seq, Piece { marker, key_start, spatial });
        self.asked.remove(&seq);
        self.fresh = true;
    }

    /// Decode what is whole.
    fn show(&mut self, ms: u64) {
        if self.next.is_none() {
            self.next = self.pieces.iter().find(|(_, piece)| piece.key_start).map(|(seq, _)| *seq);
        }
        let Some(mut next) = self.next else { return };
        while let Some(end) = self.frame_at(next) {
            self.shown(ms, next);
            next = end + 1;
        }
        // A whole key frame beyond a hole is as good.
        let keys = self.pieces.range(next + 1..).filter(|(_, piece)| piece.key_start).map(|(seq, _)| *seq);
        if let Some((key, end)) = keys.rev().find_map(|key| Some((key, self.frame_at(key)?))) {
            self.shown(ms, key);
            next = end + 1;
        }
        if self.next == Some(next) {
            self.stuck_since = if self.pieces.is_empty() { None } else { self.stuck_since.or(Some(ms)) };
            return;
        }
        self.next = Some(next);
        self.pieces = self.pieces.split_off(&next);
        self.asked = self.asked.split_off(&next);
        self.stuck_since = if self.pieces.is_empty() { None } else { self.stuck_since.or(Some(ms)) };
    }

    /// The last piece of the frame that begins at `seq`, if it is whole.
    fn frame_at(&self, seq: u64) -> Option<u64> {
        let mut at = seq;
        loop {
            let piece = self.pieces.get(&at)?;
            if piece.marker {
                return Some(at);
            }
            at += 1;
        }
    }

    fn shown(&mut self, ms: u64, seq: u64) {
        let spatial = self.pieces.get(&seq).map(|piece| piece.spatial);
        if self.layer.is_some() && self.layer != spatial {
            self.switches += 1;
        }
        self.layer = spatial;
        self.first_frame.get_or_insert(ms);
        if let Some(last) = self.last_frame
            && ms - last > FREEZE_MS
        {
            self.freezes.push(ms - last);
        }
        self.last_frame = Some(ms);
        self.stuck_since = None;
    }

    pub fn frozen_at_end(&self, ms: u64) -> u64 {
        self.last_frame.map_or(ms, |last| ms - last)
    }

    fn ask(&mut self, ms: u64, ssrc: u32) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let (Some(next), Some((last, _))) = (self.next, self.pieces.last_key_value()) else {
            if self.first_frame.is_none() && !self.pieces.is_empty() && ms > self.last_pli + FIRST_WAIT_MS {
                self.last_pli = ms;
                let mut pli = Vec::new();
                write::pli(&mut pli, Ssrc(1), Ssrc(ssrc));
                out.push(pli);
            }
            return out;
        };
        // What is missing is asked for at once, and again by a timer, as libwebrtc does.
        let again = ms.is_multiple_of(NACK_TICK_MS);
        let mut lost = Vec::new();
        for seq in (next..*last).filter(|seq| !self.pieces.contains_key(seq)).take(200) {
            let (at, tries) = self.asked.entry(seq).or_insert((0, 0));
            if *tries == 0 || (again && ms >= *at + NACK_AGAIN_MS && *tries < NACK_TRIES) {
                (*at, *tries) = (ms, *tries + 1);
                lost.push(seq as u16);
            }
        }
        if !lost.is_empty() {
            let mut nack = Vec::new();
            write::nack(&mut nack, Ssrc(1), Ssrc(ssrc), lost);
            out.push(nack);
        }
        if self.stuck_since.is_some_and(|since| ms > since + STUCK_MS) && ms > self.last_pli + 500 {
            self.last_pli = ms;
            let mut pli = Vec::new();
            write::pli(&mut pli, Ssrc(1), Ssrc(ssrc));
            out.push(pli);
        }
        out
    }
}

impl Voice {
    /// Play 20 ms, or conceal them.
    fn play(&mut self) {
        let Some(next) = self.next else { return };
        if self.wait < 3 {
            // A buffer of 60 ms to begin with.
            self.wait += 1;
            return;
        }
        if self.buffer.remove(&next).is_some() {
            self.heard += 1;
            self.longest = self.longest.max(self.silence);
            self.silence = 0;
            self.next = Some(next + 1);
            // A long buffer is played faster, at most a tenth.
            if self.buffer.len() > 5 && self.heard.is_multiple_of(10) {
                self.buffer.remove(&(next + 1));
                self.next = Some(next + 2);
            }
            return;
        }
        self.silence += 20;
        self.concealed += 20;
        self.longest = self.longest.max(self.silence);
        // It is lost when a later one is there; else it is only late, and played after this.
        if let Some((first, ())) = self.buffer.first_key_value() {
            // After an outage it goes on at once.
            self.next = Some(if *first > next + 10 { *first } else { next + 1 });
        }
    }
}
