//! The status page: what goes on on this node now and in the last hour, for people, and the same as JSON for programs.
//!
//! Rooms and participants appear by number only. Everything the page needs comes from this process.

mod page;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use signalling::room::api::{AdminAnswer, AdminRequest};

use super::admin::PATIENCE;
use super::health::Health;
use super::http::App;
use super::{bridge, debug};
use crate::base::Bitrate;
use crate::media::clock::unix_now;
use crate::shard::debug::{RoomState, ShardState};

/// Rooms the page lists, the largest first.
const LISTED: usize = 200;
/// Nothing but what this listener serves: no script, style or picture of others, no frame around it.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Its routes.
pub(super) fn router(app: Arc<App>) -> Router {
    let style = async || ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("status/page.css"));
    let script = async || ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("status/page.js"));
    Router::new()
        .route("/", get(overview))
        .route("/rooms/{number}", get(room))
        .route("/status.json", get(json_overview))
        .route("/rooms/{number}/status.json", get(json_room))
        .route("/status.css", get(style))
        .route("/status.js", get(script))
        .with_state(app)
}

/// A room in the list.
#[derive(Clone, Debug, Default)]
struct Line {
    number: u64,
    participants: usize,
    tracks: usize,
    downtracks: usize,
    received: u64,
    sent: u64,
    /// Of the worst participant, 0 to 100.
    quality: Option<u8>,
    /// Largest share lost on any way, 1/256.
    lost: u8,
}

impl Line {
    fn of(room: &RoomState) -> Self {
        let mut line = Self { number: bridge::room_number(room.id), ..Self::default() };
        for participant in &room.participants {
            line.participants += 1;
            line.tracks += participant.tracks.len();
            line.downtracks += participant.downtracks.len();
            line.sent += participant.transports.iter().map(|transport| transport.sending.as_bps()).sum::<u64>();
            let encodings = participant.tracks.iter().flat_map(|track| &track.encodings).filter(|e| e.active);
            line.received += encodings.map(|encoding| encoding.bitrate.as_bps()).sum::<u64>();
            line.quality = [line.quality, participant.quality].into_iter().flatten().min();
            let up = participant.tracks.iter().flat_map(|track| &track.encodings).map(|e| e.fraction_lost);
            let down = participant.downtracks.iter().map(|downtrack| downtrack.fraction_lost);
            line.lost = up.chain(down).max().unwrap_or(0).max(line.lost);
        }
        line
    }

    fn json(&self) -> Value {
        json!({
            "room": self.number,
            "participants": self.participants,
            "tracks": self.tracks,
            "downtracks": self.downtracks,
            "received_bps": self.received,
            "sent_bps": self.sent,
            "worst_quality": self.quality,
            "worst_loss_percent": debug::percent(self.lost),
        })
    }
}

/// All there is to say about the node.
struct Overview {
    health: Health,
    warnings: Vec<String>,
    figure: super::load::Figure,
    history: Vec<super::load::Point>,
    rooms: Vec<Line>,
    connections: i64,
}

impl Overview {
    async fn of(app: &App) -> Self {
        let load = &app.metrics.load;
        let mut rooms: Vec<Line> = states(app).await.iter().map(Line::of).collect();
        rooms.sort_by_key(|line| (std::cmp::Reverse(line.participants), line.number));
        let health = Health::of(app).await;
        let figure = load.figure();
        let mut warnings = health.not_ready.clone();
        warnings.extend(health.notes.iter().cloned());
        if figure.load >= 0.8 {
            warnings.push(format!("load is {:.0} %: little head-room is left", figure.load * 100.0));
        }
        for name in app.metrics.homeservers_down() {
            warnings.push(format!("homeserver {name} does not answer: calls go on, joins wait"));
        }
        let (deaths, panics) = app.metrics.faults();
        if deaths + panics > 0 {
            warnings.push(format!(
                "since weir started, {deaths} media threads lost their rooms and {panics} rooms ended by a fault of weir: \
                 please report it"
            ));
        }
        let connections = app.metrics.connections.get();
        Self { health, warnings, figure, history: load.history(unix_now().as_secs()), rooms, connections }
    }

    fn json(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "ready": self.health.not_ready.is_empty(),
            "warnings": self.warnings,
            "load": self.figure.json(),
            "connections": self.connections,
            "rooms": self.rooms.iter().map(Line::json).collect::<Vec<_>>(),
            "history": self.history.iter().map(super::load::Point::json).collect::<Vec<_>>(),
        })
    }
}

/// Every room of every media thread that answers.
async fn states(app: &App) -> Vec<RoomState> {
    let pictures: Vec<_> = app.mailboxes.iter().map(crate::mailbox::Mailbox::inspect).collect();
    let mut all = ShardState::default();
    for picture in pictures {
        if let Ok(Ok(shard)) = tokio::time::timeout(PATIENCE, picture).await {
            all.merge(shard);
        }
    }
    all.rooms
}

/// One room: as media has it, and as signalling has it.
async fn detail(app: &App, number: u64) -> Option<(RoomState, Value)> {
    let state = states(app).await.into_iter().find(|room| bridge::room_number(room.id) == number)?;
    let handle = app.registry.all().await.into_iter().find(|room| room.number == number)?;
    let picture = tokio::time::timeout(PATIENCE, handle.admin(AdminRequest::Debug)).await;
    let Ok(Some(Ok(AdminAnswer::Debug(picture)))) = picture else { return None };
    Some((state, picture))
}

async fn overview(State(app): State<Arc<App>>) -> Response {
    html(StatusCode::OK, page::overview(&Overview::of(&app).await, LISTED))
}

async fn json_overview(State(app): State<Arc<App>>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], Overview::of(&app).await.json().to_string()).into_response()
}

async fn room(State(app): State<Arc<App>>, Path(number): Path<u64>) -> Response {
    match detail(&app, number).await {
        Some((state, picture)) => html(StatusCode::OK, page::room(number, &Line::of(&state), &state, &picture)),
        None => html(StatusCode::NOT_FOUND, page::gone(number)),
    }
}

async fn json_room(State(app): State<Arc<App>>, Path(number): Path<u64>) -> Response {
    let Some((state, picture)) = detail(&app, number).await else { return StatusCode::NOT_FOUND.into_response() };
    let body = json!({ "summary": Line::of(&state).json(), "signalling": picture, "media": debug::room(&state) });
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn html(status: StatusCode, text: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (status, headers, text).into_response()
}

/// Bits per second as people say them.
fn bitrate(bps: u64) -> String {
    match bps {
        0..1_000 => format!("{bps} b/s"),
        1_000..1_000_000 => format!("{} kb/s", (bps + 500) / 1_000),
        1_000_000..1_000_000_000 => format!("{}.{} Mb/s", bps / 1_000_000, bps % 1_000_000 / 100_000),
        _ => format!("{}.{} Gb/s", bps / 1_000_000_000, bps % 1_000_000_000 / 100_000_000),
    }
}

/// The same where it may be unknown.
fn known(rate: Bitrate) -> String {
    if rate == Bitrate::MAX { "not known".to_owned() } else { bitrate(rate.as_bps()) }
}
