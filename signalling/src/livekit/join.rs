//! What a client asks when it joins: v0 query parameters, or v1's `join_request`.
//!
//! Everything here comes before the WebSocket exists, so whatever is wrong becomes an HTTP status.

use std::collections::BTreeMap;
use std::io::Read;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use livekit_protocol as proto;
use livekit_protocol::client_info::{Capability, Sdk};
use livekit_protocol::wrapped_join_request::Compression;
use prost::Message;

use crate::room::api::{Generation, Grants, JoinRequest};

/// What a join may be at most, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinLimits {
    /// The `join_request` parameter as written.
    pub encoded: usize,
    /// The request after base64 and gzip.
    pub decoded: usize,
    /// Metadata.
    pub metadata: usize,
    /// Attributes, keys and values together.
    pub attributes: usize,
}

impl Default for JoinLimits {
    fn default() -> Self {
        Self { encoded: 1 << 20, decoded: 1 << 20, metadata: 64 << 10, attributes: 64 << 10 }
    }
}

/// Why a join was refused. The text is safe to show to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// `/rtc/v1` without `join_request`.
    #[error("join_request is missing")]
    Missing,
    /// Not base64, gzip, protobuf or JSON where it should be.
    #[error("join request cannot be decoded: {0}")]
    Malformed(&'static str),
    /// Over a limit.
    #[error("join request is too large: {0}")]
    TooLarge(&'static str),
    /// Metadata or attributes without the grant to set them.
    #[error("token does not allow setting metadata or attributes")]
    NotAllowed,
}

impl JoinError {
    /// 401 for what the token does not allow, else 400.
    pub const fn status(self) -> u16 {
        match self {
            Self::NotAllowed => 401,
            _ => 400,
        }
    }
}

/// Longest text of a client's description of itself (version, browser, …), bytes; the rest is cut off.
const MAX_CLIENT_TEXT: usize = 256;
/// Most capabilities a client may name.
const MAX_CAPABILITIES: usize = 32;

/// Reads a join from the decoded query parameters of the upgrade request. `endpoint` is the one that was called; `/rtc`
/// with a `join_request` counts as v1.
///
/// # Errors
/// See [`JoinError`].
pub fn join_request<'q>(
    endpoint: Generation,
    query: impl IntoIterator<Item = (&'q str, &'q str)>,
    grants: Grants,
    limits: &JoinLimits,
) -> Result<JoinRequest, JoinError> {
    let mut asked = Query::default();
    for (name, value) in query {
        asked.read(name, value, limits)?;
    }
    let mut request = match asked.join_request {
        Some(encoded) => from_v1(decode_v1(encoded, limits)?, grants),
        None if endpoint == Generation::V1 => return Err(JoinError::Missing),
        None => asked.into_v0(grants),
    };
    request.attributes.retain(|_, value| !value.is_empty());
    check(&request, limits)?;
    tidy(&mut request.client);
    Ok(request)
}

/// Metadata and attributes need the grant, and have a size.
fn check(request: &JoinRequest, limits: &JoinLimits) -> Result<(), JoinError> {
    let sets_something = !request.metadata.is_empty() || !request.attributes.is_empty();
    if sets_something && !request.grants.can_update_own_metadata {
        return Err(JoinError::NotAllowed);
    }
    if request.metadata.len() > limits.metadata {
        return Err(JoinError::TooLarge("metadata"));
    }
    let attributes: usize = request.attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
    if attributes > limits.attributes {
        return Err(JoinError::TooLarge("attributes"));
    }
    Ok(())
}

/// Bounds what is kept and shown of a client.
fn tidy(client: &mut proto::ClientInfo) {
    let texts = [
        &mut client.version,
        &mut client.os,
        &mut client.os_version,
        &mut client.device_model,
        &mut client.browser,
        &mut client.browser_version,
        &mut client.network,
        &mut client.other_sdks,
    ];
    for text in texts {
        text.truncate(text.floor_char_boundary(MAX_CLIENT_TEXT));
    }
    client.capabilities.truncate(MAX_CAPABILITIES);
    // The server knows the address; what a client claims about it is worth nothing.
    client.address.clear();
}

/// v0 parameters as they come.
#[derive(Debug)]
struct Query<'q> {
    join_request: Option<&'q str>,
    client: proto::ClientInfo,
    auto_subscribe: bool,
    auto_subscribe_data_track: bool,
    adaptive_stream: bool,
    subscriber_allow_pause: Option<bool>,
    reconnect: bool,
    reconnect_reason: i32,
    participant_sid: &'q str,
    attributes: BTreeMap<String, String>,
}

impl Default for Query<'_> {
    fn default() -> Self {
        Self {
            join_request: None,
            client: proto::ClientInfo::default(),
            auto_subscribe: true,
            auto_subscribe_data_track: true,
            adaptive_stream: false,
            subscriber_allow_pause: None,
            reconnect: false,
            reconnect_reason: 0,
            participant_sid: "",
            attributes: BTreeMap::new(),
        }
    }
}

