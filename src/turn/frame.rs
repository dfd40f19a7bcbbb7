//! TURN on a connection (RFC 8656, 3.1): messages one after the other, told apart by their own lengths. Pure.

/// Longest message taken. A datagram of a call in a Send indication stays well below.
pub const MAX_FRAME: usize = 4_096;
/// Bytes read ahead.
const BUFFER: usize = 4 * MAX_FRAME;

/// What stands there is neither STUN nor ChannelData of a sane length: the connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotTurn;

/// Bytes of a connection on their way to become messages.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    start: usize,
}

impl Frames {
    /// How many more bytes it takes now.
    pub fn space(&self) -> usize {
        BUFFER.saturating_sub(self.bytes.len() - self.start)
    }

    /// Append what was read, at most [`Self::space`] bytes.
    pub fn extend(&mut self, read: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(read);
    }

    /// The next whole message, without padding.
    ///
    /// # Errors
    /// The stream is not TURN.
    pub fn take(&mut self) -> Result<Option<&[u8]>, NotTurn> {
        let rest = self.bytes.get(self.start..).unwrap_or_default();
        let Some(&[kind, _, high, low]) = rest.first_chunk() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (message, taken) = match kind {
            0..=3 if length.is_multiple_of(4) => (20 + length, 20 + length),
            0x40..=0x4f => (4 + length, 4 + length.next_multiple_of(4)),
            _ => return Err(NotTurn),
        };
        if taken > MAX_FRAME {
            return Err(NotTurn);
        }
        if rest.len() < taken {
            return Ok(None);
        }
        let from = self.start;
        self.start += taken;
        Ok(self.bytes.get(from..from + message))
    }
}
