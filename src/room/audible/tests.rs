//! Who is forwarded when many microphones are open.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]

use slotmap::SlotMap;

use super::*;

const CONFIG: AudibleConfig = AudibleConfig { max_speakers: 3, above: 4 };
const SPEECH: u8 = 25;
const QUIET: u8 = 70;

/// Microphones that send a packet each 20 ms, and who was forwarded last.
struct Bench {
    audible: Audible,
    microphones: Vec<(TrackKey, Voice, u8)>,
    heard: Vec<bool>,
    now: Instant,
}

impl Bench {
    fn new(microphones: usize) -> Self {
        let mut keys: SlotMap<TrackKey, ()> = SlotMap::with_key();
        let microphones = (0..microphones).map(|_| (keys.insert(()), Voice::default(), QUIET)).collect();
        let mut bench = Self {
            audible: Audible::new(CONFIG, 35),
            microphones,
            heard: Vec::new(),
            now: Instant::from_millis(100_000),
        };
        bench.pass(100);
        bench
    }

    fn level(&mut self, of: usize, level: u8) -> &mut Self {
        self.microphones[of].2 = level;
        self
    }

    fn packets(&mut self) {
        self.now = self.now + Duration::from_millis(20);
        self.heard.clear();
        for (key, voice, level) in &mut self.microphones {
            self.heard.push(self.audible.hear(self.now, *key, voice, *level));
        }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 20 {
            self.packets();
            let open = self.microphones.iter().filter(|(_, voice, _)| voice.is_open(self.now)).count();
            self.audible.count(self.now, open, self.microphones.iter().map(|(key, voice, _)| (*key, *voice)));
        }
    }

    fn heard(&self) -> Vec<usize> {
        (0..self.heard.len()).filter(|at| self.heard[*at]).collect()
    }
}

#[test]
fn forwards_everybody_in_small_rooms() {
    let mut bench = Bench::new(4);
    bench.pass(10_000);
    assert_eq!(bench.heard(), [0, 1, 2, 3]);
    assert!(!bench.audible.is_choosing());
}

#[test]
fn forwards_no_silence_in_large_ones() {
    let mut bench = Bench::new(5);
    bench.pass(5_000);
    assert!(bench.heard().is_empty(), "{:?}", bench.heard());
    assert!(bench.audible.is_choosing());
}

#[test]
fn lets_in_the_packet_that_begins_speech() {
    let mut bench = Bench::new(10);
    bench.pass(5_000);
    for speaker in [7, 2, 9, 4, 0] {
        bench.level(speaker, SPEECH).packets();
        assert!(bench.heard[speaker], "the first packet of {speaker}");
        assert!(bench.heard().len() <= 3);
        bench.pass(1_000);
        bench.level(speaker, QUIET).pass(600);
    }
    assert_eq!(bench.heard(), [0, 4], "who spoke last lingers");
    bench.pass(3_000);
    assert!(bench.heard().is_empty());
}

#[test]
fn lets_in_who_speaks_softly_after_quiet() {
    let mut bench = Bench::new(10);
    bench.pass(5_000);
    bench.level(3, QUIET - 12).packets();
    assert_eq!(bench.heard(), [3]);
}

#[test]
fn cuts_nobody_between_words() {
    let mut bench = Bench::new(10);
    bench.pass(5_000);
    for speaker in 0..3 {
        bench.level(speaker, SPEECH);
    }
    bench.pass(1_000);
    // One takes a breath while a fourth, no louder, begins.
    bench.level(1, QUIET).pass(300);
    bench.level(3, SPEECH).pass(100);
    assert_eq!(bench.heard(), [0, 1, 2]);
    bench.level(1, SPEECH).pass(1_000);
    assert_eq!(bench.heard(), [0, 1, 2], "the fourth has to wait");
    bench.level(1, QUIET).pass(600);
    assert_eq!(bench.heard(), [0, 2, 3], "for the next pause");
}

#[test]
fn prefers_the_louder_where_more_speak_than_there_are_places() {
    let mut bench = Bench::new(10);
    bench.pass(5_000);
    for speaker in 0..3 {
        bench.level(speaker, 40);
    }
    bench.pass(1_000);
    bench.level(3, 20).pass(400);
    assert_eq!(bench.heard(), [0, 1, 2], "a cough");
    bench.pass(300);
    assert!(bench.heard[3] && bench.heard().len() == 3, "{:?}", bench.heard());
    let chosen = bench.heard();
    bench.pass(2_000);
    assert_eq!(bench.heard(), chosen, "places do not go to and fro");
}

#[test]
fn takes_a_fan_for_no_speech_after_a_while() {
    let mut bench = Bench::new(10);
    for fan in 4..10 {
        bench.level(fan, 30);
    }
    bench.pass(60_000);
    assert_eq!(bench.heard().len(), 3, "loud enough for places nobody else wants");
    for speaker in 0..3 {
        bench.level(speaker, SPEECH).packets();
        assert!(bench.heard[speaker], "{speaker}");
    }
    bench.pass(1_000);
    assert_eq!(bench.heard(), [0, 1, 2]);
}

#[test]
fn goes_on_with_who_speaks_when_the_room_becomes_large() {
    let mut bench = Bench::new(4);
    bench.level(2, SPEECH).pass(1_000);
    let more = Bench::new(20);
    bench.microphones.extend(more.microphones.into_iter().skip(4));
    bench.pass(20);
    assert!(bench.audible.is_choosing());
    bench.packets();
    assert_eq!(bench.heard(), [2]);
}

#[test]
fn forwards_everybody_again_when_a_quarter_fewer_are_open() {
    let mut bench = Bench::new(5);
    bench.pass(1_000);
    bench.microphones.pop();
    bench.pass(1_000);
    assert!(bench.audible.is_choosing(), "one of four more or less changes nothing");
    bench.microphones.pop();
    bench.pass(1_000);
    assert_eq!(bench.heard(), [0, 1, 2]);
}

#[test]
fn gives_the_place_of_who_sends_nothing_any_more() {
    let mut bench = Bench::new(10);
    bench.pass(5_000);
    for speaker in 0..3 {
        bench.level(speaker, SPEECH);
    }
    bench.pass(1_000);
    bench.microphones.remove(0);
    bench.pass(600);
    // What were the microphones 3 and 1 before.
    bench.level(2, SPEECH).packets();
    assert_eq!(bench.heard(), [0, 1, 2]);
}
