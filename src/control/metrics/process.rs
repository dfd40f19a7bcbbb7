//! What the system knows of this process, from /proc: CPU time, memory, open files, threads. Read when somebody asks.

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, Metric, MetricFamily, MetricType};

use super::build::family;

/// Ticks per second in /proc: fixed for programs on Linux, whatever the kernel counts in.
const TICKS: f64 = 100.0;
/// Bytes of a page where nothing else is known; all machines weir is made for have it.
const PAGE: f64 = 4_096.0;

/// Metrics of the process, under the names all exporters use.
#[derive(Debug)]
pub(super) struct Process {
    descs: Vec<Desc>,
}

/// Name, help, whether it only grows.
const METRICS: [(&str, &str, bool); 6] = [
    ("process_cpu_seconds_total", "CPU time of this process.", true),
    ("process_resident_memory_bytes", "Memory in use.", false),
    ("process_open_fds", "Open files.", false),
    ("process_max_fds", "Files that may be open.", false),
    ("process_threads", "Threads.", false),
    ("process_start_time_seconds", "When the process started, Unix time.", false),
];

impl Process {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let desc = |(name, help, _): &(&str, &str, bool)| {
            let none = prometheus::Opts::new(*name, *help).const_labels;
            Desc::new((*name).to_owned(), (*help).to_owned(), Vec::new(), none)
        };
        Ok(Self { descs: METRICS.iter().map(desc).collect::<Result<_, _>>()? })
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(values) = read() else { return Vec::new() };
        let metric = |((desc, (_, _, grows)), value): ((&Desc, &(&str, &str, bool)), f64)| {
            let mut metric = Metric::default();
            if *grows {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
                return family(desc, MetricType::COUNTER, metric);
            }
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
            family(desc, MetricType::GAUGE, metric)
        };
        self.descs.iter().zip(&METRICS).zip(values).map(metric).collect()
    }
}

/// In the order of [`METRICS`].
fn read() -> Option<[f64; 6]> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name before the last `)` may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // proc(5): the first field here is the third there.
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let boot = std::fs::read_to_string("/proc/stat").ok()?;
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok())?;
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let files = limits.lines().find(|line| line.starts_with("Max open files"))?;
    let max_files = files.split_whitespace().nth(3)?.parse().unwrap_or(f64::INFINITY);
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count();
    let open = u32::try_from(open).map_or(f64::MAX, f64::from);
    let cpu = (field(14)? + field(15)?) / TICKS;
    Some([cpu, field(24)? * PAGE, open, max_files, field(20)?, boot + field(22)? / TICKS])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]

    use super::*;

    #[test]
    fn this_process_has_memory_files_and_a_past() {
        let families = Process::new().unwrap().collect();
        assert_eq!(families.len(), METRICS.len());
        let [_, memory, open, max, threads, started] = read().unwrap();
        assert!(memory > 1e6 && memory < 1e12 && open >= 3.0 && max >= open && threads >= 1.0, "{memory} {open} {max}");
        assert!(started > 1.5e9, "{started}");
    }
}
