//! What must hold of a run that has come to its end.

use std::collections::BTreeMap;

use farshore_server::clock::Clock as _;
use farshore_store::TenantStore;
use farshore_store::sync::{PageRequest, RowChange, ScopeRead};
use farshore_sync_core::hlc::MAX_FUTURE_DRIFT_MS;
use farshore_sync_core::ids::{CollectionId, Scope};
use farshore_sync_core::reason::ReasonCode;
use farshore_sync_core::row::RowState;
use farshore_sync_core::wire::{Grant, Rights};

use super::World;
use crate::causal::{self, Causal};
use crate::history::{Deed, Fate, View};
use crate::oracles::{self, Violation};
use crate::plan::Action;
use crate::shape::Shape;

/// How far the server's clock may be off in a run, on top of what stamps may be ahead of it, in milliseconds.
const SERVER_DRIFT_MS: u64 = 60_000;

impl World<'_> {
    pub(super) async fn judge(&mut self) {
        self.settle_fates();
        let restored = self.epochs > 0;
        self.histories.iter_mut().for_each(|history| history.restored = restored);
        if restored {
            let may = |device: usize, scope: &Scope| may_write(&self.devices[device].grants, scope);
            for history in &mut self.histories {
                let moved = history.moved_out_of_reach(may);
                history.set_aside.extend(moved);
            }
        }
        self.check_rights();
        let mut views: Vec<View> = Vec::new();
        for device in &self.devices {
            match device.view() {
                Ok(view) => views.push(view),
                Err(error) => {
                    self.violations.push(Violation::Failed(error.to_string()));
                    return;
                }
            }
        }
        if self.plan.causal.is_some() {
            let last: Vec<_> = views.iter().map(causal::registers).collect();
            let causal = Causal::judge(&self.histories[0], &last);
            let found = causal.errors.iter();
            self.violations.extend(
                found.map(|(error, what)| Violation::Causal(format!("{}: {what}", error.as_str()))),
            );
            self.causal = Some(causal);
        }
        for (tenant, shape) in self.plan.tenants.iter().enumerate() {
            // Tenants and their first devices have the same numbers.
            let first = &views[tenant];
            self.violations.extend(oracles::judge(shape, &self.histories[tenant], first));
            for device in self.devices.iter().filter(|device| device.tenant == tenant) {
                let (name, scopes) = (format!("device {}", device.index), scopes(&device.grants));
                let view = &views[device.index];
                self.violations.extend(oracles::only_granted(shape, &name, view, &scopes));
                let names = ("the first device", name.as_str());
                self.violations.extend(oracles::compare(
                    shape,
                    names,
                    first,
                    view,
                    (&scopes, device.schema()),
                ));
            }
            let store = self.store(tenant).await;
            self.check_digests(tenant, &*store).await;
            self.check_clocks(shape, &*store).await;
        }
    }

    /// What the devices say became of their transactions.
    fn settle_fates(&mut self) {
        for device in &self.devices {
            let Some(client) = device.client() else { continue };
            let Ok(entries) = client.quarantine() else { continue };
            let codes: BTreeMap<u64, ReasonCode> =
                entries.iter().map(|entry| (entry.number, entry.code)).collect();
            if self.epochs > 0 {
                let mutations = entries.iter().flat_map(|entry| &entry.mutations);
                let offers = mutations.filter(|mutation| mutation.operation == "offer");
                self.histories[device.tenant]
                    .set_aside
                    .extend(offers.map(|offer| (offer.collection.clone(), offer.row)));
            }
            let history = &mut self.histories[device.tenant].transactions;
            for made in history.iter_mut().filter(|made| made.device == device.index) {
                if let Some(code) = codes.get(&made.number) {
                    // What a restored server refuses for the lack of a row its predecessor may have taken, and others
                    // may have seen and offered.
                    let restored = self.epochs > 0;
                    made.fate = if restored { Fate::Doubtful } else { fate_of(*code) };
                }
            }
        }
    }

    /// Where rights never changed, nothing is accepted that a device had no right to.
    fn check_rights(&mut self) {
        let changes = |action: &Action| matches!(action, Action::Grant { .. } | Action::Restore);
        if self.plan.steps.iter().any(|step| changes(&step.action)) {
            return;
        }
        for made in self.histories.iter().flat_map(|history| &history.transactions) {
            let granted = &self.devices[made.device].grants;
            for deed in made.deeds.iter().filter(|_| made.fate == Fate::Accepted) {
                if let Deed::Insert { row, scope } = deed
                    && !may_write(granted, scope)
                {
                    let what = format!("device {} was let write {row:?} in {scope}", made.device);
                    self.violations.push(Violation::NotGranted(what));
                }
            }
        }
    }

    async fn check_digests(&mut self, tenant: usize, store: &dyn TenantStore) {
        let differing = store.scrub().await.expect("the memory store reads");
        if !differing.is_empty() {
            self.violations
                .push(Violation::Digest(format!("the server's own sums: {differing:?}")));
        }
        for device in self.devices.iter().filter(|device| device.tenant == tenant) {
            let Some(client) = device.client() else { continue };
            let scopes = scopes(&device.grants);
            let ours = store.buckets(&scopes).await.expect("the memory store reads");
            let ours: BTreeMap<(Scope, CollectionId), u128> = ours
                .into_iter()
                .map(|(place, buckets)| (place, buckets.total().0))
                .filter(|(_, total)| *total != 0)
                .collect();
            let theirs = client.digests().map(|digests| {
                let totals = digests.into_iter().map(|(scope, id, sum)| ((scope, id), sum.0));
                totals.filter(|(_, total)| *total != 0).collect::<BTreeMap<_, _>>()
            });
            if theirs.as_ref().ok() != Some(&ours) {
                let what = format!("device {} has {theirs:?}, the server {ours:?}", device.index);
                self.violations.push(Violation::Digest(what));
            }
        }
    }

    /// No stamp that the server keeps may be further ahead of it than the protocol allows.
    async fn check_clocks(&mut self, shape: &Shape, store: &dyn TenantStore) {
        let latest_ms = self.platform.clock().now_ms() + MAX_FUTURE_DRIFT_MS + SERVER_DRIFT_MS;
        let scopes = shape.scopes().into_iter().map(|scope| ScopeRead::from_checkpoint(scope, 0));
        let scopes = scopes.collect();
        let request = PageRequest { scopes, target_bytes: usize::MAX, max_rows: usize::MAX };
        let page = store.page(request).await.expect("the memory store reads");
        for row in page.rows {
            let RowChange::State(bytes) = &row.change else { continue };
            let state = RowState::decode(bytes).expect("the server stores rows");
            let cells = state.cells.iter().map(|cell| cell.stamp);
            let stamps = cells.chain(state.life.iter().map(|life| life.stamp));
            if let Some(ahead) = stamps.filter(|stamp| stamp.hlc.wall_ms() > latest_ms).max() {
                let what = format!("{ahead:?} in row {} when it was {latest_ms}", row.row);
                self.violations.push(Violation::Clock(what));
            }
        }
    }
}

fn may_write(grants: &[Grant], scope: &Scope) -> bool {
    grants.iter().any(|grant| grant.scope == *scope && grant.rights == Rights::Write)
}

fn scopes(grants: &[Grant]) -> Vec<Scope> {
    grants.iter().map(|grant| grant.scope.clone()).collect()
}

/// What a device knows of a transaction in its quarantine. Where the device itself put it there, the server may have
/// it all the same.
pub(super) const fn fate_of(code: ReasonCode) -> Fate {
    match code {
        ReasonCode::ScopeRevoked => Fate::Doubtful,
        _ => Fate::Refused,
    }
}
