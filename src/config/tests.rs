//! What an operator may write, and what is said when it is wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may fail by panicking")]

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn error(text: &str) -> String {
    let result = Config::parse(text).and_then(|config| config.check());
    result.expect_err("should have been refused").to_string()
}

#[test]
fn example_parses_back_to_the_defaults() {
    let example = example::example();
    assert_eq!(Config::parse(&example).unwrap(), Config::new(), "{example}");
}

#[test]
fn example_documents_every_key() {
    let lines: Vec<String> = example::example().lines().map(str::to_owned).collect();
    for pair in lines.windows(2) {
        let key = pair[1].trim_start();
        if key.contains(':') && !key.starts_with('#') && !key.starts_with('-') {
            assert!(pair[0].trim_start().starts_with('#'), "no comment above `{key}`");
        }
    }
}

#[test]
fn default_differs_from_new_in_nothing_that_serde_fills_in() {
    assert_eq!(Config::parse("region: \"\"").unwrap(), Config::new());
    assert_eq!(Config::parse("# nothing\n").unwrap(), Config::new());
}

#[test]
fn unknown_keys_are_refused_with_their_place() {
    let message = error("port: 7880\nroom:\n  auto_creat: true\n");
    assert!(message.contains("line 3 column 3"), "{message}");
    assert!(message.contains("auto_creat"), "{message}");
    assert_eq!(message.lines().count(), 1);
}

/// A file as operators have it, with the keys that are LiveKit's alone.
const LIVEKIT: &str = r#"
port: 7880
log_level: debug
redis: {address: "redis:6379", password: hush}
keys: {APIkey: 0123456789abcdef0123456789abcdef}
rtc:
  tcp_port: 7881
  port_range_start: 50000
  port_range_end: 60000
  use_external_ip: true
  congestion_control:
    enabled: true
    probe: [1, 2]
turn: {enabled: true, domain: turn.example.org, external_tls: true, relay_range_start: 30000}
room: {auto_create: false, playout_delay: {enabled: true, min: 100}}
logging:
webhook:
  api_key: APIkey
  urls: ["https://example.org/hook"]
node_selector:
  kind: regionaware
  regions:
    - name: eu
      lat: 52.5
"#;

#[test]
fn starts_from_a_livekit_file_and_names_what_has_no_effect() {
    let config = Config::parse(LIVEKIT).unwrap();
    config.check().unwrap();
    assert_eq!(config.rtc.udp_port, PortRange { first: 50_000, last: Some(60_000) });
    assert!(!config.room.auto_create);
    assert!(config.turn.enabled && !config.rtc.use_external_ip);
    for key in [
        "redis",
        "node_selector",
        "log_level",
        "rtc.use_external_ip",
        "rtc.congestion_control",
        "turn.relay_range_start",
        "room.playout_delay",
    ] {
        assert!(config.notes.iter().any(|note| note.contains(&format!("`{key}`"))), "{key}: {:?}", config.notes);
    }
    assert!(config.notes.iter().all(|note| note.lines().count() == 1 && !note.contains("hush")), "{:?}", config.notes);
    let level = Config::parse("log_level: debug\n").unwrap().logging.level;
    assert_eq!(level, LogLevel::Debug);
    assert!(Config::parse("port: 7880\n").unwrap().notes.is_empty());
}

#[test]
fn a_single_port_serves_any_number_of_threads_and_says_which_to_open() {
    let text = "rtc: {udp_port: 7882, media_threads: 4, use_ice_lite: true}\n";
    let config = Config::parse(text).unwrap();
    config.rtc.check().unwrap();
    assert_eq!(config.rtc.threads(), 4);
    assert!(config.notes.iter().any(|note| note.contains("open UDP 7882 to 7885")), "{:?}", config.notes);
}

#[test]
fn unknown_keys_beside_those_of_livekit_stay_errors() {
    for text in ["redis: {}\nreddis: {}\n", "rtc:\n  use_ice_lite: true\n  redis: {}\n", "redis: {}\nport: many\n"] {
        let message = error(text);
        assert!(message.contains("line 2") || message.contains("line 3"), "{text}: {message}");
    }
}

#[test]
fn no_error_shows_a_secret() {
    let planted = "planted-secret-planted-secret";
    for text in [
        format!("keys: {planted}\n"),
        format!("keys:\n  key: {planted}\n  key: {planted}\n"),
        format!("keys:\n  - {planted}\n"),
        format!("keys:\n  key: [{planted}]\n"),
        format!("keys:\n  key: {{a: {planted}}}\n"),
        format!("keys:\n  key: {planted}\n bad\n"),
        format!("keys:\n  key: {planted}\n"),
        format!("keys:\n  key: \"{planted}\n"),
        format!("rtc:\n  turn_servers:\n    - {{host: a, port: 1, protocol: udp, credential: {planted}, x: 1}}\n"),
    ] {
        let message = error(&text);
        assert!(!message.contains(planted), "{text} -> {message}");
    }
    assert!(!format!("{:?}", Config { keys: Keys::single("k", planted), ..Config::new() }).contains(planted));
}

#[test]
fn short_secrets_only_pass_in_development() {
    let message = error("keys: {devkey: secret}\n");
    assert!(message.contains("`devkey`") && message.contains("weir keys"), "{message}");
    Config::dev().check().unwrap();
}

