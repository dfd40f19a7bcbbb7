//! Takes out of a text what is nobody else's business. The same thing gets the same word throughout a bundle, so that what
//! belongs together can still be seen to.
//!
//! Two ways: what the configuration names (secrets, servers, hosts) is replaced wherever it stands; the rest is known by
//! its look (Matrix ids, tokens, addresses, sids), word by word.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::Config;

/// What a word may stand between.
const BETWEEN: &[char] =
    &[' ', '\t', '\n', '\r', '"', '\'', '`', ',', ';', '=', '(', ')', '{', '}', '<', '>', '|', '?', '&', '\\'];
/// Secrets shorter than this are not looked for: they would be found everywhere.
const SHORTEST: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Scrubber {
    /// What to replace wherever it stands, longest first, and by what.
    known: Vec<(String, String)>,
    /// Words met so far, by kind.
    met: BTreeMap<(&'static str, String), usize>,
}

impl Scrubber {
    /// That knows what is secret in a configuration.
    pub(super) fn new(config: &Config) -> Self {
        let mut known: Vec<(String, String)> = Vec::new();
        let mut add = |text: &str, by: String| {
            if text.len() >= SHORTEST && !known.iter().any(|(it, _)| it == text) {
                known.push((text.to_owned(), by));
            }
        };
        for (number, (key, secret)) in config.keys.iter().enumerate() {
            add(secret.expose(), "<secret>".to_owned());
            add(key, format!("<key-{}>", number + 1));
        }
        for (number, home) in config.matrix.homeservers.iter().enumerate() {
            add(home.as_token.expose(), "<secret>".to_owned());
            add(home.hs_token.expose(), "<secret>".to_owned());
            add(&home.server_name, format!("<homeserver-{}>", number + 1));
            for host in [&home.client_api_url, &home.openid_url].into_iter().filter_map(|url| host(url)) {
                add(&host, format!("<host-of-homeserver-{}>", number + 1));
            }
        }
        for secret in &config.turn.legacy_calls.shared_secrets {
            add(secret.expose(), "<secret>".to_owned());
        }
        for (name, url) in [("matrix.url", &config.matrix.url), ("turn.domain", &config.turn.domain)] {
            let host = host(url).unwrap_or_else(|| url.clone());
            add(&host, format!("<host-of-{name}>"));
        }
        if let Ok(machine) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
            add(machine.trim(), "<machine>".to_owned());
        }
        known.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        Self { known, met: BTreeMap::new() }
    }

    /// The text without them.
    pub(super) fn clean(&mut self, text: &str) -> String {
        let lines = text.lines().map(|line| self.clean_line(line)).collect::<Vec<_>>();
        lines.join("\n") + "\n"
    }

    fn clean_line(&mut self, line: &str) -> String {
        // URLs may hold passwords and tokens in places of the operator's choice: of foreign ones nothing but the scheme stays.
        let line = self.without_urls(line);
        let mut out = String::with_capacity(line.len());
        for piece in line.split_inclusive(BETWEEN) {
            let word = piece.trim_end_matches(BETWEEN);
            let rest = piece.get(word.len()..).unwrap_or_default();
            match self.by_look(word) {
                Some(by) => out.push_str(&by),
                None => out.push_str(word),
            }
            out.push_str(rest);
        }
        self.known.iter().fold(out, |text, (secret, by)| text.replace(secret.as_str(), by))
    }

    /// URLs by number, scheme kept; those to this machine stay.
    fn without_urls(&mut self, line: &str) -> String {
        let mut out = String::new();
        let mut rest = line;
        while let Some(at) = rest.find("://") {
            let start = rest.get(..at).and_then(|before| before.rfind(|c: char| !c.is_ascii_alphanumeric()));
            let start = start.map_or(0, |before| before + 1);
            let end =
                rest.get(at..).and_then(|tail| tail.find([' ', '"', '\'', '`', ',', ')', '>', '}', ']', ';', '\\']));
            let end = end.map_or(rest.len(), |length| at + length);
            let (before, scheme) = (rest.get(..start).unwrap_or_default(), rest.get(start..at).unwrap_or_default());
            let whole = rest.get(start..end).unwrap_or_default();
            out.push_str(before);
            let is_local = host(whole).is_some_and(|host| ["localhost", "127.0.0.1", "[::1]"].contains(&host.as_str()));
            if is_local && !whole.contains(['@', '?']) {
                out.push_str(whole);
            } else {
                let name = self.number("url", whole);
                out.push_str(&format!("{scheme}:<{name}>"));
            }
            rest = rest.get(end..).unwrap_or_default();
        }
        out + rest
    }

    /// What a word is replaced by because of its look.
    fn by_look(&mut self, word: &str) -> Option<String> {
        let bare = word.trim_matches(['.', ':', '!']);
        let id = word.trim_end_matches('.');
        if id.starts_with('@') && id.len() > 1 {
            return Some(format!("<{}>", self.number("person", id)));
        }
        let is_room = |sigil: char| id.starts_with(sigil) && (id.contains(':') || id.len() > 20);
        if ['!', '#', '$'].into_iter().any(is_room) {
            return Some(format!("<{}>", self.number("room", id)));
        }
        if word.starts_with("eyJ") && word.len() > 20 {
            return Some("<token>".to_owned());
        }
        if let Some((kind, rest)) = word.split_once('_')
            && ["PA", "RM", "TR", "DTR", "ND"].contains(&kind)
            && rest.len() >= 8
        {
            return Some(format!("<{}>", self.number("sid", word)));
        }
        // Names of calls, identities in them, keys: nobody writes such a word by hand.
        let is_coded = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'-' | b'_');
        let has = |class: fn(&u8) -> bool| bare.bytes().any(|byte| class(&byte));
        if bare.len() >= 32 && bare.bytes().all(is_coded) && has(u8::is_ascii_digit) && has(u8::is_ascii_uppercase) {
            return Some(format!("<{}>", self.number("code", bare)));
        }
        self.address(word)
    }

    fn address(&mut self, word: &str) -> Option<String> {
        let word = word.trim_end_matches(['.', ':']);
        if let Ok(ip) = word.trim_matches(['[', ']']).parse::<IpAddr>() {
            return self.named_address(ip);
        }
        if let Some((net, bits)) = word.split_once('/') {
            return Some(format!("{}/{bits}", self.named_address(net.parse().ok()?)?));
        }
        let socket: SocketAddr = word.parse().ok()?;
        Some(format!("{}:{}", self.named_address(socket.ip())?, socket.port()))
    }

    /// This machine itself and "all addresses" are everybody's.
    fn named_address(&mut self, ip: IpAddr) -> Option<String> {
        let itself = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        let is_general = itself.contains(&ip) || ip.is_unspecified();
        (!is_general).then(|| format!("<{}>", self.number("address", &ip.to_string())))
    }

    fn number(&mut self, kind: &'static str, word: &str) -> String {
        let next = self.met.keys().filter(|(it, _)| *it == kind).count() + 1;
        let number = *self.met.entry((kind, word.to_owned())).or_insert(next);
        format!("{kind}-{number}")
    }
}

