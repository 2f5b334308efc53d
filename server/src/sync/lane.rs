//! The lane of a tenant: pushes of all its sessions go into one group commit, and every commit comes out once for
//! those whom it concerns.
//!
//! One task for each tenant that has a session. A push is answered after its commit is durable, and before the
//! commit is handed to readers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use farshore_store::SharedTenantStore;
use farshore_store::StoreError;
use farshore_store::pushed::PushedTransaction;
use farshore_store::sync::{Batch, DevicePush, PushResult};
use farshore_sync_core::bugs::{self, Bug};
use farshore_sync_core::digest::Sum;
use farshore_sync_core::ids::{DeviceId, TenantId};
use farshore_sync_core::reason::ReasonCode;
use farshore_sync_core::wire::Grant;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::audience::{Attendance, Audiences};
use super::pace::{MAX_PARTS_OF_PUSH, Pace};
use super::service::SyncLimits;
use super::session::MAX_PUSHES_WITH_LANE;
use super::turns::Turns;
use super::update::Update;
use crate::clock::SharedClock;

/// Transactions after which a group commit takes no more pushes in.
pub const MAX_TRANSACTIONS_PER_COMMIT: usize = 2_048;

/// What became of a push.
pub type Answer = Result<PushResult, Arc<StoreError>>;

/// A session's push, and who it is from.
#[derive(Debug)]
pub struct Submission {
    /// What is pushed.
    pub push: DevicePush,
    /// Whom the answer goes to.
    pub from: Submitter,
    /// The hash of the session's scopes: it hears of the commit, whatever that touches.
    pub grants_hash: Sum,
}

/// A session's way into a lane. Once a push of it has failed, all later ones do: a device's transactions must not
/// overtake each other, and those that were overtaken would look like another device's when they come again.
#[derive(Debug, Clone)]
pub struct Submitter {
    answers: mpsc::Sender<Answer>,
    failed: Arc<OnceLock<Arc<StoreError>>>,
}

impl Submitter {
    /// A way, and where its answers arrive. There is room for all pushes that a session may have with the lane.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Answer>) {
        let (answers, receiver) = mpsc::channel(MAX_PUSHES_WITH_LANE as usize + MAX_PARTS_OF_PUSH);
        (Self { answers, failed: Arc::default() }, receiver)
    }

    /// Answers; a session that has gone needs no answer.
    fn answer(&self, answer: Answer) {
        if let Err(error) = &answer {
            let _ = self.failed.set(Arc::clone(error));
        }
        let _ = self.answers.try_send(answer);
    }
}

/// The way to a tenant's lane.
#[derive(Debug)]
pub struct LaneHandle {
    submissions: mpsc::Sender<Queued>,
    audiences: Arc<Audiences>,
    authority: watch::Sender<u64>,
    is_over: AtomicBool,
}

impl LaneHandle {
    /// Starts the lane of a tenant. It ends when the last handle is dropped and nothing waits any more.
    pub fn start(
        tenant: TenantId,
        store: SharedTenantStore,
        clock: SharedClock,
        limits: &SyncLimits,
        turns: Turns,
        observer: impl LaneObserver,
    ) -> Arc<Self> {
        let (submissions, waiting) = mpsc::channel(limits.lane_queue_pushes);
        let pace = Pace::new(limits.tenant_bytes_per_second);
        let max_bytes = limits.most_commit_bytes();
        tokio::spawn(
            Lane { tenant, store, clock, max_bytes, pace, turns, waiting, observer }.run(),
        );
        let (authority, is_over) = (watch::Sender::new(0), AtomicBool::new(false));
        Arc::new(Self { submissions, audiences: Arc::default(), authority, is_over })
    }

    /// Hands a push in; waits while too many wait already. An error means that the lane has ended.
    pub async fn submit(self: &Arc<Self>, submission: Submission) -> Result<(), LaneEnded> {
        let lane = Arc::clone(self);
        self.submissions.send(Queued { submission, lane }).await.map_err(|_| LaneEnded)
    }

