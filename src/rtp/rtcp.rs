//! RTCP (RFC 3550, 6; RFC 4585; RFC 5104; RFC 5506): a compound packet as a bounded iterator over borrowed bytes.
//!
//! Reduced-size packets are taken as they come. What is not listed in [`Packet`] is skipped as [`Packet::Other`]. Writing
//! is in [`mod@write`].

pub mod write;

use crate::base::{DropReason, Ssrc};
use crate::rtp::cursor::Cursor;
use crate::rtp::ntp::NtpTime;
use crate::rtp::twcc;

pub(crate) const SENDER_REPORT: u8 = 200;
pub(crate) const RECEIVER_REPORT: u8 = 201;
pub(crate) const SOURCE_DESCRIPTION: u8 = 202;
pub(crate) const GOODBYE: u8 = 203;
pub(crate) const TRANSPORT_FEEDBACK: u8 = 205;
pub(crate) const PAYLOAD_FEEDBACK: u8 = 206;
pub(crate) const EXTENDED_REPORT: u8 = 207;

/// Most packets looked at in one datagram; what follows is ignored. libwebrtc sends about ten at most.
const MAX_PACKETS: u8 = 64;

/// One RTCP packet.
#[derive(Clone, Copy, Debug)]
pub enum Packet<'a> {
    /// SR: the sender's clock, and its reports on what it receives.
    SenderReport(SenderInfo, ReportBlocks<'a>),
    /// RR: who reports, and the reports.
    ReceiverReport(Ssrc, ReportBlocks<'a>),
    /// SDES: not used, names nothing we need.
    SourceDescription,
    /// BYE: these streams have ended.
    Bye(Ssrcs<'a>),
    /// Generic NACK (RFC 4585, 6.2.1): these packets of `media` are missing.
    Nack {
        /// The stream with holes.
        media: Ssrc,
        /// Its missing sequence numbers.
        lost: Lost<'a>,
    },
    /// Transport-wide feedback.
    TransportCc(twcc::Feedback<'a>),
    /// Picture loss indication (RFC 4585, 6.3.1).
    Pli {
        /// The stream that needs a key frame.
        media: Ssrc,
    },
    /// Full intra request (RFC 5104, 4.3.1).
    Fir(FirEntries<'a>),
    /// Receiver estimated maximum bitrate (draft-alvestrand-rmcat-remb-03).
    Remb {
        /// Bits per second.
        bps: u64,
        /// The streams it is about.
        media: Ssrcs<'a>,
    },
    /// Receiver reference time report (RFC 3611, 4.4): answered with a DLRR.
    ReferenceTime {
        /// Who asks.
        sender: Ssrc,
        /// Its clock.
        ntp: NtpTime,
    },
    /// Answers to our reference times (RFC 3611, 4.5).
    Dlrr(DlrrBlocks<'a>),
    /// Anything else.
    Other {
        /// RTCP packet type.
        packet_type: u8,
        /// Feedback message type or count field.
        format: u8,
    },
}

/// The sender part of an SR (RFC 3550, 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderInfo {
    /// Whose clock.
    pub ssrc: Ssrc,
    /// Wall clock of the sender when it sent the report.
    pub ntp: NtpTime,
    /// The RTP timestamp of that moment.
    pub rtp: u32,
    /// Packets sent so far, wrapping.
    pub packets: u32,
    /// Payload bytes sent so far, wrapping.
    pub octets: u32,
}

/// One report block (RFC 3550, 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportBlock {
    /// The stream reported on.
    pub ssrc: Ssrc,
    /// Lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Lost since the beginning, 24 bits signed.
    pub cumulative_lost: i32,
    /// Highest sequence number received, with 16 bits of cycles.
    pub highest: u32,
    /// Interarrival jitter in timestamp units.
    pub jitter: u32,
    /// Middle of the NTP time of the last SR; zero when none came.
    pub last_sr: u32,
    /// Since then, in 1/65536 s.
    pub delay_since_sr: u32,
}

impl ReportBlock {
    /// Of a stream of which all has come up to the extended number `highest`, evenly, and no sender report.
    pub const fn nothing_lost(ssrc: Ssrc, highest: u32) -> Self {
        Self { ssrc, fraction_lost: 0, cumulative_lost: 0, highest, jitter: 0, last_sr: 0, delay_since_sr: 0 }
    }
}

const REPORT_BLOCK: usize = 24;

macro_rules! records {
    ($(#[$doc:meta])* $name:ident, $size:literal, $item:ty, $read:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name<'a>(&'a [[u8; $size]]);

        impl<'a> $name<'a> {
            fn new(bytes: &'a [u8]) -> Self {
                Self(bytes.as_chunks::<$size>().0)
            }
        }

        impl Iterator for $name<'_> {
            type Item = $item;
            fn next(&mut self) -> Option<Self::Item> {
                let (record, rest) = self.0.split_first()?;
                self.0 = rest;
                let read: fn(Cursor<'_>) -> Option<$item> = $read;
                read(Cursor::new(record))
            }
        }
    };
}

records!(
    /// Report blocks, at most 31.
    ReportBlocks,
    24,
    ReportBlock,
    |mut c| Some(ReportBlock {
        ssrc: Ssrc(c.u32()?),
        fraction_lost: c.u8()?,
        // Sign-extend 24 bits.
        cumulative_lost: (c.u24()? << 8).cast_signed() >> 8,
        highest: c.u32()?,
        jitter: c.u32()?,
        last_sr: c.u32()?,
        delay_since_sr: c.u32()?,
    })
);
records!(
    /// A list of SSRCs.
    Ssrcs,
    4,
    Ssrc,
    |mut c| c.u32().map(Ssrc)
);
records!(
    /// Streams asked for a key frame, each with the number of the request: a repeated number is the same request.
    FirEntries,
    8,
    (Ssrc, u8),
    |mut c| Some((Ssrc(c.u32()?), c.u8()?))
);
records!(
    /// `(SSRC, last RR, delay since it)` triples.
    DlrrBlocks,
    12,
    (Ssrc, u32, u32),
    |mut c| Some((Ssrc(c.u32()?), c.u32()?, c.u32()?))
);
records!(
    /// Pairs of a packet id and a mask of the 16 after it.
    NackItems,
    4,
    (u16, u16),
    |mut c| Some((c.u16()?, c.u16()?))
);

/// Missing sequence numbers of a NACK, as on the wire, in the order named. At most 17 per 4 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Lost<'a> {
    items: NackItems<'a>,
    next: u16,
    /// Bit 0 stands for `next`.
    mask: u32,
}

impl Iterator for Lost<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if self.mask == 0 {
            let (first, after) = self.items.next()?;
            self.next = first;
            self.mask = 1 | (u32::from(after) << 1);
        }
        let skip = self.mask.trailing_zeros();
        self.mask >>= skip;
        self.next = self.next.wrapping_add(u16::try_from(skip).unwrap_or_default());
        let lost = self.next;
        self.mask >>= 1;
        self.next = self.next.wrapping_add(1);
        Some(lost)
    }
}

/// The packets of one RTCP datagram. After an error nothing more comes.
#[derive(Clone, Copy, Debug)]
pub struct Compound<'a> {
    cursor: Cursor<'a>,
    left: u8,
}

