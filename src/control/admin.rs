//! The operator's own listener: metrics, a picture of all rooms, and whether weir is well. Never on the public one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use signalling::room::api::{AdminAnswer, AdminRequest};

use super::audit::Record;
use super::health::Health;
use super::http::App;
use super::{bridge, debug};
use crate::base::RoomId;
use crate::shard::debug::ShardState;

/// How long one room or media thread may take to draw itself.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// The routes.
pub(super) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/debug/rooms", get(rooms))
        .route("/debug/why", get(why))
        .route("/drain", post(drain))
        .with_state(app.clone())
        .merge(super::status::router(app.clone()))
        .merge(metrics_router(app))
}

/// What monitoring needs, without who is in which call.
pub(super) fn metrics_router(app: Arc<App>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "OK"))
        .route("/readyz", get(ready))
        .with_state(app)
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let page = app.metrics.page(Health::of(&app).await.not_ready.is_empty());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    Health::of(&app).await.answer().into_response()
}

/// The same as SIGTERM. Not for pages in a browser that happens to reach this listener: those say where they are from.
async fn drain(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    if headers.contains_key(header::ORIGIN) {
        return (StatusCode::FORBIDDEN, "not from a web page\n").into_response();
    }
    app.audit.record(&Record { at: "admin", rule: "drain", why: "the node was told to end", ..Record::default() });
    app.end.notify_one();
    (StatusCode::ACCEPTED, "draining\n").into_response()
}

/// What was decided about a person lately: `?user=@somebody:example.org`.
async fn why(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let user = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "user").map(|(_, value)| value);
    let lines = match (&app.matrix, user) {
        (Some(matrix), Some(user)) => {
            let why = "it was asked what was decided about somebody";
            app.audit.record(&Record { at: "admin", who: &user, rule: "why", why, ..Record::default() });
            matrix.why(&user).await
        }
        _ => Vec::new(),
    };
    let text: String = lines.into_iter().map(|line| line + "\n").collect();
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

/// Every room as its machine and its media thread draw it: without secrets, names and addresses.
async fn rooms(State(app): State<Arc<App>>) -> Response {
    let mut media = media(&app).await;
    let mut drawn = Vec::new();
    for room in app.registry.all().await {
        if let Ok(Some(Ok(AdminAnswer::Debug(mut picture)))) =
            tokio::time::timeout(PATIENCE, room.admin(AdminRequest::Debug)).await
        {
            if let Some(picture) = picture.as_object_mut() {
                let of_media = media.remove(&bridge::room_id(room.number)).unwrap_or_default();
                picture.insert("media".to_owned(), of_media);
            }
            drawn.push(picture);
        }
    }
    ([(header::CONTENT_TYPE, "application/json")], serde_json::Value::Array(drawn).to_string()).into_response()
}

/// What the media threads have of each room. Of a thread that does not answer, nothing.
async fn media(app: &App) -> BTreeMap<RoomId, serde_json::Value> {
    let pictures: Vec<_> = app.mailboxes.iter().map(crate::mailbox::Mailbox::inspect).collect();
    let mut all = ShardState::default();
    for picture in pictures {
        if let Ok(Ok(shard)) = tokio::time::timeout(PATIENCE, picture).await {
            all.merge(shard);
        }
    }
    all.rooms.iter().map(|room| (room.id, debug::room(room))).collect()
}
