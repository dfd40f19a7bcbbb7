//! Whether this node lives, and whether it should be given work.
//!
//! Liveness depends on nothing but the process answering: restarting it for somebody else's fault would end calls that
//! go on well. Readiness falls only for what makes joins useless. A full node stays ready, because those who were in its
//! calls have to come back to it, and says that it is full.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::http::StatusCode;
use signalling::room::api::Refusal;
use tokio::time::Instant;

use super::http::App;
use super::registry::FULL;

/// How long control may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether new work should come here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// Why not; empty: it should.
    pub(super) not_ready: Vec<String>,
    /// What an operator should know besides.
    pub(super) notes: Vec<String>,
}

impl Health {
    /// Look.
    pub(super) async fn of(app: &App) -> Self {
        let mut health = Self::default();
        if app.draining.load(Ordering::Relaxed) {
            health.not_ready.push("weir is stopping".to_owned());
        }
        for thread in app.metrics.load.silent(Instant::now()) {
            health.not_ready.push(format!("media thread {thread} has not reported for 5 seconds"));
        }
        if let Some(silence) = app.nodes.silence() {
            let seconds = silence.as_secs();
            health.notes.push(format!("the directory of nodes has been silent for {seconds} s; calls go on"));
        }
        match tokio::time::timeout(PATIENCE, app.registry.check("", true)).await {
            Err(_) => health.not_ready.push("control does not answer within a second".to_owned()),
            Ok(Err(FULL)) => {
                let limit = app.metrics.load.exhausted().map_or_else(String::new, |limit| format!(": {limit}"));
                health.notes.push(format!("full{limit}; no new calls, those that run take joins"));
            }
            Ok(Err(Refusal::Unavailable(text))) if health.not_ready.is_empty() => {
                health.not_ready.push(text.to_owned());
            }
            Ok(_) => {}
        }
        health
    }

    /// The same from what is known without asking anybody: for those who may not cost anything.
    pub(super) fn is_ready(app: &App) -> bool {
        !app.draining.load(Ordering::Relaxed) && app.metrics.load.silent(Instant::now()).is_empty()
    }

    /// Status and text of `/readyz` of operators.
    pub(super) fn answer(&self) -> (StatusCode, String) {
        let lines = |lines: &[String], before: &str| -> String {
            lines.iter().map(|line| format!("{before}{line}\n")).collect()
        };
        if self.not_ready.is_empty() {
            return (StatusCode::OK, format!("ready\n{}", lines(&self.notes, "note: ")));
        }
        (StatusCode::SERVICE_UNAVAILABLE, lines(&self.not_ready, "not ready: "))
    }
}
