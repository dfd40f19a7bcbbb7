//! What the doctor found: one line per hop.

use serde_json::{Value, json};

/// How a hop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Works.
    Ok,
    /// Works, but not for everybody or not for long.
    Warn,
    /// Does not work.
    Bad,
    /// Could not be looked at from here.
    Skipped,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warning",
            Self::Bad => "wrong",
            Self::Skipped => "skipped",
        }
    }
}

/// A finding.
#[derive(Clone, Debug)]
struct Line {
    hop: &'static str,
    state: State,
    found: String,
    mend: String,
}

/// All findings, in the order of looking.
#[derive(Clone, Debug, Default)]
pub(super) struct Report(Vec<Line>);

impl Report {
    pub(super) fn ok(&mut self, hop: &'static str, found: impl Into<String>) {
        self.add(hop, State::Ok, found, "");
    }

    pub(super) fn bad(&mut self, hop: &'static str, found: impl Into<String>, mend: impl Into<String>) {
        self.add(hop, State::Bad, found, mend);
    }

    pub(super) fn warn(&mut self, hop: &'static str, found: impl Into<String>, mend: impl Into<String>) {
        self.add(hop, State::Warn, found, mend);
    }

    pub(super) fn skip(&mut self, hop: &'static str, why: impl Into<String>) {
        self.add(hop, State::Skipped, why, "");
    }

    fn add(&mut self, hop: &'static str, state: State, found: impl Into<String>, mend: impl Into<String>) {
        self.0.push(Line { hop, state, found: found.into(), mend: mend.into() });
    }

    /// Whether nothing is wrong.
    pub(super) fn is_well(&self) -> bool {
        self.0.iter().all(|line| line.state != State::Bad)
    }

    /// Whether a hop is fine as far as looked at.
    pub(super) fn is_ok(&self, hop: &str) -> bool {
        self.0.iter().filter(|line| line.hop == hop).all(|line| line.state != State::Bad)
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        for line in &self.0 {
            out.push_str(&format!("{:<8} {:<15} {}\n", line.state.word(), line.hop, printable(&line.found)));
            if !line.mend.is_empty() {
                out.push_str(&format!("{:<24} -> {}\n", "", printable(&line.mend)));
            }
        }
        let count = |state| self.0.iter().filter(|line| line.state == state).count();
        out.push_str(&format!(
            "\n{} ok, {} wrong, {} warnings, {} skipped\n",
            count(State::Ok),
            count(State::Bad),
            count(State::Warn),
            count(State::Skipped)
        ));
        out
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let lines = self.0.iter().map(|line| {
            let mend = (!line.mend.is_empty()).then_some(&line.mend);
            json!({ "hop": line.hop, "state": line.state.word(), "found": line.found, "mend": mend })
        });
        json!({ "well": self.is_well(), "hops": lines.collect::<Vec<_>>() })
    }
}

/// Part of it may come from a server nobody trusts: no control characters on a terminal, and one line.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
