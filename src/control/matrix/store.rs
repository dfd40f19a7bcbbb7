//! What outlives weir: who was let into which call, revoked tokens, leaves to be sent. SQLite, written by a thread of its
//! own in the order things happened. When it fails (disk full, file broken) weir says so and goes on in memory.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rusqlite::{Connection, Row, params};
use signalling::matrix::identity::Caller;
use signalling::matrix::power::Dialect;
use signalling::matrix::view::Rights;

use super::calls::Known;

/// A caller as it was stored.
#[derive(Debug)]
pub(super) struct StoredCaller {
    pub(super) room: String,
    pub(super) identity: String,
    pub(super) matrix_room: String,
    pub(super) slot: String,
    /// Server name of the homeserver that let it in.
    pub(super) home: Option<String>,
    /// Without its homeserver.
    pub(super) known: Known,
    pub(super) was_live: bool,
}

/// A leave as it was stored.
#[derive(Clone, Debug)]
pub(super) struct StoredLeave {
    pub(super) room: String,
    pub(super) user: String,
    pub(super) device: String,
    pub(super) delay_id: String,
    pub(super) timeout_ms: u64,
}

/// Everything that was stored.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) callers: Vec<StoredCaller>,
    pub(super) revoked: Vec<(String, String, i64)>,
    pub(super) leaves: Vec<StoredLeave>,
}

/// Writes that wait. Full: the writer is behind for seconds; what comes then is lost for the restart only.
const WRITES: usize = 8_192;
/// Version of the schema below, in `user_version`.
const VERSION: i64 = 1;
/// Revocations are kept this long, ms: longer than any token lives.
const KEPT: i64 = 24 * 3_600_000;

