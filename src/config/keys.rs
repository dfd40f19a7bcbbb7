//! API keys and secrets. A secret is shown nowhere: not by `Debug`, not in an error, not in an example.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::{ConfigError, MIN_SECRET};

/// A secret text. Compared and signed with, never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wrap it.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself, for signing and for printing where a person asked for it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// API keys with their secrets, in the order of the file: the first one signs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(Vec<(String, Secret)>);

impl Keys {
    /// One pair.
    pub fn single(key: impl Into<String>, secret: impl Into<String>) -> Self {
        Self(vec![(key.into(), Secret::new(secret))])
    }

    /// From `key: secret` lines, as in a key file and in `WEIR_KEYS`.
    ///
    /// # Errors
    /// When the text is no map of texts to texts.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        super::error::parse_yaml(text)
            .map_err(|_| ConfigError::new("keys: expected lines of the form `key: secret`, each key once"))
    }

    /// Add others behind these; a key that is there already keeps its secret.
    pub fn extend(&mut self, others: Self) {
        for (key, secret) in others.0 {
            if self.secret(&key).is_none() {
                self.0.push((key, secret));
            }
        }
    }

    /// The pair that signs.
    pub fn first(&self) -> Option<(&str, &Secret)> {
        self.0.first().map(|(key, secret)| (key.as_str(), secret))
    }

    /// The secret of a key.
    pub fn secret(&self, key: &str) -> Option<&Secret> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, secret)| secret)
    }

    /// All pairs, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.0.iter().map(|(key, secret)| (key.as_str(), secret))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn check(&self, development: bool) -> Result<(), ConfigError> {
        if self.is_empty() {
            return Err(ConfigError::new(
                "there is no API key: run `weir keys` and put what it prints into the file (or try `weir serve --dev`)",
            ));
        }
        for (key, secret) in self.iter() {
            if key.is_empty() {
                return Err(ConfigError::new("`keys`: an API key is empty: give it a name"));
            }
            let length = secret.expose().len();
            if length < MIN_SECRET && !development {
                return Err(ConfigError::new(format!(
                    "`keys`: the secret of `{key}` has {length} bytes, {MIN_SECRET} are the least: run `weir keys`"
                )));
            }
        }
        Ok(())
    }
}

impl Serialize for Keys {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let shown: BTreeMap<&str, &str> = self.iter().map(|(key, _)| (key, "***")).collect();
        shown.serialize(serializer)
    }
}

impl JsonSchema for Keys {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Keys".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        BTreeMap::<String, String>::json_schema(generator)
    }
}

/// A text that says nothing about itself when it is of the wrong kind: serde would quote the value.
struct QuietText(String);

impl<'de> Deserialize<'de> for QuietText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer);
        text.map(Self).map_err(|_| de::Error::custom("a secret must be a text: put it in quotes"))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        QuietText::deserialize(deserializer).map(|QuietText(text)| Self(text))
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeysVisitor;
        impl<'de> Visitor<'de> for KeysVisitor {
            type Value = Keys;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of `key: secret`")
            }
            fn visit_str<E: de::Error>(self, _: &str) -> Result<Keys, E> {
                Err(E::custom("`keys`: expected a map of `key: secret`; is the space after the colon missing?"))
            }
            fn visit_unit<E: de::Error>(self) -> Result<Keys, E> {
                Ok(Keys::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Vec::new();
                while let Some((key, QuietText(secret))) = map.next_entry::<String, QuietText>()? {
                    keys.push((key, Secret::new(secret)));
                }
                Ok(Keys(keys))
            }
        }
        deserializer.deserialize_any(KeysVisitor)
    }
}
