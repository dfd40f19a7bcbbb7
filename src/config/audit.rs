//! The audit stream: who was let in, refused, removed, and what operators changed.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Config, ConfigError, settle_files};

/// Longest time records may be kept, days: ten years.
const MAX_DAYS: u32 = 3_650;

/// A stream of its own for accountability: one line of JSON for each admission, refusal, removal and use of the server
/// API or the admin listener that changes something. People and rooms appear as pseudonyms: `weir audit who USER` says
/// which one is a person's. A call never waits for it; what could not be written is counted in the metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuditConfig {
    /// A folder, which gets a file for each day (relative to this file); `stdout`; or `syslog`, the machine's own
    /// (/dev/log), which systemd's journal reads too and which forwards. Empty: no audit stream.
    pub to: String,
    /// File with the key of the pseudonyms, relative to this file; made at the first start, readable by weir alone. Who
    /// has it can find the records about people they can name; without it nobody can. Nodes that share it share
    /// pseudonyms.
    pub key_file: String,
    /// Days the files of a folder are kept, 1 to 3650. Elsewhere, whoever takes the records keeps and deletes them.
    pub keep_days: u32,
    /// Megabytes a day's file may grow to, at least 1; what comes then is counted, not written.
    pub max_megabytes_per_day: u32,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { to: String::new(), key_file: "weir-audit.key".to_owned(), keep_days: 30, max_megabytes_per_day: 1_024 }
    }
}

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditTarget {
    /// Standard output.
    Stdout,
    /// The socket of the machine's own log.
    Syslog,
    /// A file for each day, in this folder.
    Folder(PathBuf),
}

impl AuditConfig {
    /// Where records go; `None`: nowhere.
    pub fn target(&self) -> Option<AuditTarget> {
        match self.to.as_str() {
            "" => None,
            "stdout" => Some(AuditTarget::Stdout),
            "syslog" => Some(AuditTarget::Syslog),
            folder => Some(AuditTarget::Folder(PathBuf::from(folder))),
        }
    }

    /// File names count from the folder of the configuration.
    pub(super) fn settle(&mut self, folder: &Path) {
        if let Some(AuditTarget::Folder(to)) = self.target() {
            self.to = folder.join(to).to_string_lossy().into_owned();
        }
        settle_files(folder, [&mut self.key_file]);
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.target().is_none() {
            return Ok(());
        }
        if self.key_file.is_empty() {
            return Err(ConfigError::new(
                "`audit.key_file` is empty: name a file weir may make, such as weir-audit.key",
            ));
        }
        if !(1..=MAX_DAYS).contains(&self.keep_days) {
            return Err(ConfigError::new("`audit.keep_days`: give 1 to 3650"));
        }
        if self.max_megabytes_per_day == 0 {
            return Err(ConfigError::new("`audit.max_megabytes_per_day`: give at least 1"));
        }
        Ok(())
    }
}

impl Config {
    pub(super) fn check_audit(&self) -> Result<(), ConfigError> {
        self.audit.check()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]
    use super::*;

    #[test]
    fn says_what_is_wrong_where_it_is_on_and_nothing_where_it_is_off() {
        let off = AuditConfig { key_file: String::new(), keep_days: 0, ..AuditConfig::default() };
        assert_eq!((off.target(), off.check()), (None, Ok(())));
        let on = AuditConfig { to: "audit".to_owned(), ..AuditConfig::default() };
        assert!(on.check().is_ok());
        for (broken, key) in [
            (AuditConfig { key_file: String::new(), ..on.clone() }, "audit.key_file"),
            (AuditConfig { keep_days: 0, ..on.clone() }, "audit.keep_days"),
            (AuditConfig { keep_days: 3_651, ..on.clone() }, "audit.keep_days"),
            (AuditConfig { max_megabytes_per_day: 0, ..on }, "audit.max_megabytes_per_day"),
        ] {
            assert!(broken.check().unwrap_err().to_string().contains(key));
        }
    }

    #[test]
    fn names_count_from_the_folder_of_the_file_and_targets_are_no_names() {
        let mut config = AuditConfig { to: "audit".to_owned(), ..AuditConfig::default() };
        config.settle(Path::new("/etc/weir"));
        assert_eq!(config.target(), Some(AuditTarget::Folder(PathBuf::from("/etc/weir/audit"))));
        assert_eq!(config.key_file, "/etc/weir/weir-audit.key");
        let mut config = AuditConfig { to: "syslog".to_owned(), ..AuditConfig::default() };
        config.settle(Path::new("/etc/weir"));
        assert_eq!(config.target(), Some(AuditTarget::Syslog));
    }
}
