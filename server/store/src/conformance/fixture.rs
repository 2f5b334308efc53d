//! A tenant under test and the devices that push to it.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use farshore_sync_core::hlc::{Hlc, Stamp};
use farshore_sync_core::ids::{DeviceId, Scope, TenantId};
use farshore_sync_core::mutation::{Mutation, Transaction};
use farshore_sync_core::reason::ReasonCode;
use farshore_sync_core::row::RowState;
use farshore_sync_core::wire::{Grant, PushOutcome, Rights};

use super::sample::{self, NOW_MS, site, tenant};
use super::{Storage, reader};
use crate::catalog::Catalog;
use crate::pushed::PushedTransaction;
use crate::scope::{ScopeAuthority, TenantScope};
use crate::sync::{Batch, Committed, DevicePush, PushResult, RowKey, SyncStore};
use crate::{SharedTenantStore, StoreError};

/// Every scope of the sample tenant that the cases use, sorted.
pub fn all_scopes() -> Vec<Scope> {
    vec![site("a"), site("b"), tenant()]
}

/// The scope of a tenant by name.
pub fn scope_of(authority: &ScopeAuthority, name: &str) -> TenantScope {
    authority.scope(name.parse::<TenantId>().unwrap())
}

/// A new tenant with the sample schema.
pub async fn sample_store(storage: &dyn Storage) -> SharedTenantStore {
    let (catalog, authority) = storage.open().await;
    sample_store_of(&*catalog, &scope_of(&authority, "demo")).await
}

/// A new tenant of an open catalog with the sample schema.
pub async fn sample_store_of(catalog: &dyn Catalog, scope: &TenantScope) -> SharedTenantStore {
    let store = catalog.create(scope, NOW_MS).await.unwrap();
    store.apply_schema(&sample::schema(), NOW_MS).await.unwrap();
    store
}

/// The new tenant `demo` with the sample schema and some notes, for tests of one back-end.
pub async fn sample_tenant(storage: &dyn Storage, notes: u16) -> SharedTenantStore {
    let (catalog, authority) = storage.open().await;
    sample_tenant_named(&*catalog, &scope_of(&authority, "demo"), notes).await
}

/// A new tenant of an open catalog with the sample schema and some notes.
pub async fn sample_tenant_named(
    catalog: &dyn Catalog,
    scope: &TenantScope,
    notes: u16,
) -> SharedTenantStore {
    let store = sample_store_of(catalog, scope).await;
    commit_notes(&store, notes).await;
    store
}

/// Commits a number of new rows, in one transaction of a new device.
pub async fn commit_notes(store: &SharedTenantStore, notes: u16) {
    let committed = store.commit(note_batch(&**store, notes).await).await.unwrap();
    assert_eq!(committed.seq - committed.seq_before, u64::from(notes), "every row is new");
}

/// A batch of one transaction that inserts a number of rows; each batch has a device and rows of its own.
pub async fn note_batch(store: &(impl SyncStore + ?Sized), notes: u16) -> Batch {
    let (batch, epoch) = (next_batch(), store.head().await.unwrap().epoch);
    batch_of(batch, epoch, DeviceId::from_parts(batch, &[9; 10]), notes, "a note")
}

/// A batch of the first transaction of a device in an epoch, which inserts a number of rows with a title; each batch
/// has rows of its own.
pub fn titled_batch(epoch: u64, device: DeviceId, notes: u16, title: &str) -> Batch {
    batch_of(next_batch(), epoch, device, notes, title)
}

fn next_batch() -> u64 {
    static BATCHES: AtomicU64 = AtomicU64::new(0);
    BATCHES.fetch_add(1, Ordering::Relaxed)
}

fn batch_of(batch: u64, epoch: u64, id: DeviceId, notes: u16, title: &str) -> Batch {
    let mut device = Device { id, ..Device::new(0) };
    let transactions = match notes {
        0 => Vec::new(),
        notes => vec![device.transaction(sample::fresh_notes(batch, notes, title))],
    };
    let push = device.push(transactions);
    Batch { now_ms: NOW_MS, pushes: vec![DevicePush { epoch, ..push }] }
}

/// A device with a clock of its own, which ticks once for each transaction.
pub struct Device {
    pub id: DeviceId,
    pub grants: Vec<Grant>,
    pub settled: u64,
    pub clock: Hlc,
    next: u64,
}