const SCHEMA: &str = "
    CREATE TABLE caller (
        room TEXT NOT NULL, identity TEXT NOT NULL, matrix_room TEXT NOT NULL, slot TEXT NOT NULL, home TEXT,
        user TEXT NOT NULL, device TEXT, member TEXT, sticky INTEGER NOT NULL, rights INTEGER NOT NULL,
        cap INTEGER NOT NULL, granted_at INTEGER NOT NULL, live INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (room, identity)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE revoked (
        room TEXT NOT NULL, identity TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (room, identity)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE delayed_leave (
        room TEXT NOT NULL, user TEXT NOT NULL, device TEXT NOT NULL, delay_id TEXT NOT NULL,
        timeout_ms INTEGER NOT NULL, PRIMARY KEY (room, user, device)
    ) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 1;
";

type Write = Box<dyn FnOnce(&Connection) -> rusqlite::Result<usize> + Send>;

/// Takes writes; does nothing when there is no file.
#[derive(Debug, Default)]
pub(super) struct Store(Option<SyncSender<Write>>);

impl Store {
    /// Open the file, or make it, and read what is in it. Without a path, or when it fails: nothing is kept.
    pub(super) fn open(path: Option<&Path>) -> (Self, Loaded) {
        let Some(path) = path else { return (Self::default(), Loaded::default()) };
        let opened = open(path).and_then(|connection| Ok((load(&connection)?, connection)));
        let (loaded, connection) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                tracing::error!(%error, file = %path.display(), "the state file cannot be used: calls will not survive a restart");
                return (Self::default(), Loaded::default());
            }
        };
        let (sender, writes) = sync_channel(WRITES);
        let thread =
            std::thread::Builder::new().name("weir-store".to_owned()).spawn(move || write(&connection, &writes));
        match thread {
            Ok(_) => (Self(Some(sender)), loaded),
            Err(error) => {
                tracing::error!(%error, "the state file cannot be written: calls will not survive a restart");
                (Self::default(), loaded)
            }
        }
    }

    /// Somebody was let in.
    pub(super) fn caller(
        &self,
        room: &str,
        matrix_room: &str,
        slot: &str,
        identity: &str,
        home: Option<&str>,
        known: &Known,
    ) {
        let texts = [room, identity, matrix_room, slot].map(str::to_owned);
        let (home, known) = (home.map(str::to_owned), known.clone());
        self.write(move |connection| {
            let [room, identity, matrix_room, slot] = texts;
            let Caller { user, device, member } = known.caller;
            let sql = "INSERT INTO caller VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 0)
                ON CONFLICT DO UPDATE SET home = ?5, user = ?6, device = ?7, member = ?8, sticky = ?9, rights = ?10,
                    cap = ?11, granted_at = ?12";
            let sticky = known.dialect == Dialect::Sticky;
            let (rights, cap) = (bits(known.rights), bits(known.cap));
            connection.prepare_cached(sql)?.execute(params![
                room,
                identity,
                matrix_room,
                slot,
                home,
                user,
                device,
                member,
                sticky,
                rights,
                cap,
                known.granted_at
            ])
        });
    }

    /// Whether a session of it is connected.
    pub(super) fn live(&self, room: &str, identity: &str, live: bool) {
        let (room, identity) = (room.to_owned(), identity.to_owned());
        self.write(move |connection| {
            let mut sql = connection.prepare_cached("UPDATE caller SET live = ?3 WHERE room = ?1 AND identity = ?2")?;
            sql.execute(params![room, identity, live])
        });
    }

    /// Its tokens are refused from now on.
    pub(super) fn revoke(&self, room: &str, identity: &str, at: i64) {
        self.forget(room, identity);
        let (room, identity) = (room.to_owned(), identity.to_owned());
        self.write(move |connection| {
            let sql = "INSERT INTO revoked VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET at = ?3";
            connection.prepare_cached(sql)?.execute(params![room, identity, at])
        });
    }

    /// It will not come back.
    pub(super) fn forget(&self, room: &str, identity: &str) {
        let (room, identity) = (room.to_owned(), identity.to_owned());
        self.write(move |connection| {
            let mut sql = connection.prepare_cached("DELETE FROM caller WHERE room = ?1 AND identity = ?2")?;
            sql.execute(params![room, identity])
        });
    }

    /// A leave to look after.
    pub(super) fn leave(&self, leave: &StoredLeave) {
        let leave = leave.clone();
        self.write(move |connection| {
            let sql = "INSERT INTO delayed_leave VALUES (?1, ?2, ?3, ?4, ?5)
                ON CONFLICT DO UPDATE SET delay_id = ?4, timeout_ms = ?5";
            let timeout = i64::try_from(leave.timeout_ms).unwrap_or(i64::MAX);
            connection.prepare_cached(sql)?.execute(params![
                leave.room,
                leave.user,
                leave.device,
                leave.delay_id,
                timeout
            ])
        });
    }

    /// A leave is done.
    pub(super) fn forget_leave(&self, key: &(String, String, String)) {
        let (room, user, device) = key.clone();
        self.write(move |connection| {
            let sql = "DELETE FROM delayed_leave WHERE room = ?1 AND user = ?2 AND device = ?3";
            connection.prepare_cached(sql)?.execute(params![room, user, device])
        });
    }

    /// Forget revocations that no token outlives.
    pub(super) fn prune(&self, now: i64) {
        self.write(move |connection| {
            connection.execute("DELETE FROM revoked WHERE at < ?1", params![now.saturating_sub(KEPT)])?;
            // What was deleted is still in the log of writes, until that begins anew.
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(0))
        });
    }

    fn write(&self, write: impl FnOnce(&Connection) -> rusqlite::Result<usize> + Send + 'static) {
        if let Some(sender) = &self.0
            && sender.try_send(Box::new(write)).is_err()
        {
            tracing::warn!("the state file is behind: a change is not kept over a restart");
        }
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    // For weir alone, whatever the umask is; files beside it get the same rights. That it fails shows right below.
    let _ = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // What is deleted is gone: without this it stays in the file until its place is needed.
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.busy_timeout(std::time::Duration::from_secs(2))?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match version {
        0 => connection.execute_batch(&format!("BEGIN; {SCHEMA} COMMIT;"))?,
        VERSION => {}
        // Written by a newer weir: not ours to change.
        _ => return Err(rusqlite::Error::InvalidQuery),
    }
    Ok(connection)
}

fn write(connection: &Connection, writes: &Receiver<Write>) {
    let mut failing = false;
    while let Ok(write) = writes.recv() {
        match write(connection) {
            Ok(_) => failing = false,
            Err(error) if !failing => {
                failing = true;
                tracing::error!(%error, "the state file cannot be written: calls may not survive a restart");
            }
            Err(_) => {}
        }
    }
}

fn load(connection: &Connection) -> rusqlite::Result<Loaded> {
    let mut callers = connection.prepare(
        "SELECT room, identity, matrix_room, slot, home, user, device, member, sticky, rights, cap, granted_at, live
         FROM caller",
    )?;
    let mut revoked = connection.prepare("SELECT room, identity, at FROM revoked")?;
    let mut leaves = connection.prepare("SELECT room, user, device, delay_id, timeout_ms FROM delayed_leave")?;
    Ok(Loaded {
        callers: callers.query_map([], caller)?.collect::<Result<_, _>>()?,
        revoked: revoked.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect::<Result<_, _>>()?,
        leaves: leaves
            .query_map([], |row| {
                Ok(StoredLeave {
                    room: row.get(0)?,
                    user: row.get(1)?,
                    device: row.get(2)?,
                    delay_id: row.get(3)?,
                    timeout_ms: u64::try_from(row.get::<_, i64>(4)?).unwrap_or(1),
                })
            })?
            .collect::<Result<_, _>>()?,
    })
}

