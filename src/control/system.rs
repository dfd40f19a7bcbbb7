//! What weir asks of the machine at its start.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raise the limit of open files to `wanted`, or to what the system gives at most; `wanted` 0 asks for all of it. Gives
/// the limit there is now.
pub fn raise_open_files(wanted: u32) -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    let goal = if wanted == 0 { hard } else { u64::from(wanted).min(hard) };
    if goal <= soft {
        return soft;
    }
    match setrlimit(Resource::RLIMIT_NOFILE, goal, hard) {
        Ok(()) => goal,
        Err(_) => soft,
    }
}
