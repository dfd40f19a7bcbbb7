//! RFC 4571 framing (two bytes of length, then a packet), and what the first frame of a connection says. Pure.

/// Largest frame taken. RTP, DTLS and STUN of a call stay below 1500 bytes; more is not for us.
pub(crate) const MAX_FRAME: usize = 4_096;
/// Bytes read ahead.
const BUFFER: usize = 4 * MAX_FRAME;

/// A frame longer than [`MAX_FRAME`] was announced; the connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// Bytes of a connection on their way to become frames.
#[derive(Debug)]
pub(crate) struct FrameBuffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl FrameBuffer {
    /// With bytes that were read already; what goes beyond the buffer is cut off (the acceptor reads far less).
    pub(crate) fn new(read: &[u8]) -> Self {
        let mut bytes = vec![0; BUFFER].into_boxed_slice();
        let end = read.len().min(BUFFER);
        if let (Some(into), Some(from)) = (bytes.get_mut(..end), read.get(..end)) {
            into.copy_from_slice(from);
        }
        Self { bytes, start: 0, end }
    }

    /// Where to read to. Never empty after [`Self::next`] gave nothing.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 && self.end + MAX_FRAME > self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// That many bytes were read.
    pub(crate) fn filled(&mut self, read: usize) {
        self.end = self.end.saturating_add(read).min(self.bytes.len());
    }

    /// The next whole frame.
    pub(crate) fn next(&mut self) -> Result<Option<&mut [u8]>, TooLarge> {
        let Some([high, low]) = self.bytes.get(self.start..self.end).and_then(|b| b.first_chunk::<2>()) else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length > MAX_FRAME {
            return Err(TooLarge);
        }
        let from = self.start + 2;
        if from + length > self.end {
            return Ok(None);
        }
        self.start = from + length;
        Ok(self.bytes.get_mut(from..from + length))
    }
}

const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const BINDING_REQUEST: [u8; 2] = [0, 1];
const USERNAME: u16 = 0x0006;
/// RFC 8489, 14.3.
const MAX_USERNAME: usize = 513;

/// Our ICE ufrag in a binding request (the part of USERNAME before the colon, RFC 8445, 7.2.2), without any proof that
/// the request is authentic: that is for the transport to find out.
pub(crate) fn ufrag_of_request(message: &[u8]) -> Option<&[u8]> {
    let (header, mut rest) = message.split_at_checked(20)?;
    let length = usize::from(u16::from_be_bytes([*header.get(2)?, *header.get(3)?]));
    if header.get(..2)? != BINDING_REQUEST || header.get(4..8)? != MAGIC_COOKIE || length != rest.len() {
        return None;
    }
    while let Some(([kind_high, kind_low, length_high, length_low], after)) = rest.split_first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([*length_high, *length_low]));
        let value = after.get(..length)?;
        if u16::from_be_bytes([*kind_high, *kind_low]) == USERNAME {
            let colon = value.iter().position(|c| *c == b':')?;
            return if value.len() <= MAX_USERNAME { value.get(..colon) } else { None };
        }
        rest = after.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]
pub(crate) mod tests {
    use super::*;

    /// A binding request without authentication.
    pub(crate) fn request(username: &[u8]) -> Vec<u8> {
        let padded = username.len().next_multiple_of(4);
        let mut message = vec![0, 1, 0, (4 + padded) as u8, 0x21, 0x12, 0xa4, 0x42];
        message.extend([7; 12]);
        message.extend([0, 6, 0, username.len() as u8]);
        message.extend(username);
        message.resize(20 + 4 + padded, 0);
        message
    }

    #[test]
    fn reads_our_half_of_the_username() {
        assert_eq!(ufrag_of_request(&request(b"00abc:theirs")), Some(&b"00abc"[..]));
        assert_eq!(ufrag_of_request(&request(b"nocolon")), None);
        let good = request(b"00abc:theirs");
        for cut in 0..good.len() {
            assert_eq!(ufrag_of_request(&good[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn gives_frames_however_they_are_cut() {
        let mut stream = Vec::new();
        for length in [0usize, 1, 5, 1200, MAX_FRAME, 3] {
            stream.extend((length as u16).to_be_bytes());
            stream.extend((0..length).map(|i| i as u8));
        }
        for step in [1, 2, 7, 1000, 9000] {
            let mut frames = FrameBuffer::new(&[]);
            let mut lengths = Vec::new();
            let mut rest = &stream[..];
            while !rest.is_empty() {
                let space = frames.space();
                let n = step.min(rest.len()).min(space.len());
                assert!(n > 0);
                space[..n].copy_from_slice(&rest[..n]);
                frames.filled(n);
                rest = &rest[n..];
                while let Some(frame) = frames.next().unwrap() {
                    assert!(frame.iter().enumerate().all(|(i, b)| *b == i as u8));
                    lengths.push(frame.len());
                }
            }
            assert_eq!(lengths, [0, 1, 5, 1200, MAX_FRAME, 3], "step {step}");
        }
    }

    #[test]
    fn refuses_a_frame_that_is_too_large() {
        let mut frames = FrameBuffer::new(&[0xff, 0xff, 0]);
        assert_eq!(frames.next(), Err(TooLarge));
    }
}
