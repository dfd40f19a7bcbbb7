//! Routes of MatrixRTC: token endpoints of every generation, what homeservers call, discovery documents.
//!
//! Status codes are what clients in the field act on: see each route. CORS is the router's; bodies are limited here.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, OriginalUri, RawQuery, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post, put};
use serde_json::{Value, json};
use signalling::matrix::event::{Event, Fact};
use signalling::matrix::request::{self, ApiError, Endpoint, TokenRequest};
use signalling::matrix::server_name::server_of_user;
use tokio::time::Instant;

use super::super::listener::Held;
use super::calls::HomeId;
use super::{Asked, Matrix};

/// Bytes of a request body.
const MAX_BODY: usize = 64 << 10;
/// Bytes of a transaction: a hundred events of 64 KiB, and some air.
const MAX_TRANSACTION: usize = 10 << 20;
/// Header in which a homeserver names the user on whose behalf it forwards (MSC4512).
const USER_HEADER: &str = "x-matrix-user-identifier";
/// The same for another homeserver.
const ORIGIN_HEADER: &str = "x-matrix-origin";

/// All routes.
pub(in crate::control) fn router(matrix: Matrix) -> Router {
    let mut router = Router::new()
        .route("/sfu/get", post(async |matrix, asked| token(matrix, Endpoint::SfuGet, asked).await))
        .route("/get_token", post(async |matrix, asked| token(matrix, Endpoint::GetToken, asked).await))
        .route("/delegate_delayed_leave", post(delegate))
        // What follows is asked by homeservers, or costs nothing.
        .route_layer(middleware::from_fn(at_a_rate))
        .route("/.well-known/matrix/client", get(well_known))
        .route("/_matrix/app/v1/ping", post(ping))
        .route("/_matrix/app/v1/users/{id}", get(unknown))
        .route("/_matrix/app/v1/rooms/{alias}", get(unknown));
    for version in ["unstable/io.element.msc4195", "v1"] {
        let [client, federation] = ["client", "federation"].map(|api| format!("/_matrix/{api}/{version}/rtc/livekit"));
        router = router
            .route(&format!("{client}/get_token"), post(mediated_token))
            .route(&format!("{client}/delegate_delayed_leave"), post(mediated_delegate))
            .route(&format!("{federation}/get_token"), post(federated_token));
    }
    for path in ["/_matrix/client/v1/rtc/transports", "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports"] {
        router = router.route(path, get(transports));
    }
    let transactions = Router::new()
        .route("/_matrix/app/v1/transactions/{txn}", put(transaction))
        .layer(DefaultBodyLimit::max(MAX_TRANSACTION));
    router
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .merge(transactions)
        .route("/_matrix/{*rest}", any(unknown))
        .with_state(matrix)
}

/// An address asks for so many tokens, and no more.
async fn at_a_rate(request: Request, next: Next) -> Response {
    let held = request.extensions().get::<Arc<Held>>();
    // A crowded address is told so where it joins; here it has no tokens left either.
    let guest = held.map(|held| held.clone().guest(request.headers()));
    let may_ask = match &guest {
        None => true,
        Some(Err(_)) => false,
        Some(Ok(guest)) => guest.visit().is_none_or(|visit| visit.may_ask(Instant::now())),
    };
    // Preflights ask for nothing.
    if request.method() == Method::POST && !may_ask {
        let text = "Too many requests from this address.";
        return Failure(ApiError { status: 429, errcode: "M_LIMIT_EXCEEDED", text }).into_response();
    }
    next.run(request).await
}

impl<S: Send + Sync> FromRequest<S> for Asked {
    type Rejection = BytesRejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let path = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
        let headers = request.headers().clone();
        let held = request.extensions().get::<Arc<Held>>().cloned();
        Ok(Self { path, headers, held, body: Bytes::from_request(request, state).await? })
    }
}

/// An error as JSON.
struct Failure(ApiError);

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        answer(status, &self.0.body())
    }
}

fn answer(status: StatusCode, json: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], json.to_string()).into_response()
}

type Answered = Result<Response, Failure>;

async fn token(State(matrix): State<Matrix>, endpoint: Endpoint, asked: Asked) -> Answered {
    let request = request::token_request(endpoint, &asked.body)?;
    let user = matrix.prove(&request, &asked).await.map_err(|error| matrix.count_unproven(&request, error))?;
    Ok(answer(StatusCode::OK, &matrix.token(&request, &user, &asked).await?))
}

/// A probe with an empty body gets 400: anything but 404 tells clients that weir looks after their leaves.
async fn delegate(State(matrix): State<Matrix>, asked: Asked) -> Answered {
    let request = request::delegation_request(false, &asked.body)?;
    let user = matrix.prove(&request, &asked).await?;
    matrix.token(&request, &user, &asked).await?;
    Ok(answer(StatusCode::OK, &json!({})))
}

/// A client asks through its homeserver. For an SFU of another server, that server's is asked in turn.
async fn mediated_token(State(matrix): State<Matrix>, headers: HeaderMap, asked: Asked) -> Answered {
    let (home, user) = mediated_user(&matrix, &headers)?;
    let request = request::token_request(Endpoint::Mediated, &asked.body)?;
    if let Some(server) = request.server_name.as_deref().filter(|name| matrix.home_of_server(name).is_none()) {
        if request.claimed_user.as_deref().is_some_and(|claimed| claimed != user) {
            return Err(ApiError::UNAUTHORIZED.into());
        }
        return Ok(answer(StatusCode::OK, &matrix.token_from(home, server, &request, &user).await?));
    }
    check_mediated(&matrix, &request, &user)?;
    Ok(answer(StatusCode::OK, &matrix.token(&request, &user, &asked).await?))
}

