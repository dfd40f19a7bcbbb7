//! The audit stream: one record for each admission, refusal, removal, and use of the server API or the admin listener
//! that changes something. It says when, who, why and by which rule, and names nobody: people and rooms are pseudonyms
//! by a keyed hash, so that an operator who asks about a person finds the records, and nobody else learns anything.
//!
//! Whoever records never waits: records go to a bounded queue, and one thread (`writer`) writes them. What finds no
//! place is counted.

mod writer;

use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use aws_lc_rs::hmac;
use prometheus::IntCounterVec;
use serde::Serialize;

use self::writer::{Line, Order, Writer};
use crate::config::{AuditConfig, plain};
use crate::media::clock::unix_now;

/// Records on their way to the writer: some seconds of a storm of joins.
const QUEUE: usize = 8_192;
/// Bytes of a key weir makes.
const KEY: usize = 32;
/// Shortest key that is taken, bytes of its file: what HMAC-SHA-256 needs (RFC 2104, 3), in hexadecimal.
const MIN_KEY: usize = 32;
/// How long the end of weir waits for what is in the queue.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum What {
    /// Somebody got a token or was let into a room.
    Admission,
    /// Somebody did not.
    Refusal,
    /// Somebody was removed, with all tokens.
    Ejection,
    /// An operator or a program with a key changed something.
    Admin,
}

/// One record, with names in it. They do not leave this module.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) what: What,
    /// Where: `token`, `join`, `resume`, `call`, `api` or `admin`. Of an ejection `token`: media did not flow yet.
    pub(super) at: &'static str,
    /// SFU room.
    pub(super) room: &'a str,
    /// Matrix user, else participant identity; empty: not known.
    pub(super) who: &'a str,
    /// For programs.
    pub(super) rule: &'a str,
    /// In plain words, without names.
    pub(super) why: &'a str,
    /// Name of the API key that was used; empty: none.
    pub(super) key: &'a str,
    /// Whom the token of the server API names; empty: nobody.
    pub(super) by: &'a str,
}

/// What most records have.
impl Default for Record<'_> {
    fn default() -> Self {
        Self { what: What::Admin, at: "", room: "", who: "", rule: "", why: "", key: "", by: "" }
    }
}

/// A record as it is written. Fields that are not known are left out.
#[derive(Serialize)]
struct Written<'a> {
    time: String,
    event: What,
    at: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    who: Option<String>,
    rule: &'a str,
    why: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
}

/// Names to pseudonyms, by HMAC-SHA-256: the same name has the same one as long as the key stays.
#[derive(Clone)]
pub struct Pseudonyms(hmac::Key);

impl std::fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pseudonyms(***)")
    }
}

impl Pseudonyms {
    /// With the key in a file.
    ///
    /// # Errors
    /// When there is none or it is too short, as one line for the operator.
    pub fn load(file: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(file)
            .map_err(|e| format!("`audit.key_file`: cannot read {}: {}", file.display(), plain(&e)))?;
        let key = text.trim();
        if key.len() < MIN_KEY {
            return Err(format!("`audit.key_file`: {} holds fewer than {MIN_KEY} characters", file.display()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes())))
    }

    /// The same; a key is made where there is no file.
    fn load_or_make(file: &Path) -> Result<Self, String> {
        let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
        match made {
            Ok(mut made) => {
                let mut key = [0; KEY];
                let failed = |why: &str| format!("`audit.key_file`: cannot make {}: {why}", file.display());
                aws_lc_rs::rand::fill(&mut key).map_err(|_| failed("the system gives no randomness"))?;
                made.write_all(format!("{}\n", hex(&key)).as_bytes()).map_err(|e| failed(&plain(&e)))?;
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(format!("`audit.key_file`: cannot make {}: {}", file.display(), plain(&error)));
            }
        }
        Self::load(file)
    }

    /// The one of a Matrix user id, or of an identity where there is no Matrix.
    pub fn person(&self, name: &str) -> String {
        self.of("person", name)
    }

