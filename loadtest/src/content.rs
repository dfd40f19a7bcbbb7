//! What synthetic frames consist of. Pure.
//!
//! A frame is the clear header a server may read (Opus TOC; VP8 frame header) and a marked body: magic, source, layer,
//! number, when it was sent, length, then bytes that follow from all of these. Frames of real pictures and sound are in
//! [`crate::clip`].

use std::time::Duration;

const MAGIC: [u8; 4] = *b"weir";
/// Bytes of a body before the filler.
pub const BODY_HEADER: usize = 4 + 8 + 1 + 4 + 8 + 4;
/// Clear bytes of a VP8 key frame (RFC 6386, 9.1) and of any other.
const VP8_KEY_HEADER: usize = 10;
const VP8_DELTA_HEADER: usize = 3;
/// Opus TOC byte: full band, 20 ms, mono (RFC 6716, 3.1).
const OPUS_TOC: u8 = 0xf8;

/// How much sound a synthetic Opus frame holds.
pub const AUDIO_FRAME: Duration = Duration::from_millis(20);

/// Which frame this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// [`source_of`] publisher and track.
    pub source: u64,
    /// Position of the encoding, 0 the lowest.
    pub layer: u8,
    /// Counts frames of the encoding.
    pub number: u32,
    /// When it was sent, by the clock of [`crate::stats::nanos`]; 0 when nobody measures.
    pub sent: u64,
}

/// The source of a track as it stands in its frames.
pub fn source_of(identity: &str, cid: &str) -> u64 {
    let bytes = identity.bytes().chain([0]).chain(cid.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// An Opus frame of about `length` bytes.
pub fn audio_frame(mark: Mark, length: usize) -> Vec<u8> {
    let mut frame = vec![OPUS_TOC];
    write_body(mark, length.saturating_sub(1), &mut frame);
    frame
}

/// A VP8 frame of about `length` bytes; `key` gives the size of a key frame.
pub fn video_frame(mark: Mark, key: Option<(u16, u16)>, length: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(length + VP8_KEY_HEADER + BODY_HEADER);
    match key {
        Some((width, height)) => {
            // Frame tag with the P bit clear and show_frame set, start code, size.
            frame.extend([0x10, 0, 0, 0x9d, 0x01, 0x2a]);
            frame.extend((width & 0x3fff).to_le_bytes());
            frame.extend((height & 0x3fff).to_le_bytes());
        }
        None => frame.extend([0x11, 0, 0]),
    }
    let header = frame.len();
    write_body(mark, length.saturating_sub(header), &mut frame);
    frame
}

/// What a received Opus frame says; `None` when a bit of it is wrong.
pub fn read_audio(frame: &[u8]) -> Option<Mark> {
    let (toc, body) = frame.split_first()?;
    (*toc == OPUS_TOC).then(|| read_body(body)).flatten()
}

/// What a received VP8 frame says, and its size if it is a key frame; `None` when a bit of it is wrong.
pub fn read_video(frame: &[u8]) -> Option<(Mark, Option<(u16, u16)>)> {
    let is_key = frame.first()? & 1 == 0;
    if !is_key {
        let (header, body) = frame.split_at_checked(VP8_DELTA_HEADER)?;
        return (header == [0x11, 0, 0]).then(|| read_body(body)).flatten().map(|mark| (mark, None));
    }
    let (header, body) = frame.split_at_checked(VP8_KEY_HEADER)?;
    let &[0x10, 0, 0, 0x9d, 0x01, 0x2a, w0, w1, h0, h1] = header else { return None };
    let size = (u16::from_le_bytes([w0, w1]), u16::from_le_bytes([h0, h1]));
    read_body(body).map(|mark| (mark, Some(size)))
}

fn write_body(mark: Mark, length: usize, into: &mut Vec<u8>) {
    let length = length.clamp(BODY_HEADER, usize::from(u16::MAX) * 8);
    into.extend(MAGIC);
    into.extend(mark.source.to_be_bytes());
    into.push(mark.layer);
    into.extend(mark.number.to_be_bytes());
    into.extend(mark.sent.to_be_bytes());
    into.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    into.extend(filler(mark).take(length - BODY_HEADER));
}

fn read_body(body: &[u8]) -> Option<Mark> {
    let (header, rest) = body.split_first_chunk::<BODY_HEADER>()?;
    let (magic, header) = header.split_first_chunk::<4>()?;
    let (source, header) = header.split_first_chunk::<8>()?;
    let (layer, header) = header.split_first()?;
    let (number, header) = header.split_first_chunk::<4>()?;
    let (sent, header) = header.split_first_chunk::<8>()?;
    let length = u32::from_be_bytes(*header.first_chunk::<4>()?);
    let mark = Mark {
        source: u64::from_be_bytes(*source),
        layer: *layer,
        number: u32::from_be_bytes(*number),
        sent: u64::from_be_bytes(*sent),
    };
    let whole = *magic == MAGIC && usize::try_from(length) == Ok(body.len());
    (whole && filler(mark).take(rest.len()).eq(rest.iter().copied())).then_some(mark)
}

/// Bytes that follow from the mark: SplitMix64.
fn filler(mark: Mark) -> impl Iterator<Item = u8> {
    let mut state = mark.source ^ (u64::from(mark.number) << 8) ^ u64::from(mark.layer) ^ mark.sent.rotate_left(32);
    std::iter::from_fn(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some((z ^ (z >> 31)).to_be_bytes())
    })
    .flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_frame_tells_what_it_is_and_notices_each_wrong_bit() {
        let mark = Mark { source: source_of("alice", "cam"), layer: 2, number: 77, sent: 5_000_000 };
        let audio = audio_frame(mark, 80);
        assert_eq!((audio.len(), read_audio(&audio)), (80, Some(mark)));
        let key = video_frame(mark, Some((1280, 720)), 300);
        assert_eq!(read_video(&key), Some((mark, Some((1280, 720)))));
        let delta = video_frame(mark, None, 300);
        assert_eq!(read_video(&delta), Some((mark, None)));
        for bit in 0..delta.len() * 8 {
            let mut wrong = delta.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read_video(&wrong), None, "bit {bit}");
        }
        assert_eq!(read_video(&delta[..299]), None);
        assert_ne!(source_of("a", "bc"), source_of("ab", "c"));
    }
}
