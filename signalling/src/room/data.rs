//! Data packets: from one participant to all or some of the others, the sender's name put in by us.
//!
//! A packet is decoded once, stamped, encoded once, and the same bytes go to everybody. Encrypted packets are carried
//! as they are. A sender that floods is slowed by withholding the credit of its data channel, never by losing reliable
//! packets.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use livekit_protocol as proto;
use prost::Message as _;
use proto::data_packet::{Kind, Value};

use super::bucket::Bucket;
use super::config::Limits;
use super::cx::Cx;
use super::participant::Participant;
use super::{Room, Task, Timer};
use crate::media::{DataChannel, MediaCommand, ParticipantId, TransportId};

/// What a participant sent so far.
#[derive(Debug)]
pub(super) struct Inbox {
    last_sequence: u32,
    credit: Bucket,
    /// Bytes handled whose credit is withheld.
    owed: BTreeMap<TransportId, usize>,
    joined: Duration,
}

impl Inbox {
    pub(super) fn new(limits: &Limits, now: Duration) -> Self {
        let credit = Bucket::new(limits.data_rate, limits.data_burst, now);
        Self { last_sequence: 0, credit, owed: BTreeMap::new(), joined: now }
    }

    /// Number of the last reliable packet.
    pub(super) const fn last_sequence(&self) -> u32 {
        self.last_sequence
    }

    /// False for a packet that was here before. Packets of old clients have no number.
    const fn is_new(&mut self, sequence: u32) -> bool {
        if sequence == 0 {
            return true;
        }
        let new = sequence > self.last_sequence;
        if new {
            self.last_sequence = sequence;
        }
        new
    }
}

/// Reliable packets of the last moments, for those who were just joining or coming back.
#[derive(Debug, Default)]
pub(super) struct Replay {
    packets: VecDeque<Replayed>,
    bytes: usize,
}

#[derive(Debug)]
struct Replayed {
    at: Duration,
    sender: ParticipantId,
    sequence: u32,
    audience: Audience,
    payload: Bytes,
}

/// Who is to get a packet.
#[derive(Clone, Debug, Default)]
struct Audience {
    identities: Vec<String>,
    sids: Vec<String>,
    /// Only those who may see metrics.
    metrics: bool,
}

impl Audience {
    fn includes(&self, participant: &Participant) -> bool {
        let everybody = self.identities.is_empty() && self.sids.is_empty();
        let named = self.identities.iter().any(|identity| identity == participant.identity())
            || self.sids.contains(&participant.sid);
        (everybody || named) && (!self.metrics || participant.grants.can_subscribe_metrics)
    }
}

impl Replay {
    fn push(&mut self, packet: Replayed, limits: &Limits) {
        self.bytes += packet.payload.len();
        let now = packet.at;
        self.packets.push_back(packet);
        self.trim(now, limits);
    }

    fn trim(&mut self, now: Duration, limits: &Limits) {
        while let Some(first) = self.packets.front() {
            let old = now.saturating_sub(first.at) > limits.replay_age;
            if !old && self.bytes <= limits.replay_bytes {
                return;
            }
            self.bytes -= first.payload.len();
            self.packets.pop_front();
        }
    }
}

impl Room {
    pub(super) fn handle_data(
        &mut self,
        cx: &mut Cx<'_>,
        transport: TransportId,
        channel: DataChannel,
        payload: Bytes,
    ) {
        let bytes = payload.len();
        let is_open = self.leg_mut(transport).is_some();
        let Some(id) = self.transports.get(&transport).copied().filter(|_| is_open) else { return };
        let copies = match channel {
            DataChannel::DataTrack => self.forward_data_track(cx, id, &payload),
            DataChannel::Reliable => self.forward_packet(cx, id, Kind::Reliable, &payload),
            DataChannel::Lossy => self.forward_packet(cx, id, Kind::Lossy, &payload),
        };
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let cost = u64::try_from(bytes.saturating_mul(copies.max(1))).unwrap_or(u64::MAX);
        match participant.inbox.credit.overdraw(cx.mono(), cost) {
            None => cx.media(MediaCommand::DataTaken { transport, bytes }),
            Some(due) => {
                *participant.inbox.owed.entry(transport).or_default() += bytes;
                self.timers.set(Timer::Of(id, Task::DataCredit), due);
            }
        }
    }

