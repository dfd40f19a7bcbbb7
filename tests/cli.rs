//! The program as an operator meets it: exit codes, one-line errors, a clean end, logs that keep secrets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests may fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test of a real process in real time")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const SECRET: &str = "planted-secret-0123456789abcdef-planted";

fn weir() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.env_clear();
    command
}

fn run(args: &[&str]) -> Output {
    weir().args(args).output().unwrap()
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("weir-cli-{}-{name}.yaml", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}

/// Exit code 2 and one line on stderr that contains `expected` and no secret.
fn assert_refused(output: &Output, expected: &str) {
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.contains(expected), "{message}");
    assert!(!message.contains("planted"), "{message}");
}

#[test]
fn mistakes_are_one_line_and_exit_code_2() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = port.local_addr().unwrap().port();
    let udp = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let taken_udp = udp.local_addr().unwrap().port();
    let keys = format!("keys:\n  key: {SECRET}\nbind_addresses: [127.0.0.1]\n");
    for (name, text, expected) in [
        ("unknown", format!("{keys}prot: 1\n"), "unknown field `prot`"),
        ("short", "keys:\n  key: planted\n".to_owned(), "`weir keys`".trim_matches('`')),
        ("none", "port: 7880\n".to_owned(), "no API key"),
        ("port", format!("{keys}port: {taken}\n"), "change `port`"),
        (
            "udp",
            format!("{keys}port: 0\nrtc: {{udp_port: {taken_udp}, tcp_port: 0, enable_loopback_candidate: true}}\n"),
            "`rtc.udp_port`",
        ),
        (
            "turn-tcp",
            format!(
                "{keys}port: 0\nrtc: {{udp_port: 0, tcp_port: 0, enable_loopback_candidate: true}}\n\
                     turn: {{enabled: true, udp_port: 0, tcp_port: {taken}, bind_addresses: [127.0.0.1]}}\n"
            ),
            "`turn.tcp_port`",
        ),
        (
            "turn-udp",
            format!(
                "{keys}port: 0\nrtc: {{udp_port: 0, tcp_port: 0, enable_loopback_candidate: true}}\n\
                     turn: {{enabled: true, udp_port: {taken_udp}, tcp_port: 0}}\n"
            ),
            "`turn.udp_port`",
        ),
        ("address", format!("{}port: 0\n", keys.replace("127.0.0.1", "192.0.2.77")), "bind_addresses"),
        ("nodeip", format!("{keys}rtc: {{node_ip: here}}\n"), "rtc.node_ip"),
        ("broken", format!("keys:\n  key: \"{SECRET}\n"), "line"),
    ] {
        let path = file(name, &text);
        assert_refused(&run(&["serve", "--config", path.to_str().unwrap()]), expected);
        let _ = std::fs::remove_file(path);
    }
    assert_refused(&run(&["serve", "--config", "/nowhere/weir.yaml"]), "no such file");
    assert_refused(&run(&["serve"]), "no API key");
    assert_refused(&run(&["token", "--identity", "a", "--room", "r"]), "no API key");
}

