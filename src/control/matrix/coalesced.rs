//! Answers that are asked for once, however many want them at the same time, and remembered for a while, bounded in number.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;

/// Hash of what was asked. Tokens are secrets: only their hashes are kept.
pub(super) type Key = [u8; 32];

/// SHA-256 over the parts, each ended by a byte that none of them has.
pub(super) fn key(parts: &[&str]) -> Key {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        context.update(part.as_bytes());
        context.update(&[0xff]);
    }
    context.finish().as_ref().try_into().unwrap_or([0; 32])
}

type Cell<V> = Arc<OnceCell<(V, Instant)>>;

/// The table. The lock is held for look-ups in it only, never while something is asked.
#[derive(Debug)]
#[expect(clippy::disallowed_types, reason = "shared by HTTP handlers, locked for a look-up, never across an await")]
pub(super) struct Coalesced<V> {
    cells: std::sync::Mutex<BTreeMap<Key, Cell<V>>>,
    limit: usize,
}

impl<V: Clone> Coalesced<V> {
    /// Remembers at most `limit` answers.
    pub(super) fn new(limit: usize) -> Self {
        Self { cells: Default::default(), limit }
    }

    /// The answer, from memory or by asking. `ask` gives it with how long it is good.
    pub(super) async fn get<F>(&self, key: Key, ask: impl FnOnce() -> F) -> V
    where
        F: Future<Output = (V, Duration)>,
    {
        let cell = self.cell(key);
        // Whoever comes while it is being asked waits for the same answer; if the one who asks goes away, the next asks.
        let (value, _) = cell
            .get_or_init(|| async {
                let (value, good_for) = ask().await;
                (value, Instant::now() + good_for)
            })
            .await;
        value.clone()
    }

    fn cell(&self, key: Key) -> Cell<V> {
        let mut cells = self.cells.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = Instant::now();
        let over = |cell: &Cell<V>| cell.get().is_some_and(|(_, until)| *until <= now);
        if let Some(cell) = cells.get(&key).filter(|cell| !over(cell)) {
            return cell.clone();
        }
        if cells.len() >= self.limit {
            cells.retain(|_, cell| !over(cell));
        }
        let cell = Cell::default();
        // Full of fresh answers: this one is asked, and not remembered.
        if cells.len() < self.limit {
            cells.insert(key, cell.clone());
        }
        cell
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn asks_once_for_many_and_again_when_the_answer_is_old() {
        let table = Coalesced::new(4);
        let asked = AtomicU32::new(0);
        let ask = |good_for| {
            let asked = &asked;
            move || async move {
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                (7, good_for)
            }
        };
        let one = key(&["a", "b"]);
        assert_eq!(tokio::join!(table.get(one, ask(LONG)), table.get(one, ask(LONG))), (7, 7));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        let other = key(&["ab", ""]);
        assert_ne!(one, other);
        table.get(other, ask(Duration::ZERO)).await;
        table.get(other, ask(LONG)).await;
        assert_eq!(asked.load(Ordering::Relaxed), 3, "an answer that is good for no time is asked again");
    }

    #[tokio::test]
    async fn never_remembers_more_than_its_limit() {
        let table = Coalesced::new(4);
        for number in 0..100_u8 {
            table.get([number; 32], || async { (number, LONG) }).await;
        }
        assert!(table.cells.lock().is_ok_and(|cells| cells.len() <= 4));
    }
}
