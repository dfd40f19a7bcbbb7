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

#[test]
fn keys_of_livekit_that_do_not_apply_say_what_to_do() {
    let message = error("redis:\n  address: localhost:6379\n");
    assert!(message.contains("weir needs no Redis"), "{message}");
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
        ("webhook: {urls: [\"ftp://example.org\"]}", "webhook.urls"),
        ("webhook: {api_key: other}", "webhook.api_key"),
        ("room: {enabled_codecs: [{mime: vp8}]}", "mime type"),
        ("video: {dynacast_pause_delay: soon}", "duration"),
    ] {
        let message = error(&format!("{keys}{text}\n"));
        assert!(message.contains(expected), "{text} -> {message}");
    }
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
