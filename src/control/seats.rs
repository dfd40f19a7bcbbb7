//! On which media threads the participants of one room are, and what each of those threads must be told of the room.
//!
//! A room begins on one thread and stays there while it can: nothing crosses then. Whoever comes when that thread is full
//! of this room, or busy with it, goes to another one; nobody is moved. The room machine knows nothing of it: its commands
//! are sorted here, and what is published on one thread is mirrored to the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use signalling::room::api::MediaPlace;

use super::bridge;
use super::registry::ThreadInfo;
use crate::base::{DowntrackId, ParticipantId, ShardId, TrackId, TransportId};
use crate::shard::command::Command;
use crate::transport::params::TrackParams;

/// A thread that works for more than this share of the time takes nobody more of a room that is a large part of it: the
/// rest is for what those who are there may still turn on.
const BUSY: f64 = 0.7;
/// Percent of a thread's connections that make a room a large part of it. Spreading a smaller one would not help.
const LARGE: usize = 40;
/// Of fewer than this a room is never taken apart for load: what crosses would cost more than it frees.
const FEW: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Seats {
    number: u64,
    threads: Arc<[ThreadInfo]>,
    places: Vec<Arc<MediaPlace>>,
    /// Most participants on one thread before others are used; 0: all stay on one.
    limit: usize,
    /// Threads the room is on, in the order it came to them. Never empty.
    open: Vec<usize>,
    /// Where whoever comes next goes.
    next: usize,
    participants: BTreeMap<ParticipantId, usize>,
    transports: BTreeMap<TransportId, (ParticipantId, usize)>,
    tracks: BTreeMap<TrackId, Published>,
    downtracks: BTreeMap<DowntrackId, (TransportId, TrackId, usize)>,
}

/// What is published in the room.
#[derive(Debug)]
struct Published {
    transport: TransportId,
    thread: usize,
    params: TrackParams,
}

/// Commands, each with the thread it is for.
pub(super) type Routed = Vec<(usize, Command)>;

impl Seats {
    /// A room that begins on thread `first`.
    pub(super) fn new(number: u64, threads: Arc<[ThreadInfo]>, first: usize, limit: usize) -> Self {
        let place = |thread: &ThreadInfo| {
            let (ufrag_prefix, candidates) = (thread.ufrag_prefix.clone(), thread.candidates.clone());
            Arc::new(MediaPlace { ufrag_prefix, candidates })
        };
        Self {
            number,
            places: threads.iter().map(place).collect(),
            threads,
            limit,
            open: vec![first],
            next: first,
            participants: BTreeMap::new(),
            transports: BTreeMap::new(),
            tracks: BTreeMap::new(),
            downtracks: BTreeMap::new(),
        }
    }

    /// Choose where whoever comes now goes. `busy` says how much of the time each thread works, 0 to 1.
    pub(super) fn choose(&mut self, busy: &[f64]) -> usize {
        let has_room = |thread: &usize| self.has_room(*thread, busy);
        let crowd = |thread: &usize| self.crowd(*thread);
        self.next = match self.open.iter().copied().find(has_room) {
            Some(thread) => thread,
            None => self.another(busy).or_else(|| self.open.iter().copied().min_by_key(crowd)).unwrap_or(self.next),
        };
        self.next
    }

    /// How the thread chosen last is named in descriptions.
    pub(super) fn place(&self) -> Option<Arc<MediaPlace>> {
        self.places.get(self.next).cloned()
    }

    /// The thread of a participant; of one unknown, that chosen last.
    pub(super) fn thread_of(&self, participant: Option<ParticipantId>) -> usize {
        participant.and_then(|id| self.participants.get(&id)).copied().unwrap_or(self.next)
    }

    /// A thread.
    pub(super) fn thread(&self, index: usize) -> Option<&ThreadInfo> {
        self.threads.get(index)
    }

    /// All threads of the node.
    pub(super) const fn threads(&self) -> &Arc<[ThreadInfo]> {
        &self.threads
    }

    /// The room is on more than one thread.
    pub(super) const fn is_spread(&self) -> bool {
        self.open.len() > 1
    }

    /// The room is on this thread.
    pub(super) fn is_on(&self, thread: usize) -> bool {
        self.open.contains(&thread)
    }