fn host(url: &str) -> Option<String> {
    url::Url::parse(url).ok()?.host_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]
    use super::*;
    use crate::config::Keys;

    #[test]
    fn what_is_private_goes_and_what_helps_stays() {
        let mut config = Config::new();
        config.keys = Keys::single("APIabcdef", "a-secret-of-some-length-0123456789");
        config.matrix.url = "wss://rtc.example.org".to_owned();
        let mut scrubber = Scrubber::new(&config);
        for (text, expected) in [
            ("user @alice:example.org asks", "user <person-1> asks"),
            ("\"@alice:example.org\", \"@bob:example.org\"", "\"<person-1>\", \"<person-2>\""),
            ("room !abc:example.org.", "room <room-1>"),
            ("key APIabcdef: a-secret-of-some-length-0123456789", "key <key-1>: <secret>"),
            ("from 192.0.2.7:4455 and 2001:db8::1", "from <address-1>:4455 and <address-2>"),
            ("listens on 127.0.0.1:7880, [::]:7880, 0.0.0.0", "listens on 127.0.0.1:7880, [::]:7880, 0.0.0.0"),
            ("block 192.0.2.7/24", "block <address-1>/24"),
            ("room !31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM", "room <room-2>"),
            ("token eyJhbGciOiJIUzI1NiJ9.eyJpc3Mi.x_y-z", "token <token>"),
            ("access_token=eyJhbGciOiJIUzI1NiJ9.eyJpc3Mi.x&protocol=16", "access_token=<token>&protocol=16"),
            ("participant=PA_abcdefgh1234 left", "participant=<sid-1> left"),
            ("see https://user:pass@hooks.example.org/x?key=1 now", "see https:<url-1> now"),
            ("at http://127.0.0.1:8008/_matrix ok", "at http://127.0.0.1:8008/_matrix ok"),
            ("host rtc.example.org", "host <host-of-matrix.url>"),
            ("weir_control_rooms_by_size{size=\"3-5\"} 7", "weir_control_rooms_by_size{size=\"3-5\"} 7"),
            (
                "2026-11-24T03:40:00.123Z INFO room started room=~1a2b3c4d",
                "2026-11-24T03:40:00.123Z INFO room started room=~1a2b3c4d",
            ),
        ] {
            assert_eq!(scrubber.clean(text).trim_end(), expected);
        }
    }
}
