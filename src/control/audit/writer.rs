//! The thread that writes records: to a file for each day, to standard output, or to the machine's log. It alone meets
//! full disks and targets that hang; it says so once, counts what is lost, and goes on when they go on.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use prometheus::IntCounterVec;

use crate::config::{AuditConfig, AuditTarget, plain};

/// Records written with one system call at most.
const BATCH: usize = 256;
/// Refusals of somebody who proved no name, written per second: anybody can cause them without end.
const NAMELESS_PER_SECOND: u32 = 50;
/// Milliseconds of a day.
const DAY: i64 = 86_400_000;
/// Where the machine's log takes datagrams.
const SYSLOG: &str = "/dev/log";
/// Facility authpriv, severity informational (RFC 5424, 6.2.1).
const PRIORITY: u32 = 10 * 8 + 6;
/// How long the machine's log may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Names of files: this, a date, that.
const NAME: (&str, &str) = ("audit-", ".jsonl");

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Order {
    Write(Line),
    /// Say when all that came before is written.
    Flush(SyncSender<()>),
}

/// A record, rendered.
#[derive(Debug)]
pub(super) struct Line {
    /// Unix milliseconds.
    pub(super) at: i64,
    /// Without the end of the line.
    pub(super) text: String,
    /// A refusal of somebody unknown.
    pub(super) is_nameless: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Writer {
    target: Target,
    results: IntCounterVec,
    /// The second, and how many nameless refusals were written in it.
    nameless: (i64, u32),
    is_failing: bool,
}

#[derive(Debug)]
enum Target {
    Stdout,
    Syslog(Option<UnixDatagram>),
    Folder(Folder),
}

/// A file for each day; those that are older than wanted go.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    keep_days: i64,
    max_bytes: u64,
    /// Day since 1970, its file and how large it is.
    open: Option<(i64, File, u64)>,
    /// The day old files were looked for last.
    swept: i64,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Written,
    /// Beyond a limit.
    Dropped,
}

impl Writer {
    /// Open the target, so that what cannot work is known at the start.
    pub(super) fn open(
        target: AuditTarget,
        config: &AuditConfig,
        results: IntCounterVec,
        now: i64,
    ) -> Result<Self, String> {
        let target = match target {
            AuditTarget::Stdout => Target::Stdout,
            AuditTarget::Syslog => {
                let socket = syslog().map_err(|e| format!("`audit.to`: cannot reach {SYSLOG}: {}", plain(&e)))?;
                Target::Syslog(Some(socket))
            }
            AuditTarget::Folder(path) => {
                let mut folder = Folder {
                    path,
                    keep_days: config.keep_days.into(),
                    max_bytes: u64::from(config.max_megabytes_per_day) * 1_000_000,
                    open: None,
                    swept: i64::MIN,
                };
                if let Err(error) = folder.ready(now) {
                    let path = folder.path.display();
                    return Err(format!("`audit.to`: cannot write to {path}: {}", plain(&error)));
                }
                Target::Folder(folder)
            }
        };
        Ok(Self { target, results, nameless: (0, 0), is_failing: false })
    }