    /// What makes the room on the threads it is on.
    pub(super) fn begin(&self) -> Routed {
        self.open.iter().map(|thread| (*thread, self.add_room())).collect()
    }

    /// A thread has lost all it had of the room: what the others are to be told, and who was on it.
    pub(super) fn lost(&self, thread: usize) -> (Routed, Vec<ParticipantId>) {
        let shard = shard(thread);
        let forget = Command::ForgetShard { room: bridge::room_id(self.number), shard };
        let mut routed: Routed = self.others(thread).map(|other| (other, forget.clone())).collect();
        routed.push((thread, self.add_room()));
        routed.extend(self.mirrors(thread));
        let there = self.participants.iter().filter(|(_, on)| **on == thread).map(|(id, _)| *id);
        (routed, there.collect())
    }

    /// Sort a command of the room machine.
    pub(super) fn route(&mut self, command: Command) -> Routed {
        let home = self.open.first().copied().unwrap_or(self.next);
        let thread = match &command {
            Command::AddParticipant { participant, .. } => {
                self.participants.insert(*participant, self.next);
                let mut routed = self.open(self.next);
                routed.push((self.next, command));
                return routed;
            }
            Command::RemoveParticipant { participant } => return self.remove_participant(*participant),
            Command::SetPausing { participant, .. } => self.participants.get(participant).copied(),
            Command::AddTransport { participant, transport, .. } => {
                let thread = self.participants.get(participant).copied();
                self.transports.insert(*transport, (*participant, thread.unwrap_or(home)));
                thread
            }
            Command::SetRemote { transport, .. }
            | Command::RestartIce { transport, .. }
            | Command::CapBitrate { transport, .. }
            | Command::DataTaken { transport, .. } => self.thread_of_transport(*transport),
            Command::RemoveTransport { transport } => {
                let thread = self.thread_of_transport(*transport).unwrap_or(home);
                let mut routed = vec![(thread, command.clone())];
                routed.extend(self.forget_transport(*transport));
                return routed;
            }
            Command::Publish { transport, track, params } => {
                let thread = self.thread_of_transport(*transport).unwrap_or(home);
                let published = Published { transport: *transport, thread, params: params.clone() };
                let mirror = self.mirror(*track, &published);
                self.tracks.insert(*track, published);
                let mut routed = vec![(thread, command)];
                routed.extend(self.others(thread).map(|other| (other, mirror.clone())));
                return routed;
            }
            Command::Unpublish { track } => {
                self.forget_track(*track);
                return self.open.iter().map(|thread| (*thread, command.clone())).collect();
            }
            Command::SetMuted { track, muted } => {
                if let Some(published) = self.tracks.get_mut(track) {
                    published.params.muted = *muted;
                }
                return self.open.iter().map(|thread| (*thread, command.clone())).collect();
            }
            Command::Subscribe { transport, track, downtrack, .. } => {
                let thread = self.thread_of_transport(*transport);
                self.downtracks.insert(*downtrack, (*transport, *track, thread.unwrap_or(home)));
                thread
            }
            Command::SetDemand { downtrack, .. } => self.downtracks.get(downtrack).map(|(_, _, thread)| *thread),
            Command::Unsubscribe { downtrack } => self.downtracks.remove(downtrack).map(|(_, _, thread)| thread),
            Command::SendData { .. } => return self.sort_data(command),
            Command::AddRoom { .. } | Command::RemoveRoom { .. } => {
                return self.open.iter().map(|thread| (*thread, command.clone())).collect();
            }
            Command::Mirror { .. } | Command::ForgetShard { .. } => None,
        };
        vec![(thread.unwrap_or(home), command)]
    }

    fn has_room(&self, thread: usize, busy: &[f64]) -> bool {
        let here = self.crowd(thread);
        if self.limit == 0 || here == 0 {
            return true;
        }
        let Some(info) = self.threads.get(thread) else { return false };
        let all = info.load.load(Ordering::Relaxed).max(here);
        // One more makes it a little busier, as the average of those who are there does.
        let share = busy.get(thread).copied().unwrap_or_default();
        let count = f64::from(u32::try_from(all).unwrap_or(u32::MAX).max(1));
        let projected = share + share / count;
        here < self.limit && (here < FEW || projected <= BUSY || here * 100 <= all * LARGE)
    }

