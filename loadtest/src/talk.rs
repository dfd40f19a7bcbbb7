//! `weir-loadtest talk`: complete participants that join, publish, and say every second what they receive.

use std::time::Duration;

use clap::Args;
use weir_loadtest::{Client, Generation, Options, Video, token};

/// Join a room as one or several synthetic participants.
#[derive(Debug, Args)]
pub(crate) struct TalkArgs {
    /// Base address of the server.
    #[arg(long, default_value = "ws://127.0.0.1:7880")]
    url: String,
    /// API key.
    #[arg(long, default_value = "devkey")]
    key: String,
    /// API secret.
    #[arg(long, default_value = "secret")]
    secret: String,
    /// Room to join.
    #[arg(long, default_value = "load")]
    room: String,
    /// How many participants.
    #[arg(long, default_value_t = 2)]
    participants: usize,
    /// Publish simulcast rather than one small encoding.
    #[arg(long)]
    simulcast: bool,
    /// Use the signalling of two peer connections.
    #[arg(long)]
    v0: bool,
    /// For how long, in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

/// Run it.
pub(crate) async fn run(arguments: TalkArgs) -> anyhow::Result<()> {
    let generation = if arguments.v0 { Generation::V0 } else { Generation::V1 };
    let mut clients = Vec::new();
    for number in 0..arguments.participants {
        let identity = format!("load-{number}");
        let token = token::join_token(&arguments.key, &arguments.secret, &identity, &arguments.room)?;
        let client = Client::connect(&arguments.url, &token, Options { generation, ..Default::default() }).await?;
        client.publish_audio("mic").await?;
        let video = if arguments.simulcast { Video::simulcast("cam") } else { Video::small("cam") };
        client.publish_video(video).await?;
        clients.push(client);
    }
    for second in 1..=arguments.seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut line = (0, 0, 0, 0);
        for client in &clients {
            let snapshot = client.snapshot().await?;
            for received in snapshot.received.values() {
                line.0 += 1;
                line.1 += received.frames;
                line.2 += received.wrong;
                line.3 += received.incomplete;
            }
        }
        println!("{second:>4} s: {} tracks, {} frames right, {} wrong, {} incomplete", line.0, line.1, line.2, line.3);
    }
    for client in clients {
        client.leave().await?;
    }
    Ok(())
}
