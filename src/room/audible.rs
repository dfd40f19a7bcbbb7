//! Which microphones are worth hearing when many are open in one room.
//!
//! A room with more open microphones than [`AudibleConfig::above`] forwards at most [`AudibleConfig::max_speakers`] of
//! them, chosen by the audio levels in their packets (RFC 6464), which stay in the clear under end-to-end encryption.
//! Whoever begins to speak has a place with the very packet that begins it: a free one, or that of whoever has been quiet
//! for longest. Between words nobody loses a place. Who stays quiet gives it back, so that silence costs nothing.
//!
//! It knows tracks by key and level only, so it does not matter where their packets come from. Of two shards that share a
//! room each chooses among all it would forward: what one let through is one more microphone to the other, with the same
//! rules, and the loudest of all are heard by all. The room asks per packet and does what is answered.

use core::time::Duration;

use crate::base::Instant;
use crate::room::TrackKey;

/// Level of digital silence (RFC 6464): never speech.
const SILENCE: u8 = 127;
/// So much louder than a microphone's own background is speech. Lower lets breath and keys in, higher cuts soft beginnings.
const ONSET_MILLIBEL: u32 = 8_000;
/// No background is taken for quieter than this, so that what is hardly there at all is no speech.
const QUIETEST_MILLIBEL: u32 = 75_000;
/// In this time, in milliseconds, the background follows what has become louder two thirds of the way. Speech has pauses,
/// which undo it, much sooner; a fan has none. Shorter takes long vowels for background, longer fans for speech.
const RISE_MS: u64 = 5_000;
/// A microphone that sent nothing for so long begins anew, and does not count as open. Opus without sound (DTX) sends a
/// packet each 400 ms.
const ABSENCE: Duration = Duration::from_secs(2);
/// A pause this long may be the end of what somebody says: the place can go to somebody who begins. Pauses between words
/// are shorter.
const HOLD: Duration = Duration::from_millis(500);
/// After this silence the place is given back though nobody wants it. Shorter makes rooms sound cut between sentences, longer
/// forwards more silence.
const LINGER: Duration = Duration::from_secs(3);
/// When more speak at once than there are places, a louder one takes the place of the quietest from this difference on, in
/// 1/1000 dB, so that places do not go to and fro.
const LOUDER_MILLIBEL: u32 = 6_000;

/// How many microphones are forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudibleConfig {
    /// Most microphones forwarded at a time; 0: all, always.
    pub max_speakers: usize,
    /// All are forwarded until more than this many are open.
    pub above: usize,
}

impl Default for AudibleConfig {
    /// Eight are more than can be understood at once, so the places outlast a lively conversation. Up to twelve open
    /// microphones are a meeting in which every sound may be meant; they cost a subscriber half a megabit at most.
    fn default() -> Self {
        Self { max_speakers: 8, above: 12 }
    }
}

/// What is known of one microphone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Voice {
    /// When a level was last heard of.
    seen: Option<Instant>,
    /// When it was last louder than its background.
    spoke: Option<Instant>,
    /// When it began to be, pauses between words left out.
    began: Instant,
    /// The background, in 1/1000 dB below the loudest possible: what it was at its quietest, forgotten slowly.
    background: u32,
    /// How loud its speech is, smoothed, in the same unit.
    loudness: u32,
}

/// What a level is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sound {
    /// Louder than the background of its microphone.
    Speech,
    /// Loud, but no louder than this microphone always is: a fan, a tone.
    Noise,
    /// Nothing worth hearing.
    Quiet,
}

impl Voice {
    /// Whether it sends.
    pub fn is_open(&self, now: Instant) -> bool {
        self.seen.is_some_and(|at| now.since(at) < ABSENCE)
    }

    fn hear(&mut self, now: Instant, level: u8, active_level: u8) -> Sound {
        let heard = u32::from(level) * 1000;
        let risen = match self.seen.replace(now).map(|before| now.since(before)) {
            Some(gap) if gap < ABSENCE => {
                let above = u64::from(self.background.saturating_sub(heard));
                let rise = above * u64::try_from(gap.as_millis()).unwrap_or(RISE_MS).min(RISE_MS) / RISE_MS;
                self.background.saturating_sub(u32::try_from(rise).unwrap_or(u32::MAX))
            }
            _ => QUIETEST_MILLIBEL,
        };
        self.background = risen.max(heard).min(QUIETEST_MILLIBEL);
        if level >= SILENCE || heard + ONSET_MILLIBEL > self.background {
            return if level <= active_level { Sound::Noise } else { Sound::Quiet };
        }
        if self.spoke.replace(now).is_none_or(|at| now.since(at) >= HOLD) {
            self.began = now;
            self.loudness = heard;
        }
        self.loudness = (self.loudness * 15 + heard) / 16;
        Sound::Speech
    }
}

