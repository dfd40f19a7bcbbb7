//! `weir registration`: make weir an application service of a homeserver. Prints what goes where; nothing is changed.

use std::fmt::Write;

use clap::{Args, ValueEnum};
use signalling::matrix::server_name::ServerName;

use super::print;

#[derive(Debug, Args)]
pub(super) struct RegistrationArgs {
    /// Server name: what stands behind the colon in user ids.
    #[arg(long)]
    server_name: String,
    /// Where the homeserver reaches weir's HTTP.
    #[arg(long, default_value = "http://127.0.0.1:7880")]
    url: String,
    /// Where weir reaches the homeserver's client API.
    #[arg(long, default_value = "http://127.0.0.1:8008")]
    homeserver_url: String,
    /// Where clients reach weir, such as wss://rtc.example.org.
    #[arg(long, default_value = "wss://rtc.example.org")]
    public_url: String,
    /// The homeserver: it decides where the registration goes.
    #[arg(long = "for", value_enum, default_value = "synapse")]
    homeserver: Kind,
    /// Id of the registration; several weirs of one homeserver need different ones.
    #[arg(long, default_value = "weir")]
    id: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Synapse,
    Tuwunel,
    Continuwuity,
    Conduit,
    Dendrite,
}

pub(super) fn run(args: &RegistrationArgs) -> Result<(), String> {
    ServerName::parse(&args.server_name).map_err(|e| format!("--server-name: {e}"))?;
    let (as_token, hs_token) = (token()?, token()?);
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "# 1. The registration. {}\n\n{}\n# 2. For weir's configuration\n\n{}\n# 3. {}",
        place(args.homeserver),
        registration(args, &as_token, &hs_token),
        entry(args, &as_token, &hs_token),
        settings(args)
    );
    print(&out);
    Ok(())
}

fn registration(args: &RegistrationArgs, as_token: &str, hs_token: &str) -> String {
    // A dot in a regular expression is any character: the server name is meant literally.
    let server = args.server_name.replace('.', "\\.").replace('[', "\\[").replace(']', "\\]");
    let RegistrationArgs { url, id, .. } = args;
    format!(
        "id: {id}
url: {url}
as_token: {as_token}
hs_token: {hs_token}
sender_localpart: _{id}
rate_limited: false
namespaces:
  users:
    - exclusive: false
      regex: '@.*:{server}'
# Whether a user is joined, and requests the homeserver forwards (MSC4502, MSC4512), where it has them.
io.element.msc4502.scopes: ['urn:matrix:client:io.element.msc4502:rooms:is_joined']
io.element.msc4512.proxy_prefix: rtc/livekit
io.element.msc4512.proxy_url: {url}
"
    )
}

fn entry(args: &RegistrationArgs, as_token: &str, hs_token: &str) -> String {
    let id = if args.id == "weir" { String::new() } else { format!("      id: {}\n", args.id) };
    format!(
        "matrix:
  url: {}
  homeservers:
    - server_name: '{}'
      client_api_url: {}
{id}      as_token: {as_token}
      hs_token: {hs_token}
",
        args.public_url, args.server_name, args.homeserver_url
    )
}

const fn place(kind: Kind) -> &'static str {
    match kind {
        Kind::Synapse => {
            "Save it as weir.yaml beside homeserver.yaml, readable by Synapse alone, name it in\n\
             #    `app_service_config_files: [weir.yaml]`, and restart Synapse: a reload is not enough."
        }
        Kind::Tuwunel | Kind::Continuwuity | Kind::Conduit => {
            "In the admin room send `!admin appservices register` with it in a code block below. No restart."
        }
        Kind::Dendrite => "Save it as weir.yaml, name it in `app_service_api.config_files`, and restart Dendrite.",
    }
}

fn settings(args: &RegistrationArgs) -> String {
    let service = args.public_url.replacen("ws", "http", 1);
    match args.homeserver {
        Kind::Synapse => format!(
            "For homeserver.yaml

experimental_features:
  msc4143_enabled: true          # tells clients where calls are
  msc4354_enabled: true          # sticky events: Matrix 2.0 calls
matrix_rtc:
  transports:
    - type: livekit
      livekit_service_url: {service}
max_event_delay_duration: 24h    # delayed leaves: no ghosts
extra_well_known_client_content: # for clients that do not ask the transports endpoint
  org.matrix.msc4143.rtc_foci:
    - type: livekit
      livekit_service_url: {service}
# One of the listeners weir reaches needs the resource `openid` (or `federation`) beside `client`.
"
        ),
        _ => format!(
            "For the homeserver: delayed events (MSC4140) on, and what it calls the list of RTC transports or foci:
#    {{\"type\": \"livekit\", \"livekit_service_url\": \"{service}\"}}
#    For clients that ask https://{}/.well-known/matrix/client, add:
#    \"org.matrix.msc4143.rtc_foci\": [{{\"type\": \"livekit\", \"livekit_service_url\": \"{service}\"}}]
",
            args.server_name
        ),
    }
}

/// 32 bytes of the system's randomness in hexadecimal.
fn token() -> Result<String, String> {
    let mut random = [0_u8; 32];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| "the system gives no randomness".to_owned())?;
    Ok(random.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}
