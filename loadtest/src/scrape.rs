//! The server's own load, from its metrics in the text format of Prometheus.

use std::time::Duration;

/// A scrape takes no longer.
const PATIENCE: Duration = Duration::from_millis(800);
/// More of an answer is not read.
const MAX_ANSWER: usize = 4 << 20;

/// What a server says of its process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Processor time so far, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Resident memory in bytes.
    pub memory: Option<f64>,
}

/// Scrapes a server.
#[derive(Clone, Debug)]
pub struct Scraper {
    url: String,
    http: reqwest::Client,
}

impl Scraper {
    /// Of this address.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        Ok(Self { url: url.to_owned(), http: reqwest::Client::builder().timeout(PATIENCE).build()? })
    }

    /// What it says now.
    pub async fn load(&self) -> anyhow::Result<Load> {
        let text = self.http.get(&self.url).send().await?.error_for_status()?.text().await?;
        Ok(read(text.get(..MAX_ANSWER).unwrap_or(&text)))
    }
}

/// Read the process metrics that Prometheus clients of all languages name alike.
fn read(text: &str) -> Load {
    let value = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(name));
        lines.find_map(|rest| rest.strip_prefix(' ')?.split(' ').next()?.parse().ok())
    };
    Load { cpu_seconds: value("process_cpu_seconds_total"), memory: value("process_resident_memory_bytes") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_metrics_of_a_process() {
        let text = "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 12.5\n\
                    process_resident_memory_bytes 1.5e+07 1700000000000\nother 3\n";
        assert_eq!(read(text), Load { cpu_seconds: Some(12.5), memory: Some(1.5e7) });
        assert_eq!(read(""), Load::default());
    }
}
