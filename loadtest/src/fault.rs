//! Faults planted into what a participant receives, behind SRTP, where a faulty server would put them: to show that the
//! load test finds them and calls them by their names. Pure; chance comes from a counter, so a run can be repeated.

use std::collections::VecDeque;
use std::str::FromStr;

use anyhow::{Context, bail};
use rtc::rtp::Packet;

/// A delayed packet is this late.
const DELAY_NS: u64 = 400_000_000;
/// Packets held back at a time.
const MAX_HELD: usize = 4_096;

/// What is done to packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They never come.
    Drop,
    /// A byte of the frame is changed.
    Corrupt,
    /// A packet comes after the one that follows it.
    Reorder,
    /// Packets come late.
    Delay,
    /// A frame comes on the track of another.
    Swap,
}

/// A fault to plant: a kind, and how many packets of a thousand it hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is done.
    pub kind: Kind,
    /// To how many of a thousand packets.
    pub per_mille: u32,
}

impl FromStr for Fault {
    type Err = anyhow::Error;

    /// `drop:20`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, share) = text.split_once(':').context("a kind and packets of a thousand, as drop:20")?;
        let kind = match kind {
            "drop" => Kind::Drop,
            "corrupt" => Kind::Corrupt,
            "reorder" => Kind::Reorder,
            "delay" => Kind::Delay,
            "swap" => Kind::Swap,
            other => bail!("{other} is none of drop, corrupt, reorder, delay, swap"),
        };
        let per_mille = share.parse().ok().filter(|share| (1..=1_000).contains(share));
        Ok(Self { kind, per_mille: per_mille.context("packets of a thousand are 1 to 1000")? })
    }
}

/// The stage packets go through.
#[derive(Debug)]
pub struct Stage {
    fault: Fault,
    state: u64,
    /// Packets held back, and when they are let go; at `u64::MAX`, after the next of their stream.
    held: VecDeque<(u64, Packet)>,
    /// SSRC, payload type and payload of the last small packet, to be swapped with another's of its kind.
    last: Option<(u32, u8, bytes::Bytes)>,
}

impl Stage {
    /// One that does this.
    pub const fn new(fault: Fault) -> Self {
        Self { fault, state: 0x9e37_79b9_7f4a_7c15, held: VecDeque::new(), last: None }
    }

    /// A packet came; what of it and of those before is let through.
    pub fn take(&mut self, at_ns: u64, mut packet: Packet, out: &mut Vec<Packet>) {
        self.due(at_ns, out);
        if !self.hits() {
            let ssrc = packet.header.ssrc;
            self.remember(&packet);
            out.push(packet);
            while let Some(at) = self.held.iter().position(|(due, held)| *due == u64::MAX && held.header.ssrc == ssrc) {
                out.extend(self.held.remove(at).map(|(_, held)| held));
            }
            return;
        }
        match self.fault.kind {
            Kind::Drop => {}
            Kind::Corrupt => {
                let mut bytes = packet.payload.to_vec();
                if let Some(last) = bytes.len().checked_sub(40).and_then(|at| bytes.get_mut(at)) {
                    *last ^= 0x10;
                }
                packet.payload = bytes.into();
                out.push(packet);
            }
            Kind::Reorder if self.held.len() < MAX_HELD => self.held.push_back((u64::MAX, packet)),
            Kind::Delay if self.held.len() < MAX_HELD => self.held.push_back((at_ns + DELAY_NS, packet)),
            Kind::Swap => {
                if let Some((_, _, other)) = self
                    .last
                    .take_if(|(ssrc, kind, _)| *ssrc != packet.header.ssrc && *kind == packet.header.payload_type)
                {
                    packet.payload = other;
                }
                out.push(packet);
            }
            Kind::Reorder | Kind::Delay => out.push(packet),
        }
    }

    /// Let go what was held back long enough.
    pub fn due(&mut self, at_ns: u64, out: &mut Vec<Packet>) {
        while self.held.front().is_some_and(|(due, _)| *due <= at_ns) {
            out.extend(self.held.pop_front().map(|(_, held)| held));
        }
    }

    /// Frames of one packet can be swapped whole.
    fn remember(&mut self, packet: &Packet) {
        if packet.payload.len() < 250 {
            self.last = Some((packet.header.ssrc, packet.header.payload_type, packet.payload.clone()));
        }
    }

    /// SplitMix64.
    fn hits(&mut self) -> bool {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % 1_000 < u64::from(self.fault.per_mille)
    }
}