#[test]
fn example_with_keys_is_a_good_file() {
    let example = String::from_utf8(run(&["config", "example"]).stdout).unwrap();
    let keys = String::from_utf8(run(&["keys"]).stdout).unwrap();
    let path = file("example", &example.replace("keys: {}", keys.trim_end()));
    let output = run(&["config", "check", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let _ = std::fs::remove_file(path);
}

#[test]
fn pages_that_are_written_by_weir_are_as_it_would_write_them() {
    for page in ["configuration", "metrics"] {
        let output = run(&["reference", page]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let path = format!("{}/docs/{page}.md", env!("CARGO_MANIFEST_DIR"));
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        let is_fresh = kept == String::from_utf8(output.stdout).unwrap();
        assert!(is_fresh, "cargo run -- reference {page} > docs/{page}.md");
    }
}

#[test]
fn a_livekit_file_is_good_and_what_has_no_effect_is_named() {
    let text = format!(
        "port: 7880\nkeys: {{key: {SECRET}}}\nredis: {{address: \"redis:6379\"}}\n\
         rtc: {{udp_port: 7882, tcp_port: 7881, use_external_ip: true}}\n"
    );
    let path = file("livekit", &text);
    let output = run(&["config", "check", path.to_str().unwrap()]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{printed}");
    for expected in ["note: `redis`", "note: `rtc.use_external_ip`", "rtc.node_ip", ": good", "7881/tcp, 7882"] {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
    let _ = std::fs::remove_file(path);
}

#[test]
fn variables_of_livekit_hold_the_configuration_and_the_keys() {
    let body = format!("keys: {{first: {SECRET}}}\n");
    let token = |variables: &[(&str, &str)]| {
        let args = ["token", "--identity", "a", "--room", "r"];
        let output = weir().envs(variables.iter().copied()).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(token(&[]).0, Some(2));
    assert_eq!(token(&[("LIVEKIT_CONFIG", &body)]).0, Some(0));
    let keys = format!("other: {SECRET}");
    assert_eq!(token(&[("LIVEKIT_KEYS", &keys)]).0, Some(0));
    // Weir's own come first.
    let broken = [("LIVEKIT_KEYS", "nonsense"), ("LIVEKIT_CONFIG", "nonsense")];
    let path = file("own-variables", &body);
    let own = [("WEIR_KEYS", keys.as_str()), ("WEIR_CONFIG", path.to_str().unwrap())];
    assert_eq!(token(&[broken, own].concat()).0, Some(0));
    let _ = std::fs::remove_file(path);
}

#[test]
fn key_files_are_read_beside_the_file_that_names_them() {
    let keys = file("keyfile", &format!("filekey: {SECRET}\n"));
    let name = keys.file_name().unwrap().to_str().unwrap().to_owned();
    let config = file("names-keyfile", &format!("key_file: {name}\n"));
    let output = run(&["config", "check", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let _ = (std::fs::remove_file(keys), std::fs::remove_file(config));
}

#[test]
fn state_goes_where_a_service_may_write_and_it_is_said_when_nothing_can_be_kept() {
    let text = format!(
        "keys: {{key: {SECRET}}}\nmatrix:\n  homeservers:\n    - {{server_name: example.org, feed: openid, \
         openid_url: 'http://127.0.0.1:9'}}\n"
    );
    let path = file("state", &text);
    let folder = path.with_extension("state");
    let check = |folder: &str| {
        let output =
            weir().env("STATE_DIRECTORY", folder).args(["config", "check", path.to_str().unwrap()]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    // Not even root writes into what is no folder.
    let missing = check(folder.to_str().unwrap());
    assert!(missing.contains("note: `matrix.state_file`"), "{missing}");
    assert!(missing.contains(folder.join("weir-state.db").to_str().unwrap()), "{missing}");
    std::fs::create_dir(&folder).unwrap();
    assert!(!check(folder.to_str().unwrap()).contains("note:"));
    assert!(!check(&format!("{}:/nowhere", folder.display())).contains("note:"));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "checking leaves nothing behind");
    assert!(!check("").contains("note:"), "without one: beside the file");
    std::fs::remove_dir(&folder).unwrap();
    let _ = std::fs::remove_file(path);
}

/// A running node with its standard output read up to the line that says it runs.
struct Node {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    port: u16,
}

impl Node {
    fn start(extra: &str) -> Self {
        Self::start_by(weir(), extra)
    }

    /// `program` ends in weir's own.
    fn start_by(mut program: Command, extra: &str) -> Self {
        let path = file(
            &format!("node-{extra:.8}").replace([' ', ':', '\n', '{'], "_"),
            &format!(
                "port: 0\nbind_addresses: [127.0.0.1]\nkeys: {{key: {SECRET}}}\n\
                 rtc: {{udp_port: 0, tcp_port: 0, enable_loopback_candidate: true}}\n{extra}"
            ),
        );
        let mut child = program
            .args(["serve", "--config", path.to_str().unwrap()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut port = 0;
        let mut line = String::new();
        while stdout.read_line(&mut line).unwrap() > 0 {
            if line.trim_start().starts_with("http ") {
                port = line.trim().rsplit(':').next().unwrap().parse().unwrap();
                break;
            }
            line.clear();
        }
        let _ = std::fs::remove_file(path);
        assert_ne!(port, 0, "the node did not start");
        Self { child, stdout, port }
    }

    fn ask(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    /// Signals it and gives its exit code and everything it wrote.
    fn end(mut self, signal: &str) -> (Option<i32>, String) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let began = Instant::now();
        let mut written = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut written).unwrap();
        self.stdout.read_to_string(&mut written).unwrap();
        let code = self.child.wait().unwrap().code();
        assert!(began.elapsed() < Duration::from_secs(8), "took {:?}", began.elapsed());
        (code, written)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn both_signals_end_it_cleanly_and_logs_hold_no_secret() {
    for (signal, logging) in [("-TERM", "logging: {level: trace}\n"), ("-INT", "logging: {level: trace, json: true}\n")]
    {
        let node = Node::start(logging);
        let token = run(&[
            "token",
            "--api-key",
            "key",
            "--api-secret",
            SECRET,
            "--identity",
            "planted-alice",
            "--room",
            "planted-room",
        ]);
        let token = String::from_utf8(token.stdout).unwrap().trim().to_owned();
        assert!(node.ask(&format!("/rtc/validate?access_token={token}")).starts_with("HTTP/1.1 200"));
        assert!(node.ask(&format!("/rtc?access_token={token}x")).starts_with("HTTP/1.1 404"));
        let (code, written) = node.end(signal);
        assert_eq!(code, Some(0), "{written}");
        for secret in ["planted", token.as_str(), SECRET] {
            assert!(!written.contains(secret), "{written}");
        }
    }
}

#[test]
fn without_descriptors_nobody_new_comes_in_and_nobody_is_lost() {
    let mut limited = Command::new("sh");
    limited.env_clear().args(["-c", "ulimit -n 64; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_weir")]);
    let node = Node::start_by(limited, "region: here\n");
    // In before the trouble, and kept open.
    let mut witness = TcpStream::connect(("127.0.0.1", node.port)).unwrap();
    witness.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut ask = |n: usize| {
        write!(witness, "GET /?{n} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = [0; 512];
        let length = witness.read(&mut answer).unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 200"), "request {n}");
    };
    ask(0);
    let crowd: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(("127.0.0.1", node.port)).unwrap()).collect();
    for n in 1..20 {
        ask(n);
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(crowd);
    assert!(node.ask("/").starts_with("HTTP/1.1 200"), "served again");
    assert_eq!(node.end("-TERM").0, Some(0));
}

#[test]
fn joins_that_are_refused_leave_a_line_that_says_why() {
    let node = Node::start("room: {auto_create: false}\n");
    let token = |identity: &str| {
        let keys = ["--api-key", "key", "--api-secret", SECRET, "--room", "planted-room"];
        let output = run(&[&["token", "--identity", identity][..], &keys].concat());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let good = token("planted-alice");
    let upgrade = "HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX:";
    assert!(node.ask(&format!("/rtc?access_token={good} {upgrade}")).starts_with("HTTP/1.1 404"));
    assert!(node.ask(&format!("/rtc?access_token={good}x {upgrade}")).starts_with("HTTP/1.1 401"));
    let (_, written) = node.end("-TERM");
    let lines: Vec<&str> = written.lines().filter(|line| line.contains("join refused")).collect();
    assert_eq!(lines.len(), 2, "{written}");
    assert!(lines[0].contains("requested room does not exist") && lines[0].contains("404"), "{}", lines[0]);
    assert!(lines[1].contains("401"), "{}", lines[1]);
    assert!(!written.contains("planted"), "{written}");
}

#[test]
fn tokens_say_what_was_asked_for() {
    let output = run(&[
        "token",
        "--dev",
        "--identity",
        "alice",
        "--room",
        "r",
        "--no-publish",
        "--attribute",
        "a=b",
        "--lifetime",
        "10m",
    ]);
    let token = String::from_utf8(output.stdout).unwrap();
    let secret = |key: &str| (key == "devkey").then_some("secret");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = signalling::token::verify(token.trim(), secret, i64::try_from(now).unwrap()).unwrap();
    let grants = claims.grants().unwrap();
    assert_eq!((grants.identity.as_str(), grants.room.as_str()), ("alice", "r"));
    assert!(!grants.can_publish && grants.can_subscribe);
    assert_eq!(grants.attributes["a"], "b");
    assert!((claims.exp - claims.iat - 600).abs() < 2);
}

#[test]
fn pseudonyms_of_audit_records_can_be_asked_for() {
    let key = file("audit-key", "0123456789abcdef0123456789abcdef-planted");
    let text = format!("keys: {{key: {SECRET}}}\naudit: {{to: stdout, key_file: {}}}\n", key.display());
    let config = file("audit", &text);
    let ask = |args: &[&str]| {
        let output = run(&[&["audit"], args, &["--config", config.to_str().unwrap()]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let person = ask(&["who", "@alice:example.org"]);
    assert!(person.starts_with("person-") && person.len() == 40, "{person}");
    assert_eq!(person, ask(&["who", "@alice:example.org"]));
    let call = ask(&["room", "!abc:example.org"]);
    assert!(call.starts_with("room-"), "{call}");
    assert_ne!(call, ask(&["room", "!abc:example.org", "--slot", "other"]));
    // A file that holds no key is said to, and none is made by asking.
    std::fs::write(&key, "planted").unwrap();
    let args = ["audit", "who", "@alice:example.org", "--config", config.to_str().unwrap()];
    assert_refused(&run(&args), "audit.key_file");
    std::fs::remove_file(&key).unwrap();
    assert_refused(&run(&args), "there is no such file");
    assert!(!key.exists());
    let _ = std::fs::remove_file(config);
}

#[test]
fn a_support_bundle_holds_what_helps_and_nothing_private() {
    let folder = std::env::temp_dir().join(format!("weir-cli-{}-bundle", std::process::id()));
    let log = file("bundle-log", "planted join of @planted:planted.example from 192.0.2.77:4000, [2001:db8::77]:1\n");
    let text = format!(
        "port: 7999\nkeys: {{plantedkey: {SECRET}}}\nrtc: {{node_ip: 192.0.2.77}}\nadmin: {{port: 1}}\n\
         webhook: {{urls: ['https://planted:planted@planted.example/planted?planted'], api_key: plantedkey}}\n\
         matrix:\n  url: wss://planted.example\n  homeservers:\n    - server_name: planted.example\n      \
         client_api_url: http://planted.internal:8008\n      as_token: planted-as-token-0123456789\n      \
         hs_token: planted-hs-token-0123456789\n      policy_rooms: [{{room: '!planted:planted.example', \
         as_user: '@planted:planted.example'}}]\n"
    );
    let config = file("bundle", &text);
    let (config, output) = (config.to_str().unwrap(), folder.to_str().unwrap());
    let args = ["support-bundle", "--config", config, "--output", output, "--no-doctor", "--log"];
    let args = [&args[..], &[log.to_str().unwrap()]].concat();
    let made = run(&args);
    assert_eq!(made.status.code(), Some(0), "{}", String::from_utf8_lossy(&made.stderr));
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    for name in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
        let text = read(&name).replacen("planted join", "", 1);
        for private in ["planted", "192.0.2.77", "2001:db8"] {
            assert!(!text.contains(private), "{private} in {name}:\n{text}");
        }
    }
    assert!(read("config.yaml").contains("port: 7999") && read("config.yaml").contains("<homeserver-1>"));
    assert!(read("log.txt").contains("join of <person-"), "{}", read("log.txt"));
    assert!(read("system.txt").contains("cores") && read("metrics.txt").contains("weir does not answer"));
    assert_refused(&run(&["support-bundle", "--output", output]), "--output");
    std::fs::remove_dir_all(&folder).unwrap();
}
