//! Real pictures and sound for participants that people look at: a short clip that goes round. Pure.
//!
//! `assets/clip.bin` was encoded once by `assets/make.mjs` (VP8 in three sizes, Opus); so no codec is linked, and a
//! frame costs nothing. Each frame carries a mark where decoders do not look: behind the last partition of a VP8 frame,
//! in the padding of an Opus packet (RFC 6716, 3.2.5). A receiver therefore knows which frame of which clip it must be,
//! and compares every bit.

use std::sync::LazyLock;

use crate::content::Mark;

const MAGIC: &[u8; 4] = b"wclp";
/// Source, layer, number, time, index in the clip, magic.
const TAIL: usize = 8 + 1 + 4 + 8 + 2 + 4;
/// Opus: frame count byte of one frame with padding (RFC 6716, 3.2.5), and the code for it.
const ONE_WITH_PADDING: u8 = 0x41;
const CODE_3: u8 = 3;
/// Frames per second of the clip's pictures.
pub const FPS: u32 = 15;

static CLIP: LazyLock<Clip> = LazyLock::new(|| Clip::read(include_bytes!("../assets/clip.bin")).unwrap_or_default());

/// What the file holds.
#[derive(Debug, Default)]
struct Clip {
    sound: Vec<Vec<u8>>,
    /// From the smallest.
    videos: Vec<Track>,
}

#[derive(Debug)]
struct Track {
    size: (u16, u16),
    frames: Vec<(bool, Vec<u8>)>,
}

impl Clip {
    /// The file: the magic, the number of tracks, then of each its width and height (0 and 0: sound), its number of
    /// frames, and of each frame its length, whether it is a key frame, and its bytes. Big endian.
    fn read(mut file: &[u8]) -> Option<Self> {
        let mut take = |length: usize| {
            let (taken, rest) = file.split_at_checked(length)?;
            file = rest;
            Some(taken)
        };
        let number = |bytes: &[u8]| bytes.iter().fold(0usize, |all, byte| all << 8 | usize::from(*byte));
        let mut clip = Self::default();
        take(4).filter(|magic| magic == b"WCLP")?;
        for _ in 0..number(take(1)?) {
            let (width, height, count) = (number(take(2)?), number(take(2)?), number(take(2)?));
            let mut frames = Vec::new();
            for _ in 0..count {
                let length = number(take(4)?);
                let is_key = number(take(1)?) == 1;
                frames.push((is_key, take(length)?.to_vec()));
            }
            if width == 0 {
                clip.sound = frames.into_iter().map(|(_, frame)| frame).collect();
            } else {
                let size = (u16::try_from(width).ok()?, u16::try_from(height).ok()?);
                clip.videos.push(Track { size, frames });
            }
        }
        Some(clip)
    }
}

/// Width, height and bits per second of the pictures, from the smallest.
pub fn sizes() -> Vec<(u16, u16, usize)> {
    let rate = |track: &Track| {
        let bytes: usize = track.frames.iter().map(|(_, frame)| frame.len() + TAIL).sum();
        bytes * 8 * FPS as usize / track.frames.len().max(1)
    };
    CLIP.videos.iter().map(|track| (track.size.0, track.size.1, rate(track))).collect()
}

/// An Opus packet of the clip's sound.
pub fn audio_frame(mark: Mark) -> Vec<u8> {
    let count = CLIP.sound.len().max(1);
    let index = mark.number as usize % count;
    let Some((toc, sound)) = CLIP.sound.get(index).and_then(|frame| frame.split_first()) else { return Vec::new() };
    let padding = u8::try_from(TAIL).unwrap_or(0);
    let mut frame = vec![toc & 0xfc | CODE_3, ONE_WITH_PADDING, padding];
    frame.extend(sound);
    frame.extend(tail(mark, index));
    frame
}

/// A cursor in the clip's pictures of one size: where an encoding is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor(usize);