impl<'a> Compound<'a> {
    /// Over a decrypted datagram.
    pub const fn new(datagram: &'a [u8]) -> Self {
        Self { cursor: Cursor::new(datagram), left: MAX_PACKETS }
    }
}

impl<'a> Iterator for Compound<'a> {
    type Item = Result<Packet<'a>, DropReason>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 || self.cursor.len() == 0 {
            return None;
        }
        self.left -= 1;
        let packet = next_packet(&mut self.cursor);
        if packet.is_none() {
            self.left = 0;
        }
        Some(packet.ok_or(DropReason::MalformedRtcp))
    }
}

fn next_packet<'a>(cursor: &mut Cursor<'a>) -> Option<Packet<'a>> {
    let [first, packet_type] = cursor.array()?;
    let words = cursor.u16()?;
    let mut body = cursor.take(usize::from(words) * 4)?;
    if first >> 6 != 2 {
        return None;
    }
    if first & 0x20 != 0 {
        let padding = usize::from(*body.last()?);
        if padding == 0 {
            return None;
        }
        body = body.get(..body.len().checked_sub(padding)?)?;
    }
    read_packet(packet_type, first & 0x1f, body)
}

fn read_packet(packet_type: u8, format: u8, body: &[u8]) -> Option<Packet<'_>> {
    let mut cursor = Cursor::new(body);
    let count = usize::from(format);
    Some(match (packet_type, format) {
        (SENDER_REPORT, _) => {
            let info = SenderInfo {
                ssrc: Ssrc(cursor.u32()?),
                ntp: NtpTime(cursor.u64()?),
                rtp: cursor.u32()?,
                packets: cursor.u32()?,
                octets: cursor.u32()?,
            };
            Packet::SenderReport(info, ReportBlocks::new(cursor.take(count * REPORT_BLOCK)?))
        }
        (RECEIVER_REPORT, _) => {
            let sender = Ssrc(cursor.u32()?);
            Packet::ReceiverReport(sender, ReportBlocks::new(cursor.take(count * REPORT_BLOCK)?))
        }
        (SOURCE_DESCRIPTION, _) => Packet::SourceDescription,
        (GOODBYE, _) => Packet::Bye(Ssrcs::new(cursor.take(count * 4)?)),
        (EXTENDED_REPORT, _) => extended_report(cursor)?,
        (TRANSPORT_FEEDBACK | PAYLOAD_FEEDBACK, _) => {
            cursor.u32()?;
            let media = Ssrc(cursor.u32()?);
            feedback(packet_type, format, media, cursor)?
        }
        _ => Packet::Other { packet_type, format },
    })
}

