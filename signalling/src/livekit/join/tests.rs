//! Joins of both generations, honest and hostile.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::io::Write as _;

use base64::engine::general_purpose;
use flate2::Compression as Level;
use flate2::write::GzEncoder;

use super::*;

fn grants() -> Grants {
    let claims = serde_json::json!({
        "sub": "alice", "exp": 1, "video": {"roomJoin": true, "room": "r", "canUpdateOwnMetadata": true}
    });
    serde_json::from_value::<crate::token::Claims>(claims).unwrap().grants().unwrap()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn wrapped(request: &proto::JoinRequest, compression: Compression) -> Vec<u8> {
    let inner = request.encode_to_vec();
    let join_request = if compression == Compression::Gzip { gzip(&inner) } else { inner };
    proto::WrappedJoinRequest { compression: compression.into(), join_request }.encode_to_vec()
}

fn v1(encoded: &str) -> Result<JoinRequest, JoinError> {
    join_request(Generation::V1, [("access_token", "x"), ("join_request", encoded)], grants(), &JoinLimits::default())
}

fn v0(query: &[(&str, &str)]) -> Result<JoinRequest, JoinError> {
    join_request(Generation::V0, query.iter().copied(), grants(), &JoinLimits::default())
}

fn sample() -> proto::JoinRequest {
    proto::JoinRequest {
        client_info: Some(proto::ClientInfo { protocol: 17, version: "2.23.0".to_owned(), ..Default::default() }),
        connection_settings: Some(proto::ConnectionSettings { auto_subscribe: true, ..Default::default() }),
        publisher_offer: Some(proto::SessionDescription { sdp: "v=0???>>>~~~".repeat(20), ..Default::default() }),
        ..Default::default()
    }
}

#[test]
fn takes_every_way_to_write_a_join_request() {
    for compression in [Compression::None, Compression::Gzip] {
        let wrapped = wrapped(&sample(), compression);
        for text in [
            general_purpose::URL_SAFE.encode(&wrapped),
            general_purpose::URL_SAFE_NO_PAD.encode(&wrapped),
            general_purpose::STANDARD.encode(&wrapped),
            general_purpose::STANDARD_NO_PAD.encode(&wrapped),
            general_purpose::STANDARD.encode(&wrapped).replace('+', " "),
        ] {
            let request = v1(&text).unwrap();
            assert_eq!(request.client.protocol, 17);
            assert_eq!(request.publisher_offer, sample().publisher_offer);
        }
    }
}

#[test]
fn fills_in_the_defaults_of_each_generation() {
    let bare = proto::JoinRequest::default();
    let request = v1(&general_purpose::URL_SAFE.encode(wrapped(&bare, Compression::None)));
    // An empty wrapper is an empty text, which is no join request at all.
    assert_eq!(request.unwrap_err(), JoinError::Missing);
    let request = v1(&general_purpose::URL_SAFE.encode(wrapped(&sample(), Compression::Gzip))).unwrap();
    assert!(request.auto_subscribe && !request.auto_subscribe_data_track && !request.adaptive_stream);
    let request = v0(&[]).unwrap();
    assert!(request.auto_subscribe && request.auto_subscribe_data_track && !request.adaptive_stream);
    assert_eq!((request.generation, request.subscriber_allow_pause), (Generation::V0, None));
}

#[test]
fn reads_the_query_of_the_old_generation() {
    let attributes = general_purpose::URL_SAFE.encode(r#"{"hand":"up","empty":""}"#);
    let request = v0(&[
        ("auto_subscribe", "0"),
        ("adaptive_stream", "true"),
        ("reconnect", "1"),
        ("reconnect_reason", "2"),
        ("sid", "PA_abc"),
        ("sdk", "reactnative"),
        ("version", "2.5.0"),
        ("protocol", "16"),
        ("client_protocol", "1"),
        ("capabilities", "CAP_PACKET_TRAILER,CAP_FROM_THE_FUTURE"),
        ("attributes", &attributes),
        ("network", "wifi"),
        ("publish", "x"),
    ])
    .unwrap();
    assert!(!request.auto_subscribe && request.adaptive_stream && request.reconnect);
    assert_eq!((request.reconnect_reason, request.participant_sid.as_str()), (2, "PA_abc"));
    assert_eq!(request.client.sdk, i32::from(Sdk::ReactNative));
    assert_eq!((request.client.protocol, request.client.client_protocol), (16, 1));
    assert_eq!(request.client.capabilities, [i32::from(Capability::CapPacketTrailer)]);
    assert_eq!(request.attributes.into_iter().collect::<Vec<_>>(), [("hand".to_owned(), "up".to_owned())]);
}

#[test]
fn a_join_request_on_the_old_endpoint_is_the_new_generation() {
    let text = general_purpose::URL_SAFE.encode(wrapped(&sample(), Compression::Gzip));
    assert_eq!(v0(&[("join_request", &text)]).unwrap().generation, Generation::V1);
    let missing = join_request(Generation::V1, [("protocol", "17")], grants(), &JoinLimits::default());
    assert_eq!(missing.unwrap_err(), JoinError::Missing);
}

#[test]
fn refuses_a_gzip_bomb_without_unpacking_it() {
    let bomb = gzip(&vec![0; 64 << 20]);
    assert!(bomb.len() < 100_000, "it is small on the wire");
    let wrapper = proto::WrappedJoinRequest { compression: Compression::Gzip.into(), join_request: bomb };
    let text = general_purpose::URL_SAFE.encode(wrapper.encode_to_vec());
    assert_eq!(v1(&text).unwrap_err(), JoinError::TooLarge("join_request"));
}

#[test]
fn refuses_what_cannot_be_decoded() {
    let text = |wrapper: proto::WrappedJoinRequest| general_purpose::URL_SAFE.encode(wrapper.encode_to_vec());
    assert_eq!(v1("!!!").unwrap_err(), JoinError::Malformed("base64"));
    assert_eq!(v1("////").unwrap_err(), JoinError::Malformed("wrapper"));
    let garbage = proto::WrappedJoinRequest { compression: 1, join_request: vec![1, 2, 3] };
    assert_eq!(v1(&text(garbage)).unwrap_err(), JoinError::Malformed("gzip"));
    let unknown = proto::WrappedJoinRequest { compression: 7, join_request: vec![0] };
    assert_eq!(v1(&text(unknown)).unwrap_err(), JoinError::Malformed("compression"));
    let inner = proto::WrappedJoinRequest { compression: 0, join_request: vec![0xff; 10] };
    assert_eq!(v1(&text(inner)).unwrap_err(), JoinError::Malformed("request"));
    assert_eq!(v0(&[("attributes", "e30")]).unwrap().attributes.len(), 0);
    assert_eq!(v0(&[("attributes", "W10")]).unwrap_err(), JoinError::Malformed("attributes"));
}

#[test]
fn metadata_and_attributes_need_the_grant_and_a_size() {
    let mut request = sample();
    request.metadata = "m".repeat(65537);
    let large = general_purpose::URL_SAFE.encode(wrapped(&request, Compression::Gzip));
    assert_eq!(v1(&large).unwrap_err(), JoinError::TooLarge("metadata"));
    request.metadata = "m".to_owned();
    let small = general_purpose::URL_SAFE.encode(wrapped(&request, Compression::Gzip));
    assert_eq!(v1(&small).unwrap().metadata, "m");
    let without = Grants { can_update_own_metadata: false, ..grants() };
    let refused =
        join_request(Generation::V1, [("join_request", small.as_str())], without.clone(), &JoinLimits::default());
    assert_eq!(refused.unwrap_err().status(), 401);
    let empty = [("attributes", "eyJhIjoiIn0")];
    assert!(join_request(Generation::V0, empty, without, &JoinLimits::default()).is_ok(), "empty values say nothing");
}

#[test]
fn cuts_what_a_client_says_of_itself() {
    let long = "é".repeat(1000);
    let client = v0(&[("version", &long), ("browser", "Firefox")]).unwrap().client;
    assert_eq!((client.version.len(), client.browser.as_str()), (256, "Firefox"));
}
