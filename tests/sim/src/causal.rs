//! Causal consistency, judged from what transactions read and wrote, in the manner of the public Jepsen test for
//! PowerSync.
//!
//! A register is a set to which writes add numbers that nobody else writes, and its value is the largest of them: the
//! largest write wins. What a read brings back is the whole set, so that it tells every write that it has seen, not
//! only the one that won.
//!
//! Each plan of [`crate::plan::Plan::draw_causal`] has transactions of reads and writes, one kind of fault, and a final
//! read on every device; [`errors`] says what was wrong, and [`Table`] counts it by kind of fault.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use farshore_client::store::ColumnValue;
use farshore_sync_core::ids::RowId;
use farshore_sync_core::value::Value;

use crate::history::{Deed, Fate, History, View};
use crate::plan::CausalFault;
use crate::shape::{REGISTERS, VALUES_COLUMN};

/// What registers held when somebody read them.
pub type Seen = BTreeMap<RowId, BTreeSet<i64>>;

/// What one transaction read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Read {
    /// Every register that its device knew.
    pub seen: Seen,
    /// Whether the device was still in its first fill, which it says, and which shows rows as they come.
    pub filling: bool,
}

/// One transaction of reads and writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The device that made it.
    pub device: usize,
    /// What it read before it wrote.
    pub read: Read,
    /// What it wrote.
    pub wrote: Vec<(RowId, i64)>,
    /// What became of it.
    pub fate: Fate,
}

/// What is wrong with a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Error {
    /// A read brought back what nobody wrote.
    Phantom,
    /// A device did not see what it had written before.
    OwnWriteMissing,
    /// A device saw less than it had seen before.
    WentBack,
    /// A read saw a part of a transaction.
    Torn,
    /// A read saw a transaction and not what that had seen.
    EffectBeforeCause,
    /// What was accepted is in no final read.
    Lost,
    /// Final reads differ.
    Diverged,
}

impl Error {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Phantom,
        Self::OwnWriteMissing,
        Self::WentBack,
        Self::Torn,
        Self::EffectBeforeCause,
        Self::Lost,
        Self::Diverged,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Phantom => "phantom",
            Self::OwnWriteMissing => "own write missing",
            Self::WentBack => "went back",
            Self::Torn => "torn",
            Self::EffectBeforeCause => "effect before cause",
            Self::Lost => "lost",
            Self::Diverged => "diverged",
        }
    }
}

/// What a run read and wrote, and what is wrong with it.
#[derive(Debug, Clone, Default)]
pub struct Causal {
    /// The transactions.
    pub steps: Vec<Step>,
    /// What is wrong.
    pub errors: Vec<(Error, String)>,
}

impl Causal {
    /// Judges a history by the final reads of its devices.
    #[must_use]
    pub fn judge(history: &History, last: &[Seen]) -> Self {
        let steps = history.transactions.iter().filter_map(|made| {
            let wrote = made.deeds.iter().filter_map(|deed| match deed {
                Deed::SetAdd { cell: ((_, row), _), element } => Some((*row, int(element)?)),
                _ => None,
            });
            let (device, read, fate) = (made.device, made.read.clone()?, made.fate);
            Some(Step { device, read, wrote: wrote.collect(), fate })
        });
        let steps: Vec<Step> = steps.collect();
        let errors = errors(&steps, last);
        Self { steps, errors }
    }
}

/// The registers of a copy.
#[must_use]
pub fn registers(view: &View) -> Seen {
    let sets = view.iter().filter(|((collection, _), _)| collection == REGISTERS);
    let seen = sets.filter_map(|((_, row), columns)| match columns.get(VALUES_COLUMN)? {
        ColumnValue::Set(values) => Some((*row, values.iter().filter_map(int).collect())),
        _ => None,
    });
    seen.collect()
}

/// The number that an element of a register is.
#[must_use]
pub const fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Int(int) => Some(*int),
        _ => None,
    }
}

