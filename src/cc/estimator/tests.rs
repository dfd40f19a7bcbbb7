//! The controller alone over a simulated link: rate, drop-tail queue, delay, jitter, loss, a competing flow.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]

use std::collections::VecDeque;

use super::*;
use crate::base::{Rng, Ssrc};
use crate::cc::feedback::FeedbackGenerator;
use crate::rtp::rtcp::{Compound, Packet};

const MTU: usize = 1200;

/// What a link does.
#[derive(Clone)]
struct Path {
    /// From which second on which rate, bits per second.
    rates: Vec<(u64, u64)>,
    /// One way, milliseconds.
    delay: u64,
    queue_ms: u64,
    /// Smooth, at most, milliseconds.
    jitter: u64,
    /// Thousandths.
    loss: u64,
    feedback_loss: u64,
    /// A flow that grows until it loses, over the same queue.
    tcp: bool,
    seconds: u64,
}

impl Path {
    fn of(rates: &[(u64, u64)], seconds: u64) -> Self {
        let rates = rates.iter().map(|(s, kbps)| (*s, kbps * 1000)).collect();
        Self { rates, delay: 25, queue_ms: 300, jitter: 0, loss: 0, feedback_loss: 0, tcp: false, seconds }
    }

    fn rate(&self, ms: u64) -> u64 {
        self.rates.iter().rev().find(|(from, _)| *from * 1000 <= ms).map_or(0, |(_, rate)| *rate)
    }
}

/// What is sent.
#[derive(Clone, Copy)]
enum Source {
    /// All that may be.
    Continuous,
    /// The highest of these that fits into nine tenths, bits per second.
    Ladder(&'static [u64]),
    /// So much and never more, while more is asked for.
    Little(u64),
}

#[derive(Clone, Copy)]
struct Waiting {
    size: usize,
    sent: u64,
    /// Transport-wide number; `None`: of the other flow.
    number: Option<u16>,
}

/// What came of a run, by second and in all.
#[derive(Debug, Default)]
struct Outcome {
    targets: Vec<u64>,
    delivered: Vec<u64>,
    queue: Vec<(u64, u64)>,
    layers: Vec<u64>,
    tcp_delivered: u64,
}

impl Outcome {
    fn utilisation(&self, path: &Path, from: u64, to: u64) -> u64 {
        let got: u64 = self.delivered[from as usize..to as usize].iter().sum();
        let room: u64 = (from..to).map(|s| path.rate(s * 1000) / 8).sum();
        got * 100 / room
    }

    fn queue_percentile(&self, percent: usize, from: u64) -> u64 {
        let mut delays: Vec<u64> = self.queue.iter().filter(|(s, _)| *s >= from).map(|(_, d)| *d).collect();
        delays.sort_unstable();
        delays[(delays.len() - 1) * percent / 100]
    }

