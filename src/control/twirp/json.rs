//! Answers in JSON as Go's Twirp writes them: field names of the proto file, and every field, also where it has its
//! default. Scripts rely on both; `serde` of the message types writes lower camel case and leaves defaults out.
//!
//! Each message is taken apart by name, so that a field added to the protocol does not compile until it is here.

use livekit_protocol as proto;
use serde_json::{Value, json};

/// A message that can be written so.
pub(super) trait ProtoJson {
    /// The message.
    fn proto_json(&self) -> Value;
}

fn list<M: ProtoJson>(messages: &[M]) -> Value {
    messages.iter().map(ProtoJson::proto_json).collect()
}

/// A message field that is not set is `null`.
fn optional<M: ProtoJson>(message: Option<&M>) -> Value {
    message.map_or(Value::Null, ProtoJson::proto_json)
}

/// Values of enums are written by name; unknown ones as numbers.
fn name<E: TryFrom<i32>>(value: i32, name: impl Fn(&E) -> &'static str) -> Value {
    E::try_from(value).map_or_else(|_| json!(value), |known| json!(name(&known)))
}

fn names<E: TryFrom<i32>>(values: &[i32], of: impl Fn(&E) -> &'static str) -> Value {
    values.iter().map(|value| name(*value, &of)).collect()
}

/// 64-bit numbers are texts.
fn long(value: i64) -> Value {
    json!(value.to_string())
}

impl ProtoJson for proto::Room {
    fn proto_json(&self) -> Value {
        let Self {
            sid,
            name,
            empty_timeout,
            departure_timeout,
            max_participants,
            creation_time,
            creation_time_ms,
            turn_password,
            enabled_codecs,
            metadata,
            num_participants,
            num_publishers,
            active_recording,
            version,
        } = self;
        json!({
            "sid": sid,
            "name": name,
            "empty_timeout": empty_timeout,
            "departure_timeout": departure_timeout,
            "max_participants": max_participants,
            "creation_time": long(*creation_time),
            "creation_time_ms": long(*creation_time_ms),
            "turn_password": turn_password,
            "enabled_codecs": list(enabled_codecs),
            "metadata": metadata,
            "num_participants": num_participants,
            "num_publishers": num_publishers,
            "active_recording": active_recording,
            "version": optional(version.as_ref()),
        })
    }
}

impl ProtoJson for proto::Codec {
    fn proto_json(&self) -> Value {
        let Self { mime, fmtp_line } = self;
        json!({ "mime": mime, "fmtp_line": fmtp_line })
    }
}

impl ProtoJson for proto::TimedVersion {
    fn proto_json(&self) -> Value {
        let Self { unix_micro, ticks } = self;
        json!({ "unix_micro": long(*unix_micro), "ticks": ticks })
    }
}

impl ProtoJson for proto::ParticipantInfo {
    fn proto_json(&self) -> Value {
        let Self {
            sid,
            identity,
            state,
            tracks,
            metadata,
            joined_at,
            joined_at_ms,
            name: shown_name,
            version,
            permission,
            region,
            is_publisher,
            kind,
            attributes,
            disconnect_reason,
            kind_details,
            data_tracks,
            client_protocol,
            capabilities,
        } = self;
        json!({
            "sid": sid,
            "identity": identity,
            "state": name(*state, proto::participant_info::State::as_str_name),
            "tracks": list(tracks),
            "metadata": metadata,
            "joined_at": long(*joined_at),
            "joined_at_ms": long(*joined_at_ms),
            "name": shown_name,
            "version": version,
            "permission": optional(permission.as_ref()),
            "region": region,
            "is_publisher": is_publisher,
            "kind": name(*kind, proto::participant_info::Kind::as_str_name),
            "attributes": attributes,
            "disconnect_reason": name(*disconnect_reason, proto::DisconnectReason::as_str_name),
            "kind_details": names(kind_details, proto::participant_info::KindDetail::as_str_name),
            "data_tracks": list(data_tracks),
            "client_protocol": client_protocol,
            "capabilities": names(capabilities, proto::client_info::Capability::as_str_name),
        })
    }
}

impl ProtoJson for proto::ParticipantPermission {
    #[allow(deprecated, reason = "every field is written")]
    fn proto_json(&self) -> Value {
        let Self {
            can_subscribe,
            can_publish,
            can_publish_data,
            can_publish_sources,
            hidden,
            recorder,
            can_update_metadata,
            agent,
            can_subscribe_metrics,
            can_manage_agent_session,
        } = self;
        json!({
            "can_subscribe": can_subscribe,
            "can_publish": can_publish,
            "can_publish_data": can_publish_data,
            "can_publish_sources": names(can_publish_sources, proto::TrackSource::as_str_name),
            "hidden": hidden,
            "recorder": recorder,
            "can_update_metadata": can_update_metadata,
            "agent": agent,
            "can_subscribe_metrics": can_subscribe_metrics,
            "can_manage_agent_session": can_manage_agent_session,
        })
    }
}