    pub(super) fn pay_data_credit(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        if let Some(due) = participant.inbox.credit.debt_free_at(cx.mono()) {
            self.timers.set(Timer::Of(id, Task::DataCredit), due);
            return;
        }
        for (transport, bytes) in std::mem::take(&mut participant.inbox.owed) {
            cx.media(MediaCommand::DataTaken { transport, bytes });
        }
    }

    /// Whether what can be lost should be: its sender is over its rate.
    pub(super) fn is_over_data_rate(&mut self, cx: &Cx<'_>, id: ParticipantId) -> bool {
        let participant = self.participants.get_mut(&id);
        participant.is_none_or(|participant| participant.inbox.credit.debt_free_at(cx.mono()).is_some())
    }

    /// Forwards a packet of a participant and says how often.
    fn forward_packet(&mut self, cx: &mut Cx<'_>, id: ParticipantId, kind: Kind, payload: &Bytes) -> usize {
        let too_fast = kind == Kind::Lossy && self.is_over_data_rate(cx, id);
        let entries = self.config.limits.list_entries;
        let Some(participant) = self.participants.get_mut(&id) else { return 0 };
        let allowed = participant.grants.can_publish_data && participant.moving.is_none();
        if !allowed || too_fast || payload.len() > self.config.limits.data_packet {
            return 0;
        }
        let Ok(mut packet) = proto::DataPacket::decode(payload.clone()) else { return 0 };
        if !may_send(participant, &packet) || (kind == Kind::Reliable && !participant.inbox.is_new(packet.sequence)) {
            return 0;
        }
        if self.take_answer(cx, id, &packet) {
            return 0;
        }
        if let Some(Value::User(user)) = &packet.value
            && !self.nonces.is_new(&user.nonce)
        {
            return 0;
        }
        let Some(participant) = self.participants.get(&id) else { return 0 };
        stamp(participant, kind, &mut packet);
        let audience = address(&mut packet, entries);
        self.deliver(cx, Some(id), kind, &packet, audience)
    }

    fn deliver(
        &mut self,
        cx: &mut Cx<'_>,
        sender: Option<ParticipantId>,
        kind: Kind,
        packet: &proto::DataPacket,
        audience: Audience,
    ) -> usize {
        let payload = Bytes::from(packet.encode_to_vec());
        let transports = self.receivers(sender, &audience);
        let copies = transports.len();
        let channel = if kind == Kind::Reliable { DataChannel::Reliable } else { DataChannel::Lossy };
        if !transports.is_empty() {
            cx.media(MediaCommand::SendData { transports, channel, payload: payload.clone() });
        }
        if let (Kind::Reliable, Some(sender)) = (kind, sender) {
            let packet = Replayed { at: cx.mono(), sender, sequence: packet.sequence, audience, payload };
            self.replay.push(packet, &self.config.limits);
        }
        copies
    }

    fn receivers(&self, sender: Option<ParticipantId>, audience: &Audience) -> Vec<TransportId> {
        let ready = |participant: &&Participant| {
            let leg = participant.down_leg();
            leg.channels && !leg.dead && Some(participant.id) != sender && participant.moving.is_none()
        };
        let others = self.participants.values().filter(ready).filter(|participant| audience.includes(participant));
        others.map(|participant| participant.down_leg().transport).collect()
    }

    /// The channels of a newcomer opened: it gets what was said since it joined.
    pub(super) fn replay_to_newcomer(&mut self, cx: &mut Cx<'_>, id: ParticipantId) {
        let joined = self.participants.get(&id).map(|participant| participant.inbox.joined);
        if let Some(joined) = joined {
            self.replay_packets(cx, id, |packet, _| packet.at >= joined);
        }
    }

    /// A client came back and says how far it got.
    pub(super) fn replay_since(
        &mut self,
        cx: &mut Cx<'_>,
        id: ParticipantId,
        states: &[proto::DataChannelReceiveState],
    ) {
        let entries = self.config.limits.list_entries;
        let reached: BTreeMap<&str, u32> =
            states.iter().take(entries).map(|state| (state.publisher_sid.as_str(), state.last_seq)).collect();
        let joined = self.participants.get(&id).map_or(Duration::MAX, |participant| participant.inbox.joined);
        self.replay_packets(cx, id, |packet, sender| {
            let last = reached.get(sender).copied().unwrap_or(0);
            packet.at >= joined && packet.sequence > last
        });
    }

