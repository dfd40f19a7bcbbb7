//! The one file that reads the machine's clocks. Everything below gets the time as a value.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::base::Instant;

/// Seconds between the NTP epoch (1900) and the Unix epoch (1970), RFC 5905.
const NTP_UNIX: u64 = 2_208_988_800;

/// A monotonic clock with its zero. Copies share the zero.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    zero: std::time::Instant,
}

impl Clock {
    /// A clock whose zero is now.
    #[expect(clippy::disallowed_methods, reason = "this file is where time comes from")]
    pub fn start() -> Self {
        Self { zero: std::time::Instant::now() }
    }

    /// The zero as the standard library's moment, for libraries that want one.
    pub const fn anchor(&self) -> std::time::Instant {
        self.zero
    }

    /// Time since the zero. Never goes back, whatever is done to the machine's date.
    #[expect(clippy::disallowed_methods, reason = "this file is where time comes from")]
    pub fn now(&self) -> Instant {
        let nanos = std::time::Instant::now().saturating_duration_since(self.zero).as_nanos();
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The NTP timestamp (32.32 seconds since 1900, wrapping in 2036) of this clock's zero, by the machine's date now.
    pub fn ntp_at_zero(&self) -> u64 {
        let since_unix = unix_now().saturating_sub(Duration::from_nanos(self.now().as_nanos()));
        let seconds = since_unix.as_secs().wrapping_add(NTP_UNIX);
        let fraction = (u64::from(since_unix.subsec_nanos()) << 32) / 1_000_000_000;
        (seconds << 32) | fraction
    }
}

/// The machine's date, since 1970. May jump.
#[expect(clippy::disallowed_methods, reason = "this file is where time comes from")]
pub fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
