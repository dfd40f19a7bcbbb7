//! What an operator's livekit.yaml holds and weir has no use for: each key with what to do instead.
//!
//! Such keys are passed over when the file is parsed ([`sift`]) and named afterwards ([`adopt`]), so that a server
//! starts from the file of the one it replaces. Everything else that weir does not know stays an error.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, MapDeserializer, StrDeserializer};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::Value;

use super::{Config, LogLevel, PortRange};

/// Section (empty: top of the file), key, and what to do about it.
type Foreign = (&'static str, &'static str, &'static str);

const FOREIGN: &[Foreign] = &[
    ("", "redis", "weir needs no Redis: remove it"),
    ("", "node_selector", "weir chooses by itself: remove it"),
    ("", "signal_relay", "weir needs no message bus: remove it"),
    ("", "psrpc", "weir needs no message bus: remove it"),
    ("", "ingress", "weir has no ingress: remove it"),
    ("", "agents", "weir dispatches no agents: remove it"),
    ("", "debug_handler", "the debug pages are on the listener of `admin`: remove it"),
    ("", "log_level", "taken as `logging.level`: write it there"),
    ("", "development", "it is `weir serve --dev`: remove it"),
    (
        "rtc",
        "port_range_start",
        "weir needs one UDP port per media thread: taken as `rtc.udp_port` where that is not set",
    ),
    (
        "rtc",
        "port_range_end",
        "weir needs one UDP port per media thread: taken as `rtc.udp_port` where that is not set",
    ),
    ("rtc", "external_ip_only", "set `rtc.node_ip` to the addresses clients shall use: remove it"),
    ("rtc", "skip_external_ip_validation", "weir asks nobody for its address: remove it"),
    ("rtc", "use_ice_lite", "weir is always ICE-lite: remove it"),
    ("rtc", "use_mdns", "weir uses no mDNS: remove it"),
    ("rtc", "batch_io", "weir always sends and receives in batches: remove it"),
    ("rtc", "congestion_control", "weir always does; whether video may pause is `rtc.allow_pause`: remove it"),
    ("rtc", "allow_tcp_fallback", "clients always may where `rtc.tcp_port` is not 0: remove it"),
    ("rtc", "force_tcp", "close the UDP ports instead: remove it"),
    ("rtc", "pli_throttle", "weir throttles by itself: remove it"),
    ("rtc", "packet_buffer_size", "weir sizes its buffers by itself: remove it"),
    ("rtc", "packet_buffer_size_video", "weir sizes its buffers by itself: remove it"),
    ("rtc", "packet_buffer_size_audio", "weir sizes its buffers by itself: remove it"),
    ("rtc", "reconnect_on_publication_error", "weir has no such setting: remove it"),
    ("rtc", "reconnect_on_subscription_error", "weir has no such setting: remove it"),
    ("rtc", "reconnect_on_data_channel_error", "weir has no such setting: remove it"),
    ("rtc", "strict_acks", "weir has no such setting: remove it"),
    ("rtc", "enable_warp", "weir has no such setting: remove it"),
    ("turn", "relay_range_start", "weir relays its calls without ports; `turn.legacy_calls` has it: remove it"),
    ("turn", "relay_range_end", "weir relays its calls without ports; `turn.legacy_calls` has it: remove it"),
    ("turn", "allow_restricted_peer_cidrs", "weir relays its calls to itself; `turn.legacy_calls` has it: remove it"),
    ("turn", "deny_peer_cidrs", "weir relays its calls to itself; `turn.legacy_calls` has it: remove it"),
    ("room", "playout_delay", "weir adds no playout delay: remove it"),
    ("room", "sync_streams", "weir always keeps sound and picture together: remove it"),
    ("room", "create_room_enabled", "it is `room.auto_create`: remove it"),
    ("room", "create_room_timeout", "rooms are made at once: remove it"),
    ("room", "create_room_attempts", "rooms are made at once: remove it"),
    ("room", "room_configurations", "weir has no named configurations: remove it"),
    ("room", "enable_full_room_in_webhooks", "webhooks always hold the room: remove it"),
    ("room", "update_batch_target_size", "weir batches by itself: remove it"),
    ("room", "max_metadata_size", "it is `limit.max_metadata_size`: move it there"),
    ("room", "max_room_name_length", "it is `limit.max_room_name_length`: move it there"),
    ("room", "max_participant_identity_length", "it is `limit.max_participant_identity_length`: move it there"),
    ("audio", "active_red_encoding", "clients choose redundant sound by themselves: remove it"),
    ("audio", "enable_loss_proxying", "weir has no such setting: remove it"),
    ("audio", "enable_opus_red", "clients choose redundant sound by themselves: remove it"),
    ("video", "stream_tracker", "weir watches streams by itself: remove it"),
    ("video", "stream_tracker_manager", "weir watches streams by itself: remove it"),
    ("video", "codec_regression_threshold", "weir has no such setting: remove it"),
    ("logging", "pion_level", "weir has no such library: remove it"),
    ("logging", "component_levels", "weir has one level: remove it"),
    ("logging", "sample", "weir limits its lines by itself: remove it"),
    ("logging", "sample_initial", "weir limits its lines by itself: remove it"),
    ("logging", "sample_interval", "weir limits its lines by itself: remove it"),
    ("limit", "max_buffered_amount_data_channel", "weir sizes its buffers by itself: remove it"),
    ("prometheus", "username", "the metrics page has no password: `prometheus.bind_addresses` keeps it on loopback"),
    ("prometheus", "password", "the metrics page has no password: `prometheus.bind_addresses` keeps it on loopback"),
    ("webhook", "filter_params", "weir sends every event: remove it"),
    ("webhook", "url_notifier", "weir sizes its queues by itself: remove it"),
    ("webhook", "resource_url_notifier", "weir sizes its queues by itself: remove it"),
];

/// A section of the file, by the name LiveKit has for it too.
pub(super) trait Section {
    /// Its key; empty: the file itself.
    const NAME: &'static str;
}

/// Parse a section without LiveKit's own keys, for `#[serde(deserialize_with)]`.
pub(super) fn sift<'de, D: Deserializer<'de>, T: Deserialize<'de> + Section>(deserializer: D) -> Result<T, D::Error> {
    struct Sifter<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de> + Section> Visitor<'de> for Sifter<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of settings")
        }
        fn visit_unit<E: de::Error>(self) -> Result<T, E> {
            T::deserialize(MapDeserializer::new(std::iter::empty::<(&str, &str)>()))
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(Sifted { map, section: T::NAME }))
        }
    }
    deserializer.deserialize_any(Sifter(PhantomData))
}