    /// A thread the room is not on yet, and that is less busy than those it is on: the one with the fewest connections.
    fn another(&self, busy: &[f64]) -> Option<usize> {
        let load = |thread: &usize| self.threads.get(*thread).map(|info| info.load.load(Ordering::Relaxed));
        let free = |thread: &usize| busy.get(*thread).is_none_or(|share| *share <= BUSY);
        (0..self.threads.len()).filter(|thread| !self.open.contains(thread)).filter(free).min_by_key(load)
    }

    fn crowd(&self, thread: usize) -> usize {
        self.participants.values().filter(|on| **on == thread).count()
    }

    fn add_room(&self) -> Command {
        Command::AddRoom { room: bridge::room_id(self.number) }
    }

    fn others(&self, thread: usize) -> impl Iterator<Item = usize> {
        self.open.iter().copied().filter(move |open| *open != thread)
    }

    /// Bring the room to a thread.
    fn open(&mut self, thread: usize) -> Routed {
        if self.open.contains(&thread) {
            return Vec::new();
        }
        self.open.push(thread);
        let mut routed = vec![(thread, self.add_room())];
        routed.extend(self.mirrors(thread));
        routed
    }

    /// What is published elsewhere, for a thread.
    fn mirrors(&self, thread: usize) -> Routed {
        let elsewhere = self.tracks.iter().filter(|(_, published)| published.thread != thread);
        elsewhere.map(|(track, published)| (thread, self.mirror(*track, published))).collect()
    }

    fn mirror(&self, track: TrackId, published: &Published) -> Command {
        let (room, origin) = (bridge::room_id(self.number), shard(published.thread));
        Command::Mirror { room, track, origin, params: published.params.clone() }
    }

    fn thread_of_transport(&self, transport: TransportId) -> Option<usize> {
        self.transports.get(&transport).map(|(_, thread)| *thread)
    }

    fn remove_participant(&mut self, participant: ParticipantId) -> Routed {
        let home = self.open.first().copied().unwrap_or(self.next);
        let thread = self.participants.remove(&participant).unwrap_or(home);
        let mut routed = vec![(thread, Command::RemoveParticipant { participant })];
        let is_of =
            |(transport, (of, _)): (&TransportId, &(ParticipantId, usize))| (*of == participant).then_some(*transport);
        let transports: Vec<TransportId> = self.transports.iter().filter_map(is_of).collect();
        for transport in transports {
            routed.extend(self.forget_transport(transport));
        }
        // The first thread stays, for those who come back.
        if thread != home && self.crowd(thread) == 0 {
            self.open.retain(|open| *open != thread);
            routed.push((thread, Command::RemoveRoom { room: bridge::room_id(self.number) }));
        }
        routed
    }

    /// What was published over a transport ends elsewhere too.
    fn forget_transport(&mut self, transport: TransportId) -> Routed {
        let Some((_, thread)) = self.transports.remove(&transport) else { return Vec::new() };
        self.downtracks.retain(|_, (over, _, _)| *over != transport);
        let of = |(track, published): (&TrackId, &Published)| (published.transport == transport).then_some(*track);
        let tracks: BTreeSet<TrackId> = self.tracks.iter().filter_map(of).collect();
        let mut routed = Vec::new();
        for track in tracks {
            self.forget_track(track);
            routed.extend(self.others(thread).map(|other| (other, Command::Unpublish { track })));
        }
        routed
    }

    fn forget_track(&mut self, track: TrackId) {
        self.tracks.remove(&track);
        self.downtracks.retain(|_, (_, of, _)| *of != track);
    }

    /// A message goes to each thread once, for those who are there.
    fn sort_data(&self, command: Command) -> Routed {
        let home = self.open.first().copied().unwrap_or(self.next);
        let Command::SendData { transports, channel, payload } = command else { return vec![(home, command)] };
        let mut sorted: BTreeMap<usize, Vec<TransportId>> = BTreeMap::new();
        for transport in transports {
            sorted.entry(self.thread_of_transport(transport).unwrap_or(home)).or_default().push(transport);
        }
        let send = |transports| Command::SendData { transports, channel, payload: payload.clone() };
        sorted.into_iter().map(|(thread, transports)| (thread, send(transports))).collect()
    }
}

fn shard(thread: usize) -> ShardId {
    ShardId(u16::try_from(thread).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests;
