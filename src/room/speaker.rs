//! Who is heard: audio levels of the header extension (RFC 6464) folded into one level per track and interval.
//!
//! The rules are those clients know: enough of an interval must be speech, the level is smoothed over intervals and
//! reported in eighths, only when it changed. A track owns one meter; the room asks all of them each interval.

use crate::base::Instant;
use crate::room::config::SpeakerConfig;

/// Level of one audio track.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    observed: u32,
    active: u32,
    /// Loudest speech sample of the interval, in -dBov.
    loudest: u8,
    smoothed: f32,
    reported: u8,
    last_sample: Option<Instant>,
}

impl Meter {
    /// A packet of the track carried this level (0 loudest, 127 silent).
    pub fn observe(&mut self, now: Instant, level: u8, config: &SpeakerConfig) {
        self.observed = self.observed.saturating_add(1);
        self.last_sample = Some(now);
        if level <= config.active_level {
            self.loudest = if self.active == 0 { level } else { self.loudest.min(level) };
            self.active = self.active.saturating_add(1);
        }
    }

    /// End an interval. Gives the level, 0.0 to 1.0 in steps of 1/8, when it is another than the last reported.
    pub fn close_interval(&mut self, now: Instant, muted: bool, config: &SpeakerConfig) -> Option<f32> {
        let stale = self.last_sample.is_none_or(|at| now.since(at) >= config.interval * 2);
        if muted || stale {
            self.smoothed = 0.0;
        } else if self.observed > 0 {
            let factor = 2.0 / (f32::from(u16::try_from(config.smooth_intervals).unwrap_or(u16::MAX)) + 1.0);
            self.smoothed += (self.linear_level(config) - self.smoothed) * factor;
        }
        self.observed = 0;
        self.active = 0;
        let eighths = eighths(self.smoothed);
        (eighths != core::mem::replace(&mut self.reported, eighths)).then_some(f32::from(eighths) / 8.0)
    }

    fn linear_level(&self, config: &SpeakerConfig) -> f32 {
        let needed = u64::from(self.observed) * u64::from(config.min_percentile);
        if self.active == 0 || u64::from(self.active) * 100 < needed {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "a few dozen samples")]
        let share = self.active as f32 / self.observed as f32;
        let adjusted = f32::from(self.loudest) - 20.0 * share.log10();
        10.0_f32.powf(-adjusted / 20.0)
    }
}

/// Steps of 1/8, rounded up, so that a quiet speaker is not silent. Less than 1/1000 is silence.
fn eighths(level: f32) -> u8 {
    const LEAST: f32 = 0.001;
    (1..=8u8).rev().find(|step| level > f32::from(step - 1) / 8.0).filter(|_| level > LEAST).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: SpeakerConfig = SpeakerConfig {
        active_level: 35,
        min_percentile: 40,
        interval: core::time::Duration::from_millis(400),
        smooth_intervals: 2,
    };

    fn interval(meter: &mut Meter, start_ms: u64, levels: &[u8]) -> Option<f32> {
        for (i, level) in levels.iter().enumerate() {
            meter.observe(Instant::from_millis(start_ms + 20 * i as u64), *level, &CONFIG);
        }
        meter.close_interval(Instant::from_millis(start_ms + 400), false, &CONFIG)
    }

    #[test]
    fn reports_speech_once_and_silence_once() {
        let mut meter = Meter::default();
        let loud = interval(&mut meter, 0, &[10; 20]);
        assert!(loud.is_some_and(|level| level > 0.2), "{loud:?}");
        let mut last = loud;
        for n in 1..6 {
            last = interval(&mut meter, n * 400, &[10; 20]).or(last);
        }
        assert_eq!(interval(&mut meter, 2400, &[10; 20]), None, "a steady level is reported once");
        assert_eq!(meter.close_interval(Instant::from_millis(4000), false, &CONFIG), Some(0.0), "gone silent");
        assert_eq!(meter.close_interval(Instant::from_millis(4400), false, &CONFIG), None);
    }

    #[test]
    fn takes_a_cough_for_no_speech() {
        let mut meter = Meter::default();
        let mut levels = [100; 20];
        levels[..7].fill(5);
        assert_eq!(interval(&mut meter, 0, &levels), None, "7 of 20 is less than 40 %");
        levels[7] = 5;
        assert!(interval(&mut meter, 400, &levels).is_some());
    }

    #[test]
    fn reports_the_end_of_speech_at_a_mute() {
        let mut meter = Meter::default();
        assert!(interval(&mut meter, 0, &[0; 20]).is_some());
        assert_eq!(meter.close_interval(Instant::from_millis(800), true, &CONFIG), Some(0.0));
    }
}
