//! `weir-loadtest compare`: two reports beside each other, with ratios.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use super::Report;

/// Which.
#[derive(Clone, Debug, Args)]
pub struct CompareArgs {
    /// The report the other is compared with (JSON)
    pub a: PathBuf,
    /// The other
    pub b: PathBuf,
}

/// Read both; give the table.
pub fn run(args: &CompareArgs) -> anyhow::Result<String> {
    let read = |path: &Path| -> anyhow::Result<Report> {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&bytes).with_context(|| format!("{} is no report", path.display()))
    };
    Ok(table(&read(&args.a)?, &read(&args.b)?))
}

/// The table as text.
pub fn table(a: &Report, b: &Report) -> String {
    type Of = fn(&Report) -> Option<f64>;
    fn some(count: u64, value: f64) -> Option<f64> {
        (count > 0).then_some(value)
    }
    let rows: [(&str, &str, Of); 20] = [
        ("delivery", "%", |r| Some(r.delivery_percent)),
        ("received", "packets/s", |r| Some(r.packets_per_second)),
        ("received", "Mbit/s", |r| Some(r.mbit_per_second)),
        ("latency p50", "ms", |r| some(r.latency_ms.count, r.latency_ms.p50)),
        ("latency p99", "ms", |r| some(r.latency_ms.count, r.latency_ms.p99)),
        ("latency p99.9", "ms", |r| some(r.latency_ms.count, r.latency_ms.p999)),
        ("frame delay p50", "ms", |r| some(r.frame_delay_ms.count, r.frame_delay_ms.p50)),
        ("frame delay p99", "ms", |r| some(r.frame_delay_ms.count, r.frame_delay_ms.p99)),
        ("join p50", "ms", |r| some(r.join_ms.count, r.join_ms.p50)),
        ("join p99", "ms", |r| some(r.join_ms.count, r.join_ms.p99)),
        ("first media p50", "ms", |r| some(r.first_media_ms.count, r.first_media_ms.p50)),
        ("first media p99", "ms", |r| some(r.first_media_ms.count, r.first_media_ms.p99)),
        ("frames right", "", |r| some(r.frames.expected(), r.frames.right as f64)),
        ("freezes", "", |r| some(r.frames.expected(), r.frames.freezes as f64)),
        ("failed joins", "", |r| Some(r.failed_joins as f64)),
        ("faults", "", |r| Some(r.faults.iter().map(|fault| fault.count).sum::<u64>() as f64)),
        ("server cost", "us/packet", |r| r.server_cpu_us_per_packet),
        ("server busy", "%", |r| r.server_cpu_percent),
        ("server memory", "kB/participant", |r| r.server_kb_per_subscriber),
        ("generator busy", "%", |r| Some(r.generator_cpu_percent)),
    ];
    let mut lines = vec![
        format!("A: {} on {}", a.scenario.describe(), a.url),
        format!("B: {} on {}", b.scenario.describe(), b.url),
    ];
    if a.scenario != b.scenario {
        lines.push("The scenarios differ: ratios say little.".to_owned());
    }
    for (name, _) in [("A", a), ("B", b)].into_iter().filter(|(_, report)| report.void) {
        lines.push(format!("{name} is void: its generator was the limit."));
    }
    lines.push(format!("{:<32} {:>14} {:>14} {:>8}", "", "A", "B", "B / A"));
    for (name, unit, of) in rows {
        let (Some(a), Some(b)) = (of(a), of(b)) else { continue };
        let ratio = if a == 0.0 { "-".to_owned() } else { format!("{:.2}", b / a) };
        let name = if unit.is_empty() { name.to_owned() } else { format!("{name} ({unit})") };
        lines.push(format!("{name:<32} {a:>14.3} {b:>14.3} {ratio:>8}"));
    }
    lines.join("\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn gives_ratios_of_what_both_measured() {
        let a = Report { packets_per_second: 200.0, ..Report::default() };
        let b = Report { packets_per_second: 300.0, server_cpu_percent: Some(3.0), ..Report::default() };
        let table = table(&a, &b);
        let line = table.lines().find(|line| line.starts_with("received (packets/s)")).unwrap();
        assert!(line.ends_with("1.50"), "{table}");
        assert!(!table.contains("server busy"), "A has none");
    }
}