    /// Until nobody records any more.
    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        let mut lines = Vec::new();
        while let Ok(order) = orders.recv() {
            let mut flush = None;
            let mut next = Some(order);
            while let Some(order) = next.take() {
                match order {
                    Order::Write(line) => lines.push(line),
                    Order::Flush(done) => flush = Some(done),
                }
                if flush.is_none() && lines.len() < BATCH {
                    next = orders.try_recv().ok();
                }
            }
            self.write(lines.drain(..));
            if let Some(done) = flush {
                // Fails when nobody waits any more.
                let _ = done.send(());
            }
        }
    }

    /// Records of one batch; each is counted by what became of it.
    fn write(&mut self, lines: impl Iterator<Item = Line>) {
        let mut batch: Vec<Line> = Vec::new();
        for line in lines {
            if line.is_nameless && !self.may_be_nameless(line.at) {
                self.count("dropped", 1);
                continue;
            }
            // A file is a day's: a batch over midnight is two.
            if batch.last().is_some_and(|last| day(last.at) != day(line.at)) {
                self.emit(&std::mem::take(&mut batch));
            }
            batch.push(line);
        }
        self.emit(&batch);
    }

    fn emit(&mut self, batch: &[Line]) {
        if batch.is_empty() {
            return;
        }
        let number = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        match self.target.write(batch) {
            Ok(fate) => {
                self.count(if fate == Fate::Written { "written" } else { "dropped" }, number);
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("audit records are written again");
                }
            }
            Err(error) => {
                self.count("failed", number);
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::error!(%error, "audit records cannot be written: they are lost until this is mended");
                }
            }
        }
    }

    fn may_be_nameless(&mut self, at: i64) -> bool {
        let second = at.div_euclid(1_000);
        if self.nameless.0 != second {
            self.nameless = (second, 0);
        }
        self.nameless.1 += 1;
        self.nameless.1 <= NAMELESS_PER_SECOND
    }

    fn count(&self, result: &str, number: u64) {
        self.results.with_label_values(&[result]).inc_by(number);
    }
}

impl Target {
    /// All of a batch of one day, or an error.
    fn write(&mut self, batch: &[Line]) -> io::Result<Fate> {
        let at = batch.first().map_or(0, |line| line.at);
        let lines = || batch.iter().map(|line| line.text.as_str());
        let text = || lines().flat_map(|line| [line, "\n"]).collect::<String>();
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(text().as_bytes())?;
                stdout.flush()?;
            }
            Self::Syslog(socket) => {
                // The log may have been restarted: one more try with a new socket.
                let sent =
                    socket.as_ref().map_or_else(|| Err(io::ErrorKind::NotConnected.into()), |to| send(to, lines()));
                if sent.is_err() {
                    *socket = None;
                    let fresh = syslog()?;
                    send(&fresh, lines())?;
                    *socket = Some(fresh);
                }
            }
            Self::Folder(folder) => return folder.write(at, &text()),
        }
        Ok(Fate::Written)
    }
}

fn syslog() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(SYSLOG)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn send<'a>(socket: &UnixDatagram, lines: impl Iterator<Item = &'a str>) -> io::Result<()> {
    let process = std::process::id();
    for line in lines {
        socket.send(format!("<{PRIORITY}>weir-audit[{process}]: {line}").as_bytes())?;
    }
    Ok(())
}

impl Folder {
    fn write(&mut self, at: i64, text: &str) -> io::Result<Fate> {
        let max = self.max_bytes;
        let (_, file, size) = self.ready(at)?;
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        if size.saturating_add(length) > max {
            return Ok(Fate::Dropped);
        }
        let written = file.write_all(text.as_bytes());
        match written {
            Ok(()) => *size += length,
            // It may have been removed, or the disk is full: opened anew next time.
            Err(_) => self.open = None,
        }
        written.map(|()| Fate::Written)
    }

    /// The file of this time's day, with its size.
    fn ready(&mut self, at: i64) -> io::Result<&mut (i64, File, u64)> {
        let today = day(at);
        if self.swept != today {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
            self.sweep(today);
            self.swept = today;
        }
        if self.open.as_ref().is_none_or(|(day, ..)| *day != today) {
            let path = self.path.join(format!("{}{}{}", NAME.0, date(at), NAME.1));
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
            let size = file.metadata()?.len();
            self.open = Some((today, file, size));
        }
        self.open.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Files of days that are over for long enough go. Whatever else is in the folder is not ours.
    fn sweep(&self, today: i64) {
        let oldest = date((today - self.keep_days + 1) * DAY);
        let Ok(entries) = std::fs::read_dir(&self.path) else { return };
        for path in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
            // Dates of this form sort as they follow each other.
            if date_of(&path).is_some_and(|date| date < oldest.as_str())
                && let Err(error) = std::fs::remove_file(&path)
            {
                tracing::warn!(%error, "an old audit file could not be removed");
            }
        }
    }
}

