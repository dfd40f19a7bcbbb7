//! Names of rooms, people and addresses as logs may show them.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::LazyLock;

/// The key of this process: pseudonyms of two runs cannot be compared, and none can be looked up.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Shows a short pseudonym of a value, the same for the same value within one run of the process.
#[derive(Clone, Copy)]
pub struct Redacted<'a>(pub &'a str);

impl fmt::Display for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "~{:08x}", KEY.hash_one(self.0) & 0xffff_ffff)
    }
}

impl fmt::Debug for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::Redacted;

    #[test]
    fn pseudonyms_tell_apart_and_do_not_tell() {
        let shown = Redacted("@alice:example.org").to_string();
        assert_eq!(shown, Redacted("@alice:example.org").to_string());
        assert_ne!(shown, Redacted("@bob:example.org").to_string());
        assert!(!shown.contains("alice"));
    }
}