    /// Every commit from now on that concerns a session with these scopes.
    #[must_use]
    pub fn updates(&self, grants: &[Grant], grants_hash: Sum) -> Attendance {
        self.audiences.join(grants, grants_hash)
    }

    /// Every change of what devices of the tenant may do from now on.
    #[must_use]
    pub fn authority(&self) -> watch::Receiver<u64> {
        self.authority.subscribe()
    }

    /// Hands a commit of another node to every session.
    pub fn committed_elsewhere(&self, seq: u64) {
        self.audiences.tell_of_elsewhere(seq);
    }

    /// Ends every session: the tenant was restored or moved. Whoever comes from now on takes another lane.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Release);
        self.audiences.begin_anew();
    }

    /// Whether its sessions were told to end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Tells every session that what its device may do has to be read again.
    pub fn authority_changed(&self) {
        self.authority.send_modify(|version| *version += 1);
    }
}

/// A submission that waits. It keeps the lane: where the last session of a tenant has gone, the next one finds the lane
/// that still commits for it, and hears of that commit.
#[derive(Debug)]
struct Queued {
    submission: Submission,
    lane: Arc<LaneHandle>,
}

/// The lane's task has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the lane of the tenant has ended")]
pub struct LaneEnded;

/// Who counts what lanes do.
pub trait LaneObserver: Send + Sync + 'static {
    /// A group commit became durable.
    fn committed(&self, group: &CommittedGroup);
    /// A group commit failed; nothing of it was kept.
    fn failed(&self, error: &StoreError);
    /// The tenant pushes faster than it may, and so waits; whether the log is to say so.
    fn held_back(&self, wait: Duration, is_to_be_named: bool);
}

/// What a group commit held.
#[derive(Debug, Clone)]
pub struct CommittedGroup {
    /// Where the tenant stands now, where the commit moved it.
    pub seq: Option<u64>,
    /// Devices whose pushes it joined.
    pub pushes: usize,
    /// Transactions.
    pub transactions: usize,
    /// Rows that changed.
    pub rows: usize,
    /// Why transactions were refused.
    pub refusals: Vec<ReasonCode>,
    /// How long it waited for its turn.
    pub waited: Duration,
    /// How long it took from then on until it was durable.
    pub took: Duration,
}

struct Lane<O> {
    tenant: TenantId,
    store: SharedTenantStore,
    clock: SharedClock,
    max_bytes: usize,
    pace: Pace,
    turns: Turns,
    waiting: mpsc::Receiver<Queued>,
    observer: O,
}

/// A group of pushes, one for each device, with every submission that went into it.
#[derive(Default)]
struct Group {
    pushes: Vec<DevicePush>,
    answers: Vec<Vec<Owed>>,
    by_device: HashMap<DeviceId, usize>,
    /// The hashes of the scopes of the sessions that pushed.
    scopes: Vec<Sum>,
    transactions: usize,
    bytes: usize,
}

/// How many transactions of a push belong to one submission, and where their answers go.
struct Owed {
    transactions: usize,
    to: Submitter,
}

impl Group {
    fn add(&mut self, submission: Submission) {
        let Submission { push, from, grants_hash } = submission;
        if let Some(error) = from.failed.get()
            && !bugs::planted(Bug::GoesOnAfterFailedCommit)
        {
            from.answer(Err(Arc::clone(error)));
            return;
        }
        self.scopes.push(grants_hash);
        self.transactions += push.transactions.len();
        self.bytes += push.transactions.iter().map(PushedTransaction::encoded_bytes).sum::<usize>();
        let owed = Owed { transactions: push.transactions.len(), to: from };
        match self.by_device.get(&push.device) {
            // Rights may have changed between two pushes of a device: the later ones decide for both.
            Some(at) => {
                let earlier = &mut self.pushes[*at];
                earlier.settled = earlier.settled.max(push.settled);
                earlier.grants = push.grants;
                earlier.transactions.extend(push.transactions);
                if bugs::planted(Bug::JoinedPushesSwapped) {
                    earlier.transactions.rotate_right(owed.transactions);
                }
                self.answers[*at].push(owed);
            }
            None => {
                self.by_device.insert(push.device, self.pushes.len());
                self.pushes.push(push);
                self.answers.push(vec![owed]);
            }
        }
    }

