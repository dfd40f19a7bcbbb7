//! What must hold for everything the shard sends, judged in sending order, before the network spoils it.

use std::collections::{BTreeMap, BTreeSet};

use weir::rtp::packet::PacketView;
use weir::rtp::seq::Unwrapper16;

use crate::media::{Label, Payload, Vp8};

/// What has been seen of one outgoing RTP stream.
#[derive(Default)]
pub struct Stream {
    unwrapper: Unwrapper16,
    sent: BTreeMap<u64, Sent>,
    newest: Option<Newest>,
    /// Frames sent since the last switch.
    frames: BTreeSet<u32>,
    pub packets: u64,
    pub switches: u64,
}

/// Enough of a sent packet to know it again.
#[derive(Clone, PartialEq, Eq)]
struct Sent {
    timestamp: u32,
    marker: bool,
    payload: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Newest {
    seq: u64,
    label: Label,
    timestamp: u32,
    vp8: Option<Vp8>,
}

/// What the shard has taken in of one received stream.
#[derive(Default)]
pub struct Intake {
    /// Numbers that reached the shard in order. A late one may fill its hole or not: it may be of no use by then.
    pub arrived: BTreeSet<u64>,
    /// Nothing of it was ever lost or overtaken.
    pub lossless: bool,
}

impl Intake {
    pub fn arrive(&mut self, seq: u64) {
        if self.arrived.last().is_none_or(|highest| seq > *highest) {
            self.arrived.insert(seq);
        }
        if self.arrived.len() > 3000 {
            self.arrived.pop_first();
        }
    }
}

impl Stream {
    /// The shard sends a packet of the stream.
    pub fn on_packet(&mut self, view: &PacketView<'_>, video: bool, intake: &Intake) -> Label {
        let payload = Payload::read(video, view.payload());
        let (label, seq) = (payload.label, self.unwrapper.unwrap(view.sequence()));
        let sent = Sent { timestamp: view.timestamp(), marker: view.marker(), payload: view.payload().to_vec() };
        assert!(self.sent.insert(seq, sent).is_none(), "number {seq} sent twice: {label:?}");
        if self.sent.len() > 2000 {
            self.sent.pop_first();
        }
        self.packets += 1;
        let newest = Newest { seq, label, timestamp: view.timestamp(), vp8: payload.vp8 };
        match self.newest {
            None => {
                assert!(!video || (label.key && label.start), "begins without a key frame: {label:?}");
                self.newest = Some(newest);
            }
            Some(before) if seq > before.seq => {
                self.follows(&before, &newest, video, intake);
                self.newest = Some(newest);
            }
            Some(before) => {
                let behind = before.timestamp.wrapping_sub(newest.timestamp);
                assert!(behind < 0x8000_0000, "a late packet from the future: {label:?}");
            }
        }
        if video && label.start {
            self.decodable(&label, intake);
        }
        label
    }

    /// The shard sends a packet again: it must be the one sent before, to the byte.
    pub fn on_retransmission(&self, view: &PacketView<'_>) {
        let (original, payload) = view.payload().split_at(2);
        let wire = u16::from_be_bytes([original[0], original[1]]);
        let seq = self.unwrapper.peek(wire);
        let Some(sent) = self.sent.get(&seq) else { panic!("retransmits {seq}, which was never sent") };
        let again = Sent { timestamp: view.timestamp(), marker: view.marker(), payload: payload.to_vec() };
        assert!(*sent == again, "retransmits something else as {seq}");
    }

    fn follows(&mut self, before: &Newest, after: &Newest, video: bool, intake: &Intake) {
        let (was, is) = (&before.label, &after.label);
        let hole = after.seq - before.seq - 1;
        let elapsed = after.timestamp.wrapping_sub(before.timestamp);
        assert!(elapsed < 0x8000_0000, "time runs backwards by {}: {was:?} {is:?}", elapsed.wrapping_neg());
        if was.encoding != is.encoding {
            self.switches += 1;
            assert!(is.key && is.start, "switches without a key frame: {was:?} {is:?}");
            assert_eq!(hole, 0, "a hole at a switch: {was:?} {is:?}");
            self.frames.clear();
        } else {
            let missing = (was.seq + 1..is.seq).filter(|seq| !intake.arrived.contains(seq)).count() as u64;
            assert!(hole <= missing, "a hole of {hole} where {missing} are missing: {was:?} {is:?}");
            assert!(!intake.lossless || hole == 0, "a hole without loss: {was:?} {is:?}");
        }
        let same_frame = was.frame == is.frame && was.encoding == is.encoding;
        assert_eq!(elapsed == 0, same_frame, "timestamps do not follow frames: {was:?} {is:?}");
        if video {
            self.pictures_follow(before, after, same_frame, intake);
        }
    }

    fn pictures_follow(&self, before: &Newest, after: &Newest, same_frame: bool, intake: &Intake) {
        let (was, is) = (&before.label, &after.label);
        let (Some(a), Some(b)) = (before.vp8, after.vp8) else { panic!("no VP8 numbers") };
        let step = b.picture.wrapping_sub(a.picture) & 0x7fff;
        let base_step = b.tl0.wrapping_sub(a.tl0);
        if same_frame {
            assert_eq!((step, base_step), (0, 0), "numbers change within a frame: {is:?}");
            return;
        }
        let exact = intake.lossless || was.encoding != is.encoding;
        let most = if exact { 1 } else { is.frame.wrapping_sub(was.frame) };
        assert!(step >= 1 && u32::from(step) <= most.max(1), "picture id steps by {step}: {was:?} {is:?}");
        if exact {
            let expected = u8::from(is.temporal == 0);
            assert_eq!(base_step, expected, "TL0PICIDX: {was:?} {is:?}");
        }
        let key_step = b.key_index.wrapping_sub(a.key_index) & 0x1f;
        if exact && is.key {
            assert_eq!(key_step, 1, "KEYIDX: {was:?} {is:?}");
        }
    }

    /// Where nothing was lost on the way to the shard, every frame sent finds what it refers to.
    fn decodable(&mut self, label: &Label, intake: &Intake) {
        if label.key {
            self.frames.clear();
        } else if intake.lossless {
            assert!(self.frames.contains(&label.refers), "refers to a frame that was not sent: {label:?}");
        }
        self.frames.insert(label.frame);
        if self.frames.len() > 100 {
            self.frames.pop_first();
        }
    }
}
