//! What a page of metrics says after reports of media threads, and that it names nobody.
#![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]

use tokio::time::Instant;

use super::*;
use crate::base::DropReason;
use crate::config::LimitConfig;

fn metrics() -> Metrics {
    Metrics::new("ND_test", Load::new(LimitConfig::default(), 2, Instant::now())).unwrap()
}

fn page(metrics: &Metrics) -> String {
    String::from_utf8(metrics.page(true)).unwrap()
}

#[test]
fn counters_of_threads_add_up_whatever_dies() {
    let metrics = metrics();
    let mut last = vec![ThreadStats::default(); 2];
    let mut stats = ThreadStats::default();
    (stats.shard.rtp_offered, stats.shard.rtp_forwarded) = (10, 7);
    stats.shard.copies_dropped.add_many(DropReason::TemporalLayer, 3);
    stats.turns.add(std::time::Duration::from_micros(80));
    stats.forwarding.add(std::time::Duration::from_micros(80), 7);
    stats.shard.first_packet.add(std::time::Duration::from_millis(30), 1);
    metrics.fold(&mut last, 0, &stats);
    metrics.fold(&mut last, 1, &stats);
    metrics.fold(&mut last, 1, &stats);
    metrics.shard_died(&mut last, 0);
    let mut fresh = stats.clone();
    fresh.shard = crate::shard::event::ShardStats { rtp_offered: 1, rtp_forwarded: 1, ..Default::default() };
    metrics.fold(&mut last, 0, &fresh);
    let page = page(&metrics);
    for line in [
        "weir_shard_packets_offered_total 21",
        "weir_shard_packets_forwarded_total 15",
        "weir_shard_packets_dropped_total{reason=\"temporal_layer\"} 6",
        "weir_media_shard_deaths_total 1",
        "weir_media_turn_seconds_bucket{le=\"0.0001\"} 2",
        "weir_media_forward_seconds_bucket{le=\"0.00005\"} 0",
        "weir_media_forward_seconds_count 14",
        "livekit_forward_latency_ns_bucket{node_id=\"ND_test\",node_type=\"SERVER\",le=\"100000\"} 14",
        "weir_shard_first_packet_seconds_bucket{le=\"0.02\"} 0",
        "weir_shard_first_packet_seconds_bucket{le=\"0.05\"} 2",
        "livekit_packet_total{country=\"\",direction=\"outgoing\",node_id=\"ND_test\",node_type=\"SERVER\",transmission=\"initial\"} 15",
    ] {
        assert!(page.contains(&format!("{line}\n")), "{line} is not in\n{page}");
    }
}

#[test]
fn each_room_is_in_one_class_and_leaves_it() {
    let metrics = metrics();
    let mut room = SizeClass::new(metrics.room_sizes.clone());
    room.set(2);
    room.set(4);
    room.set(5);
    assert!(page(&metrics).contains("weir_control_rooms_by_size{size=\"3-5\"} 1"));
    assert!(page(&metrics).contains("weir_control_rooms_by_size{size=\"2\"} 0"));
    drop(room);
    assert!(page(&metrics).contains("weir_control_rooms_by_size{size=\"3-5\"} 0"));
}

#[test]
fn a_page_of_a_busy_node_stays_small_and_names_nobody() {
    let metrics = metrics();
    let mut last = vec![ThreadStats::default(); 2];
    metrics.fold(&mut last, 0, &ThreadStats::default());
    let page = page(&metrics);
    let series = page.lines().filter(|line| !line.starts_with('#')).count();
    assert!((150..1_000).contains(&series), "{series} series");
    // Every label there is comes from a closed set.
    let known = [
        "reason",
        "direction",
        "kind",
        "flow",
        "what",
        "thread",
        "part",
        "le",
        "node_id",
        "node_type",
        "transmission",
        "country",
        "version",
        "result",
        "limit",
        "state",
        "size",
        "code",
        "homeserver",
    ];
    for label in page
        .lines()
        .filter_map(|line| line.split_once('{')?.1.split_once('}'))
        .flat_map(|(labels, _)| labels.split("\","))
    {
        let name = label.split('=').next().unwrap();
        assert!(known.contains(&name), "{name} is no known label");
    }
}