fn caller(row: &Row<'_>) -> rusqlite::Result<StoredCaller> {
    let known = Known {
        home: None,
        caller: Caller { user: row.get(5)?, device: row.get(6)?, member: row.get(7)? },
        dialect: if row.get(8)? { Dialect::Sticky } else { Dialect::State },
        rights: rights(row.get(9)?),
        cap: rights(row.get(10)?),
        granted_at: row.get(11)?,
        live: std::collections::BTreeSet::new(),
    };
    Ok(StoredCaller {
        room: row.get(0)?,
        identity: row.get(1)?,
        matrix_room: row.get(2)?,
        slot: row.get(3)?,
        home: row.get(4)?,
        known,
        was_live: row.get(12)?,
    })
}

fn bits(rights: Rights) -> i64 {
    i64::from(rights.microphone) | i64::from(rights.camera) << 1 | i64::from(rights.screen_share) << 2
}

const fn rights(bits: i64) -> Rights {
    Rights { microphone: bits & 1 != 0, camera: bits & 2 != 0, screen_share: bits & 4 != 0 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]
    use super::*;

    fn known() -> Known {
        Known {
            home: None,
            caller: Caller { user: "@a:x".to_owned(), device: Some("D".to_owned()), member: None },
            dialect: Dialect::State,
            cap: Rights::ALL,
            rights: Rights { microphone: true, camera: false, screen_share: true },
            granted_at: 7,
            live: std::collections::BTreeSet::new(),
        }
    }

    fn settle(store: &Store) {
        let (done, wait) = sync_channel(1);
        store.write(move |_| {
            let _ = done.send(());
            Ok(0)
        });
        wait.recv().unwrap();
    }

    #[test]
    fn gives_back_after_a_restart_what_was_kept() {
        let folder = std::env::temp_dir().join(format!("weir-store-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("state.db");
        let (store, loaded) = Store::open(Some(&path));
        assert!(loaded.callers.is_empty());
        store.caller("sfu", "!r", "s", "@a:x:D", Some("x"), &known());
        store.live("sfu", "@a:x:D", true);
        store.caller("sfu", "!r", "s", "@b:x:D", Some("x"), &known());
        store.revoke("sfu", "@b:x:D", 5_000);
        let leave = StoredLeave {
            room: "sfu".to_owned(),
            user: "@a:x".to_owned(),
            device: "D".to_owned(),
            delay_id: "syd".to_owned(),
            timeout_ms: 9,
        };
        store.leave(&leave);
        store.leave(&StoredLeave { device: "E".to_owned(), ..leave });
        store.forget_leave(&("sfu".to_owned(), "@a:x".to_owned(), "E".to_owned()));
        settle(&store);
        let (_, loaded) = Store::open(Some(&path));
        let [caller] = loaded.callers.as_slice() else { unreachable!("one caller was kept") };
        assert_eq!((&caller.known, caller.was_live, caller.home.as_deref()), (&known(), true, Some("x")));
        assert_eq!(loaded.revoked, [("sfu".to_owned(), "@b:x:D".to_owned(), 5_000)]);
        assert_eq!(loaded.leaves.iter().map(|l| l.delay_id.as_str()).collect::<Vec<_>>(), ["syd"]);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_is_forgotten_is_not_in_the_files_any_more() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = std::env::temp_dir().join(format!("weir-forget-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("state.db");
        let (store, _) = Store::open(Some(&path));
        for number in 0..100 {
            store.caller("sfu", "!marked-room", "s", &format!("marked-{number}"), Some("x"), &known());
        }
        store.revoke("sfu", "marked-7", 5_000);
        settle(&store);
        let marks = || {
            let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
            let texts = files.map(|file| String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned());
            texts.map(|text| text.matches("marked").count()).sum::<usize>()
        };
        assert!(marks() > 100);
        (0..100).for_each(|number| store.forget("sfu", &format!("marked-{number}")));
        store.prune(5_000 + KEPT + 1);
        settle(&store);
        assert_eq!(marks(), 0);
        for file in std::fs::read_dir(&folder).unwrap() {
            assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o077, 0, "for weir alone");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn goes_on_in_memory_when_the_file_is_broken() {
        let path = std::env::temp_dir().join(format!("weir-broken-{}.db", std::process::id()));
        std::fs::write(&path, vec![b'x'; 10_000]).unwrap();
        let (store, loaded) = Store::open(Some(&path));
        assert!(store.0.is_none() && loaded.callers.is_empty());
        store.revoke("a", "b", 1);
        std::fs::remove_file(&path).unwrap();
    }
}
