//! Hours of coming and going against a weir of its own: memory, descriptors and the time a join takes stay flat.
//!
//! `tests/churn.sh` runs it and says how; it is ignored otherwise. Every worker joins two participants to a room, lets
//! one publish until the other has seen and heard it, and ends them in one of several ways.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests may fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test of a real process in real time, with knobs")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use weir_loadtest::{Client, Event, Generation, Options, Video, token};

const KEY: &str = "churn";
const SECRET: &str = "a secret of churn, thirty-two bytes long";
const PATIENCE: Duration = Duration::from_secs(30);
/// Couples at once.
const WORKERS: u64 = 6;
/// Samples in all; the first of them are for warming up.
const SAMPLES: u32 = 20;
const WARM_UP: usize = 5;
/// Until everything that waits for somebody to come back has given up.
const QUIET: Duration = Duration::from_secs(40);

struct Node {
    child: Child,
    url: String,
}

impl Node {
    fn start() -> Self {
        let path = std::env::temp_dir().join(format!("weir-churn-{}.yaml", std::process::id()));
        let text = format!(
            "port: 0\nbind_addresses: [127.0.0.1]\nkeys: {{{KEY}: \"{SECRET}\"}}\nlogging: {{level: warn}}\n\
             rtc: {{udp_port: 0, tcp_port: 0, enable_loopback_candidate: true}}\n\
             room: {{empty_timeout: 5, departure_timeout: 5}}\n"
        );
        std::fs::write(&path, text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(["serve", "--config", path.to_str().unwrap()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let line = lines.find(|line| line.trim_start().starts_with("http ")).expect("the node starts");
        let port = line.trim().rsplit(':').next().unwrap().to_owned();
        // What it still says must find a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let _ = std::fs::remove_file(path);
        Self { child, url: format!("ws://127.0.0.1:{port}") }
    }

    /// Kilobytes of memory and open descriptors now.
    fn size(&self) -> (u64, u64) {
        let process = format!("/proc/{}", self.child.id());
        let status = std::fs::read_to_string(format!("{process}/status")).expect("it runs");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kilobytes = resident.trim().trim_end_matches(" kB").parse().unwrap();
        (kilobytes, std::fs::read_dir(format!("{process}/fd")).unwrap().count() as u64)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn join(url: &str, identity: &str, room: &str, options: Options) -> anyhow::Result<(Client, Duration)> {
    let began = Instant::now();
    let mut client = Client::connect(url, &token::join_token(KEY, SECRET, identity, room)?, options).await?;
    client.wait(PATIENCE, |event| matches!(event, Event::Connected).then_some(())).await?;
    Ok((client, began.elapsed()))
}

/// One couple from its first join to its end.
async fn couple(url: &str, number: u64, joins: &mpsc::UnboundedSender<Duration>) -> anyhow::Result<()> {
    let v0 = Options { generation: Generation::V0, offer_in_join: false, ..Options::default() };
    let options = if number.is_multiple_of(2) { Options::default() } else { v0 };
    let room = format!("room-{}", number % (WORKERS * 2));
    let (speaker, took) = join(url, &format!("speaker-{number}"), &room, options).await?;
    joins.send(took)?;
    let mic = speaker.publish_audio("mic").await?;
    let cam = speaker.publish_video(Video::small("cam")).await?;
    let (listener, took) = join(url, &format!("listener-{number}"), &room, options).await?;
    joins.send(took)?;
    let both = |snapshot: &weir_loadtest::Snapshot| {
        let seen = |sid: &str| snapshot.received.get(sid).is_some_and(|received| received.frames > 10);
        (seen(&mic) && seen(&cam)).then_some(())
    };
    listener.until(PATIENCE, both).await?;
    match number % 4 {
        0 => {
            speaker.unpublish(&cam).await?;
            speaker.leave().await?;
            listener.leave().await?;
        }
        1 => {
            speaker.drop_signal().await?;
            speaker.resume().await?;
            speaker.leave().await?;
            listener.leave().await?;
        }
        2 => listener.leave().await?,
        // Gone without a word.
        _ => drop((speaker, listener)),
    }
    Ok(())
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all.get(all.len() / 2).copied().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "an hour; tests/churn.sh runs it"]
async fn memory_descriptors_and_join_times_stay_flat() {
    let minutes: f64 = std::env::var("WEIR_CHURN_MINUTES").ok().map_or(60.0, |text| text.parse().unwrap());
    let node = Node::start();
    let at_rest = node.size();
    println!("at rest {} kB, {} descriptors; {minutes} minutes, {WORKERS} couples at once", at_rest.0, at_rest.1);
    let (couples, failures) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (joins, mut joined) = mpsc::unbounded_channel();
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (url, joins) = (node.url.clone(), joins.clone());
            let (couples, failures) = (couples.clone(), failures.clone());
            tokio::spawn(async move {
                loop {
                    if let Err(error) = couple(&url, couples.fetch_add(1, Ordering::Relaxed), &joins).await {
                        failures.fetch_add(1, Ordering::Relaxed);
                        println!("a couple failed: {error:#}");
                    }
                }
            })
        })
        .collect();
    let mut samples = Vec::new();
    for number in 1..=SAMPLES {
        tokio::time::sleep(Duration::from_secs_f64(minutes * 60.0 / f64::from(SAMPLES))).await;
        let mut times = Vec::new();
        while let Ok(time) = joined.try_recv() {
            times.push(time);
        }
        let (kilobytes, descriptors) = node.size();
        let (count, time) = (times.len(), median(times));
        println!("{number:>3}: {kilobytes} kB, {descriptors} descriptors, {count} joins of {time:?}");
        samples.push((kilobytes, descriptors, time));
    }
    for worker in workers {
        worker.abort();
    }
    tokio::time::sleep(QUIET).await;
    let after = node.size();
    println!("at rest {} kB, {} descriptors", after.0, after.1);

    let (couples, failures) = (couples.load(Ordering::Relaxed), failures.load(Ordering::Relaxed));
    assert!(couples > WORKERS && failures * 100 <= couples, "{failures} of {couples} couples failed");
    let half = (samples.len() - WARM_UP) / 2;
    let of = |part: &[(u64, u64, Duration)]| {
        let peak = part.iter().map(|sample| sample.0).max().unwrap();
        let descriptors = part.iter().map(|sample| sample.1).max().unwrap();
        (peak, descriptors, median(part.iter().map(|sample| sample.2).collect()))
    };
    let (first, last) = (of(&samples[WARM_UP..WARM_UP + half]), of(&samples[WARM_UP + half..]));
    assert!(last.0 <= first.0 + first.0 / 10 + 4_096, "memory grows: from {} to {} kB", first.0, last.0);
    assert!(last.1 <= first.1 + WORKERS * 4, "descriptors grow: from {} to {}", first.1, last.1);
    assert!(after.1 <= at_rest.1 + 2, "descriptors stay: {} before, {} after", at_rest.1, after.1);
    assert!(last.2 <= first.2 * 2 + Duration::from_millis(50), "joins slow down: from {:?} to {:?}", first.2, last.2);
}