/// The date in the name of a file that is ours.
fn date_of(path: &Path) -> Option<&str> {
    let date = path.file_name()?.to_str()?.strip_prefix(NAME.0)?.strip_suffix(NAME.1)?;
    let is_date = date.len() == 10
        && date.bytes().enumerate().all(|(at, c)| if at == 4 || at == 7 { c == b'-' } else { c.is_ascii_digit() });
    is_date.then_some(date)
}

const fn day(unix_ms: i64) -> i64 {
    unix_ms.div_euclid(DAY)
}

/// `2026-11-24`, UTC.
fn date(unix_ms: i64) -> String {
    // Days since 0000-03-01, so that leap days are last of their year: eras of 400 years, then years, then months.
    let days = day(unix_ms) + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{of_month:02}")
}

/// `2026-11-24T03:40:00.123Z` (RFC 3339).
pub(super) fn time(unix_ms: i64) -> String {
    let ms = unix_ms.rem_euclid(DAY);
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{}T{hours:02}:{minutes:02}:{seconds:02}.{:03}Z", date(unix_ms), ms % 1_000)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]
    use std::os::unix::fs::PermissionsExt as _;

    use prometheus::Opts;

    use super::*;

    /// 2026-11-24T03:40:00.123Z.
    const NOW: i64 = 1_795_491_600_123;

    fn results() -> IntCounterVec {
        IntCounterVec::new(Opts::new("n", "h"), &["result"]).unwrap()
    }

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("weir-audit-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        path
    }

    fn open(path: &Path, config: &AuditConfig) -> Writer {
        Writer::open(AuditTarget::Folder(path.to_owned()), config, results(), NOW).unwrap()
    }

    fn line(at: i64, text: &str) -> Line {
        Line { at, text: text.to_owned(), is_nameless: false }
    }

    fn counted(writer: &Writer, result: &str) -> u64 {
        writer.results.with_label_values(&[result]).get()
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(time(NOW), "2026-11-24T03:40:00.123Z");
        for (days, expected) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (11_016, "2000-02-29"),
            (19_782, "2024-02-29"),
            (47_540, "2100-02-28"),
        ] {
            assert_eq!(date(days * DAY), expected);
        }
        assert_eq!(date(47_541 * DAY), "2100-03-01", "no leap year");
    }

    #[test]
    fn each_day_has_its_file_and_old_ones_go() {
        let path = scratch("days");
        std::fs::create_dir_all(&path).unwrap();
        let old = ["audit-2026-11-21.jsonl", "audit-2026-11-22.jsonl", "audit-1999-01-01.jsonl"];
        let others = ["audit-key", "audit-2026-1-1.jsonl", "audit-2026-11-21.jsonl.gz"];
        old.iter().chain(&others).for_each(|name| std::fs::write(path.join(name), "x").unwrap());
        let mut writer = open(&path, &AuditConfig { keep_days: 3, ..AuditConfig::default() });
        writer.write([line(NOW, "a"), line(NOW, "b"), line(NOW + DAY, "c"), line(NOW + DAY, "d")].into_iter());
        let read = |name: &str| std::fs::read_to_string(path.join(name)).ok();
        assert_eq!(read("audit-2026-11-24.jsonl").as_deref(), Some("a\nb\n"));
        assert_eq!(read("audit-2026-11-25.jsonl").as_deref(), Some("c\nd\n"));
        assert!(old.iter().all(|name| read(name).is_none()), "the 23rd to the 25th are kept");
        assert!(others.iter().all(|name| read(name).is_some()), "not ours");
        assert_eq!(counted(&writer, "written"), 4);
        let mode = |name: &str| std::fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("audit-2026-11-24.jsonl"), 0o600);
        // A restart goes on with the day's file.
        open(&path, &AuditConfig::default()).write([line(NOW, "e")].into_iter());
        assert_eq!(read("audit-2026-11-24.jsonl").as_deref(), Some("a\nb\ne\n"));
        std::fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn what_fails_is_counted_and_goes_on_when_it_is_mended() {
        let path = scratch("fails");
        let mut writer = open(&path, &AuditConfig::default());
        writer.write([line(NOW, "a")].into_iter());
        // The next day there is a file where the folder was.
        std::fs::remove_dir_all(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        writer.write([line(NOW + DAY, "b"), line(NOW + DAY, "c")].into_iter());
        assert!(writer.is_failing);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir_all(&path).unwrap();
        writer.write([line(NOW + DAY, "d")].into_iter());
        assert!(!writer.is_failing);
        assert_eq!((counted(&writer, "written"), counted(&writer, "failed")), (2, 2));
        assert_eq!(std::fs::read_to_string(path.join("audit-2026-11-25.jsonl")).unwrap(), "d\n");
        std::fs::remove_dir_all(&path).unwrap();
        // A disk that is full: every write fails, opening does not.
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut writer = open(&path, &AuditConfig::default());
        if let Target::Folder(folder) = &mut writer.target {
            folder.open = Some((day(NOW), full, 0));
        }
        writer.write([line(NOW, "lost")].into_iter());
        assert_eq!(counted(&writer, "failed"), 1);
        writer.write([line(NOW, "kept")].into_iter());
        assert_eq!(std::fs::read_to_string(path.join("audit-2026-11-24.jsonl")).unwrap(), "kept\n");
        std::fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn neither_strangers_nor_anybody_else_fill_the_disk() {
        let path = scratch("flood");
        let mut writer = open(&path, &AuditConfig { max_megabytes_per_day: 1, ..AuditConfig::default() });
        let nameless = |at: i64| Line { at, text: "n".to_owned(), is_nameless: true };
        writer.write((0..1_000).map(|_| nameless(NOW)));
        assert_eq!((counted(&writer, "written"), counted(&writer, "dropped")), (50, 950));
        writer.write((0..1_000).map(|_| nameless(NOW + 1_000)));
        assert_eq!(counted(&writer, "written"), 100);
        let text = "x".repeat(1_000);
        for _ in 0..2_000 {
            writer.write([line(NOW, &text)].into_iter());
        }
        let size = std::fs::metadata(path.join("audit-2026-11-24.jsonl")).unwrap().len();
        assert!((990_000..=1_000_000).contains(&size), "{size}");
        assert!(!writer.is_failing, "a limit is no fault");
        std::fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn the_log_of_the_machine_gets_a_datagram_for_each() {
        let (log, socket) = UnixDatagram::pair().unwrap();
        let (target, results) = (Target::Syslog(Some(socket)), results());
        let mut writer = Writer { target, results, nameless: (0, 0), is_failing: false };
        writer.write([line(NOW, "{1}"), line(NOW, "{2}")].into_iter());
        for expected in ["{1}", "{2}"] {
            let mut datagram = [0; 64];
            let length = log.recv(&mut datagram).unwrap();
            let text = String::from_utf8_lossy(&datagram[..length]).into_owned();
            assert_eq!(text, format!("<86>weir-audit[{}]: {expected}", std::process::id()));
        }
        assert_eq!(counted(&writer, "written"), 2);
    }

    #[test]
    fn a_folder_that_cannot_be_is_said_at_the_start() {
        let path = scratch("file");
        std::fs::write(&path, "").unwrap();
        let opened = Writer::open(AuditTarget::Folder(path.join("in")), &AuditConfig::default(), results(), NOW);
        assert!(opened.unwrap_err().starts_with("`audit.to`: cannot write to"));
        std::fs::remove_file(&path).unwrap();
    }
}