/// A map without the keys that are LiveKit's.
struct Sifted<A> {
    map: A,
    section: &'static str,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Sifted<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.map.next_key::<String>()? {
            if advice(self.section, &key).is_none() {
                let key: StrDeserializer<'_, A::Error> = key.as_str().into_deserializer();
                return seed.deserialize(key).map(Some);
            }
            self.map.next_value::<IgnoredAny>()?;
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

fn advice(section: &str, key: &str) -> Option<&'static str> {
    FOREIGN.iter().find(|(s, k, _)| *s == section && *k == key).map(|(_, _, advice)| *advice)
}

/// Take over what LiveKit says elsewhere, and name every key of its own in `config.notes`.
pub(super) fn adopt(config: &mut Config, text: &str) {
    // The text has been parsed before: this cannot fail for its form.
    let Ok(Value::Object(file)) = serde_saphyr::from_str::<Value>(text) else { return };
    let section = |name: &str| if name.is_empty() { Some(&file) } else { file.get(name).and_then(Value::as_object) };
    for (name, key, advice) in FOREIGN {
        if section(name).is_some_and(|keys| keys.contains_key(*key)) {
            let dot = if name.is_empty() { "" } else { "." };
            config.notes.push(
                format!("`{name}{dot}{key}` has no effect: {advice}").replace("has no effect: taken", "is taken"),
            );
        }
    }
    if config.rtc.use_external_ip && config.rtc.stun_servers.is_empty() {
        config.rtc.use_external_ip = false;
        config.notes.push(
            "`rtc.use_external_ip` has no effect without a server to ask: name one in `rtc.stun_servers`, or the address \
             in `rtc.node_ip`"
                .to_owned(),
        );
    }
    if config.notes.is_empty() {
        return;
    }
    if let Some(level) = file.get("log_level").and_then(Value::as_str)
        && !file.contains_key("logging")
    {
        config.logging.level = LogLevel::named(level).unwrap_or_default();
    }
    let rtc = |key: &str| section("rtc").and_then(|keys| keys.get(key));
    if let (Some(first), Some(last), None) =
        (rtc("port_range_start").and_then(port), rtc("port_range_end").and_then(port), rtc("udp_port"))
        && first != 0
        && first <= last
    {
        config.rtc.udp_port = PortRange { first, last: Some(last) };
    }
    let threads = config.rtc.threads();
    if config.rtc.udp_port.last.is_none() && rtc("udp_port").is_some() && threads > 1 {
        let first = config.rtc.udp_port.first;
        let last = usize::from(first) + threads - 1;
        config.notes.push(format!(
            "`rtc.udp_port: {first}`: each of the {threads} media threads has a port of its own: open UDP {first} to \
             {last}, or set `rtc.media_threads: 1`"
        ));
    }
}

fn port(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|port| u16::try_from(port).ok())
}
