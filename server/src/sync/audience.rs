//! Who hears of which commit.
//!
//! Sessions with the same scopes are one audience. A commit wakes those audiences whose scopes it touches, and those of
//! the devices that pushed it: what it costs does not grow with the devices that it does not concern.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farshore_sync_core::bugs::{self, Bug};
use farshore_sync_core::digest::Sum;
use farshore_sync_core::ids::Scope;
use farshore_sync_core::wire::Grant;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::update::Update;

/// Updates that a session may fall behind before it reads from the store instead. Room for them is kept for each set
/// of scopes.
pub const MAX_UPDATES_BEHIND: usize = 32;

/// A commit as an audience hears of it.
#[derive(Debug, Clone)]
pub struct Heard {
    /// The commit.
    pub update: Arc<Update>,
    /// No commit between this seq and the one before the update concerns the audience.
    pub after: u64,
}

/// All audiences of a lane.
#[derive(Debug, Default)]
pub struct Audiences {
    all: Mutex<All>,
    /// Every audience has been told what concerns it up to this seq.
    told: AtomicU64,
}

#[derive(Debug, Default)]
struct All {
    by_scopes: BTreeMap<Sum, Audience>,
    of_scope: BTreeMap<Scope, BTreeSet<Sum>>,
    /// The latest commit that is known of.
    seq: u64,
}

#[derive(Debug)]
struct Audience {
    scopes: Vec<Scope>,
    updates: broadcast::Sender<Heard>,
    sessions: usize,
    /// The latest commit that it was told of.
    told: u64,
}

impl Audience {
    fn tell(&mut self, update: &Arc<Update>) {
        if update.seq() > self.told {
            let after = std::mem::replace(&mut self.told, update.seq());
            // Nobody listens any more: the next one begins with the store.
            let _ = self.updates.send(Heard { update: Arc::clone(update), after });
        }
    }
}

impl Audiences {
    /// Whatever concerns a session with these scopes from now on.
    #[must_use]
    pub fn join(self: &Arc<Self>, grants: &[Grant], grants_hash: Sum) -> Attendance {
        let mut all = self.all();
        let All { by_scopes, of_scope, seq } = &mut *all;
        let audience = by_scopes.entry(grants_hash).or_insert_with(|| {
            let scopes: Vec<Scope> = grants.iter().map(|grant| grant.scope.clone()).collect();
            let heard = if bugs::planted(Bug::OneScopeHeard) { 1 } else { scopes.len() };
            for scope in scopes.iter().take(heard) {
                of_scope.entry(scope.clone()).or_default().insert(grants_hash);
            }
            let (updates, _) = broadcast::channel(MAX_UPDATES_BEHIND);
            Audience { scopes, updates, sessions: 0, told: *seq }
        });
        audience.sessions += 1;
        let updates = audience.updates.subscribe();
        Attendance { updates, grants_hash, audiences: Arc::clone(self) }
    }

    /// Tells of a commit of this lane: whoever reads a scope that it touches, and these.
    pub fn tell(&self, update: &Arc<Update>, pushers: &[Sum]) {
        let mut all = self.all();
        if update.seq_before() > all.seq {
            // What lies between came from another node, and may concern anybody.
            all.tell_everybody(&Arc::new(Update::elsewhere(update.seq_before())));
        }
        let All { by_scopes, of_scope, seq } = &mut *all;
        let readers = update.scopes().filter_map(|scope| of_scope.get(scope)).flatten();
        for grants_hash in readers.chain(pushers) {
            if let Some(audience) = by_scopes.get_mut(grants_hash) {
                audience.tell(update);
            }
        }
        *seq = update.seq().max(*seq);
        self.told.store(*seq, Ordering::Release);
    }

    /// Tells everybody of a commit of another node.
    pub fn tell_of_elsewhere(&self, seq: u64) {
        let mut all = self.all();
        // It may be one of ours.
        if seq > all.seq {
            all.tell_everybody(&Arc::new(Update::elsewhere(seq)));
            self.told.store(all.seq, Ordering::Release);
        }
    }

    /// Ends every session.
    pub fn begin_anew(&self) {
        let update = Arc::new(Update::begin_anew());
        for audience in self.all().by_scopes.values() {
            // Nobody listens: nobody has to end.
            let _ = audience.updates.send(Heard { update: Arc::clone(&update), after: 0 });
        }
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    fn tell_everybody(&mut self, update: &Arc<Update>) {
        self.by_scopes.values_mut().for_each(|audience| audience.tell(update));
        self.seq = update.seq().max(self.seq);
    }

    fn leave(&mut self, grants_hash: Sum) {
        let Some(audience) = self.by_scopes.get_mut(&grants_hash) else { return };
        audience.sessions -= 1;
        if audience.sessions > 0 {
            return;
        }
        let gone = self.by_scopes.remove(&grants_hash);
        for scope in gone.into_iter().flat_map(|gone| gone.scopes) {
            if let Some(audiences) = self.of_scope.get_mut(&scope) {
                audiences.remove(&grants_hash);
                if audiences.is_empty() {
                    self.of_scope.remove(&scope);
                }
            }
        }
    }
}

/// A session's place in its audience, until it is dropped.
#[derive(Debug)]
pub struct Attendance {
    updates: broadcast::Receiver<Heard>,
    grants_hash: Sum,
    audiences: Arc<Audiences>,
}

impl Attendance {
    /// What identifies the scopes of the audience.
    #[must_use]
    pub const fn grants_hash(&self) -> Sum {
        self.grants_hash
    }

