//! The operator's own listener: metrics, a picture of all rooms, and whether weir is well. Never on the public one.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use signalling::room::api::{AdminAnswer, AdminRequest};

use super::http::App;

/// How long one room may take to draw itself.
const PATIENCE: Duration = Duration::from_secs(1);

/// The routes.
pub(super) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/debug/rooms", get(rooms))
        .route("/debug/why", get(why))
        .route("/healthz", get(async || "OK"))
        .with_state(app)
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.page()).into_response()
}

/// What was decided about a person lately: `?user=@somebody:example.org`.
async fn why(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let user = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "user").map(|(_, value)| value);
    let lines = match (&app.matrix, user) {
        (Some(matrix), Some(user)) => matrix.why(&user).await,
        _ => Vec::new(),
    };
    let text: String = lines.into_iter().map(|line| line + "\n").collect();
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

/// Every room as its machine draws itself: without secrets and addresses.
async fn rooms(State(app): State<Arc<App>>) -> Response {
    let mut drawn = Vec::new();
    for room in app.registry.all().await {
        if let Ok(Some(Ok(AdminAnswer::Debug(picture)))) =
            tokio::time::timeout(PATIENCE, room.admin(AdminRequest::Debug)).await
        {
            drawn.push(picture);
        }
    }
    ([(header::CONTENT_TYPE, "application/json")], serde_json::Value::Array(drawn).to_string()).into_response()
}
