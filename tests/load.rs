//! The load generator against a whole node on loopback: its light participants join, and every packet is accounted for.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

use weir::config::{Config, DEV_KEY, DEV_SECRET};
use weir::control::Server;
use weir_loadtest::light::shape::Shape;
use weir_loadtest::sfu::{SfuArgs, run};

async fn all_arrive(shape: Shape, rooms: u32, per_second: u64) {
    let mut config = Config::dev();
    config.port = 0;
    config.rtc.udp_port.first = 0;
    config.rtc.tcp_port = 0;
    config.rtc.media_threads = 2;
    config.rtc.node_ip = "127.0.0.1".to_owned();
    config.prometheus.port = 0;
    let server = Server::start(&config).unwrap();
    let args = SfuArgs {
        url: format!("ws://{}", server.started().http[0]),
        api_key: DEV_KEY.to_owned(),
        api_secret: DEV_SECRET.to_owned(),
        shape,
        subscribers: 3,
        rooms,
        duration: 2,
        room: "load".to_owned(),
        joins: 2,
        server_pid: None,
        json: None,
    };
    let report = run(&args).await.unwrap();
    assert!(report.published >= per_second, "{report:#?}");
    assert_eq!((report.delivered, report.disordered, report.wrong), (report.expected, 0, 0), "{report:#?}");
    assert!(report.latency_ms.p50 > 0.0 && report.first_media_ms.p50 > 0.0, "{report:#?}");
}

#[tokio::test]
async fn every_packet_of_video_reaches_every_light_participant() {
    all_arrive(Shape::Video, 1, 240).await;
}

#[tokio::test]
async fn every_packet_of_audio_reaches_every_light_participant() {
    all_arrive(Shape::Audio, 2, 100).await;
}
