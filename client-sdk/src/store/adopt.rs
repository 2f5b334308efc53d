//! Adopting what the server says at the start of a connection, and when rights change.

use std::collections::{BTreeMap, BTreeSet};

use farshore_sync_core::bugs::{self, Bug};
use farshore_sync_core::digest::{DigestKey, row_sum};
use farshore_sync_core::ids::Scope;
use farshore_sync_core::reason::ReasonCode;
use farshore_sync_core::replica::Standing;
use farshore_sync_core::wire::{
    Grant, Refill, RefusedMutation, ScopePosition, Welcome, scopes_hash, sorted_grants,
};
use rusqlite::params;

use super::error::Failure;
use super::numbers::{Granted, ScopeNumber};
use super::pages::in_63_bits;
use super::progress::to_sql;
use super::rebase::Landed;
use super::rows::RowKey;
use super::transaction::Tx;

/// Another replica uses this one's identity.
#[derive(Debug)]
pub(super) struct Forked;

impl Tx<'_> {
    /// Where the replica stands.
    pub(super) fn standing(&self) -> Standing {
        let (progress, scopes) = (&self.known.progress, &self.known.scopes);
        let in_step = scopes.granted().iter().all(|granted| granted.fetched.is_none());
        Standing {
            schema_version: self.layout.app.version,
            epoch: progress.epoch,
            scopes_hash: scopes_hash(&scopes.grants()),
            cursor: progress.cursor,
            positions: if in_step { Vec::new() } else { self.positions() },
            settled: progress.settled,
            next_number: progress.next_number,
        }
    }

    /// Where each granted scope stands.
    pub(super) fn positions(&self) -> Vec<ScopePosition> {
        let cursor = self.known.progress.cursor;
        let granted = self.known.scopes.granted().iter();
        let position = |granted: &Granted| ScopePosition {
            scope: granted.grant.scope.clone(),
            seq: granted.fetched.unwrap_or(cursor),
        };
        granted.map(position).collect()
    }

    /// Adopts the server's answer to Hello.
    pub(super) fn adopt(
        &mut self,
        welcome: &Welcome,
        now_ms: u64,
    ) -> Result<Result<Vec<ScopePosition>, Forked>, Failure> {
        if welcome.high_water >= self.known.progress.next_number {
            return Ok(Err(Forked));
        }
        in_63_bits(welcome.head)?;
        self.known.progress.epoch = welcome.epoch;
        self.known.progress.server_ms = welcome.server_time_ms;
        if let Some(key) = &welcome.digest_key {
            self.adopt_digest_key(DigestKey(**key))?;
        }
        self.note_decided(welcome.high_water, welcome.head)?;
        if let Some(grants) = &welcome.grants {
            self.adopt_grants(grants.clone(), now_ms)?;
        }
        if welcome.refill != Refill::No {
            self.begin_refill(welcome.refill)?;
        }
        Ok(Ok(self.positions()))
    }

    /// The server has decided on transactions whose answers this device has not seen: at its head, its rows hold
    /// what became of them, and laying them over once more would count their increments twice.
    fn note_decided(&mut self, high_water: u64, head: u64) -> Result<(), Failure> {
        let progress = &mut self.known.progress;
        if high_water > progress.settled {
            progress.answered_through = progress.answered_through.max(high_water);
            let mut statement = self.connection.prepare_cached(
                "UPDATE fs_outbox SET decided = ?2 \
                 WHERE number > ?3 AND number <= ?1 AND answered IS NULL AND decided IS NULL",
            )?;
            statement.execute([
                to_sql(high_water),
                to_sql(head.max(1)),
                to_sql(progress.settled),
            ])?;
        }
        Ok(())
    }

    /// Adopts rights: scopes that are gone are purged, new ones are filled from the beginning.
    pub(super) fn adopt_grants(&mut self, grants: Vec<Grant>, now_ms: u64) -> Result<(), Failure> {
        let grants = sorted_grants(grants);
        let before: BTreeMap<Scope, Granted> = self
            .known
            .scopes
            .granted()
            .iter()
            .map(|granted| (granted.grant.scope.clone(), granted.clone()))
            .collect();
        let kept: BTreeSet<&Scope> = grants.iter().map(|grant| &grant.scope).collect();
        for gone in before.values().filter(|granted| !kept.contains(&granted.grant.scope)) {
            if bugs::planted(Bug::ScopeNotPurged) {
                continue;
            }
            self.purge_scope(gone.number, &gone.grant.scope, now_ms)?;
        }
        let staged = self.known.progress.staged > 0;
        let added = grants.iter().any(|grant| !before.contains_key(&grant.scope));
        // Where a scope is not in step with the others, each of them says where it stands.
        let in_step = added.then_some(self.known.progress.cursor);
        // Staged pages name scopes by their place among the grants; they are fetched again.
        self.drop_staged()?;
        let mut granted = Vec::with_capacity(grants.len());
        for grant in grants {
            let (fetched, applied) = match before.get(&grant.scope) {
                None if bugs::planted(Bug::NewScopeAtCursor) => (in_step, in_step),
                None => (Some(0), Some(0)),
                Some(held) if staged => (held.applied.or(in_step), held.applied.or(in_step)),
                Some(held) => (held.fetched.or(in_step), held.applied.or(in_step)),
            };
            let number = self.known.scopes.number_of(self.connection, &grant.scope)?;
            granted.push(Granted { number, grant, fetched, applied });
        }
        self.known.scopes.replace_granted(self.connection, granted)
    }

    /// Takes everything of a scope off this device, after the transactions that wait on it went into quarantine.
    fn purge_scope(
        &mut self,
        number: ScopeNumber,
        scope: &Scope,
        now_ms: u64,
    ) -> Result<(), Failure> {
        for key in self.keys_in(number)? {
            let Some(head) = self.head(key)? else { continue };
            let waiting = head.pending.map(|pending| pending.numbers).unwrap_or_default();
            for waiting in self.unanswered_on(&waiting)? {
                let read = self.transaction(waiting)?;
                let mutations = &read.transaction.mutations;
                let index = mutations
                    .iter()
                    .position(|mutation| (mutation.collection, mutation.row) == key);
                let refused = RefusedMutation {
                    index: index.and_then(|index| u32::try_from(index).ok()).unwrap_or_default(),
                    code: ReasonCode::ScopeRevoked,
                    message: format!("the right to {scope} was revoked before this was answered"),
                };
                if bugs::planted(Bug::RevokedWritesDropped) {
                    self.take_off(waiting, &mut Landed::new([waiting].into()))?;
                    self.forget_transaction(waiting)?;
                } else {
                    self.quarantine(waiting, &refused, now_ms)?;
                }
            }
            self.erase(key)?;
        }
        self.drop_digests(number)
    }

    /// Removes a row with its documents, whatever still waits on it.
    fn erase(&mut self, key: RowKey) -> Result<(), Failure> {
        if let Some(head) = self.head(key)? {
            self.save(key, Some(head.place), None, None, None, None)?;
        }
        let mut statement = self
            .connection
            .prepare_cached("DELETE FROM fs_chunks WHERE collection = ?1 AND id = ?2")?;
        if statement.execute(params![key.0.0, key.1.as_bytes()])? > 0
            && let Some(layout) = self.layout.collection(key.0)
        {
            for at in layout.documents() {
                self.close_document((key, layout.columns[at].id));
            }
        }
        Ok(())
    }

    /// Another key: every row is hashed anew.
    fn adopt_digest_key(&mut self, key: DigestKey) -> Result<(), Failure> {
        if self.known.progress.digest_key.as_ref() == Some(&key) {
            return Ok(());
        }
        self.known.progress.digest_key = Some(key);
        self.rehash()
    }

    /// Computes every sum from the rows.
    pub(super) fn rehash(&mut self) -> Result<(), Failure> {
        self.drop_all_digests()?;
        let digest_key = self.known.progress.digest_key();
        let mut keys = Vec::new();
        self.each_counted(None, |key, _, _| keys.push(key))?;
        for key in keys {
            let Some(stored) = self.load(key)? else { continue };
            let Some(base) = self.base_of(&stored)? else { continue };
            let sum = row_sum(&digest_key, key.0, key.1, &base.bytes);
            self.set_sum(key, stored.head.place, sum)?;
            self.recount(key, None, Some((base.scope, sum)))?;
        }
        Ok(())
    }
}
