//! Turns: large work of all tenants shares the processors by turns, so that small work of other tenants finds one.
//!
//! A commit of at most [`SMALL_COMMIT_BYTES`] waits for nobody, and neither does reading a message of at most
//! [`SMALL_MESSAGE_BYTES`], or writing one for others. Larger ones take one of a few places at a time, which go round
//! among the tenants that wait: each gets as many bytes for a round as any other, and saves up what it does not use
//! while it waits (deficit round robin, Shreedhar and Varghese 1995). A tenant that pushes ten times as much as others
//! waits for its own commits and not they for it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farshore_sync_core::ids::TenantId;
use tokio::sync::oneshot;

/// Largest commit that waits for no turn, in bytes of its transactions.
pub const SMALL_COMMIT_BYTES: usize = 64 << 10;
/// Largest message that is read or written without a turn, in bytes on the wire or as they are estimated.
pub const SMALL_MESSAGE_BYTES: usize = 16 << 10;
/// What a tenant may do for each round, in bytes.
const BYTES_PER_ROUND: usize = 256 << 10;

/// Who waits for a turn, and how many have one. Clones are the same turns.
#[derive(Debug, Clone)]
pub struct Turns {
    small_bytes: usize,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    free: usize,
    /// The tenants that wait, in the order of the round.
    round: VecDeque<TenantId>,
    tenants: HashMap<TenantId, Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    work: VecDeque<(usize, oneshot::Sender<Turn>)>,
    saved_bytes: usize,
}

/// A turn; it ends when this is dropped.
#[derive(Debug)]
pub struct Turn(Option<Turns>);

impl Turns {
    /// So many at a time, and what has at most so many bytes without a turn.
    #[must_use]
    pub fn new(places: usize, small_bytes: usize) -> Self {
        let (round, tenants) = (VecDeque::new(), HashMap::new());
        let waiting = Waiting { free: places.max(1), round, tenants };
        Self { small_bytes, waiting: Arc::new(Mutex::new(waiting)) }
    }

    /// Waits until it is the tenant's turn for work on so many bytes.
    pub async fn take(&self, tenant: &TenantId, bytes: usize) -> Turn {
        if bytes <= self.small_bytes {
            return Turn(None);
        }
        let (granted, turn) = oneshot::channel();
        {
            let mut waiting = self.lock();
            let queue = waiting.tenants.entry(tenant.clone()).or_default();
            queue.work.push_back((bytes, granted));
            if queue.work.len() == 1 {
                waiting.round.push_back(tenant.clone());
            }
        }
        self.hand_out();
        turn.await.expect("whoever waits is in the queue until its turn comes")
    }

    /// Gives free places to those whose turn it is.
    fn hand_out(&self) {
        let mut waiting = self.lock();
        while waiting.free > 0
            && let Some(granted) = waiting.next()
        {
            match granted.send(Turn(Some(self.clone()))) {
                Ok(()) => waiting.free -= 1,
                // Nobody waits for it any more; the place is still free.
                Err(mut unwanted) => unwanted.0 = None,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Whose turn is next. A round ends: each adds to what the first in a queue has saved.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        loop {
            let tenant = self.round.pop_front()?;
            let queue = self.tenants.get_mut(&tenant).expect("who is in the round has a queue");
            let (bytes, _) = queue.work.front().expect("an empty queue leaves the round");
            if *bytes > queue.saved_bytes {
                queue.saved_bytes += BYTES_PER_ROUND;
                self.round.push_back(tenant);
                continue;
            }
            let (bytes, granted) = queue.work.pop_front().expect("it was looked at");
            queue.saved_bytes -= bytes;
            if queue.work.is_empty() {
                // Who does not wait saves nothing.
                self.tenants.remove(&tenant);
            } else {
                self.round.push_front(tenant);
            }
            return Some(granted);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.lock().free += 1;
            turns.hand_out();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    const SMALL: usize = 1 << 10;
    const LARGE: usize = 1 << 20;

    #[test]
    fn a_small_commit_waits_for_nobody() {
        let turns = Turns::new(1, SMALL);
        let large = turns.take(&tenant("noisy"), LARGE).now_or_never();
        assert!(large.is_some());
        for _ in 0..100 {
            assert!(turns.take(&tenant("quiet"), SMALL).now_or_never().is_some());
        }
        assert!(turns.take(&tenant("quiet"), SMALL + 1).now_or_never().is_none());
    }

    #[tokio::test]
    async fn tenants_get_the_same_bytes_however_many_commits_wait() {
        let turns = Turns::new(1, SMALL);
        let first = turns.take(&tenant("noisy"), LARGE).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for (name, bytes, count) in [("noisy", 4 * LARGE, 5), ("quiet", LARGE, 20)] {
            for _ in 0..count {
                let (turns, order) = (turns.clone(), Arc::clone(&order));
                tasks.push(tokio::spawn(async move {
                    let turn = turns.take(&tenant(name), bytes).await;
                    order.lock().unwrap().push((name, bytes));
                    drop(turn);
                }));
            }
        }
        while turns.lock().tenants.values().map(|queue| queue.work.len()).sum::<usize>() < 25 {
            tokio::task::yield_now().await;
        }
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        let mut ahead = 0_i64;
        for (name, bytes) in order.lock().unwrap().iter() {
            ahead += if *name == "noisy" { *bytes as i64 } else { -(*bytes as i64) };
            assert!(ahead.unsigned_abs() as usize <= 5 * LARGE, "{ahead} bytes ahead");
        }
        assert_eq!(ahead, 0);
        let turns = turns.lock();
        assert!(turns.free == 1 && turns.tenants.is_empty() && turns.round.is_empty());
    }

    #[tokio::test]
    async fn who_no_longer_waits_takes_no_place() {
        let turns = Turns::new(1, SMALL);
        let first = turns.take(&tenant("first"), LARGE).await;
        assert!(
            turns.take(&tenant("second"), LARGE).now_or_never().is_none(),
            "it went away again"
        );
        drop(first);
        assert!(turns.take(&tenant("third"), LARGE).now_or_never().is_some());
    }
}
