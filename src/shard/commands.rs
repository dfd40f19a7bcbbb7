//! What control asks for. Every command is bounded work; one about something that is gone, or beyond a limit, is
//! ignored.
//!
//! Things end in this order: downtracks, tracks, transports, participant, room.

mod media;

use crate::base::{Bitrate, DowntrackId, Instant, ParticipantId, RoomId, Ssrc, TrackId, TransportId};
use crate::cc::feedback::FeedbackGenerator;
use crate::cc::remb::RembCeiling;
use crate::room::{ParticipantKey, Room};
use crate::shard::Shard;
use crate::shard::command::{Command, DataChannel};
use crate::shard::event::{CloseReason, Event};
use crate::shard::outbox::Outbox;
use crate::shard::parts::{Copy, Line, Publication, Rate, RoomKey};
use crate::shard::timers::Owner;
use crate::transport::params::{ExtensionIds, IceCredentials, RemoteParams, TransportParams};
use crate::transport::route::Route;
use crate::transport::rx::PublisherClock;
use crate::transport::{Edges, Transport, TransportKey};
use bytes::Bytes;

impl Shard {
    /// Obey a command. One about something that is gone is ignored.
    pub fn handle_command(&mut self, now: Instant, command: Command, out: &mut Outbox) {
        match command {
            Command::AddRoom { room } => self.add_room(now, room),
            Command::RemoveRoom { room } => self.remove_room(now, room, out),
            Command::AddParticipant { room, participant } => self.add_participant(now, room, participant, out),
            Command::SetPausing { participant, allowed } => {
                if let Some((room, key)) = self.ids.participants.get(&participant).copied() {
                    self.with_room(now, room, out, |_, room| room.set_may_pause(key, Some(allowed)));
                }
            }
            Command::RemoveParticipant { participant } => self.remove_participant(now, participant, out),
            Command::AddTransport { participant, transport, params } => {
                self.add_transport(now, participant, transport, &params, out);
            }
            Command::SetRemote { transport, remote } => self.set_remote(now, transport, &remote, out),
            Command::RestartIce { transport, local, remote } => {
                self.restart_ice(now, transport, &local, remote.as_ref(), out);
            }
            Command::RemoveTransport { transport } => {
                if let Some(key) = self.ids.transports.get(&transport).copied() {
                    self.remove_transport(now, key, out);
                }
            }
            Command::Publish { transport, track, params } => self.publish(now, transport, track, params, out),
            Command::Mirror { room, track, origin, params } => self.mirror(now, (room, track), origin, params, out),
            Command::ForgetShard { room, shard } => {
                if let Some(key) = self.ids.rooms.get(&room).copied() {
                    self.with_room(now, key, out, |_, room| room.forget_shard(shard));
                }
            }
            Command::Unpublish { track } => self.unpublish(now, track, out),
            Command::SetMuted { track, muted } => self.set_muted(now, track, muted, out),
            Command::Subscribe { transport, track, downtrack, params } => {
                self.subscribe(now, transport, track, downtrack, params, out);
            }
            Command::Unsubscribe { downtrack } => self.unsubscribe(now, downtrack, out),
            Command::SetDemand { downtrack, demand } => {
                if let Some((room, key)) = self.ids.downtracks.get(&downtrack).copied() {
                    self.with_room(now, room, out, |now, room| room.set_demand(now, key, demand));
                }
            }
            Command::CapBitrate { transport, cap } => self.cap(now, transport, cap, out),
            Command::SendData { transports, channel, payload } => {
                self.send_data(now, &transports, channel, &payload, out);
            }
            Command::DataTaken { transport, bytes } => {
                if let Some(key) = self.ids.transports.get(&transport).copied()
                    && let Some(line) = self.lines.get_mut(key)
                {
                    let edges = line.transport.data_taken(now, bytes);
                    self.after_transport(now, key, edges, out);
                }
            }
        }
        self.count();
    }

    /// Open a transport without ICE, DTLS and SRTP to a known route, connected at once. For simulations, benches and
    /// links between shards; never reachable from signalling.
    pub fn add_plain_transport(
        &mut self,
        now: Instant,
        participant: ParticipantId,
        transport: TransportId,
        route: Route,
        out: &mut Outbox,
    ) {
        let plain = Transport::plain(route, &self.config.transport);
        self.add_connected(now, participant, transport, plain, out);
    }

    /// The same, but what is sent to it is sealed under keys nobody negotiated. For benches.
    pub fn add_sealing_transport(
        &mut self,
        now: Instant,
        participant: ParticipantId,
        transport: TransportId,
        route: Route,
        material: &[u8],
        out: &mut Outbox,
    ) {
        let sealing = Transport::sealing(route, &self.config.transport, material);
        self.add_connected(now, participant, transport, sealing, out);
    }

    fn add_connected(
        &mut self,
        now: Instant,
        participant: ParticipantId,
        id: TransportId,
        transport: Transport,
        out: &mut Outbox,
    ) {
        let Some(route) = transport.route().filter(|_| self.takes_transport(participant, id)) else { return };
        if let Some(key) = self.insert_line(now, participant, id, transport) {
            self.table.bind(route, key);
            self.after_transport(now, key, Edges { connected: true, channels_open: true, closed: None }, out);
        }
        self.count();
    }

