//! RTCP a light participant sends: receiver reports and transport-wide feedback (draft-holmer-rmcat-transport-wide-cc),
//! and what it reads of what it is sent.

/// Most packets of one feedback message; older ones are left out.
const MAX_REPORTED: u16 = 400;
/// Receiver report, a header and the report blocks; sender report; payload-specific feedback.
const RR: u8 = 201;
const SR: u8 = 200;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;

/// Arrivals by transport-wide number since the last feedback.
#[derive(Debug, Default)]
pub struct Arrivals {
    seen: Vec<(u16, u64)>,
    messages: u8,
}

impl Arrivals {
    /// Packet `number` arrived at `at_us`.
    pub fn add(&mut self, number: u16, at_us: u64) {
        if self.seen.len() < usize::from(MAX_REPORTED) {
            self.seen.push((number, at_us));
        }
    }

    /// The feedback message due, if anything arrived.
    pub fn write(&mut self, our_ssrc: u32, media_ssrc: u32, out: &mut Vec<u8>) -> bool {
        let Some(&(first, _)) = self.seen.first() else { return false };
        // Signed distance from the first to arrive: reordered ones may lie before it.
        let distance = |number: u16| number.wrapping_sub(first).cast_signed();
        self.seen.sort_by_key(|(number, _)| distance(*number));
        self.seen.dedup_by_key(|(number, _)| *number);
        let (base, first_at) = self.seen.first().copied().unwrap_or_default();
        let last = self.seen.last().map_or(base, |(number, _)| *number);
        let count = last.wrapping_sub(base).wrapping_add(1).min(MAX_REPORTED);
        let reference = first_at / 64_000;
        let start = out.len();
        out.extend_from_slice(&[0x80 | 15, TRANSPORT_FEEDBACK, 0, 0]);
        out.extend_from_slice(&our_ssrc.to_be_bytes());
        out.extend_from_slice(&media_ssrc.to_be_bytes());
        out.extend_from_slice(&base.to_be_bytes());
        out.extend_from_slice(&count.to_be_bytes());
        let [_, _, _, _, _, r0, r1, r2] = reference.to_be_bytes();
        out.extend_from_slice(&[r0, r1, r2, self.messages]);
        self.messages = self.messages.wrapping_add(1);
        let (mut deltas, mut before) = (Vec::with_capacity(self.seen.len() * 2), reference * 64_000);
        let mut seen = self.seen.iter().peekable();
        let mut symbols = (0..count).map(|n| {
            let Some((_, at)) = seen.next_if(|(number, _)| *number == base.wrapping_add(n)) else { return 0 };
            let delta = (at.cast_signed() - before.cast_signed()) / 250;
            before = before.saturating_add_signed(delta * 250);
            if let Ok(small) = u8::try_from(delta) {
                deltas.push(small);
                1
            } else {
                let large = i16::try_from(delta).unwrap_or(i16::MAX);
                deltas.extend_from_slice(&large.to_be_bytes());
                2u16
            }
        });
        // Vectors of seven two-bit symbols.
        for _ in 0..count.div_ceil(7) {
            let vector = (0..7).fold(0xc000, |word, n| word | symbols.next().unwrap_or(0) << (12 - 2 * n));
            out.extend_from_slice(&u16::to_be_bytes(vector));
        }
        drop(symbols);
        out.append(&mut deltas);
        while !(out.len() - start).is_multiple_of(4) {
            out.push(0);
        }
        let words = u16::try_from((out.len() - start) / 4 - 1).unwrap_or(0);
        if let Some(length) = out.get_mut(start + 2..start + 4) {
            length.copy_from_slice(&words.to_be_bytes());
        }
        self.seen.clear();
        true
    }
}

/// What is reported of one received stream.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Its SSRC.
    pub ssrc: u32,
    base: u32,
    highest: u32,
    packets: u32,
    before: (u32, u32),
    last_sr: Option<(u32, u64)>,
}

impl Received {
    /// A stream that begins with this sequence number.
    pub fn new(ssrc: u32, sequence: u16) -> Self {
        let base = u32::from(sequence) + 0x1_0000;
        Self { ssrc, base, highest: base, ..Self::default() }
    }

    /// A packet came.
    pub fn add(&mut self, sequence: u16) {
        let ahead = sequence.wrapping_sub((self.highest & 0xffff) as u16).cast_signed();
        if ahead > 0 {
            self.highest = self.highest.wrapping_add(u32::from(ahead.unsigned_abs()));
        }
        self.packets = self.packets.wrapping_add(1);
    }

    /// A sender report came; the middle of its NTP time, and when.
    pub const fn sender_report(&mut self, ntp: u32, at_us: u64) {
        self.last_sr = Some((ntp, at_us));
    }

    /// Missing so far.
    pub const fn missing(&self) -> u32 {
        (self.highest + 1 - self.base).saturating_sub(self.packets)
    }