/// A microphone that is forwarded.
#[derive(Clone, Copy, Debug)]
struct Place {
    track: TrackKey,
    /// When it last had speech, and when anything worth hearing.
    spoke: Instant,
    sounded: Instant,
    loudness: u32,
}

/// Who is forwarded in one room.
#[derive(Debug)]
pub struct Audible {
    config: AudibleConfig,
    active_level: u8,
    choosing: bool,
    places: Vec<Place>,
}

impl Audible {
    /// Everybody is, at first. `active_level` is what counts as loud whatever the background, in -dBov.
    pub const fn new(config: AudibleConfig, active_level: u8) -> Self {
        Self { config, active_level, choosing: false, places: Vec::new() }
    }

    /// Whether some may not be forwarded.
    pub const fn is_choosing(&self) -> bool {
        self.choosing
    }

    /// The open microphones of the room were counted: begin or end to choose. Called by the clock, not per packet. Once
    /// begun it goes on until a quarter fewer are open, so that one who comes and goes changes nothing.
    pub fn count(&mut self, now: Instant, open: usize, voices: impl Iterator<Item = (TrackKey, Voice)>) {
        let AudibleConfig { max_speakers, above } = self.config;
        let above = above.max(max_speakers);
        let choosing = max_speakers > 0 && open > if self.choosing { above - above / 4 } else { above };
        if choosing == core::mem::replace(&mut self.choosing, choosing) {
            return;
        }
        self.places.clear();
        if choosing {
            self.places.reserve_exact(max_speakers);
            // Who speaks now, or did a moment ago, goes on.
            for (track, voice) in voices {
                let Some(spoke) = voice.spoke.filter(|at| now.since(*at) < LINGER) else { continue };
                let place = Place { track, spoke, sounded: spoke, loudness: voice.loudness };
                if self.places.len() < max_speakers {
                    self.places.push(place);
                } else if let Some(oldest) = self.places.iter_mut().min_by_key(|place| place.spoke)
                    && oldest.spoke < spoke
                {
                    *oldest = place;
                }
            }
        }
    }

    /// A packet of a microphone arrived, newer than all before: is it forwarded?
    pub fn hear(&mut self, now: Instant, track: TrackKey, voice: &mut Voice, level: u8) -> bool {
        let sound = voice.hear(now, level, self.active_level);
        if !self.choosing {
            return true;
        }
        if let Some(at) = self.places.iter().position(|place| place.track == track) {
            return self.stays(now, at, voice, sound);
        }
        let spoke = match sound {
            Sound::Quiet => return false,
            Sound::Speech => now,
            // What always sounds alike is the first to go.
            Sound::Noise => Instant::ZERO,
        };
        let place = Place { track, spoke, sounded: now, loudness: voice.loudness };
        if self.places.len() < self.config.max_speakers {
            self.places.push(place);
            return true;
        }
        match self.victim(now, voice, sound) {
            Some(victim) => {
                *victim = place;
                true
            }
            None => false,
        }
    }

    /// A microphone was muted, or is gone.
    pub fn leave(&mut self, track: TrackKey) {
        self.places.retain(|place| place.track != track);
    }

    fn stays(&mut self, now: Instant, at: usize, voice: &Voice, sound: Sound) -> bool {
        let Some(place) = self.places.get_mut(at) else { return false };
        match sound {
            Sound::Speech => (place.spoke, place.sounded, place.loudness) = (now, now, voice.loudness),
            Sound::Noise => place.sounded = now,
            Sound::Quiet if now.since(place.sounded) >= LINGER => {
                self.places.swap_remove(at);
                return false;
            }
            Sound::Quiet => {}
        }
        true
    }

    /// Whose place somebody gets: of who has been quiet for longest; where all speak, of the quietest, for one who is louder
    /// and has spoken long enough for that to be known. A place whose microphone sends nothing any more is quiet too.
    fn victim(&mut self, now: Instant, voice: &Voice, sound: Sound) -> Option<&mut Place> {
        let idle = |place: &Place, time| now.since(place.sounded) >= time && now.since(place.spoke) >= time;
        if sound != Sound::Speech {
            return self.places.iter_mut().find(|place| idle(place, LINGER));
        }
        let (quiet, place) = self.places.iter().enumerate().min_by_key(|(_, place)| place.spoke)?;
        if now.since(place.spoke) >= HOLD {
            return self.places.get_mut(quiet);
        }
        let settled = now.since(voice.began) >= HOLD;
        let quietest = self.places.iter_mut().max_by_key(|place| place.loudness)?;
        (settled && voice.loudness + LOUDER_MILLIBEL <= quietest.loudness).then_some(quietest)
    }
}

#[cfg(test)]
mod tests;
