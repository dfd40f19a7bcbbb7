//! Takes what reached the wrong node to the right one: WebSockets whole, other requests with their answers.
//!
//! Clients follow no redirect and come back to the URL they were given, so every node is a door to every room. What is
//! passed on carries a proof that a node did so, which no client can make: it is never passed on again, and who asks was
//! proven before.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};

use super::{Nodes, Peer, Where};
use crate::control::http::{self, App};
use crate::control::listener::{Guest, Held};
use crate::media::clock::unix_now;

/// Proof that a node passed the request on.
pub(in crate::control) const PROOF: HeaderName = HeaderName::from_static("x-weir-passed");
/// How long a proof is good: clocks of nodes may differ by this much.
const PROOF_AGE: u64 = 120;
/// A node that has not taken a connection by then is not there.
const CONNECT: Duration = Duration::from_millis(800);
/// The longest a node may take to answer: it may have to ask a homeserver.
const ANSWER: Duration = Duration::from_secs(20);
/// Nodes that are tried for one request.
const ATTEMPTS: usize = 2;
/// Bytes of an answer that is no WebSocket.
const MAX_ANSWER: usize = 1 << 20;
/// What belongs to one connection and not to the request (RFC 9110, 7.6.1), what the connection to the other node makes
/// anew, and what answers get from this node's own router.
const NOT_PASSED: [&str; 7] =
    ["host", "content-length", "transfer-encoding", "keep-alive", "te", "x-weir-passed", "expect"];

/// What a proof says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::control) struct Passed {
    /// Unix seconds.
    at: u64,
    /// The user whose request it is, where that was proven.
    #[serde(default)]
    pub(in crate::control) user: Option<String>,
}

/// A request as it is passed on.
#[derive(Debug)]
pub(in crate::control) struct Passing<'a> {
    pub(in crate::control) method: Method,
    pub(in crate::control) path: &'a str,
    pub(in crate::control) headers: &'a HeaderMap,
    pub(in crate::control) body: Bytes,
    /// Whose connection it came over.
    pub(in crate::control) peer: Option<IpAddr>,
    /// Whose request it is proven to be.
    pub(in crate::control) user: Option<&'a str>,
}

/// The other node did not answer.
#[derive(Debug)]
pub(in crate::control) struct NoAnswer;

/// The same, in detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control) enum AskError {
    /// It took no connection: it was not asked, and counts as gone for a while.
    Unreachable,
    /// It did not answer. It may have done what it was asked.
    Silent,
}

/// What takes requests to other nodes.
///
/// # Errors
/// In words.
pub(super) fn client() -> Result<reqwest::Client, String> {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        // WebSockets are passed on as they are in HTTP/1.1.
        .http1_only()
        .connect_timeout(CONNECT)
        .build()
        .map_err(|error| error.to_string())
}

impl Nodes {
    /// Whether another node passed this request on, and for whom.
    pub(in crate::control) fn passed(&self, headers: &HeaderMap) -> Option<Passed> {
        let (text, tag) = headers.get(PROOF)?.to_str().ok()?.split_once('.')?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        aws_lc_rs::hmac::verify(&self.0.secret, format!("pass {text}").as_bytes(), &tag).ok()?;
        let passed: Passed = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        (unix_now().as_secs().abs_diff(passed.at) <= PROOF_AGE).then_some(passed)
    }

    pub(super) fn proof(&self, user: Option<&str>) -> String {
        let passed = Passed { at: unix_now().as_secs(), user: user.map(str::to_owned) };
        let text = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&passed).unwrap_or_default());
        let tag = aws_lc_rs::hmac::sign(&self.0.secret, format!("pass {text}").as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    /// Pass a request on and give the other node's answer, as it comes.
    ///
    /// # Errors
    /// When there is none; the node then counts as unreachable.
    pub(in crate::control) async fn pass(&self, to: &Peer, it: &Passing<'_>) -> Result<reqwest::Response, NoAnswer> {
        self.ask(to, it, ANSWER).await.map_err(|error| {
            if error == AskError::Silent {
                self.unreachable(&to.name);
            }
            NoAnswer
        })
    }

    /// The same for what may take its time: a node that cannot be reached counts as such, one that is slow does not.
    ///
    /// # Errors
    /// When there is no answer within `patience`.
    pub(in crate::control) async fn ask(
        &self,
        to: &Peer,
        it: &Passing<'_>,
        patience: Duration,
    ) -> Result<reqwest::Response, AskError> {
        let mut headers = passed_headers(it.headers);
        if let Some(peer) = it.peer.and_then(|peer| HeaderValue::from_str(&peer.to_string()).ok()) {
            headers.append("x-forwarded-for", peer);
        }
        let proof = HeaderValue::from_str(&self.proof(it.user)).map_err(|_| AskError::Silent)?;
        headers.insert(PROOF, proof);
        let request = self.0.client.request(it.method.clone(), format!("{}{}", to.address, it.path));
        let answer = request.headers(headers).body(it.body.clone()).send();
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            result => {
                // Without what it is about: there may be a token in the URL.
                let connect = matches!(&result, Ok(Err(error)) if error.is_connect());
                tracing::warn!(node = to.name, connect, "a request could not be passed on to another node");
                if !connect {
                    return Err(AskError::Silent);
                }
                self.unreachable(&to.name);
                Err(AskError::Unreachable)
            }
        }
    }
}

