//! The digest of what the server has confirmed, kept up to date row by row.
//!
//! A transaction reads the buckets of a collection in a scope once, counts rows out and in, and writes them once.

use std::collections::BTreeMap;

use farshore_sync_core::digest::{Buckets, Sum, bucket_of, root};
use farshore_sync_core::ids::{CollectionId, Scope};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::error::Failure;
use super::numbers::{ScopeNumber, Scopes};
use super::rows::RowKey;
use super::transaction::{Tx, sum_from_sql, sum_to_sql};

/// The total of each collection in each scope.
#[derive(Debug, Default)]
pub(super) struct Totals(BTreeMap<(ScopeNumber, CollectionId), Sum>);

impl Totals {
    pub(super) fn load(connection: &Connection) -> Result<Self, Failure> {
        let mut totals = BTreeMap::new();
        let mut statement =
            connection.prepare_cached("SELECT scope, collection, total FROM fs_digests")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let key = (ScopeNumber(row.get(0)?), CollectionId(row.get(1)?));
            totals.insert(key, sum_from_sql(row.get(2)?));
        }
        Ok(Self(totals))
    }

    /// The totals that are not zero in the granted scopes, sorted by scope and collection.
    pub(super) fn in_granted<'s>(
        &self,
        scopes: &'s Scopes,
    ) -> impl Iterator<Item = (&'s Scope, CollectionId, Sum)> {
        scopes.granted().iter().flat_map(|granted| {
            let all = (granted.number, CollectionId(0))..=(granted.number, CollectionId(u16::MAX));
            self.0
                .range(all)
                .filter(|(_, total)| total.0 != 0)
                .map(|((_, collection), total)| (&granted.grant.scope, *collection, *total))
        })
    }

    /// The root over the granted scopes, as the server computes it.
    pub(super) fn root(&self, scopes: &Scopes) -> Sum {
        root(self.in_granted(scopes))
    }
}

impl Tx<'_> {
    /// Counts one state of a row out and another one in.
    pub(super) fn recount(
        &mut self,
        key: RowKey,
        out: Option<(ScopeNumber, Sum)>,
        into: Option<(ScopeNumber, Sum)>,
    ) -> Result<(), Failure> {
        if out == into {
            return Ok(());
        }
        if let Some((scope, sum)) = out {
            self.buckets_mut(scope, key.0)?.bucket_mut(bucket_of(key.1)).remove(sum);
        }
        if let Some((scope, sum)) = into {
            self.buckets_mut(scope, key.0)?.bucket_mut(bucket_of(key.1)).add(sum);
        }
        Ok(())
    }

    /// The buckets of a collection in a scope, as this transaction has them.
    pub(super) fn buckets(
        &self,
        scope: ScopeNumber,
        collection: CollectionId,
    ) -> Result<Buckets, Failure> {
        match self.digests.get(&(scope, collection)) {
            Some(buckets) => Ok(buckets.clone()),
            None => read_buckets(self.connection, scope, collection),
        }
    }

    fn buckets_mut(
        &mut self,
        scope: ScopeNumber,
        collection: CollectionId,
    ) -> Result<&mut Buckets, Failure> {
        use std::collections::btree_map::Entry;
        match self.digests.entry((scope, collection)) {
            Entry::Occupied(present) => Ok(present.into_mut()),
            Entry::Vacant(absent) => {
                Ok(absent.insert(read_buckets(self.connection, scope, collection)?))
            }
        }
    }

    /// Forgets everything that was counted in a scope.
    pub(super) fn drop_digests(&mut self, scope: ScopeNumber) -> Result<(), Failure> {
        self.digests.retain(|(counted, _), _| *counted != scope);
        self.known.totals.0.retain(|(counted, _), _| *counted != scope);
        self.connection
            .prepare_cached("DELETE FROM fs_digests WHERE scope = ?1")?
            .execute([scope.0])?;
        Ok(())
    }

    /// Forgets everything that was counted, before it is counted anew.
    pub(super) fn drop_all_digests(&mut self) -> Result<(), Failure> {
        self.digests.clear();
        self.known.totals.0.clear();
        self.connection.prepare_cached("DELETE FROM fs_digests")?.execute([])?;
        Ok(())
    }

    /// Writes the changed buckets; the totals then say what the tables say.
    pub(super) fn save_digests(&mut self) -> Result<(), Failure> {
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO fs_digests (scope, collection, total, buckets) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (scope, collection) DO UPDATE SET total = excluded.total, buckets = excluded.buckets",
        )?;
        for ((scope, collection), buckets) in std::mem::take(&mut self.digests) {
            let total = buckets.total();
            statement.execute(params![
                scope.0,
                collection.0,
                sum_to_sql(total),
                buckets.to_bytes()
            ])?;
            self.known.totals.0.insert((scope, collection), total);
        }
        Ok(())
    }
}

fn read_buckets(
    connection: &Connection,
    scope: ScopeNumber,
    collection: CollectionId,
) -> Result<Buckets, Failure> {
    let mut statement = connection
        .prepare_cached("SELECT buckets FROM fs_digests WHERE scope = ?1 AND collection = ?2")?;
    let bytes: Option<Vec<u8>> =
        statement.query_row(params![scope.0, collection.0], |row| row.get(0)).optional()?;
    bytes.map_or_else(
        || Ok(Buckets::default()),
        |bytes| {
            Buckets::from_bytes(&bytes).ok_or_else(|| Failure::damaged("fs_digests: not 256 sums"))
        },
    )
}
