//! What is logged, and how it looks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what keeps weir from working.
    Error,
    /// And what is wrong, though weir goes on.
    Warn,
    /// And rooms and participants that come and go.
    #[default]
    Info,
    /// And each step of signalling.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The level of this name, LiveKit's names included.
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];
        all.into_iter().find(|level| level.as_str() == name)
    }

    /// As `tracing` names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Log lines. Tokens, secrets, addresses and user ids are never in them, at no level.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LoggingConfig {
    /// One of error, warn, info, debug, trace.
    pub level: LogLevel,
    /// One JSON object per line instead of text.
    pub json: bool,
}
