//! What matters of the machine: kernel, cores, memory, limits, buffers and losses of UDP.

use std::fmt::Write as _;

/// Files of the system, each with the lines that are wanted; empty: all.
const FILES: [(&str, &[&str]); 12] = [
    ("/proc/sys/kernel/ostype", &[]),
    ("/proc/sys/kernel/osrelease", &[]),
    ("/etc/os-release", &["PRETTY_NAME="]),
    ("/proc/meminfo", &["MemTotal:", "MemAvailable:"]),
    ("/proc/loadavg", &[]),
    ("/proc/self/limits", &["Max open files", "Max locked memory", "Max core file size"]),
    ("/proc/sys/net/core/rmem_max", &[]),
    ("/proc/sys/net/core/wmem_max", &[]),
    ("/proc/sys/net/core/netdev_max_backlog", &[]),
    ("/proc/net/snmp", &["Udp:"]),
    ("/sys/fs/cgroup/cpu.max", &[]),
    ("/sys/fs/cgroup/memory.max", &[]),
];

/// As text. What cannot be read is left out.
pub(super) fn facts() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let (version, target) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let mut text = format!("weir {version} on {target}, {cores} cores\n");
    for (path, wanted) in FILES {
        let Ok(content) = std::fs::read_to_string(path) else { continue };
        let is_wanted = |line: &&str| wanted.is_empty() || wanted.iter().any(|start| line.starts_with(start));
        for line in content.lines().filter(is_wanted) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{path}: {line}");
        }
    }
    text
}
