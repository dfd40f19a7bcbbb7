//! RTP header extensions by meaning: from the data of an element to a typed value, and back where we write them.

use crate::base::Instant;
use crate::rtp::cursor::Cursor;
use crate::rtp::ntp::NtpTime;

/// Negotiated header extension ids (RFC 8285), 1 to 255; `None` where not negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtensionIds {
    /// `urn:ietf:params:rtp-hdrext:sdes:mid`
    pub mid: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id`
    pub rid: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id`
    pub repaired_rid: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:ssrc-audio-level` (RFC 6464)
    pub audio_level: Option<u8>,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time`
    pub abs_send_time: Option<u8>,
    /// `http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01`
    pub transport_cc: Option<u8>,
    /// `https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension`
    pub dependency_descriptor: Option<u8>,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time`
    pub abs_capture_time: Option<u8>,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/playout-delay`
    pub playout_delay: Option<u8>,
    /// `urn:3gpp:video-orientation`
    pub video_orientation: Option<u8>,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/color-space`
    pub color_space: Option<u8>,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/video-content-type`
    pub video_content_type: Option<u8>,
}

/// Longest mid or rid we take, in bytes (RFC 8285 one-byte form holds no more).
pub const MAX_NAME: usize = 16;

/// A mid, rid or repaired rid (RFC 8843, 14; RFC 8852): 1 to 16 visible ASCII characters. `None` for anything else.
pub fn name(data: &[u8]) -> Option<&str> {
    if data.is_empty() || data.len() > MAX_NAME || !data.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    core::str::from_utf8(data).ok()
}

/// Loudness of the sound in a packet (RFC 6464).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioLevel {
    /// Below the loudest possible, in dB: 0 the loudest, 127 silence.
    pub below_max_db: u8,
    /// The sender takes it for voice.
    pub voice: bool,
}

/// Read an audio level. Longer data is the two-byte form's padding and is ignored.
pub fn audio_level(data: &[u8]) -> Option<AudioLevel> {
    data.first().map(|byte| AudioLevel { below_max_db: byte & 0x7f, voice: byte & 0x80 != 0 })
}

/// Read a transport-wide sequence number (draft-holmer-rmcat-transport-wide-cc-extensions-01, 2).
pub fn transport_cc(data: &[u8]) -> Option<u16> {
    Cursor::new(data).u16()
}

/// Read an absolute send time: seconds in 6.18 fixed point, 24 bits, wraps every 64 s.
pub fn abs_send_time(data: &[u8]) -> Option<u32> {
    Cursor::new(data).u24()
}

/// The absolute send time that `now` stands for. Its origin does not matter, receivers use differences.
pub fn abs_send_time_at(now: Instant) -> [u8; 3] {
    let units = (u128::from(now.as_nanos()) << 18) / 1_000_000_000;
    let [.., a, b, c] = units.to_be_bytes();
    [a, b, c]
}

/// When the frame was captured (abs-capture-time extension).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbsCaptureTime {
    /// In the clock of the capturing system.
    pub capture: NtpTime,
    /// The sender's estimate of that clock's distance to its own, in units of 2^-32 s.
    pub offset: Option<i64>,
}

impl AbsCaptureTime {
    /// Read 8 or 16 bytes.
    pub fn read(data: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(data);
        Some(Self { capture: NtpTime(cursor.u64()?), offset: cursor.u64().map(u64::cast_signed) })
    }

    /// The bytes to write, and how many of them count: 8 without an offset, 16 with.
    pub fn write(&self) -> ([u8; 16], usize) {
        let value = (u128::from(self.capture.0) << 64) | u128::from(self.offset.unwrap_or(0).cast_unsigned());
        (value.to_be_bytes(), if self.offset.is_some() { 16 } else { 8 })
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn reads_names_and_refuses_what_is_none() {
        assert_eq!(name(b"q"), Some("q"));
        assert_eq!(name(b"0123456789abcdef"), Some("0123456789abcdef"));
        for bad in [&b""[..], b"0123456789abcdefg", b"a b", b"\xff", b"q\0"] {
            assert_eq!(name(bad), None);
        }
    }

    #[test]
    fn reads_level_and_voice() {
        assert_eq!(audio_level(&[0x80 | 30]), Some(AudioLevel { below_max_db: 30, voice: true }));
        assert_eq!(audio_level(&[127, 0]), Some(AudioLevel { below_max_db: 127, voice: false }));
        assert_eq!(audio_level(&[]), None);
    }

    #[test]
    fn send_time_is_seconds_in_6_18() {
        assert_eq!(abs_send_time(&abs_send_time_at(Instant::from_millis(1500))), Some((1 << 18) + (1 << 17)));
        assert_eq!(abs_send_time(&abs_send_time_at(Instant::from_millis(64_000))), Some(0), "wraps at 64 s");
        assert_eq!(abs_send_time(&[1, 2]), None);
        assert_eq!(transport_cc(&[0x12, 0x34]), Some(0x1234));
    }

    #[test]
    fn capture_time_survives_both_forms() {
        for time in [
            AbsCaptureTime { capture: NtpTime(0x0123_4567_89ab_cdef), offset: None },
            AbsCaptureTime { capture: NtpTime(1), offset: Some(-5) },
        ] {
            let (bytes, length) = time.write();
            assert_eq!(AbsCaptureTime::read(&bytes[..length]), Some(time));
        }
        assert_eq!(AbsCaptureTime::read(&[0; 7]), None);
    }
}