#[test]
fn ranges_are_checked() {
    let keys = format!("keys: {{k: {SECRET}}}\n");
    for (text, expected) in [
        ("limit: {max_request_head: 8000}", "limit.max_request_head"),
        ("rtc: {udp_port: 7885-7882}", "port range"),
        ("rtc: {udp_port: 7882-7883, media_threads: 3}", "rtc.udp_port"),
        ("rtc: {node_ip: nonsense}", "rtc.node_ip"),
        ("rtc: {tcp_port: 7880}", "rtc.tcp_port"),
        ("audio: {min_percentile: 0}", "audio.min_percentile"),
        ("bind_addresses: [localhost:7880]", "no IP address"),
        ("port: 70000", "65535"),
        ("prometheus: {port: 7880}", "prometheus.port"),
        ("prometheus_port: 7880", "prometheus.port"),
        ("admin: {port: 7880}", "admin.port"),
        ("prometheus: {port: 9}\nadmin: {port: 9}", "admin.port"),
        ("limit: {max_load: 101}", "limit.max_load"),
        ("tls: {cert_file: cert.pem}", "key_file"),
        ("proxy_protocol: true", "trusted_proxies"),
        ("webhook: {urls: [\"ftp://example.org\"]}", "webhook.urls"),
        ("webhook: {api_key: other}", "webhook.api_key"),
        ("room: {enabled_codecs: [{mime: vp8}]}", "mime type"),
        ("video: {dynacast_pause_delay: soon}", "duration"),
        ("rtc: {use_external_ip: true, stun_servers: [a], node_ip: 192.0.2.1}", "rtc.node_ip"),
        ("turn: {enabled: true, domain: turn.example.org}", "turn.cert_file"),
        ("turn: {enabled: true, domain: \"https://turn.example.org\"}", "host name"),
        ("turn: {enabled: true, cert_file: a, key_file: b}", "turn.domain"),
        ("turn: {enabled: true, udp_port: 0, tcp_port: 0}", "without a port"),
        ("turn: {enabled: true, udp_port: 7882}", "rtc.udp_port"),
        ("turn: {enabled: true, tcp_port: 7881}", "rtc.tcp_port"),
        ("turn: {enabled: true, external_tls: true, domain: a.b, tls_port: 7880}", "`port`"),
        ("turn: {enabled: true, per_user_relay_allocation_limit: 0}", "per_user_relay_allocation_limit"),
        ("turn: {legacy_calls: {enabled: true}}", "turn.enabled"),
        ("turn: {enabled: true, legacy_calls: {enabled: true}}", "turn_shared_secret"),
    ] {
        let message = error(&format!("{keys}{text}\n"));
        assert!(message.contains(expected), "{text} -> {message}");
    }
}

#[test]
fn legacy_calls_name_what_is_wrong_and_show_no_secret() {
    let with = |more: &str| {
        let calls = format!("{{enabled: true, shared_secrets: [{SECRET}], {more}}}");
        format!("keys: {{key: {SECRET}}}\nturn: {{enabled: true, legacy_calls: {calls}}}\n")
    };
    let config = Config::parse(&with("")).unwrap();
    config.check().unwrap();
    assert!(!format!("{config:?}").contains(SECRET));
    for (text, expected) in [
        ("relay_range_start: 80", "relay_range_start"),
        ("relay_range_start: 60000", "low to high"),
        ("relay_range_start: 7000, relay_range_end: 8000", "rtc.udp_port"),
        ("relay_range_start: 3000, relay_range_end: 4000", "turn.udp_port"),
        ("relay_range_start: 50000, relay_range_end: 50010", "relay_allocation_limit"),
        ("per_user_relay_allocation_limit: 0", "per_user_relay_allocation_limit"),
        ("per_user_kbps: 1", "per_user_kbps"),
        ("per_user_kbps: 300000", "total_kbps"),
        ("deny_peer_cidrs: [everybody]", "block of addresses"),
    ] {
        let message = error(&with(text));
        assert!(message.contains(expected) && !message.contains(SECRET), "{text} -> {message}");
    }
    let short = error(&with("").replace(&format!("[{SECRET}]"), "[planted-short]"));
    assert!(short.contains("32 bytes") && !short.contains("planted"), "{short}");
}

#[test]
fn spans_and_ports_round_trip() {
    for text in ["500ms", "5s", "90s"] {
        assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
    }
    assert_eq!("1m30s".parse::<Span>().unwrap().0.as_secs(), 90);
    assert_eq!("6h".parse::<Span>().unwrap().0.as_secs(), 21_600);
    for text in ["", "5", "s", "5 parsecs", "-1s"] {
        assert!(text.parse::<Span>().is_err(), "{text}");
    }
    assert_eq!("7882-7885".parse::<PortRange>().unwrap(), PortRange { first: 7882, last: Some(7885) });
}

#[test]
fn first_key_of_the_file_signs() {
    let config = Config::parse(&format!("keys:\n  zeta: {SECRET}\n  alpha: {SECRET}\n")).unwrap();
    assert_eq!(config.keys.first().unwrap().0, "zeta");
}