/// The next picture; with `key`, the next key frame. Says too whether it is one.
pub fn video_frame(cursor: &mut Cursor, mark: Mark, key: bool) -> (Vec<u8>, bool) {
    let Some(track) = CLIP.videos.get(usize::from(mark.layer)).filter(|track| !track.frames.is_empty()) else {
        return (Vec::new(), false);
    };
    let count = track.frames.len();
    let at = |n: usize| (cursor.0 + n) % count;
    let fits = |index: &usize| !key || track.frames.get(*index).is_some_and(|(is_key, _)| *is_key);
    let index = (0..count).map(at).find(fits).unwrap_or(0);
    cursor.0 = index + 1;
    let (is_key, picture) = track.frames.get(index).map_or((false, &[][..]), |(key, frame)| (*key, frame));
    ([picture, &tail(mark, index)].concat(), is_key)
}

fn tail(mark: Mark, index: usize) -> [u8; TAIL] {
    let mut tail = [0; TAIL];
    tail[..8].copy_from_slice(&mark.source.to_be_bytes());
    tail[8] = mark.layer;
    tail[9..13].copy_from_slice(&mark.number.to_be_bytes());
    tail[13..21].copy_from_slice(&mark.sent.to_be_bytes());
    tail[21..23].copy_from_slice(&u16::try_from(index).unwrap_or(u16::MAX).to_be_bytes());
    tail[23..].copy_from_slice(MAGIC);
    tail
}

/// The mark at the end and the index it names.
fn read_tail(frame: &[u8]) -> Option<(&[u8], Mark, usize)> {
    let (rest, tail) = frame.split_last_chunk::<TAIL>()?;
    let (source, tail) = tail.split_first_chunk::<8>()?;
    let (layer, tail) = tail.split_first()?;
    let (number, tail) = tail.split_first_chunk::<4>()?;
    let (sent, tail) = tail.split_first_chunk::<8>()?;
    let (index, magic) = tail.split_first_chunk::<2>()?;
    let mark = Mark {
        source: u64::from_be_bytes(*source),
        layer: *layer,
        number: u32::from_be_bytes(*number),
        sent: u64::from_be_bytes(*sent),
    };
    (magic == MAGIC).then(|| (rest, mark, usize::from(u16::from_be_bytes(*index))))
}

/// What a packet of the clip's sound says; `None` when it is none, or a bit of the sound is wrong.
pub fn read_audio(frame: &[u8]) -> Option<Mark> {
    let (rest, mark, index) = read_tail(frame)?;
    let (&[toc, count, _], sound) = rest.split_first_chunk::<3>()?;
    let (right_toc, right) = CLIP.sound.get(index)?.split_first()?;
    (toc == right_toc & 0xfc | CODE_3 && count == ONE_WITH_PADDING && sound == right).then_some(mark)
}

/// What a picture of the clip says, and its size if it is a key frame; `None` when it is none, or a bit is wrong.
pub fn read_video(frame: &[u8]) -> Option<(Mark, Option<(u16, u16)>)> {
    let (picture, mark, index) = read_tail(frame)?;
    let track = CLIP.videos.get(usize::from(mark.layer))?;
    let (is_key, right) = track.frames.get(index)?;
    (picture == right).then_some((mark, is_key.then_some(track.size)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_clip_is_whole_and_each_wrong_bit_of_it_is_noticed() {
        assert_eq!(CLIP.videos.len(), 3);
        assert!(CLIP.sound.len() >= 50 && CLIP.sound.iter().all(|frame| frame.len() < 200));
        let mark = Mark { source: 5, layer: 0, number: 9, sent: 7 };
        let sound = audio_frame(mark);
        assert_eq!(read_audio(&sound), Some(mark));
        let mut cursor = Cursor::default();
        let (key, is_key) = video_frame(&mut cursor, mark, true);
        assert!(is_key);
        assert_eq!(read_video(&key), Some((mark, Some(CLIP.videos.first().unwrap().size))));
        let (delta, is_key) = video_frame(&mut cursor, mark, false);
        assert!(!is_key);
        assert_eq!(read_video(&delta), Some((mark, None)));
        for at in 0..(delta.len() - TAIL) * 8 {
            let mut wrong = delta.clone();
            wrong[at / 8] ^= 1 << (at % 8);
            assert_eq!(read_video(&wrong), None, "bit {at}");
        }
    }

    #[test]
    fn a_key_frame_is_found_from_anywhere() {
        let mut cursor = Cursor::default();
        for number in 0..100 {
            let mark = Mark { source: 1, layer: 2, number, sent: 0 };
            let (_, is_key) = video_frame(&mut cursor, mark, number % 7 == 0);
            assert!(is_key || number % 7 != 0);
        }
    }
}