    /// The one of an SFU room.
    pub fn room(&self, name: &str) -> String {
        self.of("room", name)
    }

    /// 128 bits: nobody has so many names that two share one.
    fn of(&self, kind: &str, name: &str) -> String {
        let tag = hmac::sign(&self.0, format!("{kind}\0{name}").as_bytes());
        format!("{kind}-{}", hex(tag.as_ref().get(..16).unwrap_or_default()))
    }
}

/// Takes records; does nothing when there is no audit stream. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Audit(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    pseudonyms: Pseudonyms,
    queue: SyncSender<Order>,
    results: IntCounterVec,
}

impl Audit {
    /// Open the target and start the writer. `results` counts records by what became of them.
    ///
    /// # Errors
    /// When the key or the target cannot be had, as one line for the operator.
    pub(super) fn start(config: &AuditConfig, results: IntCounterVec) -> Result<Self, String> {
        let Some(target) = config.target() else { return Ok(Self::default()) };
        let pseudonyms = Pseudonyms::load_or_make(Path::new(&config.key_file))?;
        let writer = Writer::open(target, config, results.clone(), now())?;
        let (queue, orders) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("weir-audit".to_owned());
        thread.spawn(move || writer.run(&orders)).map_err(|error| format!("cannot start: {error}"))?;
        Ok(Self(Some(Arc::new(Inner { pseudonyms, queue, results }))))
    }

    /// Record. Never waits.
    pub(super) fn record(&self, record: &Record<'_>) {
        let Some(inner) = &self.0 else { return };
        let at = now();
        let (room, who, by) = (record.room, record.who, record.by);
        let person = |name: &str| (!name.is_empty()).then(|| inner.pseudonyms.person(name));
        let written = Written {
            time: writer::time(at),
            event: record.what,
            at: record.at,
            room: (!room.is_empty()).then(|| inner.pseudonyms.room(room)),
            who: person(who),
            rule: record.rule,
            why: record.why,
            key: record.key,
            by: person(by),
        };
        let Ok(text) = serde_json::to_string(&written) else { return };
        let is_nameless = who.is_empty() && record.what == What::Refusal;
        if inner.queue.try_send(Order::Write(Line { at, text, is_nameless })).is_err() {
            inner.results.with_label_values(&["dropped"]).inc();
        }
    }

    /// Wait a moment until what was recorded is written.
    pub(super) fn flush(&self) {
        let Some(inner) = &self.0 else { return };
        let (done, written) = sync_channel(1);
        // A queue that is full belongs to a target that hangs: nothing to wait for.
        if inner.queue.try_send(Order::Flush(done)).is_ok() {
            let _ = written.recv_timeout(LAST_MOMENT);
        }
    }
}

/// Unix milliseconds.
fn now() -> i64 {
    i64::try_from(unix_now().as_millis()).unwrap_or(i64::MAX)
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0')).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn pseudonyms_stay_as_long_as_the_key_and_tell_nothing() {
        let folder = std::env::temp_dir().join(format!("weir-audit-key-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("key");
        assert!(Pseudonyms::load(&file).unwrap_err().contains("audit.key_file"), "looking makes no key");
        let first = Pseudonyms::load_or_make(&file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let again = Pseudonyms::load_or_make(&file).unwrap();
        let shown = first.person("@alice:example.org");
        assert_eq!(shown, again.person("@alice:example.org"));
        assert_eq!(shown, Pseudonyms::load(&file).unwrap().person("@alice:example.org"));
        assert!(shown.starts_with("person-") && shown.len() == 39 && !shown.contains("alice"), "{shown}");
        assert_ne!(shown.strip_prefix("person-"), first.room("@alice:example.org").strip_prefix("room-"));
        let other = Pseudonyms::load_or_make(&folder.join("other")).unwrap();
        assert_ne!(shown, other.person("@alice:example.org"));
        std::fs::write(&file, "short\n").unwrap();
        assert!(Pseudonyms::load(&file).unwrap_err().contains("fewer than 32"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
