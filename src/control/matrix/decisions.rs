//! What was decided about whom lately, in plain words, for `weir why`. In memory, bounded; never in the log, where user
//! ids have no business.

use std::collections::VecDeque;

/// Decisions remembered.
const MAX: usize = 8_192;
/// Decisions told about one person.
const TOLD: usize = 50;

/// The last decisions.
#[derive(Debug, Default)]
pub(super) struct Decisions(VecDeque<(i64, String, String)>);

impl Decisions {
    /// Remember one, at `now` (unix ms).
    pub(super) fn note(&mut self, now: i64, user: &str, words: &str) {
        if self.0.len() >= MAX {
            self.0.pop_front();
        }
        self.0.push_back((now, user.to_owned(), words.to_owned()));
    }

    /// The last ones about a user, latest last, as lines.
    pub(super) fn about(&self, user: &str) -> Vec<String> {
        let of_user = self.0.iter().rev().filter(|(_, who, _)| who == user).take(TOLD);
        let mut lines: Vec<String> = of_user.map(|(at, who, words)| format!("{} {who} {words}", clock(*at))).collect();
        lines.reverse();
        lines
    }
}

/// Time of day, UTC.
fn clock(unix_ms: i64) -> String {
    let seconds = unix_ms.div_euclid(1000).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02} UTC", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_last_decisions_about_one_person() {
        let mut decisions = Decisions::default();
        for number in 0..MAX + 100 {
            decisions.note(3_723_000, if number % 2 == 0 { "@a:x" } else { "@b:x" }, &number.to_string());
        }
        assert_eq!(decisions.0.len(), MAX);
        let lines = decisions.about("@a:x");
        assert_eq!(lines.len(), TOLD);
        assert_eq!(lines.last().map(String::as_str), Some("01:02:03 UTC @a:x 8290"));
        assert!(decisions.about("@c:x").is_empty());
    }
}
