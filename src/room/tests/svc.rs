//! Spatial layers inside one encoding, as VP9 and AV1 send them (L3T3_KEY): a layer needs those below it, and begins at
//! a key picture.

use super::*;
use crate::rtp::codec::vp9;

const BYTES: [u16; 3] = [200, 500, 1100];

/// A camera in three layers, two packets each, and somebody who sees it.
struct Camera {
    bench: Bench,
    seq: u64,
    picture: u32,
}

/// What came of a packet: spatial layer, whether it is the last of its layer frame, header.
type Sent = (u8, bool, Header);

impl Camera {
    fn new(max_spatial: u8) -> Self {
        let mut bench = Bench::new(max_spatial);
        bench.room.tracks[bench.track].encodings = 1;
        Self { bench, seq: 100, picture: 0 }
    }

    fn packet(&mut self, (spatial, top): (u8, u8), part: u8, key: bool, temporal: u8) -> Packet {
        self.seq += 1;
        let descriptor = vp9::Descriptor {
            length: 3,
            picture_id: Some(self.picture as u16),
            inter_picture: !key,
            inter_layer: key && spatial > 0,
            not_for_upper: false,
            switching_up: true,
            tl0_picture_index: None,
        };
        Packet {
            seq: self.seq,
            timestamp: self.picture * 3000,
            marker: spatial == top && part == 1,
            size: BYTES[usize::from(spatial)],
            frame: FrameInfo {
                keyframe: key && spatial == 0 && part == 0,
                start_of_frame: part == 0,
                end_of_frame: part == 1,
                spatial,
                temporal,
                temporal_switch: true,
                size: None,
                detail: Detail::Vp9(descriptor),
            },
            ..packet(self.bench.now, FRAME)
        }
    }

    /// A picture of `layers` layers; what of it is sent.
    fn picture(&mut self, layers: u8, key: bool, temporal: u8) -> Vec<Sent> {
        self.bench.pass(Duration::from_millis(33));
        self.picture += 1;
        let mut sent = Vec::new();
        for (spatial, part) in (0..layers).flat_map(|spatial| [(spatial, 0), (spatial, 1)]) {
            let packet = self.packet((spatial, layers - 1), part, key, temporal);
            sent.extend(self.bench.offer_packet(&packet).map(|header| (spatial, part == 1, header)));
        }
        sent
    }

    fn want(&mut self, spatial: u8) {
        let (now, key) = (self.bench.now, self.bench.downtrack);
        self.bench.room.set_demand(now, key, demand(spatial));
        self.bench.room.reallocate(now, &mut self.bench.events);
    }

    /// A second of pictures, so that the cost of each layer is known.
    fn second(&mut self) -> Vec<Sent> {
        (0..31).flat_map(|_| self.picture(3, false, 0)).collect()
    }
}

fn layers(sent: &[Sent]) -> Vec<u8> {
    sent.iter().map(|(spatial, ..)| *spatial).collect()
}

/// Numbers go on without a gap, and exactly the last packet of a picture bears the mark.
fn whole(sent: &[Sent]) {
    for pair in sent.windows(2) {
        let [(_, _, before), (_, _, after)] = pair else { unreachable!() };
        assert_eq!(after.numbering.seq, before.numbering.seq + 1);
        assert_eq!(before.marker, after.numbering.timestamp != before.numbering.timestamp, "{sent:?}");
    }
    assert!(sent.last().is_none_or(|(_, ends, header)| *ends && header.marker), "{sent:?}");
}

#[test]
fn a_small_tile_gets_the_lower_layers_of_each_picture() {
    let mut camera = Camera::new(2);
    let mut sent = camera.picture(3, true, 0);
    sent.extend(camera.picture(3, false, 0));
    assert_eq!(layers(&sent), [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2], "all at first");
    for spatial in [1, 0] {
        camera.want(spatial);
        let next = camera.picture(3, false, 0);
        assert_eq!(next.len(), 2 * (usize::from(spatial) + 1), "from the next picture on, without a key frame");
        sent.extend(next);
        assert_eq!(camera.bench.room.downtracks[camera.bench.downtrack].current(), Some(spatial));
    }
    whole(&sent);
    assert_eq!(camera.bench.requests(), [0u8; 0], "nobody was asked for anything");
}

