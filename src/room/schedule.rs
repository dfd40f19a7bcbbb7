//! What a room does by the clock: key frame requests, layer liveness, allocation, active speakers, connection quality.

use core::time::Duration;

use crate::base::{Instant, MediaKind};
use crate::room::config::RoomConfig;
use crate::room::track::Track;
use crate::room::{Room, quality};
use crate::shard::event::Event;

/// Encodings are looked at, and bandwidth is shared out anew where it is short, this often.
const TICK: Duration = Duration::from_millis(500);

/// When a room has to act next.
#[derive(Debug)]
pub(super) struct Schedule {
    keyframes: Option<Instant>,
    tick: Instant,
    speakers: Instant,
    quality: Instant,
}

impl Schedule {
    pub(super) fn new(now: Instant, config: &RoomConfig) -> Self {
        Self {
            keyframes: None,
            tick: now + TICK,
            speakers: now + config.speaker.interval,
            quality: now + config.quality_interval,
        }
    }

    /// Key frames may be needed from then on.
    pub(super) fn keyframes_at(&mut self, at: Instant) {
        self.keyframes = Some(self.keyframes.map_or(at, |due| due.min(at)));
    }

    fn next(&self) -> Instant {
        let next = self.tick.min(self.speakers).min(self.quality);
        self.keyframes.map_or(next, |due| due.min(next))
    }
}

impl Room {
    /// When [`Self::handle_timeout`] is due; `None` while the room is empty.
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.tracks.is_empty() && self.participants.is_empty() { None } else { Some(self.schedule.next()) }
    }

    /// Do what is due. Key frame requests are left in [`Self::keyframe_requests`].
    pub fn handle_timeout(&mut self, now: Instant, events: &mut Vec<Event>) {
        if self.schedule.tick <= now {
            self.schedule.tick = now + TICK;
            self.tick(now, events);
        }
        if self.schedule.speakers <= now {
            self.schedule.speakers = now + self.config.speaker.interval;
            self.report_speakers(now, events);
        }
        if self.schedule.quality <= now {
            self.schedule.quality = now + self.config.quality_interval;
            self.report_quality(events);
        }
        if self.schedule.keyframes.is_some_and(|due| due <= now) {
            self.ask_for_keyframes(now);
        }
    }

    /// Ask publishers for the key frames that are wanted and may be asked for now.
    pub(super) fn ask_for_keyframes(&mut self, now: Instant) {
        self.schedule.keyframes = None;
        for (key, track) in &mut self.tracks {
            if track.kind == MediaKind::Audio || track.muted {
                continue;
            }
            if track.keyframe_due().is_some_and(|due| due <= now) {
                Self::update_waits(track, &self.downtracks);
            }
            let rtt = track.rtt;
            for ((requester, layer), spatial) in track.keyframes.iter_mut().zip(&track.layers).zip(0u8..) {
                // Nobody can be asked for an encoding that has never been heard of; it begins with a key frame.
                if layer.packets > 0 && requester.poll(now, rtt) {
                    self.keyframe_requests.push((key, spatial));
                }
            }
            if let Some(due) = track.keyframe_due() {
                self.schedule.keyframes_at(due);
            }
        }
    }

    fn tick(&mut self, now: Instant, events: &mut Vec<Event>) {
        let mut stopped = false;
        let here = |track: &&mut Track| track.kind == MediaKind::Video && track.origin.is_none();
        for track in self.tracks.values_mut().filter(here) {
            let screen_share = track.screen_share;
            let mut any = false;
            for layer in &mut track.layers {
                any |= layer.on_tick(now, screen_share);
            }
            if any {
                Self::retarget(track, &mut self.downtracks);
                Self::update_waits(track, &self.downtracks);
                stopped = true;
            }
        }
        if stopped {
            self.ask_for_keyframes(now);
        }
        self.tick_crossing(now);
        for participant in self.participants.values_mut().filter(|p| p.is_limited()) {
            participant.needs_allocation = true;
        }
        self.reallocate(now, events);
    }

    fn report_speakers(&mut self, now: Instant, events: &mut Vec<Event>) {
        let config = &self.config.speaker;
        let mut levels = Vec::new();
        for track in self.tracks.values_mut().filter(|track| track.kind == MediaKind::Audio) {
            let level = track.meter.close_interval(now, track.muted, config);
            // Who speaks is said where it is published.
            if let Some(level) = level.filter(|_| track.origin.is_none()) {
                levels.push((track.id, level));
            }
        }
        if !levels.is_empty() {
            levels.sort_by(|a, b| b.1.total_cmp(&a.1));
            events.push(Event::Speakers { room: self.id, levels });
        }
        let microphones = self.tracks.iter().filter(|(_, track)| {
            track.kind == MediaKind::Audio && !track.muted && !track.always_heard && track.voice.is_open(now)
        });
        let voices = microphones.clone().map(|(key, track)| (key, track.voice));
        self.audible.count(now, microphones.count(), voices);
    }

    fn report_quality(&mut self, events: &mut Vec<Event>) {
        for participant in self.participants.values_mut() {
            let Some(score) = quality::judge(participant, &self.tracks, &self.downtracks) else { continue };
            let smoothed = quality::smooth(participant.quality, score);
            if participant.quality.replace(smoothed) != Some(smoothed) {
                events.push(Event::Quality { participant: participant.id, score: smoothed });
            }
        }
    }
}
