//! What a network is to become, in words: `down rate 500 delay 25`, one change a line; in a script with the second it
//! happens at before it, `30 down rate 500`. `#` begins a comment.

use super::link::Shape;

/// Which direction a change is for, seen from the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Client to server.
    Up,
    /// Server to client.
    Down,
    /// Both.
    Both,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When, in microseconds after the start.
    pub at: u64,
    /// Which way.
    pub direction: Direction,
    words: Vec<(Word, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Rate,
    NoRate,
    Queue,
    Delay,
    Jitter,
    Loss,
    Burst,
    Late,
    LateBy,
    Tcp,
}

impl Change {
    /// Read a change that happens when it is read, without a second before it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn now(line: &str) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        let direction = match words.next() {
            Some("up") => Direction::Up,
            Some("down") => Direction::Down,
            Some("both") => Direction::Both,
            other => return Err(format!("`{}`: expected up, down or both", other.unwrap_or_default())),
        };
        let mut change = Self { at: 0, direction, words: Vec::new() };
        while let Some(name) = words.next() {
            let value = words.next().ok_or_else(|| format!("`{name}` without a value"))?;
            change.words.push(word(name, value)?);
        }
        Ok(change)
    }

    /// Read a script, in order of time.
    ///
    /// # Errors
    /// The first line that is wrong, and what is.
    pub fn script(text: &str) -> Result<Vec<Self>, String> {
        let mut changes = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let wrong = |what: String| format!("line {number}: {what}");
            let (second, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let at = scaled(second, 1_000_000).map_err(wrong)?;
            changes.push(Self { at, ..Self::now(rest).map_err(wrong)? });
        }
        changes.sort_by_key(|change| change.at);
        Ok(changes)
    }

    /// The shape after it.
    pub fn apply(&self, mut shape: Shape) -> Shape {
        for (word, value) in &self.words {
            match word {
                Word::Rate => shape.rate = Some(*value),
                Word::NoRate => shape.rate = None,
                Word::Queue => shape.queue = *value,
                Word::Delay => shape.delay = *value,
                Word::Jitter => shape.jitter = *value,
                Word::Loss => shape.loss = *value,
                Word::Burst => shape.burst = *value,
                Word::Late => shape.late = *value,
                Word::LateBy => shape.late_by = *value,
                Word::Tcp => shape.tcp = *value != 0,
            }
        }
        shape
    }
}

fn word(name: &str, value: &str) -> Result<(Word, u64), String> {
    let whole = |word| Ok((word, scaled(value, 1)?));
    match (name, value) {
        ("rate", "none") => Ok((Word::NoRate, 0)),
        ("rate", _) => Ok((Word::Rate, scaled(value, 1000)?)),
        ("queue", _) => whole(Word::Queue),
        ("delay", _) => whole(Word::Delay),
        ("jitter", _) => whole(Word::Jitter),
        ("loss", _) => share(Word::Loss, value),
        ("burst", _) => whole(Word::Burst),
        ("late", _) => share(Word::Late, value),
        ("late-by", _) => whole(Word::LateBy),
        ("tcp", "on" | "off") => Ok((Word::Tcp, u64::from(value == "on"))),
        _ => Err(format!(
            "`{name} {value}`: expected one of rate, queue, delay, jitter, loss, burst, late, late-by, tcp"
        )),
    }
}

/// A share from a number in percent, in millionths.
fn share(word: Word, value: &str) -> Result<(Word, u64), String> {
    let share = scaled(value, 10_000)?;
    if share > 1_000_000 { Err(format!("`{value}`: more than 100 %")) } else { Ok((word, share)) }
}

/// A number, perhaps with a fraction, times `scale`; at most a billion.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
fn scaled(text: &str, scale: u32) -> Result<u64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=1e9).contains(&number) => Ok((number * f64::from(scale)).round() as u64),
        _ => Err(format!("`{text}` is no number from 0 to a billion")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]

    use super::*;

    #[test]
    fn a_script_says_what_changes_when() {
        let text = "# a step\n0 both delay 25 queue 300\n\n0 down rate 3000 loss 0.5 burst 4\n30.5 down rate 500 tcp on # less\n";
        let changes = Change::script(text).unwrap();
        assert_eq!(changes.iter().map(|c| c.at).collect::<Vec<_>>(), [0, 0, 30_500_000]);
        let shape = changes.iter().fold(Shape::default(), |shape, change| change.apply(shape));
        let expected = Shape { rate: Some(500_000), delay: 25, loss: 5000, burst: 4, tcp: true, ..Shape::default() };
        assert_eq!(shape, expected);
        assert_eq!(Change::now("up rate none").unwrap().apply(shape), Shape { rate: None, ..shape });
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, says) in [
            ("0 sideways rate 1", "line 1: `sideways`"),
            ("\n3 up rate", "line 2: `rate` without"),
            ("x up rate 1", "`x` is no number"),
            ("0 up loss 101", "more than 100 %"),
            ("0 up colour red", "expected one of rate"),
            ("0 up delay -1", "`-1` is no number"),
        ] {
            let said = Change::script(text).unwrap_err();
            assert!(said.contains(says), "{text:?}: {said}");
        }
    }
}