    /// Work on a room, then look after what it has left.
    pub(super) fn with_room<R>(
        &mut self,
        now: Instant,
        key: RoomKey,
        out: &mut Outbox,
        work: impl FnOnce(Instant, &mut Room) -> R,
    ) -> Option<R> {
        let (room, _) = self.rooms.get_mut(key)?;
        let result = work(now, room);
        room.reallocate(now, &mut out.events);
        self.after_room(now, key, out);
        Some(result)
    }

    fn add_room(&mut self, now: Instant, id: RoomId) {
        if self.rooms.len() < self.config.limits.rooms && !self.ids.rooms.contains_key(&id) {
            let key = self.rooms.insert((Room::new(id, self.config.room, now), None));
            self.ids.rooms.insert(id, key);
        }
    }

    fn remove_room(&mut self, now: Instant, id: RoomId, out: &mut Outbox) {
        let Some(key) = self.ids.rooms.remove(&id) else { return };
        let participants: Vec<ParticipantId> = match self.rooms.get(key) {
            Some((room, _)) => room.participants.values().map(|participant| participant.id).collect(),
            None => return,
        };
        for participant in participants {
            self.remove_participant(now, participant, out);
        }
        let here = |(_, publication): &(&TrackId, &Publication)| publication.room == key;
        let mirrored: Vec<TrackId> = self.publications.iter().filter(here).map(|(track, _)| *track).collect();
        for track in mirrored {
            self.unpublish(now, track, out);
        }
        self.rooms.remove(key);
    }

    fn add_participant(&mut self, now: Instant, room: RoomId, id: ParticipantId, out: &mut Outbox) {
        let limits = &self.config.limits;
        let Some(room_key) = self.ids.rooms.get(&room).copied() else { return };
        let Some((room, _)) = self.rooms.get_mut(room_key) else { return };
        if self.ids.participants.contains_key(&id)
            || self.ids.participants.len() >= limits.participants
            || room.participants.len() >= limits.participants_per_room
        {
            return;
        }
        let key = room.add_participant(id);
        self.ids.participants.insert(id, (room_key, key));
        self.after_room(now, room_key, out);
    }

    fn remove_participant(&mut self, now: Instant, id: ParticipantId, out: &mut Outbox) {
        let Some((room_key, key)) = self.ids.participants.remove(&id) else { return };
        for transport in self.transports_of(room_key, key) {
            self.remove_transport(now, transport, out);
        }
        self.with_room(now, room_key, out, |_, room| room.remove_participant(key));
    }

    fn transports_of(&self, room: RoomKey, participant: ParticipantKey) -> Vec<TransportKey> {
        let is_of = |line: &Line| line.room == room && line.participant == participant;
        self.lines.iter().filter(|(_, line)| is_of(line)).map(|(key, _)| key).collect()
    }

    fn takes_transport(&self, participant: ParticipantId, id: TransportId) -> bool {
        let limits = &self.config.limits;
        let Some((room, key)) = self.ids.participants.get(&participant).copied() else { return false };
        !self.ids.transports.contains_key(&id)
            && self.lines.len() < limits.transports
            && self.transports_of(room, key).len() < limits.transports_per_participant
    }

    fn add_transport(
        &mut self,
        now: Instant,
        participant: ParticipantId,
        id: TransportId,
        params: &TransportParams,
        out: &mut Outbox,
    ) {
        let refused = Event::TransportFailed { transport: id, reason: CloseReason::Limit };
        if self.ids.transports.contains_key(&id) {
            return;
        }
        let Some(identity) = self.config.identity.clone().filter(|_| self.takes_transport(participant, id)) else {
            out.events.push(refused);
            return;
        };
        let transport = Transport::webrtc(now, &identity, &self.config.transport, params);
        let Some(key) = self.insert_line(now, participant, id, transport) else { return };
        if self.table.insert(key, &params.local.ufrag).is_err() {
            self.remove_transport(now, key, out);
            out.events.push(refused);
            return;
        }
        self.after_transport(now, key, Edges::NONE, out);
    }

    fn insert_line(
        &mut self,
        now: Instant,
        participant: ParticipantId,
        id: TransportId,
        transport: Transport,
    ) -> Option<TransportKey> {
        let (room, participant) = self.ids.participants.get(&participant).copied()?;
        let our_ssrc = Ssrc(self.rng.next_u32() | 1);
        let key = self.lines.insert(Line {
            id,
            room,
            participant,
            transport,
            connected: false,
            publications: Vec::new(),
            received: Vec::new(),
            sent: Vec::new(),
            extensions: ExtensionIds::default(),
            feedback: FeedbackGenerator::new(),
            clock: PublisherClock::new(),
            remb: RembCeiling::default(),
            our_ssrc,
            next_receiver_report: now + core::time::Duration::from_secs(1),
            next_sender_report: None,
            scheduled: None,
            bandwidth: None,
            queue: None,
            drains: false,
            rate: Rate::default(),
        });
        self.ids.transports.insert(id, key);
        Some(key)
    }

