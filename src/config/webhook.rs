//! Webhooks: who is told what happens in rooms.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{ConfigError, Keys};

/// Signed HTTP requests that tell other programs what happens in rooms, as LiveKit sends them. weir asks nobody else
/// and follows no redirects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookConfig {
    /// Which of `keys` signs them. Empty: the first one.
    pub api_key: String,
    /// Where they are sent, at most 16. Example: `["https://example.org/sfu_webhook"]`
    pub urls: Vec<String>,
}

/// Most receivers: each holds a queue for each room.
const MAX_URLS: usize = 16;

impl WebhookConfig {
    /// Where they are sent.
    ///
    /// # Errors
    /// When one is no `http` or `https` URL with a host. The error does not show it: there may be a secret in it.
    pub fn receivers(&self) -> Result<Vec<Url>, ConfigError> {
        let parse = |(at, text): (usize, &String)| {
            let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            url.ok_or_else(|| {
                ConfigError::new(format!("`webhook.urls`: entry {} is no http or https URL: correct it", at + 1))
            })
        };
        self.urls.iter().enumerate().map(parse).collect()
    }

    pub(super) fn check(&self, keys: &Keys) -> Result<(), ConfigError> {
        if self.urls.len() > MAX_URLS {
            return Err(ConfigError::new(format!("`webhook.urls` has more than {MAX_URLS} entries: remove some")));
        }
        if !self.api_key.is_empty() && keys.secret(&self.api_key).is_none() {
            return Err(ConfigError::new(format!(
                "`webhook.api_key`: there is no `{}` among the keys: name one of `keys`",
                self.api_key
            )));
        }
        self.receivers().map(drop)
    }
}
