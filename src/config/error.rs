//! Errors of the configuration: one line, with the place where there is one, and never a value that may be a secret.

use std::path::Path;

use serde::de::DeserializeOwned;

/// What is wrong with a configuration, as one line for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    /// From a message that says what to change.
    pub fn new(message: impl Into<String>) -> Self {
        // One line, whatever a library put into it.
        Self(message.into().split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// The same, with the file in front.
    #[must_use]
    pub fn in_file(self, path: &Path) -> Self {
        Self(format!("{}: {}", path.display(), self.0))
    }
}

/// YAML to a value. The parser would print neighbouring lines, where a secret may stand: it must not.
pub(super) fn parse_yaml<T: DeserializeOwned>(text: &str) -> Result<T, ConfigError> {
    let mut options = serde_saphyr::Options::default();
    options.with_snippet = false;
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let place = error.location().map(|l| format!("line {} column {}: ", l.line(), l.column())).unwrap_or_default();
        let message = error.without_snippet().render();
        // The renderer names the place again at the end; once is enough.
        let message = message.split(" at line ").next().unwrap_or(&message).trim().to_owned();
        let message = match message.as_str() {
            "invalid u8" => "expected a number from 0 to 255".to_owned(),
            "invalid u16" => "expected a number from 0 to 65535".to_owned(),
            "invalid u32" => "expected a number from 0 to 4294967295".to_owned(),
            _ => message,
        };
        ConfigError::new(format!("{place}{message}"))
    })
}