    fn replay_packets(&mut self, cx: &mut Cx<'_>, id: ParticipantId, wanted: impl Fn(&Replayed, &str) -> bool) {
        self.replay.trim(cx.mono(), &self.config.limits);
        let Some(participant) = self.participants.get(&id) else { return };
        let leg = participant.down_leg();
        if !leg.channels || leg.dead {
            return;
        }
        for packet in &self.replay.packets {
            let Some(sender) = self.participants.get(&packet.sender) else { continue };
            if packet.sender != id && packet.audience.includes(participant) && wanted(packet, &sender.sid) {
                let transports = vec![leg.transport];
                let payload = packet.payload.clone();
                cx.media(MediaCommand::SendData { transports, channel: DataChannel::Reliable, payload });
            }
        }
    }

    /// A packet of the server itself. Says how often it went out.
    pub(super) fn send_from_server(&mut self, cx: &mut Cx<'_>, kind: Kind, packet: proto::DataPacket) -> usize {
        let mut packet = packet;
        let audience = address(&mut packet, self.config.limits.list_entries);
        self.deliver(cx, None, kind, &packet, audience)
    }

    /// A packet of the server API. False if its nonce was seen before.
    pub(super) fn send_server_data(&mut self, cx: &mut Cx<'_>, request: proto::SendDataRequest) -> bool {
        if !self.nonces.is_new(&request.nonce) {
            return false;
        }
        let kind = Kind::try_from(request.kind).unwrap_or(Kind::Reliable);
        let user = proto::UserPacket {
            payload: request.data,
            topic: request.topic,
            nonce: request.nonce,
            ..Default::default()
        };
        let mut packet = proto::DataPacket {
            destination_identities: request.destination_identities,
            value: Some(Value::User(user)),
            ..Default::default()
        };
        #[allow(deprecated, reason = "old callers and clients use them")]
        {
            packet.kind = kind.into();
            if let Some(Value::User(user)) = &mut packet.value {
                user.destination_sids = request.destination_sids;
            }
        }
        self.send_from_server(cx, kind, packet);
        true
    }
}

/// Some kinds of packets are not for everybody to send.
#[allow(deprecated, reason = "speaker packets are only named to be dropped")]
fn may_send(participant: &Participant, packet: &proto::DataPacket) -> bool {
    match &packet.value {
        None | Some(Value::Speaker(_)) => false,
        Some(Value::Transcription(_)) => participant.grants.agent || is_agent_kind(participant),
        Some(_) => true,
    }
}

fn is_agent_kind(participant: &Participant) -> bool {
    participant.grants.kind == i32::from(proto::participant_info::Kind::Agent)
}

/// Puts the sender in, whatever it claimed. Agents speak for others in transcriptions and texts.
fn stamp(participant: &Participant, kind: Kind, packet: &mut proto::DataPacket) {
    let spoken = matches!(
        packet.value,
        Some(Value::Transcription(_) | Value::StreamHeader(_) | Value::StreamChunk(_) | Value::StreamTrailer(_))
    );
    let for_other = spoken && is_agent_kind(participant) && !packet.participant_identity.is_empty();
    let shown = !participant.is_hidden();
    packet.participant_sid = if shown { participant.sid.clone() } else { String::new() };
    if !for_other || !shown {
        packet.participant_identity = if shown { participant.identity().to_owned() } else { String::new() };
    }
    #[allow(deprecated, reason = "old clients read them")]
    {
        packet.kind = kind.into();
        if let Some(Value::User(user)) = &mut packet.value {
            user.participant_sid.clone_from(&packet.participant_sid);
            user.participant_identity.clone_from(&packet.participant_identity);
        }
    }
}

/// Reads the destinations from both places they may stand in, and writes them to both.
fn address(packet: &mut proto::DataPacket, entries: usize) -> Audience {
    packet.destination_identities.truncate(entries);
    let mut audience = Audience { identities: packet.destination_identities.clone(), ..Default::default() };
    match &mut packet.value {
        #[allow(deprecated, reason = "old clients write and read them")]
        Some(Value::User(user)) => {
            user.destination_sids.truncate(entries);
            user.destination_identities.truncate(entries);
            if audience.identities.is_empty() {
                audience.identities.clone_from(&user.destination_identities);
                packet.destination_identities.clone_from(&user.destination_identities);
            } else {
                user.destination_identities.clone_from(&audience.identities);
            }
            audience.sids.clone_from(&user.destination_sids);
        }
        Some(Value::Metrics(_)) => audience.metrics = true,
        _ => {}
    }
    audience
}
