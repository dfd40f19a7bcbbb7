//! Who takes part in a call and what they do: by name, as a file, by flags. Pure but for reading the file.

use std::path::Path;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::light::shape::Shape;

/// Scenarios that come with the program: name, contents.
const OWN: [(&str, &str); 8] = [
    ("meeting", include_str!("../scenarios/meeting.json")),
    ("webinar", include_str!("../scenarios/webinar.json")),
    ("audio-room", include_str!("../scenarios/audio-room.json")),
    ("many-rooms", include_str!("../scenarios/many-rooms.json")),
    ("churn", include_str!("../scenarios/churn.json")),
    ("screen-share", include_str!("../scenarios/screen-share.json")),
    ("encrypted", include_str!("../scenarios/encrypted.json")),
    ("call", include_str!("../scenarios/call.json")),
];
/// Participants of a run, at most.
const MAX_PARTICIPANTS: u64 = 20_000;

/// What a camera sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Camera {
    /// 240 packets of 1100 bytes a second, 30 frames a second: 2.1 Mbit/s.
    Hd,
    /// 15 frames a second, about 150 kbit/s.
    #[default]
    Small,
    /// Three encodings up to 1280x720, as browsers send. Only complete participants do; light ones send `small`.
    Simulcast,
}

/// A scenario. All counts are of each room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// What it is called.
    pub name: String,
    /// Rooms.
    pub rooms: u32,
    /// Participants.
    pub participants: u32,
    /// How many of them, the last ones, are complete: they check each frame. The others are light. Where frames are
    /// encrypted it is the first ones, as light ones can only listen.
    pub full: u32,
    /// How many, the first ones, have their microphone open.
    pub microphones: u32,
    /// How many, the first ones, have their camera on.
    pub cameras: u32,
    /// How many, the first ones, share their screen. Complete ones only.
    pub screens: u32,
    /// What a camera sends.
    pub camera: Camera,
    /// Seconds after which the next microphone is spoken into and the others fall silent. 0: all are spoken into.
    pub turns: u32,
    /// Participants that leave and are replaced by others, each minute; the first one stays.
    pub churn: u32,
    /// Frames are encrypted end to end, and a new key follows each leave. Complete participants publish only.
    pub e2ee: bool,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: "own".to_owned(),
            rooms: 1,
            participants: 3,
            full: 0,
            microphones: 0,
            cameras: 0,
            screens: 0,
            camera: Camera::Small,
            turns: 0,
            churn: 0,
            e2ee: false,
        }
    }
}

/// What changes a scenario.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Scenario")]
pub struct ScenarioArgs {
    /// meeting, webinar, audio-room, many-rooms, churn, screen-share, encrypted, call, or a JSON file with the same fields
    #[arg(long, value_name = "NAME|FILE")]
    pub scenario: Option<String>,
    /// A measuring load instead: one publisher of video (V), small video (S) or audio (A) in each room
    #[arg(long, conflicts_with = "scenario")]
    pub shape: Option<Shape>,
    /// Rooms
    #[arg(long)]
    pub rooms: Option<u32>,
    /// Participants of each room
    #[arg(long)]
    pub participants: Option<u32>,
    /// Participants of each room that publish nothing, beside those that do
    #[arg(long, conflicts_with = "participants")]
    pub subscribers: Option<u32>,
    /// How many of each room are complete and check each frame; the others are light
    #[arg(long)]
    pub full: Option<u32>,
    /// Open microphones in each room
    #[arg(long)]
    pub microphones: Option<u32>,
    /// Cameras in each room
    #[arg(long)]
    pub cameras: Option<u32>,
    /// What a camera sends
    #[arg(long)]
    pub camera: Option<Camera>,
    /// Shared screens in each room
    #[arg(long)]
    pub screens: Option<u32>,
    /// Seconds until the next one speaks
    #[arg(long, value_name = "SECONDS")]
    pub turns: Option<u32>,
    /// Participants of each room replaced per minute
    #[arg(long, value_name = "PER_MINUTE")]
    pub churn: Option<u32>,
    /// Encrypt frames end to end
    #[arg(long)]
    pub e2ee: bool,
}

impl ScenarioArgs {
    /// The scenario that these flags describe.
    pub fn scenario(&self) -> anyhow::Result<Scenario> {
        let mut scenario = match (&self.scenario, self.shape) {
            (Some(name), _) => Scenario::named(name)?,
            (None, shape) => Scenario::measuring(shape.unwrap_or(Shape::Video)),
        };
        let set = |to: &mut u32, from: Option<u32>| *to = from.unwrap_or(*to);
        set(&mut scenario.rooms, self.rooms);
        let before = scenario.participants;
        set(&mut scenario.participants, self.participants);
        // What everybody did before, everybody does now.
        for count in [&mut scenario.full, &mut scenario.microphones, &mut scenario.cameras] {
            if *count == before {
                *count = scenario.participants;
            }
        }
        set(&mut scenario.microphones, self.microphones);
        set(&mut scenario.cameras, self.cameras);
        set(&mut scenario.screens, self.screens);
        set(&mut scenario.turns, self.turns);
        set(&mut scenario.churn, self.churn);
        scenario.camera = self.camera.unwrap_or(scenario.camera);
        scenario.e2ee |= self.e2ee;
        if let Some(subscribers) = self.subscribers {
            scenario.participants = scenario.publishers() + subscribers;
        }
        set(&mut scenario.full, self.full);
        scenario.checked()
    }
}