impl ProtoJson for proto::TrackInfo {
    #[allow(deprecated, reason = "every field is written")]
    fn proto_json(&self) -> Value {
        let Self {
            sid,
            r#type,
            name: shown_name,
            muted,
            width,
            height,
            simulcast,
            disable_dtx,
            source,
            layers,
            mime_type,
            mid,
            codecs,
            stereo,
            disable_red,
            encryption,
            stream,
            version,
            audio_features,
            backup_codec_policy,
            packet_trailer_features,
        } = self;
        json!({
            "sid": sid,
            "type": name(*r#type, proto::TrackType::as_str_name),
            "name": shown_name,
            "muted": muted,
            "width": width,
            "height": height,
            "simulcast": simulcast,
            "disable_dtx": disable_dtx,
            "source": name(*source, proto::TrackSource::as_str_name),
            "layers": list(layers),
            "mime_type": mime_type,
            "mid": mid,
            "codecs": list(codecs),
            "stereo": stereo,
            "disable_red": disable_red,
            "encryption": name(*encryption, proto::encryption::Type::as_str_name),
            "stream": stream,
            "version": optional(version.as_ref()),
            "audio_features": names(audio_features, proto::AudioTrackFeature::as_str_name),
            "backup_codec_policy": name(*backup_codec_policy, proto::BackupCodecPolicy::as_str_name),
            "packet_trailer_features": names(packet_trailer_features, proto::PacketTrailerFeature::as_str_name),
        })
    }
}

impl ProtoJson for proto::VideoLayer {
    fn proto_json(&self) -> Value {
        let Self { quality, width, height, bitrate, ssrc, spatial_layer, rid, repair_ssrc } = self;
        json!({
            "quality": name(*quality, proto::VideoQuality::as_str_name),
            "width": width,
            "height": height,
            "bitrate": bitrate,
            "ssrc": ssrc,
            "spatial_layer": spatial_layer,
            "rid": rid,
            "repair_ssrc": repair_ssrc,
        })
    }
}

impl ProtoJson for proto::SimulcastCodecInfo {
    fn proto_json(&self) -> Value {
        let Self { mime_type, mid, cid, layers, video_layer_mode, sdp_cid } = self;
        json!({
            "mime_type": mime_type,
            "mid": mid,
            "cid": cid,
            "layers": list(layers),
            "video_layer_mode": name(*video_layer_mode, proto::video_layer::Mode::as_str_name),
            "sdp_cid": sdp_cid,
        })
    }
}

impl ProtoJson for proto::DataTrackInfo {
    fn proto_json(&self) -> Value {
        let Self { pub_handle, sid, name: shown_name, encryption, frame_encoding, schema } = self;
        let schema = schema.as_ref().map(|proto::DataTrackSchemaId { name, encoding }| {
            json!({ "name": name, "encoding": encoding.as_ref().map(one_of) })
        });
        json!({
            "pub_handle": pub_handle,
            "sid": sid,
            "name": shown_name,
            "encryption": name(*encryption, proto::encryption::Type::as_str_name),
            "frame_encoding": frame_encoding.as_ref().map(one_of),
            "schema": schema,
        })
    }
}

/// A message with one `oneof` and nothing else: only what is set is written, under the name of the proto file.
fn one_of(message: &impl serde::Serialize) -> Value {
    let Ok(Value::Object(fields)) = serde_json::to_value(message) else { return Value::Null };
    let fields =
        fields.into_iter().map(|(key, value)| (if key == "wellKnown" { "well_known".to_owned() } else { key }, value));
    Value::Object(fields.collect())
}

impl ProtoJson for proto::ListRoomsResponse {
    fn proto_json(&self) -> Value {
        let Self { rooms } = self;
        json!({ "rooms": list(rooms) })
    }
}

impl ProtoJson for proto::ListParticipantsResponse {
    fn proto_json(&self) -> Value {
        let Self { participants } = self;
        json!({ "participants": list(participants) })
    }
}

impl ProtoJson for proto::MuteRoomTrackResponse {
    fn proto_json(&self) -> Value {
        let Self { track } = self;
        json!({ "track": optional(track.as_ref()) })
    }
}

/// Answers without fields.
macro_rules! empty {
    ($($message:ident),*) => {$(
        impl ProtoJson for proto::$message {
            fn proto_json(&self) -> Value {
                let Self {} = self;
                json!({})
            }
        }
    )*};
}
impl ProtoJson for proto::PerformRpcResponse {
    fn proto_json(&self) -> Value {
        let Self { payload } = self;
        json!({ "payload": payload })
    }
}

empty!(DeleteRoomResponse, RemoveParticipantResponse, UpdateSubscriptionsResponse, SendDataResponse);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]

    use serde::de::DeserializeOwned;

    use super::*;

    /// Read back by an independent reader of the format, nothing is lost.
    fn assert_read_back<M: ProtoJson + DeserializeOwned + PartialEq + std::fmt::Debug>(message: &M) {
        let text = message.proto_json().to_string();
        assert_eq!(&serde_json::from_str::<M>(&text).unwrap(), message, "{text}");
    }

    #[test]
    #[allow(deprecated, reason = "every field is written")]
    fn everything_written_is_read_back() {
        let version = Some(proto::TimedVersion { unix_micro: i64::MAX, ticks: -1 });
        let layer = proto::VideoLayer {
            quality: 2,
            width: 1280,
            height: 720,
            bitrate: 1,
            ssrc: u32::MAX,
            spatial_layer: 2,
            rid: "f".to_owned(),
            repair_ssrc: 7,
        };
        let codec = proto::SimulcastCodecInfo {
            mime_type: "video/VP8".to_owned(),
            mid: "1".to_owned(),
            cid: "c".to_owned(),
            layers: vec![layer.clone()],
            video_layer_mode: 1,
            sdp_cid: "s".to_owned(),
        };
        let track = proto::TrackInfo {
            sid: "TR_x".to_owned(),
            r#type: 1,
            name: "camera \"quoted\" 📷".to_owned(),
            muted: true,
            width: 1280,
            height: 720,
            simulcast: true,
            disable_dtx: true,
            source: 1,
            layers: vec![layer],
            mime_type: "video/VP8".to_owned(),
            mid: "1".to_owned(),
            codecs: vec![codec],
            stereo: true,
            disable_red: true,
            encryption: 1,
            stream: "camera".to_owned(),
            version,
            audio_features: vec![0, 3],
            backup_codec_policy: 1,
            packet_trailer_features: vec![0],
        };
        let permission = proto::ParticipantPermission {
            can_subscribe: true,
            can_publish: true,
            can_publish_data: true,
            can_publish_sources: vec![1, 2],
            hidden: true,
            recorder: true,
            can_update_metadata: true,
            agent: true,
            can_subscribe_metrics: true,
            can_manage_agent_session: true,
        };
        let encoding: proto::DataTrackFrameEncoding =
            serde_json::from_str("{\"wellKnown\":\"WELL_KNOWN_FRAME_ENCODING_ROS1\"}").unwrap();
        let data_track = proto::DataTrackInfo {
            pub_handle: 3,
            sid: "DTR_x".to_owned(),
            name: "pose".to_owned(),
            encryption: 1,
            frame_encoding: Some(encoding),
            schema: Some(proto::DataTrackSchemaId { name: "s".to_owned(), encoding: None }),
        };
        assert_read_back(&proto::ParticipantInfo {
            sid: "PA_x".to_owned(),
            identity: "@a:b".to_owned(),
            state: 2,
            tracks: vec![track.clone()],
            metadata: "m".to_owned(),
            joined_at: 1,
            joined_at_ms: 1_000,
            name: "A".to_owned(),
            version: 9,
            permission: Some(permission),
            region: "r".to_owned(),
            is_publisher: true,
            kind: 4,
            attributes: [("k".to_owned(), "v".to_owned())].into(),
            disconnect_reason: 1,
            kind_details: vec![0],
            data_tracks: vec![data_track],
            client_protocol: 1,
            capabilities: vec![1],
        });
        assert_read_back(&proto::MuteRoomTrackResponse { track: Some(track) });
        assert_read_back(&proto::ListRoomsResponse {
            rooms: vec![proto::Room {
                sid: "RM_x".to_owned(),
                name: "r".to_owned(),
                empty_timeout: 1,
                departure_timeout: 2,
                max_participants: 3,
                creation_time: 4,
                creation_time_ms: 4_000,
                turn_password: "t".to_owned(),
                enabled_codecs: vec![proto::Codec { mime: "m".to_owned(), fmtp_line: "f".to_owned() }],
                metadata: "m".to_owned(),
                num_participants: 5,
                num_publishers: 6,
                active_recording: true,
                version,
            }],
        });
    }

    #[test]
    fn defaults_are_written_under_the_names_of_the_proto_file() {
        let room = proto::Room::default().proto_json();
        assert_eq!(room["num_participants"], 0);
        assert_eq!(room["creation_time"], "0");
        assert_eq!(room["enabled_codecs"], json!([]));
        assert_eq!(room["version"], Value::Null);
        let participant = proto::ParticipantInfo::default().proto_json();
        assert_eq!(participant["state"], "JOINING");
        assert_eq!(participant["attributes"], json!({}));
        let unknown = proto::ParticipantInfo { state: 99, ..Default::default() }.proto_json();
        assert_eq!(unknown["state"], 99);
    }
}
