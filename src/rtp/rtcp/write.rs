//! Writing RTCP packets: each function appends one packet to a reused buffer. Compounds are made by calling several.
//!
//! A compound starts with an SR or RR unless reduced-size RTCP was negotiated (RFC 5506); browsers take both.

use crate::base::Ssrc;
use crate::rtp::ntp::NtpTime;
use crate::rtp::rtcp::{
    EXTENDED_REPORT, GOODBYE, PAYLOAD_FEEDBACK, RECEIVER_REPORT, ReportBlock, SENDER_REPORT, SOURCE_DESCRIPTION,
    SenderInfo, TRANSPORT_FEEDBACK,
};

/// Most report blocks, SSRCs or chunks one packet can count.
pub const MAX_BLOCKS: usize = 31;

/// SR with report blocks (RFC 3550, 6.4.1); blocks past the 31st are left out.
pub fn sender_report(out: &mut Vec<u8>, info: &SenderInfo, blocks: &[ReportBlock]) {
    let blocks = blocks.get(..MAX_BLOCKS).unwrap_or(blocks);
    packet(out, SENDER_REPORT, count(blocks.len()), |out| {
        out.extend_from_slice(&info.ssrc.0.to_be_bytes());
        out.extend_from_slice(&info.ntp.0.to_be_bytes());
        out.extend_from_slice(&info.rtp.to_be_bytes());
        out.extend_from_slice(&info.packets.to_be_bytes());
        out.extend_from_slice(&info.octets.to_be_bytes());
        blocks.iter().for_each(|block| report_block(out, block));
    });
}

/// RR (RFC 3550, 6.4.2); blocks past the 31st are left out.
pub fn receiver_report(out: &mut Vec<u8>, sender: Ssrc, blocks: &[ReportBlock]) {
    let blocks = blocks.get(..MAX_BLOCKS).unwrap_or(blocks);
    packet(out, RECEIVER_REPORT, count(blocks.len()), |out| {
        out.extend_from_slice(&sender.0.to_be_bytes());
        blocks.iter().for_each(|block| report_block(out, block));
    });
}

/// SDES with one CNAME (RFC 3550, 6.5); a name longer than 255 bytes is cut.
pub fn source_description(out: &mut Vec<u8>, ssrc: Ssrc, cname: &str) {
    let name = cname.as_bytes();
    let name = name.get(..255).unwrap_or(name);
    packet(out, SOURCE_DESCRIPTION, 1, |out| {
        out.extend_from_slice(&ssrc.0.to_be_bytes());
        out.extend_from_slice(&[1, u8::try_from(name.len()).unwrap_or(u8::MAX)]);
        out.extend_from_slice(name);
        // The list of items ends with at least one zero byte.
        let zeros = 4 - (name.len() + 2) % 4;
        out.resize(out.len() + zeros, 0);
    });
}

/// BYE (RFC 3550, 6.6) of one stream.
pub fn bye(out: &mut Vec<u8>, ssrc: Ssrc) {
    packet(out, GOODBYE, 1, |out| out.extend_from_slice(&ssrc.0.to_be_bytes()));
}

/// Generic NACK (RFC 4585, 6.2.1) for sequence numbers in ascending order (around the wrap). Nothing when there are
/// none.
pub fn nack(out: &mut Vec<u8>, sender: Ssrc, media: Ssrc, lost: impl IntoIterator<Item = u16>) {
    let mut lost = lost.into_iter();
    let Some(mut first) = lost.next() else { return };
    packet(out, TRANSPORT_FEEDBACK, 1, |out| {
        addresses(out, sender, media);
        let mut mask = 0u16;
        for sequence in lost {
            let ahead = sequence.wrapping_sub(first);
            if (1..=16).contains(&ahead) {
                mask |= 1 << (ahead - 1);
            } else if ahead != 0 {
                pair(out, first, mask);
                (first, mask) = (sequence, 0);
            }
        }
        pair(out, first, mask);
    });
}