impl Scenario {
    /// One that comes with the program, or a file.
    pub fn named(name: &str) -> anyhow::Result<Self> {
        let text = match OWN.iter().find(|(own, _)| *own == name) {
            Some((_, text)) => (*text).to_owned(),
            None => std::fs::read_to_string(Path::new(name)).with_context(|| {
                let names: Vec<&str> = OWN.iter().map(|(name, _)| *name).collect();
                format!("{name} is no file and none of {}", names.join(", "))
            })?,
        };
        let scenario: Self = serde_json::from_str(&text).with_context(|| format!("the scenario {name}"))?;
        scenario.checked()
    }

    /// One publisher and ten who receive it.
    fn measuring(shape: Shape) -> Self {
        Self {
            name: shape.letter().to_owned(),
            participants: 11,
            microphones: u32::from(!shape.is_video()),
            cameras: u32::from(shape.is_video()),
            camera: if shape == Shape::Video { Camera::Hd } else { Camera::Small },
            ..Self::default()
        }
    }

    /// Itself, when it makes sense.
    pub fn checked(self) -> anyhow::Result<Self> {
        let all = u64::from(self.rooms) * u64::from(self.participants);
        if all == 0 || all > MAX_PARTICIPANTS {
            bail!("{all} participants; expected 1 to {MAX_PARTICIPANTS}");
        }
        if self.full > self.participants || self.publishers() > self.participants {
            bail!("more complete or publishing participants than participants");
        }
        let light = self.participants - self.full;
        if self.e2ee && self.publishers() > self.full {
            bail!("light participants do not encrypt: who publishes must be complete (--full {})", self.publishers());
        }
        if self.screens > 0 && light > 0 {
            bail!("light participants share no screen: all must be complete (--full {})", self.participants);
        }
        Ok(self)
    }

    /// How many publish anything; they come first.
    pub fn publishers(&self) -> u32 {
        self.microphones.max(self.cameras).max(self.screens)
    }

    /// Whether this participant of a room is complete.
    pub fn is_full(&self, number: u32) -> bool {
        if self.e2ee { number < self.full } else { number >= self.participants - self.full }
    }

    /// What a light participant publishes.
    pub fn light_tracks(&self, number: u32) -> Vec<Shape> {
        let video = if self.camera == Camera::Hd { Shape::Video } else { Shape::Small };
        let voice = (number < self.microphones).then_some(Shape::Audio);
        let camera = (number < self.cameras).then_some(video);
        voice.into_iter().chain(camera).collect()
    }

    /// Streams that a participant of these numbers is to receive, itself not counted.
    pub fn streams_for(&self, number: u32) -> u32 {
        [self.microphones, self.cameras, self.screens].iter().map(|count| count - u32::from(number < *count)).sum()
    }

    /// In words.
    pub fn describe(&self) -> String {
        let mut text = format!(
            "{}: {} room(s) of {} ({} complete), {} microphone(s), {} camera(s) {:?}",
            self.name, self.rooms, self.participants, self.full, self.microphones, self.cameras, self.camera
        );
        let mut also = |is: bool, what: String| {
            if is {
                text.push_str(&what);
            }
        };
        also(self.screens > 0, format!(", {} screen(s)", self.screens));
        also(self.turns > 0, format!(", another speaks every {} s", self.turns));
        also(self.churn > 0, format!(", {} replaced per minute", self.churn));
        also(self.e2ee, ", end-to-end encrypted".to_owned());
        text
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_that_comes_along_is_right_and_named_as_its_file() {
        for (name, _) in OWN {
            assert_eq!(Scenario::named(name).unwrap().name, name);
        }
        assert!(Scenario::named("nowhere").unwrap_err().to_string().contains("meeting"));
    }

    #[test]
    fn flags_change_a_scenario() {
        let args = ScenarioArgs { shape: Some(Shape::Audio), subscribers: Some(100), ..Default::default() };
        let scenario = args.scenario().unwrap();
        assert_eq!((scenario.participants, scenario.microphones, scenario.cameras), (101, 1, 0));
        assert_eq!((scenario.streams_for(0), scenario.streams_for(50)), (0, 1));
        let meeting = ScenarioArgs { scenario: Some("meeting".into()), participants: Some(4), ..Default::default() };
        let meeting = meeting.scenario().unwrap();
        assert_eq!((meeting.participants, meeting.full, meeting.microphones, meeting.cameras), (4, 4, 4, 4));
        let light = ScenarioArgs { e2ee: true, ..Default::default() };
        assert!(light.scenario().is_err());
    }
}
