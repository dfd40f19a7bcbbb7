//! A participant: publishes, answers NACK and PLI, receives, asks for what it misses.

use std::collections::BTreeMap;

use weir::base::{Instant, Rng, Ssrc};
use weir::rtp::ntp::NtpTime;
use weir::rtp::packet::PacketView;
use weir::rtp::rtcp::{Compound, Packet, ReportBlock, SenderInfo, write};
use weir::rtp::seq::Unwrapper16;

use crate::media::Encoder;
use crate::net::Path;

/// What is received of one downtrack.
#[derive(Default)]
pub struct Inbound {
    unwrapper: Unwrapper16,
    /// Holes, and when and how often they were asked for.
    holes: BTreeMap<u64, (u64, u8)>,
    pub packets: u64,
}

pub struct Client {
    pub up: Path,
    pub down: Path,
    pub encoders: Vec<Encoder>,
    pub inbound: BTreeMap<u32, Inbound>,
    /// What this one's wall clock said at the beginning.
    clock: NtpTime,
    next_report_ms: u64,
    pub key_frames_asked: u64,
}

impl Client {
    pub fn new(rng: &mut Rng) -> Self {
        Self {
            up: Path::random(rng),
            down: Path::random(rng),
            encoders: Vec::new(),
            inbound: BTreeMap::new(),
            clock: NtpTime(rng.next_u64() >> 1),
            next_report_ms: 0,
            key_frames_asked: 0,
        }
    }

    /// Every 10 ms: media and reports that are due.
    pub fn tick(&mut self, now: Instant, rng: &mut Rng) -> Vec<Vec<u8>> {
        let ms = now.as_millis();
        let mut out = Vec::new();
        for encoder in &mut self.encoders {
            let due = if encoder.video { ms.is_multiple_of(100) } else { ms.is_multiple_of(20) };
            if due {
                out.extend(encoder.frame(now));
                if encoder.video && encoder.enabled && rng.below(20) == 0 {
                    out.push(encoder.padding(now));
                }
            }
        }
        if ms >= self.next_report_ms {
            self.next_report_ms = ms + 1000;
            self.report(now, &mut out);
        }
        self.ask_again(ms, &mut out);
        out
    }

    fn report(&self, now: Instant, out: &mut Vec<Vec<u8>>) {
        let mut packet = Vec::new();
        for encoder in &self.encoders {
            let (packets, octets) = encoder.counters();
            let info = SenderInfo {
                ssrc: Ssrc(encoder.ssrc),
                ntp: self.clock.plus_nanos(now.as_nanos() as i64),
                rtp: encoder.timestamp(now),
                packets,
                octets,
            };
            write::sender_report(&mut packet, &info, &[]);
        }
        let blocks: Vec<ReportBlock> =
            self.inbound.keys().take(31).map(|ssrc| ReportBlock::nothing_lost(Ssrc(*ssrc), 0)).collect();
        write::receiver_report(&mut packet, Ssrc(1), &blocks);
        out.push(packet);
    }

    fn ask_again(&mut self, ms: u64, out: &mut Vec<Vec<u8>>) {
        for (ssrc, inbound) in &mut self.inbound {
            let mut lost = Vec::new();
            inbound.holes.retain(|seq, (at, tries)| {
                if *at + 50 <= ms && lost.len() < 30 {
                    *at = ms;
                    *tries += 1;
                    lost.push(*seq as u16);
                }
                *tries < 4
            });
            if !lost.is_empty() {
                let mut packet = Vec::new();
                write::nack(&mut packet, Ssrc(1), Ssrc(*ssrc), lost);
                out.push(packet);
            }
        }
    }

    /// A packet of a downtrack came through the network.
    pub fn receive(&mut self, now: Instant, view: &PacketView<'_>) {
        let inbound = self.inbound.entry(view.ssrc().0).or_default();
        let highest = inbound.unwrapper.highest();
        let seq = inbound.unwrapper.unwrap(view.sequence());
        inbound.packets += 1;
        inbound.holes.remove(&seq);
        if let Some(highest) = highest {
            inbound.holes.extend((highest + 1..seq).take(50).map(|seq| (seq, (now.as_millis() - 30, 0))));
        }
    }

    /// RTCP came; what to answer.
    pub fn control(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for packet in Compound::new(bytes) {
            match packet.expect("the shard writes RTCP that parses") {
                Packet::Pli { media } => {
                    self.key_frames_asked += 1;
                    if let Some(encoder) = self.encoders.iter_mut().find(|e| Ssrc(e.ssrc) == media) {
                        encoder.wants_key = true;
                    }
                }
                Packet::Nack { media, lost } => {
                    let encoder = self.encoders.iter_mut().find(|e| Ssrc(e.ssrc) == media);
                    if let Some(encoder) = encoder {
                        out.extend(lost.filter_map(|seq| encoder.again(seq)));
                    }
                }
                _ => {}
            }
        }
        out
    }

    /// A key frame request for a downtrack.
    pub fn pli(ssrc: u32) -> Vec<u8> {
        let mut packet = Vec::new();
        write::pli(&mut packet, Ssrc(1), Ssrc(ssrc));
        packet
    }
}
