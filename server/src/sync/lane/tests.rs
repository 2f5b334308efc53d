//! The lane on a store in memory.

use farshore_store::catalog::Catalog as _;
use farshore_store::memory::MemoryCatalog;
use farshore_sync_core::hlc::Hlc;
use farshore_sync_core::ids::{CollectionId, ColumnId, RowId};
use farshore_sync_core::mutation::{Cells, Mutation, Op, Transaction};
use farshore_sync_core::schema::Schema;
use farshore_sync_core::value::Value;
use farshore_sync_core::wire::{Grant, Rights, scopes_hash};

use super::super::turns::SMALL_COMMIT_BYTES;
use super::*;
use crate::clock::ManualClock;
use crate::config::{Config, Settings};

const NOW: u64 = 1_700_000_000_000;
const SCHEMA: &str = r#"{"name": "s", "version": 1, "collections": [{"name": "c", "scope": "a", "columns": [
    {"name": "text", "type": "text"}]}]}"#;

/// Nobody counts.
struct Unobserved;

impl LaneObserver for Unobserved {
    fn committed(&self, _: &CommittedGroup) {}
    fn failed(&self, _: &StoreError) {}
    fn held_back(&self, _: Duration, _: bool) {}
}

/// Tells when a tenant is held back.
struct HeldBack(mpsc::UnboundedSender<(Duration, bool)>);

impl LaneObserver for HeldBack {
    fn committed(&self, _: &CommittedGroup) {}
    fn failed(&self, _: &StoreError) {}
    fn held_back(&self, wait: Duration, is_to_be_named: bool) {
        self.0.send((wait, is_to_be_named)).unwrap();
    }
}

/// A tenant with a store in memory.
struct Tenant {
    id: TenantId,
    store: SharedTenantStore,
    epoch: u64,
}

impl Tenant {
    async fn without_schema(name: &str) -> Self {
        let (catalog, authority) = MemoryCatalog::open(1);
        let id: TenantId = name.parse().unwrap();
        let store = catalog.create(&authority.scope(id.clone()), NOW).await.unwrap();
        let epoch = store.head().await.unwrap().epoch;
        Self { id, store, epoch }
    }

    async fn new(name: &str) -> Self {
        let tenant = Self::without_schema(name).await;
        tenant.take_schema().await;
        tenant
    }

    async fn take_schema(&self) {
        self.store.apply_schema(&Schema::parse(SCHEMA).unwrap(), NOW).await.unwrap();
    }

    fn lane(
        &self,
        limits: &SyncLimits,
        turns: &Turns,
        observer: impl LaneObserver,
    ) -> Arc<LaneHandle> {
        let (store, clock) = (Arc::clone(&self.store), Arc::new(ManualClock::at(NOW)));
        LaneHandle::start(self.id.clone(), store, clock, limits, turns.clone(), observer)
    }

    /// A transaction with a row of about so many bytes.
    fn submission(&self, number: u64, bytes: usize, from: &Submitter) -> Submission {
        let cells = Cells::new(vec![(ColumnId(1), Value::from("x".repeat(bytes).as_str()))]);
        let (collection, row) = (CollectionId(1), RowId::from_bytes([1; 16]));
        let insert = Mutation { collection, row, op: Op::Insert { cells } };
        let transaction = Transaction { number, stamp: Hlc(number), mutations: vec![insert] };
        let transactions = vec![PushedTransaction::read(&transaction.encode()).unwrap()];
        let (device, grants) = (DeviceId::from_bytes([1; 16]), grants());
        let grants_hash = scopes_hash(&grants);
        let push = DevicePush { device, epoch: self.epoch, grants, settled: 0, transactions };
        Submission { push, from: from.clone(), grants_hash }
    }
}

fn grants() -> Vec<Grant> {
    vec![Grant { scope: "a".parse().unwrap(), rights: Rights::Write }]
}

fn limits() -> SyncLimits {
    Config::from_settings(&Settings::defaults()).unwrap().sync
}

fn turns() -> Turns {
    Turns::new(1, SMALL_COMMIT_BYTES)
}

