//! `weir token`: an access token for a person, a program or a test.

use clap::Args;
use signalling::token::{Claims, VideoGrant};

use super::{Source, print};
use crate::config::{Keys, Span};
use crate::control::auth::mint_claims;

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    #[command(flatten)]
    source: Source,
    /// API key to sign with.
    #[arg(long, requires = "api_secret")]
    api_key: Option<String>,
    /// Its secret.
    #[arg(long, requires = "api_key", env = "WEIR_API_SECRET", hide_env_values = true)]
    api_secret: Option<String>,
    /// Who the bearer is.
    #[arg(long)]
    identity: String,
    /// The room it may join.
    #[arg(long, default_value = "")]
    room: String,
    /// Name others see.
    #[arg(long, default_value = "")]
    name: String,
    /// Metadata others see.
    #[arg(long, default_value = "")]
    metadata: String,
    /// Attribute others see, as key=value; may be given several times.
    #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = attribute)]
    attributes: Vec<(String, String)>,
    /// How long it is good, such as 30m or 6h.
    #[arg(long, default_value = "6h")]
    lifetime: Span,
    /// May make the room by joining it.
    #[arg(long)]
    create: bool,
    /// May use the server API for this room.
    #[arg(long)]
    admin: bool,
    /// May list rooms.
    #[arg(long)]
    list: bool,
    /// May not publish.
    #[arg(long)]
    no_publish: bool,
    /// May not subscribe.
    #[arg(long)]
    no_subscribe: bool,
    /// May not send data.
    #[arg(long)]
    no_publish_data: bool,
    /// May publish only from these: camera, microphone, screen_share, screen_share_audio.
    #[arg(long = "publish-source", value_name = "SOURCE",
          value_parser = ["camera", "microphone", "screen_share", "screen_share_audio"])]
    publish_sources: Vec<String>,
    /// May change its own name, metadata and attributes.
    #[arg(long)]
    update_own_metadata: bool,
    /// Is seen by nobody.
    #[arg(long)]
    hidden: bool,
    /// Is a recorder.
    #[arg(long)]
    recorder: bool,
}

fn attribute(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(super) fn run(args: &TokenArgs) -> Result<(), String> {
    let keys = match (&args.api_key, &args.api_secret) {
        (Some(key), Some(secret)) => Keys::single(key.clone(), secret.clone()),
        _ => args.source.read().map_err(|e| e.to_string())?.keys,
    };
    if keys.is_empty() {
        return Err("no API key to sign with: give --dev, --config FILE, or --api-key and --api-secret".to_owned());
    }
    if args.lifetime.0.is_zero() {
        return Err("--lifetime: a token that is never good is of no use".to_owned());
    }
    let no = |denied: bool| denied.then_some(false);
    let video = VideoGrant {
        room_join: !args.room.is_empty(),
        room: args.room.clone(),
        room_create: args.create,
        room_admin: args.admin,
        room_list: args.list,
        can_publish: no(args.no_publish),
        can_subscribe: no(args.no_subscribe),
        can_publish_data: no(args.no_publish_data),
        can_publish_sources: args.publish_sources.clone(),
        can_update_own_metadata: args.update_own_metadata.then_some(true),
        hidden: args.hidden,
        recorder: args.recorder,
        ..VideoGrant::default()
    };
    let claims = Claims {
        sub: args.identity.clone(),
        name: args.name.clone(),
        metadata: args.metadata.clone(),
        attributes: args.attributes.iter().cloned().collect(),
        video: Some(video),
        ..Claims::default()
    };
    let token = mint_claims(&keys, claims, args.lifetime.0).map_err(|e| e.to_string())?;
    print(&format!("{token}\n"));
    Ok(())
}
