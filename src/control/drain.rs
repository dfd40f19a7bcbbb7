//! Takes a node out of service: no new rooms, calls end by themselves or are moved, room by room.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use signalling::room::api::{AdminAnswer, AdminRequest};

use super::http::App;
use super::nodes::{Misplaced, State};
use super::places::Places;
use super::registry::{FULL, Registry, RoomHandle};

/// How often it is looked whether all calls have ended.
const LOOK: Duration = Duration::from_millis(100);
/// How long a room may take to say how many are in it.
const PATIENCE: Duration = Duration::from_secs(1);
/// Participants told to reconnect per second, at least: what another node takes in without notice.
const LEAST_PACE: u32 = 20;
/// And at most this part of all of them per second, so that the largest node is empty after twenty seconds.
const PACE_PART: u32 = 20;

/// No new rooms; what is there gets as long as `patience` to end.
pub(super) async fn wait(app: &App, places: &Places, patience: Duration) {
    app.draining.store(true, Ordering::Relaxed);
    app.registry.close().await;
    let ended = async {
        while !places.is_empty() {
            tokio::time::sleep(LOOK).await;
        }
    };
    // What is left is moved.
    let _ = tokio::time::timeout(patience, ended).await;
}

/// Send everybody away, to come back elsewhere. A room goes as a whole, large ones last: the fewer are left, the less
/// matters if something is wrong with the new place.
pub(super) async fn send_away(app: &App) {
    let mut rooms = Vec::new();
    for room in app.registry.all().await {
        rooms.push((participants(&room).await, room));
    }
    rooms.sort_by_key(|(size, _)| *size);
    let pace = pace(rooms.iter().map(|(size, _)| *size).sum());
    let mut told = 0;
    for (size, room) in rooms {
        if told >= pace {
            tokio::time::sleep(Duration::from_secs(1) * told / pace).await;
            told = 0;
        }
        room.send_away();
        told += size;
    }
}

/// Tell the other nodes what this one takes, as long as it runs.
pub(super) async fn tell(app: Weak<App>) {
    while let Some(app) = app.upgrade() {
        if app.leaving.load(Ordering::Relaxed) {
            return;
        }
        let closed = matches!(app.registry.check("", true).await, Err(FULL));
        let state = if closed || app.draining.load(Ordering::Relaxed) { State::Full } else { State::Ready };
        app.nodes.set_state(state, thousandths(app.metrics.load.figure().load));
        app.metrics.nodes.set(i64::try_from(app.nodes.others().len()).map_or(i64::MAX, |others| others + 1));
        let silence = app.nodes.silence().unwrap_or_default().as_secs();
        app.metrics.directory_silent.set(i64::try_from(silence).unwrap_or(i64::MAX));
        drop(app);
        tokio::time::sleep(LOOK * 5).await;
    }
}

/// From now on this node's rooms are other nodes', where there are any. What comes for them is passed on to there.
pub(super) async fn leave(app: &App) {
    app.leaving.store(true, Ordering::Relaxed);
    app.nodes.set_state(State::Leaving, 0);
    if !app.nodes.is_alone() {
        // Others are to know before clients come to them.
        tokio::time::sleep(LOOK).await;
    }
}

/// Rooms that by the rule of all nodes go on elsewhere are sent there.
pub(super) async fn move_misplaced(registry: Registry, mut misplaced: Misplaced) {
    while let Some(room) = misplaced.recv().await {
        if let Some(room) = registry.find(&room).await {
            tracing::info!("a room goes on in another node that has it too");
            room.send_away();
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1000")]
fn thousandths(load: f64) -> u32 {
    (load.clamp(0.0, 1.0) * 1_000.0) as u32
}

async fn participants(room: &RoomHandle) -> u32 {
    match tokio::time::timeout(PATIENCE, room.admin(AdminRequest::GetRoom)).await {
        Ok(Some(Ok(AdminAnswer::Room(room)))) => room.num_participants,
        _ => 0,
    }
}

/// Participants per second.
fn pace(all: u32) -> u32 {
    (all / PACE_PART).max(LEAST_PACE)
}

#[cfg(test)]
mod tests {
    use super::pace;

    #[test]
    fn small_nodes_are_emptied_at_once_and_large_ones_in_twenty_seconds() {
        assert_eq!(pace(3), 20);
        assert_eq!(pace(400), 20);
        assert_eq!(pace(10_000), 500);
    }
}
