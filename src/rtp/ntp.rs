//! NTP timestamps (RFC 3550, section 4; RFC 5905): wall clock in 32.32 fixed point since 1900.
//!
//! The core reads no clock: a [`WallClock`], set once from outside, says what NTP time an [`Instant`] stands for. It
//! does not follow later jumps of the machine's clock, so that what we report stays coherent for a call.

use core::time::Duration;

use crate::base::Instant;

/// Seconds from 1900 to 1970 (RFC 868).
const UNIX_EPOCH: u64 = 2_208_988_800;

/// A wall-clock moment, 32 bits of seconds since 1900 and 32 bits of fraction. Wraps in 2036; differences do not mind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NtpTime(pub u64);

impl NtpTime {
    /// From time since the Unix epoch.
    pub const fn from_unix(unix: Duration) -> Self {
        let seconds = unix.as_secs().wrapping_add(UNIX_EPOCH) << 32;
        let fraction = ((unix.subsec_nanos() as u64) << 32) / 1_000_000_000;
        Self(seconds | fraction)
    }

    /// The middle 32 bits, in 1/65536 s: what LSR and DLSR arithmetic uses (RFC 3550, 6.4.1).
    #[allow(clippy::cast_possible_truncation, reason = "the middle bits are what the field holds")]
    pub const fn middle(self) -> u32 {
        (self.0 >> 16) as u32
    }

    /// Signed nanoseconds from `earlier` to here, taken around the 2036 wrap.
    pub fn nanos_since(self, earlier: Self) -> i64 {
        let units = i128::from(self.0.wrapping_sub(earlier.0).cast_signed());
        // Rounded to nearest, so that going there and back gives the same number; fits: 2^31 s is 2.1e18 ns.
        i64::try_from((units * 1_000_000_000 + (1 << 31)) >> 32).unwrap_or(i64::MAX)
    }

    /// This moment moved by signed nanoseconds.
    pub fn plus_nanos(self, nanos: i64) -> Self {
        // The low 64 bits are right for negative numbers too.
        let units = (i128::from(nanos) << 32) / 1_000_000_000;
        Self(self.0.wrapping_add_signed(i64::try_from(units).unwrap_or_default()))
    }
}

/// A duration in units of 1/65536 s (DLSR, RFC 3550, 6.4.1), stopping at the largest value (18 h).
pub fn short(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos().saturating_mul(65_536) / 1_000_000_000).unwrap_or(u32::MAX)
}

/// The time that `units` of 1/65536 s are.
pub const fn from_short(units: u32) -> Duration {
    Duration::from_nanos((units as u64).saturating_mul(1_000_000_000) >> 16)
}

/// What wall-clock time the moments of the core stand for.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    at_zero: NtpTime,
}

impl WallClock {
    /// A clock that says `wall` at `now`.
    pub fn new(now: Instant, wall: NtpTime) -> Self {
        Self { at_zero: wall.plus_nanos(i64::try_from(now.as_nanos()).map_or(0, |nanos| -nanos)) }
    }

    /// The wall-clock time of `now`.
    pub fn at(&self, now: Instant) -> NtpTime {
        self.at_zero.plus_nanos(i64::try_from(now.as_nanos()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unix_epoch_is_where_ntp_says() {
        assert_eq!(NtpTime::from_unix(Duration::ZERO).0, 0x83aa_7e80_0000_0000);
        assert_eq!(NtpTime::from_unix(Duration::from_millis(500)).0, 0x83aa_7e80_8000_0000);
        assert_eq!(NtpTime(0x1234_5678_9abc_def0).middle(), 0x5678_9abc);
    }

    #[test]
    fn differences_are_signed_and_survive_the_wrap() {
        let late = NtpTime(0xffff_ffff_8000_0000);
        let after = NtpTime(0x0000_0000_8000_0000);
        assert_eq!(after.nanos_since(late), 1_000_000_000);
        assert_eq!(late.nanos_since(after), -1_000_000_000);
        assert_eq!(late.plus_nanos(1_000_000_000), after);
        assert_eq!(after.plus_nanos(-1_000_000_000), late);
    }

    #[test]
    fn a_wall_clock_runs_with_the_core() {
        let wall = NtpTime::from_unix(Duration::from_secs(1_700_000_000));
        let clock = WallClock::new(Instant::from_millis(5000), wall);
        assert_eq!(clock.at(Instant::from_millis(6000)).nanos_since(wall), 1_000_000_000);
        assert_eq!(short(Duration::from_secs(2)), 131_072);
        assert_eq!(from_short(65_536), Duration::from_secs(1));
    }
}
