//! Holds the walls up: reads the sources and fails where the architecture or the house style is broken.
//!
//! What clippy and the feature set cannot say is said here: which layer may name which, which words belong to which
//! side, how large a file and a function may grow.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test that reads the tree")]

use std::fs;
use std::path::{Path, PathBuf};

/// The pure layers, lowest first. A layer may name itself and what stands before it.
const CORE: &[&str] = &["base", "rtp", "cc", "transport", "turn", "room", "shard"];

/// Arrows between core layers that go up although the list says down, each with its reason.
const ARROWS_UP: &[(&str, &str)] = &[
    // Parameter types are shared by name: `transport::params` is what signalling negotiated, the wire formats obey it.
    ("rtp", "transport"),
    ("cc", "transport"),
    // Output and report types live with the shard that owns them; everything below pushes into them.
    ("transport", "shard"),
    ("room", "shard"),
    ("turn", "shard"),
];

/// Words that must not appear in the code of the core: clocks, sockets, locks, logs, async, and both dialects.
const CORE_BANNED: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "UdpSocket",
    "TcpStream",
    "Mutex",
    "RwLock",
    "tracing::",
    "println!",
    "tokio",
    "async fn",
    ".await",
    "HashMap",
    "HashSet",
    "livekit",
    "LiveKit",
    "Matrix",
    "thread::",
    "unsafe ",
];

/// Hard limit of production lines per file; the house style asks for 400.
const MAX_FILE_LINES: usize = 700;
/// Hard limit of lines per function; the house style asks for 70.
const MAX_FUNCTION_LINES: usize = 110;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dir: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, into: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(dir) else { return };
        let mut entries: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|e| e == "rs") {
                into.push(path);
            }
        }
    }
    let mut files = Vec::new();
    walk(&root().join(dir), &mut files);
    files
}

/// The production part of a file: everything before its test module; comment lines emptied when `code_only`.
fn production(path: &Path, code_only: bool) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let is_comment = |line: &str| line.trim_start().starts_with("//");
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .map(|line| if code_only && is_comment(line) { String::new() } else { line.to_owned() })
        .collect()
}

fn is_test_file(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.strip_prefix(root()).unwrap().components().any(|c| c.as_os_str() == "tests")
}

fn core_files() -> Vec<(&'static str, PathBuf)> {
    let mut found = Vec::new();
    for layer in CORE {
        let mut files = vec![root().join(format!("src/{layer}.rs"))];
        files.extend(sources(&format!("src/{layer}")));
        found.extend(files.into_iter().filter(|f| f.exists() && !is_test_file(f)).map(|f| (*layer, f)));
    }
    assert!(found.len() > 10, "the core has moved: found only {} files", found.len());
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Lines of `path` that contain one of `words`, as `file:line: word`.
fn mentions(path: &Path, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in production(path, true).iter().enumerate() {
        for word in words.iter().filter(|w| line.contains(**w)) {
            found.push(format!("{}:{}: {word}", shown(path), number + 1));
        }
    }
    found
}

#[test]
fn core_names_no_clock_socket_lock_log_or_dialect() {
    let broken: Vec<String> = core_files().iter().flat_map(|(_, path)| mentions(path, CORE_BANNED)).collect();
    assert!(broken.is_empty(), "the pure core names what only the server may:\n{}", broken.join("\n"));
}

#[test]
fn core_layers_only_look_down() {
    let server = ["crate::media", "crate::mailbox", "crate::control", "crate::config", "crate::cli"];
    let mut broken = Vec::new();
    for (layer, path) in core_files() {
        broken.extend(mentions(&path, &server));
        let own = CORE.iter().position(|l| *l == layer).unwrap();
        for other in CORE.iter().skip(own + 1).filter(|o| !ARROWS_UP.contains(&(layer, **o))) {
            broken.extend(mentions(&path, &[&format!("crate::{other}")]));
        }
    }
    assert!(broken.is_empty(), "layers look up:\n{}", broken.join("\n"));
}

#[test]
fn third_party_transport_parts_stay_behind_the_transport() {
    let outside = |f: &PathBuf| !f.starts_with(root().join("src/transport")) && !is_test_file(f);
    let words = ["rtc_dtls", "rtc_sctp", "rtc_stun", "rtc_datachannel"];
    let broken: Vec<String> = sources("src").iter().filter(|f| outside(f)).flat_map(|f| mentions(f, &words)).collect();
    assert!(broken.is_empty(), "only src/transport may name the rtc-* crates:\n{}", broken.join("\n"));
}

#[test]
fn signalling_knows_nothing_of_weir() {
    let words = ["weir::", "tokio", "Instant::now", "SystemTime", "UdpSocket", "tracing::"];
    let broken: Vec<String> = sources("signalling/src").iter().flat_map(|f| mentions(f, &words)).collect();
    assert!(broken.is_empty(), "signalling is pure:\n{}", broken.join("\n"));
}

#[test]
fn files_and_functions_stay_small_and_say_what_they_are() {
    let mut broken = Vec::new();
    for path in ["src", "signalling/src", "loadtest/src", "loadtest/matrix/src"].iter().flat_map(|d| sources(d)) {
        let lines = production(&path, false);
        if !lines.iter().take(3).any(|l| l.starts_with("//!")) {
            broken.push(format!("{}: no module documentation on top", shown(&path)));
        }
        if path.file_name().is_some_and(|n| n == "mod.rs") {
            broken.push(format!("{}: mod.rs is not used here", shown(&path)));
        }
        if is_test_file(&path) {
            continue;
        }
        if lines.len() > MAX_FILE_LINES {
            broken.push(format!("{}: {} production lines, at most {MAX_FILE_LINES}", shown(&path), lines.len()));
        }
        for (start, length) in long_functions(&lines) {
            broken
                .push(format!("{}:{start}: a function of {length} lines, at most {MAX_FUNCTION_LINES}", shown(&path)));
        }
    }
    assert!(broken.is_empty(), "house style:\n{}", broken.join("\n"));
}

/// Functions over the limit, by rustfmt's own indentation: a body ends at the first `}` in the column of its `fn`.
fn long_functions(lines: &[String]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let is_fn = trimmed.starts_with("fn ")
            || (trimmed.contains(" fn ")
                && (trimmed.starts_with("pub") || trimmed.starts_with("const") || trimmed.starts_with("async")));
        if !is_fn {
            continue;
        }
        let closing = format!("{}}}", &line[..line.len() - trimmed.len()]);
        if let Some(length) = lines.iter().skip(start).position(|l| *l == closing)
            && length > MAX_FUNCTION_LINES
        {
            found.push((start + 1, length));
        }
    }
    found
}