#[test]
fn a_larger_tile_waits_for_a_key_picture_and_asks_for_it() {
    let mut camera = Camera::new(0);
    let mut sent = camera.picture(3, true, 0);
    sent.extend(camera.second());
    camera.bench.requests();
    camera.want(2);
    camera.bench.pass(Duration::from_secs(1));
    let next = camera.picture(3, false, 0);
    assert_eq!(layers(&next), [0, 0], "nothing begins in the middle");
    sent.extend(next);
    let asked = camera.bench.requests();
    assert!(!asked.is_empty() && asked.iter().all(|encoding| *encoding == 0), "the only encoding is asked: {asked:?}");
    let key = camera.picture(3, true, 0);
    assert_eq!(layers(&key), [0, 0, 1, 1, 2, 2]);
    sent.extend(key);
    whole(&sent[6..]);
    assert_eq!(camera.bench.room.downtracks[camera.bench.downtrack].current(), Some(2));
    camera.bench.pass(Duration::from_secs(5));
    assert_eq!(camera.bench.requests(), [0u8; 0], "and no more");
}

#[test]
fn a_layer_costs_what_it_needs_below_it() {
    let mut camera = Camera::new(2);
    camera.picture(3, true, 0);
    camera.second();
    camera.second();
    let costs = camera.bench.room.tracks[camera.bench.track].costs().map(|cost| cost.unwrap().as_bps() / 1000);
    // Two packets of each layer 30 times a second.
    let own = BYTES.map(|bytes| u64::from(bytes + 48) * 2 * 8 * 30 / 1000);
    for (cost, expected) in costs.into_iter().zip([own[0], own[0] + own[1], own.iter().sum()]) {
        assert!(cost.abs_diff(expected) <= expected / 20, "{costs:?} {own:?}");
    }
    // The link carries the two lower ones only.
    let (now, subscriber) = (camera.bench.now, camera.bench.subscriber);
    let estimate = Bitrate::from_kbps(costs[1] * 115 / 100);
    assert!(camera.bench.room.on_estimate(subscriber, Some(estimate)));
    camera.bench.room.reallocate(now, &mut camera.bench.events);
    let sent = camera.picture(3, false, 0);
    assert_eq!(layers(&sent), [0, 0, 1, 1]);
    whole(&sent);
}

#[test]
fn what_the_publisher_stops_sending_is_not_waited_for() {
    let mut camera = Camera::new(2);
    camera.picture(3, true, 0);
    camera.second();
    let mut sent = Vec::new();
    for _ in 0..60 {
        sent.extend(camera.picture(2, false, 0));
    }
    whole(&sent);
    assert_eq!(camera.bench.room.downtracks[camera.bench.downtrack].current(), Some(1));
    assert_eq!(camera.bench.requests(), [0u8; 0]);
    // It comes back with a key picture, as publishers do, and is forwarded from its first packet.
    assert_eq!(layers(&camera.picture(3, true, 0)), [0, 0, 1, 1, 2, 2]);
}

#[test]
fn temporal_layers_of_every_layer_are_left_out() {
    let mut camera = Camera::new(1);
    let mut sent = camera.picture(3, true, 0);
    let (now, key) = (camera.bench.now, camera.bench.downtrack);
    camera.bench.room.set_demand(now, key, Demand { max_temporal: 0, ..demand(1) });
    for temporal in [2, 1, 2, 0] {
        let next = camera.picture(3, false, temporal);
        assert_eq!(next.is_empty(), temporal > 0);
        sent.extend(next);
    }
    assert_eq!(layers(&sent[6..]), [0, 0, 1, 1]);
    whole(&sent[6..]);
}

#[test]
fn what_comes_late_is_sent_with_the_mark_it_would_have_had() {
    let mut camera = Camera::new(0);
    camera.picture(3, true, 0);
    camera.second();
    camera.bench.pass(Duration::from_millis(33));
    camera.picture += 1;
    let first = camera.packet((0, 2), 0, false, 0);
    let last = camera.packet((0, 2), 1, false, 0);
    assert!(!camera.bench.offer_packet(&first).unwrap().marker);
    camera.picture(3, false, 0);
    let late = camera.bench.offer_packet(&Packet { newest: false, ..last }).unwrap();
    assert!(late.marker);
    // Above what is forwarded nothing is sent, late or not.
    let above = Packet { newest: false, frame: FrameInfo { spatial: 1, ..last.frame }, seq: last.seq + 1, ..last };
    assert_eq!(camera.bench.offer_packet(&above), None);
}