    fn block(&mut self, now_us: u64, out: &mut Vec<u8>) {
        let expected = self.highest + 1 - self.base;
        let (new, got) = (expected.wrapping_sub(self.before.0), self.packets.wrapping_sub(self.before.1));
        self.before = (expected, self.packets);
        let lost = u64::from(new.saturating_sub(got)) * 256;
        let fraction = lost.checked_div(u64::from(new)).unwrap_or(0).min(255);
        out.extend_from_slice(&self.ssrc.to_be_bytes());
        out.extend_from_slice(&(self.missing() & 0x7f_ffff | u32::try_from(fraction).unwrap_or(0) << 24).to_be_bytes());
        out.extend_from_slice(&(self.highest - 0x1_0000).to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        let (lsr, delay) =
            self.last_sr.map_or((0, 0), |(ntp, at)| (ntp, now_us.saturating_sub(at) * 65_536 / 1_000_000));
        out.extend_from_slice(&lsr.to_be_bytes());
        out.extend_from_slice(&u32::try_from(delay).unwrap_or(u32::MAX).to_be_bytes());
    }
}

/// A receiver report on up to 31 streams.
pub fn receiver_report(our_ssrc: u32, streams: &mut [Received], now_us: u64, out: &mut Vec<u8>) {
    let count = u8::try_from(streams.len().min(31)).unwrap_or(31);
    out.extend_from_slice(&[0x80 | count, RR]);
    out.extend_from_slice(&(u16::from(count) * 6 + 1).to_be_bytes());
    out.extend_from_slice(&our_ssrc.to_be_bytes());
    for stream in streams.iter_mut().take(31) {
        stream.block(now_us, out);
    }
}

/// What came in a compound packet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Sender reports: SSRC and the middle of the NTP time.
    pub sender_reports: Vec<(u32, u32)>,
    /// A key frame is asked for.
    pub key_frame: bool,
}

/// Read what matters of a compound packet.
pub fn hear(mut packet: &[u8]) -> Heard {
    let mut heard = Heard::default();
    while let Some((&[first, kind, l0, l1], _)) = packet.split_first_chunk::<4>() {
        let length = 4 * (usize::from(u16::from_be_bytes([l0, l1])) + 1);
        let Some((this, rest)) = packet.split_at_checked(length) else { break };
        let word = |at: usize| this.get(at..).and_then(|rest| rest.first_chunk()).map(|w| u32::from_be_bytes(*w));
        match (kind, first & 31) {
            (SR, _) => {
                if let (Some(ssrc), Some(seconds), Some(fraction)) = (word(4), word(8), word(12)) {
                    heard.sender_reports.push((ssrc, seconds << 16 | fraction >> 16));
                }
            }
            (PAYLOAD_FEEDBACK, 1 | 4) => heard.key_frame = true,
            _ => {}
        }
        packet = rest;
    }
    heard
}

#[cfg(test)]
mod tests {
    use rtc::rtcp::header::Header;
    use rtc::rtcp::transport_feedbacks::transport_layer_cc::{SymbolTypeTcc, TransportLayerCc};
    use rtc::shared::marshal::Unmarshal;

    use super::*;

    #[test]
    fn an_independent_codec_reads_the_feedback_as_meant() {
        let mut arrivals = Arrivals::default();
        for (number, at) in [(65_534, 1_000_000), (65_535, 1_000_500), (1, 1_200_000), (0, 1_001_000), (4, 1_200_250)] {
            arrivals.add(number, at);
        }
        let mut out = Vec::new();
        assert!(arrivals.write(1, 2, &mut out));
        let feedback = TransportLayerCc::unmarshal(&mut &out[..]).unwrap();
        assert_eq!((feedback.base_sequence_number, feedback.packet_status_count), (65_534, 7));
        let kinds: Vec<_> = feedback.recv_deltas.iter().map(|delta| delta.type_tcc_packet).collect();
        use SymbolTypeTcc::{PacketReceivedLargeDelta as Large, PacketReceivedSmallDelta as Small};
        assert_eq!(kinds, [Small, Small, Small, Large, Small]);
        let deltas: Vec<_> = feedback.recv_deltas.iter().map(|delta| delta.delta).collect();
        assert_eq!(deltas, [40_000, 500, 500, 199_000, 250]);
        assert!(!arrivals.write(1, 2, &mut out), "nothing new");
    }

    #[test]
    fn reports_loss_and_hears_requests() {
        let mut received = Received::new(9, 65_530);
        (0..20u16).filter(|n| *n != 8).for_each(|n| received.add(65_530u16.wrapping_add(n)));
        assert_eq!(received.missing(), 1);
        let mut out = Vec::new();
        receiver_report(1, &mut [received], 5, &mut out);
        let header = Header::unmarshal(&mut &out[..]).unwrap();
        assert_eq!((header.count, out.len()), (1, 4 * (usize::from(header.length) + 1)));
        let pli = [0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
        out.extend_from_slice(&pli);
        assert!(hear(&out).key_frame);
        assert!(!hear(&pli[..6]).key_frame);
    }
}