/// PLI (RFC 4585, 6.3.1).
pub fn pli(out: &mut Vec<u8>, sender: Ssrc, media: Ssrc) {
    packet(out, PAYLOAD_FEEDBACK, 1, |out| addresses(out, sender, media));
}

/// FIR (RFC 5104, 4.3.1) with the number of the request: repeat it to repeat, count it up to ask anew.
pub fn fir(out: &mut Vec<u8>, sender: Ssrc, media: Ssrc, number: u8) {
    packet(out, PAYLOAD_FEEDBACK, 4, |out| {
        addresses(out, sender, Ssrc(0));
        out.extend_from_slice(&media.0.to_be_bytes());
        out.extend_from_slice(&[number, 0, 0, 0]);
    });
}

/// REMB (draft-alvestrand-rmcat-remb-03) in bits per second, rounded down to 18 significant bits; streams past the
/// 31st are left out.
pub fn remb(out: &mut Vec<u8>, sender: Ssrc, bps: u64, media: &[Ssrc]) {
    let media = media.get(..MAX_BLOCKS).unwrap_or(media);
    let exponent = (64 - bps.leading_zeros()).saturating_sub(18);
    let mantissa = u32::try_from(bps >> exponent).unwrap_or(0x3_ffff);
    packet(out, PAYLOAD_FEEDBACK, 15, |out| {
        addresses(out, sender, Ssrc(0));
        out.extend_from_slice(b"REMB");
        let [_, rate @ ..] = ((exponent << 18) | mantissa).to_be_bytes();
        out.push(count(media.len()));
        out.extend_from_slice(&rate);
        media.iter().for_each(|ssrc| out.extend_from_slice(&ssrc.0.to_be_bytes()));
    });
}

/// XR with a DLRR block (RFC 3611, 4.5), the answer to a reference time: the middle of that time and the delay since
/// it came, in 1/65536 s.
pub fn dlrr(out: &mut Vec<u8>, sender: Ssrc, asker: Ssrc, last: NtpTime, delay: u32) {
    packet(out, EXTENDED_REPORT, 0, |out| {
        out.extend_from_slice(&sender.0.to_be_bytes());
        out.extend_from_slice(&[5, 0, 0, 3]);
        out.extend_from_slice(&asker.0.to_be_bytes());
        out.extend_from_slice(&last.middle().to_be_bytes());
        out.extend_from_slice(&delay.to_be_bytes());
    });
}

/// One packet: head, `body`, zero padding to 32 bits, and the length put in afterwards.
pub(crate) fn packet(out: &mut Vec<u8>, packet_type: u8, format: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0x80 | (format & 0x1f), packet_type, 0, 0]);
    body(out);
    while !(out.len() - start).is_multiple_of(4) {
        out.push(0);
    }
    let words = u16::try_from((out.len() - start) / 4 - 1).unwrap_or(u16::MAX);
    if let Some(place) = out.get_mut(start + 2..start + 4) {
        place.copy_from_slice(&words.to_be_bytes());
    }
}

/// Sender and media SSRC, which all feedback packets begin with.
pub(crate) fn addresses(out: &mut Vec<u8>, sender: Ssrc, media: Ssrc) {
    out.extend_from_slice(&sender.0.to_be_bytes());
    out.extend_from_slice(&media.0.to_be_bytes());
}

fn report_block(out: &mut Vec<u8>, block: &ReportBlock) {
    let [_, lost @ ..] = block.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff).to_be_bytes();
    out.extend_from_slice(&block.ssrc.0.to_be_bytes());
    out.push(block.fraction_lost);
    out.extend_from_slice(&lost);
    for field in [block.highest, block.jitter, block.last_sr, block.delay_since_sr] {
        out.extend_from_slice(&field.to_be_bytes());
    }
}

fn pair(out: &mut Vec<u8>, first: u16, mask: u16) {
    out.extend_from_slice(&first.to_be_bytes());
    out.extend_from_slice(&mask.to_be_bytes());
}

fn count(length: usize) -> u8 {
    u8::try_from(length).unwrap_or(u8::MAX)
}