    /// What concerns the session next.
    pub async fn next(&mut self) -> Result<Heard, RecvError> {
        self.updates.recv().await
    }

    /// The seq up to which nothing concerns the session but what it has taken from here; `None` where more waits here.
    #[must_use]
    pub fn told(&self) -> Option<u64> {
        // In this order: what the lane tells of afterwards has a later seq.
        let told = self.audiences.told.load(Ordering::Acquire);
        (self.updates.is_empty() || bugs::planted(Bug::ToldTooEarly)).then_some(told)
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        self.audiences.all().leave(self.grants_hash);
    }
}

#[cfg(test)]
mod tests {
    use farshore_store::sync::{ChangedRow, Committed, RowChange};
    use farshore_sync_core::ids::{CollectionId, RowId};
    use farshore_sync_core::wire::{Rights, scopes_hash};
    use futures_util::FutureExt as _;

    use super::*;

    fn update(seq_before: u64, seq: u64, scopes: &[&str]) -> Arc<Update> {
        let row = |scope: &&str| ChangedRow {
            seq,
            scope: scope.parse().unwrap(),
            collection: CollectionId(1),
            row: RowId::from_bytes([1; 16]),
            change: RowChange::State(vec![1]),
            chunks: vec![],
        };
        let rows = scopes.iter().map(row).collect();
        let (results, totals) = (vec![], vec![]);
        let documents_came_anew = false;
        let committed = Committed { seq_before, seq, results, rows, totals, documents_came_anew };
        Arc::new(Update::new(committed))
    }

    struct Hall(Arc<Audiences>);

    impl Hall {
        fn join(&self, scopes: &[&str]) -> Attendance {
            let grants = grants(scopes);
            self.0.join(&grants, scopes_hash(&grants))
        }
    }

    fn grants(scopes: &[&str]) -> Vec<Grant> {
        let grant = |scope: &&str| Grant { scope: scope.parse().unwrap(), rights: Rights::Write };
        scopes.iter().map(grant).collect()
    }

    fn heard(attendance: &mut Attendance) -> Option<(u64, u64)> {
        let heard = attendance.next().now_or_never()?.unwrap();
        Some((heard.after, heard.update.seq()))
    }

    #[test]
    fn a_commit_wakes_whom_it_concerns_and_nobody_else() {
        let hall = Hall(Arc::default());
        hall.0.tell(&update(4, 5, &["a"]), &[]);
        let [mut a, mut b] = [hall.join(&["a", "c"]), hall.join(&["b", "c"])];
        let mut pusher = hall.join(&["d"]);
        for (seq, scope) in [(6, "a"), (7, "b"), (8, "c"), (9, "a")] {
            hall.0.tell(&update(seq - 1, seq, &[scope]), &[]);
        }
        assert_eq!((a.told(), b.told(), pusher.told()), (None, None, Some(9)));
        assert_eq!([heard(&mut a), heard(&mut a)], [Some((5, 6)), Some((6, 8))]);
        assert_eq!([heard(&mut a), heard(&mut a)], [Some((8, 9)), None]);
        assert_eq!(
            [heard(&mut b), heard(&mut b), heard(&mut b)],
            [Some((5, 7)), Some((7, 8)), None]
        );
        assert_eq!((a.told(), b.told()), (Some(9), Some(9)));
        hall.0.tell(&update(9, 10, &["a", "c", "a"]), &[scopes_hash(&grants(&["d"]))]);
        assert_eq!([heard(&mut a), heard(&mut a)], [Some((9, 10)), None]);
        assert_eq!(heard(&mut pusher), Some((5, 10)));
    }

    #[test]
    fn everybody_hears_that_something_came_from_elsewhere() {
        let hall = Hall(Arc::default());
        let [mut a, mut b] = [hall.join(&["a"]), hall.join(&["b"])];
        // The lane does not know what there was before its first commit.
        hall.0.tell(&update(4, 5, &["a"]), &[]);
        assert_eq!([heard(&mut a), heard(&mut a)], [Some((0, 4)), Some((4, 5))]);
        assert_eq!([heard(&mut b), heard(&mut b)], [Some((0, 4)), None]);
        hall.0.tell_of_elsewhere(7);
        assert_eq!([heard(&mut a), heard(&mut b)], [Some((5, 7)), Some((4, 7))]);
        // A commit of this node, of which it tells only after the one that followed it elsewhere.
        hall.0.tell(&update(5, 6, &["a"]), &[]);
        hall.0.tell(&update(7, 8, &["a"]), &[]);
        assert_eq!([heard(&mut a), heard(&mut a)], [Some((7, 8)), None]);
        hall.0.tell_of_elsewhere(8);
        assert_eq!((heard(&mut b), b.told()), (None, Some(8)));
        hall.0.tell(&update(9, 10, &["b"]), &[]);
        assert_eq!(heard(&mut a), Some((8, 9)));
        assert_eq!([heard(&mut b), heard(&mut b)], [Some((7, 9)), Some((9, 10))]);
    }

    #[test]
    fn an_audience_goes_with_its_last_session() {
        let hall = Hall(Arc::default());
        let (one, two, other) = (hall.join(&["a", "b"]), hall.join(&["a", "b"]), hall.join(&["b"]));
        let left = || {
            let all = hall.0.all();
            (all.by_scopes.len(), all.of_scope.len())
        };
        drop(one);
        assert_eq!(left(), (2, 2));
        drop(two);
        assert_eq!(left(), (1, 1));
        drop(other);
        assert_eq!(left(), (0, 0));
    }
}
