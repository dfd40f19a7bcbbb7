//! The line that lives while a run goes on.

use std::io::{IsTerminal, Write};

use crate::report::Second;

pub(super) struct Progress {
    terminal: bool,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal() }
    }

    pub(super) fn show(&self, second: &Second) {
        let figure =
            |value: Option<f64>, digits: usize| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.digits$}"));
        let mut line = format!(
            "{:>5.0} s {:>4} in  {:>7.0} packets/s {:>6.1} Mbit/s  delivery {:>7} %  p50 {} p99 {} ms  streams {}/{}  load {:.0} %",
            second.at,
            second.participants,
            second.packets,
            second.mbit,
            figure(second.delivery_percent, 2),
            figure(second.p50_ms, 1),
            figure(second.p99_ms, 1),
            second.streams,
            second.streams_wanted,
            second.generator_percent,
        );
        if let Some(server) = second.server_percent {
            line.push_str(&format!("  server {server:.0} %"));
        }
        if self.terminal {
            eprint!("\r\x1b[K{line}");
            // A line that does not show harms nobody.
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }

    pub(super) fn end(&self) {
        if self.terminal {
            eprintln!();
        }
    }
}