/// Everything that is wrong with a history: transactions in the order in which they were made, and the final reads.
#[must_use]
pub fn errors(steps: &[Step], last: &[Seen]) -> Vec<(Error, String)> {
    let mut judge = Judge::new(steps);
    let mut of_device: BTreeMap<usize, (Seen, Vec<(RowId, i64)>)> = BTreeMap::new();
    for (at, step) in steps.iter().enumerate() {
        let (before, own) = of_device.entry(step.device).or_default();
        judge.read(&format!("transaction {at} of device {}", step.device), &step.read, before, own);
        before.clone_from(&step.read.seen);
        own.extend(step.wrote.iter().filter(|_| step.fate != Fate::Refused));
    }
    for (device, seen) in last.iter().enumerate() {
        let (before, own) = of_device.entry(device).or_default();
        let read = Read { seen: seen.clone(), filling: false };
        judge.read(&format!("the final read of device {device}"), &read, before, own);
        if seen != &last[0] {
            judge.found.push((Error::Diverged, format!("device {device} and device 0 differ")));
        }
    }
    for (at, step) in steps.iter().enumerate().filter(|(_, step)| step.fate == Fate::Accepted) {
        let lost = step.wrote.iter().find(|write| !last.iter().any(|seen| holds(seen, write)));
        if let Some((row, value)) = lost {
            judge.found.push((Error::Lost, format!("{value} in {row}, of transaction {at}")));
        }
    }
    judge.found
}

fn holds(seen: &Seen, (row, value): &(RowId, i64)) -> bool {
    seen.get(row).is_some_and(|values| values.contains(value))
}

struct Judge<'a> {
    steps: &'a [Step],
    /// The transaction that wrote each number.
    writers: BTreeMap<(RowId, i64), usize>,
    found: Vec<(Error, String)>,
}

impl<'a> Judge<'a> {
    fn new(steps: &'a [Step]) -> Self {
        let writes = steps.iter().enumerate();
        let writers =
            writes.flat_map(|(at, step)| step.wrote.iter().map(move |write| (*write, at)));
        Self { steps, writers: writers.collect(), found: Vec::new() }
    }

    /// Judges one read by what its device read and wrote before.
    fn read(&mut self, name: &str, read: &Read, before: &Seen, own: &[(RowId, i64)]) {
        let Read { seen, filling } = read;
        let mut say = |error, what: String| self.found.push((error, format!("{name}: {what}")));
        if let Some((row, value)) = own.iter().find(|write| !holds(seen, write)) {
            say(Error::OwnWriteMissing, format!("{value} in {row}"));
        }
        if let Some((row, value)) = missing(before, seen) {
            say(Error::WentBack, format!("{value} in {row}"));
        }
        let mut seen_transactions = BTreeSet::new();
        for (row, values) in seen {
            for value in values {
                match self.writers.get(&(*row, *value)) {
                    Some(at) => {
                        seen_transactions.insert(*at);
                    }
                    None => say(Error::Phantom, format!("{value} in {row}")),
                }
            }
        }
        for at in seen_transactions.into_iter().filter(|_| !filling) {
            let writer = &self.steps[at];
            if let Some((row, value)) = writer.wrote.iter().find(|write| !holds(seen, write)) {
                say(Error::Torn, format!("{value} in {row} of transaction {at} is missing"));
            }
            if let Some((row, value)) = missing(&writer.read.seen, seen) {
                let what = format!("transaction {at}, and not {value} in {row} that it had seen");
                say(Error::EffectBeforeCause, what);
            }
        }
    }
}

/// Something that one read has and another lacks.
fn missing(has: &Seen, lacks: &Seen) -> Option<(RowId, i64)> {
    has.iter().find_map(|(row, values)| {
        let absent = values.iter().find(|value| !holds(lacks, &(*row, **value)))?;
        Some((*row, *absent))
    })
}

/// What runs showed, by kind of fault.
#[derive(Debug, Clone, Default)]
pub struct Table(BTreeMap<CausalFault, Line>);

#[derive(Debug, Clone, Default)]
struct Line {
    runs: u64,
    transactions: u64,
    reads: u64,
    /// Runs with each kind of error.
    errors: BTreeMap<Error, u64>,
    other: u64,
}

impl Table {
    /// Counts a run, and whether something else was wrong with it.
    pub fn add(&mut self, fault: CausalFault, causal: &Causal, other: bool) {
        let Causal { steps, errors } = causal;
        let line = self.0.entry(fault).or_default();
        line.runs += 1;
        line.transactions += steps.len() as u64;
        line.reads += steps.iter().map(|step| step.read.seen.len() as u64).sum::<u64>();
        let kinds: BTreeSet<Error> = errors.iter().map(|(error, _)| *error).collect();
        kinds.into_iter().for_each(|error| *line.errors.entry(error).or_default() += 1);
        line.other += u64::from(other && errors.is_empty());
    }