    /// Seconds from `from` on until the layer is `wanted`, in tenths.
    fn until_layer(&self, from: u64, wanted: u64) -> Option<u64> {
        let start = from as usize * 10;
        self.layers[start..].iter().position(|layer| *layer >= wanted).map(|at| at as u64)
    }
}

struct Tcp {
    window: f64,
    in_flight: usize,
    threshold: f64,
    recover: u64,
}

fn run(path: &Path, source: Source, seed: u64) -> Outcome {
    let mut rng = Rng::new(seed);
    let mut estimator = Estimator::new(rng.next_u16());
    let mut generator = FeedbackGenerator::new();
    let mut outcome = Outcome::default();
    let mut queue: VecDeque<Waiting> = VecDeque::new();
    let (mut queued, mut credit) = (0usize, 0u64);
    // (arrival in ms, packet)
    let mut road: VecDeque<(u64, Waiting)> = VecDeque::new();
    let mut back: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
    let mut tcp_acks: VecDeque<(u64, bool)> = VecDeque::new();
    let mut tcp = Tcp { window: 10.0, in_flight: 0, threshold: 1e9, recover: 0 };
    let (mut budget, mut wobble, mut last_arrival, mut layer) = (0u64, 0f64, 0u64, 0u64);
    let needed = match source {
        Source::Continuous => 20_000_000,
        Source::Ladder(rates) => *rates.iter().max().unwrap() * 11 / 10,
        Source::Little(_) => 3_000_000,
    };
    for ms in 0..path.seconds * 1000 {
        let now = Instant::from_millis(1000 + ms);
        let mut send = |estimator: &mut Estimator, queue: &mut VecDeque<Waiting>, size: usize, kind: Kind| {
            let number = estimator.next_number();
            estimator.on_sent(now, size, kind);
            let limit = (path.rate(ms) * path.queue_ms / 8000) as usize;
            if queued + size <= limit.max(3000) {
                queued += size;
                queue.push_back(Waiting { size, sent: ms, number: Some(number) });
            }
        };
        estimator.set_demand(Bitrate::from_bps(needed), Padding::Now);
        if ms % 100 == 0 {
            estimator.handle_timeout(now);
        }
        // Media.
        let target = estimator.estimate().unwrap().as_bps();
        let sending = match source {
            Source::Continuous => target,
            Source::Little(rate) => rate,
            Source::Ladder(rates) => {
                let held = layer.min(target);
                let fits = *rates.iter().rev().find(|rate| **rate <= target).unwrap_or(&rates[0]);
                let raised = *rates.iter().rev().find(|rate| **rate * 10 <= target * 9).unwrap_or(&rates[0]);
                layer = if fits < layer { fits } else { raised.max(layer).max(held.min(layer)) };
                layer
            }
        };
        budget += sending / 8;
        let size = MTU.min((target / 8 / 40) as usize).max(100);
        while budget >= size as u64 * 1000 {
            budget -= size as u64 * 1000;
            send(&mut estimator, &mut queue, size, Kind::Media);
        }
        // Padding.
        if ms % 2 == 0 {
            let mut wanted = estimator.padding(now);
            while wanted > 0 {
                let size = estimator.padding_size().clamp(110, 300);
                send(&mut estimator, &mut queue, size, Kind::Padding);
                wanted = wanted.saturating_sub(size);
            }
        }
        if path.tcp && ms > 10_000 {
            while (tcp.in_flight as f64) < tcp.window {
                tcp.in_flight += 1;
                let limit = (path.rate(ms) * path.queue_ms / 8000) as usize;
                if queued + 1500 <= limit {
                    queued += 1500;
                    queue.push_back(Waiting { size: 1500, sent: ms, number: None });
                } else {
                    tcp_acks.push_back((ms + 2 * path.delay + path.queue_ms, false));
                }
            }
        }
        // The bottleneck.
        credit += path.rate(ms) / 8;
        while let Some(head) = queue.front().copied().filter(|head| head.size as u64 * 1000 <= credit) {
            credit -= head.size as u64 * 1000;
            queue.pop_front();
            queued -= head.size;
            if head.number.is_some() {
                outcome.queue.push((ms / 1000, ms - head.sent));
            }
            if head.number.is_some() && rng.below(1000) < path.loss {
                continue;
            }
            if path.jitter > 0 {
                let pull = (rng.below(2000) as f64 / 1000.0 - 1.0) * path.jitter as f64;
                wobble = 0.8 * wobble + 0.5 * pull;
            }
            let arrival = (ms as f64 + path.delay as f64 + wobble.abs().min(path.jitter as f64)) as u64;
            last_arrival = last_arrival.max(arrival);
            road.push_back((last_arrival, head));
        }
        if queue.is_empty() {
            credit = 0;
        }
        // The receiver.
        while let Some((_, packet)) = road.front().copied().filter(|(at, _)| *at <= ms) {
            road.pop_front();
            let Some(number) = packet.number else {
                tcp_acks.push_back((ms + path.delay, true));
                outcome.tcp_delivered += packet.size as u64;
                continue;
            };
            generator.on_packet(now, number, true, Ssrc(7));
            let second = (ms / 1000) as usize;
            outcome.delivered.resize(second + 1, 0);
            outcome.delivered[second] += packet.size as u64;
        }
        loop {
            let mut report = Vec::new();
            if !generator.poll(now, Ssrc(1), &mut report) {
                break;
            }
            if rng.below(1000) >= path.feedback_loss {
                back.push_back((ms + path.delay, report));
            }
        }
        while let Some((_, report)) = back.front().filter(|(at, _)| *at <= ms) {
            let Some(Ok(Packet::TransportCc(feedback))) = Compound::new(report).next() else { unreachable!() };
            estimator.on_feedback(now, &feedback);
            back.pop_front();
        }
        // The other flow.
        tcp_acks.make_contiguous().sort_unstable();
        while let Some((_, good)) = tcp_acks.front().copied().filter(|(at, _)| *at <= ms) {
            tcp_acks.pop_front();
            tcp.in_flight -= 1;
            if good {
                tcp.window += if tcp.window < tcp.threshold { 1.0 } else { 1.0 / tcp.window };
            } else if ms > tcp.recover {
                tcp.window = (tcp.window / 2.0).max(2.0);
                tcp.threshold = tcp.window;
                tcp.recover = ms + 2 * path.delay + path.queue_ms;
            }
        }
        if ms % 1000 == 0 {
            outcome.targets.push(target);
        }
        if ms % 100 == 0 {
            outcome.layers.push(layer);
        }
    }
    outcome.delivered.resize(path.seconds as usize, 0);
    outcome
}

/// Paths with the least utilisation and the longest queue at p95 that are held on them, in percent and ms.
fn paths() -> Vec<(&'static str, Path, u64, u64)> {
    let with = |path: &Path, change: &dyn Fn(&mut Path)| {
        let mut path = path.clone();
        change(&mut path);
        path
    };
    let steady = Path::of(&[(0, 2000)], 60);
    let step = Path::of(&[(0, 3000), (30, 500), (60, 3000)], 90);
    let saw: Vec<(u64, u64)> = (0..90).map(|s| (s, 600 + 200 * (s % 15))).collect();
    vec![
        ("2M", steady.clone(), 85, 60),
        ("3M 0.5M 3M", step.clone(), 85, 60),
        ("1M 0.15M 1M", Path::of(&[(0, 1000), (30, 150), (60, 1000)], 90), 80, 60),
        ("sawtooth", Path::of(&saw, 90), 75, 60),
        // Of what the path does not lose itself.
        ("5 % loss", with(&steady, &|p| p.loss = 50), 80, 60),
        ("20 % loss", with(&steady, &|p| p.loss = 200), 68, 60),
        ("150 ms", with(&steady, &|p| p.delay = 150), 85, 60),
        ("300 ms step", with(&step, &|p| p.delay = 300), 75, 60),
        ("30 ms jitter", with(&steady, &|p| p.jitter = 30), 80, 60),
        ("5 ms jitter step", with(&step, &|p| p.jitter = 5), 82, 60),
        ("feedback loss", with(&step, &|p| p.feedback_loss = 300), 75, 60),
        ("300k", Path::of(&[(0, 300)], 60), 85, 60),
        ("10M", Path::of(&[(0, 10_000)], 60), 82, 60),
    ]
}

const LADDER: Source = Source::Ladder(&[190_000, 540_000, 1_740_000]);

#[test]
fn uses_the_link_and_keeps_its_queue_short() {
    for (name, path, least, most) in paths() {
        for seed in 1..4 {
            let outcome = run(&path, Source::Continuous, seed);
            let utilisation = outcome.utilisation(&path, 2, path.seconds);
            let queue = outcome.queue_percentile(95, 2);
            assert!(utilisation >= least && queue <= most, "{name}, seed {seed}: {utilisation} %, {queue} ms");
        }
    }
}

#[test]
fn keeps_a_share_beside_a_greedy_flow() {
    let path = Path { tcp: true, ..Path::of(&[(0, 2000)], 60) };
    for seed in 1..4 {
        let outcome = run(&path, Source::Continuous, seed);
        let share = outcome.utilisation(&path, 20, 60);
        assert!((25..80).contains(&share), "{share} % with seed {seed}");
    }
}

#[test]
fn finds_back_up_within_seconds() {
    for low in [250, 500, 1000] {
        let mut waits: Vec<u64> = (1..13)
            .map(|seed| {
                let path = Path { jitter: 5, ..Path::of(&[(0, 3000), (30, low), (60, 3000)], 90) };
                run(&path, LADDER, seed).until_layer(60, 1_740_000).unwrap_or(999)
            })
            .collect();
        waits.sort_unstable();
        assert!(waits[6] <= 40 && waits[10] <= 90 && waits[11] <= 150, "from {low}k, tenths of seconds: {waits:?}");
    }
}

#[test]
fn holds_a_layer_on_a_steady_link() {
    let path = Path { jitter: 5, ..Path::of(&[(0, 800)], 60) };
    for seed in 1..6 {
        let outcome = run(&path, LADDER, seed);
        let switches = outcome.layers.windows(2).skip(30).filter(|w| w[0] != w[1]).count();
        assert!(switches <= 3, "{switches} with seed {seed}");
    }
}

#[test]
fn little_traffic_is_not_taken_for_a_small_link() {
    for seed in 1..6 {
        let path = Path { jitter: 5, ..Path::of(&[(0, 3000)], 60) };
        let outcome = run(&path, Source::Little(500_000), seed);
        let least = outcome.targets[5..].iter().min().unwrap();
        assert!(*least > 1_200_000, "{least} with seed {seed}: {:?}", outcome.targets);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let path = Path { jitter: 10, loss: 30, ..Path::of(&[(0, 1500)], 20) };
    let [a, b] = [7, 7].map(|seed| run(&path, Source::Continuous, seed));
    assert_eq!((a.targets, a.queue), (b.targets, b.queue));
}

/// A report of the given body after the addresses; see draft-holmer-rmcat-transport-wide-cc-extensions-01, 3.1.
fn report(base: u16, count: u16, reference: u32, rest: &[u8]) -> Vec<u8> {
    let mut body = base.to_be_bytes().to_vec();
    body.extend_from_slice(&count.to_be_bytes());
    body.extend_from_slice(&reference.to_be_bytes()[1..]);
    body.push(0);
    body.extend_from_slice(rest);
    body
}

#[test]
fn lies_do_no_harm() {
    let mut rng = Rng::new(3);
    let mut estimator = Estimator::new(5);
    estimator.set_demand(Bitrate::from_kbps(3000), Padding::Now);
    for n in 0..20_000u64 {
        let now = Instant::from_millis(1000 + n);
        estimator.on_sent(now, 1000, Kind::Media);
        let body: Vec<u8> = match rng.below(3) {
            0 => (0..rng.below(60)).map(|_| rng.next_u16() as u8).collect(),
            // All 65535 numbers received, most of them never sent.
            1 => report(rng.next_u16(), 3000, rng.next_u32(), &[[0x2b, 0xb8].to_vec(), vec![1; 3000]].concat()),
            _ => report(
                estimator.next_number().wrapping_sub(5),
                5,
                rng.next_u32(),
                &[0x40, 5, 0x80, 0, 0x7f, 255, 0, 0, 1, 1, 2, 2],
            ),
        };
        if let Some(feedback) = Feedback::read(Ssrc(1), &body) {
            estimator.on_feedback(now, &feedback);
        }
        estimator.handle_timeout(now);
        let _padding = estimator.padding(now);
        let target = estimator.estimate().unwrap().as_bps();
        assert!((LEAST..=MOST).contains(&target), "{target}");
    }
}

#[test]
fn a_report_of_few_bytes_is_read_as_far_as_was_sent() {
    let mut estimator = Estimator::new(5);
    estimator.on_sent(Instant::from_millis(1000), 1000, Kind::Media);
    // Eight runs of 8191 numbers that have not come, in 16 bytes.
    let body = report(6, 65_528, 1, &[0x1f, 0xff].repeat(8));
    let feedback = Feedback::read(Ssrc(1), &body).unwrap();
    assert_eq!(feedback.statuses().count(), 65_528);
    estimator.on_feedback(Instant::from_millis(1010), &feedback);
    assert_eq!(estimator.readable, 0);
    estimator.on_sent(Instant::from_millis(1020), 1000, Kind::Media);
    assert_eq!(estimator.readable, STATUSES_PER_PACKET);
}

#[test]
fn another_path_is_measured_anew() {
    let mut estimator = Estimator::new(5);
    estimator.rate.on_probe(8_000_000);
    estimator.on_path_change();
    assert_eq!(estimator.estimate().map(Bitrate::as_bps), Some(NEW_PATH_MOST));
    estimator.set_demand(Bitrate::from_kbps(9000), Padding::Now);
    estimator.handle_timeout(Instant::from_millis(1000));
    assert!(estimator.pacing() > Some(Bitrate::from_kbps(4_900)), "a probe: {:?}", estimator.pacing());
    estimator.rate.on_silence(0);
    for _ in 0..10 {
        estimator.on_path_change();
    }
    assert_eq!(estimator.estimate().map(Bitrate::as_bps), Some(NEW_PATH_LEAST));
}

#[test]
fn a_far_end_that_gives_no_feedback_is_not_limited_by_it() {
    let mut estimator = Estimator::new(5);
    for ms in 1000..8000 {
        let now = Instant::from_millis(ms);
        if ms % 10 == 0 {
            estimator.on_sent(now, 1000, Kind::Media);
        }
        if ms % 1000 == 0 {
            estimator.on_other_report(now);
        }
        if ms % 100 == 0 {
            estimator.handle_timeout(now);
        }
    }
    assert_eq!(estimator.estimate(), None);
    assert_eq!(estimator.pacing(), None);
}

#[test]
fn silence_makes_it_send_less_and_its_end_makes_it_look_for_more() {
    let path = Path::of(&[(0, 3000), (20, 0), (26, 3000)], 50);
    let outcome = run(&path, LADDER, 1);
    assert!(outcome.targets[25] <= 400_000, "{:?}", outcome.targets);
    assert!(outcome.until_layer(26, 1_740_000).is_some_and(|tenths| tenths < 80), "{:?}", outcome.targets);
}

#[test]
#[ignore = "prints a table"]
fn table() {
    println!("{:18} {:>4} {:>4} {:>4} {:>4}", "path", "use%", "q50", "q95", "q99");
    for (name, path, ..) in paths() {
        for seed in 1..4 {
            let outcome = run(&path, Source::Continuous, seed);
            let [a, b, c] = [50, 95, 99].map(|p| outcome.queue_percentile(p, 2));
            println!("{name:18} {:4} {a:4} {b:4} {c:4}", outcome.utilisation(&path, 2, path.seconds));
        }
    }
}