impl<'q> Query<'q> {
    fn read(&mut self, name: &str, value: &'q str, limits: &JoinLimits) -> Result<(), JoinError> {
        let flag = || matches!(value, "1" | "true");
        // Numbers of the wrong form count as not given, as in the server these clients know.
        let number = || value.parse().unwrap_or_default();
        match name {
            "join_request" if !value.is_empty() => self.join_request = Some(value),
            "auto_subscribe" => self.auto_subscribe = flag(),
            "auto_subscribe_data_track" => self.auto_subscribe_data_track = flag(),
            "adaptive_stream" => self.adaptive_stream = flag(),
            "subscriber_allow_pause" => self.subscriber_allow_pause = Some(flag()),
            "reconnect" => self.reconnect = flag(),
            "reconnect_reason" => self.reconnect_reason = number(),
            "sid" => self.participant_sid = value,
            "attributes" if !value.is_empty() => self.attributes = attributes(value, limits)?,
            "sdk" => self.client.sdk = sdk(value).into(),
            "version" => self.client.version = value.to_owned(),
            "protocol" => self.client.protocol = number(),
            "client_protocol" => self.client.client_protocol = number(),
            "os" => self.client.os = value.to_owned(),
            "os_version" => self.client.os_version = value.to_owned(),
            "browser" => self.client.browser = value.to_owned(),
            "browser_version" => self.client.browser_version = value.to_owned(),
            "device_model" => self.client.device_model = value.to_owned(),
            "network" => self.client.network = value.to_owned(),
            "capabilities" => {
                let known = value.split(',').filter_map(|name| Capability::from_str_name(name.trim()));
                self.client.capabilities = known.take(MAX_CAPABILITIES).map(Into::into).collect();
            }
            _ => {}
        }
        Ok(())
    }

    fn into_v0(self, grants: Grants) -> JoinRequest {
        JoinRequest {
            generation: Generation::V0,
            grants,
            client: self.client,
            auto_subscribe: self.auto_subscribe,
            auto_subscribe_data_track: self.auto_subscribe_data_track,
            adaptive_stream: self.adaptive_stream,
            subscriber_allow_pause: self.subscriber_allow_pause,
            reconnect: self.reconnect,
            reconnect_reason: self.reconnect_reason,
            participant_sid: self.participant_sid.to_owned(),
            metadata: String::new(),
            attributes: self.attributes,
            add_tracks: Vec::new(),
            publisher_offer: None,
            sync_state: None,
        }
    }
}

/// SDK names of the query, which are not those of the enum.
fn sdk(name: &str) -> Sdk {
    match name {
        "reactnative" => Sdk::ReactNative,
        "unityweb" => Sdk::UnityWeb,
        _ => Sdk::from_str_name(&name.to_ascii_uppercase()).unwrap_or(Sdk::Unknown),
    }
}

/// Base64 of a JSON object of texts.
fn attributes(value: &str, limits: &JoinLimits) -> Result<BTreeMap<String, String>, JoinError> {
    // JSON escapes can make a byte six long, base64 a third more.
    if value.len() > limits.attributes.saturating_mul(8) {
        return Err(JoinError::TooLarge("attributes"));
    }
    let json = base64(value).ok_or(JoinError::Malformed("attributes"))?;
    serde_json::from_slice(&json).map_err(|_| JoinError::Malformed("attributes"))
}

fn from_v1(request: proto::JoinRequest, grants: Grants) -> JoinRequest {
    let settings = request.connection_settings.unwrap_or_default();
    JoinRequest {
        generation: Generation::V1,
        grants,
        client: request.client_info.unwrap_or_default(),
        auto_subscribe: settings.auto_subscribe,
        auto_subscribe_data_track: settings.auto_subscribe_data_track.unwrap_or(false),
        adaptive_stream: settings.adaptive_stream,
        subscriber_allow_pause: settings.subscriber_allow_pause,
        reconnect: request.reconnect,
        reconnect_reason: request.reconnect_reason,
        participant_sid: request.participant_sid,
        metadata: request.metadata,
        attributes: request.participant_attributes.into_iter().collect(),
        add_tracks: request.add_track_requests,
        publisher_offer: request.publisher_offer,
        sync_state: request.sync_state,
    }
}

fn decode_v1(encoded: &str, limits: &JoinLimits) -> Result<proto::JoinRequest, JoinError> {
    if encoded.len() > limits.encoded {
        return Err(JoinError::TooLarge("join_request"));
    }
    let wrapped = base64(encoded).ok_or(JoinError::Malformed("base64"))?;
    let wrapped = proto::WrappedJoinRequest::decode(wrapped.as_slice()).map_err(|_| JoinError::Malformed("wrapper"))?;
    let inner = match Compression::try_from(wrapped.compression) {
        Ok(Compression::None) => wrapped.join_request,
        Ok(Compression::Gzip) => gunzip(&wrapped.join_request, limits.decoded)?,
        Err(_) => return Err(JoinError::Malformed("compression")),
    };
    if inner.len() > limits.decoded {
        return Err(JoinError::TooLarge("join_request"));
    }
    proto::JoinRequest::decode(inner.as_slice()).map_err(|_| JoinError::Malformed("request"))
}

/// Stops at `limit` bytes of output, whatever the input claims to hold.
fn gunzip(data: &[u8], limit: usize) -> Result<Vec<u8>, JoinError> {
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(data).take(most).read_to_end(&mut out).map_err(|_| JoinError::Malformed("gzip"))?;
    if out.len() > limit { Err(JoinError::TooLarge("join_request")) } else { Ok(out) }
}

/// Either alphabet, with or without padding. A `+` that a query parser took for a space counts as `+`.
fn base64(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    const URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);
    const PLAIN: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
    if text.contains(['-', '_']) {
        URL.decode(text).ok()
    } else if text.contains(' ') {
        PLAIN.decode(text.replace(' ', "+")).ok()
    } else {
        PLAIN.decode(text).ok()
    }
}

#[cfg(test)]
mod tests;