    /// Runs in which something was wrong.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.0.values().map(|line| line.errors.values().sum::<u64>() + line.other).sum()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "| fault | runs | transactions | reads |")?;
        Error::ALL.iter().try_for_each(|error| write!(formatter, " {} |", error.as_str()))?;
        writeln!(formatter, " other |")?;
        writeln!(formatter, "|{}", "---|".repeat(5 + Error::ALL.len()))?;
        for (fault, line) in &self.0 {
            let Line { runs, transactions, reads, .. } = line;
            write!(formatter, "| {} | {runs} | {transactions} | {reads} |", fault.as_str())?;
            for error in Error::ALL {
                let runs = line.errors.get(&error).copied().unwrap_or_default();
                write!(formatter, " {runs} |")?;
            }
            writeln!(formatter, " {} |", line.other)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u8) -> RowId {
        RowId::from_bytes([number; 16])
    }

    fn seen(values: &[(u8, &[i64])]) -> Seen {
        values.iter().map(|(at, values)| (row(*at), values.iter().copied().collect())).collect()
    }

    fn step(device: usize, saw: &[(u8, &[i64])], wrote: &[(u8, i64)]) -> Step {
        let wrote = wrote.iter().map(|(at, value)| (row(*at), *value)).collect();
        let read = Read { seen: seen(saw), filling: false };
        Step { device, read, wrote, fate: Fate::Accepted }
    }

    fn kinds(steps: &[Step], last: &[Seen]) -> Vec<Error> {
        errors(steps, last).into_iter().map(|(error, _)| error).collect()
    }

    /// Device 0 writes 1 and 2; device 1 has seen that and writes 3.
    fn history() -> Vec<Step> {
        vec![step(0, &[], &[(1, 1), (2, 2)]), step(1, &[(1, &[1]), (2, &[2])], &[(1, 3)])]
    }

    #[test]
    fn what_is_causal_has_no_error() {
        let all = seen(&[(1, &[1, 3]), (2, &[2])]);
        assert_eq!(kinds(&history(), &[all.clone(), all]), []);
    }

    #[test]
    fn each_error_is_found_where_it_is_planted() {
        let all = || seen(&[(1, &[1, 3]), (2, &[2])]);
        let found = |more: Vec<Step>, last: [Seen; 2]| {
            let steps: Vec<Step> = history().into_iter().chain(more).collect();
            kinds(&steps, &last).into_iter().collect::<BTreeSet<_>>()
        };
        let with = |step: Step| found(vec![step], [all(), all()]);
        assert_eq!(with(step(2, &[(1, &[9])], &[])), [Error::Phantom].into());
        assert!(with(step(0, &[], &[])).contains(&Error::OwnWriteMissing));
        assert!(with(step(1, &[(1, &[3])], &[])).contains(&Error::WentBack));
        assert_eq!(with(step(2, &[(1, &[1])], &[])), [Error::Torn].into());
        assert_eq!(with(step(2, &[(1, &[3])], &[])), [Error::EffectBeforeCause].into());
        let mut filling = step(2, &[(1, &[3])], &[]);
        filling.read.filling = true;
        assert_eq!(with(filling), [].into());
        let lost = seen(&[(1, &[1]), (2, &[2])]);
        let expected = [Error::OwnWriteMissing, Error::Lost].into();
        assert_eq!(found(vec![], [lost.clone(), lost.clone()]), expected);
        assert!(found(vec![], [all(), lost]).contains(&Error::Diverged));
    }

    #[test]
    fn what_was_refused_may_be_missing() {
        let mut steps = history();
        steps[1].fate = Fate::Refused;
        let without = seen(&[(1, &[1]), (2, &[2])]);
        assert_eq!(kinds(&steps, &[without.clone(), without]), []);
    }

    #[test]
    fn the_table_counts_runs_by_fault() {
        let mut table = Table::default();
        let with = |errors| Causal { steps: history(), errors };
        table.add(CausalFault::Partition, &with(vec![]), false);
        assert_eq!(table.failed(), 0);
        table.add(CausalFault::Partition, &with(vec![(Error::Torn, String::new())]), true);
        table.add(CausalFault::None, &with(vec![]), true);
        assert_eq!(table.failed(), 2);
        assert!(
            table.to_string().contains("| partition | 2 | 4 | 4 | 0 | 0 | 0 | 1 | 0 | 0 | 0 | 0 |")
        );
    }
}