fn feedback(packet_type: u8, format: u8, media: Ssrc, mut cursor: Cursor<'_>) -> Option<Packet<'_>> {
    Some(match (packet_type, format) {
        (TRANSPORT_FEEDBACK, 1) => {
            Packet::Nack { media, lost: Lost { items: NackItems::new(cursor.rest()), next: 0, mask: 0 } }
        }
        (TRANSPORT_FEEDBACK, 15) => Packet::TransportCc(twcc::Feedback::read(media, cursor.rest())?),
        (PAYLOAD_FEEDBACK, 1) => Packet::Pli { media },
        (PAYLOAD_FEEDBACK, 4) => Packet::Fir(FirEntries::new(cursor.rest())),
        (PAYLOAD_FEEDBACK, 15) if cursor.rest().starts_with(b"REMB") => {
            cursor.u32()?;
            let (count, rate) = (cursor.u8()?, cursor.u24()?);
            // 6 bits of exponent, 18 of mantissa.
            let bps = u64::from(rate & 0x3_ffff).checked_shl(rate >> 18)?;
            Packet::Remb { bps, media: Ssrcs::new(cursor.take(usize::from(count) * 4)?) }
        }
        _ => Packet::Other { packet_type, format },
    })
}

/// The first block of a kind we know; libwebrtc sends one per packet, others are skipped.
fn extended_report(mut cursor: Cursor<'_>) -> Option<Packet<'_>> {
    let sender = Ssrc(cursor.u32()?);
    while cursor.len() > 0 {
        let [kind, _] = cursor.array()?;
        let words = cursor.u16()?;
        let block = cursor.take(usize::from(words) * 4)?;
        match kind {
            4 => return Some(Packet::ReferenceTime { sender, ntp: NtpTime(Cursor::new(block).u64()?) }),
            5 => return Some(Packet::Dlrr(DlrrBlocks::new(block))),
            _ => {}
        }
    }
    Some(Packet::Other { packet_type: EXTENDED_REPORT, format: 0 })
}

#[cfg(test)]
mod tests;
