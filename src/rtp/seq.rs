//! Unwrapping of 16-bit sequence numbers and 32-bit timestamps into `u64`, and wrap-safe comparison.
//!
//! Numbers are unwrapped once, where they enter, and compared only unwrapped; they are wrapped again (`as_wire`) only
//! where a header is written.

/// Added to the first number of a stream, so that earlier ones that arrive late do not fall below zero.
const HEADROOM: u64 = 1 << 32;

/// The value closest to `reference` whose low 16 bits are `wire`: at most 32768 behind, 32767 ahead.
pub const fn unwrap_u16(reference: u64, wire: u16) -> u64 {
    let ahead = wire.wrapping_sub(wire_u16(reference)).cast_signed();
    reference.wrapping_add_signed(ahead as i64)
}

/// The value closest to `reference` whose low 32 bits are `wire`: at most 2^31 behind, 2^31 - 1 ahead.
pub const fn unwrap_u32(reference: u64, wire: u32) -> u64 {
    let ahead = wire.wrapping_sub(wire_u32(reference)).cast_signed();
    reference.wrapping_add_signed(ahead as i64)
}

/// The low 16 bits, for the wire.
#[allow(clippy::cast_possible_truncation, reason = "dropping the high bits is what wrapping is")]
pub const fn wire_u16(value: u64) -> u16 {
    value as u16
}

/// The low 32 bits, for the wire.
#[allow(clippy::cast_possible_truncation, reason = "dropping the high bits is what wrapping is")]
pub const fn wire_u32(value: u64) -> u32 {
    value as u32
}

/// Whether 16-bit `a` comes after `b`, seen around the circle.
pub const fn is_newer_u16(a: u16, b: u16) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

/// Whether 32-bit `a` comes after `b`, seen around the circle.
pub const fn is_newer_u32(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

/// Unwraps the 16-bit numbers of one stream around the highest seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwrapper16 {
    highest: Option<u64>,
}

impl Unwrapper16 {
    /// Nothing seen yet.
    pub const fn new() -> Self {
        Self { highest: None }
    }

    /// As if `highest` had been seen.
    pub const fn starting_at(highest: u64) -> Self {
        Self { highest: Some(highest) }
    }

    /// What `wire` would unwrap to, without remembering it. The first number of a stream gets 2^32 added.
    pub const fn peek(&self, wire: u16) -> u64 {
        match self.highest {
            Some(highest) => unwrap_u16(highest, wire),
            None => HEADROOM + wire as u64,
        }
    }

    /// Unwrap and remember.
    pub fn unwrap(&mut self, wire: u16) -> u64 {
        let value = self.peek(wire);
        self.highest = Some(self.highest.map_or(value, |highest| highest.max(value)));
        value
    }

    /// The highest number so far.
    pub const fn highest(&self) -> Option<u64> {
        self.highest
    }
}

/// Unwraps the 32-bit numbers (timestamps) of one stream around the highest seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwrapper32 {
    highest: Option<u64>,
}

impl Unwrapper32 {
    /// Nothing seen yet.
    pub const fn new() -> Self {
        Self { highest: None }
    }

    /// Unwrap and remember. The first number of a stream gets 2^32 added.
    pub fn unwrap(&mut self, wire: u32) -> u64 {
        let value = self.highest.map_or_else(|| HEADROOM + u64::from(wire), |highest| unwrap_u32(highest, wire));
        self.highest = Some(self.highest.map_or(value, |highest| highest.max(value)));
        value
    }

    /// The highest number so far.
    pub const fn highest(&self) -> Option<u64> {
        self.highest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unwraps_over_the_edge_and_back() {
        let mut unwrapper = Unwrapper16::new();
        let first = unwrapper.unwrap(65_534);
        assert_eq!(unwrapper.unwrap(1), first + 3);
        assert_eq!(unwrapper.unwrap(65_535), first + 1, "late, does not move the reference");
        assert_eq!(unwrapper.highest(), Some(first + 3));
        assert_eq!(unwrapper.unwrap(2), first + 4);
    }

    #[test]
    fn a_late_packet_before_the_first_does_not_underflow() {
        let mut unwrapper = Unwrapper16::new();
        let first = unwrapper.unwrap(0);
        assert_eq!(unwrapper.unwrap(65_535), first - 1);
    }

    #[test]
    fn compares_around_the_circle() {
        assert!(is_newer_u16(0, 65_535) && !is_newer_u16(65_535, 0) && !is_newer_u16(5, 5));
        assert!(is_newer_u32(3, u32::MAX) && !is_newer_u32(u32::MAX, 3));
    }

    proptest! {
        #[test]
        fn unwrap_inverts_wrapping_within_half_the_circle(reference in (1u64 << 32)..(1 << 48), step in -32_768i64..32_768) {
            let value = reference.wrapping_add_signed(step);
            prop_assert_eq!(unwrap_u16(reference, wire_u16(value)), value);
        }

        #[test]
        fn unwrap32_inverts_wrapping(reference in (1u64 << 33)..(1 << 60), step in -(1i64 << 31)..(1i64 << 31)) {
            let value = reference.wrapping_add_signed(step);
            prop_assert_eq!(unwrap_u32(reference, wire_u32(value)), value);
        }
    }
}
