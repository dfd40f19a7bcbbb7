//! What becomes of calls when weir is told to end.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConfigError, Span};

/// What becomes of calls when weir is told to end, by SIGTERM or by `POST /drain` on the operator's listener. New calls
/// are refused at once, with a status that makes a reverse proxy ask another weir; a second signal ends at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DrainConfig {
    /// move: all participants are told to reconnect, room by room, and come back by themselves: to another weir behind
    /// the same address, or to this one once it runs again. wait: calls go on until they end, and take joins meanwhile;
    /// what is left at the deadline is moved.
    pub calls: DrainCalls,
    /// How long `wait` lets calls go on, 0s to 1d. What stops weir has to wait longer: TimeoutStopSec of a systemd unit.
    pub deadline: Span,
}

/// See [`DrainConfig::calls`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DrainCalls {
    /// Everybody comes back elsewhere.
    #[default]
    Move,
    /// They end by themselves.
    Wait,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self { calls: DrainCalls::Move, deadline: Span(Duration::from_secs(600)) }
    }
}

impl DrainConfig {
    /// How long calls may go on.
    pub fn patience(&self) -> Duration {
        match self.calls {
            DrainCalls::Move => Duration::ZERO,
            DrainCalls::Wait => self.deadline.0,
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.deadline.0 > Duration::from_secs(86_400) {
            return Err(ConfigError::new("`drain.deadline`: give 0s to 1d"));
        }
        Ok(())
    }
}