    const fn is_full(&self, max_bytes: usize) -> bool {
        self.transactions >= MAX_TRANSACTIONS_PER_COMMIT || self.bytes >= max_bytes
    }
}

impl<O: LaneObserver> Lane<O> {
    async fn run(mut self) {
        while let Some(Queued { submission, lane }) = self.waiting.recv().await {
            let mut group = Group::default();
            group.add(submission);
            while !group.is_full(self.max_bytes)
                && let Ok(next) = self.waiting.try_recv()
            {
                group.add(next.submission);
            }
            if !group.pushes.is_empty() {
                let bytes = group.bytes;
                self.commit(group, &lane).await;
                self.pay_for(bytes).await;
            }
        }
    }

    /// Whoever holds the lane's handle meanwhile keeps the lane, so that a tenant whose devices connect anew pays too.
    async fn pay_for(&mut self, bytes: usize) {
        let wait = self.pace.charge(bytes);
        if !wait.is_zero() {
            self.observer.held_back(wait, self.pace.is_to_be_named());
            sleep(wait).await;
        }
    }

    async fn commit(&self, group: Group, lane: &LaneHandle) {
        let (pushes, transactions) = (group.pushes.len(), group.transactions);
        let came = Instant::now();
        let _turn = self.turns.take(&self.tenant, group.bytes).await;
        let started = Instant::now();
        let waited = started - came;
        match self.store.commit(Batch { now_ms: self.clock.now_ms(), pushes: group.pushes }).await {
            Ok(mut committed) => {
                let results = std::mem::take(&mut committed.results);
                let refusals = results.iter().flat_map(refusals).collect();
                let (rows, took) = (committed.rows.len(), started.elapsed());
                let seq = (committed.seq > committed.seq_before).then_some(committed.seq);
                self.observer.committed(&CommittedGroup {
                    seq,
                    pushes,
                    transactions,
                    rows,
                    refusals,
                    waited,
                    took,
                });
                for (result, answers) in results.into_iter().zip(group.answers) {
                    answer(result, answers);
                }
                if seq.is_some() {
                    lane.audiences.tell(&Arc::new(Update::new(committed)), &group.scopes);
                }
            }
            Err(error) => {
                self.observer.failed(&error);
                let error = Arc::new(error);
                for owed in group.answers.into_iter().flatten() {
                    owed.to.answer(Err(Arc::clone(&error)));
                }
            }
        }
    }
}

fn refusals(result: &PushResult) -> impl Iterator<Item = ReasonCode> {
    let (PushResult::Answered(outcomes) | PushResult::Forked { answered: outcomes, .. }) = result;
    outcomes.iter().filter_map(|outcome| outcome.refused.as_ref().map(|refused| refused.code))
}

/// Splits the answer to a device's joined pushes among the submissions.
fn answer(result: PushResult, answers: Vec<Owed>) {
    let (mut outcomes, forked) = match result {
        PushResult::Answered(outcomes) => (outcomes, None),
        PushResult::Forked { answered, number } => (answered, Some(number)),
    };
    for Owed { transactions, to } in answers {
        let rest = outcomes.split_off(transactions.min(outcomes.len()));
        let mine = std::mem::replace(&mut outcomes, rest);
        let result = match forked {
            Some(number) if mine.len() < transactions => {
                PushResult::Forked { answered: mine, number }
            }
            _ => PushResult::Answered(mine),
        };
        to.answer(Ok(result));
    }
}

#[cfg(test)]
mod tests;
