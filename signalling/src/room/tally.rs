//! How many there are of what in a room: kept, not counted, because it is told at each join.

use super::Room;
use super::participant::Participant;
use crate::media::ParticipantId;

/// Participants that others can see, those of them that publish, and recorders. Of one participant each is 0 or 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) visible: u32,
    pub(super) publishers: u32,
    pub(super) recorders: u32,
}

impl Tally {
    fn of(participant: &Participant) -> Self {
        let visible = !participant.is_hidden();
        Self {
            visible: visible.into(),
            publishers: (visible && participant.is_publisher()).into(),
            recorders: participant.grants.recorder.into(),
        }
    }

    const fn replace(&mut self, before: Self, after: Self) {
        self.visible = self.visible.saturating_sub(before.visible).saturating_add(after.visible);
        self.publishers = self.publishers.saturating_sub(before.publishers).saturating_add(after.publishers);
        self.recorders = self.recorders.saturating_sub(before.recorders).saturating_add(after.recorders);
    }
}

impl Room {
    /// It came, or may be something else than before.
    pub(super) fn recount(&mut self, id: ParticipantId) {
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let now = Tally::of(participant);
        self.tally.replace(std::mem::replace(&mut participant.counted, now), now);
    }

    /// It is gone.
    pub(super) const fn uncount(&mut self, gone: &Participant) {
        self.tally.replace(gone.counted, Tally { visible: 0, publishers: 0, recorders: 0 });
    }
}