#[tokio::test]
async fn what_follows_a_push_that_failed_does_not_overtake_it() {
    let tenant = Tenant::without_schema("acme").await;
    let lane = tenant.lane(&limits(), &turns(), Unobserved);

    // A tenant without a schema takes nothing.
    let (first, mut answers) = Submitter::new();
    lane.submit(tenant.submission(1, 1, &first)).await.unwrap();
    assert!(matches!(*answers.recv().await.unwrap().unwrap_err(), StoreError::NoSchema));
    tenant.take_schema().await;
    // The second transaction would be taken now, and the first one refused when it comes again.
    lane.submit(tenant.submission(2, 1, &first)).await.unwrap();
    assert!(answers.recv().await.unwrap().is_err(), "the session has lost a push already");

    let (again, mut answers) = Submitter::new();
    for number in [1, 2] {
        lane.submit(tenant.submission(number, 1, &again)).await.unwrap();
        match answers.recv().await.unwrap().unwrap() {
            PushResult::Answered(outcomes) => assert_eq!(outcomes[0].number, number),
            forked @ PushResult::Forked { .. } => panic!("{forked:?}"),
        }
    }
}

/// Large commits of one tenant do not hold up the small ones of another.
#[tokio::test]
async fn a_large_commit_waits_for_its_turn_and_a_small_one_does_not() {
    let (large, small) = (Tenant::new("large").await, Tenant::new("small").await);
    let turns = turns();
    let lanes = [&large, &small].map(|tenant| tenant.lane(&limits(), &turns, Unobserved));
    let other = turns.take(&"other".parse().unwrap(), 2 * SMALL_COMMIT_BYTES).await;
    let (from_large, mut large_answers) = Submitter::new();
    lanes[0].submit(large.submission(1, SMALL_COMMIT_BYTES, &from_large)).await.unwrap();
    let (from_small, mut small_answers) = Submitter::new();
    lanes[1].submit(small.submission(1, 10, &from_small)).await.unwrap();
    small_answers.recv().await.unwrap().unwrap();
    assert!(large_answers.try_recv().is_err(), "it has no turn yet");
    drop(other);
    large_answers.recv().await.unwrap().unwrap();
}

/// A device that lost its connection in the middle of a commit is back before the commit is durable.
#[tokio::test]
async fn a_commit_outlives_the_sessions_that_asked_for_it_and_the_next_ones_hear_of_it() {
    let tenant = Tenant::new("acme").await;
    let turns = Turns::new(1, 0);
    let others = turns.take(&"other".parse().unwrap(), 1).await;
    let lane = tenant.lane(&limits(), &turns, Unobserved);
    let (from, answers) = Submitter::new();
    let known_to_the_service = Arc::downgrade(&lane);
    lane.submit(tenant.submission(1, 1, &from)).await.unwrap();
    drop((lane, answers));

    let lane = known_to_the_service.upgrade().expect("it still commits");
    let mut updates = lane.updates(&grants(), scopes_hash(&grants()));
    drop((lane, others));
    updates.next().await.expect("the commit is told");
    while known_to_the_service.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
}

/// Neither by pushing on nor by connecting anew does a tenant get more than it may.
#[tokio::test(start_paused = true)]
async fn a_tenant_that_pushes_too_much_waits_after_each_commit() {
    const BYTES: usize = 10_000;
    let tenant = Tenant::new("acme").await;
    let limits = SyncLimits { tenant_bytes_per_second: BYTES / 10, ..limits() };
    let (held_back, mut waits) = mpsc::unbounded_channel();
    let lane = tenant.lane(&limits, &turns(), HeldBack(held_back));
    let (from, mut answers) = Submitter::new();
    let begun = Instant::now();
    lane.submit(tenant.submission(1, BYTES, &from)).await.unwrap();
    answers.recv().await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "the answer waits for nothing");
    let (wait, is_to_be_named) = waits.recv().await.unwrap();
    assert!(wait >= Duration::from_secs(10) && is_to_be_named, "{wait:?}");

    let known_to_the_service = Arc::downgrade(&lane);
    drop(lane);
    tokio::task::yield_now().await;
    let lane = known_to_the_service.upgrade().expect("a lane that is not paid for stays");
    lane.submit(tenant.submission(2, BYTES, &from)).await.unwrap();
    answers.recv().await.unwrap().unwrap();
    assert!(begun.elapsed() >= wait, "{:?}", begun.elapsed());
    assert!(!waits.recv().await.unwrap().1, "the log has named it a moment ago");
}
