//! The page `docs/metrics.md`: every metric with what it says of itself on the page Prometheus reads.

use std::fmt::Write as _;

use tokio::time::Instant;

use super::build::{Described, describe};
use super::{Load, Metrics, Process};
use crate::config::LimitConfig;

/// Parts of the page: how names begin, and what that means.
const PARTS: [(&str, &str); 8] = [
    ("weir_control_", "Signalling, rooms, the server API"),
    ("weir_media_", "Media threads: sockets and time"),
    ("weir_shard_", "Packets and what carries them"),
    ("weir_turn_", "TURN"),
    ("weir_matrix_", "Matrix"),
    ("weir_", "The node"),
    ("livekit_", "Under LiveKit's names, for its dashboards"),
    ("process_", "The process"),
];

const INTRODUCTION: &str = "# Metrics

Every metric of `/metrics`, with the help text it has there. Written by `weir reference metrics > docs/metrics.md`.
[operations.md](operations.md) says how to read the most important ones, and what to do about alerts. Labels are from closed sets:
never a room, a user or an address.
";

/// What `weir reference metrics` prints.
///
/// # Errors
/// When two metrics have one name.
pub fn page() -> Result<String, String> {
    let load = Load::new(LimitConfig::default(), 1, Instant::now());
    let metrics = Metrics::new("", load).map_err(|error| error.to_string())?;
    let process = Process::new().map_err(|error| error.to_string())?;
    let mut rest: Vec<Described> = metrics.described.into_iter().chain(describe(&process)).collect();
    let mut page = INTRODUCTION.to_owned();
    for (prefix, title) in PARTS {
        let (here, others) = rest.into_iter().partition(|it| it.name.starts_with(prefix));
        rest = others;
        table(&mut page, title, here);
    }
    Ok(page)
}

fn table(page: &mut String, title: &str, metrics: Vec<Described>) {
    let _ = write!(page, "\n## {title}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for Described { name, kind, labels, help } in metrics {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(page, "| `{name}` | {kind} | {} | {help} |", labels.join(", "));
    }
}