impl Device {
    /// A device that may write in every scope.
    pub fn new(number: u8) -> Self {
        let grant = |scope| Grant { scope, rights: Rights::Write };
        Self {
            id: DeviceId::from_bytes([number; 16]),
            grants: all_scopes().into_iter().map(grant).collect(),
            settled: 0,
            clock: Hlc::from_wall_ms(NOW_MS),
            next: 1,
        }
    }

    /// The stamp of its last transaction.
    pub const fn stamp(&self) -> Stamp {
        Stamp { hlc: self.clock, device: self.id }
    }

    /// Its next transaction, encoded.
    pub fn transaction(&mut self, mutations: impl Into<Vec<Mutation>>) -> Vec<u8> {
        let number = self.next;
        self.next += 1;
        self.clock = self.clock.next();
        Transaction { number, stamp: self.clock, mutations: mutations.into() }.encode()
    }

    /// A push of transactions, in no epoch: [`commit_at`] puts it into the one that it finds.
    pub fn push(&self, transactions: impl Into<Vec<Vec<u8>>>) -> DevicePush {
        DevicePush {
            device: self.id,
            epoch: 0,
            grants: self.grants.clone(),
            settled: self.settled,
            transactions: transactions
                .into()
                .iter()
                .map(|bytes| PushedTransaction::read(bytes).unwrap())
                .collect(),
        }
    }

    /// Commits one transaction, which must not be refused.
    pub async fn commit(
        &mut self,
        store: &SharedTenantStore,
        mutations: impl Into<Vec<Mutation>>,
    ) -> Committed {
        let transaction = self.transaction(mutations);
        let committed = commit(store, [self.push([transaction])]).await;
        let answers = answers(&committed.results[0]);
        assert_eq!(answers.len(), 1, "one answer for one transaction");
        assert_eq!(answers[0].refused, None, "the transaction applies");
        committed
    }

    /// Commits one transaction, which must be refused; returns why.
    pub async fn refused(
        &mut self,
        store: &SharedTenantStore,
        mutations: impl Into<Vec<Mutation>>,
    ) -> ReasonCode {
        let transaction = self.transaction(mutations);
        let committed = commit(store, [self.push([transaction])]).await;
        assert_eq!(committed.seq, committed.seq_before, "what is refused takes no seq");
        answers(&committed.results[0])[0].refused.as_ref().unwrap().code
    }
}

/// Commits pushes at [`NOW_MS`].
pub async fn commit(store: &SharedTenantStore, pushes: impl Into<Vec<DevicePush>>) -> Committed {
    commit_at(store, NOW_MS, pushes).await
}

/// Commits pushes at some time of the server, in the present epoch. The store is asked for that only where it has
/// changed: a read between two commits may keep them from sharing what they could.
pub async fn commit_at(
    store: &SharedTenantStore,
    now_ms: u64,
    pushes: impl Into<Vec<DevicePush>>,
) -> Committed {
    let pushes = pushes.into();
    let in_epoch = |epoch| {
        let of_epoch = |push: &DevicePush| DevicePush { epoch, ..push.clone() };
        Batch { now_ms, pushes: pushes.iter().map(of_epoch).collect() }
    };
    match store.commit(in_epoch(LAST_EPOCH.get())).await {
        Err(StoreError::BegunAnew) => {
            LAST_EPOCH.set(store.head().await.unwrap().epoch);
            store.commit(in_epoch(LAST_EPOCH.get())).await.unwrap()
        }
        committed => committed.unwrap(),
    }
}

thread_local! {
    /// The epoch of the tenant to which the case that runs here committed last.
    static LAST_EPOCH: Cell<u64> = const { Cell::new(0) };
}

/// The answers of a push that was no fork.
pub fn answers(result: &PushResult) -> &[PushOutcome] {
    match result {
        PushResult::Answered(answers) => answers,
        PushResult::Forked { number, .. } => panic!("{number} came with other content than before"),
    }
}

/// A live row as every reader gets it.
pub async fn row(store: &SharedTenantStore, key: RowKey) -> RowState {
    let everything = reader::Reader::everything(store).await;
    let row = everything.rows.get(&key).unwrap_or_else(|| panic!("{key:?} is there"));
    RowState::decode(&row.state).unwrap()
}
