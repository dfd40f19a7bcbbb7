//! The load test against a whole node on loopback: its participants join, everything is accounted for, and faults that
//! are planted are found and called by their names.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

use clap::Parser;
use weir::config::{Config, DEV_KEY, DEV_SECRET};
use weir::control::Server;
use weir_loadtest::report::{Report, html};
use weir_loadtest::sfu::{SfuArgs, run};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    sfu: SfuArgs,
}

/// As on the command line, against a server of its own.
async fn load(flags: &str) -> Report {
    load_spread(flags, 100).await
}

/// The same with so many participants of a room on one media thread.
async fn load_spread(flags: &str, per_thread: u32) -> Report {
    let mut config = Config::dev();
    config.port = 0;
    config.rtc.udp_port.first = 0;
    config.rtc.tcp_port = 0;
    config.rtc.media_threads = 2;
    config.room.participants_per_thread = per_thread;
    config.rtc.node_ip = "127.0.0.1".to_owned();
    config.prometheus.port = 0;
    let server = Server::start(&config).unwrap();
    let url = format!("ws://{}", server.started().http[0]);
    let always = ["load", "--url", &url, "--api-key", DEV_KEY, "--api-secret", DEV_SECRET];
    let cli = Cli::parse_from(always.into_iter().chain(flags.split_whitespace()));
    run(&cli.sfu).await.unwrap()
}

fn names(report: &Report) -> Vec<&str> {
    report.faults.iter().map(|fault| fault.name.as_str()).collect()
}

async fn all_arrive(flags: &str, per_second: u64) {
    let report = load(flags).await;
    assert!(report.published >= per_second, "{report:#?}");
    assert_eq!((report.delivered, report.disordered, report.wrong), (report.expected, 0, 0), "{report:#?}");
    assert!(report.latency_ms.p50 > 0.0 && report.first_media_ms.p50 > 0.0, "{report:#?}");
    assert!(report.series.iter().any(|second| second.streams == second.streams_wanted), "{report:#?}");
}

#[tokio::test]
async fn every_packet_of_video_reaches_every_light_participant() {
    all_arrive("--shape V --subscribers 3 --duration 2 --joins 2", 240).await;
}

#[tokio::test]
async fn every_packet_of_audio_reaches_every_light_participant() {
    all_arrive("--shape A --subscribers 3 --rooms 2 --duration 2 --joins 2", 100).await;
}

#[tokio::test]
async fn every_packet_reaches_everybody_where_everybody_speaks_and_is_seen() {
    all_arrive("--scenario many-rooms --rooms 2 --duration 2", 390).await;
}

#[tokio::test]
async fn every_packet_reaches_everybody_in_a_room_on_two_media_threads() {
    let report = load_spread("--scenario many-rooms --rooms 2 --duration 2", 1).await;
    assert!(report.published >= 390, "{report:#?}");
    assert_eq!((report.delivered, report.disordered, report.wrong), (report.expected, 0, 0), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_on_two_media_threads_see_and_hear_each_other_come_and_go() {
    let report = load_spread("--scenario meeting --participants 4 --camera small --churn 20 --duration 6", 2).await;
    assert!(report.frames.right > 500 && report.frames.wrong == 0, "{report:#?}");
    for fault in ["swapped", "corrupted", "repeated"] {
        assert!(!names(&report).contains(&fault), "{report:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn complete_and_light_participants_are_in_one_room_and_frames_are_right() {
    let report = load("--scenario webinar --participants 5 --full 2 --duration 3").await;
    assert!(report.frames.right > 100 && report.frames.wrong == 0, "{report:#?}");
    assert!(report.delivered > 1_000 && report.frame_delay_ms.count > 0, "{report:#?}");
    assert!(!names(&report).contains(&"swapped"), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encrypted_frames_are_opened_and_keys_change_when_somebody_leaves() {
    let report = load("--scenario encrypted --participants 3 --camera small --churn 20 --duration 6").await;
    assert!(report.frames.right > 500 && report.frames.wrong == 0, "{report:#?}");
    // Who has just joined may see frames before the keys.
    assert!(report.frames.unopened < report.frames.right / 2, "{report:#?}");
    assert!(html::page(&report).contains("end-to-end encrypted"));
}

/// `plant` is put into what arrives; it must come back under its name, and `never` must not.
async fn found(plant: &str, name: &str, never: &[&str]) {
    let flags = "--scenario meeting --participants 3 --camera small --turns 0 --duration 3 --no-faults --plant";
    let report = load(&format!("{flags} {plant}")).await;
    assert!(names(&report).contains(&name), "{plant}: {report:#?}");
    for other in never {
        assert!(!names(&report).contains(other), "{plant}: {report:#?}");
    }
    assert_eq!(report.broken.len(), 1, "{plant}: {report:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_faults_are_called_by_their_names() {
    // One after the other: a machine that is out of breath adds faults of its own.
    found("drop:60", "dropped", &["corrupted", "swapped", "repeated"]).await;
    found("corrupt:60", "corrupted", &["swapped", "repeated"]).await;
    found("reorder:60", "reordered", &["corrupted", "swapped", "repeated"]).await;
    found("delay:60", "delayed", &["corrupted", "swapped", "repeated"]).await;
    found("swap:60", "swapped", &["repeated"]).await;
}
