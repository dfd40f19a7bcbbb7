//! `weir support-bundle`: a folder with what whoever helps asks for: version, system, configuration, what the doctor finds,
//! metrics, status, the end of a log. Secrets, people, rooms, names of servers and addresses are not in it: every text goes
//! through [`scrub`].

mod scrub;
mod system;

use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clap::Args;

use self::scrub::Scrubber;
use super::{Source, doctor, print, why};
use crate::config::{Config, plain};

#[derive(Debug, Args)]
pub(super) struct BundleArgs {
    #[command(flatten)]
    source: Source,
    /// Folder to make.
    #[arg(long, value_name = "FOLDER", default_value = "weir-support-bundle")]
    output: PathBuf,
    /// File with log lines, such as `journalctl -u weir` prints; its end is taken.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Leave out what the doctor finds, which takes a moment and asks the homeservers.
    #[arg(long)]
    no_doctor: bool,
}

/// Bytes of the log's end.
const LOG: u64 = 1 << 20;
/// Pages of the admin listener, by the names they get.
const PAGES: [(&str, &str); 4] = [
    ("metrics.txt", "/metrics"),
    ("status.json", "/status.json"),
    ("rooms.json", "/debug/rooms"),
    ("ready.txt", "/readyz"),
];
const README: &str = "What weir support-bundle collected. Secrets, people, rooms, names of servers and addresses are replaced by\n\
    words that stand for the same thing throughout. Look through it before you pass it on: what somebody wrote into a\n\
    comment or a log of their own is not known to weir.\n\n\
    system.txt     version, system, limits, buffers\n\
    config.yaml    the configuration with all defaults\n\
    doctor.json    what the doctor found\n\
    metrics.txt, status.json, rooms.json, ready.txt   what the running weir says of itself\n\
    log.txt        the end of the log that was given\n";

pub(super) fn run(args: &BundleArgs) -> Result<(), String> {
    let config = args.source.read().map_err(|e| e.to_string())?;
    let mut scrubber = Scrubber::new(&config);
    let cannot = |what: &Path, error: &std::io::Error| format!("cannot write {}: {}", what.display(), plain(error));
    let folder = &args.output;
    std::fs::DirBuilder::new().mode(0o700).create(folder).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => format!("{} is there already: give another `--output`", folder.display()),
        _ => cannot(folder, &e),
    })?;
    let mut add = |name: &str, text: &str| {
        let path = folder.join(name);
        let clean = scrubber.clean(text);
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| std::io::Write::write_all(&mut file, clean.as_bytes())).map_err(|e| cannot(&path, &e))
    };
    add("README.txt", README)?;
    add("system.txt", &system::facts())?;
    add("config.yaml", &configuration(&config))?;
    if !args.no_doctor {
        let found = doctor::findings(&args.source).map_or_else(|error| error, |found| format!("{found:#}\n"));
        add("doctor.json", &found)?;
    }
    for (name, path) in PAGES {
        add(name, &page(&config, path))?;
    }
    if let Some(log) = &args.log {
        let text = end_of(log).map_err(|e| format!("cannot read {}: {}", log.display(), plain(&e)))?;
        add("log.txt", &text)?;
    }
    print(&format!("{} is made: look through it, then pass it on\n", folder.display()));
    Ok(())
}

/// As weir took it. Secrets do not show themselves.
fn configuration(config: &Config) -> String {
    let mut text = match config.check() {
        Ok(()) => String::new(),
        Err(error) => format!("# wrong: {error}\n"),
    };
    config.notes.iter().for_each(|note| text.push_str(&format!("# note: {note}\n")));
    text + &serde_saphyr::to_string(config).unwrap_or_default()
}

fn page(config: &Config, path: &str) -> String {
    let asked = config.admin_address().map_err(|error| error.to_string());
    let asked =
        asked.and_then(|address| why::get(address, path).map_err(|e| format!("weir does not answer: {}", plain(&e))));
    asked.unwrap_or_else(|error| error + "\n")
}

/// Whole lines of the end of a file.
fn end_of(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(LOG);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(LOG).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let whole = if start == 0 { text.as_str() } else { text.split_once('\n').map_or("", |(_, rest)| rest) };
    Ok(whole.to_owned())
}