    pub(super) fn transport_connected(&mut self, now: Instant, key: TransportKey, out: &mut Outbox) {
        let Some(line) = self.lines.get_mut(key) else { return };
        line.connected = true;
        let room = line.room;
        line.next_receiver_report = now + core::time::Duration::from_secs(1);
        let due = if line.bandwidth.is_some() { now } else { line.next_receiver_report };
        self.timers.schedule(Owner::Transport(key), &mut line.scheduled, Some(due));
        let downtracks: Vec<_> =
            line.sent.iter().filter_map(|(_, sender)| self.senders.get(*sender)).map(|s| s.downtrack).collect();
        // Layers are chosen by what is known of the link from the first packet on.
        self.tell_room(now, key, out);
        self.with_room(now, room, out, |now, room| {
            for downtrack in downtracks {
                room.set_connected(now, downtrack, true);
            }
        });
    }

    pub(super) fn transport_failed(&mut self, now: Instant, key: TransportKey, reason: CloseReason, out: &mut Outbox) {
        let Some(line) = self.lines.get(key) else { return };
        out.events.push(Event::TransportFailed { transport: line.id, reason });
        self.remove_transport(now, key, out);
        self.count();
    }

    fn remove_transport(&mut self, now: Instant, key: TransportKey, out: &mut Outbox) {
        let Some(line) = self.lines.get_mut(key) else { return };
        // From here on nothing is sent to it, whatever the end of its tracks sets off.
        line.connected = false;
        let downtracks: Vec<DowntrackId> =
            line.sent.iter().filter_map(|(_, sender)| self.senders.get(*sender)).map(|s| s.id).collect();
        let tracks = line.publications.clone();
        for downtrack in downtracks {
            self.unsubscribe(now, downtrack, out);
        }
        for track in tracks {
            self.unpublish(now, track, out);
        }
        // What was decided for it and not sent yet ends here.
        self.drop_pending(key);
        if let Some(line) = self.lines.get_mut(key) {
            line.transport.close(now, out);
        }
        self.table.remove(key);
        if let Some(line) = self.lines.remove(key) {
            self.ids.transports.remove(&line.id);
            if let Some((room, _)) = self.rooms.get_mut(line.room) {
                room.on_estimate(line.participant, None);
            }
        }
    }

    fn drop_pending(&mut self, key: TransportKey) {
        let Some(line) = self.lines.get_mut(key) else { return };
        let mut next = line.queue.take().map(|(first, _)| first);
        while let Some(copy) = next.and_then(|at| self.pending.get(at as usize)) {
            next = copy.next;
            if copy.copy == Copy::First {
                self.fanout.dropped.add(crate::base::DropReason::Removed);
            }
        }
        self.drop_waiting(key);
    }

    fn set_remote(&mut self, now: Instant, id: TransportId, remote: &RemoteParams, out: &mut Outbox) {
        if let Some(key) = self.ids.transports.get(&id).copied()
            && let Some(line) = self.lines.get_mut(key)
        {
            let edges = line.transport.set_remote(now, remote);
            self.after_transport(now, key, edges, out);
        }
    }

    fn restart_ice(
        &mut self,
        now: Instant,
        id: TransportId,
        local: &IceCredentials,
        remote: Option<&RemoteParams>,
        out: &mut Outbox,
    ) {
        let Some(key) = self.ids.transports.get(&id).copied() else { return };
        let Some(line) = self.lines.get_mut(key) else { return };
        let (edges, retired) = line.transport.restart_ice(now, local, remote);
        if let Some(retired) = retired {
            self.table.remove_ufrag(key, &retired);
        }
        // A ufrag that is taken or one too many: checks to it are not found, the old ones go on.
        let _taken = self.table.add_ufrag(key, &local.ufrag);
        self.after_transport(now, key, edges, out);
    }

    fn cap(&mut self, now: Instant, id: TransportId, cap: Option<Bitrate>, out: &mut Outbox) {
        let Some(line) = self.ids.transports.get(&id).and_then(|key| self.lines.get(*key)) else { return };
        let participant = line.participant;
        self.with_room(now, line.room, out, |_, room| room.set_cap(participant, cap));
    }

    fn send_data(
        &mut self,
        now: Instant,
        transports: &[TransportId],
        channel: DataChannel,
        payload: &Bytes,
        out: &mut Outbox,
    ) {
        for id in transports {
            let Some(key) = self.ids.transports.get(id).copied() else { continue };
            let Some(line) = self.lines.get_mut(key) else { continue };
            let edges = line.transport.send_data(now, channel, payload).unwrap_or_else(|reason| {
                self.stats.dropped.add(reason);
                Edges::NONE
            });
            self.after_transport(now, key, edges, out);
        }
    }

    /// Sizes for the statistics.
    fn count(&mut self) {
        let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        self.stats.rooms = size(self.rooms.len());
        self.stats.participants = size(self.ids.participants.len());
        self.stats.transports = size(self.lines.len());
        self.stats.tracks = size(self.publications.len()).saturating_sub(self.stats.mirrored_tracks);
        self.stats.downtracks = size(self.ids.downtracks.len());
    }
}
