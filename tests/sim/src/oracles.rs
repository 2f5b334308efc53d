//! What must hold, judged from what apps did and saw. Nothing here knows how merging, syncing or storing works.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use farshore_client::store::ColumnValue;
use farshore_sync_core::ids::Scope;
use farshore_sync_core::schema::Schema;
use farshore_sync_core::value::Value;

use crate::history::{Cell, Deed, Fate, History, RowKey, View};
use crate::network::{Leak, Unwarranted};
use crate::shape::{self, ADDED_DEFAULT, Role, SITE_COLUMN, Shape, TEXT_FIELD};

mod final_state;
mod watch;

#[cfg(test)]
mod tests;

pub use final_state::judge;
pub use watch::{Watch, own_writes};

/// Something that must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// What the server said that it has is not there.
    LostWrite(String),
    /// What was refused, deleted, overwritten or never written is there.
    CameBack(String),
    /// A counter, a set or a text has something once too often or too rarely.
    NotOnce(String),
    /// Two copies of one scope differ.
    Diverged(String),
    /// A digest is not that of the rows.
    Digest(String),
    /// A copy had to be mended although nothing damaged it.
    Mended(String),
    /// A part of a transaction could be seen.
    Torn(String),
    /// A device saw less than it had seen or written before.
    WentBack(String),
    /// A device said of itself what was not so.
    Lied(String),
    /// A queue did not drain.
    Stuck(String),
    /// Bytes of a tenant stood where they have no business.
    Leaked(String),
    /// A device was sent or shows rows that it may not read, or was let write where it may not.
    NotGranted(String),
    /// A stamp is in the future of the server.
    Clock(String),
    /// What was read is not causally consistent.
    Causal(String),
    /// The SDK or the server failed.
    Failed(String),
}

impl Violation {
    /// The oracle that found it, as a word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::LostWrite(_) => "lost write",
            Self::CameBack(_) => "came back",
            Self::NotOnce(_) => "not once",
            Self::Diverged(_) => "diverged",
            Self::Digest(_) => "digest",
            Self::Mended(_) => "mended",
            Self::Torn(_) => "torn",
            Self::WentBack(_) => "went back",
            Self::Lied(_) => "lied",
            Self::Stuck(_) => "stuck",
            Self::Leaked(_) => "leaked",
            Self::NotGranted(_) => "not granted",
            Self::Clock(_) => "clock",
            Self::Causal(_) => "causal",
            Self::Failed(_) => "failed",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::LostWrite(what)
        | Self::CameBack(what)
        | Self::NotOnce(what)
        | Self::Diverged(what)
        | Self::Digest(what)
        | Self::Mended(what)
        | Self::Torn(what)
        | Self::WentBack(what)
        | Self::Lied(what)
        | Self::Stuck(what)
        | Self::Leaked(what)
        | Self::NotGranted(what)
        | Self::Clock(what)
        | Self::Causal(what)
        | Self::Failed(what)) = self;
        write!(formatter, "{}: {what}", self.kind())
    }
}

/// The scope of a row that somebody sees.
#[must_use]
pub fn scope_of(
    shape: &Shape,
    row: &RowKey,
    columns: &BTreeMap<String, ColumnValue>,
) -> Option<Scope> {
    let collection = shape.collections.iter().find(|collection| collection.name == row.0)?;
    if !collection.by_site {
        return Some(shape::tenant_scope());
    }
    match columns.get(SITE_COLUMN)? {
        ColumnValue::Scalar(Value::Text(site)) => Some(shape::site_scope(site)),
        _ => None,
    }
}

/// Two copies must show the same rows of the scopes that both hold, as far as both apps know the columns.
#[must_use]
pub fn compare(
    shape: &Shape,
    names: (&str, &str),
    one: &View,
    other: &View,
    common: (&[Scope], &Schema),
) -> Vec<Violation> {
    let (scopes, schema) = common;
    let in_common = |view: &View| -> BTreeSet<RowKey> {
        let rows = view.iter().filter(|(row, columns)| {
            schema.collection_named(&row.0).is_some()
                && scope_of(shape, row, columns).is_some_and(|scope| scopes.contains(&scope))
        });
        rows.map(|(row, _)| row.clone()).collect()
    };
    let (ones, others) = (in_common(one), in_common(other));
    let mut found = Vec::new();
    for row in ones.symmetric_difference(&others) {
        let (has, lacks) = if ones.contains(row) { names } else { (names.1, names.0) };
        found.push(Violation::Diverged(format!("{has} has {row:?} and {lacks} has not")));
    }
    for row in ones.intersection(&others) {
        for (column, value) in &one[row] {
            let theirs = other[row].get(column);
            if theirs.is_some_and(|theirs| theirs != value) {
                let what = format!(
                    "{row:?}.{column} is {value:?} on {} and {theirs:?} on {}",
                    names.0, names.1
                );
                found.push(Violation::Diverged(what));
            }
        }
    }
    found
}

/// A device must show no row of a scope that it may not read.
#[must_use]
pub fn only_granted(shape: &Shape, name: &str, view: &View, granted: &[Scope]) -> Vec<Violation> {
    let foreign = view.iter().filter(|(row, columns)| {
        scope_of(shape, row, columns).is_none_or(|scope| !granted.contains(&scope))
    });
    foreign.map(|(row, _)| Violation::NotGranted(format!("{name} shows {row:?}"))).collect()
}

/// No frame, log line, metric or refusal may hold a byte of a tenant that it is not about.
#[must_use]
pub fn leaks(found: &[Leak]) -> Vec<Violation> {
    let text = |leak: &Leak| format!("{} held bytes of tenant {}", leak.place, leak.of_tenant);
    found.iter().map(|leak| Violation::Leaked(text(leak))).collect()
}

/// Whoever is suspended is sent no more rows.
#[must_use]
pub fn unwarranted(found: &[Unwarranted]) -> Vec<Violation> {
    let text = |sent: &Unwarranted| {
        format!("device {} was sent rows {} ms after its suspension", sent.device, sent.after_ms)
    };
    found.iter().map(|sent| Violation::NotGranted(text(sent))).collect()
}
