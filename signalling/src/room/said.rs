//! Messages as they leave the room: encoded once, whoever and however many get them.
//!
//! What a room says about its participants is put together from pieces, each encoded once per change of a participant:
//! a join into a room of a thousand copies a thousand pieces instead of building and encoding as many participants.

use std::sync::Arc;

use bytes::Bytes;
use livekit_protocol as proto;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::livekit::{Encoded, FrameError, Wire, encode_response};

/// Field numbers of the protocol: `SignalResponse.join`, `.update`, `JoinResponse.other_participants`,
/// `ParticipantUpdate.participants`.
const JOIN: u32 = 1;
const UPDATE: u32 = 5;
const OTHERS: u32 = 3;
const PARTICIPANTS: u32 = 1;

/// A message to clients, a `SignalResponse` in its binary form. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said(Bytes);

impl Said {
    /// In its own words; empty if it is none (which the room never says).
    #[must_use]
    pub fn message(&self) -> proto::SignalResponse {
        proto::SignalResponse::decode(self.0.clone()).unwrap_or_default()
    }

    /// As a client reads it. Binary costs nothing.
    ///
    /// # Errors
    /// As [`encode_response`].
    pub fn encoded(&self, wire: Wire) -> Result<Encoded, FrameError> {
        match wire {
            Wire::Binary => Ok(Encoded::Binary(self.0.clone())),
            Wire::Text => encode_response(&self.message(), Wire::Text),
        }
    }

    /// Bytes of the binary form.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it says nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `update` with these participants.
    pub(super) fn update(pieces: &[Piece]) -> Self {
        Self::composed(UPDATE, &[], PARTICIPANTS, pieces)
    }

    /// `join` with these others.
    pub(super) fn join(join: &proto::JoinResponse, others: &[Piece]) -> Self {
        Self::composed(JOIN, &join.encode_to_vec(), OTHERS, others)
    }

    /// A message of `head` and of pieces, all in the repeated field `of`.
    fn composed(field: u32, head: &[u8], of: u32, pieces: &[Piece]) -> Self {
        let length = head.len() + pieces.iter().map(|piece| piece.len_in(of)).sum::<usize>();
        let mut buffer = Vec::with_capacity(key_len(field) + 10 + length);
        encode_key(field, WireType::LengthDelimited, &mut buffer);
        encode_varint(wide(length), &mut buffer);
        buffer.extend_from_slice(head);
        for piece in pieces {
            encode_key(of, WireType::LengthDelimited, &mut buffer);
            encode_varint(wide(piece.bytes.len()), &mut buffer);
            buffer.extend_from_slice(&piece.bytes);
        }
        Self(buffer.into())
    }
}

impl From<&proto::SignalResponse> for Said {
    fn from(message: &proto::SignalResponse) -> Self {
        Self(message.encode_to_vec().into())
    }
}

/// A participant as others see it at one version, encoded.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) identity: Arc<str>,
    /// It has left.
    pub(super) is_gone: bool,
    bytes: Bytes,
}

impl Piece {
    pub(super) fn new(info: &proto::ParticipantInfo) -> Self {
        let is_gone = info.state() == proto::participant_info::State::Disconnected;
        Self { identity: info.identity.as_str().into(), is_gone, bytes: info.encode_to_vec().into() }
    }

    /// Bytes it takes.
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    fn len_in(&self, field: u32) -> usize {
        key_len(field) + encoded_len_varint(wide(self.bytes.len())) + self.bytes.len()
    }
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::signal_response::Message;

    #[test]
    fn pieces_read_like_what_they_were_made_of() {
        let info = |identity: &str| proto::ParticipantInfo { identity: identity.to_owned(), ..Default::default() };
        let infos = vec![info("alice"), info(&"b".repeat(300))];
        let pieces: Vec<_> = infos.iter().map(Piece::new).collect();
        let update = Message::Update(proto::ParticipantUpdate { participants: infos.clone() });
        assert_eq!(Said::update(&pieces).message().message, Some(update));
        let head = proto::JoinResponse { ping_interval: 2, sif_trailer: vec![1], ..Default::default() };
        let said = Said::join(&head, &pieces);
        let join = proto::JoinResponse { other_participants: infos, ..head };
        let expected = proto::SignalResponse { message: Some(Message::Join(join)) };
        assert_eq!((said.message(), said.len()), (expected.clone(), expected.encoded_len()));
        assert_eq!(Said::from(&expected).message(), expected);
    }
}