fn passed_headers(headers: &HeaderMap) -> HeaderMap {
    let pass = |name: &HeaderName| !NOT_PASSED.contains(&name.as_str());
    headers.iter().filter(|(name, _)| pass(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// In front of the routes for joins: who reached the wrong node is taken to the right one.
pub(in crate::control) async fn joins(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if app.nodes.is_alone() || app.nodes.passed(request.headers()).is_some() {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    // Whatever is wrong with it is said by the route itself.
    let Some(room) = http::room_of(&app, parts.uri.query(), &parts.headers) else {
        return next.run(Request::from_parts(parts, body)).await;
    };
    let Some(held) = parts.extensions.get::<Arc<Held>>().cloned() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let wanted = app.nodes.regions().of_client(held.trusted(&parts.headers), Some(held.client(&parts.headers)));
    for _ in 0..ATTEMPTS {
        let peer = match app.nodes.locate(&room, &wanted).await {
            Where::There(peer) => peer,
            Where::Here => return next.run(Request::from_parts(parts, body)).await,
            Where::Nowhere => return http::no_such_room(),
        };
        let is_upgrade = parts.headers.contains_key(header::UPGRADE);
        let guest = match http::admit(held.clone(), &parts.headers, is_upgrade) {
            Ok(guest) => guest,
            Err(refused) => return refused.into_response(),
        };
        let path = parts.uri.path_and_query().map_or("/", |it| it.as_str());
        let passing = Passing {
            method: parts.method.clone(),
            path,
            headers: &parts.headers,
            body: Bytes::new(),
            peer: Some(held.peer()),
            user: None,
        };
        if let Ok(answer) = app.nodes.pass(&peer, &passing).await {
            app.metrics.passed.with_label_values(&["join"]).inc();
            if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                return relayed(answer).await;
            }
            let upgrade = hyper::upgrade::on(Request::from_parts(
                std::mem::replace(&mut parts, Request::new(()).into_parts().0),
                body,
            ));
            return splice(upgrade, answer, guest);
        }
    }
    app.metrics.passed.with_label_values(&["no_answer"]).inc();
    (StatusCode::SERVICE_UNAVAILABLE, "the node of this room does not answer").into_response()
}

/// An answer of another node as this node's own.
pub(in crate::control) async fn relayed(answer: reqwest::Response) -> Response {
    relayed_up_to(answer, MAX_ANSWER).await
}

/// The same with a bound of one's own, bytes.
pub(in crate::control) async fn relayed_up_to(answer: reqwest::Response, max: usize) -> Response {
    let status = answer.status();
    let kind = answer.headers().get(header::CONTENT_TYPE).cloned();
    let mut body = Vec::new();
    let mut answer = answer;
    loop {
        match answer.chunk().await {
            Ok(Some(part)) if body.len() + part.len() <= max => body.extend_from_slice(&part),
            Ok(None) => break,
            // Too long, or cut off: half an answer is none.
            _ => return StatusCode::BAD_GATEWAY.into_response(),
        }
    }
    let mut response = (status, Body::from(body)).into_response();
    if let Some(kind) = kind {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    response
}

/// The same where it is JSON; `None`: it is none, or too large.
pub(in crate::control) async fn relayed_json(answer: reqwest::Response) -> Option<(u16, serde_json::Value)> {
    let response = relayed(answer).await;
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), MAX_ANSWER).await.ok()?;
    Some((status, serde_json::from_slice(&body).ok()?))
}

/// Both ends of a WebSocket, tied together until one of them ends.
fn splice(client: hyper::upgrade::OnUpgrade, answer: reqwest::Response, guest: Guest) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in answer.headers() {
        let of_upgrade = name == header::CONNECTION || name == header::UPGRADE;
        if of_upgrade || name.as_str().starts_with("sec-websocket-") {
            response.headers_mut().append(name.clone(), value.clone());
        }
    }
    tokio::spawn(async move {
        // Its address counts as connected for as long.
        let _guest = guest;
        let (Ok(client), Ok(mut node)) = tokio::join!(client, answer.upgrade()) else { return };
        // Ends with either end; what is wrong with it is the ends' to notice.
        let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut node).await;
    });
    response
}