async fn mediated_delegate(State(matrix): State<Matrix>, headers: HeaderMap, asked: Asked) -> Answered {
    let (_, user) = mediated_user(&matrix, &headers)?;
    let request = request::delegation_request(true, &asked.body)?;
    check_mediated(&matrix, &request, &user)?;
    matrix.token(&request, &user, &asked).await?;
    Ok(answer(StatusCode::OK, &json!({})))
}

/// Another homeserver asks for one of its users.
async fn federated_token(State(matrix): State<Matrix>, headers: HeaderMap, asked: Asked) -> Answered {
    homeserver(&matrix, &headers)?;
    let origin = header_text(&headers, ORIGIN_HEADER).ok_or(ApiError::UNAUTHORIZED)?;
    let request = request::token_request(Endpoint::Mediated, &asked.body)?;
    let user = request.user_id.clone().ok_or(ApiError::UNAUTHORIZED)?;
    if server_of_user(&user) != Some(origin) {
        return Err(ApiError::forbidden("A homeserver speaks for its own users only.").into());
    }
    check_mediated(&matrix, &request, &user)?;
    Ok(answer(StatusCode::OK, &matrix.token(&request, &user, &asked).await?))
}

fn check_mediated(matrix: &Matrix, request: &TokenRequest, user: &str) -> Result<(), ApiError> {
    if request.claimed_user.as_deref().is_some_and(|claimed| claimed != user) {
        return Err(ApiError::UNAUTHORIZED);
    }
    let same = |url: &str| url.trim_end_matches('/') == matrix.url().trim_end_matches('/');
    if request.url.as_deref().is_some_and(|url| !same(url)) {
        let text = "This is not the URL of the SFU here.";
        return Err(ApiError { status: 400, errcode: "M_INVALID_PARAM", text });
    }
    Ok(())
}

/// The homeserver that shows its token, and the user it forwards for.
fn mediated_user(matrix: &Matrix, headers: &HeaderMap) -> Result<(HomeId, String), ApiError> {
    let home = homeserver(matrix, headers)?;
    let user = header_text(headers, USER_HEADER).ok_or(ApiError::UNAUTHORIZED)?;
    // A homeserver speaks for its own users only.
    if matrix.server_name(home) != server_of_user(user) {
        return Err(ApiError::UNAUTHORIZED);
    }
    Ok((home, user.to_owned()))
}

fn homeserver(matrix: &Matrix, headers: &HeaderMap) -> Result<HomeId, ApiError> {
    let shown = header_text(headers, "authorization").and_then(|text| text.split_once(' ')).map(|(_, token)| token);
    let missing = ApiError { status: 401, errcode: "M_MISSING_TOKEN", text: "A homeserver's token is needed." };
    let wrong = ApiError { status: 403, errcode: "M_FORBIDDEN", text: "This is not a homeserver's token." };
    matrix.home_of_token(shown.ok_or(missing)?.trim()).ok_or(wrong)
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Events from a homeserver. Answered when they are queued, before anything is done about them; a queue that is full is
/// an error, and the homeserver comes again. The transaction id says nothing: homeservers use one twice.
async fn transaction(
    State(matrix): State<Matrix>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Answered {
    let home = match homeserver(&matrix, &headers) {
        Ok(home) => home,
        // How homeservers showed it before version 1.4 of the specification.
        Err(error) => {
            let query = url::form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes());
            let shown = query.into_iter().find(|(key, _)| key == "access_token").map(|(_, token)| token);
            shown.and_then(|token| matrix.home_of_token(&token)).ok_or(error)?
        }
    };
    let json: Value = serde_json::from_slice(&body).map_err(|_| ApiError::NOT_JSON)?;
    let events = json.get("events").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let events: Vec<Event> =
        events.iter().filter_map(Event::from_json).filter(|event| event.fact != Fact::Other).collect();
    // A homeserver pushes to one node; rooms are on all of them. It comes again until all have it.
    let path = uri.path_and_query().map_or("", |it| it.as_str());
    let told = if events.is_empty() { true } else { matrix.tell_others(path, &headers, &body).await };
    if !matrix.push(home, events).await || !told {
        return Err(super::admission::unavailable().into());
    }
    Ok(answer(StatusCode::OK, &json!({})))
}

async fn ping(State(matrix): State<Matrix>, headers: HeaderMap) -> Answered {
    homeserver(&matrix, &headers)?;
    Ok(answer(StatusCode::OK, &json!({})))
}

async fn unknown() -> Response {
    answer(StatusCode::NOT_FOUND, &json!({ "errcode": "M_NOT_FOUND", "error": "There is nothing here." }))
}

/// Ready-made for the server name's own site: what it has to serve besides what it has.
async fn well_known(State(matrix): State<Matrix>) -> Response {
    let service = matrix.service_url();
    let json = json!({ "org.matrix.msc4143.rtc_foci": [{ "type": "livekit", "livekit_service_url": service }] });
    answer(StatusCode::OK, &json)
}

async fn transports(State(matrix): State<Matrix>) -> Response {
    let service = matrix.service_url();
    answer(StatusCode::OK, &json!({ "rtc_transports": [{ "type": "livekit", "livekit_service_url": service }] }))
}
