//! A copy of a tenant on its way, pass by pass, and how far it has come.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use farshore_store::catalog::CatalogError;
use farshore_store::copy::{Arrival, Record, RecordSink, StandingRecord, Tally, copy, verify};
use farshore_store::{SharedTenantStore, StoreError};
use farshore_sync_core::ids::TenantId;

use super::moving::MoveError;

/// What a move does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// A copy arrives, or what was written during the one before.
    Copying,
    /// What arrived is read back.
    Verifying,
    /// The tenant is frozen: the rest arrives, and it changes its place.
    Switching,
}

/// How far a move has come.
#[derive(Debug)]
pub struct Progress {
    phase: Mutex<Phase>,
    records: AtomicU64,
}

impl Progress {
    /// What it does now, and how many records have arrived.
    #[must_use]
    pub fn now(&self) -> (Phase, u64) {
        let phase = *self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        (phase, self.records.load(Ordering::Relaxed))
    }

    /// Enters a phase; nothing but the end follows on [`Phase::Switching`].
    pub(super) fn enter(&self, phase: Phase) {
        let mut current = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != Phase::Switching {
            *current = phase;
        }
    }
}

/// The moves that this node makes.
#[derive(Debug, Default)]
pub(super) struct Moves(Mutex<HashMap<TenantId, Arc<Progress>>>);

impl Moves {
    pub fn begin(&self, tenant: &TenantId) -> Arc<Progress> {
        let progress = Progress { phase: Mutex::new(Phase::Copying), records: AtomicU64::new(0) };
        let progress = Arc::new(progress);
        let mut moves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        moves.insert(tenant.clone(), Arc::clone(&progress));
        progress
    }

    pub fn end(&self, tenant: &TenantId, progress: &Arc<Progress>) {
        let mut moves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if moves.get(tenant).is_some_and(|current| Arc::ptr_eq(current, progress)) {
            moves.remove(tenant);
        }
    }

    pub fn get(&self, tenant: &TenantId) -> Option<Arc<Progress>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(tenant).cloned()
    }
}

/// Hands records on to where they arrive, and counts them.
struct Forward<'a> {
    arrival: &'a mut dyn Arrival,
    tally: Tally,
    standing: Option<StandingRecord>,
    progress: &'a Progress,
}

/// A copy on its way, and how far it has come.
pub(super) struct Carried<'a> {
    tenant: &'a TenantId,
    source: &'a SharedTenantStore,
    arrival: Box<dyn Arrival>,
    progress: &'a Progress,
    /// Where the tenant stood when it was copied last.
    standing: Option<StandingRecord>,
    /// Living rows that were copied.
    pub rows: u64,
}

impl<'a> Carried<'a> {
    /// Nothing of it was copied yet.
    pub fn new(
        tenant: &'a TenantId,
        source: &'a SharedTenantStore,
        arrival: Box<dyn Arrival>,
        progress: &'a Progress,
    ) -> Self {
        Self { tenant, source, arrival, progress, standing: None, rows: 0 }
    }

    /// Makes what arrived the tenant.
    pub async fn finish(self) -> Result<(), CatalogError> {
        self.arrival.finish().await.map(drop)
    }

    /// Copies what has changed since the last pass, or everything, and reads it back; how many records that were.
    pub async fn pass(&mut self) -> Result<u64, MoveError> {
        self.progress.enter(Phase::Copying);
        let before = self.standing.take();
        let since = before.as_ref().map(|standing| standing.seq);
        let (arrival, progress) = (&mut *self.arrival, self.progress);
        let mut forward = Forward { arrival, tally: Tally::default(), standing: None, progress };
        copy(self.source, since, &mut forward).await?;
        let Forward { tally, standing, .. } = forward;
        if let (Some(before), Some(now)) = (&before, &standing)
            && !leads_to(before, now)
        {
            return Err(MoveError::Overturned { tenant: self.tenant.clone() });
        }
        self.standing = standing;
        self.rows += tally.rows;
        progress.enter(Phase::Verifying);
        verify(&*self.arrival, self.tenant, since, tally.digest()).await?;
        Ok(tally.records)
    }
}

/// Whether what has changed since a copy brings it up to date.
const fn leads_to(before: &StandingRecord, now: &StandingRecord) -> bool {
    // A standby that lagged when it was promoted stands further back, also before its new epoch begins.
    before.epoch == now.epoch && before.seq <= now.seq
        // What was deleted after the copy and is purged already leaves no trace.
        && (now.horizon == before.horizon || now.horizon <= before.seq)
}

#[async_trait]
impl RecordSink for Forward<'_> {
    async fn take(&mut self, records: Vec<Record>) -> Result<(), StoreError> {
        self.progress.records.fetch_add(records.len() as u64, Ordering::Relaxed);
        for record in &records {
            self.tally.count(record, &record.to_bytes());
            if let Record::Standing(standing) = record {
                self.standing = Some(standing.clone());
            }
        }
        self.arrival.put(records).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_leads_to_now_unless_something_left_no_trace() {
        let at = |seq, horizon, epoch| StandingRecord {
            seq,
            horizon,
            epoch,
            digest_key: [0; 32],
            created_at_ms: 0,
        };
        let before = at(100, 20, 7);
        for now in [at(100, 20, 7), at(150, 20, 7), at(150, 100, 7)] {
            assert!(leads_to(&before, &now), "{now:?}");
        }
        for now in [at(150, 101, 7), at(99, 20, 7), at(150, 20, 8)] {
            assert!(!leads_to(&before, &now), "{now:?}");
        }
    }
}
